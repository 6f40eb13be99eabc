"""What the tests of several modules need."""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from orchestrator import objectlock
from orchestrator.uris import join

Repeated = Callable[..., AbstractContextManager[None]]


@pytest.fixture
def repeated() -> Repeated:
    """Return a context manager that calls something once, then in a thread, every so many seconds, until it ends."""

    @contextmanager
    def context(call: Callable[[], object], seconds: float = 0.0) -> Iterator[None]:
        stop = threading.Event()

        def repeat() -> None:
            while not stop.wait(seconds):
                call()

        call()
        thread = threading.Thread(target=repeat)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    return context


@pytest.fixture
def as_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], AbstractContextManager[None]]:
    """Return what makes this process another user's for some lines, in `tmp_path`; without rights to, it stays ours.

    Paths in it must be relative: the folders above it are ours alone.
    """
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)

    @contextmanager
    def context(user: int, group: int) -> Iterator[None]:
        if os.geteuid() != 0:
            yield
            return
        groups = os.getgroups()
        os.setgroups([])
        os.setegid(group)
        os.seteuid(user)
        try:
            yield
        finally:
            os.seteuid(0)
            os.setegid(0)
            os.setgroups(groups)

    return context


@pytest.fixture(params=["s3", "memory"])
def root(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return a fresh root in an object store, on the S3 server and through fsspec in memory; locks settle at once."""
    monkeypatch.setattr(objectlock, "SECONDS_TO_SETTLE", 0.0)
    if request.param == "s3":
        return join(str(request.getfixturevalue("s3")), uuid.uuid4().hex)
    return f"memory://{uuid.uuid4().hex}/runs"
