"""A run's two tables: atomic writing, reading that trusts nothing, and a cache with an explicit lifetime.

`trials` has a row for each trial and `accuracy` a row for each measured cell of R. Each is a folder of Parquet files. A
trial's accuracy file is written first and its trials file last: that one is the commit. Files are named after the
trial's key, so writing a trial twice changes nothing. A compaction merges many files into few (see `compaction`); each
trial is in one file at any moment. If a restored backup has put a trial into a second file, readers see it once, and
the holder of the run's lock removes the copy (see `duplicates`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from orchestrator.core.errors import OrchestratorError, RunFolderError, StorageError, system_message
from orchestrator.results.duplicates import IDENTITY, which_stay
from orchestrator.results.schema import LISTS, SCHEMAS, check_file, encode
from orchestrator.storage.base import NoRegularFileError, Place, Storage
from orchestrator.storage.opening import open_storage

SUFFIX = ".parquet"
MERGED = "merged-"
"""Prefix of the names of files with the rows of many trials; the others are named after their trial's key."""

_MOST_READS = 5


@dataclass
class _Cache:
    """The rows of a table since the last write to it.

    Args:
        is_exclusive: whether nobody else writes, so that copies of rows may be removed.
        rows: what was read, None if it has to be read again.
        n_writes: writes so far, by which a read that overlapped a write is noticed.
    """

    is_exclusive: bool
    rows: pa.Table | None = None
    n_writes: int = 0


class Table:
    """One table of a run: a folder of Parquet files.

    Every `read` reads the files, unless the table is cached (see `Tables`).

    Args:
        folder: the folder, which need not exist.
        name: `trials` or `accuracy`.
    """

    def __init__(self, folder: Place, name: str) -> None:
        self.storage = open_storage(folder)
        self.name = name
        self._cache: _Cache | None = None
        self._homes: tuple[object, dict[str, str]] | None = None

    def read(self, with_lists: bool = False) -> pd.DataFrame:
        """Return the whole table, each row once; empty if nothing is written yet.

        Args:
            with_lists: return the columns of lists too, which take long to convert.

        Raises:
            RunFolderError: if a file is damaged, foreign, or of a newer schema, or if two files disagree on a trial.
            StorageError: if the system refuses to read it.
        """
        cache = self._cache
        rows, n_writes = (cache.rows, cache.n_writes) if cache is not None else (None, 0)
        if rows is None:
            is_exclusive = cache is not None and cache.is_exclusive
            contents = self.drop_copies() if is_exclusive else self._once(self._read_files())
            rows = pa.concat_tables([*contents.values(), SCHEMAS[self.name].empty_table()])
            if cache is not None and cache.n_writes == n_writes:
                cache.rows = rows
        frame: pd.DataFrame = (rows if with_lists else rows.drop_columns(self._lists())).to_pandas()
        return frame

    def _lists(self) -> list[str]:
        return [name for name in LISTS if name in SCHEMAS[self.name].names]

    def write(self, key: str, rows: list[dict[str, Any]]) -> None:
        """Write the rows of the trial `key`, durably and all at once.

        They go into a file of their own. If a merged file holds the trial, they replace the old rows in that file: at
        no moment are both there.

        Raises:
            StorageError: if the system refuses (no space, no permission); no half-written file becomes visible.
            RunFolderError: if a merged file is damaged.
        """
        content = pa.Table.from_pylist(rows, schema=SCHEMAS[self.name])
        home = self._merged_homes().get(key)
        if home is not None and home in self.files():
            old = self.read_file(home)
            content = in_order([old.filter(pc.not_equal(old["key"], key)), content])
        else:
            home = f"{key}{SUFFIX}"
        self.write_file(home, content)

    def fill(self, column: str, values: Mapping[str, float]) -> None:
        """Set `column` in the rows with the given keys; each file is replaced atomically and durably.

        Raises:
            StorageError: if the system refuses; every file is then either as it was or complete.
        """
        homes = self._merged_homes() if values else {}
        for name in dict.fromkeys(homes.get(key, f"{key}{SUFFIX}") for key in values):
            content = self.read_file(name)
            keys, index = content["key"].to_pylist(), content.schema.get_field_index(column)
            new = [values.get(key, old) for key, old in zip(keys, content[column].to_pylist(), strict=True)]
            self.write_file(name, content.set_column(index, content.schema.field(index), pa.array(new, pa.float64())))

    def files(self) -> list[str]:
        """Return the names of the table's files, as other tools see them.

        Raises:
            RunFolderError: if there is a file in the folder's place.
            StorageError: if the system refuses to list them.
        """
        try:
            names = self.storage.names()
        except NotADirectoryError as error:
            raise RunFolderError(
                f"{self.storage.where}: expected a folder of Parquet files, got a file; move it out of the run folder"
            ) from error
        except OSError as error:
            raise _unreadable(self.storage.where, error) from error
        return [name for name in names if name.endswith(SUFFIX) and not name.startswith((".", "_"))]

    def file_of(self, key: str) -> str:
        """Return how the file that holds the trial `key` is shown; the folder if there is none."""
        holding = (name for name in self.files() if key in self.read_file(name)["key"].to_pylist())
        return self.storage.describe(next(holding, ""))

    def read_file(self, name: str) -> pa.Table:
        """Return the rows of one file.

        Raises:
            RunFolderError: as for `read`.
            StorageError: if the system refuses to read it.
        """
        where = self.storage.describe(name)
        try:
            content = self.storage.read(name)
        except OSError as error:
            raise _unreadable(where, error) from error
        return check_file(content, where, self.name)

    def write_file(self, name: str, content: pa.Table, purpose: str = "row") -> None:
        """Write one whole file.

        Raises:
            StorageError: as for `write`.
        """
        if self._cache is not None:
            self._cache.rows = None
            self._cache.n_writes += 1
        try:
            self.storage.write(name, encode(content), purpose)
        except OSError as error:
            raise StorageError(
                f"{system_message('write to', self.storage.describe(name), error)} Free space or fix the permissions, "
                "then run the same command again: complete trials are kept."
            ) from error

    def drop_copies(self) -> dict[str, pa.Table]:
        """Remove every row that is a copy (see `duplicates`), and return the rows of each file.

        Only the holder of the run's lock may do this. If the process is killed in between, some copies are removed and
        no row is missing.

        Raises:
            RunFolderError: as for `read`; every file is then as it was.
            StorageError: if the system refuses.
        """
        contents = self._read_files()
        once = self._once(contents)
        try:
            for name in [name for name, rows in once.items() if rows.num_rows < contents[name].num_rows]:
                self._homes = None
                if once[name].num_rows:
                    self.write_file(name, once[name])
                else:
                    self.storage.delete(name)
                    del once[name]
        except OSError as error:
            raise _unreadable(self.storage.where, error) from error
        return once

    def start_cache(self, is_exclusive: bool = False) -> None:
        """From now on, read the files only after a write through this object."""
        self._homes = None  # another process may have compacted the run
        self._cache = _Cache(is_exclusive)

    def stop_cache(self) -> None:
        """Read the files at every `read` again."""
        self._cache = None

    def forget(self) -> None:
        """Read the files at the next `read`, even if the table is cached: they were replaced behind its back."""
        self._homes = None
        if self._cache is not None:
            self._cache.rows = None
            self._cache.n_writes += 1

    def _read_files(self) -> dict[str, pa.Table]:
        """Return the rows of each file; reads again if a compaction replaces the folder meanwhile."""
        missing = FileNotFoundError(0, "changes while it is read")
        for _ in range(_MOST_READS):
            generation = self.storage.generation()
            try:
                contents = self.storage.read_many(self.files())
                tables = {
                    name: check_file(content, self.storage.describe(name), self.name) for name, content in contents
                }
            except FileNotFoundError as error:
                missing = error
            except OSError as error:
                raise _unreadable(self.storage.where, error) from error
            else:
                if self.storage.generation() == generation:
                    return tables
        raise _unreadable(self.storage.where, missing) from missing

    def _once(self, contents: dict[str, pa.Table]) -> dict[str, pa.Table]:
        """Return the rows of each file without the copies."""
        if not contents:
            return contents
        whole = pa.concat_tables(contents.values())
        names = [name for name in IDENTITY if name in whole.schema.names]
        if whole.group_by(names).aggregate([]).num_rows == whole.num_rows:
            return contents
        sizes = [rows.num_rows for rows in contents.values()]
        places = np.repeat([self.storage.describe(name) for name in contents], sizes).tolist()
        frame = whole.to_pandas()
        for name in self._lists():
            frame[name] = [None if value is None else tuple(value) for value in frame[name]]
        parts = np.split(which_stay(frame, places), np.cumsum(sizes)[:-1])
        return {name: rows.filter(pa.array(part)) for (name, rows), part in zip(contents.items(), parts, strict=True)}

    def _merged_homes(self) -> dict[str, str]:
        """Return the merged file of each trial that is in one; read once for each folder that was swapped in."""
        generation = self.storage.generation()
        if self.storage.path is None or generation is None:
            return {}  # an object store has no merged files, and neither has a folder that does not exist
        if self._homes is None or self._homes[0] != generation:
            names = [name for name in self.files() if name.startswith(MERGED)]
            homes = {key: name for name in names for key in self.read_file(name)["key"].unique().to_pylist()}
            self._homes = (generation, homes)
        return self._homes[1]


