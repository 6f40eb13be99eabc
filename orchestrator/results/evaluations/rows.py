"""Rows of the table `evaluations`: made from what a trial leaves, and turned back into what metrics are taken from."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pandas as pd

from orchestrator.core.accuracy import Moments
from orchestrator.core.scores import ACCURACY, Measurement, Score
from orchestrator.results.rows import head_of, measured_columns, scores_of
from orchestrator.spec.trial_spec import TrialSpec
from orchestrator.trial.result import TrialResult


def evaluation_rows(
    spec: TrialSpec, suggestion: int, result: TrialResult, score: Score = ACCURACY
) -> list[dict[str, Any]]:
    """Return a row for each task in each evaluation, in their order; none unless `evaluate_every` was set.

    Those at the ends of tasks are of the rows of R, whose tasks that are yet to come are left out.
    """
    head = head_of(spec, suggestion)
    return [
        {
            **head,
            "during_task": during,
            "n_given": n_given,
            "task": task,
            "accuracy": sum(cell.n_right) / sum(cell.n_true),
            "n_correct": sum(cell.n_right),
            "n_examples": sum(cell.n_true),
            **measured_columns(cell, result.class_names[task], result.task_names[task], score),
        }
        for during, n_given, cells in evaluations_of(result)
        for task, cell in enumerate(cells)
        if cell is not None
    ]


def evaluations_of(result: TrialResult) -> Iterator[tuple[int, int, list[Measurement | None]]]:
    """Yield the task, the new examples given so far, and what was measured of each task seen then."""
    if not result.n_given:
        return
    within = zip(result.moments, result.cells_within, strict=True)
    found = [(during, n_given, cells) for (during, n_given), cells in within]
    last = len(result.cells) - 2  # row 0 is before any training
    tasks = range(last + 1 - len(result.n_given), last + 1)
    found += [(t, n, result.cells[t + 1][: t + 1]) for t, n in zip(tasks, result.n_given, strict=True)]
    yield from sorted(found, key=lambda one: one[:2])


def moments_of(rows: pd.DataFrame, scores: Iterable[Score]) -> dict[str, dict[Score, Moments]]:
    """Return key -> score -> what was measured within tasks, from rows with the columns of lists.

    The last evaluation of each task, at its end, is a row of R and left out.
    """
    found: dict[str, dict[Score, Moments]] = {}
    values = {score: scores_of(rows, score) for score in scores}
    during, given, tasks = (rows[name].to_numpy(dtype=int) for name in ("during_task", "n_given", "task"))
    for key, own in rows.reset_index(drop=True).groupby("key").indices.items():
        times, place = np.unique(np.stack([during[own], given[own]]), axis=1, return_inverse=True)
        is_within = np.append(times[0, 1:] == times[0, :-1], False)
        for score, column in values.items():
            table = np.full((times.shape[1], int(tasks[own].max()) + 1), math.nan)
            table[place.ravel(), tasks[own]] = column[own]
            found.setdefault(str(key), {})[score] = Moments(times[0, is_within], table[is_within])
    return found
