"""Turns columns into features: scales numbers, fills gaps, one-hot encodes kinds, hashes or counts many of them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from orchestrator.core.errors import DataError
from orchestrator.streams.facts import ReadReport
from orchestrator.streams.settings import StreamSettings
from orchestrator.streams.sources.composition import first_of
from orchestrator.streams.sources.order import natural, quoted, shown
from orchestrator.streams.sources.tables.columns import LARGEST, read_column, unlike_faults
from orchestrator.streams.sources.tables.files import available_bytes
from orchestrator.streams.sources.tables.frames import Table
from orchestrator.streams.sources.tables.kinds import MOST_CATEGORIES, gaps_of

_BLOCK_ROWS = 1 << 15
_N_THREADS = os.cpu_count() or 1
_MISSING = "missing\0"  # no text in a file can equal this

Inputs = NDArray[np.float32]
Floats = NDArray[np.float64]
Rows = NDArray[np.int64]
Encoding = Literal["number", "date", "frequency", "one-hot", "hash"]


@dataclass(frozen=True)
class Feature:
    """A column that is learned from.

    Args:
        name: of the column.
        encoding: what becomes of it.
        parts: its values in each table: numbers or seconds as they are, or kinds; NaN or None for a gap.
        gaps: what is done with gaps, `refuse` if there are none.
        n_buckets: of a hash.
        ends: positions of the least and the largest number of the first table, where they are known.
    """

    name: str
    encoding: Encoding
    parts: tuple[pd.Series[Any], ...]
    gaps: str = "refuse"
    n_buckets: int = 0
    ends: tuple[int, int] | None = None

    @property
    def is_number(self) -> bool:
        return self.encoding in ("number", "date", "frequency")


def read_features(
    where: str, tables: Sequence[Table], names: Sequence[str], settings: StreamSettings
) -> tuple[list[Feature], list[str], list[str]]:
    """Return the features, what is wrong with them, naming column and first row, and notes."""
    with ThreadPoolExecutor(_N_THREADS) as threads:
        readings = [
            list(threads.map(lambda name, of=table: read_column(of, name, settings), names)) for table in tables
        ]
    faults, notes = [], [reading.note for reading in readings[0] if reading.note and not reading.fault]
    for table, found in zip(tables, readings, strict=True):
        faults += first_of(f"{where}.{table.setting}: {reading.fault}" for reading in found if reading.fault)
    if len(tables) == 2:
        first, second = tables
        faults += first_of(
            f"{where}.test_table: {fault}"
            for name, one, other in zip(names, *readings, strict=True)
            for fault in unlike_faults(first, second, name, one, other)
        )
    if faults:
        return [], faults, notes
    features = []
    for index, name in enumerate(names):
        parts = tuple(found[index].values for found in readings)
        gaps = gaps_of(name, settings) if any(found[index].has_gaps for found in readings) else "refuse"
        encoding: Encoding = "number" if readings[0][index].holds == "numbers" else "date"
        n_buckets = 0
        if readings[0][index].holds == "kinds":
            encoding, n_buckets = _encoding(name, parts[0], settings)
        features.append(Feature(name, encoding, parts, gaps, n_buckets, ends=readings[0][index].ends))
    if isinstance(settings.hash, int) and not any(feature.encoding == "hash" for feature in features):
        notes.append(f"hash has no effect: no column has more than {MOST_CATEGORIES} kinds")
    return features, [], notes


def _encoding(name: str, kinds: pd.Series[Any], settings: StreamSettings) -> tuple[Encoding, int]:
    """Return how kinds are encoded, and in how many buckets they are hashed."""
    if name in settings.frequency:
        return "frequency", 0
    if name in settings.hashed():
        return "hash", settings.hashed()[name]
    if isinstance(settings.hash, int) and kinds.nunique() > MOST_CATEGORIES:
        return "hash", settings.hash
    return "one-hot", 0


def encode(
    where: str, features: Sequence[Feature], halves: Sequence[Rows], report: ReadReport
) -> tuple[list[Inputs], int, ReadReport]:
    """Return the features for training and for the test (N, F) float32, how many are numbers, and the report with them.

    Numbers come first, in the order of the columns: scaled so that the training rows span [0, 1], 0 if constant; the
    share of training rows with the same value as it is. Then come one-hot and hashed kinds, then the features that say
    'was missing', all 0 or 1. A kind that no training row has is 0 in all columns of its feature.

    Args:
        where: the place of faults.
        features: of one table, or of one for training and one for the test.
        halves: of one table, the rows for training and those for the test, ascending (N,) int64; else empty.
        report: what was read so far.

    Raises:
        DataError: if the features need more memory than is available, or a column has a value in no training row.
    """
    numbers = [feature for feature in features if feature.is_number]
    kinds = [feature for feature in features if not feature.is_number]
    flags = [feature for feature in numbers if feature.gaps == "indicator" and feature.encoding != "frequency"]
    trained = halves[0] if halves else None
    known = {f.name: _categories(_rows(f.parts[0], trained), f.gaps) for f in kinds if f.encoding == "one-hot"}
    widths = [len(known[f.name]) if f.name in known else f.n_buckets for f in kinds]
    width = len(numbers) + sum(widths) + len(flags)
    outs = [_Out(0, rows, len(rows)) for rows in halves] or [
        _Out(table, None, len(part)) for table, part in enumerate(features[0].parts)
    ]
    _check_width(where, sum(out.n_rows for out in outs), width)
    inputs = [np.zeros((out.n_rows, width), dtype=np.float32) for out in outs]
    _fill_numbers(where, outs, inputs, numbers, trained)
    start = len(numbers)
    for feature, n_columns in zip(kinds, widths, strict=True):
        for out, values in zip(outs, inputs, strict=True):
            part = _rows(feature.parts[out.table], out.rows)
            columns = _positions(part, known[feature.name]) if feature.name in known else _buckets(part, n_columns)
            rows = np.flatnonzero(columns >= 0)
            values[rows, start + columns[rows]] = 1
        start += n_columns
    for index, feature in enumerate(flags):
        for out, values in zip(outs, inputs, strict=True):
            values[:, start + index] = _rows(feature.parts[out.table], out.rows).isna()
    names = {kind: tuple(f.name for f in features if f.encoding == kind) for kind in ("number", "date", "frequency")}
    report = replace(
        report,
        numbers=names["number"],
        dates=names["date"],
        frequencies=names["frequency"],
        kinds={name: len(categories) for name, categories in known.items()},
        hashed={f.name: f.n_buckets for f in kinds if f.encoding == "hash"},
        indicators=tuple(f.name for f in flags),
    )
    return inputs, len(numbers), report


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


def _rows(column: pd.Series[Any], rows: Rows | None) -> pd.Series[Any]:
    """Return some rows of a column, or all."""
    return column if rows is None else pd.Series(column.array.take(rows))


def _fill_numbers(
    where: str, outs: Sequence[_Out], inputs: Sequence[Inputs], numbers: Sequence[Feature], trained: Rows | None
) -> None:
    """Write the numbers of each table into the first columns, some rows at a time and several at once."""
    lengths = [len(part) for part in numbers[0].parts] if numbers else []
    blocks = [(table, first) for table, n in enumerate(lengths) for first in range(0, n, _BLOCK_ROWS)]

    def fill(block: tuple[int, int]) -> None:
        table, first = block
        last = min(first + _BLOCK_ROWS, lengths[table])
        scaled = np.empty((last - first, len(numbers)), dtype=np.float32)
        for index, scale in enumerate(scales):
            scaled[:, index] = scale(table, slice(first, last))
        for out, values in zip(outs, inputs, strict=True):
            if out.table == table:
                place, rows = out.within(first, last)
                target = values[place, : len(numbers)]
                if isinstance(rows, slice):
                    target[:] = scaled
                else:
                    np.take(scaled, rows, axis=0, out=target, mode="clip")  # which writes without a copy between

    with ThreadPoolExecutor(_N_THREADS) as threads:  # NumPy computes without Python's lock
        scales = list(threads.map(lambda feature: _scale_of(where, feature, trained), numbers))
        list(threads.map(fill, blocks))


def _check_width(where: str, n_rows: int, width: int) -> None:
    needed, available = 4 * n_rows * width, available_bytes()
    if needed > available:
        raise DataError(
            f"{where}: {n_rows} rows of {width} features need {needed / 2**30:.3g} GiB of memory, and "
            f"{available / 2**30:.3g} GiB are available; hash or drop columns with many kinds"
        )


def _scale_of(where: str, feature: Feature, trained: Rows | None) -> Callable[[int, slice], Floats]:
    """Return a function from a table's index and rows to its numbers.

    They are scaled by the training rows, and gaps filled with their median.
    """
    if feature.encoding == "frequency":
        shares = _shares(feature, trained)
        return lambda table, rows: shares[table][rows]
    values = [part.to_numpy() if isinstance(part.dtype, np.dtype) else floats(part) for part in feature.parts]
    has_gaps = feature.gaps in ("median", "indicator")
    middle = np.nan
    if has_gaps:
        there = values[0] if trained is None else values[0][trained]
        there = there[~np.isnan(there)]
        if not len(there):
            raise DataError(
                f"{where}: column {quoted(feature.name)} has no value in any training row, so no median; list it in "
                "drop"
            )
        middle = np.median(there)
        low, high = np.float64(there.min()), np.float64(there.max())
    else:
        low, high = _ends(values[0], feature, trained)

    def scale(table: int, rows: slice) -> Floats:
        found = values[table][rows].astype(np.float64)
        if has_gaps:
            found[np.isnan(found)] = middle
        if not high > low:
            return np.zeros(len(found))
        found -= low
        found /= high - low
        if max(-found.min(), found.max()) > LARGEST:
            raise DataError(
                f"{where}: column {quoted(feature.name)} holds a value in a test row that is too far from the training "
                f"rows, which lie between {low:g} and {high:g}; correct it or drop the row"
            )
        return found

    return scale


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


def _shares(feature: Feature, trained: Rows | None) -> list[Floats]:
    """Return in each row the share of training rows with the same value, 0 for one that none has."""
    there = _rows(feature.parts[0], trained)
    known = [*sorted(_known(there), key=natural), _MISSING]
    train = _positions(there, known)
    shares = np.append(np.bincount(train, minlength=len(known)) / len(train), 0.0)
    return [shares[_positions(part, known)] for part in feature.parts]


def _known(column: pd.Series[Any]) -> set[str]:
    return {shown(value) for value in column.dropna().unique()}


def _categories(column: pd.Series[Any], gaps: str) -> list[str]:
    """Return the categories of a column in natural order, 'missing' last."""
    with_missing = gaps == "indicator" and column.isna().any()
    return sorted(_known(column), key=natural) + ([_MISSING] if with_missing else [])


def _positions(column: pd.Series[Any], categories: list[str]) -> NDArray[np.int64]:
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
