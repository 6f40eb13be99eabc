"""The strategy contract: the seams that a method fills, and what it declares.

A strategy never writes the training loop: `strategies.learner.Learner` has the one training step, which calls the seams
below in a fixed order. Seams add up, so several strategies can be combined (`replay+lwf`).
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict

from strategies.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

    from strategies.gradients.logit_term import LogitTerm
    from strategies.layout import IncrementalType
    from strategies.learner import Learner
    from strategies.settings import TrainingSettings


class TrialDivergedError(Exception):
    """A loss or parameter is no longer finite. This is a result of the hyper-parameters, not a fault of the machine."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Examples of one training step.

    Args:
        inputs: (B, *S) float32.
        labels: output index of each example, (B,) int64.
        task_ids: the task of the whole batch, or one per row, (B,) int64.
        rows: rows of the new examples in the task's training data, (n_new,) int64. New examples come first in a batch,
            remembered ones after them. None if the batch was not drawn from a task.
    """

    inputs: Tensor
    labels: Tensor
    task_ids: int | Tensor
    rows: Tensor | None = None

    @property
    def n_new(self) -> int:
        """Return how many examples at the start of the batch are new."""
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
    """The network's outputs on a training batch, with their graph.

    Args:
        features: output of the backbone, (B, n_features) float32.
        logits: the logits in the loss, (B, C) float32; -inf for outputs that do not compete for a row.
        first: output index of the logits' first column.
    """

    features: Tensor
    logits: Tensor
    first: int


@dataclass(frozen=True, slots=True)
class TaskData:
    """The training examples of one task, in memory and ready to index.

    Args:
        index: the task, 0 … T-1.
        inputs: (N, *S) float32.
        labels: output index of each example, (N,) int64.
        task_ids: the task of all examples, or one per row, (N,) int64: in joint training, and where some are of the
            tasks before and after.
    """

    index: int
    inputs: Tensor
    labels: Tensor
    task_ids: int | Tensor

    def __len__(self) -> int:
        return self.labels.shape[0]

    @property
    def ids(self) -> Tensor:
        """Return the task of each example, (N,) int64."""
        return _one_a_row(self.task_ids, len(self), self.labels)

    @property
    def last(self) -> int:
        """Return the last task that it has examples of."""
        return self.index if isinstance(self.task_ids, int) else int(self.task_ids.max())

    def take(self, rows: Tensor) -> Batch:
        """Return the examples `rows` (B,) int64 as a batch."""
        ids = self.task_ids if isinstance(self.task_ids, int) else self.task_ids.index_select(0, rows)
        return Batch(self.inputs.index_select(0, rows), self.labels.index_select(0, rows), ids, rows)

    def batches(self, size: int) -> Iterator[Batch]:
        """Yield all examples in order, `size` at a time."""
        for rows in torch.split(torch.arange(len(self), device=self.labels.device), size):
            yield self.take(rows)


@dataclass(frozen=True, slots=True)
class StreamSizes:
    """How many training examples a stream has, known before any of them is made.

    Args:
        n_examples: of each task, (T,).
        n_by_output: of each output, all tasks together, (n_outputs,).
        example_shape: shape of the inputs of one example, S.
    """

    n_examples: tuple[int, ...]
    n_by_output: tuple[int, ...]
    example_shape: tuple[int, ...]

    @property
    def n_in_all(self) -> int:
        """Return the number of examples of all tasks."""
        return sum(self.n_examples)

    def n_in_last_passes(self, settings: TrainingSettings) -> int:
        """Return how many examples the last passes of all tasks take: all, unless a task has too few steps for one."""
        most = math.inf if settings.iterations is None else settings.iterations * settings.batch_size
        return sum(int(min(n, most)) for n in self.n_examples)

    @property
    def example_bytes(self) -> int:
        """Return the bytes of the inputs of one example, float32."""
        return 4 * math.prod(self.example_shape)


class Hyperparameters(BaseModel):
    """Base class of hyper-parameters: frozen, with ranges that are checked on construction."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def unused(self) -> frozenset[str]:
        """Return the hyper-parameters that have no effect at these values, so that they are not searched."""
        return frozenset()


class NoHyperparameters(Hyperparameters):
    """Hyper-parameters of a method that has none."""


@dataclass
class NoState:
    """State of a method that keeps nothing."""


class Exclusive(Enum):
    """What at most one part of a combination may set; the value is its name in messages."""

    GRADIENT_DIRECTION = "the direction of the gradient"
    """The conformance suite tests that no step opposes the gradient of a remembered batch."""


