"""A table as it was read, and the names of its columns."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from orchestrator.core.errors import DataError
from orchestrator.streams.sources.order import quoted


@dataclass(frozen=True)
class Table:
    """A table as it was read.

    Args:
        setting: what names it, `table` or `test_table`.
        name: its place, as messages name it.
        frame: its rows; the index counts them from 0.
        texts: columns that come from text, so that text which is a number is one.
        zeros: columns of numbers -> a value with a 0 in front.
        n_files: how many files it is.
        left_out: sentences on what was left out.
        notes: other sentences.
    """

    setting: str
    name: str
    frame: pd.DataFrame
    texts: frozenset[str] = frozenset()
    zeros: Mapping[str, str] = field(default_factory=dict)
    n_files: int = 1
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def plain_name(name: object) -> str:
    """Return a column's name in one Unicode form (NFC), without a byte order mark and spaces around it."""
    return unicodedata.normalize("NFC", str(name)).strip().strip("\ufeff").strip()


def named(where: str, file: str, raw: Sequence[str]) -> list[str]:
    """Return the names of columns as the user sees them.

    Raises:
        DataError: if two are the same, naming both.
    """
    names = [plain_name(name) or f"Unnamed: {index}" for index, name in enumerate(raw)]
    faults = []
    for index, name in enumerate(names):
        first = names.index(name)
        if first != index and names.index(name, first + 1) == index:
            if raw[first] == raw[index]:
                what = f"'{file}' has two columns {quoted(name)}, at {first + 1} and {index + 1}"
            else:
                what = (
                    f"'{file}' has the columns {raw[first]!a} and {raw[index]!a}, which differ only in spaces or in "
                    "how letters are coded"
                )
            faults.append(f"{where}: {what}; rename one")
    if faults:
        raise DataError(*faults)
    return names