class Tables:
    """The tables of one run.

    Args:
        run: the run folder.
    """

    def __init__(self, run: Storage) -> None:
        self.run = run
        self.trials = Table(run.folder("trials"), "trials")
        self.accuracy = Table(run.folder("accuracy"), "accuracy")

    def __iter__(self) -> Iterator[Table]:
        yield self.trials
        yield self.accuracy

    def start_cache(self, is_exclusive: bool = False) -> None:
        """From now on, read each table once until it is written to through this object."""
        for table in self:
            table.start_cache(is_exclusive)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Cache the tables inside the block: for the holder of the run's lock, who is the only one to write.

        Copies of rows are removed when they are found.
        """
        self.start_cache(is_exclusive=True)
        try:
            yield
        finally:
            for table in self:
                table.stop_cache()

    def forget(self) -> None:
        """Read both tables at the next read, even if they are cached."""
        for table in self:
            table.forget()


def in_order(tables: list[pa.Table]) -> pa.Table:
    """Return the rows of tables of one schema, sorted by key and place in R."""
    whole = pa.concat_tables(tables)
    return whole.sort_by([(name, "ascending") for name in IDENTITY if name in whole.schema.names])


def _unreadable(where: str, error: OSError) -> OrchestratorError:
    place = error.filename or where
    if isinstance(error, IsADirectoryError | NoRegularFileError):
        found = "a folder" if isinstance(error, IsADirectoryError) else "a pipe or a device"
        return RunFolderError(f"{place}: expected a Parquet file, got {found}; move it out of the run folder")
    return StorageError(
        f"{system_message('read', place, error)} Fix the permissions or the connection, then run the same command "
        "again."
    )
