"""The held-out examples that a model is judged by: of its own stream, kept in its folder, or read again."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from orchestrator.champions.card import Card
from orchestrator.champions.folder import EVALUATION
from orchestrator.champions.tensors import from_bytes, to_bytes
from orchestrator.core.errors import DataError, RunFolderError
from orchestrator.models.frozen import example_settings
from orchestrator.spec.trial_spec import TrialSpec
from orchestrator.streams.datasets import Dataset
from orchestrator.streams.sources.loading import load_stream
from orchestrator.streams.stream import Stream
from strategies import TaskData


def hash_of(task: TaskData) -> str:
    """Return a hash of held-out examples as a network takes them, 16 hexadecimal digits.

    If there is a frozen network in front, they are what that takes: the last bits of features depend on the machine.
    """
    digest = hashlib.sha256(str((tuple(task.inputs.shape), str(task.inputs.dtype))).encode())
    for tensor in (task.inputs, task.labels):
        digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()[:16]


def kept(tasks: list[TaskData]) -> bytes:
    """Return the file that keeps the held-out examples of each task."""
    return to_bytes({"tasks": [{"inputs": task.inputs, "labels": task.labels} for task in tasks]})


def evaluation_sets(card: Card, files: dict[str, bytes], data_dir: Path, where: str) -> list[TaskData]:
    """Return the held-out examples of each of the model's tasks, checked against the hashes in its card.

    They are as the first network takes them: `Model.taken` makes of them what the others take.

    Args:
        card: of the model.
        files: of its folder; one of them may hold the examples.
        data_dir: where torchvision's data sets are.
        where: the folder, for messages.

    Raises:
        DataError: if they are not in the folder and the data are missing or have changed.
        RunFolderError: if the folder's own are damaged.
    """
    if EVALUATION in files:
        found = _unpacked(from_bytes(files[EVALUATION], f"{where}/{EVALUATION}"), card, where)
    else:
        found = _read_again(card, data_dir, where)
    wrong = [
        task.name
        for task, data in zip(card.tasks, found, strict=True)
        if task.evaluation and hash_of(data) != task.evaluation
    ]
    if wrong:
        raise DataError(
            f"{where}: the held-out examples of {', '.join(map(repr, wrong))} are not those that it was judged by; "
            "give the data as they were, or export with --keep-evaluation, or set encoding_from: first_task if the "
            "table has grown"
        )
    return found


def example_stream(spec: TrialSpec, dataset: Dataset) -> Stream:
    """Return the stream of a trial on all data, whose examples are as the first network takes them.

    Args:
        spec: the trial.
        dataset: the data of its stream, without features.
    """
    settings = example_settings(spec.stream_settings)
    data = dataset.phase("confirm", 0.0)
    return Stream(spec.stream, settings, spec.incremental_type, spec.seed, data, torch.device("cpu"))


def _unpacked(state: dict[str, Any], card: Card, where: str) -> list[TaskData]:
    tasks = state.get("tasks")
    if not isinstance(tasks, list) or len(tasks) != len(card.tasks):
        raise RunFolderError(f"{where}/{EVALUATION}: expected the held-out examples of {len(card.tasks)} tasks")
    found = []
    for index, task in enumerate(tasks):
        inputs, labels = (task.get(name) if isinstance(task, dict) else None for name in ("inputs", "labels"))
        if not isinstance(inputs, Tensor) or not isinstance(labels, Tensor) or len(inputs) != len(labels):
            raise RunFolderError(f"{where}/{EVALUATION}: the held-out examples of task {index} are damaged")
        found.append(TaskData(index, inputs, labels, index))
    return found


def _read_again(card: Card, data_dir: Path, where: str) -> list[TaskData]:
    """Return the held-out examples of the model's stream, read from where the card says that they are."""
    updates = [event.task for event in card.history if event.what == "update"]
    if updates:
        raise DataError(
            f"{where}: the held-out examples of {', '.join(map(repr, updates))}, learned by update, are kept nowhere; "
            "update with --keep-evaluation"
        )
    spec = card.trial
    dataset = load_stream(spec.stream, card.data, data_dir)
    stream = example_stream(spec, dataset)
    if list(stream.task_names[: len(card.tasks)]) != card.task_names:
        raise DataError(
            f"{where}: the data have the tasks {', '.join(stream.task_names)}, and the model learned "
            f"{', '.join(card.task_names)}; give the data as they were, or export with --keep-evaluation"
        )
    return [stream.evaluation(task) for task in range(len(card.tasks))]
