"""A run in an object store, through pyarrow's file systems or fsspec's: S3, GCS, Azure and what speaks like them.

A put makes an object all at once or not at all, so nothing is renamed. There is no lock of the system's and no swap of
folders: the lock is an object that its owner renews, and tables are not compacted. Credentials come from the
environment of each process that reads or writes.
"""

from __future__ import annotations

import json
import os
import re
import socket
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

import pyarrow as pa
import pyarrow.fs as pafs

from orchestrator.errors import RunFolderError, StorageError
from orchestrator.faultpoints import reached
from orchestrator.storage import LOCK_FILE, Storage, join, shown

SECONDS_BETWEEN_RENEWALS = 20.0
N_MISSED_RENEWALS = 3
"""A lock that was not renewed for so many times the seconds above is that of a dead process."""

SECONDS_TO_SETTLE = 1.0
"""Between writing a lock and reading it back, so that of two who write at once one alone finds its own."""

_READERS = 16
_NO_OBJECTS = ("hdfs", "viewfs")


def open_object_storage(uri: str) -> ObjectStorage:
    """Return the storage at a URI that holds no secret; nothing is read or written.

    Raises:
        StorageError: where neither pyarrow nor an fsspec that is installed knows its scheme.
    """
    scheme = urlsplit(uri).scheme
    if scheme in _NO_OBJECTS:
        raise StorageError(
            f"storage: expected a path or an object store, got '{shown(uri)}', where a file is not replaced all at "
            "once; mount it and give the path"
        )
    try:
        filesystem, root = pafs.FileSystem.from_uri(_with_whole_puts(uri))
    except (pa.ArrowException, OSError, ValueError) as error:
        found = _through_fsspec(uri)
        if found is None:
            reason = str(error).splitlines()[0][:120]
            raise StorageError(
                f"storage: expected a path or a URI of an object store, got '{shown(uri)}' ({reason}); for example "
                "s3://bucket/prefix?region=eu-west-1, or install the fsspec package for it"
            ) from error
        filesystem, root = found
    return ObjectStorage(filesystem, root.rstrip("/"), uri)


def _with_whole_puts(uri: str) -> str:
    """Return a URI of S3 with which a small file is one request instead of four."""
    parts = urlsplit(uri)
    if parts.scheme != "s3" or "allow_delayed_open" in parts.query:
        return uri
    query = "&".join(filter(None, (parts.query, "allow_delayed_open=true")))
    return urlunsplit(parts._replace(query=query))


def _through_fsspec(uri: str) -> tuple[pafs.FileSystem, str] | None:
    try:
        import fsspec

        found, root = fsspec.core.url_to_fs(uri)
    except (ImportError, ValueError, OSError):
        return None
    return pafs.PyFileSystem(pafs.FSSpecHandler(found)), root


