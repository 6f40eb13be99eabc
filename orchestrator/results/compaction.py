"""Merging a run's many small files into few, such that readers never see a row twice or miss one.

A new folder is built beside the table (`.trials.compact`): merged files, and hard links to the files that stay. Then
the two folders change places in one step of the system, and the old one is deleted. If the process is killed before
that step, the table is the old one; after it, the new one. The next holder of the run's lock removes what is left
beside it. A reader that listed the folder before the swap and opens its files afterwards finds them gone and reads
again; `tables.Table.read` does that by itself. (A reader that skips files which are gone since it listed them, as
pyarrow does within microseconds, can miss rows. A writer cannot prevent that.)

A trial's file stays as it is if the trial will be run again: if it has status `error`, or has accuracy rows but no row
of its own. If a restored backup has put a trial into two files, the copy is removed first.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from orchestrator.core.errors import OrchestratorError, RunFolderError, StorageError, system_message
from orchestrator.core.fault_points import reached
from orchestrator.results.duplicates import in_order
from orchestrator.results.parts import MERGED, SUFFIX
from orchestrator.results.run_tables import Tables
from orchestrator.results.tables import Table
from orchestrator.storage.base import compacting, is_temporary
from orchestrator.storage.folder_swap import exchange
from orchestrator.storage.folders import hand_over, remove_folder
from orchestrator.storage.local import LocalStorage

MANY_FILES = 1_000
"""A sweep that ends with more files than this in a table compacts its run."""

MOST_ROWS = {"trials": 10_000, "accuracy": 250_000, "outcomes": 250_000, "evaluations": 250_000, "diagnostics": 500_000}
"""Most rows of a merged file, unless a single trial has more; some megabytes, compressed."""

MOST_BYTES = 2**26
"""Most memory that the rows of a merged file take, unless those of a single trial take more; a reader refuses a file of
eight times as much. A row of `outcomes` has a bit for each example, of which there may be millions."""

SECONDS_FOR_READERS = 1.0
"""How long the old folder stays after the swap, for readers that were listing it."""


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


def compact(tables: Tables) -> list[Compacted]:
    """Merge the small files of a run's tables; only the holder of its lock may do this.

    Raises:
        RunFolderError: if the run lies in an object store, or a file is damaged.
        StorageError: if the system refuses; every file is then as it was.
    """
    run = tables.run
    if not isinstance(run, LocalStorage):
        raise RunFolderError(
            f"compact: '{run.where}' lies in an object store, which cannot swap two folders in one step, so its files "
            "stay one a trial; copy the run to a disk to compact it"
        )
    try:
        n_before = {table.name: len(table.files()) for table in tables}
        contents = {table.name: table.drop_copies() for table in tables}
        settled = set(_settled(contents["trials"]))
        used = [table for table in tables if contents[table.name] or table not in tables.optional]
        done = [_compact_table(run, table, contents[table.name], settled) for table in used]
        return [replace(compacted, n_before=n_before[compacted.table]) for compacted in done]
    except OSError as error:
        raise StorageError(
            f"compact: {system_message('write to', run.where, error)} Free space or fix the permissions; every row is "
            "kept."
        ) from error
    finally:
        tables.forget()
        with suppress(OSError, OrchestratorError):  # the first error is the one to report
            run.drop_compactions()


def is_worth_it(tables: Tables) -> bool:
    """Return whether a sweep that ends should compact its run."""
    return tables.run.path is not None and any(len(table.files()) > MANY_FILES for table in tables)


def _compact_table(run: LocalStorage, table: Table, contents: dict[str, Any], settled: set[str]) -> Compacted:
    run.drop_compactions()
    merging = _to_merge(table.name, contents, settled)
    if len(merging) < 2:
        return Compacted(table.name, len(contents), len(contents))
    old, new = run.folder(table.name), run.folder(compacting(table.name))
    _refuse_what_cannot_move(old)
    n_parts = _build(Table(new, table.name), old, contents, merging)
    run.check_lock()
    exchange(old.path, new.path)
    reached("compact.swapped")
    run.sync()
    reached("compact.synced")
    time.sleep(SECONDS_FOR_READERS)
    remove_folder(new.path)
    reached("compact.removed")
    return Compacted(table.name, len(contents), len(contents) - len(merging) + n_parts)


def _build(built: Table, old: LocalStorage, contents: dict[str, Any], merging: list[str]) -> int:
    """Build the folder that replaces `old`, and return the number of merged files in it.

    Raises:
        StorageError: if its rows are not those of `contents`, or it cannot get the owner of `old`.
    """
    new = old.path.with_name(compacting(built.name))
    os.mkdir(new)
    _copy_ownership(old.path, new)
    reached("compact.made")
    for name in old.names():
        if name not in merging and not is_temporary(name):
            _link(old.path / name, new / name)
    reached("compact.kept")
    parts = list(_parts(in_order([contents[name] for name in merging]), MOST_ROWS[built.name], MOST_BYTES))
    for part in parts:
        merged = _name_of(part)
        built.write_file(merged, part, "merged")  # syncs the folder, and with it the links made before
        hand_over(new / merged, old.path)
        os.chmod(new / merged, os.stat(old.path / merging[0]).st_mode & 0o777)
    reached("compact.merged")
    _check(built, contents)
    reached("compact.checked")
    return len(parts)


def _to_merge(table: str, contents: dict[str, Any], settled: set[str]) -> list[str]:
    """Return the files to merge: those of settled trials, and merged files that are less than half full."""
    small = [n for n, rows in contents.items() if not n.startswith(MERGED) and n.removesuffix(SUFFIX) in settled]
    merged = [n for n, rows in contents.items() if n.startswith(MERGED) and not _is_half_full(rows, table)]
    return merged + small if small else []


def _is_half_full(rows: Any, table: str) -> bool:
    return bool(rows.num_rows >= MOST_ROWS[table] / 2 or rows.nbytes >= MOST_BYTES / 2)


def _settled(trials: dict[str, Any]) -> Iterator[str]:
    """Yield the keys of the trials that will not be run again."""
    for content in trials.values():
        rows = content.select(["key", "status"]).to_pydict()
        yield from (key for key, status in zip(rows["key"], rows["status"], strict=True) if status != "error")


def _parts(rows: Any, most_rows: int, most_bytes: int) -> Iterator[Any]:
    """Yield slices of sorted rows: whole trials, and at most so many rows and bytes unless a single trial has more."""
    keys = rows["key"].to_pylist()
    starts = [i for i, key in enumerate(keys) if i == 0 or key != keys[i - 1]]
    first = n_bytes = 0
    for start, end in zip(starts, [*starts[1:], len(keys)], strict=True):
        own = rows.slice(start, end - start).nbytes
        if start > first and (end - first > most_rows or n_bytes + own > most_bytes):
            yield rows.slice(first, start - first)
            first, n_bytes = start, 0
        n_bytes += own
    yield rows.slice(first)


def _name_of(rows: Any) -> str:
    """Return the name of a merged file: a hash of the trials in it, whose rows never change."""
    keys = ",".join(sorted(set(rows["key"].to_pylist())))
    return f"{MERGED}{hashlib.sha256(keys.encode()).hexdigest()[:16]}{SUFFIX}"


def _refuse_what_cannot_move(folder: LocalStorage) -> None:
    """Refuse a table that is a link, or that holds folders: they belong to someone else.

    Raises:
        StorageError: naming the link or folder.
    """
    odd = [folder.path] if folder.path.is_symlink() else [p for p in folder.path.iterdir() if p.is_dir()]
    if odd:
        raise StorageError(
            f"compact: '{odd[0]}' is a link or a folder, where only files are expected; move it out of the run folder. "
            "Nothing was changed."
        )


def _copy_ownership(old: Path, new: Path) -> None:
    """Give a new folder the owner, group and permissions of the one that it replaces.

    Raises:
        StorageError: if the system refuses and someone would lose access.
    """
    hand_over(new, old)
    shutil.copystat(old, new)
    was, now = os.stat(old), os.stat(new)
    group, others = was.st_mode >> 3 & 0o7, was.st_mode & 0o7
    if (now.st_gid != was.st_gid and group & ~others) or (now.st_uid != was.st_uid and group != 0o7):
        raise StorageError(
            f"compact: cannot give the new files to the owner and group of '{old}', and someone would lose access. "
            f"Nothing was changed; compact it as its owner (user {was.st_uid}, group {was.st_gid})."
        )


def _link(source: Path, target: Path) -> None:
    """Make `target` a hard link to `source`, or a synced copy if the file system has no links."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, target)
        with open(target, "rb") as file:
            os.fsync(file.fileno())


def _check(built: Table, contents: dict[str, Any]) -> None:
    """Refuse a new folder whose rows are not exactly those of the old one, which is deleted after the swap.

    Raises:
        StorageError: if they differ.
    """
    before = in_order(list(contents.values()))
    after = in_order([built.read_file(name) for name in built.files()])
    if not _same(before, after):
        raise StorageError(
            f"compact: '{built.storage.where}' does not hold the rows of '{built.name}' that were written to it; "
            "nothing was changed: check the disk"
        )


def _same(one: Any, other: Any) -> bool:
    """Return whether two tables hold the same rows, with NaN equal to NaN."""
    left, right = one.combine_chunks().to_pandas(), other.combine_chunks().to_pandas()
    return bool(left.equals(right))
