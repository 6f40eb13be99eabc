"""The constrained search of one cell: an Optuna study that is a pure function of the spec and of results.

The study is asked for suggestions in batches of a fixed size, each batch with a sampler seeded for it. Once a batch is
complete, the study is told its results in number order. So the suggestions never depend on timing, on the number of
workers, or on which trial ends first.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import optuna
from optuna.trial import TrialState

from orchestrator.core.metrics import lower_is_better
from orchestrator.search.suggestion import Outcome, Suggestion, rank
from orchestrator.spec.cells import Cell
from orchestrator.spec.fields import ResolvedRequest
from orchestrator.spec.sweep_spec import SweepSpec
from orchestrator.spec.trial_spec import TrialSpec
from orchestrator.streams.facts import Phase
from search_spaces import to_optuna
from strategies import derive_seed

_STARTUP_SUGGESTIONS = 8
"""Random suggestions before TPE takes over; a constant, so that a larger budget extends a search without redoing it."""


@dataclass(frozen=True)
class PlannedTrial:
    """A trial to run, with its place in the search.

    Args:
        spec: the trial.
        cell: its cell.
        suggestion: the number of its suggestion in that cell.
        request: what it asks of the cluster.
    """

    spec: TrialSpec
    cell: Cell
    suggestion: int
    request: ResolvedRequest


class CellSearch:
    """The search of one cell: batches of suggestions over the search seeds, then the chosen one over the confirm seeds.

    A cell with nothing to search runs its one suggestion on the seeds of both phases. `keys` holds the key of every
    trial that it has planned so far.

    Args:
        spec: the sweep.
        cell: the scenario and method.
        fingerprint: hash of the cell's data set.
        on_tell: called with this search and the Optuna trial after the study was told a result.
    """

    def __init__(
        self,
        spec: SweepSpec,
        cell: Cell,
        fingerprint: str,
        on_tell: Callable[[CellSearch, optuna.trial.FrozenTrial], None] | None = None,
    ) -> None:
        self.spec = spec
        self.cell = cell
        self.suggestions: list[Suggestion] = []
        self.chosen: Suggestion | None = None
        self.is_finished = False
        self.is_blocked = False
        self.keys: set[str] = set()
        self._fingerprint = fingerprint
        self._on_tell = on_tell
        self._asked: dict[int, optuna.Trial] = {}
        self._waiting: dict[str, list[tuple[Suggestion, int, Phase]]] = {}
        self._study: optuna.Study | None = None

    @property
    def n_expected(self) -> int:
        """Return how many trials this cell has in total, including the confirm phase."""
        budget = self.spec.search.suggestions if self.cell.is_searched else 1
        return budget * len(self.spec.seeds.of("search")) + len(self.spec.seeds.of("confirm"))

    @property
    def n_recorded(self) -> int:
        """Return how many outcomes are known; a trial that two suggestions share counts twice."""
        return sum(len(outcomes) for s in self.suggestions for outcomes in s.outcomes.values())

    @property
    def n_unknown(self) -> int:
        """Return how many outcomes are still to come, at most; 0 once the cell is finished."""
        return 0 if self.is_finished else self.n_expected - self.n_recorded

    def start(self) -> list[PlannedTrial]:
        """Return the first trials."""
        if self.cell.is_searched:
            self._study = optuna.create_study(direction=self.study_direction)
            return self._ask_batch()
        only = Suggestion(0, {})
        self.suggestions = [only]
        self.chosen = only
        return self._plan(only, "search") + self._plan(only, "confirm")

    def record(self, key: str, outcome: Outcome) -> list[PlannedTrial]:
        """Record the outcome of a trial and return the trials that follow from it, often none."""
        for suggestion, seed, phase in self._waiting.pop(key, []):
            suggestion.outcomes[phase][seed] = outcome
            self.is_blocked |= outcome.status == "error"
        if self._waiting:
            return []
        if self.is_blocked:
            return []
        if not self.cell.is_searched or self.chosen is not None:
            self.is_finished = True
            return []
        self._tell_batch()
        if len(self.suggestions) < self.spec.search.suggestions:
            return self._ask_batch()
        self.chosen = self.best_feasible()
        if self.chosen is None:
            self.is_finished = True
            return []
        return self._plan(self.chosen, "confirm")

    @property
    def judged_phase(self) -> Phase:
        """Return the phase that suggestions are judged by: `search`, or `confirm` if the sweep has no search seeds."""
        return "search" if self.spec.seeds.of("search") else "confirm"

    def feasible(self) -> list[Suggestion]:
        """Return the suggestions that are measured on every seed and meet every limit."""
        phase, n_seeds = self.judged_phase, len(self.spec.seeds.of(self.judged_phase))
        return [s for s in self.suggestions if len(s.outcomes[phase]) == n_seeds and s.is_feasible(phase, self.spec)]

    def best_feasible(self) -> Suggestion | None:
        """Return the feasible suggestion with the best mean objective so far, or None."""
        return self.best_of(self.feasible())

    def best_of(self, suggestions: Iterable[Suggestion]) -> Suggestion | None:
        """Return the suggestion with the best mean objective, the first of equals, or None if there are none."""
        metric, phase = self.spec.objective, self.judged_phase
        return min(suggestions, key=lambda s: (rank(metric, s.mean(phase, metric)), s.number), default=None)

    def nearest_miss(self, phase: Phase = "search") -> Suggestion | None:
        """Return the suggestion that violates the limits least, or None if none completed."""
        known = [s for s in self.suggestions if s.total_violation(phase, self.spec) < math.inf]
        return min(known, key=lambda s: (s.total_violation(phase, self.spec), s.number), default=None)

    def _ask_batch(self) -> list[PlannedTrial]:
        assert self._study is not None
        settings, space = self.spec.search, self.cell.space
        first = len(self.suggestions)
        self._study.sampler = _sampler(
            settings.sampler, derive_seed(settings.seed, self.cell.name, first // settings.batch)
        )
        if first == 0 and space.start:
            self._study.enqueue_trial(dict(space.start))
        planned: list[PlannedTrial] = []
        for number in range(first, min(first + settings.batch, settings.suggestions)):
            trial = self._study.ask(to_optuna(space.distributions))
            suggestion = Suggestion(number, dict(trial.params))
            self._asked[number] = trial
            self.suggestions.append(suggestion)
            planned += self._plan(suggestion, "search")
        return planned

    def _tell_batch(self) -> None:
        """Tell the study the results of the batch in number order; a suggestion that misses any counts as failed."""
        assert self._study is not None
        for number, trial in sorted(self._asked.items()):
            suggestion = self.suggestions[number]
            violations = suggestion.violations("search", self.spec)
            objective = suggestion.mean("search", self.spec.objective)
            if math.isfinite(objective) and all(map(math.isfinite, violations)):
                for constraint, violation in zip(self.spec.constraints, violations, strict=True):
                    trial.set_constraint(constraint.name, violation)
                told = self._study.tell(trial, objective)
            else:
                told = self._study.tell(trial, state=TrialState.FAIL)
            if self._on_tell is not None:
                self._on_tell(self, told)
        self._asked.clear()

    def _plan(self, suggestion: Suggestion, phase: Phase) -> list[PlannedTrial]:
        planned = []
        request = self.spec.resources.of(self.cell.scenario, self.cell.method)
        for seed in self.spec.seeds.of(phase):
            trial = self.spec.trial(self.cell, suggestion.hyperparameters, seed, phase, self._fingerprint)
            self.keys.add(trial.key)
            waiting = self._waiting.setdefault(trial.key, [])
            if not waiting:
                planned.append(PlannedTrial(trial, self.cell, suggestion.number, request))
            waiting.append((suggestion, seed, phase))
        return planned

    @property
    def study_direction(self) -> Literal["minimize", "maximize"]:
        """Return whether Optuna minimizes or maximizes the objective."""
        return "minimize" if lower_is_better(self.spec.objective) else "maximize"


def _sampler(name: str, seed: int) -> optuna.samplers.BaseSampler:
    seed %= 2**32
    match name:
        case "random":
            return optuna.samplers.RandomSampler(seed=seed)
        case "gp":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                return optuna.samplers.GPSampler(seed=seed, n_startup_trials=_STARTUP_SUGGESTIONS)
        case _:
            return optuna.samplers.TPESampler(seed=seed, n_startup_trials=_STARTUP_SUGGESTIONS)
