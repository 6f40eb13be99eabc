"""Experience replay: train on remembered examples beside the new ones.

Source: Robins 1995; Chaudhry et al. 2019, arXiv 1902.10486 (reservoir and balanced memories).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from strategies.contract import Batch, Hyperparameters, Strategy, StreamSizes, TaskData
from strategies.parts.buffers import (
    BufferKind,
    BufferState,
    buffer_bytes,
    draw,
    n_remembered,
    offer_class_balanced,
    offer_reservoir,
)


class ReplayHyperparameters(Hyperparameters):
    """The buffer, and how much of it joins each batch."""

    buffer_size: int = Field(500, ge=1, description="examples kept, all past tasks together")
    replay_ratio: float = Field(0.5, ge=0, le=0.95, description="share of each training batch that is remembered")
    memory_batch_size: int | None = Field(
        None, ge=1, description="remembered examples per step; replaces replay_ratio if given"
    )
    buffer: BufferKind = Field("reservoir", description="uniform over the stream, or an equal share a class")

    def unused(self) -> frozenset[str]:
        """Return `replay_ratio` if the number of remembered examples is given, or the buffer if the ratio is 0."""
        if self.memory_batch_size is not None:
            return frozenset({"replay_ratio"})
        return frozenset({"buffer_size", "buffer"}) if self.replay_ratio == 0 else frozenset()

    def n_remembered(self, batch_size: int) -> int:
        """Return how many remembered examples join `batch_size` new ones."""
        if self.memory_batch_size is not None:
            return self.memory_batch_size
        return n_remembered(batch_size, self.replay_ratio)


class Replay(Strategy):
    """Add remembered examples of past tasks to every batch; offer each task's examples to the buffer at its end.

    Differs: the buffer takes a task's examples after the task, not during it. So it holds past tasks only, and an epoch
    still passes once over the new data.
    """

    name = "replay"
    summary = "trains on a buffer of remembered examples beside the new ones"
    paper = "Robins 1995; Chaudhry et al. 2019, arXiv 1902.10486"
    hyperparameter_class = ReplayHyperparameters
    fixed_by_state: ClassVar[frozenset[str]] = frozenset({"buffer_size", "buffer"})
    state_class = BufferState
    naive_at: ClassVar[Mapping[str, Any]] = {"replay_ratio": 0.0, "memory_batch_size": None}
    knows_kept_bytes = True

    def bytes_to_keep(self, sizes: StreamSizes) -> int:
        """Return the bytes of a full buffer, or of all examples if there are fewer."""
        n = min(self.hyperparameters.buffer_size, sizes.n_in_all)
        return buffer_bytes(n, sizes.example_bytes, has_priorities=self.hyperparameters.buffer == "class_balanced")

    def extend_batch(self, batch: Batch) -> Batch:
        """Return the new examples followed by the remembered ones, each with its own task."""
        n = self.hyperparameters.n_remembered(self.learner.settings.batch_size)
        if n == 0 or len(self.state) == 0:
            return batch
        return batch.with_remembered(draw(self.state, n, self.learner.generators["replay"]))

    def end_task(self, task: TaskData) -> None:
        """Offer each example of the task to the buffer once."""
        offer = offer_reservoir if self.hyperparameters.buffer == "reservoir" else offer_class_balanced
        offer(self.state, task, self.hyperparameters.buffer_size, self.learner.generators["buffer"])
