"""Where a run lies: the owner of its file names, and of how files are read, replaced and locked there.

A storage is one folder. `LocalStorage` is one on a disk, `objectstore.ObjectStorage` a prefix in an object store; what
is above them (tables, checkpoints, run folders) does not know which. All of it raises OSError where the system refuses.
"""

from __future__ import annotations

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit, urlunsplit

from orchestrator import folders
from orchestrator.errors import StorageError
from orchestrator.faultpoints import reached

SPEC_FILE = "spec.yaml"
LOCK_FILE = ".lock"
TABLES = ("trials", "accuracy")
CHECKPOINTS = "checkpoints"
DEFAULT_ROOT = "runs"

_SECRET = re.compile(r"key|secret|token|passw|sig|credential|sas", re.IGNORECASE)
_NAMED_BY_USER = ("abfs", "abfss")
"""Schemes whose URIs hold a container, and not a person, before the @."""


def unheard(text: str) -> None:
    """Take a line that nobody waits for."""


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
        """Return a file's content."""
        return (self._path / name).read_bytes()

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
        StorageError: where it is a URI that holds a secret, or one that nothing here can open.
    """
    if isinstance(place, Storage):
        return place
    if isinstance(place, Path) or not is_uri(place):
        return LocalStorage(Path(place))
    parts = urlsplit(place)
    if parts.scheme == "file":
        return LocalStorage(Path(unquote(parts.path)))
    secrets = [name for name, value in parse_qsl(parts.query) if is_secret(name) or "@" in value]
    if parts.password is not None or secrets or (parts.username and parts.scheme in ("s3", "gs", "gcs")):
        raise StorageError(
            f"storage: expected a URI without credentials, got '{shown(place)}' with some (left out here); set them in "
            "the environment of the sweep and its workers, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    from orchestrator.objectstore import open_object_storage

    return open_object_storage(place)


def stored_file(place: str | Path | StoredFile) -> StoredFile:
    """Return the file at a path, URI or `Storage.address`."""
    if isinstance(place, StoredFile):
        return place
    if isinstance(place, str) and is_uri(place):
        parts = urlsplit(place)
        folder, _, name = parts.path.rpartition("/")
        return StoredFile(open_storage(urlunsplit(parts._replace(path=folder))), unquote(name))
    path = Path(place)
    return StoredFile(LocalStorage(path.parent), path.name)


def is_uri(place: str) -> bool:
    """Return whether a text is a URI and not a path."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", place) is not None


def join(root: str | Path, name: str) -> str:
    """Return the path or URI of `name` in `root`; a URI keeps its query."""
    if isinstance(root, Path) or not is_uri(root):
        return str(Path(root) / name)
    parts = urlsplit(root)
    return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{name}"))


def shown(uri: str) -> str:
    """Return a URI as it may be printed and stored: without passwords, people's names and secrets in its query."""
    parts = urlsplit(uri)
    user, at, host = parts.netloc.rpartition("@")
    name = user.partition(":")[0] + at if parts.scheme in _NAMED_BY_USER else ""
    return urlunsplit(parts._replace(netloc=name + host, query=shown_query(parts.query), fragment=""))


def shown_query(query: str) -> str:
    """Return the query of a URI as it may be printed and stored."""
    kept = [item for item in query.split("&") if item and not is_secret(item.partition("=")[0])]
    return "&".join(re.sub(r"(//|%2F%2F)[^/&]*?(@|%40)", r"\1", item, flags=re.IGNORECASE) for item in kept)


def is_secret(name: str) -> bool:
    """Return whether an option of this name may hold a secret."""
    return _SECRET.search(name) is not None


def is_temporary(name: str) -> bool:
    """Return whether a name is one that `LocalStorage.write` gives for a moment."""
    return name.startswith(".") and name.endswith(".tmp")


def is_own(name: str) -> bool:
    """Return whether a name in a run folder is ours but no sign of a run: a lock, or remains of a dead process."""
    return name == LOCK_FILE or is_temporary(name) or name in map(compacting, TABLES)


def compacting(table: str) -> str:
    """Return the name of the folder that a compaction builds, and then empties, beside a table."""
    return f".{table}.compact"
