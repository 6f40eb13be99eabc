"""All cells of a sweep behind one queue."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping

import optuna

from orchestrator.search.cell_search import CellSearch
from orchestrator.search.study import SuggestionLog
from orchestrator.search.suggestion import Outcome, PlannedTrial
from orchestrator.spec.fields import ResolvedRequest
from orchestrator.spec.sweep_spec import SweepSpec


class SweepSearch:
    """All cells of a sweep behind one queue: cached outcomes are recorded at once, the other trials wait to run.

    Args:
        spec: the sweep.
        fingerprints: data set -> hash.
        cached: outcomes of earlier runs by trial key; those with status `error` are tried again.
        on_tell: passed on to every `CellSearch`.
        log: what cells were asked before; what they are asked now is added to it.
    """

    def __init__(
        self,
        spec: SweepSpec,
        fingerprints: Mapping[str, str],
        cached: Mapping[str, Outcome],
        on_tell: Callable[[CellSearch, optuna.trial.FrozenTrial], None] | None = None,
        log: SuggestionLog | None = None,
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.spec = spec
        self.log: SuggestionLog = {} if log is None else log
        self.cells = [
            CellSearch(spec, cell, fingerprints[spec.data_of(cell.stream)], on_tell, self.log) for cell in spec.cells
        ]
        self.n_cached = 0
        self._known = {key: outcome for key, outcome in cached.items() if outcome.status != "error"}
        self._by_name = {search.cell.name: search for search in self.cells}
        self._running: dict[str, PlannedTrial] = {}
        self._waiting: dict[ResolvedRequest, deque[PlannedTrial]] = {}
        for search in self.cells:
            self._enqueue(search, search.start())

    @property
    def n_expected(self) -> int:
        """Return how many trials the sweep has in total, at most: a cell with nothing feasible is not confirmed."""
        return sum(search.n_expected for search in self.cells)

    @property
    def n_unknown(self) -> int:
        """Return how many outcomes are still to come, at most; 0 once every cell is finished."""
        return sum(search.n_unknown for search in self.cells)

    @property
    def n_waiting(self) -> int:
        """Return how many planned trials are not running."""
        return sum(map(len, self._waiting.values()))

    @property
    def running(self) -> tuple[PlannedTrial, ...]:
        """Return the trials that are handed out and have not ended."""
        return tuple(self._running.values())

    @property
    def is_finished(self) -> bool:
        """Return whether nothing is running and nothing will ever be waiting again."""
        return not self._running and not self.n_waiting

    def waiting_requests(self) -> list[ResolvedRequest]:
        """Return the distinct requests of the trials that wait."""
        return [request for request, queue in self._waiting.items() if queue]

    def waiting(self) -> Iterator[PlannedTrial]:
        """Yield the trials that wait, without handing them out."""
        for queue in self._waiting.values():
            yield from queue

    def cell_of(self, trial: PlannedTrial) -> CellSearch:
        """Return the search that a trial belongs to."""
        return self._by_name[trial.cell.name]

    def n_running(self, request: ResolvedRequest) -> int:
        """Return how many trials of this request are handed out."""
        return sum(trial.request == request for trial in self._running.values())

    def hand_out(self, request: ResolvedRequest) -> PlannedTrial:
        """Return the next waiting trial of this request and count it as running."""
        trial = self._waiting[request].popleft()
        self._running[trial.spec.key] = trial
        return trial

    def record(self, key: str, outcome: Outcome) -> PlannedTrial:
        """Record the outcome of a running trial; its cell may put more trials into the queue."""
        trial = self._running.pop(key)
        search = self.cell_of(trial)
        if outcome.status != "error":
            self._known[key] = outcome
        self._enqueue(search, search.record(key, outcome.under(trial.stop) or outcome))
        return trial

    def _enqueue(self, search: CellSearch, planned: list[PlannedTrial]) -> None:
        """Queue trials, or record their outcome if it is known, from the tables or from an equal suggestion."""
        todo = deque(planned)
        while todo:
            trial = todo.popleft()
            known = self._known.get(trial.spec.key)
            outcome = known.under(trial.stop) if known is not None else None
            if outcome is not None:
                self.n_cached += 1
                todo.extend(search.record(trial.spec.key, outcome))
            else:
                self._waiting.setdefault(trial.request, deque()).append(trial)
