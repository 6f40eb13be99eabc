"""Fine-tuning with nothing against forgetting: the lower bound of every comparison."""

from __future__ import annotations

from strategies.contract import Strategy, StreamSizes


class Naive(Strategy):
    """Train on each task in turn."""

    name = "naive"
    summary = "fine-tunes on each task in turn; the floor"
    alone = "it adds nothing"
    knows_kept_bytes = True

    def bytes_to_keep(self, sizes: StreamSizes) -> int:
        """Return 0: nothing is kept."""
        return 0
