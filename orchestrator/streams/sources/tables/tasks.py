"""Classes and tasks: the columns `label` and `task` of a user's table as indices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api import types

from orchestrator.core.errors import DataError
from orchestrator.streams.settings import MOST_TASKS, StreamSettings
from orchestrator.streams.sources.order import (
    in_order_of_time,
    in_task_order,
    is_ordered,
    order,
    quoted,
    shown,
)
from orchestrator.streams.sources.tables import dates
from orchestrator.streams.sources.tables.frames import Table
from orchestrator.streams.sources.tables.kinds import alike_fault, as_numbers, case_note
from orchestrator.streams.sources.tables.text import dated

MOST_CLASSES = 1000
_FEW = 10
Labels = NDArray[np.int64]


def classes(
    where: str, settings: StreamSettings, tables: Sequence[Table], notes: list[str]
) -> tuple[list[Labels], list[str]]:
    """Return the class (N,) int64 of each row of each table, and the names of the classes."""
    labels, values = _indices(f"{where}.label", settings, tables, settings.label or "", notes)
    _refuse_many(
        f"{where}.label: column '{settings.label}' of '{tables[0].name}'", values, len(labels[0]), MOST_CLASSES,
        "so they are no classes; name another column, or write ranges of it as classes",
    )  # fmt: skip
    return labels, [shown(value) for value in values]


def tasks(
    where: str, settings: StreamSettings, tables: Sequence[Table], notes: list[str]
) -> tuple[list[Labels | None], list[str]]:
    """Return the task (N,) int64 of each row of each table, and the names of the tasks in their order."""
    if settings.task is None:
        return [None for _ in tables], []
    if settings.n_tasks is not None:
        return _stages(f"{where}.n_tasks", settings, tables, settings.n_tasks)
    found, values = _indices(f"{where}.task", settings, tables, settings.task, notes)
    _refuse_many(
        f"{where}.task: column '{settings.task}' of '{tables[0].name}'", values, len(found[0]), MOST_TASKS,
        "too many tasks; set n_tasks: 5 to cut numbers, dates or times into 5 stages, or name a column of months or "
        "quarters",
    )  # fmt: skip
    wanted = _task_order(where, settings, tables[0], values, notes)
    place = np.empty(len(values), dtype=np.int64)
    place[[values.index(value) for value in wanted]] = np.arange(len(values))
    return [place[codes] for codes in found], [shown(value) for value in wanted]


def _refuse_many(column: str, values: Sequence[Any], n_rows: int, most: int, way_out: str) -> None:
    """Refuse a column of classes or tasks with more values than there may be, or with few rows for each.

    Raises:
        DataError: if it has.
    """
    if len(values) > min(most, max(_FEW, n_rows / 4)):
        example = quoted(shown(values[0]))
        raise DataError(f"{column} has {len(values)} different values in {n_rows} rows, such as {example}, {way_out}")


def _task_order(where: str, settings: StreamSettings, table: Table, values: list[Any], notes: list[str]) -> list[Any]:
    """Return the values of the task column in the order of the tasks."""
    column = table.frame[settings.task]
    if settings.order is not None:
        return _given_order(f"{where}.order", settings, values)
    if settings.task in settings.dates:
        reading = dated(column, settings.dates[settings.task])
        if reading.fault:
            raise DataError(f"{where}.task: {reading.fault}")
        first = dict(zip(column, reading.values, strict=True))
        return sorted(values, key=lambda value: (first[value], order(value)))
    if isinstance(column.dtype, pd.CategoricalDtype) and column.cat.ordered:
        return [value for value in column.cat.categories if value in set(values)]
    if not all(isinstance(value, str) for value in values):
        return values
    if (periods := in_order_of_time(values)) is not None:
        return periods
    looks = all(map(dates.looks_like_a_date, values))
    if looks and not all(map(dates.is_iso, values)) and not all(map(dates.is_time, values)):
        raise DataError(
            f"{where}.task: column '{settings.task}' holds dates such as {quoted(values[0])}, which "
            f"{dates.way_out(settings.task or '', list(map(str, values))).partition(', or list')[0]}, or order"
        )
    if not looks and not all(value.isdecimal() for value in values):
        notes.append("the tasks are in alphabetical order, numbers in their names by size; set order to change it")
    return in_task_order(values)


def _given_order(where: str, settings: StreamSettings, values: list[Any]) -> list[Any]:
    named = [shown(value) for value in settings.order or ()]
    known = {shown(value): value for value in values}
    faults = [
        f"{where}: column '{settings.task}' holds {quoted(n)}, which is not listed; add it"
        for n in known
        if n not in named
    ]
    faults += [
        f"{where}: column '{settings.task}' does not hold {quoted(n)}; leave it out" for n in named if n not in known
    ]
    if faults:
        raise DataError(*faults)
    return [known[name] for name in named]


def _values(where: str, column: pd.Series[Any], file: str | None) -> tuple[Labels, pd.Series[Any]]:
    """Return the index (N,) int64 of each row's value, and the values.

    Raises:
        DataError: if a value is missing, naming the first such row.
    """
    try:
        codes, values = _factorized(column)
    except TypeError as error:
        raise DataError(
            f"{where}: column '{column.name}' of '{file}' holds other than text, numbers or times ({error}); change it"
        ) from error
    if (codes < 0).any():
        row = int(column.index[int(np.argmax(codes < 0))]) + 1
        raise DataError(
            f"{where}: column '{column.name}' of '{file}' has no value in row {row} (counted from 1); fill it in "
            "or drop the row"
        )
    return codes.astype(np.int64), pd.Series(values, name=column.name)


def _factorized(column: pd.Series[Any]) -> tuple[NDArray[np.integer[Any]], Any]:
    """Return the index (N,) of each row's value, -1 if it has none, and the values; a category has them ready."""
    if not isinstance(column.dtype, pd.CategoricalDtype):
        return pd.factorize(column)
    codes, values = column.cat.codes.to_numpy(), column.cat.categories
    counts = np.bincount(codes[codes >= 0], minlength=len(values))
    if not counts.all():  # values that no row has
        codes, values = np.where(codes < 0, -1, np.cumsum(counts > 0)[codes] - 1), values[counts > 0]
    return codes, values


