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
        rows: for numbers of one table: which rows each part has of its one series, (N,) int64.
    """

    name: str
    encoding: Encoding
    parts: tuple[pd.Series[Any], ...]
    gaps: str = "refuse"
    n_buckets: int = 0
    rows: tuple[NDArray[np.int64], ...] | None = None

    @property
    def is_number(self) -> bool:
        return self.encoding in ("number", "date", "frequency")

    def split(self, train: NDArray[np.int64], test: NDArray[np.int64]) -> Feature:
        """Return this feature of one table with rows for training and rows for the test as its parts."""
        if self.encoding in ("number", "date") and isinstance(self.parts[0].dtype, np.dtype):
            return replace(self, rows=(train, test))  # copied a block at a time
        values = self.parts[0].array
        return replace(self, parts=(pd.Series(values.take(train)), pd.Series(values.take(test))))

    def n_rows(self) -> list[int]:
        """Return how many rows each part has."""
        return [len(part) for part in self.rows or self.parts]

    def flags(self) -> list[NDArray[np.bool_]]:
        """Return in each part which rows have a gap."""
        found = [part.isna().to_numpy() for part in self.parts]
        return found if self.rows is None else [found[0][rows] for rows in self.rows]


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
        features.append(Feature(name, encoding, parts, gaps, n_buckets))
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


def encode(where: str, features: Sequence[Feature], report: ReadReport) -> tuple[list[Inputs], int, ReadReport]:
    """Return the features of each table (N, F) float32, how many of them are numbers, and the report with them.

    Numbers come first, in the order of the columns: scaled so that the training rows span [0, 1], 0 if constant; the
    share of training rows with the same value as it is. Then come one-hot and hashed kinds, then the features that say
    'was missing', all 0 or 1. A kind that no training row has is 0 in all columns of its feature.

    Args:
        where: the place of faults.
        features: the training rows, then the test rows, in their parts.
        report: what was read so far.

    Raises:
        DataError: if the features need more memory than is available, or a column has a value in no training row.
    """
    numbers = [feature for feature in features if feature.is_number]
    kinds = [feature for feature in features if not feature.is_number]
    flags = [feature for feature in numbers if feature.gaps == "indicator" and feature.encoding != "frequency"]
    known = {f.name: _categories(f.parts[0], f.gaps) for f in kinds if f.encoding == "one-hot"}
    widths = [len(known[f.name]) if f.name in known else f.n_buckets for f in kinds]
    width = len(numbers) + sum(widths) + len(flags)
    n_rows = features[0].n_rows()
    _check_width(where, sum(n_rows), width)
    outs = [np.zeros((n, width), dtype=np.float32) for n in n_rows]
    _fill_numbers(where, outs, numbers)
    start = len(numbers)
    for feature, n_columns in zip(kinds, widths, strict=True):
        for out, part in zip(outs, feature.parts, strict=True):
            columns = _positions(part, known[feature.name]) if feature.name in known else _buckets(part, n_columns)
            rows = np.flatnonzero(columns >= 0)
            out[rows, start + columns[rows]] = 1
        start += n_columns
    for index, feature in enumerate(flags):
        for out, flag in zip(outs, feature.flags(), strict=True):
            out[:, start + index] = flag
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
    return outs, len(numbers), report


def _fill_numbers(where: str, outs: Sequence[Inputs], numbers: Sequence[Feature]) -> None:
    """Write the numbers of each part into its first columns, some rows at a time and several at once."""
    firsts = ((place, first) for place, out in enumerate(outs) for first in range(0, len(out), _BLOCK_ROWS))
    blocks = [(place, slice(first, first + _BLOCK_ROWS)) for place, first in firsts]

    def fill(block: tuple[int, slice]) -> None:
        place, rows = block
        for index, scale in enumerate(scaled):
            outs[place][rows, index] = scale(place, rows)

    with ThreadPoolExecutor(_N_THREADS) as threads:  # NumPy computes without Python's lock
        scaled = list(threads.map(lambda feature: _scaled(where, feature), numbers))
        list(threads.map(fill, blocks))


def _check_width(where: str, n_rows: int, width: int) -> None:
    needed, available = 4 * n_rows * width, available_bytes()
    if needed > available:
        raise DataError(
            f"{where}: {n_rows} rows of {width} features need {needed / 2**30:.3g} GiB of memory, and "
            f"{available / 2**30:.3g} GiB are available; hash or drop columns with many kinds"
        )


def _scaled(where: str, feature: Feature) -> Callable[[int, slice], Floats]:
    """Return a function from a part's index and rows to its numbers.

    They are scaled by the training rows, and gaps filled with their median.
    """
    if feature.encoding == "frequency":
        shares = _shares(feature)
        return lambda part, rows: shares[part][rows]
    values = [part.to_numpy() if isinstance(part.dtype, np.dtype) else floats(part) for part in feature.parts]
    middle = np.nan
    if feature.gaps in ("median", "indicator"):
        there = values[0] if feature.rows is None else values[0][feature.rows[0]]
        there = there[~np.isnan(there)]
        if not len(there):
            raise DataError(
                f"{where}: column {quoted(feature.name)} has no value in any training row, so no median; list it in "
                "drop"
            )
        middle = np.median(there)
        low, high = there.min(), there.max()
    else:
        low, high = _ends(values[0], feature)

    def scale(part: int, rows: slice) -> Floats:
        chosen = values[part][rows] if feature.rows is None else values[0][feature.rows[part][rows]]
        found = chosen.astype(np.float64, copy=feature.rows is None)  # rows by number are a copy already
        if feature.gaps in ("median", "indicator"):
            found[np.isnan(found)] = middle
        if not high > low:
            return np.zeros(len(found))
        found -= low
        found /= high - low
        if part and len(found) and max(-found.min(), found.max()) > LARGEST:
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


def _ends(values: NDArray[Any], feature: Feature) -> tuple[np.float64, np.float64]:
    """Return the least and the largest value of the training rows, which are looked at some at a time."""
    if feature.rows is None:
        return np.float64(values.min()), np.float64(values.max())
    train = feature.rows[0]
    lows, highs = [], []
    for first in range(0, len(train), _BLOCK_ROWS):
        block = values[train[first : first + _BLOCK_ROWS]]
        lows.append(block.min())
        highs.append(block.max())
    return np.float64(min(lows)), np.float64(max(highs))


def _shares(feature: Feature) -> list[Floats]:
    """Return in each row the share of training rows with the same value, 0 for one that none has."""
    known = [*sorted(_known(feature.parts[0]), key=natural), _MISSING]
    train = _positions(feature.parts[0], known)
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
