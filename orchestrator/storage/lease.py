"""The lock of a run in an object store: an object that its owner renews, and that changes hands by conditional puts.

An object store has no locks. It can, however, put an object only if none is there, or only if the one that is there is
still the version that was seen. So of several processes that try at once exactly one gets the lock, and an owner
whose lock was taken over notices when it renews it. Nobody compares the clocks of two machines: a lock counts as
abandoned once it was seen unchanged for `LEASE_SECONDS`, by the clock of the process that wants it.
"""

from __future__ import annotations

import json
import math
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from orchestrator.core.errors import RunFolderError, StorageError

RENEWAL_SECONDS = 20.0
"""Between two renewals."""

LEASE_SECONDS = 60.0
"""A lock that was not renewed for so long is free. It outlasts a renewal that the store refused, and the next."""

RETRY_SECONDS = 5.0
"""Between a renewal that the store refused and the next try."""

LOOK_SECONDS = 5.0
"""Between two looks at the lock of another process."""

Version = Mapping[str, str]
"""What tells a version of an object from every other one."""


class ChangedError(Exception):
    """The object is not, or no longer, the version that was seen."""


class LockObject(Protocol):
    """The one object of a lock in a store; its methods raise OSError if the store cannot be reached or refuses."""

    def read(self) -> tuple[bytes, Version]:
        """Return content and version; raise FileNotFoundError if there is none."""

    def put(self, content: bytes, seen: Version | None) -> Version:
        """Replace the version `seen`, or make the object if that is None; raise ChangedError if it is another one."""

    def delete(self) -> None:
        """Delete the object, which may be missing."""


class ObjectLock:
    """An object that says which process holds a run, for one process at a time.

    Args:
        where: the run's place, as it is shown.
        stored: the object.
    """

    def __init__(self, where: str, stored: LockObject) -> None:
        self._where, self._stored = where, stored
        self._owner = ""
        self._version: Version | None = None
        self._renewed = 0.0
        self._renewing = threading.Lock()

    @contextmanager
    def held(self, say: Callable[[str], None]) -> Iterator[None]:
        """Hold the lock and renew it until the end.

        Args:
            say: called with a line if another process's lock must be watched first.

        Raises:
            RunFolderError: if another process holds it.
            StorageError: if the store has no conditional puts.
        """
        self._owner = uuid.uuid4().hex
        try:
            self._take(say)
            stop = threading.Event()
            renewing = threading.Thread(target=self._keep_renewing, args=(stop,), daemon=True, name="run-lock")
            renewing.start()
            try:
                yield
            finally:
                stop.set()
                renewing.join()
        finally:
            if self._version is not None:
                self._release()
            self._owner, self._version = "", None

    def is_due(self) -> bool:
        """Return whether the lock is ours and must be renewed before a write, so that nobody can have taken it over."""
        return bool(self._owner) and _now() - self._renewed > LEASE_SECONDS / 2

    def renew(self) -> None:
        """Write the time into our lock.

        Raises:
            StorageError: if it is no longer ours.
        """
        with self._renewing:
            try:
                self._put(self._version)
            except ChangedError as error:
                found = self._read()
                if found is None or found[0].get("owner") != self._owner:
                    raise StorageError(
                        f"run: lost the lock of '{self._where}' to {_holder(found[0] if found else {})}, because this "
                        "sweep could not reach the store for too long. Wait until the other one ends, then run the "
                        "same command again: what is complete is kept."
                    ) from error
                self._version = found[1]  # an earlier put arrived, and only its answer was lost

    def _take(self, say: Callable[[str], None]) -> None:
        found = self._read()
        if found is not None:
            found = self._wait_until_abandoned(*found, say)
        try:
            self._put(found[1] if found else None)
        except ChangedError as error:
            now = self._read()
            if now is None or now[0].get("owner") != self._owner:
                raise self._refusal(now[0] if now else {}) from error
            self._version = now[1]
        self._refuse_store_without_conditions()

    def _wait_until_abandoned(
        self, content: dict[str, Any], version: Version, say: Callable[[str], None]
    ) -> tuple[dict[str, Any], Version] | None:
        """Return the lock of another process once it may be taken over, None if it was deleted meanwhile.

        Raises:
            RunFolderError: if its owner renews it.
        """
        if not content or _is_dead_here(content):
            return content, version
        if _is_alive_here(content):
            raise self._refusal(content)
        say(f"waiting for up to {LEASE_SECONDS:.0f} seconds to see whether {_holder(content)} still renews its lock")
        end = _clock() + LEASE_SECONDS
        while (seconds := end - _clock()) > 0:
            _sleep(min(LOOK_SECONDS, seconds))
            now = self._read()
            if now is None:
                return None
            if now[1] != version:
                raise self._refusal(now[0])
        return content, version

    def _refuse_store_without_conditions(self) -> None:
        """Refuse a store that ignores the condition of a put: it would let two sweeps hold one run.

        Raises:
            StorageError: saying so.
        """
        with suppress(ChangedError):
            self._stored.put(self._content(), None)
            raise StorageError(
                f"run: cannot lock '{self._where}': this store ignores the condition of a put (If-None-Match), so two "
                "sweeps could write there at once. Update the server, or choose a store with conditional puts, such as "
                "AWS S3, Google Cloud Storage, Azure, MinIO or Ceph."
            )

    def _release(self) -> None:
        """Delete our lock; one that stays is free after `LEASE_SECONDS`."""
        with suppress(OSError, StorageError):
            self.renew()  # from here on nobody takes it over for a while
            self._stored.delete()

    def _keep_renewing(self, stop: threading.Event) -> None:
        seconds = RENEWAL_SECONDS
        while not stop.wait(seconds):
            try:
                self.renew()
                seconds = RENEWAL_SECONDS
            except OSError:
                seconds = RETRY_SECONDS
            except StorageError:
                self._renewed = -math.inf  # so that the next write renews, and raises
                return

    def _put(self, seen: Version | None) -> None:
        started = _now()
        self._version = self._stored.put(self._content(), seen)
        self._renewed = started

    def _content(self) -> bytes:
        content = {
            "owner": self._owner,
            "host": socket.gethostname(),
            "process": os.getpid(),
            "machine": _machine(),
            "renewed": time.time(),  # versions before 0.2 look at it
            "put": uuid.uuid4().hex,  # a store may number versions by their content
        }
        return json.dumps(content).encode()

    def _read(self) -> tuple[dict[str, Any], Version] | None:
        """Return what the lock holds, empty if it is not one of ours, and its version; None if there is no lock."""
        try:
            content, version = self._stored.read()
        except FileNotFoundError:
            return None
        try:
            found = json.loads(content)
            return (found if isinstance(found["owner"], str) else {}), version
        except (ValueError, KeyError, TypeError, RecursionError):
            return {}, version

    def _refusal(self, content: dict[str, Any]) -> RunFolderError:
        return RunFolderError(
            f"run: another sweep uses '{self._where}' ({_holder(content)}). Wait for it, or choose another --run."
        )


