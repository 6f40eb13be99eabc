"""Blurry boundaries: what neighbours exchange, and that every example is trained once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.errors import SpecError
from orchestrator.spec.loading import parse_spec
from orchestrator.spec.trial_spec import TrialSpec
from orchestrator.streams.blurry import exchange
from orchestrator.streams.datasets import Dataset
from orchestrator.streams.settings import StreamSettings
from orchestrator.streams.stream import Stream
from orchestrator.trial.preflight import data_faults
from orchestrator.trial.protocol import run_trial

MakeTrial = Callable[..., TrialSpec]
CPU = torch.device("cpu")


@given(
    sizes=st.lists(st.integers(1, 300), min_size=1, max_size=6), share=st.floats(0, 0.99), seed=st.integers(0, 2**40)
)
def test_neighbours_give_as_many_as_they_get(sizes: list[int], share: float, seed: int) -> None:
    found = [exchange(sizes, task, share, seed) for task in range(len(sizes))]
    for task, (one, size) in enumerate(zip(found, sizes, strict=True)):
        parts = np.concatenate([one.kept, one.to_previous, one.to_next])
        assert sorted(parts.tolist()) == list(range(size))
        n_next = len(found[task + 1].to_previous) if task + 1 < len(sizes) else 0
        assert len(one.to_next) == n_next
        assert len(one.to_previous) + len(one.to_next) <= share * size + 1
    assert len(found[0].to_previous) == len(found[-1].to_next) == 0


def test_by_hand() -> None:
    """Of 100, 60 and 80 examples, 0.2 / 2 of the smaller of two neighbours go over each boundary: 6 and 6."""
    first, second, third = (exchange([100, 60, 80], task, 0.2, 7) for task in range(3))
    assert (len(first.kept), len(first.to_next)) == (94, 6)
    assert (len(second.kept), len(second.to_previous), len(second.to_next)) == (48, 6, 6)
    assert (len(third.kept), len(third.to_previous)) == (74, 6)


def stream(digits: Dataset, kind: Any, blurry: float, name: str = "split-digits", seed: int = 0) -> Stream:
    settings = StreamSettings(blurry=blurry, n_tasks=5)
    return Stream(name, settings, kind, seed, digits.phase("confirm", 0.0), CPU)


@pytest.mark.parametrize("kind", ["task", "domain", "class"])
def test_each_example_is_trained_once_with_its_own_label(kind: str, digits: Dataset) -> None:
    sharp, blurry = stream(digits, kind, 0.0), stream(digits, kind, 0.3)

    def examples(own: Stream) -> Counter[tuple[Any, ...]]:
        tasks = [own.train(task) for task in range(5)]
        return Counter(
            (inputs.numpy().tobytes(), label, task)
            for data in tasks
            for inputs, label, task in zip(data.inputs, data.labels.tolist(), data.ids.tolist(), strict=True)
        )

    assert examples(blurry) == examples(sharp)
    assert [len(blurry.train(task)) for task in range(5)] == [len(sharp.train(task)) for task in range(5)]
    assert blurry.sizes() == sharp.sizes()


def test_a_task_has_a_share_of_each_neighbour(digits: Dataset) -> None:
    own = stream(digits, "class", 0.3)
    sizes = own.sizes().n_examples
    for task in range(5):
        counts = torch.bincount(own.train(task).ids, minlength=5).tolist()
        assert [other for other, n in enumerate(counts) if n] == [other for other in range(5) if abs(other - task) <= 1]
        for other in {task - 1, task + 1} & set(range(5)):
            assert counts[other] == round(0.15 * min(sizes[task], sizes[other]))


@pytest.mark.parametrize("name", ["permuted-digits", "rotated-digits", "noisy-digits"])
def test_an_example_keeps_the_transform_of_its_own_task(name: str, digits: Dataset) -> None:
    """Examples are to the bit those of their task without blurry, with the noise that each has there."""
    sharp, blurry = (stream(digits, "domain", share, name) for share in (0.0, 0.4))
    for task in range(5):
        data = blurry.train(task)
        for other in torch.unique(data.ids).tolist():
            known = {row.numpy().tobytes() for row in sharp.train(other).inputs}
            assert all(row.numpy().tobytes() in known for row in data.inputs[data.ids == other])


def test_the_seed_decides_and_what_is_held_out_stays(digits: Dataset) -> None:
    one, same, other = (stream(digits, "class", 0.2, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(one.train(1).inputs, same.train(1).inputs)
    assert not torch.equal(one.train(1).inputs, other.train(1).inputs)
    sharp = stream(digits, "class", 0.0)
    assert torch.equal(one.evaluation(1).inputs, sharp.evaluation(1).inputs)
    assert one.evaluation_hash(1) == sharp.evaluation_hash(1)


@pytest.mark.parametrize("method", ["naive", "replay", "joint", "ridge", "der++", "ewc"])
def test_trials_complete(method: str, make_trial: MakeTrial, digits: Dataset) -> None:
    """Classes of the next task compete as soon as they have been seen, so an answer may name them."""
    trial = make_trial("split-digits/class", method, streams={"split-digits": {"blurry": 0.2}})
    result = run_trial(trial, digits.phase("confirm", trial.validation_share), diagnostics=method != "joint")
    assert result.status == "completed", result.reason
    assert "diagnostics" not in result.details
    assert [len(row[0][0]) for row in result.measured[1:]] == [4, 6, 8, 10, 10]  # type: ignore[index]


# What is refused.


def test_methods_that_need_whole_tasks_are_refused_or_left_out() -> None:
    fields: dict[str, Any] = {
        "scenarios": ["split-digits/task"],
        "methods": ["naive", "packnet", "gem"],
        "streams": {"split-digits": {"blurry": 0.1}},
    }
    with pytest.raises(SpecError) as caught:
        parse_spec(fields)
    assert len(caught.value.faults) == 2
    assert "methods.packnet: packnet cannot learn split-digits/task: each task trains weights" in str(caught.value)
    assert "and streams.split-digits.blurry mixes in examples of its neighbours; drop one of the two" in str(
        caught.value
    )
    spec = parse_spec({**fields, "unsupported_cells": "skip"})
    assert [cell.method for cell in spec.cells] == ["naive"]


def test_a_combination_is_refused_for_the_part_that_needs_whole_tasks() -> None:
    with pytest.raises(SpecError, match=r"ewc\+gem cannot learn .* it keeps a memory of each task"):
        parse_spec(
            {"scenarios": ["split-digits/task"], "methods": ["ewc+gem"], "streams": {"split-digits": {"blurry": 0.1}}}
        )


def test_a_single_task_has_no_neighbours(digits: Dataset, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"streams\.permuted-digits\.blurry: a single task has no neighbours"):
        parse_spec(
            {
                "scenarios": ["permuted-digits/domain"],
                "methods": ["naive"],
                "streams": {"permuted-digits": {"n_tasks": 1, "blurry": 0.1}},
            }
        )
    own = {"folder": "x", "blurry": 0.1, "classes_per_task": 10}
    spec = parse_spec({"scenarios": ["mine/class"], "methods": ["naive"], "streams": {"mine": own}})
    assert "streams.mine.blurry: a single task has no neighbours" in str(data_faults(spec, {"mine": digits}))


def test_a_share_of_all_is_refused() -> None:
    with pytest.raises(SpecError, match=r"blurry"):
        parse_spec({"streams": {"split-digits": {"blurry": 1.0}}})
