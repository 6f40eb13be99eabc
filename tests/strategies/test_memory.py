from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
import torch
from scipy.stats import chi2

from strategies import Batch, TaskData
from strategies.parts.buffers import (
    BufferState,
    _equal_shares,
    draw,
    offer_class_balanced,
    offer_reservoir,
    reservoir_slots,
    write,
)

Offer = Callable[[BufferState, TaskData, int, torch.Generator], None]
OFFERS = [offer_reservoir, offer_class_balanced]


def stream(sizes: list[int], labels: Callable[[int], int] = lambda i: 0) -> list[TaskData]:
    """Return tasks whose examples are numbered through: example i of the stream has the inputs (i, -i)."""
    tasks, start = [], 0
    for index, size in enumerate(sizes):
        numbers = torch.arange(start, start + size)
        inputs = torch.stack([numbers, -numbers], dim=1).float()
        tasks.append(TaskData(index, inputs, torch.tensor([labels(i) for i in numbers.tolist()]), index))
        start += size
    return tasks


def filled(offer: Offer, tasks: list[TaskData], capacity: int, seed: int = 0) -> BufferState:
    state, generator = BufferState(), torch.Generator().manual_seed(seed)
    for task in tasks:
        offer(state, task, capacity, generator)
    return state


def numbers_in(state: BufferState) -> list[int]:
    assert state.inputs is not None
    return [int(number) for number in state.inputs[:, 0].tolist()]


def p_value(counts: list[int], n_runs: int, capacity: int) -> float:
    """Return the p-value of the counts of examples under uniform samples without replacement of a fixed size."""
    n = len(counts)
    expected = n_runs * capacity / n
    variance = n_runs * (capacity / n) * (1 - capacity / n)
    statistic = sum((count - expected) ** 2 for count in counts) / variance * (n - 1) / n
    return float(chi2.sf(statistic, n - 1))


@pytest.mark.parametrize("offer", OFFERS)
@pytest.mark.parametrize("sizes", [[12], [4, 1, 7]])
def test_what_is_kept_is_uniform_over_the_stream(offer: Offer, sizes: list[int]) -> None:
    counts: Counter[int] = Counter()
    tasks = stream(sizes)
    for seed in range(700):
        counts.update(numbers_in(filled(offer, tasks, capacity=4, seed=seed)))

    assert p_value([counts[i] for i in range(12)], n_runs=700, capacity=4) > 1e-3


@pytest.mark.parametrize("offer", OFFERS)
def test_every_pair_of_examples_is_kept_together_equally_often(offer: Offer) -> None:
    pairs: Counter[tuple[int, int]] = Counter()
    tasks = stream([3, 2])
    for seed in range(1500):
        kept = sorted(numbers_in(filled(offer, tasks, capacity=2, seed=seed)))
        pairs[kept[0], kept[1]] += 1
    expected = 1500 / 10
    statistic = sum((pairs[i, j] - expected) ** 2 / expected for i in range(5) for j in range(i + 1, 5))

    assert float(chi2.sf(statistic, 9)) > 1e-3


@pytest.mark.parametrize("offer", OFFERS)
@pytest.mark.parametrize("capacity", [1, 4, 7, 30])
def test_a_buffer_is_full_never_over_and_holds_each_example_once(offer: Offer, capacity: int) -> None:
    state, generator, n_seen = BufferState(), torch.Generator().manual_seed(1), 0
    for task in stream([5, 1, 9, 6], labels=lambda i: i % 3):
        offer(state, task, capacity, generator)
        n_seen += len(task)
        kept = numbers_in(state)

        assert len(state) == len(kept) == min(capacity, n_seen)
        assert len(set(kept)) == len(kept)
        assert max(kept) < n_seen
        assert state.n_offered == n_seen


@pytest.mark.parametrize("offer", OFFERS)
def test_each_example_keeps_its_inputs_its_label_and_its_task(offer: Offer) -> None:
    state = filled(offer, stream([6, 8, 10], labels=lambda i: i % 5), capacity=15)
    assert state.inputs is not None
    assert state.labels is not None
    assert state.task_ids is not None

    numbers = numbers_in(state)
    assert state.inputs[:, 1].tolist() == [-i for i in numbers]
    assert state.labels.tolist() == [i % 5 for i in numbers]
    assert state.task_ids.tolist() == [0 if i < 6 else 1 if i < 14 else 2 for i in numbers]
    assert state.task_ids.dtype == torch.int64
    assert set(state.task_ids.tolist()) == {0, 1, 2}


@pytest.mark.parametrize("offer", OFFERS)
def test_examples_with_tasks_of_their_own_keep_them(offer: Offer) -> None:
    task = stream([9])[0]
    mixed = TaskData(2, task.inputs, task.labels, torch.arange(9) % 3)
    state = filled(offer, [mixed, mixed], capacity=5)
    assert state.task_ids is not None

    assert state.task_ids.tolist() == [i % 3 for i in numbers_in(state)]


