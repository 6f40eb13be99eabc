"""What each feature column of a user's table holds: numbers, dates or kinds; or why it cannot be learned from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from pandas.api import types

from orchestrator.streams.settings import StreamSettings
from orchestrator.streams.sources.order import quoted, shown
from orchestrator.streams.sources.tables import dates
from orchestrator.streams.sources.tables.column import (
    FIRST,
    Reading,
    ends_of,
    has_gaps,
    is_empty,
    is_plain,
    refused,
    row_of,
)
from orchestrator.streams.sources.tables.frames import Table
from orchestrator.streams.sources.tables.kinds import gaps_of, kinds_of
from orchestrator.streams.sources.tables.text import dated, text_of, times_of, zero_note

LARGEST = float(np.finfo(np.float32).max)


def read_column(table: Table, name: str, settings: StreamSettings) -> Reading:
    """Return what a feature column holds, with its gaps."""
    column = table.frame[name]
    reading = _understood(table, column, settings)
    if reading.fault:
        return reading
    if reading.holds == "numbers" and is_plain(reading.values):
        numbers = reading.values.to_numpy()
        ends = ends_of(numbers)
        has_nan = bool(np.isnan(numbers[ends[0]]))
        reading = replace(reading, has_gaps=has_nan, ends=None if has_nan else ends)
    else:
        reading = replace(reading, has_gaps=has_gaps(column))
    fault = _gap_fault(column, reading, settings)
    if not fault and reading.holds == "numbers":
        fault = _size_fault(reading)
    return replace(reading, holds=None, fault=fault) if fault else reading


def _understood(table: Table, column: pd.Series[Any], settings: StreamSettings) -> Reading:
    name = str(column.name)
    if is_empty(column):
        return refused(column, f"column {quoted(name)} has no value in any row; list it in drop")
    if name in {*settings.categorical, *settings.hashed(), *settings.frequency}:
        return kinds_of(table, column, settings)
    if name in settings.dates:
        return dated(column, settings.dates[name])
    if isinstance(column.dtype, pd.CategoricalDtype) or types.is_bool_dtype(column):
        return kinds_of(table, column, settings)
    if types.is_numeric_dtype(column) and not types.is_complex_dtype(column):
        return _numbers(table, column)
    if types.is_datetime64_any_dtype(column) or types.is_timedelta64_dtype(column):
        return times_of(column)
    inferred = types.infer_dtype(column, skipna=True)
    if inferred == "string":
        return text_of(table, column, settings)
    if inferred == "boolean":
        return kinds_of(table, column, settings)
    if inferred in ("decimal", "integer", "floating", "mixed-integer-float"):
        return _as_floats(column)
    if inferred in ("date", "datetime", "time", "timedelta", "period"):
        objects = column.map(lambda value: value.to_timestamp()) if inferred == "period" else column
        values = objects.map(dates.of_object, na_action="ignore").astype(np.float64)
        return Reading("times of day" if inferred == "time" else "dates", values)
    kind = "of lists or the like" if inferred.startswith("mixed") else inferred
    return refused(
        column,
        f"column {quoted(name)} is of type {column.dtype} ({kind}), not of numbers, dates, text or booleans; list it "
        "in drop",
    )


def _numbers(table: Table, column: pd.Series[Any]) -> Reading:
    """Return a column of numbers, unless all are whole and dates such as 20240131."""
    name = str(column.name)
    first = column.iloc[:10_000].dropna().iloc[:100]
    if types.is_integer_dtype(column) or (types.is_float_dtype(column) and not (first % 1).any()):
        are_days = column.min() >= 19_000_101 and column.max() <= 20_991_231
        days: list[Any] = list(column.dropna().unique()) if are_days else []
        if len(days) > 1 and dates.parsed([shown(day) for day in days], "%Y%m%d").notna().all():
            return refused(
                column,
                f"column {quoted(name)} holds dates such as {quoted(shown(days[0]))}; set dates: {{{name}: '%Y%m%d'}}, "
                "or list the column in drop or categorical",
            )
    return Reading("numbers", column, note=zero_note(table, name))


def _as_floats(column: pd.Series[Any]) -> Reading:
    try:
        return Reading("numbers", column.map(float, na_action="ignore").astype(np.float64))
    except (OverflowError, ValueError, TypeError) as error:
        return refused(column, f"column {quoted(column.name)} holds what is no number ({error}); list it in drop")


def _gap_fault(column: pd.Series[Any], reading: Reading, settings: StreamSettings) -> str:
    """Return that a column has gaps that the settings do not allow; empty if they do."""
    name = str(column.name)
    if not reading.has_gaps:
        return ""
    word = gaps_of(name, settings)
    if reading.holds == "kinds" and word == "median":
        return (
            f"column {quoted(name)} has no value {row_of(column, None)}, and text has no median; set missing: "
            f"{{{name}: indicator}}, which makes 'missing' a category of its own, or drop"
        )
    if word != "refuse":
        return ""
    if reading.holds == "kinds":
        return (
            f"column {quoted(name)} has no value {row_of(column, None)}; set missing: {{{name}: indicator}} or list "
            "the column in categorical, which makes 'missing' a category of its own, or set missing: "
            f"{{{name}: drop}} to leave such rows out"
        )
    return (
        f"column {quoted(name)} has no value {row_of(column, None)}; set missing: {{{name}: median}}, indicator or "
        "drop, or fill it in"
    )


def _size_fault(reading: Reading) -> str:
    values = reading.values
    if types.is_integer_dtype(values):
        return ""
    if reading.ends is not None and np.abs(values.to_numpy()[list(reading.ends)]).max() <= LARGEST:
        return ""
    numbers_ = values.to_numpy(dtype=np.float64, na_value=np.nan)
    wrong = ~(np.abs(numbers_) <= LARGEST) & ~values.isna().to_numpy()
    if not wrong.any():
        return ""
    place = int(np.argmax(wrong))
    return (
        f"column {quoted(values.name)} holds {numbers_[place]:g} in row {int(values.index[place]) + 1} {FIRST}, which "
        f"is not finite or larger than {LARGEST:.2g}; correct it or drop the row"
    )


def unlike_faults(first: Table, second: Table, name: str, one: Reading, other: Reading) -> Iterator[str]:
    """Yield that a column holds something else in the second table than in the first."""
    if one.holds and other.holds and one.holds != other.holds:
        found = [
            f"{reading.holds if reading.holds != 'kinds' else 'text'} such as "
            f"{quoted(shown(table.frame[name].dropna().iloc[0]))}"
            for table, reading in ((first, one), (second, other))
        ]
        yield (
            f"column {quoted(name)} of '{second.name}' holds {found[1]}, and that of '{first.name}' {found[0]}; write "
            "both alike, or list the column in categorical or drop"
        )
