"""The tables' contract: schemas, atomic writing, and reading that trusts nothing.

A run keeps two tables, each a folder of Parquet files: `trials` (a row a trial) and `accuracy` (a row a measured cell
of R). A trial's accuracy file is written first and its trials file last: that one is the commit. Files are named after
the trial's key, so writing a trial twice changes nothing. A compaction merges many into few (see `compaction`): each
trial is in one file at any moment. Where a restored backup has put it into a second one, readers see it once, and who
holds the run's lock removes the copy (see `doubles`).
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

from orchestrator.core.errors import OrchestratorError, RunFolderError, StorageError
from orchestrator.results.duplicates import IDENTITY, which_stay
from orchestrator.results.schema import SCHEMAS, check_file, encode
from orchestrator.storage.base import NoRegularFileError, Place, Storage
from orchestrator.storage.opening import open_storage

SUFFIX = ".parquet"
MERGED = "merged-"
"""What the names of files with the rows of many trials begin with; the others are named after their trial's key."""

_MOST_READS = 5


def write_rows(folder: Place, name: str, table: str, rows: list[dict[str, Any]]) -> None:
    """Write the rows of the trial `name` of `table` into `folder`, durably and all at once.

    They go into a file of their own, or, where a merged file holds that trial, into that one in place of the old rows:
    no moment shows both.

    Raises:
        StorageError: where the system refuses (no space, no permission); nothing half-written is left in sight.
        RunFolderError: where a merged file is damaged.
    """
    storage = open_storage(folder)
    content = pa.Table.from_pylist(rows, schema=SCHEMAS[table])
    home = _merged_homes(storage, table).get(name)
    if home is not None and home in table_files(storage):
        old = read_file(storage, home, table)
        content = in_order([old.filter(pc.not_equal(old["key"], name)), content])
    else:
        home = f"{name}{SUFFIX}"
    write_file(storage, home, content)


def write_file(storage: Storage, name: str, content: pa.Table, purpose: str = "row") -> None:
    """Write a whole file of a table.

    Raises:
        StorageError: as for `write_rows`.
    """
    memory = _MEMORIES.get(storage.address(""))
    if memory is not None:
        memory.rows, memory.n_writes = None, memory.n_writes + 1
    try:
        storage.write(name, encode(content), purpose)
    except OSError as error:
        raise StorageError(
            f"{storage.describe(name)}: expected to be writable, got '{error.strerror}'; free space or mend "
            "permissions and run the same command again: what is complete is kept"
        ) from error


def fill_values(folder: Place, table: str, column: str, values: Mapping[str, float]) -> None:
    """Set `column` of the rows with the given keys; every file is replaced at once and durably.

    Raises:
        StorageError: where the system refuses; files are as they were or complete.
    """
    storage = open_storage(folder)
    homes = _merged_homes(storage, table) if values else {}
    for name in dict.fromkeys(homes.get(key, f"{key}{SUFFIX}") for key in values):
        content = read_file(storage, name, table)
        keys, index = content["key"].to_pylist(), content.schema.get_field_index(column)
        new = [values.get(key, old) for key, old in zip(keys, content[column].to_pylist(), strict=True)]
        write_file(storage, name, content.set_column(index, content.schema.field(index), pa.array(new, pa.float64())))


def in_order(tables: list[pa.Table]) -> pa.Table:
    """Return the rows of tables of one schema, sorted by key and place in R."""
    whole = pa.concat_tables(tables)
    return whole.sort_by([(name, "ascending") for name in IDENTITY if name in whole.schema.names])


def read_table(folder: Place, table: str) -> pd.DataFrame:
    """Return a whole table as a data frame, empty where nothing is written yet, each row once.

    Raises:
        RunFolderError: where a file is damaged, foreign, or of a newer schema, or two tell different things of a trial.
        StorageError: where the system does not let it be read.
    """
    storage = open_storage(folder)
    memory = _MEMORIES.get(storage.address(""))
    rows, n_writes = (memory.rows, memory.n_writes) if memory is not None else (None, 0)
    if rows is None:
        contents = _once(storage, _read_files(storage, table)) if memory is None else drop_doubles(storage, table)
        rows = pa.concat_tables([*contents.values(), SCHEMAS[table].empty_table()])
        if memory is not None and memory.n_writes == n_writes:
            memory.rows = rows
    frame: pd.DataFrame = rows.to_pandas()
    return frame


def drop_doubles(folder: Place, table: str) -> dict[str, pa.Table]:
    """Remove every row for which another one stands (see `doubles`), and return the rows of each file.

    Only for who holds the run's lock. Killed in between, some are removed, and none is missing.

    Raises:
        RunFolderError: as for `read_table`; every file is then as it was.
        StorageError: where the system refuses.
    """
    storage = open_storage(folder)
    contents = _read_files(storage, table)
    once = _once(storage, contents)
    try:
        for name in [name for name, rows in once.items() if rows.num_rows < contents[name].num_rows]:
            _HOMES.pop(storage.where, None)
            if once[name].num_rows:
                write_file(storage, name, once[name])
            else:
                storage.delete(name)
                del once[name]
    except OSError as error:
        raise _unreadable(storage.where, error) from error
    return once


