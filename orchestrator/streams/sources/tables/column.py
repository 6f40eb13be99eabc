"""A column as it was understood, and where a value is in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

FIRST = "(counted from 1)"

_BLOCK_ROWS = 1 << 15
"""Rows that stay in a processor's cache between one look at them and the next."""

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
        ends: positions of the least and the largest number, where they were looked for and no row has a gap.
    """

    holds: Holds | None
    values: pd.Series[Any]
    fault: str = ""
    note: str = ""
    has_gaps: bool = False
    ends: tuple[int, int] | None = None


def refused(column: pd.Series[Any], fault: str) -> Reading:
    """Return that a column cannot be used."""
    return Reading(None, column, fault)


def is_empty(column: pd.Series[Any]) -> bool:
    """Return whether a column has no value at all, mostly from its first row."""
    return not len(column) or (bool(pd.isna(column.iloc[0])) and bool(column.isna().all()))


def is_plain(column: pd.Series[Any]) -> bool:
    """Return whether a column is of a NumPy type of numbers, in which only NaN is a gap."""
    return isinstance(column.dtype, np.dtype) and column.dtype.kind in "iuf"


def ends_of(values: NDArray[Any]) -> tuple[int, int]:
    """Return the positions of the least and the largest of (N,) numbers, N ≥ 1; of the first NaN if there is one."""
    blocks = [(first, values[first : first + _BLOCK_ROWS]) for first in range(0, len(values), _BLOCK_ROWS)]
    found = np.array([(first + block.argmin(), first + block.argmax()) for first, block in blocks])
    least, largest = found.T
    return int(least[values[least].argmin()]), int(largest[values[largest].argmax()])


def has_gaps(column: pd.Series[Any]) -> bool:
    """Return whether a column lacks any value; whole numbers of NumPy's types never do."""
    is_whole = isinstance(column.dtype, np.dtype) and column.dtype.kind in "iub"
    return not is_whole and bool(column.isna().any())


def row_of(column: pd.Series[Any], value: Any) -> str:
    """Return where a value is first, in words; `value` None stands for a gap."""
    found = column.isna() if value is None else column == value
    return f"in row {int(column.index[int(np.argmax(found.to_numpy()))]) + 1} {FIRST}"
