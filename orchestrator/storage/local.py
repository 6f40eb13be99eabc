"""A run folder on a disk of this machine, or on one that it mounts."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from orchestrator.core.fault_points import reached
from orchestrator.storage import folders
from orchestrator.storage.base import (
    CHECKPOINTS,
    LOCK_FILE,
    SPEC_FILE,
    TABLES,
    NoRegularFileError,
    Storage,
    compacting,
    ignore,
    is_temporary,
)


class LocalStorage(Storage):
    """A folder on a disk.

    Args:
        path: the folder.
        lock: that of the run, shared with every folder inside; by default one of this folder.
    """

    def __init__(self, path: Path, lock: folders.FolderLock | None = None) -> None:
        super().__init__(str(path))
        self._path, self._lock = path, lock or folders.FolderLock(path / LOCK_FILE)

    @property
    def path(self) -> Path:
        return self._path

    def folder(self, name: str) -> LocalStorage:
        return LocalStorage(self._path / name, self._lock)

    def address(self, name: str) -> str:
        """Return the absolute path of a file."""
        return str((self._path / name).absolute())

    def names(self) -> list[str]:
        """Return the sorted names in this folder."""
        try:
            return sorted(os.listdir(self._path))
        except FileNotFoundError:
            self.check_lock()
            return []

    def versions(self) -> dict[str, object]:
        """Return the number on its disk, size and time of each file; a write makes a new file."""
        found: dict[str, object] = {}
        try:
            with os.scandir(self._path) as entries:
                for entry in entries:
                    with suppress(FileNotFoundError):  # deleted since it was listed
                        status = entry.stat()
                        found[entry.name] = (status.st_ino, status.st_size, status.st_mtime_ns)
        except FileNotFoundError:
            self.check_lock()
        return found

    def generation(self) -> object:
        """Return the folder's number on its disk."""
        try:
            found = os.stat(self._path)
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino

    def read(self, name: str) -> bytes:
        """Return a file's content; a pipe or a device is refused, and never waited for."""
        path = self._path / name
        with open(path, "rb", opener=lambda path, flags: os.open(path, flags | os.O_NONBLOCK)) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise NoRegularFileError(errno.EINVAL, "not a regular file", str(path))
            return file.read()

    def write(self, name: str, content: bytes | memoryview, purpose: str = "row", durable: bool = True) -> None:
        """Write beside the file, sync, rename, sync the folder; a new folder is synced into its parent first.

        Folders above this one are made only by a durable write without a lock, which may be the first of a run. Under
        a lock the run folder exists, and a checkpoint is of no use without it.

        Raises:
            StorageError: if this process held the run's lock and lost it.
        """
        self.check_lock()
        if durable and not self._lock.is_held:
            folders.make_folder(self._path)
        folders.add_folder(self._path, durable)
        folders.replace_file(self._path / name, content, purpose, durable, self.check_lock)
        if durable:
            self.sync()
        reached(f"{purpose}.done")

    def sync(self) -> None:
        """Make the names in this folder survive a loss of power."""
        folders.sync_folder(self._path)

    def delete(self, name: str) -> None:
        reached("delete.next")
        (self._path / name).unlink(missing_ok=True)
        reached("delete.done")

    def check_lock(self) -> None:
        """Raise if this process held the run's lock and lost it.

        Raises:
            StorageError: saying so.
        """
        self._lock.check()

    def tidy(self) -> None:
        """Remove temporary files and unfinished compactions; what links lead to stays."""
        inside = (self._path / name for name in (*TABLES, CHECKPOINTS))
        for folder in (self._path, *filter(folders.is_folder, inside)):
            folders.remove_files(folder, is_temporary)
        self.drop_compactions()

    def drop_compactions(self) -> None:
        """Remove the folders that a compaction builds, unless this process lost the lock."""
        for table in TABLES:
            self.check_lock()
            folders.remove_folder(self._path / compacting(table))

    @contextmanager
    def locked(self, say: Callable[[str], None] = ignore) -> Iterator[None]:
        """Hold the lock file; refuse a folder with links in it, or one that cannot be written."""
        folders.refuse_links(self._path, (*TABLES, CHECKPOINTS, SPEC_FILE))
        with self._lock.held():
            try:
                folders.refuse_unwritable((self._path, *(self._path / table for table in TABLES)))
                yield
            finally:
                self._remove_if_unused()

    def _remove_if_unused(self) -> None:
        """Remove the folder if it holds only the lock: a mistake was found before anything started."""
        with suppress(OSError):
            if os.listdir(self._path) == [LOCK_FILE] and not self._lock.is_lost():
                (self._path / LOCK_FILE).unlink()
                self._path.rmdir()
