"""Blurry boundaries: which training examples tasks exchange with their neighbours.

Source: the setting is that of Bang et al. 2021, arXiv 2103.17230 (a share of each task's examples is of other tasks'
classes). Differs: the examples are those of the tasks before and after, as at a boundary that nobody drew sharply.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from strategies import TaskData
from strategies.seeds import derive_seed


@dataclass(frozen=True)
class Exchange:
    """What becomes of the training examples of a task, as places among them, ascending, int64.

    Args:
        kept: those that it keeps.
        to_previous: those that are trained with the task before.
        to_next: those that are trained with the task after.
    """

    kept: NDArray[np.int64]
    to_previous: NDArray[np.int64]
    to_next: NDArray[np.int64]


def exchange(sizes: Sequence[int], task: int, share: float, seed: int) -> Exchange:
    """Return what a task exchanges with its neighbours.

    Two neighbours exchange `share` / 2 of the examples of the smaller one, drawn at random. So each task stays as large
    as it was, each example is trained once, and a task has up to `share` of its neighbours' examples, the first and the
    last up to half of that.

    Args:
        sizes: training examples of each task (T,).
        task: the task, 0 … T - 1.
        share: in [0, 1).
        seed: of the trial.
    """
    n_previous, n_next = (
        round(share / 2 * min(sizes[task], sizes[other])) if 0 <= other < len(sizes) else 0
        for other in (task - 1, task + 1)
    )
    order = np.random.default_rng(derive_seed(seed, f"blurry/{task}")).permutation(sizes[task])
    parts = np.split(order, [n_previous, n_previous + n_next])
    to_previous, to_next, kept = (np.sort(part).astype(np.int64) for part in parts)
    return Exchange(kept, to_previous, to_next)


def blurred(
    task: int, sizes: Sequence[int], share: float, seed: int, take: Callable[[int, NDArray[np.int64]], TaskData]
) -> TaskData:
    """Return the training examples of a task after the exchange: its own that it keeps, then its neighbours'.

    Args:
        task: the task, 0 … T - 1.
        sizes: training examples of each task (T,).
        share: in [0, 1).
        seed: of the trial.
        take: returns the examples of a task at some places among them.
    """
    own = exchange(sizes, task, share, seed)
    parts = [take(task, own.kept)]
    if task > 0:
        parts.append(take(task - 1, exchange(sizes, task - 1, share, seed).to_next))
    if task + 1 < len(sizes):
        parts.append(take(task + 1, exchange(sizes, task + 1, share, seed).to_previous))
    return TaskData(
        task,
        torch.cat([part.inputs for part in parts]),
        torch.cat([part.labels for part in parts]),
        torch.cat([part.ids for part in parts]),
    )
