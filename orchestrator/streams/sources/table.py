"""Reads a user's own table: one row per example, a column of classes, and optionally a column of tasks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from orchestrator.core.errors import DataError
from orchestrator.core.text import nearest
from orchestrator.streams.datasets import Dataset, held_out_rows, strata
from orchestrator.streams.facts import DatasetFacts
from orchestrator.streams.settings import MOST_TASKS, StreamSettings
from orchestrator.streams.sources.composition import classes_of_tasks, parts_faults, whole_faults
from orchestrator.streams.sources.features import encode, feature_faults
from orchestrator.streams.sources.order import is_ordered, order, shown

MOST_CLASSES = 1000
Labels = NDArray[np.int64]


def load_table(stream: str, settings: StreamSettings) -> Dataset:
    """Return the rows of `settings.table`; `encode` says how columns become features.

    The sorted values of the column `task` are the tasks. With `n_tasks`, that column must hold numbers or times: the
    rows are sorted by it and cut into stages of about equal size. Stage k begins at the value of row
    floor(k·N/n_tasks), so rows with equal values stay together.

    Raises:
        DataError: if anything is wrong, naming each column or row.
    """
    where = f"streams.{stream}"
    frame = _read(f"{where}.table", settings.table or "")
    frames = [frame]
    if settings.test_table is not None:
        frames.append(_read(f"{where}.test_table", settings.test_table))
    faults = _column_faults(where, settings, frames)
    if faults:
        raise DataError(*faults)
    used = {settings.label, settings.task, *settings.drop}
    features = [name for name in frame.columns if name not in used]
    for name, part in zip(_paths(settings), frames, strict=True):
        faults += feature_faults(f"{where}.{name}", part, features, settings.categorical)
    labels, classes = _attempt(faults, lambda: _classes(where, settings, frames))
    tasks, names = _attempt(faults, lambda: _tasks(where, settings, frames))
    if faults:
        raise DataError(*faults)
    facts = DatasetFacts(tuple(classes), (), 1, f"'{settings.table}'", tuple(names))
    place = f"{where}.table '{settings.table}'"
    if len(frames) == 2:
        faults = parts_faults(place, (labels[0], tasks[0]), (labels[1], tasks[1]), facts)
    else:
        faults = whole_faults(place, labels[0], tasks[0], facts)
    if faults:
        raise DataError(*faults)
    if len(frames) == 1:
        test = held_out_rows(strata(labels[0], tasks[0]), settings.test_share)
        frames, labels = [frame[~test], frame[test]], [labels[0][~test], labels[0][test]]
        tasks = [None, None] if tasks[0] is None else [tasks[0][~test], tasks[0][test]]
    inputs, n_numbers = encode(frames, features, settings.categorical)
    cut = classes_of_tasks(labels[0], tasks[0], len(names))
    facts = DatasetFacts(
        facts.class_names, inputs[0].shape[1:], 1, facts.source, facts.task_names, cut, n_numbers
    )  # fmt: skip
    return Dataset(stream, inputs[0], labels[0], inputs[1], labels[1], facts, tasks[0], tasks[1])


def _attempt(faults: list[str], read: Any) -> tuple[list[Any], list[str]]:
    """Return what `read` returns. If it fails, add its faults and return nothing, so that all are reported at once."""
    try:
        return read()  # type: ignore[no-any-return]
    except DataError as error:
        faults += error.faults
        return [], []


def _paths(settings: StreamSettings) -> list[str]:
    return ["table"] if settings.test_table is None else ["table", "test_table"]


def _read(where: str, text: str) -> pd.DataFrame:
    """Return the table in a file, its columns named by text, with at least one row."""
    path = Path(text).expanduser()
    if not path.is_file():
        raise DataError(
            f"{where}: there is no file '{path}'; check the path, which is relative to the working directory"
        )
    try:
        if path.suffix.lower() in (".parquet", ".pq"):
            frame = pd.read_parquet(path)
        else:
            frame = pd.read_csv(path, sep="\t" if path.suffix.lower() == ".tsv" else ",", low_memory=False)
    except Exception as error:  # whatever a reader raises for bytes that it does not understand
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(f"{where}: the table '{path}' cannot be read ({reason}); save it again") from error
    frame.columns = pd.Index([str(name) for name in frame.columns])
    if not len(frame):
        raise DataError(f"{where}: the table '{path}' has no rows; add some")
    return frame.reset_index(drop=True)


def _column_faults(where: str, settings: StreamSettings, frames: Sequence[pd.DataFrame]) -> list[str]:
    """Return which columns are missing or there twice."""
    faults = []
    named = [("label", settings.label), ("task", settings.task)]
    named += [("categorical", name) for name in settings.categorical] + [("drop", name) for name in settings.drop]
    for path, frame in zip(_paths(settings), frames, strict=True):
        columns = list(frame.columns)
        file = getattr(settings, path)
        faults += [
            f"{where}.{field}: '{file}' has no column '{name}'; {nearest(name, columns)}"
            for field, name in named
            if name is not None and name not in columns
        ]
        for name in dict.fromkeys(column for column in columns if columns.count(column) > 1):
            faults.append(f"{where}.{path}: '{file}' has two columns '{name}'; rename one")
    if len(frames) == 2 and not faults:
        missing = [name for name in frames[0].columns if name not in {*frames[1].columns, *settings.drop}]
        faults += [
            f"{where}.test_table: '{settings.test_table}' lacks the column '{name}' of '{settings.table}'; add it, or "
            "list it in drop"
            for name in missing
        ]
    if not faults and not set(frames[0].columns) - {settings.label, settings.task, *settings.drop}:
        faults.append(f"{where}.table: '{settings.table}' has no column left to learn from; drop fewer")
    return faults


def _values(where: str, column: pd.Series[Any], file: str | None) -> tuple[NDArray[np.int64], list[Any]]:
    """Return the index (N,) int64 of each row's value, and the values.

    Raises:
        DataError: if a value is missing, naming the first such row.
    """
    try:
        codes, values = pd.factorize(column)
    except TypeError as error:
        raise DataError(
            f"{where}: column '{column.name}' of '{file}' holds other than text, numbers or times ({error}); change it"
        ) from error
    if (codes < 0).any():
        row = int(np.argmax(codes < 0)) + 1
        raise DataError(
            f"{where}: column '{column.name}' of '{file}' has no value in row {row} (the first is row 1); fill it in "
            "or drop the row"
        )
    return codes.astype(np.int64), list(values)


def _indices(
    where: str, settings: StreamSettings, frames: Sequence[pd.DataFrame], name: str
) -> tuple[list[Labels], list[Any]]:
    """Return for each table the index (N,) int64 of each row's value, and the sorted values of the first table."""
    found: list[Labels] = []
    values: list[Any] = []
    for path, frame in zip(_paths(settings), frames, strict=True):
        codes, own = _values(where, frame[name], getattr(settings, path))
        values = values or sorted(own, key=order)
        place = {value: index for index, value in enumerate(values)}
        if unknown := [value for value in own if value not in place]:
            raise DataError(
                f"{where}: column '{name}' of '{settings.test_table}' holds '{shown(unknown[0])}', which "
                f"'{settings.table}' does not; drop its rows"
            )
        found.append(np.array([place[value] for value in own], dtype=np.int64)[codes])
    return found, values


