"""Runs for the tests of figures: trials that are made up, not trained, and written as a sweep writes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.execution.session import outcome_of
from orchestrator.results.evaluations.rows import evaluation_rows
from orchestrator.results.rows import accuracy_rows, trial_row
from orchestrator.results.run import Run
from orchestrator.spec.loading import parse_spec
from orchestrator.spec.sweep_spec import SweepSpec
from orchestrator.spec.trial_spec import TrialSpec
from orchestrator.trial.result import TrialResult
from tests.conftest import without_finals

N_EXAMPLES = 1000
"""Of each task, so that a score has three decimals."""

Score = Callable[[TrialSpec, int, int], float | None]
"""Trial, after task (-1 is before any), task -> the accuracy that is measured, None if none is."""

FIELDS: dict[str, Any] = {
    "scenarios": ["split-digits/task"],
    "methods": ["naive", "joint", "ewc", "replay"],
    "limits": ["worst_forgetting <= 0.1", "kept_bytes <= 2e6"],
    "seeds": {"search": 2, "confirm": 3},
    "search": {"suggestions": 4, "batch": 4},
    "model": {"hidden": [16]},
    "training": {"epochs": 1},
}

LOSS = {"naive": 0.3, "joint": 0.0, "ewc": 0.08, "replay": 0.04}
"""Method -> how much of a task's accuracy is lost with each task after it."""


def falling(trial: TrialSpec, after: int, task: int) -> float | None:
    """Return what is plain to compute by hand: 0.9, less a loss for each later task and 0.01 a seed."""
    if after < task:
        return None
    lost = LOSS.get(trial.method, 0.1) * trial.hyperparameters.get("replay_ratio", 0.5) * 2
    return max(0.9 - lost * (after - task) - 0.01 * (trial.seed % 10), 0.0)


def never(trial: TrialSpec) -> bool:
    """Return that a trial does not fail."""
    return False


def result_of(trial: TrialSpec, score: Score, names: Sequence[str], status: str = "completed") -> TrialResult:
    """Return the result of a trial that was never trained."""
    n, cells = len(names), range(len(names))
    values = [[score(trial, after, task) for task in cells] for after in range(-1, n)]
    counts = [[None if one is None else round(one * N_EXAMPLES) for one in row] for row in values]
    is_complete = status == "completed"
    return TrialResult(
        trial.key,
        status,  # type: ignore[arg-type]
        "" if is_complete else "diverged: loss is nan",
        counts if is_complete else [],
        [N_EXAMPLES] * n if is_complete else [],
        {"seconds": 1.5, "kept_bytes": 1e6 if trial.method != "naive" else 0.0, "n_parameters": 7.0},
        {"device": "cpu", "started_at": "2026-01-02T03:04:05.678901+00:00", "data_hash": "f00d"},
        {},
        0.1 if is_complete else None,
        list(names) if is_complete else [],
        [["it"]] * n if is_complete else [],
        [[None if one is None else [[N_EXAMPLES], [one], [one]] for one in row] for row in counts]
        if is_complete
        else [],
        [[{} for _ in row] for row in counts] if is_complete else [],
    )


def halfway(result: TrialResult) -> TrialResult:
    """Return a result whose tasks took 100 examples each, evaluated after 50 of them: 0.2 less than at their ends."""
    ends = [row[: task + 1] for task, row in enumerate(result.measured[1:])]
    lower = [
        [None if one is None else [one[0], *([max(n[0] - 200, 0)] for n in one[1:])] for one in row] for row in ends
    ]
    n = len(ends)
    return replace(
        result,
        moments=[[task, 100 * task + 50] for task in range(n)],
        measured_within=lower,
        ranked_within=[[{}] * len(row) for row in lower],
        n_given=[100 * (task + 1) for task in range(n)],
    )


def write_run(
    folder: Path,
    spec: SweepSpec,
    score: Score = falling,
    names: Sequence[str] = ("a", "b", "c"),
    most: int = 100_000,
    fails: Callable[[TrialSpec], bool] = never,
) -> Run:
    """Return the run of a sweep whose trials measure `score`; after `most` trials it stops."""
    run = Run.create(folder, spec)
    search = run.search(spec, {spec.data_of(cell.stream): "f00d" for cell in spec.cells})
    while search.n_waiting and most:
        most -= 1
        planned = search.hand_out(search.waiting_requests()[0])
        result = result_of(planned.spec, score, names, "failed" if fails(planned.spec) else "completed")
        kept = spec.score_of(planned.cell.scenario)
        rows = accuracy_rows(planned.spec, planned.suggestion, result, kept)
        if spec.training.evaluate_every and result.status == "completed":
            result = halfway(result)
        within = evaluation_rows(planned.spec, planned.suggestion, result, kept)
        row = trial_row(planned.spec, planned.suggestion, result, {}, kept)
        run.tables.write_trial(planned.spec.key, row, rows, evaluations=within)
        search.record(planned.spec.key, outcome_of(result, spec, kept))
    return Run.open(folder, cached=True)


MakeRun = Callable[..., Run]


@pytest.fixture(scope="package")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the run that `make_run` makes of no arguments."""
    return write_run(tmp_path_factory.mktemp("runs") / "plain", parse_spec(without_finals(FIELDS))).path


@pytest.fixture
def make_run(tmp_path: Path, plain: Path) -> MakeRun:
    """Return a function from fields of a spec, and what is measured, to a run."""

    def make(
        score: Score = falling,
        names: Sequence[str] = ("a", "b", "c"),
        most: int = 100_000,
        fails: Callable[[TrialSpec], bool] = never,
        **fields: Any,
    ) -> Run:
        if not fields and most > 1000 and (score, fails) == (falling, never) and names == ("a", "b", "c"):
            return Run.open(plain, cached=True)
        return write_run(tmp_path / "run", parse_spec(without_finals(FIELDS | fields)), score, names, most, fails)

    return make
