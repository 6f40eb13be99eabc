"""What the tests of several modules need."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

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


@pytest.fixture(params=["s3", "memory"])
def root(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return a fresh root in an object store, on the S3 server and through fsspec in memory; locks settle at once."""
    monkeypatch.setattr(objectlock, "SECONDS_TO_SETTLE", 0.0)
    if request.param == "s3":
        return join(str(request.getfixturevalue("s3")), uuid.uuid4().hex)
    return f"memory://{uuid.uuid4().hex}/runs"
