"""What a tracker is told: the sweep, each trial with its values by task boundary, and how it ended."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from orchestrator.core.canonical import short_hash
from orchestrator.core.metrics import METRICS_AND_COSTS
from orchestrator.core.scores import Score
from orchestrator.results.rows import load_json, matrices_of
from orchestrator.search.suggestion import PlannedTrial
from orchestrator.trial.result import TrialResult
from orchestrator.trial.stopping import at_boundary

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from orchestrator.execution.session import Session
    from orchestrator.results.run import Run
    from orchestrator.search.answers.full_answer import Answer

_AT_BOUNDARIES = ("average", "forgetting", "worst_forgetting", "backward_transfer")


@dataclass(frozen=True)
class SweepRecord:
    """A sweep.

    Args:
        id: the same for every command on the same run folder, and for no other.
        name: of the spec.
        tags: what is asked, as text.
    """

    id: str
    name: str
    tags: Mapping[str, str]


@dataclass(frozen=True)
class TrialRecord:
    """A trial that ended.

    Args:
        key: its key.
        scenario: of its cell.
        method: of its cell.
        suggestion: its number in the cell.
        hyperparameters: all of them, with fixed values and defaults.
        seed: its seed.
        split: `validation` or `test`.
        phase: `search`, `finals` or `confirm`.
        status: how it ended.
        reason: why it did not complete.
        metrics: metric or cost -> value, the finite ones.
        boundaries: for each number of tasks learned, 0 first, name -> value: `score/TASK`, and metrics of R cut there.
    """

    key: str
    scenario: str
    method: str
    suggestion: int
    hyperparameters: Mapping[str, Any]
    seed: int
    split: str
    phase: str
    status: str
    reason: str
    metrics: Mapping[str, float]
    boundaries: tuple[Mapping[str, float], ...] = ()

    @property
    def cell(self) -> str:
        """Return the name of its cell."""
        return f"{self.scenario} {self.method}"

    @property
    def group(self) -> str:
        """Return what all trials of one suggestion share, and no others: a hash of the cell and hyper-parameters."""
        return short_hash([self.cell, dict(self.hyperparameters)])


@dataclass(frozen=True)
class EndRecord:
    """How a sweep ended.

    Args:
        is_complete: whether no trial is missing.
        answers: scenario -> the recommendation in words.
        chosen: the suggestion that stands for each cell, as (scenario, method, number).
        files: name -> content of what is kept with it: the page, the answer for machines, the spec.
    """

    is_complete: bool
    answers: Mapping[str, str] = field(default_factory=dict)
    chosen: frozenset[tuple[str, str, int]] = frozenset()
    files: Mapping[str, bytes] = field(default_factory=dict)


class Tracker(Protocol):
    """What takes records. Every method may raise anything; the sweep goes on without."""

    def begin(self, sweep: SweepRecord) -> set[str]:
        """Begin a sweep or go on with it; return the keys of the trials that are known there."""
        ...

    def log(self, trial: TrialRecord, means: Mapping[str, float], n_seeds: int) -> None:
        """Add a trial, and the means of its suggestion over the `n_seeds` trials on its split so far."""
        ...

    def end(self, end: EndRecord | None) -> None:
        """Add how the sweep ended; None if it was interrupted."""
        ...


def sweep_record(session: Session) -> SweepRecord:
    """Return the record of a sweep."""
    spec, run = session.spec, session.run
    place = run.where if run.storage.path is None else f"{platform.node()}:{os.path.realpath(run.storage.path)}"
    tags = {
        "run": run.where,
        "objective": spec.objective,
        "limits": "; ".join(spec.limits),
        "scenarios": ", ".join(spec.scenarios),
        "methods": ", ".join(dict.fromkeys(cell.method for cell in spec.cells)),
        "spec_hash": spec.content_hash()[:16],
    }
    return SweepRecord(short_hash(place), spec.name, tags)


def trial_record(session: Session, planned: PlannedTrial, result: TrialResult) -> TrialRecord:
    """Return the record of a trial that has just ended."""
    spec, score = planned.spec, session.spec.score_of(planned.cell.scenario)
    values = {**result.metrics(score), **result.costs}
    matrix = result.scores(score) if result.n_correct else None
    return TrialRecord(
        spec.key,
        spec.scenario,
        spec.shown_method,
        planned.suggestion,
        spec.hyperparameters,
        spec.seed,
        _split(spec.phase),
        spec.phase,
        result.status,
        result.reason,
        _finite(values),
        () if matrix is None else boundaries_of(matrix, result.task_names, score),
    )


def recorded(session: Session) -> Iterator[TrialRecord]:
    """Yield the record of each trial of the sweep in its tables, but for those that the next run tries again."""
    keys = set().union(*(cell.keys for cell in session.search.cells))
    trials = session.run.tables.trials.read()
    trials = trials[trials["key"].isin(keys) & (trials["status"] != "error")]
    if trials.empty:
        return
    cells = session.run.tables.accuracy.read(with_lists=True)
    cells = cells[cells["key"].isin(keys)]
    for scenario, rows in trials.groupby("scenario", sort=False):
        score = session.spec.score_of(str(scenario))
        own = cells[cells["scenario"] == scenario]
        found = matrices_of(own, [score])
        named = own.drop_duplicates(["key", "task"]).sort_values("task").groupby("key")
        names = named["task_name"].agg(list).to_dict()
        for row in rows.to_dict("records"):
            matrix = found[row["key"]][score] if row["key"] in found else None
            own_names = [one or str(task) for task, one in enumerate(names.get(row["key"], ()))]
            yield TrialRecord(
                row["key"],
                row["scenario"],
                row["method"],
                int(row["suggestion"]),
                load_json(row["hyperparameters"]),
                int(row["seed"]),
                _split(row["phase"]),
                row["phase"],
                row["status"],
                row["reason"] or "",
                _finite({name: row[name] for name in METRICS_AND_COSTS}),
                () if matrix is None else boundaries_of(matrix, own_names, score),
            )


def boundaries_of(matrix: NDArray[Any], task_names: list[str], score: Score) -> tuple[dict[str, float], ...]:
    """Return what is known for each number of tasks learned, from R (T + 1, T) or the first rows of it."""
    found = []
    for n_learned, row in enumerate(matrix):
        values = {f"score/{name}": value for name, value in zip(task_names, row, strict=True)}
        if n_learned and any(map(math.isfinite, row)):
            values |= at_boundary(_AT_BOUNDARIES, n_learned - 1, lambda _: matrix, task_names, score)
        found.append(_finite(values))
    return tuple(found)


def end_record(run: Run) -> EndRecord:
    """Return how a sweep ended, with the files of its run folder that people look at."""
    from orchestrator.results.folder import read_file
    from orchestrator.storage.base import ANSWER_FILE, REPORT_FILE, SPEC_FILE

    answer = run.answer()
    names = (REPORT_FILE, ANSWER_FILE, SPEC_FILE)
    files = {name: content for name in names if (content := read_file(run.storage, name))}
    return EndRecord(answer.n_missing == 0, _in_words(answer), _chosen(answer), files)


def _in_words(answer: Answer) -> dict[str, str]:
    found = {}
    for one in answer.scenarios:
        values = one.method(one.recommended).hyperparameters if one.recommended is not None else {}
        settings = ", ".join(f"{name}={value}" for name, value in values.items())
        found[one.scenario] = f"{one.recommended or one.status} {settings}".strip()
    return found


def _chosen(answer: Answer) -> frozenset[tuple[str, str, int]]:
    return frozenset(
        (one.scenario, method.method, method.suggestion)
        for one in answer.scenarios
        for method in one.methods
        if method.suggestion is not None
    )


def _split(phase: str) -> str:
    return "test" if phase == "confirm" else "validation"


def _finite(values: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items() if value is not None and math.isfinite(value)}
