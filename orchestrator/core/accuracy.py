"""The accuracy matrix and the metrics computed from it. An incomplete matrix raises: nothing is guessed.

Notation: T tasks; R[after, task] is the accuracy on `task` measured after training on `after`; row -1 is before any
training; NaN is 'not measured', never 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class AccuracyMatrix:
    """What was measured, as counts.

    Args:
        n_correct: (T + 1, T); row 0 is before any training; None is 'not measured'.
        n_examples: held-out examples of each task, (T,).
    """

    n_correct: tuple[tuple[int | None, ...], ...]
    n_examples: tuple[int, ...]

    @property
    def accuracy(self) -> NDArray[np.float64]:
        """Return the accuracies (T + 1, T) in [0, 1], NaN if not measured; row `after` is at `after + 1`."""
        counts = np.array([[math.nan if c is None else c for c in row] for row in self.n_correct], dtype=float)
        accuracy: NDArray[np.float64] = counts.reshape(-1, len(self.n_examples)) / np.array(
            self.n_examples, dtype=float
        )
        return accuracy


def from_its_start(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return R of a trial that began from a model, as if the model's scores had been so since it learned each task.

    Such a trial has no row before that of the model, whose tasks are then judged from there on: a drop is one since
    the trial began. Every other R is returned as it is.

    Args:
        scores: R (n + 1, T), row 0 before any training; from a model, the first n_learned rows are NaN throughout.
    """
    measured = np.flatnonzero(~np.isnan(scores).all(axis=1))
    if not len(measured) or measured[0] < 2:
        return scores
    filled = scores.copy()
    for task in range(measured[0]):
        filled[task + 1 : measured[0], task] = scores[measured[0], task]
    return filled


@dataclass(frozen=True)
class Moments:
    """What was measured within tasks, while they were trained.

    Args:
        tasks: the task that was being trained at each moment, (M,) int64.
        scores: of each task then, (M, T); NaN if it was not measured.
    """

    tasks: NDArray[np.int64]
    scores: NDArray[np.float64]


def compute_metrics(
    scores: NDArray[np.float64],
    tasks: Sequence[int] | None = None,
    may_be_undefined: bool = False,
    within: Moments | None = None,
) -> dict[str, float]:
    """Return every metric of a matrix R (T + 1, T), row 0 before any training, that is not of accuracy by its name.

    Drops are since the trial began, if that was from a model: see `from_its_start`. With T = 1 the metrics of
    forgetting and transfer are NaN, and so is each metric without a task left. `forward_transfer` is NaN if any of its
    cells was not measured.

    Args:
        scores: R.
        tasks: the tasks to look at, each in 0 … T - 1; all by default. The last one is not forgotten by anything.
        may_be_undefined: whether a task may be NaN throughout, since it cannot have the score; it is then left out.
        within: what was measured within tasks too; by default only R is known of how scores went.

    Raises:
        ValueError: if a cell R[after, task] with after ≥ task is outside [0, 1], or NaN while its task has others.

    Source: Lopez-Paz & Ranzato 2017, arXiv 1706.08840, Eqs. 2 to 4 (average accuracy, backward and forward transfer);
        Chaudhry et al. 2018, arXiv 1801.10112, Eq. 3 (forgetting; the last row is not in the maximum); for those over
        time see `_over_time`.
    """
    n_tasks = scores.shape[1]
    if scores.shape != (n_tasks + 1, n_tasks):
        raise ValueError(f"accuracy matrix: expected shape (T + 1, T), got {scores.shape}")
    measured, scores = scores, from_its_start(scores)
    after = scores[1:]
    unknown = np.isnan(np.where(np.tril(np.ones_like(after)) > 0, after, math.nan)).all(axis=0)
    is_known = np.logical_not(unknown & may_be_undefined)
    learned = np.where(is_known, after, 0.0)[np.tril_indices(n_tasks)]
    if not np.all((learned >= 0) & (learned <= 1)):
        raise ValueError("accuracy matrix: expected every R[after, task] with after >= task in [0, 1], got gaps")
    looked_at = [task for task in (range(n_tasks) if tasks is None else tasks) if is_known[task]]
    past = [task for task in looked_at if task < n_tasks - 1]
    final, diagonal = after[-1], np.diag(after)
    drops = np.array([_drops(after[task:, task]) for task in past])
    return {
        "average": _mean(final[looked_at]),
        "learning_average": _mean(diagonal[looked_at]),
        "backward_transfer": _mean(final[past] - diagonal[past]),
        "forgetting": _mean(drops[:, 0]) if past else math.nan,
        "worst_forgetting": float(drops[:, 0].max()) if past else math.nan,
        "worst_forgetting_ever": float(drops[:, 1].max()) if past else math.nan,
        "worst_drop_since_learning": float((diagonal[past] - final[past]).max()) if past else math.nan,
        "worst_score": min((float(after[task:, task].min()) for task in looked_at), default=math.nan),
        "forward_transfer": _mean([after[i - 1, i] - scores[0, i] for i in looked_at if i > 0]),
        **_over_time(measured, looked_at, within),
    }


def _over_time(scores: NDArray[np.float64], tasks: Sequence[int], within: Moments | None) -> dict[str, float]:
    """Return the metrics of all evaluations since training began, at the ends of tasks and within them.

    Source: Caccia et al. 2022, arXiv 2104.05025 (average anytime accuracy: the mean over evaluations of the mean over
        the tasks seen so far); De Lange et al. 2023, arXiv 2205.13452 (WC-ACC: the last task counts with its score at
        the end, each other with its lowest in the evaluations after its own end, whose mean is min-ACC).

    Args:
        scores: R (T + 1, T) as it was measured, row 0 before any training.
        tasks: those to look at.
        within: what was measured within tasks.
    """
    n_tasks = scores.shape[1]
    ends = [after for after in range(n_tasks) if not np.isnan(scores[after + 1]).all()]
    during = np.array(ends, dtype=np.int64)
    values = scores[during + 1]
    if within is not None:
        during, values = np.concatenate([within.tasks, during]), np.concatenate([within.scores, values])
    seen = np.zeros(values.shape, dtype=bool)
    seen[:, tasks] = np.asarray(tasks) <= during[:, None]
    at_each = [float(row[of].mean()) for row, of in zip(values, seen, strict=True) if of.any()]
    begun = ends[0] if ends else 0  # after the last task of the model that the trial began from
    last = [values[during > max(task, begun), task] for task in tasks]
    lowest = [
        float(own.min()) if task < n_tasks - 1 and len(own) else float(scores[-1, task])
        for task, own in zip(tasks, last, strict=True)
    ]
    return {"anytime_average": _mean(at_each), "worst_case_average": _mean(lowest)}


def _drops(scores: NDArray[np.float64]) -> tuple[float, float]:
    """Return the drop from the best earlier score at the end, and the largest at any boundary.

    Args:
        scores: of one task after it and after each later one, (n,) with n ≥ 2.
    """
    at_each = np.maximum.accumulate(scores)[:-1] - scores[1:]
    return float(at_each[-1]), float(at_each.max())


def _mean(values: NDArray[np.float64] | Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else math.nan


def intransigence(
    diagonal: Sequence[float] | NDArray[np.float64], joint_diagonal: Sequence[float] | NDArray[np.float64]
) -> float:
    """Return the mean over k of a_k - R[k, k], with a_k the joint model's accuracy on task k trained on tasks ≤ k.

    Source: Chaudhry et al. 2018, arXiv 1801.10112, Eq. 4.
    """
    return float(np.mean(np.asarray(joint_diagonal) - np.asarray(diagonal)))
