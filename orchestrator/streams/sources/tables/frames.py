"""A table as it was read, and the names of its columns."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
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


def split_vectors(where: str, file: str, frame: pd.DataFrame, whole: Collection[str | None]) -> pd.DataFrame:
    """Return a table in which `v`, a column of vectors of one length, is the columns of numbers `v.0`, `v.1`, ….

    Args:
        where: the place of faults.
        file: its name in faults.
        frame: the table.
        whole: columns that are left as they are.

    Raises:
        DataError: if vectors of a column differ in length or hold something else than numbers, with every fault.
    """
    faults: list[str] = []
    parts: list[pd.DataFrame] = []
    for name in frame.columns:
        column = frame[name]
        is_vector = column.dtype == object and name not in whole and _is_vector(column)
        parts.append(_vectors(where, file, column, faults) if is_vector else column.to_frame())
    if faults:
        raise DataError(*faults)
    if all(part.shape[1] == 1 for part in parts):
        return frame
    wide = pd.concat(parts, axis=1)
    named(where, file, list(wide.columns))
    return wide


def _is_vector(column: pd.Series[Any]) -> bool:
    first = next((value for value in column if value is not None and value is not pd.NA), None)
    return isinstance(first, list | tuple | np.ndarray)


def _vectors(where: str, file: str, column: pd.Series[Any], faults: list[str]) -> pd.DataFrame:
    """Return a column of vectors as columns of numbers, float32 if they all are; a gap is a row of gaps."""
    place = f"{where}: column {quoted(str(column.name))} of '{file}'"
    given = column.notna().to_numpy()
    try:
        rows = [np.asarray(value) for value in column[given]]
        lengths = [len(row) for row in rows]
    except (TypeError, ValueError):
        rows, lengths = [], [-1]
    odd = next((i for i, n in enumerate(lengths) if n != lengths[0]), None)
    if odd is not None:
        row = int(np.flatnonzero(given)[odd]) + 1
        faults.append(
            f"{place} holds vectors of {lengths[0]} numbers, and of {lengths[odd]} in row {row}; pad or cut them"
        )
        return column.to_frame()
    flat = bool(rows) and all(row.ndim == 1 and row.dtype.kind in "fiub" for row in rows) and lengths[0] > 0
    if not flat:
        faults.append(
            f"{place} holds lists of something else than numbers; write a vector of numbers, or list it in drop"
        )
        return column.to_frame()
    values = np.stack(rows)
    wide = np.full((len(column), lengths[0]), np.nan, dtype=np.float32 if values.dtype == np.float32 else np.float64)
    wide[given] = values
    return pd.DataFrame(wide, index=column.index, columns=[f"{column.name}.{i}" for i in range(lengths[0])])


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
