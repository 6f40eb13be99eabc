"""A run in an object store: S3 and what speaks like it, Google Cloud Storage, Azure.

A put makes an object all at once or not at all, so nothing is renamed. The run's lock is an object that its owner
renews. Two folders cannot be swapped there, so tables are not compacted.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from urllib.parse import quote

from obstore.exceptions import AlreadyExistsError, PermissionDeniedError, PreconditionError, UnauthenticatedError
from obstore.store import ObjectStore

from orchestrator.core.fault_points import reached
from orchestrator.storage.base import LOCK_FILE, Storage, ignore
from orchestrator.storage.lease import ChangedError, ObjectLock, Version
from orchestrator.storage.stores import open_store
from orchestrator.storage.uris import Uri, join, shown

_READERS = 16


def open_object_storage(uri: str) -> ObjectStorage:
    """Return the storage at a URI that holds no secret; nothing is read or written.

    Raises:
        StorageError: if no store has this scheme, or its bucket, path or options are not valid.
    """
    store, root = open_store(uri)
    return ObjectStorage(store, root, uri)


class ObjectStorage(Storage):
    """A prefix in an object store.

    Args:
        store: the bucket.
        root: the prefix in it.
        uri: the same as a URI, without secrets.
        lock: that of the run, shared with every folder inside; by default one of this prefix.
    """

    def __init__(self, store: ObjectStore, root: str, uri: str, lock: ObjectLock | None = None) -> None:
        parts = Uri.parse(shown(uri))
        super().__init__(str(replace(parts, path=parts.path.rstrip("/"), query="")))
        self._store, self._root, self._uri = store, root, uri
        self._lock = lock or ObjectLock(self.where, _LockObject(store, self._path(LOCK_FILE), self.where))

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if self._root else name

    def folder(self, name: str) -> ObjectStorage:
        return ObjectStorage(self._store, self._path(name), join(self._uri, quote(name)), self._lock)

    def address(self, name: str) -> str:
        """Return the URI of an object."""
        return join(self._uri, quote(name))

    def names(self) -> list[str]:
        """Return the sorted names under this prefix, without the empty objects that stand for a folder itself."""
        with _as_os_errors(self.where):
            found = self._store.list_with_delimiter(self._root or None)
        paths = [*found["common_prefixes"], *(meta["path"] for meta in found["objects"])]
        return sorted({path.rpartition("/")[2] for path in paths if path.strip("/") != self._root} - {""})

    def versions(self) -> dict[str, object]:
        """Return what the store tells apart the versions of each object by."""
        with _as_os_errors(self.where):
            found = self._store.list_with_delimiter(self._root or None)
        return {
            meta["path"].rpartition("/")[2]: (meta["e_tag"], meta["version"], meta["size"], meta["last_modified"])
            for meta in found["objects"]
        }

    def read(self, name: str) -> bytes:
        """Return an object's content."""
        with _as_os_errors(self.describe(name)):
            return self._store.get(self._path(name)).bytes().to_bytes()

    def read_many(self, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        """Yield each name with its content, many at a time: each is a request over the network."""
        with ThreadPoolExecutor(_READERS) as pool:
            yield from pool.map(lambda name: (name, self.read(name)), names)

    def write(self, name: str, content: bytes | memoryview, purpose: str = "row", durable: bool = True) -> None:
        """Put an object.

        Raises:
            StorageError: if this process held the run's lock and another one has it now.
        """
        if self._lock.is_due():
            self._lock.renew()
        reached(f"{purpose}.opened")
        self._put(name, content)
        reached(f"{purpose}.done")

    def delete(self, name: str) -> None:
        reached("delete.next")
        with suppress(FileNotFoundError), _as_os_errors(self.describe(name)):
            self._store.delete(self._path(name))
        reached("delete.done")

    def tidy(self) -> None:
        """Do nothing: a put that did not end has left nothing in sight."""

    def locked(self, say: Callable[[str], None] = ignore) -> AbstractContextManager[None]:
        """Hold the lock object and renew it until the end."""
        return self._lock.held(say)

    def _put(self, name: str, content: bytes | memoryview) -> None:
        with _as_os_errors(self.describe(name)):
            self._store.put(self._path(name), content)


class _LockObject:
    """The object of a lock, which is replaced only if it is still the one that was seen."""

    def __init__(self, store: ObjectStore, path: str, where: str) -> None:
        self._store, self._path, self._where = store, path, where

    def read(self) -> tuple[bytes, Version]:
        with _as_os_errors(self._where):
            found = self._store.get(self._path)
            return found.bytes().to_bytes(), _version(found.meta["e_tag"], found.meta["version"])

    def put(self, content: bytes, seen: Version | None) -> Version:
        try:
            with _as_os_errors(self._where):
                done = self._store.put(self._path, content, mode="create" if seen is None else seen)  # type: ignore[arg-type]
        except OSError as error:
            if isinstance(error.__cause__, AlreadyExistsError | PreconditionError):
                raise ChangedError from error
            raise
        return _version(done["e_tag"], done["version"])

    def delete(self) -> None:
        with suppress(FileNotFoundError), _as_os_errors(self._where):
            self._store.delete(self._path)


def _version(e_tag: str | None, version: str | None) -> Version:
    return {name: value for name, value in (("e_tag", e_tag), ("version", version)) if value is not None}


@contextmanager
def _as_os_errors(where: str) -> Iterator[None]:
    """Raise an OSError with a `strerror`, as the system does, for whatever the store's library raises."""
    try:
        yield
    except Exception as error:
        kind, number = OSError, 0
        if isinstance(error, FileNotFoundError):
            kind, number = FileNotFoundError, errno.ENOENT
        elif isinstance(error, PermissionDeniedError | UnauthenticatedError):
            kind, number = PermissionError, errno.EACCES
        raise kind(number, _reason(error), where) from error


def _reason(error: Exception) -> str:
    """Return what a store's library says, in a line without secrets: no query and no user of a URL.

    Of an answer of the store these are its code and message; else it is the first line of the text.
    """
    text = str(error)
    if "169.254.169.254" in text or "metadata.google.internal" in text:
        return "no credentials: none are in the environment, and this machine has no role that gives any"
    answer = re.search(r"<Code>(\w+)</Code>\s*(?:<Message>([^<\n]*))?", text)
    said = ": ".join(filter(None, answer.groups())) if answer else text.strip().partition("\n")[0]
    said = re.sub(r"://([^\s/]*@)?([^\s?'\"]*)(\?[^\s'\"]*)?", r"://\2", said).strip()
    return said[:200].rstrip(". ") or type(error).__name__
