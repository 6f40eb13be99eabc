"""Merging a run's many small files into few, so that no moment shows a row twice or not at all.

A new folder is built beside the table (`.trials.compact`): merged files, and hard links to the files that stay. Then
the two folders change places in one step of the system, and the old one is deleted. Killed before that step, the table
is the old one; after it, the new one; what is left beside it is removed by whoever next holds the run's lock. Who
lists the folder before they change places and opens its files after is told that they are gone, and reads again;
`tables.read_table` does so by itself. (One who has listed names and then leaves out those that are gone, as pyarrow
does within microseconds, can miss rows; nothing that a writer does helps against that.)

Files of one trial stay as they are where their trial will be run again: an `error` of the machine, and accuracy rows of
a trial whose own row was not written. Of a trial that a restored backup has put into two files, the copy is removed
first.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from orchestrator.core.errors import OrchestratorError, RunFolderError, StorageError
from orchestrator.core.fault_points import reached
from orchestrator.results.tables import (
    MERGED,
    SUFFIX,
    drop_doubles,
    forget_homes,
    in_order,
    read_file,
    table_files,
    write_file,
)
from orchestrator.storage.base import TABLES, Storage, compacting, is_temporary
from orchestrator.storage.folders import hand_over, remove_folder
from orchestrator.storage.local import LocalStorage

MANY_FILES = 1_000
"""A sweep that ends with more files than this in a table compacts its run."""

MOST_ROWS = {"trials": 10_000, "accuracy": 250_000}
"""Rows of a merged file at most, but for a single trial with more; some megabytes, compressed."""

SECONDS_FOR_READERS = 1.0
"""How long the old folder stays after the swap, for readers that were listing it."""

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
_NO_EXCHANGE = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EXDEV)


@dataclass(frozen=True)
class Compacted:
    """What a compaction did to one table.

    Args:
        table: its name.
        n_before: files before.
        n_after: files after.
    """

    table: str
    n_before: int
    n_after: int


def compact(run: Storage) -> list[Compacted]:
    """Merge the small files of a run's tables; only for who holds its lock.

    Raises:
        RunFolderError: where the run lies in an object store, or a file is damaged.
        StorageError: where the system refuses; every file is then as it was.
    """
    if not isinstance(run, LocalStorage):
        raise RunFolderError(
            f"compact: expected a run folder on a disk, got '{run.where}'; an object store cannot swap two folders at "
            "once, so its files stay one a trial: copy the run to a disk to compact it"
        )
    try:
        n_before = {table: len(table_files(run.folder(table))) for table in TABLES}
        contents = {table: drop_doubles(run.folder(table), table) for table in TABLES}
        settled = set(_settled(contents["trials"]))
        done = [_compact_table(run, table, contents[table], settled) for table in TABLES]
        return [replace(compacted, n_before=n_before[compacted.table]) for compacted in done]
    except OSError as error:
        raise StorageError(
            f"compact: expected '{run.where}' to be writable, got '{error.strerror}'; free space or mend permissions; "
            "every row is kept"
        ) from error
    finally:
        forget_homes()
        with suppress(OSError, OrchestratorError):  # the first error is the one to tell
            run.drop_compactions()


def is_worth_it(run: Storage) -> bool:
    """Return whether a sweep that ends should compact its run."""
    return run.path is not None and any(len(table_files(run.folder(table))) > MANY_FILES for table in TABLES)


def _compact_table(run: LocalStorage, table: str, contents: dict[str, Any], settled: set[str]) -> Compacted:
    old, new = run.folder(table), run.folder(compacting(table))
    run.drop_compactions()
    merging = _to_merge(table, contents, settled)
    if len(merging) < 2:
        return Compacted(table, len(contents), len(contents))
    _refuse_what_cannot_move(old)
    os.mkdir(new.path)
    _take_after(old.path, new.path)
    reached("compact.made")
    kept = [name for name in old.names() if name not in merging and not is_temporary(name)]
    for name in kept:
        _link(old.path / name, new.path / name)
    reached("compact.kept")
    parts = list(_parts(in_order([contents[name] for name in merging]), MOST_ROWS[table]))
    for part in parts:
        write_file(new, _name_of(part), part, "merged")  # it syncs the folder, and so the links before it
        hand_over(new.path / _name_of(part), old.path)
        os.chmod(new.path / _name_of(part), os.stat(old.path / merging[0]).st_mode & 0o777)
    reached("compact.merged")
    _check(table, new, contents)
    reached("compact.checked")
    run.check_lock()
    exchange(old.path, new.path)
    reached("compact.swapped")
    run.sync()
    reached("compact.synced")
    time.sleep(SECONDS_FOR_READERS)
    remove_folder(new.path)
    reached("compact.removed")
    return Compacted(table, len(contents), len(contents) - len(merging) + len(parts))


def _to_merge(table: str, contents: dict[str, Any], settled: set[str]) -> list[str]:
    """Return the files whose rows go into merged ones: of trials that are settled, and merged ones with much room."""
    small = [n for n, rows in contents.items() if not n.startswith(MERGED) and n.removesuffix(SUFFIX) in settled]
    merged = [n for n, rows in contents.items() if n.startswith(MERGED) and rows.num_rows < MOST_ROWS[table] / 2]
    return merged + small if small else []


def _settled(trials: dict[str, Any]) -> Iterator[str]:
    """Yield the keys of the trials that will not be run again."""
    for content in trials.values():
        rows = content.select(["key", "status"]).to_pydict()
        yield from (key for key, status in zip(rows["key"], rows["status"], strict=True) if status != "error")


def _parts(rows: Any, most: int) -> Iterator[Any]:
    """Yield slices of sorted rows, each of whole trials and of `most` rows at most where that can be."""
    keys = rows["key"].to_pylist()
    starts = [i for i, key in enumerate(keys) if i == 0 or key != keys[i - 1]]
    first = 0
    for start, end in zip(starts, [*starts[1:], len(keys)], strict=True):
        if end - first > most and start > first:
            yield rows.slice(first, start - first)
            first = start
    yield rows.slice(first)


def _name_of(rows: Any) -> str:
    """Return the name of a merged file: a hash of the trials in it, which never change."""
    keys = ",".join(sorted(set(rows["key"].to_pylist())))
    return f"{MERGED}{hashlib.sha256(keys.encode()).hexdigest()[:16]}{SUFFIX}"


def _refuse_what_cannot_move(folder: LocalStorage) -> None:
    """Refuse a table that is a link, or holds folders: they are someone else's.

    Raises:
        StorageError: naming it.
    """
    odd = [folder.path] if folder.path.is_symlink() else [p for p in folder.path.iterdir() if p.is_dir()]
    if odd:
        raise StorageError(
            f"compact: expected a folder of files, got '{odd[0]}', which is a link or a folder; move it out of the run "
            "folder; its files are as they were"
        )


def _take_after(old: Path, new: Path) -> None:
    """Give a new folder the owner, group and rights of the old one, whose place it takes.

    Raises:
        StorageError: where the system does not let it, and someone could do less with the new one.
    """
    hand_over(new, old)
    shutil.copystat(old, new)
    was, now = os.stat(old), os.stat(new)
    group, others = was.st_mode >> 3 & 0o7, was.st_mode & 0o7
    if (now.st_gid != was.st_gid and group & ~others) or (now.st_uid != was.st_uid and group != 0o7):
        raise StorageError(
            f"compact: expected to keep the owner and group of '{old}', got a system that gives no files away; its "
            f"files are as they were: compact it as its owner (user {was.st_uid}, group {was.st_gid})"
        )


def _link(source: Path, target: Path) -> None:
    """Make `target` the same file, or a synced copy where the file system has no links."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, target)
        with open(target, "rb") as file:
            os.fsync(file.fileno())


