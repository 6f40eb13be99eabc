"""A run in an object store, through pyarrow's file systems or fsspec's: S3, GCS, Azure and what speaks like them.

A put makes an object all at once or not at all, so nothing is renamed. There is no lock of the system's and no swap of
folders: the lock is an object that its owner renews, and tables are not compacted. Credentials come from the
environment of each process that reads or writes.
"""

from __future__ import annotations

import errno
import json
import re
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from urllib.parse import quote

import pyarrow.fs as pafs

from orchestrator.core.errors import StorageError
from orchestrator.core.fault_points import reached
from orchestrator.storage.base import LOCK_FILE, Storage, unheard
from orchestrator.storage.lease import ObjectLock
from orchestrator.storage.uris import Uri, join, shown

_READERS = 16
_MOST_READS = 5
_UNREAD_REFUSAL = "Failed to flush response stream"
"""What pyarrow says of a refusal (503, SlowDown) that is longer than the object: its buffer is as long as that.

The AWS SDK does not see the status then, and does not try again as it does for longer objects; so we do.
"""
_SECONDS_BETWEEN_READS = (0.1, 0.2, 0.4, 0.8, 1.6)
_NO_OBJECTS = ("hdfs", "viewfs")


def open_object_storage(uri: str) -> ObjectStorage:
    """Return the storage at a URI that holds no secret; nothing is read or written.

    Raises:
        StorageError: where neither pyarrow nor an fsspec that is installed knows its scheme.
    """
    scheme = Uri.parse(uri).scheme
    if scheme in _NO_OBJECTS:
        raise StorageError(
            f"storage: expected a path or an object store, got '{shown(uri)}', where a file is not replaced all at "
            "once; mount it and give the path"
        )
    try:
        filesystem, root = pafs.FileSystem.from_uri(_with_whole_puts(uri))
    except Exception as error:  # its own, and whatever the packages raise that it imports for some schemes
        filesystem, root = _through_fsspec(uri, error)
    if isinstance(filesystem, pafs.LocalFileSystem):
        raise StorageError(f"storage: expected a path or an object store, got '{shown(uri)}', a folder; give its path")
    return ObjectStorage(filesystem, root.rstrip("/"), uri)


def _with_whole_puts(uri: str) -> str:
    """Return a URI of S3 with which a small file is one request instead of four."""
    parts = Uri.parse(uri)
    if parts.scheme != "s3" or "allow_delayed_open" in parts.query:
        return uri
    query = "&".join(filter(None, (parts.query, "allow_delayed_open=true")))
    return str(replace(parts, query=query))


def _through_fsspec(uri: str, first: Exception) -> tuple[pafs.FileSystem, str]:
    """Return the file system of fsspec, and the root in it, for a URI that pyarrow did not open.

    Raises:
        StorageError: with `first`, which is pyarrow's reason, or with fsspec's where pyarrow does not know the scheme.
    """
    try:
        import fsspec

        found, root = fsspec.core.url_to_fs(uri)
    except Exception as error:  # of whatever package the scheme is of
        is_known = "Unrecognized filesystem type" not in str(first) and not isinstance(first, ImportError)
        has_no_reason = getattr(error, "name", None) == "fsspec" or str(error).startswith("Protocol not known")
        reason = first if is_known or has_no_reason else error
        way_out = "for example s3://bucket/prefix?region=eu-west-1, or install the fsspec package for it"
        if isinstance(reason, ImportError):
            way_out = "install that package here and on every worker"
        raise StorageError(
            f"storage: expected a path or a URI of an object store, got '{shown(uri)}' ({_reason(reason)}); {way_out}"
        ) from error
    if "local" in ((found.protocol,) if isinstance(found.protocol, str) else found.protocol):
        return pafs.LocalFileSystem(), root
    return pafs.PyFileSystem(pafs.FSSpecHandler(found)), root