def _classes(where: str, settings: StreamSettings, frames: Sequence[pd.DataFrame]) -> tuple[list[Labels], list[str]]:
    labels, values = _indices(f"{where}.label", settings, frames, settings.label or "")
    if len(values) > MOST_CLASSES:
        raise DataError(
            f"{where}.label: column '{settings.label}' of '{settings.table}' has {len(values)} different values, more "
            f"than {MOST_CLASSES} classes; name another column"
        )
    return labels, [shown(value) for value in values]


def _tasks(
    where: str, settings: StreamSettings, frames: Sequence[pd.DataFrame]
) -> tuple[list[Labels | None], list[str]]:
    """Return the task (N,) int64 of each row of each table, and the names of the tasks."""
    if settings.task is None:
        return [None for _ in frames], []
    if settings.n_tasks is not None:
        return _stages(f"{where}.n_tasks", settings, frames, settings.n_tasks)
    tasks, values = _indices(f"{where}.task", settings, frames, settings.task)
    if len(values) > MOST_TASKS:
        raise DataError(
            f"{where}.task: column '{settings.task}' of '{settings.table}' has {len(values)} different values, more "
            f"than {MOST_TASKS} tasks; set n_tasks to cut numbers or times into stages"
        )
    return list(tasks), [shown(value) for value in values]


def _times(column: pd.Series[Any]) -> pd.Series[Any]:
    """Return a column of ISO 8601 text, as a CSV file holds dates and times, as times; any other as it is."""
    if pd.api.types.infer_dtype(column, skipna=True) != "string":
        return column
    try:
        return pd.to_datetime(column, format="ISO8601")
    except ValueError:
        return column


def _stages(
    where: str, settings: StreamSettings, frames: Sequence[pd.DataFrame], n_tasks: int
) -> tuple[list[Labels | None], list[str]]:
    """Return the stage (N,) int64 of each row of each table, and the stages' names, made of their first values."""
    place = where.replace("n_tasks", "task")
    columns = [
        _values(place, _times(frame[settings.task]), getattr(settings, path))
        for path, frame in zip(_paths(settings), frames, strict=True)
    ]
    kinds = {order(value)[0] for _, values in columns for value in values}
    first = columns[0][1][0]
    if len(kinds) > 1 or not is_ordered(first):
        raise DataError(
            f"{where}: column '{settings.task}' holds text ('{shown(first)}'), which cannot be cut into {n_tasks} "
            "stages; leave n_tasks out, or save the column as numbers or ISO 8601 times"
        )
    keys = [np.array([order(value)[1] for value in values])[codes] for codes, values in columns]
    ranked = np.argsort(keys[0], kind="stable")
    rows = ranked[np.arange(n_tasks) * len(ranked) // n_tasks]
    starts = keys[0][rows]
    if len(np.unique(starts)) < n_tasks:
        raise DataError(
            f"{where}: column '{settings.task}' repeats its values too often: of {n_tasks} stages only "
            f"{len(np.unique(starts))} begin at different values; lower n_tasks"
        )
    stages = [np.maximum(np.searchsorted(starts, key, side="right") - 1, 0).astype(np.int64) for key in keys]
    codes, values = columns[0]
    return list(stages), [f"from {shown(values[codes[row]])}" for row in rows]
