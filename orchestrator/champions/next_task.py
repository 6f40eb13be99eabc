"""The examples of a new task, cut into training and held-out ones as a sweep over the longer data would cut them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.champions.card import Card
from orchestrator.champions.new_data import read_pictures, read_rows
from orchestrator.core.errors import DataError
from orchestrator.core.text import nearest
from orchestrator.streams.datasets import Inputs, held_out_rows
from orchestrator.streams.sources.order import natural, order, quoted, shown
from orchestrator.streams.sources.tables.column import FIRST


@dataclass(frozen=True)
class NextTask:
    """The examples of a new task.

    Args:
        train_inputs: as in `PhaseData`.
        train_labels: index in `class_names` (N,) int64.
        evaluation_inputs: of the same form.
        evaluation_labels: (M,) int64.
        classes: the class behind each output of the task.
        class_names: the model's, then the new ones.
        split_sizes: how many rows of each class were split; () if held-out examples were given.
        notes: sentences that the user should know.
    """

    train_inputs: Inputs
    train_labels: NDArray[np.int64]
    evaluation_inputs: Inputs
    evaluation_labels: NDArray[np.int64]
    classes: tuple[int, ...]
    class_names: tuple[str, ...]
    split_sizes: tuple[int, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Examples:
    inputs: Inputs
    names: list[str]
    notes: list[str]
    in_order: list[str]


def read_next(card: Card, data: Any, task: str, test_data: Any = None) -> NextTask:
    """Return the examples of a new task.

    Args:
        card: of the model that is to learn it.
        data: a table, a data frame or a folder CLASS/IMAGE.
        task: its name; if the data have the model's task column, only its rows count.
        test_data: held-out examples, of the same form; by default a share of `data`.

    Raises:
        DataError: if the data do not fit the model, with every fault.
    """
    read = _images if card.is_image else _rows
    train = read(card, data, task, "--data")
    given = None if test_data is None else read(card, test_data, task, "--test-data")
    names, classes, faults = _classes(card, train, task)
    known = {names[c] for c in classes}
    odd = sorted(set(given.names) - known) if given is not None else []
    faults += [f"--test-data: holds the class {quoted(name)}, which --data does not" for name in odd]
    if faults:
        raise DataError(*faults)
    place = {name: index for index, name in enumerate(names)}
    labels = _labels(train.names, place)
    notes = [*train.notes, *(given.notes if given else [])]
    if given is not None:
        return NextTask(
            train.inputs,
            labels,
            given.inputs,
            _labels(given.names, place),
            classes,
            names,
            (),
            tuple(dict.fromkeys(notes)),
        )
    positions = np.full(len(names), -1, dtype=np.int64)
    positions[list(classes)] = np.arange(len(classes))
    kinds = positions[labels]
    out = held_out_rows(kinds, card.data.test_share, before=card.split_sizes)
    sizes = tuple(np.unique(kinds, return_counts=True)[1].tolist())
    if not out.any() or out.all():
        raise DataError(f"--data: '{task}' has {len(out)} examples, too few to hold some out; give --test-data")
    return NextTask(
        train.inputs[~out], labels[~out], train.inputs[out], labels[out], classes, names, sizes,
        tuple(dict.fromkeys(notes)),
    )  # fmt: skip


def _labels(found: list[str], place: dict[str, int]) -> NDArray[np.int64]:
    return np.array([place[name] for name in found], dtype=np.int64)


def _classes(card: Card, train: _Examples, task: str) -> tuple[tuple[str, ...], tuple[int, ...], list[str]]:
    """Return the names of all classes, the classes of the task's outputs, and what is wrong with them."""
    own = train.in_order
    new = [name for name in own if name not in card.class_names]
    names = (*card.class_names, *new)
    place = {name: index for index, name in enumerate(names)}
    classes = tuple(place[name] for name in own)
    kind, earlier = card.trial.incremental_type, {task.classes for task in card.tasks}
    if kind == "class":
        learned = {c for one in earlier for c in one}
        shared = [names[c] for c in classes if c in learned]
        fault = f"--data: '{task}' holds the class {quoted(shared[0])}, which was learned" if shared else ""
        return names, classes, [f"{fault}; in class-incremental learning each task brings new ones"] if shared else []
    if kind == "task":
        single = f"--data: '{task}' has the one class {quoted(own[0])}, which its head could not miss; add another"
        return names, classes, [single] if len(own) == 1 else []
    if len(earlier) == 1:
        (all_classes,) = earlier
        listed = [card.class_names[c] for c in all_classes]
        unknown = [name for name in own if name not in listed]
        faults = [
            f"--data: '{task}' holds the class {quoted(name)}, which has no output; {nearest(name, listed)}"
            for name in unknown
        ]
        return card.class_names, all_classes, faults
    width = max(map(len, earlier))
    fault = f"--data: expected {width} classes, one an output, got {len(own)} ({', '.join(own[:10])})"
    return names, classes, [fault] if len(own) != width else []


def _rows(card: Card, data: Any, task: str, option: str) -> _Examples:
    new = read_rows(card, data, option)
    frame, notes = new.table.frame.iloc[new.rows], list(new.notes)
    settings, inputs = card.data, new.inputs
    if settings.label not in frame.columns:
        raise DataError(
            f"{option}: the table has no column {quoted(settings.label)}, which holds the classes; "
            f"{nearest(str(settings.label), list(map(str, frame.columns)))}"
        )
    if settings.task is not None and settings.task in frame.columns and settings.n_tasks is None:
        of_task = frame[settings.task].map(shown, na_action="ignore") == task
        if not of_task.any():
            found = ", ".join(quoted(shown(v)) for v in frame[settings.task].dropna().unique()[:5])
            raise DataError(f"{option}: no row has {quoted(task)} in the column '{settings.task}', which holds {found}")
        if not of_task.all():
            notes.append(f"{(~of_task).sum()} rows of other tasks are left out")
        frame, inputs = frame[of_task], inputs[of_task.to_numpy()]
    elif settings.task is not None and settings.task not in frame.columns:
        notes.append(
            f"the table has no column '{settings.task}': all its rows are taken for '{task}'"
            + (", and each example's task must be named at inference" if card.trial.incremental_type == "task" else "")
        )
    labels = frame[settings.label]
    if labels.isna().any():
        row = int(frame.index[int(np.argmax(labels.isna().to_numpy()))]) + 1
        raise DataError(f"{option}: the column '{settings.label}' has no value in row {row} {FIRST}; fill it in")
    values: list[Any] = sorted(labels.unique(), key=order)
    return _Examples(inputs, [shown(value) for value in labels], notes, [shown(value) for value in values])


def _images(card: Card, data: Any, task: str, option: str) -> _Examples:
    if not isinstance(data, str | Path):
        raise DataError(f"{option}: expected a folder with a folder for each class, got {type(data).__name__}")
    pixels, names = read_pictures(card, data, option)
    parts = [Path(name).parts for name in names]
    if odd := next((name for name, own in zip(names, parts, strict=True) if len(own) < 2), None):
        raise DataError(f"{option}: expected CLASS/IMAGE, got the image '{odd}' outside of any class; move it")
    if {own[0] for own in parts} == {task} and all(len(own) > 2 for own in parts):
        parts = [own[1:] for own in parts]
    found = [own[0] for own in parts]
    return _Examples(pixels, found, [], sorted(set(found), key=natural))
