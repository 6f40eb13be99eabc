"""Which file a trial's rows go into, so that a long sweep leaves few files.

The first trials of a run have a file each. The rows of a later one join a part: a merged file that is replaced with
each trial, all at once, until it is full. So readers see each row once at every moment, nothing has to be moved or
deleted, and a kill leaves the part as it was before or after the trial. A part of 100 trials takes about as long to
write as a file of one.

An object store keeps a file a trial. Its readers ask for an object in pieces, and would mix those of two versions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import pyarrow as pa

SUFFIX = ".parquet"
MERGED = "merged-"
"""Prefix of the names of files with the rows of many trials; the others are named after their trial's key."""

MOST_SINGLE_FILES = 100
"""So many trials of a table have a file each before the next ones share files."""

MOST_TRIALS = 100
MOST_ROWS = 5_000
MOST_BYTES = 4_000_000
"""A part takes no further trial once it has so many trials, rows or bytes in memory: a write takes milliseconds."""


@dataclass
class Parts:
    """The files of a table, by what they hold.

    Args:
        homes: key of each trial in a merged file -> that file.
        single: names of the files of one trial.
        part: the file that the next trial joins; None if it begins one.
        rows: of the part, in one piece.
        n_trials: in the part.
    """

    homes: dict[str, str]
    single: set[str]
    part: str | None = None
    rows: pa.Table | None = None
    n_trials: int = 0

    @classmethod
    def of(cls, names: Iterable[str], read: Callable[[str], pa.Table]) -> Parts:
        """Return those of a folder; the smallest merged file with room is the part.

        Args:
            names: of its files.
            read: returns the rows of a file.
        """
        parts = cls({}, set())
        for name in names:
            if not name.startswith(MERGED):
                parts.single.add(name)
                continue
            rows = read(name)
            keys = rows["key"].unique().to_pylist()
            parts.homes.update(dict.fromkeys(keys, name))
            if _has_room(rows, len(keys)) and (parts.rows is None or rows.num_rows < parts.rows.num_rows):
                parts.part, parts.rows, parts.n_trials = name, rows, len(keys)
        return parts

    def add(self, key: str, rows: pa.Table) -> tuple[str, pa.Table]:
        """Return the file that the rows of a new trial go into, and all of its rows."""
        own = f"{key}{SUFFIX}"
        if own in self.single or len(self.single) < MOST_SINGLE_FILES:
            return own, rows
        if self.part is None or self.rows is None:
            return f"{MERGED}{own}", rows
        return self.part, pa.concat_tables([self.rows, rows]).combine_chunks()

    def wrote(self, name: str, rows: pa.Table, key: str | None = None) -> None:
        """Remember what was written.

        Args:
            name: the file.
            rows: all of its rows.
            key: the trial that joined it, if it is new there.
        """
        if not name.startswith(MERGED):
            self.single.add(name)
            return
        if key is not None:
            self.homes[key] = name
        if name != self.part and key is None:
            return
        n_trials = (self.n_trials if name == self.part else 0) + (key is not None)
        has_room = _has_room(rows, n_trials)
        self.part, self.rows, self.n_trials = (name, rows, n_trials) if has_room else (None, None, 0)


def _has_room(rows: pa.Table, n_trials: int) -> bool:
    return n_trials < MOST_TRIALS and rows.num_rows < MOST_ROWS and rows.nbytes < MOST_BYTES
