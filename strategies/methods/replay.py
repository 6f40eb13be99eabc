"""Experience replay: train on remembered examples beside the new ones.

Source: Robins 1995; Chaudhry et al. 2019, arXiv 1902.10486 (reservoir and balanced memories).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from strategies.contract import Batch, Forward, Hyperparameters, Strategy, StreamSizes, TaskData
from strategies.parts.buffers import (
    BufferKind,
    BufferState,
    buffer_bytes,
    draw,
    n_remembered,
    offer_class_balanced,
    offer_reservoir,
)
from strategies.settings import Added

if TYPE_CHECKING:
    from torch import Tensor

    from strategies.learner import Learner


class ReplayHyperparameters(Hyperparameters):
    """The buffer, and how much of it joins each batch."""

    buffer_size: int = Field(500, ge=1, description="examples kept, all past tasks together")
    replay_ratio: float = Field(0.5, ge=0, le=0.95, description="share of each training batch that is remembered")
    memory_batch_size: int | None = Field(
        None, ge=1, description="remembered examples per step; replaces replay_ratio if given"
    )
    buffer: BufferKind = Field("reservoir", description="uniform over the stream, or an equal share a class")
    buffer_size_per_class: Annotated[int | None, Added()] = Field(
        None, ge=1, description="examples kept of each class at all times; replaces buffer_size and buffer if given"
    )
    filled: Annotated[Literal["after_task", "while_training"], Added()] = Field(
        "after_task",
        description="when the buffer takes a task's examples: at its end, or each in the step that trains on it in the "
        "last pass, as online methods do; a reservoir only",
    )
    loss_weighting: Annotated[Literal["by_examples", "by_task"], Added()] = Field(
        "by_examples",
        description="new and remembered examples count alike, or new ones 1/t and remembered ones 1 - 1/t in task t",
    )

    def unused(self) -> frozenset[str]:
        """Return what replaces another, or the buffer if nothing is remembered in any batch."""
        names = {"replay_ratio"} if self.memory_batch_size is not None else set[str]()
        if self.buffer_size_per_class is not None:
            names |= {"buffer_size", "buffer"}
        if self.memory_batch_size is None and self.replay_ratio == 0:
            names |= {"buffer_size", "buffer", "buffer_size_per_class", "filled", "loss_weighting"}
        return frozenset(names)

    def n_remembered(self, batch_size: int) -> int:
        """Return how many remembered examples join `batch_size` new ones."""
        if self.memory_batch_size is not None:
            return self.memory_batch_size
        return n_remembered(batch_size, self.replay_ratio)


class Replay(Strategy):
    """Add remembered examples to every batch, from a buffer to which each task's examples are offered once.

    Differs: by default the buffer takes a task's examples after the task, not during it. So it holds past tasks only,
    and an epoch still passes once over the new data. `filled: while_training` is the way of Chaudhry et al. and of
    Mammoth (models/er.py) with one epoch. `loss_weighting: by_task` is that of van de Ven & Tolias 2019 (arXiv
    1904.07734, section 4).
    """

    name = "replay"
    summary = "trains on a buffer of remembered examples beside the new ones"
    paper = "Robins 1995; Chaudhry et al. 2019, arXiv 1902.10486"
    hyperparameter_class = ReplayHyperparameters
    fixed_by_state: ClassVar[frozenset[str]] = frozenset({"buffer_size", "buffer", "buffer_size_per_class", "filled"})
    state_class = BufferState
    naive_at: ClassVar[Mapping[str, Any]] = {"replay_ratio": 0.0, "memory_batch_size": None}
    knows_kept_bytes = True
    differentiates_itself = False

    def __init__(self, learner: Learner, hyperparameters: Any) -> None:
        super().__init__(learner, hyperparameters)
        own = hyperparameters
        if own.filled == "while_training" and (own.buffer != "reservoir" or own.buffer_size_per_class is not None):
            raise ValueError(
                f"{self.name}.filled: while_training fills a reservoir of buffer_size alone; drop buffer and "
                "buffer_size_per_class, or set filled: after_task"
            )

    def bytes_to_keep(self, sizes: StreamSizes) -> int:
        """Return the bytes of a full buffer, or of all examples offered to it if there are fewer."""
        own = self.hyperparameters
        if own.buffer_size_per_class is not None:
            n = sum(min(own.buffer_size_per_class, n) for n in sizes.n_by_output)
        else:
            n = sizes.n_in_all if own.filled == "after_task" else sizes.n_in_last_passes(self.learner.settings)
            n = min(own.buffer_size, n)
        balanced = own.buffer_size_per_class is not None or own.buffer == "class_balanced"
        return buffer_bytes(n, sizes.example_bytes, has_priorities=balanced)

    def extend_batch(self, batch: Batch) -> Batch:
        """Return the new examples followed by the remembered ones, each with its own task."""
        n = self.hyperparameters.n_remembered(self.learner.settings.batch_size)
        if n == 0 or len(self.state) == 0:
            return batch
        return batch.with_remembered(draw(self.state, n, self.learner.generators["replay"]))

    def classification_loss(self, batch: Batch, forward: Forward) -> Tensor | None:
        """Return the loss () with the weights of tasks, if they are asked for."""
        if self.hyperparameters.loss_weighting == "by_examples":
            return None
        return self.weighted_loss(batch, forward.logits, forward.first)

    def weighted_loss(self, batch: Batch, logits: Tensor, first: int) -> Tensor:
        """Return the mean cross-entropy () of a batch whose logits (B, C) begin at output `first`.

        Weighted by task it is 1/t of the mean over new examples plus 1 - 1/t of that over remembered ones.
        """
        n, t, loss = batch.n_new, self.learner.task + 1, self.learner.label_loss
        if self.hyperparameters.loss_weighting == "by_examples" or n == len(batch.labels):
            return loss(logits, batch.labels, first)
        new, old = loss(logits[:n], batch.labels[:n], first), loss(logits[n:], batch.labels[n:], first)
        return new / t + old * (1 - 1 / t)

    def after_step(self, batch: Batch, forward: Forward) -> None:
        """Offer the new examples of the last pass to a buffer that is filled while the task is trained."""
        own = self.hyperparameters
        if own.filled == "while_training" and self.learner.in_last_pass:
            n = batch.n_new
            ids = batch.task_ids if isinstance(batch.task_ids, int) else batch.task_ids[:n]
            new = TaskData(self.learner.task, batch.inputs[:n], batch.labels[:n], ids)
            offer_reservoir(self.state, new, own.buffer_size, self.learner.generators["buffer"])

    def end_task(self, task: TaskData) -> None:
        """Offer each example of the task to the buffer once."""
        own, generator = self.hyperparameters, self.learner.generators["buffer"]
        if own.buffer_size_per_class is not None:
            offer_class_balanced(self.state, task, None, generator, own.buffer_size_per_class)
        elif own.filled == "after_task":
            offer = offer_reservoir if own.buffer == "reservoir" else offer_class_balanced
            offer(self.state, task, own.buffer_size, generator)