class ObjectStorage(Storage):
    """A prefix in an object store.

    Args:
        filesystem: the store.
        root: the prefix, as `filesystem` names it.
        uri: the same as a URI, without secrets.
        lock: that of the run, shared with every folder inside; by default one of this prefix.
    """

    def __init__(self, filesystem: pafs.FileSystem, root: str, uri: str, lock: ObjectLock | None = None) -> None:
        parts = Uri.parse(shown(uri))
        super().__init__(str(replace(parts, path=parts.path.rstrip("/"), query="")))
        self._filesystem, self._root, self._uri = filesystem, root, uri
        self._lock = lock or ObjectLock(
            self.where,
            read=lambda: self.read(LOCK_FILE),
            write=lambda content: self._put(f"{root}/{LOCK_FILE}", content),
            delete=lambda: self.delete(LOCK_FILE),
        )

    def folder(self, name: str) -> ObjectStorage:
        """Return the prefix `name` in this one."""
        return ObjectStorage(self._filesystem, f"{self._root}/{name}", join(self._uri, quote(name)), self._lock)

    def address(self, name: str) -> str:
        """Return the URI of an object."""
        return join(self._uri, quote(name))

    def names(self) -> list[str]:
        """Return the sorted names under this prefix."""
        with _plain_errors(self.where):
            found = self._filesystem.get_file_info(pafs.FileSelector(self._root, allow_not_found=True))
        return sorted(info.base_name for info in found if info.base_name)

    def read(self, name: str) -> bytes:
        """Return an object's content, of one moment: see `read_many`."""
        for _ in range(_MOST_READS):
            before, content, after = self._stamp(name), self._read_once(name), self._stamp(name)
            if before == after and len(content) == before[1]:
                return content
        raise OSError(errno.EAGAIN, "changes while it is read", self.describe(name))

    def _read_once(self, name: str) -> bytes:
        waits = iter(_SECONDS_BETWEEN_READS)
        while True:
            try:
                with (
                    _plain_errors(self.describe(name)),
                    self._filesystem.open_input_stream(f"{self._root}/{name}", compression=None) as stream,
                ):
                    content: bytes = stream.read()
                return content
            except OSError as error:
                seconds = next(waits, None)
                if seconds is None or _UNREAD_REFUSAL not in str(error):
                    raise
                time.sleep(seconds)

    def _stamp(self, name: str) -> tuple[object, int | None]:
        with _plain_errors(self.describe(name)):
            info = self._filesystem.get_file_info(f"{self._root}/{name}")
        return info.mtime_ns, info.size

    def read_many(self, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        """Yield each name with its content, many at a time: each is a request over the network.

        An object is asked for its length and then for its bytes, so that one that is replaced in between may come back
        cut off, or with bytes at its end that are nobody's. `read` looks again after it, and whoever finds a content
        from here damaged has to use it.
        """
        with ThreadPoolExecutor(_READERS) as pool:
            yield from pool.map(lambda name: (name, self._read_once(name)), names)

    def write(self, name: str, content: bytes | memoryview, purpose: str = "row", durable: bool = True) -> None:
        """Put an object, where this process still holds the lock that it took."""
        if self._lock.is_due():
            self._lock.renew()
        reached(f"{purpose}.opened")
        self._put(f"{self._root}/{name}", content)
        reached(f"{purpose}.done")

    def delete(self, name: str) -> None:
        """Delete an object."""
        reached("delete.next")
        with suppress(FileNotFoundError), _plain_errors(self.describe(name)):
            self._filesystem.delete_file(f"{self._root}/{name}")
        reached("delete.done")

    def tidy(self) -> None:
        """Do nothing: a put that did not end has left nothing in sight."""

    def locked(self, say: Callable[[str], None] = unheard) -> AbstractContextManager[None]:
        """Hold the lock object and renew it until the end."""
        return self._lock.held(say)

    def _put(self, path: str, content: bytes | memoryview) -> None:
        with _plain_errors(path):
            stream = self._filesystem.open_output_stream(path, compression=None)
            stream.write(content)
            stream.close()  # the put; not in a `with`, which would close, and so put, half of it after an error


@contextmanager
def _plain_errors(where: str) -> Iterator[None]:
    """Let only OSErrors through, with a `strerror` as those of the system have; fsspec's stores raise anything.

    What is no JSON passes too: that is a fault of an object's content, and not of the store.
    """
    try:
        yield
    except OSError as error:
        if error.strerror is None:
            kind = FileNotFoundError if isinstance(error, FileNotFoundError) else OSError
            raise kind(error.errno or 0, _reason(error), where) from error
        raise
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise
    except Exception as error:
        raise OSError(0, _reason(error), where) from error


def _reason(error: Exception) -> str:
    """Return the first line of an error's text, its URLs without a query or a user: those may hold secrets."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return re.sub(r"://([^\s/]*@)?([^\s?'\"]*)(\?[^\s'\"]*)?", r"://\2", line)[:200]
