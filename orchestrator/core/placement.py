"""Where a trial runs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Placement:
    """Where a trial runs; no part of its identity, recorded in its row.

    Args:
        device: `cpu` or `cuda`.
        threads: CPU threads.
    """

    device: str = "cpu"
    threads: int = 1
