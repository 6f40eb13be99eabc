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

from orchestrator.core.metrics import METRICS


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


def compute_metrics(accuracy: NDArray[np.float64]) -> dict[str, float]:
    """Return every metric of `METRICS` from accuracies (T + 1, T), row 0 before any training.

    With T = 1 the metrics of forgetting and transfer are NaN. `forward_transfer` is NaN if any of its cells was not
    measured.

    Raises:
        ValueError: if a cell R[after, task] with after ≥ task is NaN or outside [0, 1].

    Source: Lopez-Paz & Ranzato 2017, arXiv 1706.08840, Eqs. 2 to 4 (average accuracy, backward and forward transfer);
        Chaudhry et al. 2018, arXiv 1801.10112, Eq. 3 (forgetting; the last row is not in the maximum).
    """
    n_tasks = accuracy.shape[1]
    if accuracy.shape != (n_tasks + 1, n_tasks):
        raise ValueError(f"accuracy matrix: expected shape (T + 1, T), got {accuracy.shape}")
    after = accuracy[1:]
    learned = after[np.tril_indices(n_tasks)]
    if not np.all((learned >= 0) & (learned <= 1)):
        raise ValueError("accuracy matrix: expected every R[after, task] with after >= task in [0, 1], got gaps")
    final, diagonal = after[-1], np.diag(after)
    metrics = dict.fromkeys(METRICS, math.nan)
    metrics["average_accuracy"] = float(final.mean())
    metrics["learning_accuracy"] = float(diagonal.mean())
    if n_tasks > 1:
        past = range(n_tasks - 1)
        peaks = np.array([after[i : n_tasks - 1, i].max() for i in past])
        drops, since = peaks - final[:-1], diagonal[:-1] - final[:-1]
        metrics["backward_transfer"] = float((final[:-1] - diagonal[:-1]).mean())
        metrics["forgetting"] = float(drops.mean())
        metrics["worst_forgetting"] = float(drops.max())
        metrics["worst_drop_since_learning"] = float(since.max())
        metrics["forward_transfer"] = float(np.mean([after[i - 1, i] - accuracy[0, i] for i in range(1, n_tasks)]))
    return metrics


def intransigence(diagonal: Sequence[float], joint_diagonal: Sequence[float]) -> float:
    """Return the mean over k of a_k - R[k, k], with a_k the joint model's accuracy on task k trained on tasks ≤ k.

    Source: Chaudhry et al. 2018, arXiv 1801.10112, Eq. 4.
    """
    return float(np.mean(np.asarray(joint_diagonal) - np.asarray(diagonal)))
