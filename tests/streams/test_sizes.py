"""The sizes of a stream are those of the tasks that it makes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from orchestrator.streams.datasets import Dataset
from orchestrator.streams.facts import DatasetFacts
from orchestrator.streams.settings import StreamSettings
from orchestrator.streams.sources.builtin import load_dataset
from orchestrator.streams.stream import Stream
from strategies import IncrementalType, StreamSizes

KINDS: tuple[IncrementalType, ...] = ("task", "domain", "class")


def made(stream: Stream) -> StreamSizes:
    """Return the sizes of a stream, counted after its tasks were made."""
    tasks = [stream.train(index) for index in range(stream.n_tasks)]
    by_output = torch.bincount(torch.cat([task.labels for task in tasks]), minlength=stream.layout.n_outputs)
    (shape,) = {tuple(task.inputs.shape[1:]) for task in tasks}
    return StreamSizes(tuple(map(len, tasks)), tuple(by_output.tolist()), shape)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("split-digits", {}),
        ("split-digits", {"n_tasks": 3, "classes_per_task": 3, "class_order": "shuffled", "padding": 2}),
        ("split-digits", {"n_tasks": 3, "classes_per_task": 3, "leftover": "last_task"}),
        ("permuted-digits", {"n_tasks": 3}),
    ],
)
def test_of_a_data_set_that_is_cut(name: str, settings: dict[str, Any], kind: IncrementalType) -> None:
    data = load_dataset("digits", Path("nowhere")).phase("search", 0.2, 3)
    stream = Stream(name, StreamSettings.model_validate(settings), kind, 1, data, torch.device("cpu"))
    sizes = stream.sizes()
    assert sizes == made(stream)
    assert all(type(n) is int for n in (*sizes.n_examples, *sizes.n_by_output)), "no numbers of NumPy"


@pytest.mark.parametrize(
    ("kind", "n_by_output"), [("task", (3, 1, 2, 0, 4)), ("domain", (5, 1, 4)), ("class", (3, 1, 2, 0, 4))]
)
def test_of_tasks_that_are_given(kind: IncrementalType, n_by_output: tuple[int, ...]) -> None:
    """One class of the second task is in the test rows only."""
    rows = [(0, 0)] * 3 + [(0, 1)] + [(1, 0)] * 2 + [(1, 2)] * 4
    numbers, labels = (np.array(part, dtype=np.int64) for part in zip(*rows, strict=True))
    inputs = np.ones((len(rows), 5), dtype=np.float32)
    facts = DatasetFacts(("a", "b", "c"), (5,), 1, "", ("t0", "t1"), ((0, 1), (0, 1, 2)), 5)
    data = Dataset("own", inputs, labels, inputs, labels, facts, numbers, numbers).phase("confirm", 0.1)
    own = StreamSettings(table="", label="y", task="t")
    stream = Stream("own", own, kind, 0, data, torch.device("cpu"))
    sizes = stream.sizes()
    assert sizes == made(stream) == StreamSizes((4, 6), n_by_output, (5,))
    assert (sizes.n_in_all, sizes.example_bytes) == (10, 20)