_clock, _sleep = time.monotonic, time.sleep


def _now() -> float:
    """Return seconds of a clock that goes on while the machine is suspended, if the system has one."""
    for name in ("CLOCK_BOOTTIME", "CLOCK_MONOTONIC"):  # Linux; macOS, where this one goes on
        if hasattr(time, name) and hasattr(time, "clock_gettime"):
            return time.clock_gettime(getattr(time, name))
    return time.monotonic()


def _machine() -> str:
    """Return what tells apart machines and containers, within which process numbers mean the same; empty if unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # as on macOS; every lock is watched then
        return ""


def _is_dead_here(content: dict[str, Any]) -> bool:
    """Return whether a lock is of a process of this machine that has ended."""
    return _process_here(content) is False


def _is_alive_here(content: dict[str, Any]) -> bool:
    """Return whether a lock is of a process of this machine that runs, and was renewed by it a moment ago.

    A lock that was not is watched: the number may by now be that of another process.
    """
    try:
        fresh = abs(time.time() - float(content["renewed"])) < LEASE_SECONDS
    except (ValueError, KeyError, TypeError, OverflowError):
        return False
    return fresh and _process_here(content) is True


def _process_here(content: dict[str, Any]) -> bool | None:
    """Return whether a lock's process of this machine runs; None if it is of another one, or there is no telling."""
    if not content.get("machine") or content["machine"] != _machine():
        return None
    try:
        os.kill(int(content["process"]), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return None
    return True


def _holder(content: dict[str, Any]) -> str:
    if {"process", "host"} <= content.keys():
        return f"process {content['process']} on {content['host']}"
    return "another process"
