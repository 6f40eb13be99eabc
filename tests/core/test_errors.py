"""Messages about what the system refuses."""

from __future__ import annotations

import errno
import os

import pytest

from orchestrator.core.errors import system_message


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.EACCES, os.strerror(errno.EACCES), "/secret/path"), "permission denied"),
        (OSError(errno.EROFS, "Read-only file system"), "read-only file system"),
        (OSError(5, "I/O error"), "I/O error"),
        (OSError(0, "AWS refused."), "AWS refused"),
        (OSError("out of reach"), "out of reach"),
        (TimeoutError(), "TimeoutError"),
        (OSError(0, "?"), "?"),
    ],
)
def test_a_refusal_is_one_sentence(error: OSError, reason: str) -> None:
    assert system_message("write to", "runs/a", error) == f"Cannot write to runs/a: {reason}."
