"""A run's tables: atomic writing, reading that trusts nothing, and a cache with an explicit lifetime.

`trials` has a row for each trial, `accuracy` a row for each measured cell of R, and `diagnostics`, which only runs with
`diagnostics: true` have, what was measured inside of trials. Each is a folder of Parquet files. A trial's other rows
are written first and its trials row last: that one is the commit. A trial has a file of its own,
named after its key, or is in a merged file (see `parts` and `compaction`). Writing it twice changes nothing, and it is
in one file at any moment. If a restored backup has put a trial into a second file, readers see it once, and the holder
of the run's lock removes the copy (see `duplicates`).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from orchestrator.core.errors import RunFolderError, StorageError, system_message
from orchestrator.results.duplicates import in_order, once
from orchestrator.results.folder import unreadable_file
from orchestrator.results.parts import SUFFIX, Parts
from orchestrator.results.schema import LISTS, SCHEMAS, check_file, encode
from orchestrator.storage.base import Place, Storage
from orchestrator.storage.opening import open_storage

_MOST_READS = 5

_PLAIN = {table: [name for name in schema.names if name not in LISTS] for table, schema in SCHEMAS.items()}
"""Table -> its columns without lists."""


@dataclass
class _Known:
    """A table as it was read.

    Args:
        versions: of its files when they were listed; None if that failed.
        contents: the rows of each file, each row once.
        number: another one for each read.
        has_copies: whether files hold more than these rows.
        frames: the rows as data frames, without and with the columns of lists.
    """

    versions: dict[str, object] | None
    contents: dict[str, pa.Table]
    number: int = field(default_factory=itertools.count().__next__)
    has_copies: bool = False
    frames: dict[bool, pd.DataFrame] = field(default_factory=dict)


@dataclass
class _Cache:
    """How long what was read is valid.

    Args:
        is_exclusive: whether nobody else writes, so that copies of rows may be removed.
        is_valid: whether what is known is, until the next write; else the files' versions tell.
    """

    is_exclusive: bool
    is_valid: bool = False


class Table:
    """One table of a run: a folder of Parquet files.

    Every `read` reads the files, unless the table is cached (see `Tables`).

    Args:
        folder: the folder, which need not exist.
        name: `trials`, `accuracy` or `diagnostics`.
    """

    def __init__(self, folder: Place, name: str) -> None:
        self.storage = open_storage(folder)
        self.name = name
        self._cache: _Cache | None = None
        self._known: _Known | None = None
        self._n_writes = 0
        self._parts: tuple[object, Parts] | None = None

    def read(self, with_lists: bool = False) -> pd.DataFrame:
        """Return the whole table, each row once; empty if nothing is written yet.

        Args:
            with_lists: return the columns of lists too, which take long to convert.

        Raises:
            RunFolderError: if a file is damaged, foreign, or of a newer schema, or if two files disagree on a trial.
            StorageError: if the system refuses to read it.
        """
        known = self._now_known()
        if with_lists not in known.frames:
            rows = pa.concat_tables([*known.contents.values(), SCHEMAS[self.name].empty_table()])
            known.frames[with_lists] = (rows if with_lists else rows.select(_PLAIN[self.name])).to_pandas()
        return known.frames[with_lists].copy(deep=False)

    def _now_known(self) -> _Known:
        """Return what the files hold; while the table is cached, they are read only if they changed."""
        cache, known, n_writes = self._cache, self._known, self._n_writes
        if cache is not None and known is not None:
            if not cache.is_valid:
                cache.is_valid = known.versions is not None and known.versions == self._versions()
            if cache.is_valid and not (cache.is_exclusive and known.has_copies):
                return known
        known = _Known(self._versions(), {})
        if cache is not None and cache.is_exclusive:
            known.contents = self.drop_copies()
        else:
            contents = self._read_files()
            known.contents = once(contents, self.storage.describe)
            known.has_copies = known.contents is not contents
        if cache is not None and self._n_writes == n_writes:
            self._known, cache.is_valid = known, True
        return known

    def state(self) -> int | None:
        """Return a number that differs once the rows do; None if the table is not cached.

        Raises:
            RunFolderError, StorageError: as for `read`.
        """
        return None if self._cache is None else self._now_known().number

    def _versions(self) -> dict[str, object] | None:
        try:
            return self.storage.versions()
        except OSError:
            return None

    def write(self, key: str, rows: list[dict[str, Any]]) -> None:
        """Write the rows of the trial `key`, durably and all at once.

        They go into a file of their own, or join a part (see `parts`). If a merged file holds the trial, they replace
        the old rows in that file: at no moment are both there.

        Raises:
            StorageError: if the system refuses (no space, no permission); no half-written file becomes visible.
            RunFolderError: if a merged file is damaged.
        """
        content, parts = pa.Table.from_pylist(rows, schema=SCHEMAS[self.name]), self._now_parts()
        home = parts.homes.get(key) if parts is not None else None
        if home is not None and home in self.files():
            old = self.read_file(home)
            self.write_file(home, in_order([old.filter(pc.not_equal(old["key"], key)), content]))
        elif parts is not None:
            name, content = parts.add(key, content)
            self.write_file(name, content, key=key)
        else:
            self.write_file(f"{key}{SUFFIX}", content)

    def fill(self, column: str, values: Mapping[str, float]) -> None:
        """Set `column` in the rows with the given keys; each file is replaced atomically and durably.

        Raises:
            StorageError: if the system refuses; every file is then either as it was or complete.
        """
        parts = self._now_parts() if values else None
        homes = parts.homes if parts is not None else {}
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
            raise unreadable_file(self.storage.where, error) from error
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
            raise unreadable_file(where, error) from error
        return check_file(content, where, self.name)

    def write_file(self, name: str, content: pa.Table, purpose: str = "row", key: str | None = None) -> None:
        """Write one whole file.

        Args:
            name: the file.
            content: its rows.
            purpose: the first word of the fault points.
            key: the trial that is new in it, if one is.

        Raises:
            StorageError: as for `write`.
        """
        self._known = None
        self._n_writes += 1
        try:
            self.storage.write(name, encode(content), purpose)
        except OSError as error:
            raise StorageError(
                f"{system_message('write to', self.storage.describe(name), error)} Free space or fix the permissions, "
                "then run the same command again: complete trials are kept."
            ) from error
        if self._parts is not None:
            self._parts[1].wrote(name, content, key)

    def drop_copies(self) -> dict[str, pa.Table]:
        """Remove every row that is a copy (see `duplicates`), and return the rows of each file.

        Only the holder of the run's lock may do this. If the process is killed in between, some copies are removed and
        no row is missing.

        Raises:
            RunFolderError: as for `read`; every file is then as it was.
            StorageError: if the system refuses.
        """
        contents = self._read_files()
        single = once(contents, self.storage.describe)
        try:
            for name in [name for name, rows in single.items() if rows.num_rows < contents[name].num_rows]:
                self._parts = self._known = None
                if single[name].num_rows:
                    self.write_file(name, single[name])
                else:
                    self.storage.delete(name)
                    del single[name]
        except OSError as error:
            raise unreadable_file(self.storage.where, error) from error
        return single

    def start_cache(self, is_exclusive: bool = False) -> None:
        """From now on, read the files only after a write through this object.

        What is known from an earlier cache is kept if the files are the same.
        """
        self._parts = None  # another process may have compacted the run
        self._cache = _Cache(is_exclusive)

    def stop_cache(self) -> None:
        """Read the files at every `read` again."""
        self._cache = None

    def forget(self) -> None:
        """Read the files at the next `read`, even if the table is cached: they were replaced behind its back."""
        self._parts = self._known = None
        self._n_writes += 1

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
                raise unreadable_file(self.storage.where, error) from error
            else:
                if self.storage.generation() == generation:
                    return tables
        raise unreadable_file(self.storage.where, missing) from missing

    def _now_parts(self) -> Parts | None:
        """Return which file holds which trial; read once for each folder that was swapped in.

        None is returned for an object store, whose trials have a file each, and for a folder that does not exist.
        """
        generation = self.storage.generation()
        if self.storage.path is None or generation is None:
            return None
        if self._parts is None or self._parts[0] != generation:
            known = self._known.contents if self._cache is not None and self._cache.is_valid and self._known else {}
            parts = Parts.of(self.files(), lambda name: known[name] if name in known else self.read_file(name))
            self._parts = generation, parts
        return self._parts[1]


class Tables:
    """The tables of one run.

    Args:
        run: the run folder.
    """

    def __init__(self, run: Storage) -> None:
        self.run = run
        self.trials = Table(run.folder("trials"), "trials")
        self.accuracy = Table(run.folder("accuracy"), "accuracy")
        self.diagnostics = Table(run.folder("diagnostics"), "diagnostics")

    def __iter__(self) -> Iterator[Table]:
        yield self.trials
        yield self.accuracy
        yield self.diagnostics

    def start_cache(self, is_exclusive: bool = False) -> None:
        """From now on, read each table once until it is written to through this object."""
        for table in self:
            table.start_cache(is_exclusive)

    def state(self) -> tuple[int, ...] | None:
        """Return what differs once results do; None if they are not cached, so that it may differ at any time."""
        states = [table.state() for table in (self.trials, self.accuracy)]
        return None if None in states else tuple(state for state in states if state is not None)

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
        """Read the tables at the next read, even if they are cached."""
        for table in self:
            table.forget()