def _check(table: str, new: LocalStorage, contents: dict[str, Any]) -> None:
    """Refuse a new folder whose rows are not exactly those of the old: it would be swapped in for good.

    Raises:
        StorageError: where they differ.
    """
    before = in_order(list(contents.values()))
    after = in_order([read_file(new, name, table) for name in table_files(new)])
    if not _same(before, after):
        raise StorageError(
            f"compact: expected the rows of '{table}' back from '{new.where}', got others; its files are as they were: "
            "check the disk"
        )


def _same(one: Any, other: Any) -> bool:
    """Return whether two tables hold the same rows, where NaN equals NaN."""
    left, right = one.combine_chunks().to_pandas(), other.combine_chunks().to_pandas()
    return bool(left.equals(right))


def exchange(one: Path, other: Path) -> None:
    """Make two folders change places in one step.

    Raises:
        StorageError: where this system, or this file system, cannot; both are then as they were.
    """
    try:
        function = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError) as error:
        raise _no_exchange(one) from error
    if function(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return
    number = ctypes.get_errno()
    if number in _NO_EXCHANGE:
        raise _no_exchange(one)
    raise OSError(number, os.strerror(number), str(one))


def _no_exchange(path: Path) -> StorageError:
    return StorageError(
        f"compact: expected a file system that can swap two folders at once, got none under '{path.parent}'; it is not "
        "possible there, and its files are as they were: copy the run to another disk to compact it"
    )
