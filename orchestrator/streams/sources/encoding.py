"""Turns columns into features: scales numbers, fills gaps, one-hot encodes kinds, hashes or counts many of them.

What is learned from the training rows for that is a `FittedColumn` each, so that new rows are encoded alike.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from orchestrator.core.errors import DataError
from orchestrator.streams.facts import ReadReport
from orchestrator.streams.sources.order import natural, quoted, shown
from orchestrator.streams.sources.tables.column import Holds
from orchestrator.streams.sources.tables.columns import LARGEST
from orchestrator.streams.sources.tables.features import Encoding, Feature
from orchestrator.streams.sources.tables.files import available_bytes

_BLOCK_ROWS = 1 << 15
_N_THREADS = os.cpu_count() or 1
_MISSING = "missing\0"  # no text in a file can equal this

Inputs = NDArray[np.float32]
Floats = NDArray[np.float64]
Rows = NDArray[np.int64]


class FittedColumn(BaseModel):
    """How a column becomes features, as the training rows decide it.

    Args:
        name: of the column.
        holds: what it holds.
        encoding: what becomes of it.
        gaps: what is done with gaps; `refuse` where the training table had none.
        low: least value of the training rows, which becomes 0.
        high: largest value, which becomes 1; a column with `low` equal to `high` is 0.
        middle: median, which fills gaps; None if there are none to fill.
        categories: kinds that the training rows have, in natural order; one-hot and frequency.
        shares: share of the training rows of each category; frequency.
        n_buckets: of a hash.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str
    holds: Holds
    encoding: Encoding
    gaps: str = "refuse"
    low: float = 0.0
    high: float = 0.0
    middle: float | None = None
    categories: tuple[str, ...] = ()
    shares: tuple[float, ...] = ()
    n_buckets: int = 0

    @property
    def is_number(self) -> bool:
        return self.encoding in ("number", "date", "frequency")

    @property
    def has_flag(self) -> bool:
        """Return whether it has a further feature that says 'was missing'."""
        return self.encoding in ("number", "date") and self.gaps == "indicator"

    @property
    def n_columns(self) -> int:
        """Return how many features it becomes, without the one that says 'was missing'."""
        return 1 if self.is_number else self.n_buckets or len(self.categories)

    def raw(self, part: pd.Series[Any]) -> NDArray[Any]:
        """Return what `scaled` takes, for all rows of a column of numbers: numbers, or shares of training rows."""
        if self.encoding == "frequency":
            return np.append(self.shares, 0.0)[_positions(part, self.categories)]
        return part.to_numpy() if isinstance(part.dtype, np.dtype) and part.dtype != object else floats(part)

    def scaled(self, raw: NDArray[Any], where: str) -> Floats:
        """Return some numbers (N,) with gaps filled, scaled so that the training rows span [0, 1].

        Raises:
            DataError: if one is too far from the training rows.
        """
        if self.encoding == "frequency":
            return raw
        found = raw.astype(np.float64)
        if self.middle is not None:
            found[np.isnan(found)] = self.middle
        if not self.high > self.low:
            return np.zeros(len(found))
        found -= self.low
        found /= self.high - self.low
        if len(found) and max(-found.min(), found.max()) > LARGEST:
            raise DataError(
                f"{where}: column {quoted(self.name)} holds a value that is too far from the training rows, which lie "
                f"between {self.low:g} and {self.high:g}; correct it or drop the row"
            )
        return found

    def columns(self, part: pd.Series[Any]) -> NDArray[np.int64]:
        """Return which of its one-hot or hashed features is 1 in each row (N,), -1 for none."""
        return _buckets(part, self.n_buckets) if self.n_buckets else _positions(part, self.categories)


def fit(where: str, feature: Feature, trained: Rows | None) -> FittedColumn:
    """Return how a feature is encoded.

    Args:
        where: the place of faults.
        feature: of one table, or of one for training and one for the test.
        trained: rows of the first table that decide, ascending (N,) int64; None for all.

    Raises:
        DataError: if gaps are to be filled and no row has a value.
    """
    common: dict[str, Any] = {
        name: getattr(feature, name) for name in ("name", "holds", "encoding", "gaps", "n_buckets")
    }
    if feature.encoding == "frequency":
        there = _rows(feature.parts[0], trained)
        known = [*sorted(_known(there), key=natural), _MISSING]
        counts = np.bincount(_positions(there, known), minlength=len(known))
        return FittedColumn(**common, categories=tuple(known), shares=tuple((counts / len(there)).tolist()))
    if feature.encoding == "one-hot":
        return FittedColumn(**common, categories=tuple(_categories(_rows(feature.parts[0], trained), feature.gaps)))
    if feature.encoding == "hash":
        return FittedColumn(**common)
    plain = FittedColumn(**common)
    values = plain.raw(feature.parts[0])
    if feature.gaps not in ("median", "indicator"):
        low, high = _ends(values, feature, trained)
        return plain.model_copy(update={"low": float(low), "high": float(high)})
    numbers = values if trained is None else values[trained]
    numbers = numbers[~np.isnan(numbers)]
    if not len(numbers):
        raise DataError(
            f"{where}: column {quoted(feature.name)} has no value in any training row, so no median; list it in drop"
        )
    ends = {"low": float(numbers.min()), "high": float(numbers.max()), "middle": float(np.median(numbers))}
    return plain.model_copy(update=ends)


