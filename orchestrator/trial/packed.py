"""Whether each example of a task was answered rightly: a bit each, which travels as text."""

from __future__ import annotations

import base64

import numpy as np
from numpy.typing import NDArray


def pack(is_right: NDArray[np.bool_]) -> bytes:
    """Return answers (N,) bool as ceil(N / 8) bytes: the first example is the highest bit of the first byte."""
    return np.packbits(is_right).tobytes()


def unpack(packed: bytes, n_examples: int) -> NDArray[np.bool_]:
    """Return the answers (n_examples,) bool that `pack` packed."""
    return np.unpackbits(np.frombuffer(packed, np.uint8), count=n_examples).astype(np.bool_)


def as_text(packed: bytes) -> str | None:
    """Return bytes as JSON can hold them; None if there are none."""
    return base64.b64encode(packed).decode() if packed else None


def from_text(text: str | None) -> bytes:
    """Return the bytes that `as_text` wrote."""
    return base64.b64decode(text) if text else b""
