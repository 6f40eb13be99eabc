"""The order of names and values: numbers by size, then times, then text in natural order (task2 before task10)."""

from __future__ import annotations

import datetime
import numbers
import re
from typing import Any

_DIGITS = re.compile(r"([0-9]+)")


def natural(text: str) -> tuple[Any, ...]:
    """Return a key that sorts 'task2' before 'task10'."""
    parts = _DIGITS.split(text)
    return tuple(int(part) if at % 2 else part.casefold() for at, part in enumerate(parts)), text


def is_ordered(value: Any) -> bool:
    """Return whether a value is a number or a time, so that its column can be cut into stages."""
    return isinstance(value, numbers.Real | datetime.date)


def order(value: Any) -> tuple[int, Any]:
    """Return a key that sorts numbers by size, then times, then text in natural order."""
    if isinstance(value, numbers.Real):
        return 0, value
    if isinstance(value, datetime.datetime):
        return 1, (value if value.tzinfo else value.replace(tzinfo=datetime.UTC)).timestamp()
    if isinstance(value, datetime.date):
        return 1, datetime.datetime(value.year, value.month, value.day, tzinfo=datetime.UTC).timestamp()
    return 2, natural(str(value))


def shown(value: Any) -> str:
    """Return a value as text, 1.0 as 1: pandas turns a column of whole numbers to floats if one value is missing."""
    is_float = isinstance(value, numbers.Real) and not isinstance(value, numbers.Integral)
    return str(int(float(value))) if is_float and float(value).is_integer() else str(value)
