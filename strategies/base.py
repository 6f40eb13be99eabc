"""The strategy contract: the seams that a method fills, and what it declares.

A strategy never writes the training loop: `strategies.learner.Learner` holds the one training step and calls the seams
below in a fixed order. Seams add up, so a list of strategies is a strategy (`replay+lwf`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

if TYPE_CHECKING:
    from strategies.learner import Learner
    from strategies.network import IncrementalType


class TrialDivergedError(Exception):
    """Training left the finite numbers: a result of the trial's hyper-parameters, not a fault of the machine."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Examples of one training step.

    Args:
        inputs: (B, *S) float32.
        labels: output index of each example, (B,) int64.
        task_ids: the task of the whole batch, or one a row, (B,) int64.
    """

    inputs: Tensor
    labels: Tensor
    task_ids: int | Tensor


@dataclass(frozen=True, slots=True)
class TaskData:
    """The training examples of one stage, in memory and ready to index.

    Args:
        index: the task, 0 … T-1.
        inputs: (N, *S) float32.
        labels: output index of each example, (N,) int64.
        task_ids: the task of all examples, or one a row, (N,) int64 (joint training).
    """

    index: int
    inputs: Tensor
    labels: Tensor
    task_ids: int | Tensor

    def __len__(self) -> int:
        return self.labels.shape[0]

    def take(self, rows: Tensor) -> Batch:
        """Return the examples `rows` (B,) int64 as a batch."""
        ids = self.task_ids if isinstance(self.task_ids, int) else self.task_ids.index_select(0, rows)
        return Batch(self.inputs.index_select(0, rows), self.labels.index_select(0, rows), ids)

    def batches(self, size: int) -> Iterator[Batch]:
        """Yield all examples in order, `size` at a time."""
        for rows in torch.split(torch.arange(len(self), device=self.labels.device), size):
            yield self.take(rows)


class Hyperparameters(BaseModel):
    """Base of a method's hyper-parameters: frozen, with ranges that are checked on construction."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def unused(self) -> frozenset[str]:
        """Return the hyper-parameters that these values leave without effect, so that they are not searched."""
        return frozenset()


class NoHyperparameters(Hyperparameters):
    """A method with nothing to set."""


@dataclass
class NoState:
    """A method that keeps nothing."""


class Strategy:
    """A continual-learning method, or one part of a combination.

    Subclasses declare the class attributes and fill the seams that they need; every seam has a neutral default.
    Whatever must survive a restart lives in `self.state`, one dataclass of tensors, numbers, lists and dicts of them.

    Args:
        learner: the training loop, with `network`, `optimizer`, `generators`, `settings`, `layout` and `device`.
        hyperparameters: an instance of the `hyperparameter_class`.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    paper: ClassVar[str] = ""
    version: ClassVar[int] = 1
    """Raised whenever the results of this method change for the same spec: it is part of a trial's key."""
    hyperparameter_class: ClassVar[type[Hyperparameters]] = NoHyperparameters
    state_class: ClassVar[type] = NoState
    unsupported: ClassVar[Mapping[IncrementalType, str]] = {}
    """Incremental types that the method cannot do, each with the reason."""
    notes: ClassVar[Mapping[IncrementalType, str]] = {}
    """Incremental types on which it runs but is known to do badly, each with the reason."""
    is_reference: ClassVar[bool] = False
    """True for bounds that are shown beside the methods but never recommended (`joint`)."""

    def __init__(self, learner: Learner, hyperparameters: Hyperparameters) -> None:
        self.learner = learner
        self.hyperparameters: Any = hyperparameters
        self.state: Any = self.state_class()

    # The seams, in the order in which a task meets them.

    def begin_task(self, task: TaskData) -> None:
        """Prepare for `task`; its heads exist, its optimizer does not yet."""

    def training_data(self, task: TaskData) -> TaskData:
        """Return what to train on at `task`."""
        return task

    def extend_batch(self, batch: Batch) -> Batch:
        """Return `batch` with remembered examples added."""
        return batch

    def penalty(self, batch: Batch, logits: Tensor) -> Tensor | None:
        """Return a term () float32 to add to the loss, or None."""
        return None

    def adjust_gradients(self) -> None:
        """Change the gradients of the network in place, after `backward` and before the step."""

    def after_step(self, batch: Batch) -> None:
        """Act after an optimizer step."""

    def end_task(self, task: TaskData) -> None:
        """Consolidate `task` before it is evaluated."""

    def logits(self, inputs: Tensor, task: int) -> Tensor | None:
        """Return logits (B, C) for inference on `task`, or None to use the network as it is."""
        return None

    # What the sweep asks of a strategy.

    @classmethod
    def relative_cost(cls, hyperparameters: Hyperparameters, settings: Any, n_tasks: int) -> float:
        """Return about how long a trial takes beside a naive one, for the estimate of `plan`."""
        return 1.0

    def kept_bytes(self) -> int:
        """Return the bytes of everything kept besides the network: buffers, importances, masks."""
        return sum(tensor.numel() * tensor.element_size() for tensor in _tensors(self.state_dict()))

    def report(self) -> dict[str, Any]:
        """Return facts about the trained method for its row in the tables, plain JSON."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Return the fields of `state`, loadable with `weights_only=True`."""
        return {field.name: getattr(self.state, field.name) for field in dataclasses.fields(self.state)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Replace `state` by one that `state_dict` returned."""
        self.state = self.state_class(**state)


def _tensors(value: object) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)
