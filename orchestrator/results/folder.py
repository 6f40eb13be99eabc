"""What lies in a run folder, and whether a folder without a spec can be one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress

from orchestrator.core.errors import OrchestratorError, RunFolderError, StorageError, system_message
from orchestrator.core.text import visible_lines
from orchestrator.results.parts import SUFFIX
from orchestrator.storage.base import (
    ANSWER_FILE,
    BOUNDARIES_FILE,
    CHECKPOINTS,
    DATA_FILE,
    LOG_FILE,
    REPORT_FILE,
    SPEC_FILE,
    SUGGESTIONS_FILE,
    TABLES,
    TRIAL_LOGS,
    NoRegularFileError,
    Storage,
    StoredFile,
    is_bookkeeping,
    is_temporary,
)

_OWN_NAMES = {
    **dict.fromkeys(TABLES, re.compile(rf"[0-9a-z][0-9a-z-]*{re.escape(SUFFIX)}")),
    CHECKPOINTS: re.compile(r"[0-9a-f]{16}\.pt"),
    TRIAL_LOGS: re.compile(r"[0-9a-f]{16}\.log"),
}
"""Folder of a run -> the names of the files in it."""


def _foreign_files(run: Storage) -> Iterator[str]:
    """Yield the files in a folder that are neither tables nor checkpoints of a run.

    Raises:
        OSError: if it cannot be listed.
    """
    for name in run.names():
        if name in _OWN_NAMES:
            try:
                files = run.folder(name).names()
            except NotADirectoryError:
                yield name
                continue
            yield from (
                f"{name}/{file}" for file in files if not (is_temporary(file) or _OWN_NAMES[name].fullmatch(file))
            )
        elif not is_bookkeeping(name) and name not in (
            SUGGESTIONS_FILE,
            ANSWER_FILE,
            REPORT_FILE,
            LOG_FILE,
            DATA_FILE,
            BOUNDARIES_FILE,
        ):
            yield name


def run_entries(run: Storage) -> list[str]:
    """Return the names in a folder that a sweep may use: an empty one, a run, or a run that lost its spec.

    Raises:
        RunFolderError: if it is a file, or holds anything else.
        StorageError: if it cannot be listed.
    """
    try:
        entries = [name for name in run.names() if not is_bookkeeping(name)]
        foreign = next(_foreign_files(run), None) if SPEC_FILE not in entries else None
    except NotADirectoryError as error:
        raise RunFolderError(f"run: expected a folder, got the file '{run.where}'; choose another --run") from error
    except OSError as error:
        raise unreadable(run.where, error) from error
    if foreign is not None:
        raise RunFolderError(
            f"run: expected an empty or a run folder, got '{run.where}' with '{foreign}' in it and without "
            f"{SPEC_FILE}; choose another" + (", or move that out" if {*TABLES} & {*entries} else "")
        )
    return entries


def checkpoints(run: Storage) -> dict[str, StoredFile]:
    """Return key -> checkpoint of each trial that has one; none if they cannot be listed, which does no harm."""
    folder = run.folder(CHECKPOINTS)
    try:
        names = folder.names()
    except OSError:
        return {}
    return {name.removesuffix(".pt"): StoredFile(folder, name) for name in names if name.endswith(".pt")}


def refuse_no_run(run: Storage) -> None:
    """Refuse a folder that holds no run.

    Raises:
        RunFolderError: if it is missing or holds no spec.
        StorageError: if it cannot be listed.
    """
    try:
        names = run.names()
    except NotADirectoryError:
        names = []
    except OSError as error:
        raise unreadable(run.where, error) from error
    if SPEC_FILE not in names:
        is_lost = any(table in names for table in TABLES)
        raise RunFolderError(
            f"run: expected a run folder with {SPEC_FILE}, got '{run.where}'"
            + (", which has tables but lost it; run the same sweep again to restore it" if is_lost else "")
            + ("" if is_lost else "; give the folder that a sweep printed")
        )


def read_file(run: Storage, name: str) -> bytes:
    """Return the content of a file that nothing depends on; empty if it is not there or cannot be read."""
    try:
        return run.read(name)
    except OSError:
        return b""


def write_file(run: Storage, name: str, content: bytes, purpose: str = "") -> None:
    """Write a file that nothing depends on.

    Args:
        run: the run folder.
        name: of the file.
        content: all of it.
        purpose: the first word of the fault points; the file's name without its ending by default.

    Raises:
        StorageError: if the system refuses.
    """
    try:
        run.write(name, content, purpose or name.partition(".")[0])
    except OSError as error:
        raise unwritable(run.where, error) from error


def keep_trial_log(run: Storage, key: str, text: str) -> None:
    """Keep what a worker said of a trial that failed; where that is impossible, nothing is kept."""
    with suppress(OSError, StorageError):
        run.folder(TRIAL_LOGS).write(f"{key}.log", visible_lines(text).encode(), "report")


def lines_on(run: Storage, key: str) -> Iterator[str]:
    """Yield what is known of a trial: the lines of the sweep's log that name it, then what its worker said."""
    log = read_file(run, LOG_FILE).decode(errors="replace")
    yield from (line for line in log.splitlines() if re.search(rf"\b{re.escape(key)}\b", line))
    yield from read_file(run.folder(TRIAL_LOGS), f"{key}.log").decode(errors="replace").splitlines()


def unwritable(where: str, error: OSError) -> StorageError:
    """Return the error for a run folder that the system refuses to write to."""
    return StorageError(f"{system_message('write to', where, error)} Choose another --run.")


def unreadable(where: str, error: OSError) -> StorageError:
    """Return the error for a run folder, or a file in it, that the system refuses to read."""
    return StorageError(
        f"{system_message('read', where, error)} Fix the permissions or the connection, or choose another --run."
    )


def unreadable_file(where: str, error: OSError) -> OrchestratorError:
    """Return the error for a file of a table, or its folder, that the system refuses to read."""
    place = error.filename or where
    if isinstance(error, IsADirectoryError | NoRegularFileError):
        found = "a folder" if isinstance(error, IsADirectoryError) else "a pipe or a device"
        return RunFolderError(f"{place}: expected a Parquet file, got {found}; move it out of the run folder")
    return StorageError(
        f"{system_message('read', place, error)} Fix the permissions or the connection, then run the same command "
        "again."
    )