def _plain(where: str, settings: StreamSettings, table: Table, values: pd.Series[Any], notes: list[str]) -> Any:
    """Return the values of a column of classes or tasks, as numbers if they are numbers in a CSV file or a type's own.

    Raises:
        DataError: if two values differ in nothing one sees.
    """
    if fault := alike_fault(values):
        raise DataError(f"{where}: {fault}")
    if note := case_note(values):
        notes.append(note)
    if types.infer_dtype(values, skipna=True) == "decimal":
        return values.map(float).astype(np.float64)
    return as_numbers(values, settings) if values.name in table.texts else values


def _indices(
    where: str, settings: StreamSettings, tables: Sequence[Table], name: str, notes: list[str]
) -> tuple[list[Labels], list[Any]]:
    """Return for each table the index (N,) int64 of each row's value, and the sorted values of the first table."""
    found: list[Labels] = []
    values: list[Any] = []
    for table in tables:
        codes, written = _values(where, table.frame[name], table.name)
        again, own = _values(where, _plain(where, settings, table, written, notes), table.name)
        values = values or sorted(own, key=order)
        place = {shown(value): index for index, value in enumerate(values)}
        if unknown := [value for value in own if shown(value) not in place]:
            raise DataError(
                f"{where}: column '{name}' of '{table.name}' holds {quoted(shown(unknown[0]))}, which "
                f"'{tables[0].name}' does not; drop its rows"
            )
        found.append(np.array([place[shown(value)] for value in own], dtype=np.int64)[again][codes])
    return found, list(values)


def in_order(where: str, name: str, settings: StreamSettings, tables: Sequence[Table]) -> list[Ordered] | str:
    """Return a column of numbers, dates or times of each table as what can be sorted; its first value if it is text.

    Raises:
        DataError: if a value is missing or does not have its format.
    """
    columns = [_values(where, _times(settings, table, name, where), table.name) for table in tables]
    kinds = {order(value)[0] for _, values in columns for value in values}
    first = columns[0][1].iloc[0]
    if len(kinds) > 1 or not is_ordered(first):
        return shown(first)
    return [Ordered(np.array([order(value)[1] for value in values])[codes], codes, values) for codes, values in columns]


@dataclass(frozen=True)
class Ordered:
    """A column that rows can be sorted by.

    Args:
        keys: a number for each row, such as seconds (N,).
        codes: which of the values each row has (N,) int64.
        values: the values of the column, each once.
    """

    keys: NDArray[Any]
    codes: Labels
    values: pd.Series[Any]

    def text(self, row: int) -> str:
        """Return the value of a row as it is shown."""
        return shown(self.values.iloc[self.codes[row]])


def _times(settings: StreamSettings, table: Table, name: str, where: str) -> pd.Series[Any]:
    """Return a column as times, if it holds ISO 8601 text or dates of the given format; else as it is."""
    column = table.frame[name]
    form = settings.dates.get(name)
    if form is not None:
        reading = dated(column, form)
        if reading.fault:
            raise DataError(f"{where}: {reading.fault}")
        return pd.Series(pd.to_datetime(reading.values, unit="s"), column.index, name=column.name)
    inferred = types.infer_dtype(column, skipna=True)
    if inferred == "decimal":
        return column.map(float, na_action="ignore").astype(np.float64)
    if inferred != "string":
        return column
    if (numbers := as_numbers(column, settings)) is not column and name in table.texts:
        return numbers
    for utc in (False, True):
        try:
            return pd.to_datetime(column, format="ISO8601", utc=utc)
        except ValueError:
            continue
    return column


def _stages(
    where: str, settings: StreamSettings, tables: Sequence[Table], n_tasks: int
) -> tuple[list[Labels | None], list[str]]:
    """Return the stage (N,) int64 of each row of each table, and the stages' names, made of their first values."""
    columns = in_order(where.replace("n_tasks", "task"), settings.task or "", settings, tables)
    if isinstance(columns, str):
        raise DataError(
            f"{where}: column '{settings.task}' holds text ({quoted(columns)}), which cannot be cut into "
            f"{n_tasks} stages; leave n_tasks out, set dates: {{{settings.task}: FORMAT}}, or save the column as "
            "numbers or ISO 8601 times"
        )
    first = columns[0]
    ranked = np.argsort(first.keys, kind="stable")
    rows = ranked[np.arange(n_tasks) * len(ranked) // n_tasks]
    starts = first.keys[rows]
    if len(np.unique(starts)) < n_tasks:
        raise DataError(
            f"{where}: column '{settings.task}' repeats its values too often: of {n_tasks} stages only "
            f"{len(np.unique(starts))} begin at different values; lower n_tasks"
        )
    stages = [np.maximum(np.searchsorted(starts, c.keys, side="right") - 1, 0).astype(np.int64) for c in columns]
    return list(stages), [f"from {first.text(row)}" for row in rows]
