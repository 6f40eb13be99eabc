"""The next task of a model as the data of a sweep, whose trials begin from the model: what `sweep --from` searches."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from orchestrator.champions.card import Card
from orchestrator.champions.evaluation import evaluation_sets
from orchestrator.champions.folder import member_state, read_folder
from orchestrator.champions.model import as_examples, load_frozen, normalised
from orchestrator.champions.next_task import NextTask, read_next
from orchestrator.champions.updating import refuse
from orchestrator.core.errors import DataError, RunFolderError, UsageError
from orchestrator.models.frozen import FeatureStore, load_with_features, with_features
from orchestrator.streams.datasets import Dataset, Inputs, Start, held_out_rows, strata
from orchestrator.streams.facts import DatasetFacts
from orchestrator.streams.settings import StreamSettings
from orchestrator.streams.stream import layout_of, padded_shape
from strategies import TaskData


def load_any(stream: str, settings: StreamSettings, data_dir: Path, features: FeatureStore | None = None) -> Dataset:
    """Return the data of a stream, also of one that is the next task of a model, or features of a frozen network.

    Raises:
        DataError: if data are missing, damaged or do not fit the model, with every fault.
    """
    if settings.from_model is None:
        return load_with_features(stream, settings, data_dir, features)
    where = f"streams.{stream}.from_model"
    if not settings.from_model.model:
        raise DataError(f"{where}: a trial keeps no path of its model; pass the spec's streams")
    try:
        asked = settings.from_model
        return load_next(stream, asked.model, asked.data, asked.task, asked.test_data, data_dir, features)
    except DataError as error:
        places = {"--test-data": f"{where}.test_data", "--data": f"{where}.data"}
        raise DataError(*(_at(fault, places, where) for fault in error.faults)) from error
    except (RunFolderError, UsageError) as error:
        places = {"--task": f"{where}.task", "update": f"{where}.model"}
        raise DataError(_at(str(error), places, f"{where}.model")) from error


def _at(fault: str, places: Mapping[str, str], otherwise: str) -> str:
    """Return a fault that names an option, at the field that stands for it."""
    for option, place in places.items():
        for named in (f"{option}.table:", f"{option}:"):
            if fault.startswith(named):
                return f"{place}:{fault.removeprefix(named)}"
    return f"{otherwise}: {fault}"


def load_next(
    stream: str,
    model: str,
    data: Any,
    task: str,
    test_data: Any,
    data_dir: Path,
    features: FeatureStore | None = None,
    plugins: Collection[str] | None = None,
) -> Dataset:
    """Return the new task of a model, with the model's held-out examples of earlier tasks.

    Half of these are seen by `search` and `finals` and the other half by `confirm`, as many of each class in a task.

    Args:
        stream: its name.
        model: the folder of the model.
        data: the examples of the new task.
        task: its name.
        test_data: held-out examples of the new task.
        data_dir: where torchvision's data sets are.
        features: what the run has computed of them, if a frozen network is in front.
        plugins: code of one's own that may be imported for it; None for what the model names.

    Raises:
        DataError, RunFolderError, UsageError: as for `update_model`.
    """
    card, files = read_folder(model)
    refuse(card, task)
    frozen = load_frozen(card, files, model, plugins)
    found = _examples(card, files, stream, model, read_next(card, data, task, test_data), task, data_dir)
    if frozen is None:
        return found
    taken = with_features(found, stream, StreamSettings(), frozen, features)
    assert taken.start is not None
    start = replace(taken.start, inputs=_normalised(card, taken.start.inputs))
    train, test = _normalised(card, taken.train_inputs), _normalised(card, taken.test_inputs)
    return replace(taken, train_inputs=train, test_inputs=test, start=start)


def _examples(
    card: Card, files: Mapping[str, bytes], stream: str, model: str, new: NextTask, task: str, data_dir: Path
) -> Dataset:
    """Return the new task with examples as the first network takes them.

    Raises:
        DataError, RunFolderError: as for `evaluation_sets`.
    """
    earlier = evaluation_sets(card, dict(files), data_dir, model)
    inputs, labels, tasks = _joined(card, earlier)
    is_seen = held_out_rows(strata(labels, tasks), 0.5)
    facts = _facts(card, task, new)
    train, test = (_plain(as_examples(card, one)) for one in (new.train_inputs, new.evaluation_inputs))
    n_earlier = len(card.tasks)
    return Dataset(
        stream,
        train,
        new.train_labels,
        np.concatenate([inputs[~is_seen], test]),
        np.concatenate([labels[~is_seen], new.evaluation_labels]),
        facts,
        np.full(len(train), n_earlier, dtype=np.int64),
        np.concatenate([tasks[~is_seen], np.full(len(test), n_earlier, dtype=np.int64)]),
        (_note(card, model, task, len(train), int(is_seen.sum()), int((~is_seen).sum())), *new.notes),
        start=Start(
            n_learned=n_earlier,
            planned_tasks=card.planned_tasks,
            states=tuple(member_state(member, files, model) for member in card.members),
            inputs=inputs[is_seen],
            labels=labels[is_seen],
            tasks=tasks[is_seen],
            positive_class=card.positive_class,
            made_of=_made_of(card),
            identity=_identity(card, files),
        ),
    )


def _made_of(card: Card) -> dict[str, Any]:
    """Return what a trial must share with a model that it begins from, as plain JSON."""
    trial = card.trial.model_dump(mode="json")
    return {name: trial[name] for name in ("method", "incremental_type", "model", "hyperparameters")}


def _note(card: Card, model: str, task: str, n_train: int, n_seen: int, n_kept: int) -> str:
    return (
        f"trials begin from the model '{model}', which has learned {len(card.tasks)} tasks, and learn "
        f"'{task}' from {n_train} examples; of the held-out examples of earlier tasks {n_seen} are used for "
        f"choosing and {n_kept} for confirming; drops are since the model"
    )


def _joined(card: Card, earlier: list[TaskData]) -> tuple[Inputs, NDArray[np.int64], NDArray[np.int64]]:
    """Return held-out examples as the arrays of a data set: inputs, classes and tasks."""
    classes = [list(task.classes) for task in card.tasks]
    ranges = layout_of(classes, card.trial.incremental_type).ranges
    labels = [
        np.asarray(classes[index], dtype=np.int64)[task.labels.numpy() - ranges[index][0]]
        for index, task in enumerate(earlier)
    ]
    inputs = torch.cat([task.inputs for task in earlier])
    tasks = [np.full(len(task), index, dtype=np.int64) for index, task in enumerate(earlier)]
    return _plain(inputs), np.concatenate(labels), np.concatenate(tasks)


def _normalised(card: Card, features: Inputs) -> Inputs:
    """Return the features of a frozen network (N, F) float32 as the networks take them."""
    return _plain(normalised(card, torch.from_numpy(features)))


def _plain(inputs: torch.Tensor) -> Inputs:
    """Return what a network takes (N, *S) as the array of a data set: grey images have no channels there."""
    found: NDArray[np.float32] = inputs.numpy()
    return found[:, 0] if found.ndim == 4 and found.shape[1] == 1 else found


def _facts(card: Card, task: str, new: NextTask) -> DatasetFacts:
    names = (*card.task_names, task)
    classes = (*(one.classes for one in card.tasks), new.classes)
    shape = padded_shape(card.example_shape, card.trial.stream_settings.padding)
    return DatasetFacts(new.class_names, shape, 1, "the next task of a model", names, classes, card.inputs.n_numbers)


def _identity(card: Card, files: Mapping[str, bytes]) -> str:
    digest = hashlib.sha256()
    for member in card.members:
        for name in (member.network_file, member.state_file):
            digest.update(files[name])
    return digest.hexdigest()[:16]
