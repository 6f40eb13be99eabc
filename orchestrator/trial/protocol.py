"""One trial: the full sequential protocol, in pure PyTorch, with no cluster and no tables."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from orchestrator.core.placement import Placement
from orchestrator.core.scores import Measurement, Score
from orchestrator.spec.trial_spec import TrialSpec
from orchestrator.storage.base import StoredFile
from orchestrator.streams.datasets import PhaseData
from orchestrator.streams.stream import Stream
from orchestrator.trial.checkpoint import Identity, delete_checkpoint, identity_of, load_checkpoint, save_checkpoint
from orchestrator.trial.diagnostics.tracker import Diagnostics
from orchestrator.trial.evaluation import Evaluator, WithinTasks
from orchestrator.trial.faults import is_shortage, judge
from orchestrator.trial.packed import as_text
from orchestrator.trial.provenance import peak_memory_bytes, provenance, reset_peak_memory
from orchestrator.trial.result import Status, TrialResult, counts_of, measurements, ranked_of
from orchestrator.trial.setup import set_up
from orchestrator.trial.stopping import StopRule, at_boundary, reason_of
from strategies import Generators, Learner

Report = Callable[[int, list[Measurement | None], Stream], None]
"""Called after each task with its index, what was measured then of each task (None if nothing), and the stream."""

SECONDS_BETWEEN_CHECKPOINTS = 10.0

_LOGGER = logging.getLogger("continual_sweep")


def run_trial(
    spec: TrialSpec,
    data: PhaseData,
    placement: Placement = Placement(),  # noqa: B008 (frozen)
    report: Report | None = None,
    checkpoint: Path | StoredFile | None = None,
    stop: StopRule | None = None,
    trained: Callable[[Learner, Stream], None] | None = None,
    planned_tasks: int = 0,
    diagnostics: bool = False,
) -> TrialResult:
    """Run the protocol of `spec` and return its result; an exception of the trial becomes a status and a reason.

    Args:
        spec: what to run.
        data: the arrays of the spec's phase.
        placement: where to run.
        report: called with each row of the accuracy matrix as it is measured.
        checkpoint: file that an interrupted trial continues from; deleted at the end, but for faults and stops.
        stop: when to stop at a task boundary.
        trained: called with what was trained, if the trial completed.
        planned_tasks: how many tasks there will be.
        diagnostics: whether to measure what goes on inside, which changes nothing else.
    """
    started, clock = datetime.now(UTC), time.perf_counter()
    status: Status = "completed"
    reason, run, chance_accuracy = "", None, None
    costs, details = dict[str, float](), dict[str, Any]()
    try:
        run = _begin(spec, data, placement, checkpoint, (planned_tasks, diagnostics))
        reason = run.execute(report, checkpoint, stop)
        status = "stopped" if reason else "completed"
        costs = run.costs(time.perf_counter() - clock)
        details, chance_accuracy = run.details(), run.evaluator.chance_accuracy(spec.incremental_type)
        if trained is not None and status == "completed":
            trained(run.learner, run.stream)
    except Exception as error:
        status, reason = judge(error)
        _LOGGER.info("trial %s raised", spec.key, exc_info=True)
    if checkpoint is not None and status not in ("error", "stopped"):
        delete_checkpoint(checkpoint)
    costs = costs or _known_costs(run, time.perf_counter() - clock)
    return TrialResult(
        spec.key,
        status,
        reason,
        costs=costs | {"peak_memory_bytes": peak_memory_bytes(placement)},
        provenance=provenance(placement) | {"started_at": started.isoformat(), "data_hash": spec.data_fingerprint},
        details=details,
        chance_accuracy=chance_accuracy,
        **(run.measured() if status in ("completed", "stopped") and run is not None else {}),
        stopped_after=run.stopped_after if run is not None else None,
        stop_rule=stop.to_json() if stop is not None else "",
    )


def _known_costs(run: _Protocol | None, seconds: float) -> dict[str, float]:
    """Return the costs of a trial that broke off; none if its method does not know its memory then."""
    with suppress(Exception):
        return run.costs(seconds) if run is not None else {}
    return {}


class _Protocol:
    """The state of one run of the protocol."""

    def __init__(
        self, spec: TrialSpec, data: PhaseData, placement: Placement, planned_tasks: int = 0, diagnostics: bool = False
    ) -> None:
        self.spec = spec
        self.device = torch.device(placement.device)
        torch.manual_seed(Generators(spec.seed).fresh("global").initial_seed())
        self.stream, self.learner = set_up(spec, data, self.device, planned_tasks=planned_tasks)
        self.evaluator = Evaluator(self.stream, self.learner, spec.ranked_scores)
        self.inside = Diagnostics(spec, self.stream, self.learner, self.evaluator) if diagnostics else None
        every = self.learner.settings.evaluate_every
        self.within = WithinTasks(self.evaluator, self.learner, every) if every else None
        self.first = self.next_task = data.start.n_learned if data.start is not None else 0
        self.stopped_after: int | None = None
        self.kept_bytes: float | None = None
        self.cells: list[list[Measurement | None]] = [[None] * self.stream.n_tasks for _ in range(self.first)]
        self.n_examples: list[int] = []
        self.examples: list[str] = []
        self.seconds = {"train_seconds": 0.0, "evaluate_seconds": 0.0, "resumed_seconds": 0.0}
        self._checkpoint: Path | StoredFile | None = None
        self._saved = self._trained = 0.0

    def execute(self, report: Report | None, checkpoint: Path | StoredFile | None, stop: StopRule | None) -> str:
        """Train task by task and measure R, from the present state on; return why a rule stopped it, empty if none did.

        The rule looks at every boundary again, since a trial that it let pass may go on under another.
        """
        self._checkpoint, self._saved = checkpoint, time.perf_counter()
        to_keep = self._bytes_to_keep()
        if reason := self._stops_at(-1, stop, {"kept_bytes": to_keep}):
            self.kept_bytes = to_keep
            return reason
        if not self.n_examples:
            self.n_examples = self.evaluator.n_examples()
            self._measure(self.first - 1, report)
        for index in range(self.first, self.next_task):
            if reason := self._stops(stop, index):
                return reason
        for index in range(self.next_task, self.stream.n_tasks):
            self._learn(index)
            self._measure(index, report)
            if self.inside is not None:
                self.inside.end_task(index)
            self.next_task = index + 1
            if self.next_task < self.stream.n_tasks:
                self._save_when_due()
                if reason := self._stops(stop, index):
                    return reason
        self.kept_bytes = float(sum(strategy.kept_bytes() for strategy in self.learner.strategies))
        if not math.isnan(to_keep) and self.kept_bytes != to_keep:
            raise ValueError(f"bytes_to_keep said {to_keep:.0f}, and kept_bytes is {self.kept_bytes:.0f}; correct it")
        if self.spec.phase == "confirm":
            self.examples = [self.stream.evaluation_hash(task) for task in range(self.stream.n_tasks)]
        return ""

    def _learn(self, index: int) -> None:
        task = self.stream.train(index)
        if self.inside is not None:
            self.inside.begin_task(task)
        self._trained = time.perf_counter()
        is_watched = self.inside is not None or self.within is not None
        self.learner.learn(task, (lambda: self._look(index)) if is_watched else self._save_when_due)
        self._count_training()
        if self.within is not None:
            self.within.end_task()

    def _look(self, index: int) -> None:
        """Measure what is due after a step, whose time is not the training's, then do what is due after each step."""
        clock = time.perf_counter()
        if self.inside is not None:
            self.inside.after_step()
        if self.within is not None:
            before = self.within.seconds
            self.within.after_step(index)
            self.seconds["evaluate_seconds"] += self.within.seconds - before
        self._trained += time.perf_counter() - clock
        self._save_when_due()

    def _bytes_to_keep(self) -> float:
        """Return what the method will keep after the last task, NaN if it does not know, as from a model."""
        if self.first or not all(strategy.knows_kept_bytes for strategy in self.learner.strategies):
            return math.nan
        sizes = self.stream.sizes()
        found = [strategy.bytes_to_keep(sizes) for strategy in self.learner.strategies]
        return float(sum(math.nan if n_bytes is None else n_bytes for n_bytes in found))

    def _stops(self, stop: StopRule | None, after: int) -> str:
        """Return why a rule stops the trial after a task; empty if it does not."""
        if stop is None:
            return ""
        so_far = TrialResult(self.spec.key, "stopped", **self.measured())
        values = at_boundary(stop.quantities, after, so_far.scores, self.stream.task_names, Score.parse(stop.score))
        return self._stops_at(after, stop, values)

    def _stops_at(self, after: int, stop: StopRule | None, values: Mapping[str, float]) -> str:
        test = stop.broken(values, after) if stop is not None else None
        if test is None:
            return ""
        self.stopped_after = after
        return reason_of(test, values[test.quantity], after, self.stream.n_tasks)

    def costs(self, seconds: float) -> dict[str, float]:
        """Return the cost columns, without diagnostics; `seconds` is the time since the trial began or resumed here."""
        apart = self.inside.seconds if self.inside is not None else 0.0
        return {
            "seconds": seconds - apart + self.seconds["resumed_seconds"],
            "train_seconds": self.seconds["train_seconds"],
            "evaluate_seconds": self.seconds["evaluate_seconds"],
            "n_parameters": float(self.learner.n_parameters),
            "kept_bytes": float(sum(s.kept_bytes() for s in self.learner.strategies))
            if self.kept_bytes is None
            else self.kept_bytes,
        }

    def measured(self) -> dict[str, Any]:
        """Return what was measured, as fields of the result."""
        return {
            "n_correct": [[None if cell is None else sum(cell.n_right) for cell in row] for row in self.cells],
            "n_examples": self.n_examples,
            "task_names": list(self.stream.task_names),
            "class_names": self.stream.class_names,
            "measured": counts_of(self.cells),
            "ranked": ranked_of(self.cells),
            "positive_class": self.stream.positive_class,
            "right": _right(self.cells) if self.examples else [],
            "examples": self.examples,
            "diagnostics": self.inside.rows if self.inside is not None else [],
            **(self.within.measured() if self.within is not None else {}),
        }

    def details(self) -> dict[str, Any]:
        """Return what the strategies report about themselves, and why diagnostics are missing."""
        found = {s.name: facts for s in self.learner.strategies if (facts := s.report())}
        lacks = self.inside.fault if self.inside is not None else ""
        return found | ({"diagnostics": f"not complete: {lacks}"} if lacks else {})

    def load(self, path: Path | StoredFile) -> bool:
        """Continue from the checkpoint if there is one; return False if loading broke off, and this object is unusable.

        Raises:
            Exception: if memory runs out or the GPU fails; the checkpoint is fine then.
        """
        payload = load_checkpoint(path, self._identity)
        if payload is None:
            return True
        try:
            self.next_task = payload["next_task"]
            self.cells = measurements(payload["measured"], payload["ranked"], payload["right"])
            self.n_examples = payload["n_examples"]
            self.seconds = payload["seconds"]
            self.learner.load_state_dict(payload["learner"])
            if self.inside is not None:
                self.inside.load_state_dict(payload["inside"], self.next_task)
            if self.within is not None:
                self.within.load(payload["within"])
        except Exception as error:
            if is_shortage(error):
                raise
            return False
        return True

    def _measure(self, after: int, report: Report | None) -> None:
        """Append row `after` of R: the tasks seen so far, or all tasks in `domain`, which has forward transfer."""
        clock = time.perf_counter()
        n_tasks = self.stream.n_tasks
        measured = n_tasks if self.spec.incremental_type == "domain" else after + 1
        row = [
            self.evaluator.measure(task, self._keeps_each(after, task)) if task < measured else None
            for task in range(n_tasks)
        ]
        self.cells.append(row)
        self.seconds["evaluate_seconds"] += time.perf_counter() - clock
        if report is not None:
            report(after, row, self.stream)

    def _keeps_each(self, after: int, task: int) -> bool:
        """Return whether a cell of R keeps which examples were right: a task just learned, or any at the end or start.

        These cells say what one model, or a model that replaces another, gets right and has unlearned. All cells would
        take T / 2 times as much.
        """
        whole = after == self.stream.n_tasks - 1 or (self.first and after == self.first - 1)
        return self.spec.phase == "confirm" and bool(after == task or whole)

    def _count_training(self) -> None:
        now = time.perf_counter()
        self.seconds["train_seconds"] += now - self._trained
        self._trained = now

    def _save_when_due(self) -> None:
        """Write a checkpoint if the last one is old enough; called between two steps and between two tasks.

        If the system refuses, the trial goes on without: a checkpoint only saves time.
        """
        if self._checkpoint is None or time.perf_counter() - self._saved < SECONDS_BETWEEN_CHECKPOINTS:
            return
        if self.learner.inside_task:
            self._count_training()
        with suppress(OSError):
            self._save(self._checkpoint)
        self._saved = time.perf_counter()

    def _save(self, path: Path | StoredFile) -> None:
        payload = {
            "next_task": self.next_task,
            "measured": counts_of(self.cells),
            "ranked": ranked_of(self.cells),
            "right": _right(self.cells),
            "n_examples": self.n_examples,
            "seconds": self.seconds
            | {"resumed_seconds": self.seconds["train_seconds"] + self.seconds["evaluate_seconds"]},
            "learner": self.learner.state_dict(),
            "inside": self.inside.state_dict() if self.inside is not None else None,
            "within": self.within.measured() if self.within is not None else None,
        }
        save_checkpoint(path, self._identity, payload)

    @cached_property
    def _identity(self) -> Identity:
        return identity_of(self.spec.key, self.device, map(type, self.learner.strategies))


def _begin(
    spec: TrialSpec,
    data: PhaseData,
    placement: Placement,
    checkpoint: Path | StoredFile | None,
    options: tuple[int, bool],
) -> _Protocol:
    """Return the state that a usable checkpoint holds, else the state at the beginning.

    Raises:
        OSError: if the trial asks for a GPU that is not there.
    """
    if placement.device == "cuda" and not torch.cuda.is_available():
        raise OSError("the trial asks for CUDA, and this worker has no GPU that torch can use")
    reset_peak_memory(placement)
    run = _Protocol(spec, data, placement, *options)
    return run if checkpoint is None or run.load(checkpoint) else _Protocol(spec, data, placement, *options)


def _right(cells: list[list[Measurement | None]]) -> list[list[str | None]]:
    return [[None if cell is None else as_text(cell.right) for cell in row] for row in cells]
