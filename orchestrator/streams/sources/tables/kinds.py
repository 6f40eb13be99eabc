"""Columns of kinds: what can be one-hot encoded, hashed or counted, and kinds that differ in nothing one sees."""

from __future__ import annotations

import unicodedata
from typing import Any

import numpy as np
import pandas as pd
from pandas.api import types

from orchestrator.streams.settings import StreamSettings
from orchestrator.streams.sources.order import quoted
from orchestrator.streams.sources.tables import numbers
from orchestrator.streams.sources.tables.column import Reading, has_gaps, refused, row_of
from orchestrator.streams.sources.tables.frames import Table

MOST_CATEGORIES = 1000
MOST_LISTED_NUMBERS = 20


def kinds_of(table: Table, column: pd.Series[Any], settings: StreamSettings) -> Reading:
    """Return a column of kinds; text of a CSV file that is all numbers as numbers, so that 1 and 1.0 are one."""
    name = str(column.name)
    try:
        n_kinds = column.nunique()
    except TypeError:
        return refused(
            column, f"column {quoted(name)} holds lists or the like, which cannot be learned from; list it in drop"
        )
    if fault := alike_fault(column):
        return refused(column, fault)
    values = as_numbers(column, settings) if name in table.texts else column
    by_name = name in settings.hashed() or name in settings.frequency
    if n_kinds > MOST_CATEGORIES and settings.hash is None and not by_name:
        return refused(
            column,
            f"column {quoted(name)} has {n_kinds} different values, more than the {MOST_CATEGORIES} that can be "
            f"one-hot encoded; set hash: {{{name}: 64}} or frequency: [{name}], or list it in drop",
        )
    if fault := _listed_numbers_fault(values, settings):
        return refused(column, fault)
    return Reading("kinds", values, note=case_note(values))


def _listed_numbers_fault(column: pd.Series[Any], settings: StreamSettings) -> str:
    """Return that a listed column of many numbers has gaps, which are easier mended than made a kind."""
    name = str(column.name)
    said = isinstance(settings.missing, dict) and settings.missing.get(name) in ("indicator", "drop")
    if said or not has_gaps(column) or not types.is_numeric_dtype(column) or types.is_bool_dtype(column):
        return ""
    known = column.dropna().to_numpy(dtype=np.float64)
    if len(np.unique(known)) <= MOST_LISTED_NUMBERS and not (known % 1).any():
        return ""
    return (
        f"column {quoted(name)} is listed in categorical and holds many numbers, with a gap {row_of(column, None)}; "
        f"take it out of categorical and set missing: {{{name}: median}}, or keep it and set missing: "
        f"{{{name}: indicator}}"
    )


def as_numbers(column: pd.Series[Any], settings: StreamSettings) -> pd.Series[Any]:
    """Return a column of text as numbers if all of it are numbers, none with a 0 in front; else as it is."""
    if types.infer_dtype(column, skipna=True) != "string":
        return column
    values = [str(value) for value in column.dropna().unique()]
    pattern = numbers.number_pattern(settings.decimal, settings.thousands)
    if not all(pattern.fullmatch(value) and not numbers.has_leading_zero(value) for value in values):
        return column
    if all(value.strip().lstrip("+-").isdecimal() for value in values):
        whole: dict[str, Any] = {value: int(value) for value in values}
        is_small = all(abs(number) < 2**63 for number in whole.values())
        found = column.map(whole)
        return found.astype(np.int64 if found.notna().all() else np.float64) if is_small else found.astype(object)
    known = {value: numbers.to_number(value, settings.decimal, settings.thousands) for value in values}
    return column.map(known).astype(np.float64)


def alike_fault(column: pd.Series[Any]) -> str:
    """Return that two kinds of a column differ only in spaces, in how letters are coded, or in a 0 in front."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = pd.Series(column.cat.categories, name=column.name)
    if types.infer_dtype(column, skipna=True) != "string":
        return ""
    first: dict[tuple[str, str], str] = {}
    zeros = False
    values = [str(value) for value in column.dropna().unique()]
    zeros = any(map(numbers.has_leading_zero, values))
    for value in values:
        keys = [("text", " ".join(unicodedata.normalize("NFC", value).split()).casefold())]
        if zeros and value.strip().isdecimal():
            keys.append(("number", str(int(value)) if len(value) < 4000 else value))
        for key in keys:
            other = first.setdefault(key, value)
            if key[0] == "text" and other.casefold() == value.casefold():
                continue
            if other != value:
                what = "a 0 in front" if key[0] == "number" else "spaces or in how letters are coded"
                return (
                    f"column {quoted(column.name)} holds {other!r} and {value!r}, which differ only in {what}; write "
                    "them alike in the file"
                )
    return ""


def case_note(column: pd.Series[Any]) -> str:
    """Return that two kinds of a column differ only in capitals; empty if none do."""
    if types.infer_dtype(column, skipna=True) != "string":
        return ""
    first: dict[str, str] = {}
    for value in map(str, column.dropna().unique()):
        other = first.setdefault(value.casefold(), value)
        if other != value:
            return f"column {quoted(column.name)} holds {quoted(other)} and {quoted(value)}, which are two kinds"
    return ""


def gaps_of(name: str, settings: StreamSettings) -> str:
    """Return what is done with gaps of a feature; in a column listed in categorical, 'missing' is a category."""
    word = settings.missing_in(name)
    is_said = isinstance(settings.missing, dict) and name in settings.missing
    return "indicator" if word == "refuse" and name in settings.categorical and not is_said else word
