"""Ends the process in order on SIGTERM, which schedulers, `ray job stop` and shutdowns send seconds before SIGKILL."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

EXIT_TERMINATED = 143
STOPPED = "stopped: complete trials are kept; run the same command again to go on"


class Terminated(SystemExit):
    """SIGTERM arrived. Complete trials are on disk."""

    def __init__(self) -> None:
        super().__init__(EXIT_TERMINATED)


def terminate(signum: int, frame: object) -> None:
    """Handle SIGTERM. Say so at once: SIGKILL may come before the cluster is left."""
    say_stopped()
    raise Terminated


def say_stopped() -> None:
    """Write the message past Python's buffers, which a signal may interrupt half written."""
    with suppress(OSError):
        os.write(2, f"{STOPPED}\n".encode())


@contextmanager
def terminable() -> Iterator[None]:
    """Raise `Terminated` on SIGTERM. Does nothing outside the main thread, which alone can set handlers."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def kept_through_start() -> Iterator[None]:
    """Keep our handler while Ray starts: Ray installs its own, which exits with code 1 and no message."""
    ours = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is terminate
    try:
        yield
    except SystemExit as end:
        if not isinstance(end, Terminated):  # Ray's handler was called, not ours
            say_stopped()
        raise Terminated from end
    finally:
        if ours:
            signal.signal(signal.SIGTERM, terminate)
