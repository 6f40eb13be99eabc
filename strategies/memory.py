"""Buffers of remembered examples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from strategies.base import Batch, TaskData

BufferKind = Literal["reservoir", "class_balanced"]


@dataclass
class BufferState:
    """What a buffer holds; n examples, n ≤ capacity.

    Args:
        inputs: (n, *S) float32, or None while empty.
        labels: output indices, (n,) int64.
        task_ids: (n,) int64.
        priorities: `class_balanced` only: the random rank that each example drew once, (n,) float64.
        n_offered: examples of the stream offered so far, each counted once.
    """

    inputs: Tensor | None = None
    labels: Tensor | None = None
    task_ids: Tensor | None = None
    priorities: Tensor | None = None
    n_offered: int = 0

    def __len__(self) -> int:
        return 0 if self.labels is None else self.labels.shape[0]


def draw(state: BufferState, n: int, generator: torch.Generator) -> Batch:
    """Return `n` remembered examples, drawn uniformly with replacement."""
    assert state.inputs is not None
    assert state.labels is not None
    assert state.task_ids is not None
    rows = torch.randint(len(state), (n,), generator=generator).to(state.labels.device)
    return Batch(
        state.inputs.index_select(0, rows),
        state.labels.index_select(0, rows),
        state.task_ids.index_select(0, rows),
    )


def offer_reservoir(state: BufferState, task: TaskData, capacity: int, generator: torch.Generator) -> None:
    """Offer every example of `task` once, so that each example of the stream so far is kept with equal probability.

    Source: Vitter 1985, algorithm R: example i (from 0) takes slot i while there is room, then slot ⌊u(i + 1)⌋ if
    that is a slot.
    """
    n = len(task)
    positions = state.n_offered + np.arange(n)
    uniform = torch.rand(n, generator=generator, dtype=torch.float64).numpy()
    slots = np.where(positions < capacity, positions, np.floor(uniform * (positions + 1)).astype(np.int64))
    kept = np.flatnonzero(slots < capacity)
    # Of several examples that took one slot, the last stays.
    slot, last = np.unique(slots[kept][::-1], return_index=True)
    rows = torch.from_numpy(kept[::-1][last].copy()).to(task.labels.device)
    _write(state, torch.from_numpy(slot).to(task.labels.device), task.take(rows), task.index)
    state.n_offered += n


def offer_class_balanced(state: BufferState, task: TaskData, capacity: int, generator: torch.Generator) -> None:
    """Offer every example of `task` once; each class seen holds an equal share, a uniform sample of its examples.

    Every example draws one random rank, and a class keeps its smallest ranks. Where the capacity does not divide, the
    first classes hold one more. What a small class leaves free is shared by the others.
    """
    ranks = torch.rand(len(task), generator=generator, dtype=torch.float64).to(task.labels.device)
    if state.labels is None or state.priorities is None:
        labels, priorities = task.labels, ranks
    else:
        labels, priorities = torch.cat([state.labels, task.labels]), torch.cat([state.priorities, ranks])
    shares = _equal_shares(torch.bincount(labels).tolist(), capacity)
    kept = [
        of_class[priorities[of_class].argsort()[:share]]
        for label, share in enumerate(shares)
        if share and len(of_class := (labels == label).nonzero()[:, 0])
    ]
    rows = torch.cat(kept) if kept else torch.empty(0, dtype=torch.int64, device=labels.device)
    n_old = len(state)
    old, new = rows[rows < n_old], rows[rows >= n_old] - n_old
    state.priorities = torch.cat([priorities[old], ranks[new]])
    batch = task.take(new)
    _keep(state, old)
    _append(state, batch, task.index)
    state.n_offered += len(task)


def _equal_shares(counts: list[int], capacity: int) -> list[int]:
    """Return how many of each class to hold: as equal as the counts allow, `capacity` in all."""
    shares = [0] * len(counts)
    left = capacity
    while left > 0:
        open_classes = [c for c, n in enumerate(counts) if shares[c] < n]
        if not open_classes:
            break
        step = max(left // len(open_classes), 1)
        for c in open_classes:
            more = min(step, counts[c] - shares[c], left)
            shares[c] += more
            left -= more
    return shares


def _task_ids(batch: Batch, task: int) -> Tensor:
    if isinstance(batch.task_ids, int):
        return torch.full_like(batch.labels, task)
    return batch.task_ids


def _keep(state: BufferState, rows: Tensor) -> None:
    if state.inputs is not None and state.labels is not None and state.task_ids is not None:
        state.inputs, state.labels, state.task_ids = (
            state.inputs[rows],
            state.labels[rows],
            state.task_ids[rows],
        )


def _append(state: BufferState, batch: Batch, task: int) -> None:
    ids = _task_ids(batch, task)
    if state.inputs is None or state.labels is None or state.task_ids is None:
        state.inputs, state.labels, state.task_ids = batch.inputs, batch.labels, ids
    else:
        state.inputs = torch.cat([state.inputs, batch.inputs])
        state.labels = torch.cat([state.labels, batch.labels])
        state.task_ids = torch.cat([state.task_ids, ids])


def _write(state: BufferState, slots: Tensor, batch: Batch, task: int) -> None:
    """Put the examples of `batch` into `slots` (ascending); slots past the end extend the buffer."""
    old = slots < len(state)
    if state.inputs is not None and state.labels is not None and state.task_ids is not None:
        state.inputs[slots[old]] = batch.inputs[old]
        state.labels[slots[old]] = batch.labels[old]
        state.task_ids[slots[old]] = _task_ids(batch, task)[old]
    new = ~old
    ids = batch.task_ids if isinstance(batch.task_ids, int) else batch.task_ids[new]
    _append(state, Batch(batch.inputs[new], batch.labels[new], ids), task)
