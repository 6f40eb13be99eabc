"""Turns the columns of a user's table into features: scales numbers, one-hot encodes categories."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api import types

from orchestrator.streams.sources.composition import first_of
from orchestrator.streams.sources.order import natural, shown

MOST_CATEGORIES = 1000
_LARGEST = float(np.finfo(np.float32).max)
_DAY = r"\d{4}-\d{2}-\d{2}([T ].*)?"
_MISSING = "missing\0"  # no text in a file can equal this

Inputs = NDArray[np.float32]


def feature_faults(where: str, frame: pd.DataFrame, features: Sequence[str], categorical: Collection[str]) -> list[str]:
    """Return what is wrong with the feature columns, naming column and first row."""
    return first_of(f"{where}: {fault}" for name in features for fault in _faults(frame[name], name in categorical))


def _faults(column: pd.Series[Any], listed: bool) -> Iterator[str]:
    missing = column.isna().to_numpy()
    if missing.any() and not listed:
        yield (
            f"column '{column.name}' has no value in row {int(np.argmax(missing)) + 1} (the first is row 1); drop such "
            "rows, or list the column in categorical, which makes 'missing' a category of its own"
        )
        return
    if listed or _is_categorical(column):
        try:
            n_categories = column.nunique()
        except TypeError:
            yield f"column '{column.name}' holds lists or the like, which cannot be learned from; list it in drop"
            return
        if n_categories > MOST_CATEGORIES:
            yield (
                f"column '{column.name}' has {n_categories} different values, more than the {MOST_CATEGORIES} that can "
                "be one-hot encoded; list it in drop, or save it as numbers"
            )
        elif not listed:
            yield from _doubtful_text(column)
        return
    if not types.is_numeric_dtype(column) or types.is_complex_dtype(column):
        yield (
            f"column '{column.name}' is of type {column.dtype}, not of numbers, text or booleans; list it in drop or "
            "categorical, or name it as task"
        )
        return
    values = column.to_numpy(dtype=np.float64)
    wrong = ~(np.abs(values) <= _LARGEST)
    if wrong.any():
        row = int(np.argmax(wrong))
        yield (
            f"column '{column.name}' holds {values[row]:g} in row {row + 1} (the first is row 1), which is not finite "
            f"or larger than {_LARGEST:.2g}; correct it or drop the row"
        )


def _doubtful_text(column: pd.Series[Any]) -> Iterator[str]:
    """Yield that a column of text looks like numbers with some text among them, or like days or times."""
    if types.infer_dtype(column) != "string":
        return
    values = pd.Series(column.unique()).astype(str)
    numbers = pd.to_numeric(values, errors="coerce").notna()
    if len(values) / 2 < numbers.sum() < len(values):
        odd = values[~numbers].iloc[0]
        row = int(np.argmax((column == odd).to_numpy())) + 1
        yield (
            f"column '{column.name}' holds the text '{odd[:40]}' among numbers in row {row} (the first is row 1); "
            "correct it or drop the row, or list the column in categorical, which makes each value a category"
        )
    elif values.str.fullmatch(_DAY).all():
        yield (
            f"column '{column.name}' holds days or times as text, such as '{values[0]}'; list it in drop or "
            "categorical, or name it as task"
        )


def _is_categorical(column: pd.Series[Any]) -> bool:
    """Return whether a column is categorical without being listed: text, booleans, or pandas' category."""
    if isinstance(column.dtype, pd.CategoricalDtype) or types.is_bool_dtype(column):
        return True
    inferred = types.infer_dtype(column, skipna=True)
    return inferred in ("string", "boolean") or (inferred == "empty" and not types.is_numeric_dtype(column))


def encode(
    frames: Sequence[pd.DataFrame], features: Sequence[str], categorical: Collection[str]
) -> tuple[list[Inputs], int]:
    """Return the features of each table (N, F) float32, numbers first, and how many of them are numbers.

    Numbers are scaled so that the training rows span [0, 1]; a constant column is 0. A category that no training row
    has is 0 in all columns of its feature.

    Args:
        frames: the training rows, then the test rows.
        features: columns to encode.
        categorical: columns to one-hot encode, besides those of text and booleans.
    """
    train = frames[0]
    numbers = [name for name in features if not (name in categorical or _is_categorical(train[name]))]
    categories = {name: _categories(train[name]) for name in features if name not in numbers}
    width = len(numbers) + sum(map(len, categories.values()))
    outs = [np.zeros((len(frame), width), dtype=np.float32) for frame in frames]
    for index, name in enumerate(numbers):
        values = [frame[name].to_numpy(dtype=np.float64) for frame in frames]
        low, high = values[0].min(), values[0].max()
        for out, column in zip(outs, values, strict=True):
            out[:, index] = (column - low) / (high - low) if high > low else 0
    start = len(numbers)
    for name, known in categories.items():
        for out, frame in zip(outs, frames, strict=True):
            columns = _positions(frame[name], known)
            rows = np.flatnonzero(columns >= 0)
            out[rows, start + columns[rows]] = 1
        start += len(known)
    return outs, len(numbers)


def _categories(column: pd.Series[Any]) -> list[str]:
    """Return the categories of a column in natural order, 'missing' last."""
    found = {shown(value) for value in column.dropna().unique()}
    return sorted(found, key=natural) + ([_MISSING] if column.isna().any() else [])


def _positions(column: pd.Series[Any], categories: list[str]) -> NDArray[np.int64]:
    """Return the index (N,) int64 of each row's category, -1 if it is none of them."""
    place = {category: index for index, category in enumerate(categories)}
    codes, values = pd.factorize(column)
    positions = np.array([place.get(shown(value), -1) for value in values] + [place.get(_MISSING, -1)], dtype=np.int64)
    return positions[codes]