def encode(
    where: str, features: Sequence[Feature], halves: Sequence[Rows], report: ReadReport, deciding: Rows | None = None
) -> tuple[list[Inputs], tuple[FittedColumn, ...], ReadReport]:
    """Return the features for training and for the test (N, F) float32, how they were made, and the report with them.

    Numbers come first, in the order of the columns: scaled so that the training rows span [0, 1], 0 if constant; the
    share of training rows with the same value as it is. Then come one-hot and hashed kinds, then the features that say
    'was missing', all 0 or 1. A kind that no training row has is 0 in all columns of its feature.

    Args:
        where: the place of faults.
        features: of one table, or of one for training and one for the test.
        halves: of one table, the rows for training and those for the test, ascending (N,) int64; else empty.
        report: what was read so far.
        deciding: the training rows that decide ranges, medians, kinds and shares; all by default.

    Raises:
        DataError: if the features need more memory than is available, or a column has a value in no training row.
    """
    trained = deciding if deciding is not None else halves[0] if halves else None
    with ThreadPoolExecutor(_N_THREADS) as threads:  # NumPy computes without Python's lock
        fitted = tuple(threads.map(lambda feature: fit(where, feature, trained), features))
    outs = [_Out(0, rows, len(rows)) for rows in halves] or [
        _Out(table, None, len(part)) for table, part in enumerate(features[0].parts)
    ]
    inputs = _encoded(where, fitted, [feature.parts for feature in features], outs)
    names = {kind: tuple(f.name for f in features if f.encoding == kind) for kind in ("number", "date", "frequency")}
    report = replace(
        report,
        numbers=names["number"],
        dates=names["date"],
        frequencies=names["frequency"],
        kinds={f.name: len(f.categories) for f in fitted if f.encoding == "one-hot"},
        hashed={f.name: f.n_buckets for f in fitted if f.encoding == "hash"},
        indicators=tuple(f.name for f in fitted if f.has_flag),
    )
    return inputs, fitted, report


def encode_rows(where: str, fitted: Sequence[FittedColumn], parts: Sequence[pd.Series[Any]]) -> Inputs:
    """Return the features (N, F) float32 of new rows, made as `encode` made those of the training rows.

    Args:
        where: the place of faults.
        fitted: how each column becomes features.
        parts: the column of each, as it was understood.

    Raises:
        DataError: if a value is too far from the training rows, or memory does not suffice.
    """
    return _encoded(where, fitted, [(part,) for part in parts], [_Out(0, None, len(parts[0]))])[0]


@dataclass(frozen=True)
class _Out:
    """Where features go: all rows of a table, or some of them, ascending."""

    table: int
    rows: Rows | None
    n_rows: int

    def within(self, first: int, last: int) -> tuple[slice, Rows | slice]:
        """Return which of its rows the rows `first` to `last` of its table become, and which of those they are."""
        if self.rows is None:
            return slice(first, last), slice(None)
        start, stop = np.searchsorted(self.rows, (first, last))
        return slice(start, stop), self.rows[start:stop] - first


def _encoded(
    where: str, fitted: Sequence[FittedColumn], parts: Sequence[tuple[pd.Series[Any], ...]], outs: Sequence[_Out]
) -> list[Inputs]:
    """Return the features of each of `outs`, given the column of each table for each of `fitted`."""
    columns = list(zip(fitted, parts, strict=True))
    numbers = [(one, own) for one, own in columns if one.is_number]
    kinds = [(one, own) for one, own in columns if not one.is_number]
    flags = [(one, own) for one, own in columns if one.has_flag]
    width = sum(one.n_columns for one in fitted) + len(flags)
    _check_width(where, sum(out.n_rows for out in outs), width)
    inputs = [np.zeros((out.n_rows, width), dtype=np.float32) for out in outs]
    _fill_numbers(where, outs, inputs, numbers)
    start = len(numbers)
    for one, own in kinds:
        for out, values in zip(outs, inputs, strict=True):
            places = one.columns(_rows(own[out.table], out.rows))
            rows = np.flatnonzero(places >= 0)
            values[rows, start + places[rows]] = 1
        start += one.n_columns
    for index, (_, own) in enumerate(flags):
        for out, values in zip(outs, inputs, strict=True):
            values[:, start + index] = _rows(own[out.table], out.rows).isna()
    return inputs


