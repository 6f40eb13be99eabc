"""Where a run lies: the owner of its file names, and of how files are read, replaced and locked there.

A storage is one folder. `LocalStorage` is one on a disk, `objectstore.ObjectStorage` a prefix in an object store; what
is above them (tables, checkpoints, run folders) does not know which. All of it raises OSError where the system refuses.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

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


def is_temporary(name: str) -> bool:
    """Return whether a name is one that `LocalStorage.write` gives for a moment."""
    return name.startswith(".") and name.endswith(".tmp")


def is_bookkeeping(name: str) -> bool:
    """Return whether a name in a run folder is ours but no sign of a run: a lock, or remains of a dead process."""
    return name == LOCK_FILE or is_temporary(name) or name in map(compacting, TABLES)


def compacting(table: str) -> str:
    """Return the name of the folder that a compaction builds, and then empties, beside a table."""
    return f".{table}.compact"
