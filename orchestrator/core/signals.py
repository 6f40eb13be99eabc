"""SIGTERM ends a process in order: a scheduler, `ray job stop` or a shutdown sends it, and kills seconds later."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

EXIT_TERMINATED = 143
STOPPED = "stopped: complete trials are kept; run the same command again to go on"


class Terminated(SystemExit):
    """The process was told to end; complete trials are on disk."""

    def __init__(self) -> None:
        super().__init__(EXIT_TERMINATED)


def terminate(signum: int, frame: object) -> None:
    """Handle SIGTERM: say so at once, for who sent it may kill us before we have left the cluster."""
    say_stopped()
    raise Terminated


def say_stopped() -> None:
    """Print, without Python's buffers, which a signal may have found half written."""
    with suppress(OSError):
        os.write(2, f"{STOPPED}\n".encode())


@contextmanager
def terminable() -> Iterator[None]:
    """Raise `Terminated` where SIGTERM comes; in threads other than the main one nothing changes."""
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
    """Keep our handler while Ray starts: Ray puts its own in place, which exits with 1 and no message."""
    ours = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is terminate
    try:
        yield
    except SystemExit as end:
        if not isinstance(end, Terminated):  # Ray's handler was the one that was called
            say_stopped()
        raise Terminated from end
    finally:
        if ours:
            signal.signal(signal.SIGTERM, terminate)