class ObjectStorage(Storage):
    """A prefix in an object store.

    Args:
        filesystem: the store.
        root: the prefix, as `filesystem` names it.
        uri: the same as a URI, without secrets.
        lease: the lock that this process holds, shared with every folder inside.
    """

    def __init__(self, filesystem: pafs.FileSystem, root: str, uri: str, lease: _Lease | None = None) -> None:
        super().__init__(urlunsplit(urlsplit(shown(uri))._replace(query="")).rstrip("/"))
        self._filesystem, self._root, self._uri = filesystem, root, uri
        self._lease = lease or _Lease()

    def folder(self, name: str) -> ObjectStorage:
        """Return the prefix `name` in this one."""
        return ObjectStorage(self._filesystem, f"{self._root}/{name}", join(self._uri, quote(name)), self._lease)

    def address(self, name: str) -> str:
        """Return the URI of an object."""
        return join(self._uri, quote(name))

    def names(self) -> list[str]:
        """Return the sorted names under this prefix."""
        with _plain_errors(self.where):
            found = self._filesystem.get_file_info(pafs.FileSelector(self._root, allow_not_found=True))
        return sorted(info.base_name for info in found if info.base_name)

    def read(self, name: str) -> bytes:
        """Return an object's content."""
        with (
            _plain_errors(self.describe(name)),
            self._filesystem.open_input_stream(f"{self._root}/{name}", compression=None) as stream,
        ):
            content: bytes = stream.read()
        return content

    def read_many(self, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        """Yield each name with its content, many at a time: each is a request over the network."""
        with ThreadPoolExecutor(_READERS) as pool:
            yield from pool.map(lambda name: (name, self.read(name)), names)

    def write(self, name: str, content: bytes | memoryview, purpose: str = "row", durable: bool = True) -> None:
        """Put an object, where this process still holds the lock that it took."""
        if self._lease.is_due():
            self._renew()
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

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock object and renew it until the end.

        Limits: pyarrow has no conditional put, so two sweeps that start at the same moment are told apart by reading
        back after a second; the clocks of machines that share a run must agree within half a minute or so.
        """
        held = self._held_by()
        if held is not None:
            self._refuse(held)
        lease = self._lease
        lease.place, lease.owner = f"{self._root}/{LOCK_FILE}", uuid.uuid4().hex
        try:
            self._put_lease()
            time.sleep(SECONDS_TO_SETTLE)
            held = self._held_by()
            if held is None or held["owner"] != lease.owner:
                lease.owner = ""
                self._refuse(held or {})
            stop = threading.Event()
            renewing = threading.Thread(target=self._keep_renewing, args=(stop,), daemon=True, name="run-lock")
            renewing.start()
            try:
                yield
            finally:
                stop.set()
                renewing.join()
        finally:
            if lease.owner:
                with suppress(OSError, StorageError):  # one that stays is stale soon
                    if (self._held_by() or {}).get("owner") == lease.owner:
                        self.delete(LOCK_FILE)
            lease.owner = ""

    def _keep_renewing(self, stop: threading.Event) -> None:
        while not stop.wait(SECONDS_BETWEEN_RENEWALS):
            try:
                self._renew()
            except OSError:
                continue  # the next write tries again, and tells
            except StorageError:
                return

    def _renew(self) -> None:
        """Write the time into our lock.

        Raises:
            StorageError: where another process holds it.
        """
        with self._lease.renewing:
            held = self._held_by(even_stale=True)
            if held is None or held["owner"] != self._lease.owner:
                raise StorageError(
                    f"run: expected to hold the lock of '{self._home}' to the end, got one of {_holder(held or {})}; "
                    "this sweep was out of reach of the store for too long: wait for the other one, then run the same "
                    "command again: what is complete is kept"
                )
            self._put_lease()

    @property
    def _home(self) -> str:
        return self._lease.place.rpartition("/")[0]

    def _put_lease(self) -> None:
        lease = self._lease
        content = {
            "owner": lease.owner,
            "host": socket.gethostname(),
            "process": os.getpid(),
            "machine": _machine(),
            "renewed": time.time(),
        }
        self._put(lease.place, json.dumps(content).encode())
        lease.renewed = time.monotonic()

    def _held_by(self, even_stale: bool = False) -> dict[str, Any] | None:
        """Return the lock's content, None where there is none or its process is dead."""
        path = self._lease.place or f"{self._root}/{LOCK_FILE}"
        try:
            with _plain_errors(path), self._filesystem.open_input_stream(path, compression=None) as stream:
                held = json.loads(stream.read())
            age, owner = time.time() - float(held["renewed"]), str(held["owner"])
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError):
            return None  # no lock of ours
        if not even_stale and (age > N_MISSED_RENEWALS * SECONDS_BETWEEN_RENEWALS or _is_dead_here(held)):
            return None
        return dict(held) | {"owner": owner}

    def _refuse(self, held: dict[str, Any]) -> None:
        seconds = N_MISSED_RENEWALS * SECONDS_BETWEEN_RENEWALS
        raise RunFolderError(
            f"run: expected a folder that no other sweep uses, got '{self.where}' with a lock of {_holder(held)}; wait "
            f"for it or choose another --run; where that sweep is dead, its lock ends {seconds:.0f} seconds after it"
        )

    def _put(self, path: str, content: bytes | memoryview) -> None:
        with _plain_errors(path):
            stream = self._filesystem.open_output_stream(path, compression=None)
            stream.write(content)
            stream.close()  # the put; not in a `with`, which would close, and so put, half of it after an error


@dataclass
class _Lease:
    """The lock that this process holds: empty `owner` for none; `renewed` in seconds of the monotonic clock."""

    owner: str = ""
    place: str = ""
    renewed: float = 0.0
    renewing: threading.Lock = field(default_factory=threading.Lock)

    def is_due(self) -> bool:
        """Return whether the lock was not renewed for so long that it must be looked at before a write."""
        return bool(self.owner) and time.monotonic() - self.renewed > 1.5 * SECONDS_BETWEEN_RENEWALS


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
    return re.sub(r"://([^\s/@]*@)?([^\s?'\"]*)(\?[^\s'\"]*)?", r"://\2", line)[:200]


def _machine() -> str:
    """Return what tells apart machines and containers, within which process numbers mean the same."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _is_dead_here(held: dict[str, Any]) -> bool:
    """Return whether a lock is of a process of this machine that has ended."""
    if not held.get("machine") or held["machine"] != _machine():
        return False
    try:
        os.kill(int(held["process"]), 0)
    except ProcessLookupError:
        return True
    except (OSError, ValueError, KeyError):
        return False
    return False


def _holder(held: dict[str, Any]) -> str:
    return f"process {held['process']} on {held['host']}" if {"process", "host"} <= held.keys() else "another process"
