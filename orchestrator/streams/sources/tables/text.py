"""Columns of text that hold numbers, dates or kinds."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from pandas.api import types

from orchestrator.streams.settings import StreamSettings
from orchestrator.streams.sources.order import quoted, shown
from orchestrator.streams.sources.tables import dates, numbers
from orchestrator.streams.sources.tables.column import Reading, refused, row_of
from orchestrator.streams.sources.tables.frames import Table
from orchestrator.streams.sources.tables.kinds import kinds_of

_MOST_ODD = 6
_BEGINS_AS_A_NUMBER = re.compile(r"\s*[<>~\u2248\u00b1+\-\u2264\u2265=]*\s*\d")


def text_of(table: Table, column: pd.Series[Any], settings: StreamSettings) -> Reading:
    """Return what a column of text holds: numbers, dates or times if all of it is, kinds if little of it looks so."""
    counts = column.value_counts()
    values = [str(value) for value in counts.index]
    real = [value for value in values if not numbers.is_token(value)]
    if not real:
        return kinds_of(table, column, settings)
    weights = counts.to_numpy(dtype=np.int64)[[index for index, v in enumerate(values) if not numbers.is_token(v)]]
    pattern = numbers.number_pattern(settings.decimal, settings.thousands)
    plain = [pattern.fullmatch(value) is not None for value in real]
    if all(plain):
        return _numbers(table, column, settings, values)
    looks = [dates.looks_like_a_date(v) and not is_plain for v, is_plain in zip(real, plain, strict=True)]
    if _mostly(looks, weights):
        return _dates(column, values)
    otherwise = numbers.written_otherwise(real, pattern)
    if otherwise is not None and all(otherwise):
        example = next(value for value, is_plain in zip(real, plain, strict=True) if not is_plain)
        return refused(
            column,
            f"column {quoted(column.name)} holds {quoted(example)} {row_of(column, example)}, "
            f"{numbers.way_out(example, settings.decimal)}",
        )
    for found in (plain, otherwise):
        if found is not None and _mostly(found, weights):
            odd = [v for v, fits in zip(real, found, strict=True) if not fits]
            return _odd(column, [*odd, *filter(numbers.is_token, values)], "numbers")
    reading = kinds_of(table, column, settings)
    if reading.fault or reading.note or not all(map(_BEGINS_AS_A_NUMBER.match, real)):
        return reading
    return replace(
        reading,
        note=f"column {quoted(column.name)} holds text such as {quoted(real[0])}, whose values are kinds, no numbers",
    )


def _mostly(found: Sequence[bool], weights: Any) -> bool:
    """Return whether more than half of the values, or nine rows of ten, are of a kind."""
    rows = weights[np.array(found, dtype=bool)].sum()
    return sum(found) > len(found) / 2 or rows >= 0.9 * weights.sum()


def _odd(column: pd.Series[Any], odd: Sequence[str], what: str) -> Reading:
    """Return that a column holds some texts among others, all of which are named if they are few."""
    all_tokens = all(map(numbers.is_token, odd))
    cure = "make such fields empty in the file and set missing" if all_tokens else "correct it or drop the row"
    more = f" (also {', '.join(map(quoted, odd[1:_MOST_ODD]))}" if len(odd) > 1 else ""
    more += "" if not more else f" and {len(odd) - _MOST_ODD} more)" if len(odd) > _MOST_ODD else ")"
    return refused(
        column,
        f"column {quoted(column.name)} holds the text {quoted(odd[0])} among {what} {row_of(column, odd[0])}{more}; "
        f"{cure}, or list the column in categorical, which makes each value a category",
    )


def _numbers(table: Table, column: pd.Series[Any], settings: StreamSettings, values: list[str]) -> Reading:
    """Return a column of text in which all but what people write for a gap is a number."""
    if odd := list(filter(numbers.is_token, values)):
        return _odd(column, odd, "numbers")
    zero = next(filter(numbers.has_leading_zero, values), None)
    if zero is not None and all(value.strip()[2:3] == "." and dates.looks_like_a_date(value) for value in values):
        return _dates(column, values)
    reads = column.name in table.texts or settings.decimal is not None or settings.thousands is not None
    if not reads and zero is not None:
        note = f"column {quoted(column.name)} holds text such as {quoted(zero)}, whose values are kinds"
        return replace(kinds_of(table, column, settings), note=note)
    if not reads:
        return refused(
            column,
            f"column {quoted(column.name)} holds {quoted(values[0])} {row_of(column, values[0])}, "
            f"{numbers.way_out(values[0], settings.decimal)}",
        )
    known = {value: numbers.to_number(value, settings.decimal, settings.thousands) for value in values}
    note = "" if zero is None else zero_note(replace(table, zeros={str(column.name): zero}), str(column.name))
    return Reading("numbers", column.map(known).astype(np.float64), note=note)


def _dates(column: pd.Series[Any], values: list[str]) -> Reading:
    """Return a column of text that mostly looks like dates or times."""
    is_time = [dates.is_time(value) for value in values]
    is_iso = [dates.is_iso(value) for value in values]
    looks = [dates.looks_like_a_date(value) for value in values]
    what, fits = "dates", looks
    for form, found in (("times of day", is_time), ("ISO 8601 dates", is_iso)):
        if sum(found) > sum(looks) / 2:
            what, fits = form, found
    if not all(fits):
        return _odd(column, [v for v, one in zip(values, fits, strict=True) if not one], what)
    if what == "times of day":
        known = dict(zip(values, dates.clock_seconds(values), strict=True))
        return Reading("times of day", column.map(known).astype(np.float64))
    if what == "dates":
        return refused(
            column,
            f"column {quoted(column.name)} holds dates or times such as {quoted(values[0])}, which "
            f"{dates.way_out(str(column.name), values)}",
        )
    if dates.mixes_offsets(values):
        return refused(
            column,
            f"column {quoted(column.name)} holds times with an offset from UTC and others without, such as "
            f"{quoted(values[0])}; write all with one or all without, or list the column in drop",
        )
    return dated(column, dates.ISO)


def times_of(column: pd.Series[Any]) -> Reading:
    """Return a column of times or durations in seconds."""
    if types.is_timedelta64_dtype(column):
        return Reading("times of day", column.dt.total_seconds())
    return Reading("dates", pd.Series(dates.seconds(dates.without_zone(column)), column.index, name=column.name))


def dated(column: pd.Series[Any], form: str) -> Reading:
    """Return a column of dates in a format, in seconds.

    Args:
        column: text, or numbers such as 20240131, or times.
        form: `iso`, or a format of strptime.
    """
    if types.is_datetime64_any_dtype(column):
        return times_of(column)
    if types.infer_dtype(column, skipna=True) in ("date", "datetime", "time"):
        return Reading("dates", column.map(dates.of_object, na_action="ignore").astype(np.float64))
    values = list(column.dropna().unique())
    texts = [shown(value) for value in values]
    if form == dates.ISO and all(map(dates.is_time, texts)):
        known = dict(zip(values, dates.clock_seconds(texts), strict=True))
        return Reading("times of day", column.map(known).astype(np.float64))
    times = dates.parsed(texts, form)
    if times.isna().any():
        odd = values[int(np.argmax(times.isna().to_numpy()))]
        rule = "ISO 8601 date" if form == dates.ISO else f"date of the form '{form}'"
        return refused(
            column,
            f"column {quoted(column.name)} holds {quoted(odd)} {row_of(column, odd)}, which is no {rule}; correct it, "
            f"or set another format in dates",
        )
    has_day = dates.has_day(form)
    known = dict(zip(values, dates.seconds(times) if has_day else dates.seconds_of_day(times), strict=True))
    return Reading("dates" if has_day else "times of day", column.map(known).astype(np.float64))


def zero_note(table: Table, name: str) -> str:
    """Return that a column of numbers has some with a 0 in front; empty if it has none."""
    if (zero := table.zeros.get(name)) is None:
        return ""
    return (
        f"column {quoted(name)} holds {quoted(zero)} and is read as numbers; list it in categorical if these are codes"
    )
