"""Runs whose trials were never trained: results follow from the trial's key, so that they differ."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from orchestrator.execution.session import Session
from orchestrator.results.run import Run
from orchestrator.search.suggestion import PlannedTrial
from orchestrator.spec.loading import parse_spec
from orchestrator.trial.provenance import software_now
from orchestrator.trial.result import TrialResult

N_EXAMPLES = 50

SPEC: dict[str, Any] = {
    "name": "page",
    "scenarios": ["split-digits/task", "split-digits/class"],
    "methods": ["naive", "joint", "ewc", "replay"],
    "objective": "average_accuracy",
    "limits": ["worst_forgetting <= 0.1", "kept_bytes <= 3e5"],
    "seeds": {"search": 3, "finals": 2, "confirm": 4, "confirm_more": 0},
    "search": {"suggestions": 12},
}


TASKS = ("zero", "one", "two", "three")


def made_up(planned: PlannedTrial, task_names: tuple[str, ...] = TASKS) -> TrialResult:
    """Return a result that follows from the trial's key; joint and replay forget less. Each task has two classes."""
    draw = random.Random(planned.spec.key)
    n_tasks = len(task_names)
    quality = draw.uniform(0.85, 0.98)
    loss = draw.uniform(0.0, {"naive": 0.2, "joint": 0.01, "replay": 0.03}.get(planned.spec.method, 0.12))
    rows: list[list[int | None]] = [[None] * n_tasks]
    for after in range(n_tasks):
        shares = [max(quality - loss * (after - task), 0.0) if task <= after else None for task in range(n_tasks)]
        rows.append([None if s is None else min(int(s * N_EXAMPLES + draw.random()), N_EXAMPLES) for s in shares])
    return TrialResult(
        planned.spec.key,
        "completed",
        n_correct=rows,
        n_examples=[N_EXAMPLES] * n_tasks,
        costs={
            "seconds": draw.uniform(1, 2),
            "train_seconds": draw.uniform(0.5, 1),
            "kept_bytes": float(draw.randrange(1_000, 400_000)),
            "n_parameters": 85e3,
        },
        provenance={**software_now(), "device": "cpu", "device_name": "a chip", "host": "a host", "threads": 1,
                    "started_at": "2026-01-02T03:04:05+00:00", "data_hash": planned.spec.data_fingerprint},
        details={},
        chance_accuracy=0.5,
        task_names=list(task_names),
        class_names=[["no", "yes"]] * n_tasks,
        measured=[[None if n is None else _counts(n) for n in row] for row in rows],
        ranked=[[{}] * n_tasks for _ in rows],
    )  # fmt: skip


def _counts(n_right: int) -> list[list[int]]:
    """Return true, predicted and right examples of two classes, the second of which is never right by chance."""
    first = min(n_right, N_EXAMPLES // 2)
    right = [first, n_right - first]
    wrong = [N_EXAMPLES // 2 - first, N_EXAMPLES // 2 - right[1]]
    return [[N_EXAMPLES // 2] * 2, [right[0] + wrong[1], right[1] + wrong[0]], right]


def make_run(
    folder: Path,
    fields: Mapping[str, Any] | None = None,
    n_trials: int | None = None,
    result: Callable[[PlannedTrial], TrialResult] = made_up,
) -> Run:
    """Return a run in `folder` of `SPEC` with some fields changed.

    Args:
        folder: of the run.
        fields: of the spec.
        n_trials: to write; all by default.
        result: of each trial.
    """
    spec, run = parse_spec({**SPEC, **(fields or {})}), Run(folder)
    with run.locked():
        session = Session(spec, run, Path("unused"), accept_changes=True)
        run.write_spec(spec)
        done = 0
        while not session.search.is_finished and done != n_trials:
            session.finish(result(session.search.hand_out(session.search.waiting_requests()[0])))
            done += 1
        session.close()
    return run.cached()