def _once(storage: Storage, contents: dict[str, pa.Table]) -> dict[str, pa.Table]:
    """Return the rows of each file without those for which another one stands."""
    if not contents:
        return contents
    whole = pa.concat_tables(contents.values())
    names = [name for name in IDENTITY if name in whole.schema.names]
    if whole.group_by(names).aggregate([]).num_rows == whole.num_rows:
        return contents
    sizes = [rows.num_rows for rows in contents.values()]
    stay = which_stay(whole.to_pandas(), np.repeat([storage.describe(name) for name in contents], sizes).tolist())
    parts = np.split(stay, np.cumsum(sizes)[:-1])
    return {name: rows.filter(pa.array(part)) for (name, rows), part in zip(contents.items(), parts, strict=True)}


def _read_files(storage: Storage, table: str) -> dict[str, pa.Table]:
    """Return the rows of each file of a table.

    A compaction that replaces the folder while it is read is noticed, and the folder is read again.
    """
    missing = FileNotFoundError(0, "changes while it is read")
    for _ in range(_MOST_READS):
        generation = storage.generation()
        try:
            contents = storage.read_many(table_files(storage))
            tables = {name: _checked(storage, name, content, table) for name, content in contents}
        except FileNotFoundError as error:
            missing = error
        except OSError as error:
            raise _unreadable(storage.where, error) from error
        else:
            if storage.generation() == generation:
                return tables
    raise _unreadable(storage.where, missing) from missing


def _checked(storage: Storage, name: str, content: bytes, table: str) -> pa.Table:
    """Return the rows of a file, read again where it was replaced while it was read."""
    try:
        return check_file(content, storage.describe(name), table)
    except RunFolderError:
        again = storage.read(name)
        if again == content:
            raise
        return check_file(again, storage.describe(name), table)


@dataclass
class _Memory:
    """What was read of a table since it was last written to."""

    rows: pa.Table | None = None
    n_writes: int = 0


_MEMORIES: dict[str, _Memory] = {}


@contextmanager
def read_once(run: Storage) -> Iterator[None]:
    """Read each table of a run once until this process writes to it: for who holds its lock, and writes alone.

    Rows that are there twice are removed where that is noticed, before anything is written.
    """
    places = [run.folder(table).address("") for table in SCHEMAS]
    _MEMORIES.update((place, _Memory()) for place in places)
    try:
        yield
    finally:
        for place in places:
            _MEMORIES.pop(place, None)


def table_files(storage: Storage) -> list[str]:
    """Return the names of a table's files, as other tools see them.

    Raises:
        RunFolderError: where a file is in the folder's place.
        StorageError: where the system does not let them be listed.
    """
    try:
        return [name for name in storage.names() if name.endswith(SUFFIX) and not name.startswith((".", "_"))]
    except NotADirectoryError as error:
        raise RunFolderError(
            f"{storage.where}: expected a folder of Parquet files, got a file; move it out of the run folder"
        ) from error
    except OSError as error:
        raise _unreadable(storage.where, error) from error


def _merged_homes(storage: Storage, table: str) -> dict[str, str]:
    """Return, for every trial in a merged file, the name of that file; read once for a folder and remembered."""
    generation, known = storage.generation(), _HOMES.get(storage.where)
    if storage.path is None or generation is None:
        return {}  # an object store has no merged files, and neither has a folder that does not exist
    if known is None or known[0] != generation:
        names = [name for name in table_files(storage) if name.startswith(MERGED)]
        homes = {key: name for name in names for key in read_file(storage, name, table)["key"].unique().to_pylist()}
        known = _HOMES[storage.where] = (generation, homes)
    return known[1]


_HOMES: dict[str, tuple[object, dict[str, str]]] = {}


def forget_homes() -> None:
    """Forget which trials are in merged files: another process may have compacted since."""
    _HOMES.clear()


def read_file(folder: Place, name: str, table: str) -> pa.Table:
    """Return the file `name` of `table` after checking that it is one.

    Raises:
        RunFolderError: as for `read_table`.
        StorageError: where the system does not let it be read.
    """
    storage = open_storage(folder)
    try:
        content = storage.read(name)
    except OSError as error:
        raise _unreadable(storage.describe(name), error) from error
    return check_file(content, storage.describe(name), table)


def _unreadable(where: str, error: OSError) -> OrchestratorError:
    place = error.filename or where
    if isinstance(error, IsADirectoryError | NoRegularFileError):
        found = "a folder" if isinstance(error, IsADirectoryError) else "a pipe or a device"
        return RunFolderError(f"{place}: expected a Parquet file, got {found}; move it out of the run folder")
    return StorageError(
        f"{place}: expected to be readable, got '{error.strerror}'; mend permissions or the connection and run the "
        "same command again"
    )
