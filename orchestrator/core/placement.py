"""Where a trial runs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Placement:
    """Where a trial runs. It is recorded in the trial's row, and is no part of its key.

    Args:
        device: `cpu` or `cuda`.
        threads: CPU threads.
    """

    device: str = "cpu"
    threads: int = 1