class Strategy:
    """A continual-learning method, or one part of a combination.

    Subclasses set the class attributes and override the seams that they need; the default of a seam does nothing.
    A trial may stop between any two steps, so everything that must survive a restart lives in `self.state`: one
    dataclass of tensors, numbers, and lists and dicts of them. `prepare` rebuilds what can be computed from it.

    Args:
        learner: the training loop, with `network`, `optimizer`, `generators`, `settings`, `layout` and `device`.
        hyperparameters: an instance of the `hyperparameter_class`.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    paper: ClassVar[str] = ""
    version: ClassVar[int] = 1
    """Increase it whenever the results of this method change for the same spec. It is part of a trial's key."""
    hyperparameter_class: ClassVar[type[Hyperparameters]] = NoHyperparameters
    state_class: ClassVar[type] = NoState
    unsupported: ClassVar[Mapping[IncrementalType, str]] = {}
    """Incremental types that the method does not support, each with the reason."""
    notes: ClassVar[Mapping[IncrementalType, str]] = {}
    """Incremental types that it supports but is known to do badly on, each with the reason."""
    unsupported_models: ClassVar[Mapping[str, str]] = {}
    """Models that the method cannot train, by name, each with the reason."""
    needs_whole_tasks: ClassVar[str] = ""
    """Why it cannot learn tasks some of whose examples are of their neighbours (`blurry`); empty if it can. The
    `task_ids` of such tasks are one per row, and `learner.n_seen` counts the next task as soon as it has examples."""
    is_reference: ClassVar[bool] = False
    """True for bounds that are shown beside the methods and never recommended (`joint`)."""
    starts_anew: ClassVar[bool] = False
    """Whether each task begins with the untrained network, so that all answers are lost until it is trained."""
    never_forgets: ClassVar[bool] = False
    """Whether the logits of a task stay bit-identical after later tasks; the conformance suite tests it."""
    knows_kept_bytes: ClassVar[bool] = False
    """Whether `bytes_to_keep` tells before training what `kept_bytes` will be; the trial fails if it is wrong."""
    trains_network: ClassVar[bool] = True
    """False for a method that takes no gradient steps: it gets each task once, by `absorb`, and answers by `logits`."""
    differentiates_itself: ClassVar[bool] = True
    """Whether `classification_loss` or `penalty` may ask autograd for gradients of `forward` by the parameters. If they
    leave that to the step, set False: small networks are then faster."""
    owns: ClassVar[Exclusive | None] = None
    """What only this part of a combination may set."""
    alone: ClassVar[str] = ""
    """Why the method cannot be part of a combination; empty if it can."""
    naive_at: ClassVar[Mapping[str, Any]] = {}
    """Hyper-parameters at which a run equals a naive one bit for bit; empty if there are none."""
    fixed_by_state: ClassVar[frozenset[str]] = frozenset()
    """Hyper-parameters that the state is made with, or that what was learned is answered with: a model that learns on
    keeps them."""
    epochs: int | None = None
    """Passes over `training_data` if they are not those of the settings."""
    epochs_as: ClassVar[str] = ""
    """The hyper-parameter that sets `epochs`; like `training.epochs` it has no effect with `training.iterations`."""
    search_space: ClassVar[Mapping[str, Any]] = {}
    """What is searched, for methods of other packages: name -> a list of choices or {low, high, log}, as in a spec."""

    def __init__(self, learner: Learner, hyperparameters: Hyperparameters) -> None:
        self.learner = learner
        self.hyperparameters: Any = hyperparameters
        self.state: Any = self.state_class()

    # The seams, in the order in which they are called.

    def begin_task(self, task: TaskData) -> None:
        """Update the state for a new task. Called once per task: its head exists, its optimizer does not yet."""

    def prepare(self, task: TaskData) -> None:
        """Rebuild what follows from the state but is not in it: after `begin_task`, and after a resume in `task`."""

    def training_data(self, task: TaskData) -> TaskData:
        """Return what to train on at `task`."""
        return task

    def extend_batch(self, batch: Batch) -> Batch:
        """Return `batch` with remembered examples added."""
        return batch

    def classification_loss(self, batch: Batch, forward: Forward) -> Tensor | None:
        """Return a loss () float32 that replaces cross-entropy, or None."""
        return None

    def penalty(self, batch: Batch, forward: Forward) -> Tensor | LogitTerm | None:
        """Return a term to add to the loss, () float32 with its graph or differentiated already, or None."""
        return None

    def adjust_gradients(self) -> None:
        """Change the network's gradients in place, between `backward` and the optimizer step."""

    def after_step(self, batch: Batch, forward: Forward) -> None:
        """Act after an optimizer step; `forward` was computed before it."""

    def absorb(self, batch: Batch) -> None:
        """Take in a portion of the task's examples; in place of every step, if not `trains_network`."""
        raise NotImplementedError

    def end_task(self, task: TaskData) -> None:
        """Consolidate `task`, before evaluation."""

    def logits(self, inputs: Tensor, task: int) -> Tensor | None:
        """Return logits (B, C) for inference on `task`, or None to use the network's own."""
        return None

    # What the sweep asks for.

    def kept_bytes(self) -> int:
        """Return the memory of the method in bytes: buffers, importances, masks; not the network."""
        return sum(tensor.numel() * tensor.element_size() for tensor in _tensors(self.state_dict()))

    def n_parameters(self) -> int:
        """Return how many numbers it answers with, if not `trains_network`; else those of the network count."""
        raise NotImplementedError

    def bytes_to_keep(self, sizes: StreamSizes) -> int | None:
        """Return what `kept_bytes` will be after the last task, or None if this network does not let it tell.

        Asked where `knows_kept_bytes`: before the first task, and again when a trial that was stopped goes on. The
        answer must be the same then: it follows from hyper-parameters, settings, network, layout and sizes alone.
        """
        raise NotImplementedError

    @property
    def plans_ahead(self) -> str:
        """Return what follows from `learner.n_tasks`, which must then be known beforehand; empty if nothing does."""
        return ""

    def report(self) -> dict[str, Any]:
        """Return facts about the trained method for its row in the trials table, as plain JSON."""
        return {}

    def remembered(self) -> tuple[Tensor, Tensor] | None:
        """Return output index and task of every remembered example, (n,) int64 each; None if it keeps no examples.

        By default what a state with a method `remembered` returns, as `BufferState` has one.
        """
        of_state = getattr(self.state, "remembered", None)
        return None if of_state is None else of_state()

    def diagnose(self) -> dict[tuple[str, str], float]:
        """Return numbers about its inside after a task, (name, part) -> value, for the table `diagnostics`.

        The part is a layer, task or class, or empty. Draw no random numbers and change nothing here.
        """
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Return the fields of `state`, which load with `weights_only=True`."""
        return {field.name: getattr(self.state, field.name) for field in dataclasses.fields(self.state)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Replace `state` by a copy of what `state_dict` returned.

        Called before the network's parameters are loaded: add modules of the method's own to the network here.
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
