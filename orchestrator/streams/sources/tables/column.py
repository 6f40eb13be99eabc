"""A column as it was understood, and where a value is in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

FIRST = "(counted from 1)"

Holds = Literal["numbers", "dates", "times of day", "kinds"]


@dataclass(frozen=True)
class Reading:
    """A column as it was understood.

    Args:
        holds: what it holds; None if it cannot be used.
        values: numbers, seconds, or kinds as they are, with the index of the table.
        fault: why it cannot be used, and what to do.
        note: a sentence for the reader.
        has_gaps: whether some rows have no value.
    """

    holds: Holds | None
    values: pd.Series[Any]
    fault: str = ""
    note: str = ""
    has_gaps: bool = False


def refused(column: pd.Series[Any], fault: str) -> Reading:
    """Return that a column cannot be used."""
    return Reading(None, column, fault)


def is_empty(column: pd.Series[Any]) -> bool:
    """Return whether a column has no value at all, mostly from its first row."""
    return not len(column) or (bool(pd.isna(column.iloc[0])) and bool(column.isna().all()))


def has_gaps(column: pd.Series[Any]) -> bool:
    """Return whether a column lacks any value; whole numbers of NumPy's types never do."""
    is_whole = isinstance(column.dtype, np.dtype) and column.dtype.kind in "iub"
    return not is_whole and bool(column.isna().any())


def row_of(column: pd.Series[Any], value: Any) -> str:
    """Return where a value is first, in words; `value` None stands for a gap."""
    found = column.isna() if value is None else column == value
    return f"in row {int(column.index[int(np.argmax(found.to_numpy()))]) + 1} {FIRST}"
