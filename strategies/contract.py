"""The strategy contract: the seams that a method fills, and what it declares.

A strategy never writes the training loop: `strategies.learner.Learner` holds the one training step and calls the seams
below in a fixed order. Seams add up, so a list of strategies is a strategy (`replay+lwf`).
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict

from strategies.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

    from strategies.layout import IncrementalType
    from strategies.learner import Learner


class TrialDivergedError(Exception):
    """Training left the finite numbers: a result of the trial's hyper-parameters, not a fault of the machine."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Examples of one training step.

    Args:
        inputs: (B, *S) float32.
        labels: output index of each example, (B,) int64.
        task_ids: the task of the whole batch, or one a row, (B,) int64.
        rows: the first examples of a training batch are new: their rows in the task's training data, (n_new,) int64.
            Examples after those are remembered. None where the batch was not drawn from a task.
    """

    inputs: Tensor
    labels: Tensor
    task_ids: int | Tensor
    rows: Tensor | None = None

    @property
    def n_new(self) -> int:
        """Return how many examples, the first ones, belong to the present task's data."""
        return 0 if self.rows is None else self.rows.shape[0]

    def with_remembered(self, past: Batch) -> Batch:
        """Return this batch followed by the remembered examples `past`, each with its own task."""
        n_own, n_past = self.labels.shape[0], past.labels.shape[0]
        ids = torch.cat([_one_a_row(self.task_ids, n_own, self.labels), _one_a_row(past.task_ids, n_past, past.labels)])
        inputs, labels = torch.cat([self.inputs, past.inputs]), torch.cat([self.labels, past.labels])
        return Batch(inputs, labels, ids, self.rows)


def _one_a_row(task_ids: int | Tensor, n: int, like: Tensor) -> Tensor:
    return task_ids if isinstance(task_ids, torch.Tensor) else like.new_full((n,), task_ids)


@dataclass(frozen=True, slots=True)
class Forward:
    """What the network made of a training batch, with its graph.

    Args:
        features: output of the backbone, (B, n_features) float32.
        logits: those that take part in the loss, (B, C) float32, -inf where an output does not compete for a row.
        first: output index of the logits' first column.
    """

    features: Tensor
    logits: Tensor
    first: int


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
        return Batch(self.inputs.index_select(0, rows), self.labels.index_select(0, rows), ids, rows)

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
    Whatever must survive a restart lives in `self.state`, one dataclass of tensors, numbers, lists and dicts of them:
    a trial may stop between any two steps. What can be computed from it again is rebuilt in `prepare`.

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
    unsupported_models: ClassVar[Mapping[str, str]] = {}
    """Models that the method cannot train, by name, each with the reason."""
    is_reference: ClassVar[bool] = False
    """True for bounds that are shown beside the methods but never recommended (`joint`)."""
    never_forgets: ClassVar[bool] = False
    """True where the logits of an old task are bit-identical after every later one; the conformance suite holds it."""
    owns: ClassVar[str] = ""
    """What only one part of a combination may decide, such as 'the direction of the gradient' (which the conformance
    suite holds to oppose no remembered batch); empty for what composes with all."""
    alone: ClassVar[str] = ""
    """Why the method is no part of any combination; empty where it can be."""
    naive_at: ClassVar[Mapping[str, Any]] = {}
    """Hyper-parameters at which a run equals a naive one bit for bit; empty where there are none."""
    search_space: ClassVar[Mapping[str, Any]] = {}
    """What is searched, for methods from elsewhere: name -> a list of choices or {low, high, log}, as in a spec."""

    def __init__(self, learner: Learner, hyperparameters: Hyperparameters) -> None:
        self.learner = learner
        self.hyperparameters: Any = hyperparameters
        self.state: Any = self.state_class()

    # The seams, in the order in which a task meets them.

    def begin_task(self, task: TaskData) -> None:
        """Change state for `task`, once; its heads exist, its optimizer does not yet."""

    def prepare(self, task: TaskData) -> None:
        """Rebuild what follows from the state and is not in it: after `begin_task`, and after a stop inside `task`."""

    def training_data(self, task: TaskData) -> TaskData:
        """Return what to train on at `task`."""
        return task

    def extend_batch(self, batch: Batch) -> Batch:
        """Return `batch` with remembered examples added."""
        return batch

    def classification_loss(self, batch: Batch, forward: Forward) -> Tensor | None:
        """Return the loss () float32 that takes the place of cross-entropy, or None."""
        return None

    def penalty(self, batch: Batch, forward: Forward) -> Tensor | None:
        """Return a term () float32 to add to the loss, or None."""
        return None

    def adjust_gradients(self) -> None:
        """Change the gradients of the network in place, after `backward` and before the step."""

    def after_step(self, batch: Batch, forward: Forward) -> None:
        """Act after an optimizer step; `forward` is what the step began with."""

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
        """Replace `state` by a copy of one that `state_dict` returned.

        Called before the network's parameters are loaded, so that modules that the method adds to it can be added here.
        """
        self.state = self.state_class(**copy.deepcopy(state))


def _tensors(value: object) -> Iterator[Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)
