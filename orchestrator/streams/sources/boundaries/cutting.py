"""Cuts rows into tasks where a detector finds drift."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from orchestrator.streams.boundaries import Boundaries
from orchestrator.streams.sources.boundaries.detectors import Detect
from orchestrator.streams.sources.boundaries.signals import Signal

_MOST_POINTS = 400
_LEAST_SMOOTHED = 50


@dataclass(frozen=True)
class Cut:
    """Where tasks begin.

    Args:
        starts: first row of each task, ascending, the first 0.
        reasons: why each task begins.
        n_passed_over: drifts that began no task.
        signal: the values that were watched (N,) float64, in [0, 1].
    """

    starts: tuple[int, ...]
    reasons: tuple[Literal["start", "drift", "maximal_length"], ...]
    n_passed_over: int
    signal: NDArray[np.float64]

    @property
    def lengths(self) -> tuple[int, ...]:
        """Return the rows of each task."""
        return tuple(np.diff([*self.starts, len(self.signal)]).tolist())


def cut(signal: Signal, n_rows: int, detect: Detect, settings: Boundaries) -> Cut:
    """Return where tasks begin: at each row in which drift is detected, or that a task of maximal length ends before.

    A task has `minimal_length` rows or more, the last one too: drift that would leave fewer is passed over. So the last
    task may exceed `maximal_length` by less than `minimal_length`.

    Args:
        signal: what is watched, learning afresh after each drift, also if it begins no task.
        n_rows: how many rows there are.
        detect: the detector, fresh.
        settings: the lengths.
    """
    starts, n_passed_over = [0], 0
    reasons: list[Literal["start", "drift", "maximal_length"]] = ["start"]
    values = np.empty(n_rows)
    for row in range(n_rows):
        values[row] = signal.value(row)
        is_drift, length = detect(values[row]), row - starts[-1]
        if is_drift:
            signal.forget()
        may_begin = length >= settings.minimal_length and n_rows - row >= settings.minimal_length
        if is_drift and may_begin:
            starts.append(row)
            reasons.append("drift")
            continue
        n_passed_over += is_drift
        if may_begin and settings.maximal_length is not None and length >= settings.maximal_length:
            starts.append(row)
            reasons.append("maximal_length")
    return Cut(tuple(starts), tuple(reasons), n_passed_over, values)


def smoothed(signal: NDArray[np.float64]) -> tuple[int, tuple[tuple[int, float], ...]]:
    """Return how many rows a point is the mean of, and at most 400 points (row, mean of the rows up to it).

    Args:
        signal: (N,).
    """
    n_rows = len(signal)
    width = max(_LEAST_SMOOTHED, n_rows // 100)
    sums = np.concatenate([[0.0], np.cumsum(signal)])
    rows = np.unique(np.linspace(0, n_rows - 1, min(_MOST_POINTS, n_rows)).astype(np.int64))
    first = np.maximum(rows + 1 - width, 0)
    means = (sums[rows + 1] - sums[first]) / (rows + 1 - first)
    return width, tuple(zip(rows.tolist(), means.round(4).tolist(), strict=True))
