"""The folder of a run: its file names, and how files in it are read, replaced and locked.

A storage is one folder: `LocalStorage` on a disk, `objects.ObjectStorage` a prefix in an object store. Tables,
checkpoints and run folders use either without knowing which. All methods raise OSError if the system refuses.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

SPEC_FILE = "spec.yaml"
LOCK_FILE = ".lock"
OUTCOMES = "outcomes"
TABLES = ("trials", "accuracy", OUTCOMES, "evaluations", "diagnostics")
"""The folders of tables; runs of earlier versions have no `outcomes`, and few have `evaluations` or `diagnostics`."""
CHECKPOINTS = "checkpoints"
SUGGESTIONS_FILE = "suggestions.json"
ANSWER_FILE = "answer.json"
REPORT_FILE = "report.html"
LOG_FILE = "sweep.log"
DATA_FILE = "data.txt"
BOUNDARIES_FILE = "boundaries.json"
TRIAL_LOGS = "logs"
DEFAULT_ROOT = "runs"


def ignore(text: str) -> None:
    """Show nothing: the default of those who report progress in lines."""


class NoRegularFileError(OSError):
    """A pipe, a socket or a device has the name of a file; reading it may never end."""


class Storage(ABC):
    """One folder of a run, or the run itself.

    Args:
        where: how it is shown, never with a secret.
    """

    def __init__(self, where: str) -> None:
        self.where = where

    @property
    def path(self) -> Path | None:
        """Return the folder on this machine's disks, or None if it is not on one."""
        return None

    def describe(self, name: str) -> str:
        """Return how the file `name` is shown."""
        return f"{self.where}/{name}"

    def read_many(self, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        """Yield each name with its content, as `read` returns it."""
        for name in names:
            yield name, self.read(name)

    def generation(self) -> object:
        """Return an object that differs once the whole folder was replaced by a new one."""
        return None

    @abstractmethod
    def versions(self) -> dict[str, object]:
        """Return name -> an object that differs once the file was replaced; empty if the folder does not exist.

        Raises:
            NotADirectoryError: if a file is in its place.
        """

    @abstractmethod
    def tidy(self) -> None:
        """Remove what dead processes have left of a run. Call it only while holding the lock."""

    @abstractmethod
    def folder(self, name: str) -> Storage:
        """Return the folder `name` in this one, whether it exists or not."""

    @abstractmethod
    def address(self, name: str) -> str:
        """Return the text that `stored_file` turns into the file `name` in another process; it holds no secret."""

    @abstractmethod
    def names(self) -> list[str]:
        """Return the sorted names in this folder, none if it does not exist.

        Raises:
            NotADirectoryError: if a file is in its place.
        """

    @abstractmethod
    def read(self, name: str) -> bytes:
        """Return a file's content, of one moment."""

    @abstractmethod
    def write(self, name: str, content: bytes | memoryview, purpose: str = "row", durable: bool = True) -> None:
        """Replace a file all at once: readers see the old content or the new, after a crash too.

        Args:
            name: the file; its folder is made if it is missing.
            content: all of it.
            purpose: the first word of the fault points.
            durable: whether it must survive a loss of power as soon as this returns.
        """

    @abstractmethod
    def delete(self, name: str) -> None:
        """Delete a file, which may be missing."""

    @abstractmethod
    def locked(self, say: Callable[[str], None] = ignore) -> AbstractContextManager[None]:
        """Hold this folder for one process; a dead one does not block it for long.

        Args:
            say: called with a line if that takes time.

        Raises:
            RunFolderError: if another process holds it.
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
"""A folder: a path, a URI, or the storage made of one."""


def is_temporary(name: str) -> bool:
    """Return whether `LocalStorage.write` gives such a name to a file that is not complete."""
    return name.startswith(".") and name.endswith(".tmp")


def is_bookkeeping(name: str) -> bool:
    """Return whether a name is ours but no sign of a run: a lock, or remains of a dead process."""
    return name == LOCK_FILE or is_temporary(name) or name in map(compacting, TABLES)


def compacting(table: str) -> str:
    """Return the name of the folder that a compaction builds, and then empties, beside a table."""
    return f".{table}.compact"
