"""The lock of a run in an object store: an object that its owner renews. There is no lock of the system's there."""

from __future__ import annotations

import json
import math
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from orchestrator.core.errors import RunFolderError, StorageError

SECONDS_BETWEEN_RENEWALS = 20.0
N_MISSED_RENEWALS = 3
"""A lock that was not renewed for so many times the seconds above is that of a dead process."""

SECONDS_OF_WATCH = N_MISSED_RENEWALS * SECONDS_BETWEEN_RENEWALS
"""A lock of another machine that says so must also stay as it is for so long: the clocks of the two may differ."""

SECONDS_BETWEEN_TRIES = 5.0
"""After a renewal that the store refused."""

SECONDS_TO_SETTLE = 1.0
"""Between writing a lock and reading it back, so that of two who write at once one alone finds its own."""

_SECONDS_BETWEEN_LOOKS = 5.0


class ObjectLock:
    """An object that holds who holds it, and when that was last true.

    Limits: there is no conditional put in pyarrow, so two sweeps that start at the same moment are told apart by
    reading back after a second.

    Args:
        where: the run's place, as it is shown.
        read: returns the object's content; raises FileNotFoundError where there is none.
        write: puts it.
        delete: deletes it.
    """

    def __init__(
        self, where: str, read: Callable[[], bytes], write: Callable[[bytes], None], delete: Callable[[], None]
    ) -> None:
        self._where, self._read, self._write, self._delete = where, read, write, delete
        self._owner = ""
        self._renewed = 0.0
        self._renewing = threading.Lock()

    @contextmanager
    def held(self, say: Callable[[str], None]) -> Iterator[None]:
        """Hold the lock and renew it until the end.

        Args:
            say: told, in a line, of a lock that must be watched first.

        Raises:
            RunFolderError: where another process holds it.
        """
        self._refuse_held(say)
        self._owner = uuid.uuid4().hex
        try:
            self._put()
            time.sleep(SECONDS_TO_SETTLE)
            content = self._content()
            if content is None or content["owner"] != self._owner:
                self._owner = ""
                raise self._refusal(content or {})
            stop = threading.Event()
            renewing = threading.Thread(target=self._keep_renewing, args=(stop,), daemon=True, name="run-lock")
            renewing.start()
            try:
                yield
            finally:
                stop.set()
                renewing.join()
        finally:
            if self._owner:
                with suppress(OSError, StorageError):  # one that stays is stale soon
                    if (self._content() or {}).get("owner") == self._owner:
                        self._delete()
            self._owner = ""

    def is_due(self) -> bool:
        """Return whether the lock is ours and was not renewed for so long that it must be looked at before a write."""
        return bool(self._owner) and _now() - self._renewed > 1.5 * SECONDS_BETWEEN_RENEWALS

    def renew(self) -> None:
        """Write the time into our lock.

        Raises:
            StorageError: where another process holds it.
        """
        with self._renewing:
            content = self._content()
            if content is None or content["owner"] != self._owner:
                raise StorageError(
                    f"run: expected to hold the lock of '{self._where}' to the end, got one of "
                    f"{_holder(content or {})}; this sweep was out of reach of the store for too long: wait for the "
                    "other one, then run the same command again: what is complete is kept"
                )
            self._put()

    def _refuse_held(self, say: Callable[[str], None]) -> None:
        """Refuse where another holds the lock, after a look at one that seems dead: its clock may differ from ours."""
        content = self._content()
        if content is None or _is_dead_here(content):
            return
        if abs(time.time() - content["renewed"]) <= N_MISSED_RENEWALS * SECONDS_BETWEEN_RENEWALS:
            raise self._refusal(content)
        say(f"watching the lock of {_holder(content)} for {SECONDS_OF_WATCH:.0f} seconds: it seems to be dead")
        end = time.monotonic() + SECONDS_OF_WATCH
        while time.monotonic() < end:
            time.sleep(min(_SECONDS_BETWEEN_LOOKS, SECONDS_OF_WATCH))
            now = self._content()
            if now is None:
                return
            if now != content:
                raise self._refusal(now)

    def _keep_renewing(self, stop: threading.Event) -> None:
        seconds = SECONDS_BETWEEN_RENEWALS
        while not stop.wait(seconds):
            try:
                self.renew()
                seconds = SECONDS_BETWEEN_RENEWALS
            except OSError:
                seconds = SECONDS_BETWEEN_TRIES
            except StorageError:
                self._renewed = -math.inf  # the next write looks, and tells
                return

    def _put(self) -> None:
        content = {
            "owner": self._owner,
            "host": socket.gethostname(),
            "process": os.getpid(),
            "machine": _machine(),
            "renewed": time.time(),
        }
        self._write(json.dumps(content).encode())
        self._renewed = _now()

    def _content(self) -> dict[str, Any] | None:
        """Return what the lock holds, None where there is none of ours."""
        try:
            content = json.loads(self._read())
            found = dict(content) | {"owner": str(content["owner"]), "renewed": float(content["renewed"])}
            return found if math.isfinite(found["renewed"]) else None
        except (FileNotFoundError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
            return None

    def _refusal(self, content: dict[str, Any]) -> RunFolderError:
        seconds = N_MISSED_RENEWALS * SECONDS_BETWEEN_RENEWALS + SECONDS_OF_WATCH
        return RunFolderError(
            f"run: expected a folder that no other sweep uses, got '{self._where}' with a lock of {_holder(content)}; "
            "wait for it or choose another --run; where that sweep is dead, the same command takes its lock "
            f"{seconds:.0f} seconds later at most"
        )


def _now() -> float:
    """Return seconds that go on while the machine is suspended, where the system counts them."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def _machine() -> str:
    """Return what tells apart machines and containers, within which process numbers mean the same."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _is_dead_here(content: dict[str, Any]) -> bool:
    """Return whether a lock is of a process of this machine that has ended."""
    if not content.get("machine") or content["machine"] != _machine():
        return False
    try:
        os.kill(int(content["process"]), 0)
    except ProcessLookupError:
        return True
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return False
    return False


def _holder(content: dict[str, Any]) -> str:
    if {"process", "host"} <= content.keys():
        return f"process {content['process']} on {content['host']}"
    return "another process"
