"""Where a run lies: the owner of its file names, and of how files are read, replaced and locked there.

A storage is one folder. `LocalStorage` is one on a disk, `objectstore.ObjectStorage` a prefix in an object store; what
is above them (tables, checkpoints, run folders) does not know which. All of it raises OSError where the system refuses.
"""

from __future__ import annotations

import errno
import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote

from orchestrator import folders
from orchestrator.faultpoints import reached
from orchestrator.uris import Uri, checked_uri, is_uri, local_path, path_of

SPEC_FILE = "spec.yaml"
LOCK_FILE = ".lock"
TABLES = ("trials", "accuracy")
CHECKPOINTS = "checkpoints"
DEFAULT_ROOT = "runs"


def unheard(text: str) -> None:
    """Take a line that nobody waits for."""


class NoRegularFileError(OSError):
    """What has a file's name is a pipe, a socket or a device, of which reading may never end."""


class Storage(ABC):
    """One folder of a run, or the run itself.

    Args:
        where: how it is shown, never with a secret.
    """

    def __init__(self, where: str) -> None:
        self.where = where

    @property
    def path(self) -> Path | None:
        """Return the folder on this machine's disks, None where there is none."""
        return None

    def describe(self, name: str) -> str:
        """Return how the file `name` is shown."""
        return f"{self.where}/{name}"

    def read_many(self, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        """Yield each name with its content, which may be damaged where `read` says otherwise."""
        for name in names:
            yield name, self.read(name)

    def generation(self) -> object:
        """Return what is another object once the whole folder was replaced by a new one."""
        return None

    @abstractmethod
    def tidy(self) -> None:
        """Remove what dead processes have left of a run; only for who holds the lock."""

    @abstractmethod
    def folder(self, name: str) -> Storage:
        """Return the folder `name` in this one, whether it exists or not."""

    @abstractmethod
    def address(self, name: str) -> str:
        """Return the text from which another process makes the file `name` with `stored_file`; it holds no secret."""

    @abstractmethod
    def names(self) -> list[str]:
        """Return the sorted names in this folder, none where it does not exist.

        Raises:
            NotADirectoryError: where a file is in its place.
        """

    @abstractmethod
    def read(self, name: str) -> bytes:
        """Return a file's content."""

    @abstractmethod
    def write(self, name: str, content: bytes | memoryview, purpose: str = "row", durable: bool = True) -> None:
        """Make `name` hold `content`, all at once: whoever reads, after a crash too, sees the old or the new.

        Args:
            name: the file; its folder is made where it is missing.
            content: all of it.
            purpose: the first word of the fault points.
            durable: whether it must survive a loss of power as soon as this returns.
        """

    @abstractmethod
    def delete(self, name: str) -> None:
        """Delete a file, which may be missing."""

    @abstractmethod
    def locked(self, say: Callable[[str], None] = unheard) -> AbstractContextManager[None]:
        """Hold this folder for one process; a dead one does not block.

        Args:
            say: told, in a line, where that takes time.

        Raises:
            RunFolderError: where another process holds it.
        """


class LocalStorage(Storage):
    """A folder on a disk of this machine, or one that it mounts.

    Args:
        path: the folder.
        lock: that of the run, shared with every folder inside; by default one of this folder.
    """

    def __init__(self, path: Path, lock: folders.FolderLock | None = None) -> None:
        super().__init__(str(path))
        self._path, self._lock = path, lock or folders.FolderLock(path / LOCK_FILE)

    @property
    def path(self) -> Path:
        """Return the folder."""
        return self._path

    def folder(self, name: str) -> LocalStorage:
        """Return the folder `name` in this one."""
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

    def generation(self) -> object:
        """Return the folder's number on its disk."""
        try:
            found = os.stat(self._path)
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino

    def read(self, name: str) -> bytes:
        """Return a file's content; what is no regular file is refused without waiting for anyone who writes to it."""
        path = self._path / name
        with open(path, "rb", opener=lambda path, flags: os.open(path, flags | os.O_NONBLOCK)) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise NoRegularFileError(errno.EINVAL, "No regular file", str(path))
            return file.read()

    def write(self, name: str, content: bytes | memoryview, purpose: str = "row", durable: bool = True) -> None:
        """Write beside the file, sync, rename, sync the folder; one that is new was synced into its parent before.

        Folders above this one are made only for who may be the first to write: under a lock the run folder is there,
        and a checkpoint is of no use without it.

        Raises:
            StorageError: where this process held the run's lock, and the lock is no longer in its place.
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
        """Delete a file."""
        reached("delete.next")
        (self._path / name).unlink(missing_ok=True)
        reached("delete.done")

    def check_lock(self) -> None:
        """Refuse to go on where this process held the run's lock, and the lock is no longer in its place.

        Raises:
            StorageError: saying so.
        """
        self._lock.check()

    def tidy(self) -> None:
        """Remove temporary files and halves of compactions; what links lead to stays."""
        inside = (self._path / name for name in (*TABLES, CHECKPOINTS))
        for folder in (self._path, *filter(folders.is_folder, inside)):
            folders.remove_files(folder, is_temporary)
        self.drop_compactions()

    def drop_compactions(self) -> None:
        """Remove the folders that a compaction builds, where this process still holds what it held."""
        for table in TABLES:
            self.check_lock()
            folders.remove_folder(self._path / compacting(table))

    @contextmanager
    def locked(self, say: Callable[[str], None] = unheard) -> Iterator[None]:
        """Hold the lock file, where everything that is written lies in this folder and can be written."""
        folders.refuse_links(self._path, (*TABLES, CHECKPOINTS, SPEC_FILE))
        with self._lock.held():
            try:
                folders.refuse_unwritable((self._path, *(self._path / table for table in TABLES)))
                yield
            finally:
                self._remove_if_unused()

    def _remove_if_unused(self) -> None:
        """Remove the folder where it holds nothing but the lock: a mistake was found before anything started."""
        with suppress(OSError):
            if os.listdir(self._path) == [LOCK_FILE] and not self._lock.is_lost():
                (self._path / LOCK_FILE).unlink()
                self._path.rmdir()


@dataclass(frozen=True)
class StoredFile:
    """A file in a storage.

    Args:
        storage: its folder.
        name: its name there.
    """

    storage: Storage
    name: str

    def __str__(self) -> str:
        return self.storage.describe(self.name)


Place = str | Path | Storage
"""A folder: a path, a URI, or what was made of one."""


def open_storage(place: Place) -> Storage:
    """Return the storage at a path or URI, whether it exists or not; nothing is read or written.

    Raises:
        StorageError: where it is a URI that holds a secret, one that nothing here can open, or neither URI nor path.
    """
    if isinstance(place, Storage):
        return place
    if isinstance(place, Path) or not is_uri(place):
        return LocalStorage(local_path(place))
    uri = checked_uri(place)
    if uri.scheme == "file":
        return LocalStorage(path_of(uri))
    from orchestrator.objectstore import open_object_storage

    return open_object_storage(str(uri))


def stored_file(place: str | Path | StoredFile) -> StoredFile:
    """Return the file at a path, URI or `Storage.address`."""
    if isinstance(place, StoredFile):
        return place
    if isinstance(place, str) and is_uri(place):
        uri = Uri.parse(place)
        folder, _, name = uri.path.rpartition("/")
        return StoredFile(open_storage(str(replace(uri, path=folder))), unquote(name))
    path = Path(place)
    return StoredFile(LocalStorage(path.parent), path.name)


def is_temporary(name: str) -> bool:
    """Return whether a name is one that `LocalStorage.write` gives for a moment."""
    return name.startswith(".") and name.endswith(".tmp")


def is_own(name: str) -> bool:
    """Return whether a name in a run folder is ours but no sign of a run: a lock, or remains of a dead process."""
    return name == LOCK_FILE or is_temporary(name) or name in map(compacting, TABLES)


def compacting(table: str) -> str:
    """Return the name of the folder that a compaction builds, and then empties, beside a table."""
    return f".{table}.compact"
