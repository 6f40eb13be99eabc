"""Columns of a user's table as numbers: what is a number is scaled, what is of a kind becomes one-hot."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api import types

from orchestrator.streams.sources.composition import first_of
from orchestrator.streams.sources.order import natural, shown

MOST_KINDS = 1000
_LARGEST = float(np.finfo(np.float32).max)
_DAY = r"\d{4}-\d{2}-\d{2}([T ].*)?"
_MISSING = "missing\0"  # no text in a file is this

Inputs = NDArray[np.float32]


def feature_faults(where: str, frame: pd.DataFrame, features: Sequence[str], categorical: Collection[str]) -> list[str]:
    """Return what is wrong with the columns that are learned from, by column and first row."""
    return first_of(
        f"{where}: expected {fault}" for name in features for fault in _faults(frame[name], name in categorical)
    )


def _faults(column: pd.Series[Any], listed: bool) -> Iterator[str]:
    missing = column.isna().to_numpy()
    if missing.any() and not listed:
        yield (
            f"a value in every row of column '{column.name}', got none in row {int(np.argmax(missing)) + 1} (the first "
            "is row 1); drop the rows without one, or list the column in categorical, where a missing value is a kind "
            "of its own"
        )
        return
    if listed or _is_of_kinds(column):
        try:
            n_kinds = column.nunique()
        except TypeError:
            yield f"text, numbers or booleans in column '{column.name}', got lists or the like; list it in drop"
            return
        if n_kinds > MOST_KINDS:
            yield (
                f"at most {MOST_KINDS} kinds in column '{column.name}', got {n_kinds}; list it in drop, or save it as "
                "numbers"
            )
        elif not listed:
            yield from _mistaken_kinds(column)
        return
    if not types.is_numeric_dtype(column) or types.is_complex_dtype(column):
        yield (
            f"numbers, text or booleans in column '{column.name}', got {column.dtype}; list it in drop or categorical, "
            "or name it as task"
        )
        return
    values = column.to_numpy(dtype=np.float64)
    wrong = ~(np.abs(values) <= _LARGEST)
    if wrong.any():
        row = int(np.argmax(wrong))
        yield (
            f"finite numbers of size {_LARGEST:.2g} at most in column '{column.name}', got {values[row]:g} in row "
            f"{row + 1} (the first is row 1); mend it or drop the row"
        )


def _mistaken_kinds(column: pd.Series[Any]) -> Iterator[str]:
    """Yield that a column of text is one of numbers with some text in it, or one of days or times."""
    if types.infer_dtype(column) != "string":
        return
    values = pd.Series(column.unique()).astype(str)
    numbers = pd.to_numeric(values, errors="coerce").notna()
    if len(values) / 2 < numbers.sum() < len(values):
        odd = values[~numbers].iloc[0]
        row = int(np.argmax((column == odd).to_numpy())) + 1
        yield (
            f"numbers alone or text alone in column '{column.name}', got '{odd[:40]}' among numbers in row {row} (the "
            "first is row 1); mend it or drop the row, or list the column in categorical, where each value is a kind"
        )
    elif values.str.fullmatch(_DAY).all():
        yield (
            f"numbers, text or booleans in column '{column.name}', got days or times as text, such as '{values[0]}'; "
            "list it in drop or categorical, or name it as task"
        )


def _is_of_kinds(column: pd.Series[Any]) -> bool:
    """Return whether a column is categorical by itself: text, booleans, or pandas' category."""
    if isinstance(column.dtype, pd.CategoricalDtype) or types.is_bool_dtype(column):
        return True
    inferred = types.infer_dtype(column, skipna=True)
    return inferred in ("string", "boolean") or (inferred == "empty" and not types.is_numeric_dtype(column))


def encode(
    frames: Sequence[pd.DataFrame], features: Sequence[str], categorical: Collection[str]
) -> tuple[list[Inputs], int]:
    """Return the rows of training and test (N, F) float32, numbers first, and how many features are numbers.

    A number is scaled by the least and the largest value of the training rows, to [0, 1]; 0 where they are equal. A
    kind that no training row has is 0 in all of its columns.
    """
    train = frames[0]
    numbers = [name for name in features if not (name in categorical or _is_of_kinds(train[name]))]
    kinds = {name: _kinds(train[name]) for name in features if name not in numbers}
    width = len(numbers) + sum(map(len, kinds.values()))
    outs = [np.zeros((len(frame), width), dtype=np.float32) for frame in frames]
    for index, name in enumerate(numbers):
        values = [frame[name].to_numpy(dtype=np.float64) for frame in frames]
        low, high = values[0].min(), values[0].max()
        for out, column in zip(outs, values, strict=True):
            out[:, index] = (column - low) / (high - low) if high > low else 0
    start = len(numbers)
    for name, known in kinds.items():
        for out, frame in zip(outs, frames, strict=True):
            columns = _positions(frame[name], known)
            rows = np.flatnonzero(columns >= 0)
            out[rows, start + columns[rows]] = 1
        start += len(known)
    return outs, len(numbers)


def _kinds(column: pd.Series[Any]) -> list[str]:
    """Return the kinds of a column in natural order, a missing value last."""
    found = {shown(value) for value in column.dropna().unique()}
    return sorted(found, key=natural) + ([_MISSING] if column.isna().any() else [])


def _positions(column: pd.Series[Any], kinds: list[str]) -> NDArray[np.int64]:
    """Return the position (N,) int64 of each row's kind, -1 where it is none of them."""
    place = {kind: index for index, kind in enumerate(kinds)}
    codes, values = pd.factorize(column)
    positions = np.array([place.get(shown(value), -1) for value in values] + [place.get(_MISSING, -1)], dtype=np.int64)
    return positions[codes]
