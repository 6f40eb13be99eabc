"""Columns that are probably no feature: said, never left out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api import types

from orchestrator.streams.sources.order import quoted

_FEW_ROWS = 20
_SAMPLE_ROWS = 10_000
_MOST_VALUES = 50


def suspicions(
    frame: pd.DataFrame,
    names: Sequence[str],
    labels: NDArray[np.int64],
    tasks: NDArray[np.int64] | None,
    has_guessed_dots: bool = False,
) -> Iterator[str]:
    """Yield a sentence for each feature that is constant, names rows, or tells the label or the task.

    Args:
        frame: the table.
        names: the features.
        labels: class of each row, (N,) int64.
        tasks: task of each row, (N,) int64.
        has_guessed_dots: whether numbers were text, and nothing said what a dot means in them.
    """
    if len(frame) < _FEW_ROWS:
        return
    for name in names:
        column = frame[name]
        sample = column.iloc[:_SAMPLE_ROWS]
        n_values = _n_values(sample)
        if n_values == 1 and _n_values(column) == 1:
            yield f"column {quoted(name)} is the same in every row, so nothing is learned from it"
        elif n_values == len(sample) and not _is_measured(column) and _n_values(column) == len(column):
            yield f"column {quoted(name)} has another value in every row; list it in drop if it identifies rows"
        elif n_values <= _MOST_VALUES:
            yield from _tells(column, labels, tasks)
        if has_guessed_dots and _looks_grouped(column):
            yield (
                f"column {quoted(name)} has three digits after every dot and is read as decimals; set thousands: '.' "
                "if the dot groups digits"
            )


def _n_values(column: pd.Series[Any]) -> int:
    try:
        return column.nunique(dropna=False)
    except TypeError:  # lists and the like, which are refused elsewhere
        return 0


def _is_measured(column: pd.Series[Any]) -> bool:
    """Return whether a column holds other than whole numbers or text, so that all its values may well differ."""
    if types.is_datetime64_any_dtype(column):
        return True
    return types.is_float_dtype(column) and bool((column.dropna().iloc[:100] % 1).any())


def _tells(column: pd.Series[Any], labels: NDArray[np.int64], tasks: NDArray[np.int64] | None) -> Iterator[str]:
    """Yield that each value of a column goes with one class, or with one task, and the other way round."""
    codes = pd.factorize(column, use_na_sentinel=False)[0]
    for what, others in (("class", labels), ("task", tasks)):
        if others is None or len(np.unique(others)) < 2:
            continue
        pairs = len(np.unique(codes * (int(others.max()) + 1) + others))
        if pairs == len(np.unique(codes)) == len(np.unique(others)):
            yield (
                f"column {quoted(column.name)} tells the {what} of every row; list it in drop if it is not known when "
                "the model is used"
            )


def _looks_grouped(column: pd.Series[Any]) -> bool:
    """Return whether decimals may be whole numbers whose dots group digits, as 3.232 for 3232."""
    if not types.is_float_dtype(column):
        return False
    values = np.abs(column.dropna().to_numpy(dtype=np.float64)[:1000])
    thousandths = values * 1000
    is_group = (values >= 1) & (values < 1000) & (np.abs(thousandths - np.round(thousandths)) < 1e-6)
    return len(values) >= _FEW_ROWS and bool(is_group.all()) and float(np.mean(np.round(thousandths) % 10 != 0)) > 0.5