def _rows(column: pd.Series[Any], rows: Rows | None) -> pd.Series[Any]:
    """Return some rows of a column, or all."""
    return column if rows is None else pd.Series(column.array.take(rows))


def _fill_numbers(
    where: str,
    outs: Sequence[_Out],
    inputs: Sequence[Inputs],
    numbers: Sequence[tuple[FittedColumn, tuple[pd.Series[Any], ...]]],
) -> None:
    """Write the numbers of each table into the first columns, some rows at a time and several at once."""
    lengths = [len(part) for part in numbers[0][1]] if numbers else []
    blocks = [(table, first) for table, n in enumerate(lengths) for first in range(0, n, _BLOCK_ROWS)]

    def fill(block: tuple[int, int]) -> None:
        table, first = block
        last = min(first + _BLOCK_ROWS, lengths[table])
        scaled = np.empty((last - first, len(numbers)), dtype=np.float32)
        for index, ((one, _), values) in enumerate(zip(numbers, raw, strict=True)):
            scaled[:, index] = one.scaled(values[table][first:last], where)
        for out, target_rows in zip(outs, inputs, strict=True):
            if out.table == table:
                place, rows = out.within(first, last)
                target = target_rows[place, : len(numbers)]
                if isinstance(rows, slice):
                    target[:] = scaled
                else:
                    np.take(scaled, rows, axis=0, out=target, mode="clip")  # which writes without a copy between

    with ThreadPoolExecutor(_N_THREADS) as threads:
        raw = list(threads.map(lambda number: [number[0].raw(part) for part in number[1]], numbers))
        list(threads.map(fill, blocks))


def _check_width(where: str, n_rows: int, width: int) -> None:
    needed, available = 4 * n_rows * width, available_bytes()
    if needed > available:
        raise DataError(
            f"{where}: {n_rows} rows of {width} features need {needed / 2**30:.3g} GiB of memory, and "
            f"{available / 2**30:.3g} GiB are available; hash or drop columns with many kinds"
        )


def floats(column: pd.Series[Any]) -> Floats:
    """Return numbers (N,) float64, NaN for a gap."""
    if isinstance(column.dtype, np.dtype):
        return column.to_numpy(dtype=np.float64)
    return column.to_numpy(dtype=np.float64, na_value=np.nan)


def _ends(values: NDArray[Any], feature: Feature, trained: Rows | None) -> tuple[np.float64, np.float64]:
    """Return the least and the largest value of the training rows.

    If training rows hold the ends of the whole table, as they mostly do, those are the answer.
    """
    if feature.ends and (trained is None or _are_among(feature.ends, trained)):
        low, high = values[list(feature.ends)]
    else:
        there = values if trained is None else values[trained]
        low, high = there.min(), there.max()
    return np.float64(low), np.float64(high)


def _are_among(wanted: Sequence[int], rows: Rows) -> bool:
    """Return whether all wanted rows are among ascending ones."""
    places = np.searchsorted(rows, wanted).clip(max=len(rows) - 1)
    return bool((rows[places] == wanted).all())


def _known(column: pd.Series[Any]) -> set[str]:
    return {shown(value) for value in column.dropna().unique()}


def _categories(column: pd.Series[Any], gaps: str) -> list[str]:
    """Return the categories of a column in natural order, 'missing' last."""
    with_missing = gaps == "indicator" and column.isna().any()
    return sorted(_known(column), key=natural) + ([_MISSING] if with_missing else [])


def _positions(column: pd.Series[Any], categories: Sequence[str]) -> NDArray[np.int64]:
    """Return the index (N,) int64 of each row's category, -1 if it is none of them."""
    place = {category: index for index, category in enumerate(categories)}
    codes, values = pd.factorize(column)
    positions = np.array([place.get(shown(value), -1) for value in values] + [place.get(_MISSING, -1)], dtype=np.int64)
    return positions[codes]


def _buckets(column: pd.Series[Any], n_buckets: int) -> NDArray[np.int64]:
    """Return the bucket (N,) int64 of each row's kind: the first 8 bytes of its BLAKE2b hash, modulo their number."""
    codes, values = pd.factorize(column)
    texts = [shown(value) for value in values] + [_MISSING]
    hashes = (hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest() for text in texts)
    buckets = np.array([int.from_bytes(digest, "big") % n_buckets for digest in hashes], dtype=np.int64)
    return buckets[codes]
