"""The order of names and values: numbers by size, then times, then text in natural order (task2 before task10)."""

from __future__ import annotations

import datetime
import numbers
import re
from collections.abc import Sequence
from typing import Any

from orchestrator.core.text import visible

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


_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTH = r"(?P<month>jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?"
_MONTH += r"|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)\.?"
_PERIODS = [
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"(?P<year>\d{4})[ /_-]?(?P<part>[QH])(?P<number>[1-4])",
        r"(?P<part>[QH])(?P<number>[1-4])[ /_-]?'?(?P<year>\d{4}|\d{2})",
        r"(?P<number>[1-4])(?P<part>[QH])[ /_-]?'?(?P<year>\d{4}|\d{2})",
        r"(?P<part>[QH])(?P<number>[1-4])",
        r"(?P<year>\d{4})[ /_-]?(?P<part>W)(?P<number>\d{1,2})",
        _MONTH,
        _MONTH + r"[ ,/_-]*'?(?P<year>\d{4}|\d{2})",
        r"(?P<year>\d{4})[ /_-]*" + _MONTH,
        r"(?P<year>\d{4})[./_-](?P<number>0?[1-9]|1[0-2])",
        r"(?P<number>0?[1-9]|1[0-2])[./_-](?P<year>\d{4})",
    )
]
"""Quarters, halves of years, weeks and months, most with a year or without."""


def in_order_of_time(values: Sequence[str]) -> list[str] | None:
    """Return quarters, halves of years, weeks or months in their order; None if a value is none or they are mixed."""
    keys = {value: _period(value.strip()) for value in values}
    kinds = {key and key[0] for key in keys.values()}
    if len(kinds) != 1 or None in kinds:
        return None
    return sorted(values, key=lambda value: (keys[value], value))


def _period(text: str) -> tuple[tuple[str, bool], int, int] | None:
    """Return the kind of a period and whether it has a year, the year, and its number in the year."""
    found = next(filter(None, (pattern.fullmatch(text) for pattern in _PERIODS)), None)
    if found is None:
        return None
    parts = found.groupdict()
    month, year = parts.get("month"), parts.get("year")
    number = _MONTHS.index(month[:3].casefold()) + 1 if month else int(parts["number"])
    century = 2000 if year and len(year) == 2 else 0
    return ((parts.get("part") or "M").upper(), year is not None), int(year or 0) + century, number


def in_task_order(values: Sequence[str]) -> list[str]:
    """Return text in natural order."""
    return sorted(values, key=natural)


def quoted(text: object) -> str:
    """Return a text in quotes, as messages show a name or value: shortened, control characters spelled out."""
    shortened = visible(str(text))
    return f"'{shortened if len(shortened) <= 60 else shortened[:57] + '...'}'"
