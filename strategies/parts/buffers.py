"""Buffers of remembered examples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from strategies.contract import Batch, TaskData
from strategies.lazy import np, torch

if TYPE_CHECKING:
    from torch import Tensor


BufferKind = Literal["reservoir", "class_balanced"]


@dataclass
class BufferState:
    """The n remembered examples, n ≤ capacity.

    Args:
        inputs: (n, *S) float32, or None while empty.
        labels: output indices, (n,) int64.
        task_ids: (n,) int64.
        priorities: random rank of each example, drawn once, (n,) float64; `class_balanced` only.
        n_offered: examples of the stream offered so far, each counted once.
    """

    inputs: Tensor | None = None
    labels: Tensor | None = None
    task_ids: Tensor | None = None
    priorities: Tensor | None = None
    n_offered: int = 0

    def __len__(self) -> int:
        return 0 if self.labels is None else self.labels.shape[0]

    def remembered(self) -> tuple[Tensor, Tensor]:
        """Return output index and task of every remembered example, (n,) int64 each."""
        if self.labels is None or self.task_ids is None:
            return torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64)
        return self.labels, self.task_ids


def buffer_bytes(n: int, example_bytes: int, has_priorities: bool = False) -> int:
    """Return the bytes of `n` remembered examples: inputs, label and task, and a priority if there is one."""
    return n * (example_bytes + (24 if has_priorities else 16))


def n_remembered(batch_size: int, replay_ratio: float) -> int:
    """Return round(Bρ / (1 - ρ)): how many remembered examples join `batch_size` new ones."""
    return round(batch_size * replay_ratio / (1 - replay_ratio))


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


def reservoir_slots(n_offered: int, n: int, capacity: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return the slots of the next `n` examples, so that each example so far is kept with equal probability.

    Args:
        n_offered: examples of the stream before these.
        n: examples offered now.
        capacity: slots in all.
        generator: draws one number per example.

    Returns:
        The slots to write, (m,) int64 ascending, m ≤ n, and the example that goes into each, (m,) int64.

    Source: Vitter 1985, algorithm R: example i (from 0) takes slot i while there is room, and then slot ⌊u(i + 1)⌋ if
    that is below the capacity.
    """
    positions = n_offered + np.arange(n)
    uniform = torch.rand(n, generator=generator, dtype=torch.float64).numpy()
    slots = np.where(positions < capacity, positions, np.floor(uniform * (positions + 1)).astype(np.int64))
    kept = np.flatnonzero(slots < capacity)
    # If several examples take one slot, the last one stays.
    slot, last = np.unique(slots[kept][::-1], return_index=True)
    return torch.from_numpy(slot), torch.from_numpy(kept[::-1][last].copy())


def offer_reservoir(state: BufferState, task: TaskData, capacity: int, generator: torch.Generator) -> None:
    """Offer every example of `task` once; the buffer is a uniform sample of the stream (`reservoir_slots`)."""
    n, device = len(task), task.labels.device
    slots, rows = reservoir_slots(state.n_offered, n, capacity, generator)
    write(state, slots.to(device), task.take(rows.to(device)), task.index)
    state.n_offered += n


def offer_class_balanced(
    state: BufferState, task: TaskData, capacity: int | None, generator: torch.Generator, per_class: int = 0
) -> tuple[Tensor, Tensor]:
    """Offer every example of `task` once; each class has an equal share, a uniform sample of its examples.

    Every example draws one random rank, and a class keeps its smallest ranks. If the capacity is not divisible, the
    first classes keep one more. The others share what a small class leaves free. Without a capacity, each class keeps
    `per_class` examples.

    Returns:
        Which remembered examples stay, (m,) int64, and which of the task's follow them, (k,) int64, in their order in
        the buffer.
    """
    ranks = torch.rand(len(task), generator=generator, dtype=torch.float64).to(task.labels.device)
    if state.labels is None or state.priorities is None:
        labels, priorities = task.labels, ranks
    else:
        labels, priorities = torch.cat([state.labels, task.labels]), torch.cat([state.priorities, ranks])
    counts = torch.bincount(labels).tolist()
    shares = [min(n, per_class) for n in counts] if capacity is None else _equal_shares(counts, capacity)
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
    return old, new


def _equal_shares(counts: list[int], capacity: int) -> list[int]:
    """Return how many examples of each class to keep: as equal as the counts allow, `capacity` in all."""
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


def write(state: BufferState, slots: Tensor, batch: Batch, task: int) -> None:
    """Put the examples of `batch` into `slots` (m,) int64 ascending; slots past the end extend the buffer."""
    state.inputs = put(state.inputs, slots, batch.inputs)
    state.task_ids = put(state.task_ids, slots, _task_ids(batch, task))
    state.labels = put(state.labels, slots, batch.labels)


def put(held: Tensor | None, slots: Tensor, values: Tensor) -> Tensor:
    """Return `held` (n, *S) with `values` (m, *S) in `slots` (m,) int64 ascending; slots past the end extend it."""
    if held is None:
        return values.clone()
    old = slots < held.shape[0]
    held[slots[old]] = values[old]
    return torch.cat([held, values[~old]]) if not bool(old.all()) else held
