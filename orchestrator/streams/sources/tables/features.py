"""Which columns are learned from, and what becomes of each: a number, a date, kinds one by one, hashed or counted."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from orchestrator.streams.settings import StreamSettings
from orchestrator.streams.sources.composition import first_of
from orchestrator.streams.sources.tables.column import Holds
from orchestrator.streams.sources.tables.columns import read_column, unlike_faults
from orchestrator.streams.sources.tables.frames import Table
from orchestrator.streams.sources.tables.kinds import MOST_CATEGORIES, gaps_of

_N_THREADS = os.cpu_count() or 1

Encoding = Literal["number", "date", "frequency", "one-hot", "hash"]


@dataclass(frozen=True)
class Feature:
    """A column that is learned from.

    Args:
        name: of the column.
        holds: what it holds.
        encoding: what becomes of it.
        parts: its values in each table: numbers or seconds as they are, or kinds; NaN or None for a gap.
        gaps: what is done with gaps, `refuse` if there are none.
        n_buckets: of a hash.
        ends: positions of the least and the largest number of the first table, where they are known.
    """

    name: str
    holds: Holds
    encoding: Encoding
    parts: tuple[pd.Series[Any], ...]
    gaps: str = "refuse"
    n_buckets: int = 0
    ends: tuple[int, int] | None = None


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
        holds = readings[0][index].holds
        assert holds is not None  # those without are refused above
        features.append(Feature(name, holds, encoding, parts, gaps, n_buckets, ends=readings[0][index].ends))
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
