"""Folders on a disk: made and synced so that a loss of power leaves them, and held by one process at a time."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from orchestrator.errors import RunFolderError

_MOST_TRIES = 100
"""A lock file that others remove so often while we open it is no lock file."""


def make_folder(path: Path, durable: bool) -> None:
    """Make a folder and those above it where they are missing.

    Args:
        path: the folder.
        durable: whether the names of those that are new must survive a loss of power.
    """
    try:
        path.mkdir()
    except FileNotFoundError:
        if path == path.parent:
            raise
        make_folder(path.parent, durable)
        path.mkdir(exist_ok=True)
    except OSError:  # it is there, or, on a disk that cannot be written, the system says that first
        if not path.is_dir():
            raise
        return
    if durable:
        sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make the names in a folder survive a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def held(lock: Path) -> Iterator[None]:
    """Hold a lock file; the system lets go of it when the process ends, however it ends.

    Raises:
        RunFolderError: where another process holds it.
    """
    with _locked_file(lock) as file:
        file.seek(0)
        file.truncate()
        file.write(str(os.getpid()))
        file.flush()
        yield


def _locked_file(lock: Path, tries: int = _MOST_TRIES) -> IO[str]:
    """Return the lock file, open and locked; where its last holder removed it meanwhile, the next one of its name."""
    try:
        with ExitStack() as opened:
            make_folder(lock.parent, durable=True)
            file = opened.enter_context(open(lock, "a+"))
            _lock(file, lock.parent)
            if not os.path.samestat(os.fstat(file.fileno()), os.stat(lock)):
                raise FileNotFoundError(errno.ENOENT, "removed while it was opened", str(lock))
            opened.pop_all()
            return file
    except (FileNotFoundError, FileExistsError):  # the file, or its folder, is another one by now
        if tries == 1:
            raise
    return _locked_file(lock, tries - 1)


def _lock(file: IO[str], folder: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.seek(0)
        holder = file.read(20).strip()
        raise RunFolderError(
            f"run: expected a folder that no other sweep uses, got '{folder}'"
            f"{f' (process {holder})' if holder.isdigit() else ''}; wait for it or choose another --run"
        ) from error
