"""Dates and times in tables: read as seconds, or recognised as dates in a form that must be named."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

ISO = "iso"
_OFFSET = r"(?:Z|[+-]\d{2}(?::?\d{2})?)"
_CLOCK = r"\d{2}(?::\d{2}(?::\d{2}(?:[.,]\d{1,9})?)?)?"
_ISO = re.compile(
    rf"\s*\d{{4}}-\d{{2}}(?:-\d{{2}}(?:[T ]{_CLOCK}\s?{_OFFSET}?)?)?\s*|\s*\d{{8}}T\d{{4}}(?:\d{{2}})?Z?\s*"
)
_HAS_OFFSET = re.compile(rf".*\d[T ].*\d\s?{_OFFSET}\s*")
_TIME = re.compile(r"\s*(?:[01]?\d|2[0-3]):[0-5]\d(?::[0-5]\d(?:\.\d{1,9})?)?\s*")
_MONTH = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|sept|oct|nov|dec)[a-z]*\.?"
_LOOKS = re.compile(
    r"\s*(?:(?:[a-z]{3,9}\.?,? )?(?:"
    r"\d{1,2}([./-])\d{1,2}\1(?:\d{4}|\d{2})|\d{4}([./-])\d{1,2}\2\d{1,2}"
    r"|\d{1,2}[./-]\d{4}|\d{4}[./-]\d{1,2}|\d{4}-?w\d{2}(?:-?\d)?"
    rf"|\d{{1,2}}(?:st|nd|rd|th)?[ ./-]*{_MONTH}(?:[ ,./-]*\d{{2,4}})?|\d{{1,2}}\. ?[^\W\d]{{3,9}}\.? \d{{4}}"
    rf"|{_MONTH}[ ./-]*\d{{1,2}}(?:st|nd|rd|th)?,? +\d{{4}}|{_MONTH}[ ,./-]*\d{{2,4}}"
    rf"|\d{{4}}[ ./-]*{_MONTH}(?:[ ./-]*\d{{1,2}})?"
    r"|\d{4}\u5e74\d{1,2}\u6708(?:\d{1,2}\u65e5)?"
    r")(?:[t ,]+\d{1,2}[:.h]\d{2}.*)?"
    r"|\d{1,2}(?::\d{2}){0,2}\s?[ap]\.?m\.?|\d{1,2}:\d{2}(?::\d{2})?(?:\.\d+)?)\s*",
    re.IGNORECASE,
)

_DAYS = (
    "%d.%m.%Y", "%m.%d.%Y", "%d.%m.%y", "%m.%d.%y",
    "%d/%m/%Y", "%m/%d/%Y", "%d/%m/%y", "%m/%d/%y", "%y/%m/%d", "%d-%m-%Y",
    "%m-%d-%Y", "%d-%m-%y", "%m-%d-%y", "%y-%m-%d", "%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d", "%d-%b-%Y", "%d-%b-%y",
    "%d %b %Y", "%d %B %Y", "%d %b %y", "%d. %B %Y", "%d. %b %Y", "%d%b%Y", "%b %d, %Y", "%B %d, %Y", "%b %d %Y",
    "%B %d %Y", "%b %Y", "%B %Y", "%b-%Y", "%b-%y", "%b %y", "%m/%Y", "%m.%Y", "%m-%Y", "%Y/%m", "%Y.%m", "%Y %b",
    "%Y-%b", "%Y-%b-%d", "%d/%b/%Y", "%a, %d %b %Y", "%A, %d %B %Y", "%Y\u5e74%m\u6708%d\u65e5",
)  # fmt: skip
_CLOCKS = (
    "", " %H:%M", " %H:%M:%S", " %H:%M:%S.%f", " %I:%M %p", " %I:%M:%S %p", "T%H:%M:%S", "T%H:%M", ", %H:%M",
    " %H:%M:%S %z", " %H:%M %z", "T%H:%M:%S%z", ":%H:%M:%S %z",
)  # fmt: skip
_TIMES = ("%I:%M %p", "%I:%M:%S %p", "%I:%M%p", "%I %p", "%I%p", "%H:%M:%S", "%H:%M")
_MOST_TRIED = 100


def is_iso(value: str) -> bool:
    """Return whether a text has the form of an ISO 8601 date, month or moment; the day may not exist."""
    return _ISO.fullmatch(value) is not None


def is_time(value: str) -> bool:
    """Return whether a text is a time of day, HH:MM or HH:MM:SS."""
    return _TIME.fullmatch(value) is not None


def looks_like_a_date(value: str) -> bool:
    """Return whether a text looks like a date or time in any common form."""
    return is_iso(value) or is_time(value) or _LOOKS.fullmatch(value) is not None


def has_day(form: str) -> bool:
    """Return whether a format says more than the time of day."""
    return form == ISO or re.search(r"%-?[aAbBdjmuUVwWyYGcxDF]", form) is not None


def parsed(values: Sequence[str], form: str) -> pd.Series[Any]:
    """Return texts as times (N,) in UTC, without a time zone; NaT if one does not have the form.

    Args:
        values: without gaps.
        form: `iso`, or a format of strptime.
    """
    texts = pd.Series(list(values), dtype=object).str.strip()
    if form == ISO:
        times = pd.to_datetime(texts.str.replace(r"\s(?=[+-]\d{2}:?\d{2}$|Z$)", "", regex=True), format="ISO8601",
                               errors="coerce", utc=True)  # fmt: skip
    else:
        times = pd.to_datetime(texts, format=form, errors="coerce", utc="%z" in form or "%Z" in form)
    return without_zone(times)


def without_zone(times: pd.Series[Any]) -> pd.Series[Any]:
    """Return times in UTC, without a time zone."""
    return times.dt.tz_convert(None) if times.dt.tz is not None else times


def mixes_offsets(values: Sequence[str]) -> bool:
    """Return whether some of the ISO 8601 moments have an offset from UTC and some have none."""
    return len({_HAS_OFFSET.fullmatch(value) is not None for value in values}) > 1


def seconds(times: pd.Series[Any]) -> NDArray[np.float64]:
    """Return times (N,) as seconds since 1970, NaN for a gap."""
    values = times.to_numpy(dtype="datetime64[us]")
    found = np.asarray(values.astype(np.int64) / 1e6, dtype=np.float64)
    found[np.isnat(values)] = np.nan
    return found


def seconds_of_day(times: pd.Series[Any]) -> NDArray[np.float64]:
    """Return times (N,) as seconds since midnight, NaN for a gap."""
    found = seconds(times)
    return np.mod(found, 86400.0)


def clock_seconds(values: Sequence[str]) -> NDArray[np.float64]:
    """Return times of day, HH:MM or HH:MM:SS, as seconds since midnight; NaN for other text."""
    out = np.full(len(values), np.nan)
    for index, value in enumerate(values):
        if is_time(value):
            hours, minutes, *rest = value.strip().split(":")
            out[index] = int(hours) * 3600 + int(minutes) * 60 + (float(rest[0]) if rest else 0)
    return out


def of_object(value: Any) -> float:
    """Return a date as seconds since 1970, a time of day as seconds since midnight, a duration as seconds."""
    if isinstance(value, datetime.time):
        return value.hour * 3600 + value.minute * 60 + value.second + value.microsecond / 1e6
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    if isinstance(value, datetime.datetime):
        return (value if value.tzinfo else value.replace(tzinfo=datetime.UTC)).timestamp()
    if isinstance(value, datetime.date):
        return datetime.datetime(value.year, value.month, value.day, tzinfo=datetime.UTC).timestamp()
    return float("nan")


def formats_of(values: Sequence[str]) -> list[str]:
    """Return the formats that all texts have and that give different dates, the likely one first; at most 3."""
    texts = [value.strip() for value in values]
    sample = texts[:_MOST_TRIED]
    forms = [*(day + clock for day in _DAYS for clock in _CLOCKS), *_TIMES]
    found: list[str] = []
    seen: list[pd.Series[Any]] = []
    for form in _fitting(forms, sample):
        times = parsed(texts, form)
        if times.notna().all() and not any(times.equals(other) for other in seen):
            found.append(form)
            seen.append(times)
    return found[:3]


def _fitting(forms: Sequence[str], texts: Sequence[str]) -> Iterator[str]:
    for form in forms:
        try:
            for text in texts:
                datetime.datetime.strptime(text, form)
        except ValueError:
            continue
        yield form


def way_out(column: str, values: Sequence[str]) -> str:
    """Return what to do about a column of dates in a form that must be named."""
    listed = "or list the column in drop or categorical"
    forms = formats_of(values)
    if len(forms) > 1:
        either = " or ".join(f"'{form}'" for form in forms)
        return f"can be read as {either}; set dates: {{{column}: FORMAT}} to one of them, {listed}"
    form = f"'{forms[0]}'" if forms else "FORMAT"
    rule = "" if forms else " with a format of strptime that all values have"
    return f"need a format; set dates: {{{column}: {form}}}{rule}, {listed}"