@pytest.mark.parametrize("offer", OFFERS)
def test_a_buffer_does_not_hold_on_to_the_tensors_of_the_stream(offer: Offer) -> None:
    task = stream([4])[0]
    state = filled(offer, [task], capacity=4)
    task.inputs.zero_()

    assert sorted(numbers_in(state)) == [0, 1, 2, 3]


def shares_held(state: BufferState) -> dict[int, int]:
    assert state.labels is not None
    return dict(sorted(Counter(state.labels.tolist()).items()))


def test_balanced_classes_hold_equal_shares_whatever_their_sizes() -> None:
    tasks = stream([60, 20, 20], labels=lambda i: 0 if i < 50 else 1 if i < 60 else 2 + i % 2)

    assert shares_held(filled(offer_class_balanced, tasks[:1], 8)) == {0: 4, 1: 4}
    assert shares_held(filled(offer_class_balanced, tasks, 8)) == {0: 2, 1: 2, 2: 2, 3: 2}
    assert shares_held(filled(offer_class_balanced, tasks, 10)) == {0: 3, 1: 3, 2: 2, 3: 2}


def test_what_a_small_class_leaves_free_is_shared_by_the_others() -> None:
    tasks = stream([21, 20], labels=lambda i: 1 if i == 7 else 0 if i < 21 else 2)

    assert shares_held(filled(offer_class_balanced, tasks, 9)) == {0: 4, 1: 1, 2: 4}


def test_a_class_that_returns_is_sampled_uniformly_over_all_of_its_tasks() -> None:
    counts: Counter[int] = Counter()
    tasks = stream([8, 8, 8], labels=lambda i: i % 2)
    for seed in range(700):
        state = filled(offer_class_balanced, tasks, capacity=8, seed=seed)
        assert shares_held(state) == {0: 4, 1: 4}
        counts.update(i for i in numbers_in(state) if i % 2 == 0)

    assert p_value([counts[i] for i in range(0, 24, 2)], n_runs=700, capacity=4) > 1e-3


@pytest.mark.parametrize(
    ("counts", "capacity", "shares"),
    [
        ([9, 9, 9], 6, [2, 2, 2]),
        ([9, 9, 9], 8, [3, 3, 2]),
        ([9, 9, 9], 2, [1, 1, 0]),
        ([1, 9, 9], 9, [1, 4, 4]),
        ([1, 9, 9], 8, [1, 4, 3]),
        ([0, 9, 2], 9, [0, 7, 2]),
        ([1, 2, 3], 100, [1, 2, 3]),
        ([], 5, []),
    ],
)
def test_shares_are_as_equal_as_the_counts_allow(counts: list[int], capacity: int, shares: list[int]) -> None:
    assert _equal_shares(counts, capacity) == shares


def test_examples_are_drawn_uniformly_with_replacement() -> None:
    state = filled(offer_reservoir, stream([5]), capacity=5)
    batch = draw(state, 2000, torch.Generator().manual_seed(0))
    counts = Counter(int(number) for number in batch.inputs[:, 0].tolist())
    statistic = sum((counts[i] - 400) ** 2 / 400 for i in range(5))

    assert len(batch.labels) == 2000
    assert float(chi2.sf(statistic, 4)) > 1e-3


@pytest.mark.parametrize("offer", OFFERS)
def test_only_the_given_generator_decides(offer: Offer) -> None:
    tasks = stream([30, 30], labels=lambda i: i % 4)
    torch.manual_seed(1)
    one = numbers_in(filled(offer, tasks, 10, seed=3))
    torch.manual_seed(2)

    assert numbers_in(filled(offer, tasks, 10, seed=3)) == one
    assert numbers_in(filled(offer, tasks, 10, seed=4)) != one


@pytest.mark.parametrize(("size", "n_runs"), [(1, 200), (3, 500), (12, 500)])
def test_a_stream_in_batches_is_sampled_uniformly(size: int, n_runs: int) -> None:
    counts: Counter[int] = Counter()
    task = stream([12])[0]
    for seed in range(n_runs):
        state, generator = BufferState(), torch.Generator().manual_seed(seed)
        for batch in task.batches(size):
            slots, rows = reservoir_slots(state.n_offered, len(batch.labels), 4, generator)
            assert slots.tolist() == sorted(set(slots.tolist()))
            write(state, slots, Batch(batch.inputs[rows], batch.labels[rows], 0), 0)
            state.n_offered += len(batch.labels)
        assert len(state) == 4
        counts.update(numbers_in(state))

    assert p_value([counts[i] for i in range(12)], n_runs=n_runs, capacity=4) > 1e-3
