"""What the tests of several modules need."""

from __future__ import annotations

import uuid

import pytest

from orchestrator import objectlock
from orchestrator.storage import join


@pytest.fixture(params=["s3", "memory"])
def root(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return a fresh root in an object store, on the S3 server and through fsspec in memory; locks settle at once."""
    monkeypatch.setattr(objectlock, "SECONDS_TO_SETTLE", 0.0)
    if request.param == "s3":
        return join(str(request.getfixturevalue("s3")), uuid.uuid4().hex)
    return f"memory://{uuid.uuid4().hex}/runs"
