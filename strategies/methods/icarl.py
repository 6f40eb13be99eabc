"""iCaRL: exemplars chosen by herding, distillation, and classification by the nearest mean of exemplars.

Source: Rebuffi et al. 2017, arXiv 1611.07725, algorithms 1 to 5.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from strategies.contract import Batch, Forward, Hyperparameters, Strategy, StreamSizes, TaskData
from strategies.lazy import F, no_grad, torch
from strategies.settings import Added

if TYPE_CHECKING:
    from torch import Tensor

    from strategies.layout import IncrementalType
    from strategies.learner import Learner

_ROWS = 1024


class IcarlHyperparameters(Hyperparameters):
    """The memory, and the softness of old targets."""

    buffer_size: int = Field(2000, ge=1, description="exemplars kept, all classes together: K of the paper")
    temperature: float = Field(
        1.0, ge=1, le=100, description="divides the old network's outputs before their sigmoid; 1 is the paper's"
    )
    over_outputs: Annotated[Literal["sum", "mean"], Added()] = Field(
        "sum", description="the loss adds up those of all outputs, as the paper's, or is their mean, as in its code"
    )


@dataclass
class IcarlState:
    """The exemplars, and within a task the old network's outputs on its training data.

    Args:
        exemplars: output index of a class -> its exemplars, best first, (m, *S) float32.
        means: normalised mean features of the exemplars, one row per output, (C, F) float32; NaN if there are none.
        targets: sigmoid outputs of the network before the task on all of the task's training data, (N, C_old) float32.
    """

    exemplars: dict[int, Tensor] = field(default_factory=dict)
    means: Tensor | None = None
    targets: Tensor | None = None


class Icarl(Strategy):
    """Learn features from new examples and exemplars, and classify by the nearest mean of exemplars.

    For exemplars and means, features are L2-normalised, and their averages again (section 2.2). The memory is divided
    evenly: ⌊K / classes seen⌋ exemplars per class. In `task` only the task's classes are compared. The loss is
    algorithm 3 over all outputs seen, for both types and all settings of `active_outputs`.
    A network that is certain about its few classes is as certain about inputs of other classes; such targets hold the
    features of new examples near old ones. `temperature` softens them (van de Ven & Tolias 2019, arXiv 1904.07734, use
    2 in their code). Differs: features are not averaged over flipped images.
    """

    name = "icarl"
    summary = "distils into features and classifies by the nearest mean of herded exemplars"
    paper = "Rebuffi et al. 2017, arXiv 1611.07725"
    hyperparameter_class = IcarlHyperparameters
    fixed_by_state: ClassVar[frozenset[str]] = frozenset({"buffer_size"})
    state_class = IcarlState
    knows_kept_bytes = True
    differentiates_itself = False
    alone = "it has its own loss and its own classifier, which other parts cannot add to"
    needs_whole_tasks = "it chooses the exemplars of a class once, from the task that brings it"
    unsupported: ClassVar[Mapping[IncrementalType, str]] = {
        "domain": "its exemplars stand for classes that are learned once, and here every task has all classes"
    }

    def __init__(self, learner: Learner, hyperparameters: Any) -> None:
        super().__init__(learner, hyperparameters)
        n_classes, size = learner.layout.n_outputs, hyperparameters.buffer_size
        if size < n_classes:
            raise ValueError(
                f"icarl.buffer_size: expected at least one exemplar for each of the {n_classes} classes, got {size}; "
                "raise it"
            )

    def bytes_to_keep(self, sizes: StreamSizes) -> int:
        """Return the bytes of each class's exemplars after the last task, and of a mean for every output."""
        n_outputs = self.learner.layout.n_outputs
        size = int(self.hyperparameters.buffer_size) // n_outputs
        n = sum(min(size, n_own) for n_own in sizes.n_by_output)
        return n * sizes.example_bytes + 4 * n_outputs * self.learner.network.n_features

    @no_grad
    def begin_task(self, task: TaskData) -> None:
        """Store the network's outputs for all of the task's training data (algorithm 3, q)."""
        n_past = task.index
        if n_past == 0:
            return
        network = self.learner.network.eval()
        data = self.training_data(task)
        self.state.targets = torch.cat(
            [
                network.outputs(network.backbone(batch.inputs), n_past).div(self.hyperparameters.temperature).sigmoid()
                for batch in data.batches(_ROWS)
            ]
        )

    def training_data(self, task: TaskData) -> TaskData:
        """Return the task's examples followed by all exemplars (algorithm 3, D)."""
        exemplars = self.state.exemplars
        if not exemplars:
            return task
        like, sizes = task.labels, [len(own) for own in exemplars.values()]
        labels = [like.new_full((n,), label) for label, n in zip(exemplars, sizes, strict=True)]
        ids = [like.new_full((n,), self._task_of(label)) for label, n in zip(exemplars, sizes, strict=True)]
        return TaskData(
            task.index,
            torch.cat([task.inputs, *exemplars.values()]),
            torch.cat([like, *labels]),
            torch.cat([torch.full_like(like, task.index), *ids]),
        )

    def classification_loss(self, batch: Batch, forward: Forward) -> Tensor:
        """Return Σ over outputs of the binary cross-entropy, mean over the batch (algorithm 3), or the mean over both.

        The targets of new classes are the labels; those of old classes are the old network's outputs.
        """
        outputs = self.learner.network.outputs(forward.features, self.learner.n_seen)
        targets = torch.zeros_like(outputs).scatter_(1, batch.labels[:, None], 1.0)
        old = self.state.targets
        if old is not None:
            assert batch.rows is not None
            targets[:, : old.shape[1]] = old.index_select(0, batch.rows)
        weights, n = (
            self.learner.label_loss.weights,
            outputs.shape[1] if self.hyperparameters.over_outputs == "mean" else 1,
        )
        if weights is None:
            return F.binary_cross_entropy_with_logits(outputs, targets, reduction="sum") / (len(outputs) * n)
        own = weights[batch.labels]
        losses = F.binary_cross_entropy_with_logits(outputs, targets, reduction="none").sum(1)
        return (own * losses).sum() / (own.sum() * n)

    @no_grad
    def end_task(self, task: TaskData) -> None:
        """Shorten the lists of old classes, choose exemplars of new ones, and recompute all means."""
        self.state.targets = None
        self.learner.network.eval()
        n_outputs = self.learner.layout.ranges[task.index][1]
        size = self.hyperparameters.buffer_size // n_outputs
        for label, own in self.state.exemplars.items():
            self.state.exemplars[label] = own[
                :size
            ].clone()  # algorithm 5; a slice alone would keep all of them in memory
        for label in torch.unique(task.labels).tolist():
            inputs = task.inputs[task.labels == label]
            self.state.exemplars[label] = inputs[herd(self._features(inputs), size)]
        means = torch.full((n_outputs, self.learner.network.n_features), torch.nan, device=self.learner.device)
        for label, own in self.state.exemplars.items():
            means[label] = _mean(self._features(own))
        self.state.means = means

    def logits(self, inputs: Tensor, task: int) -> Tensor | None:
        """Return the negative squared distance to the mean of each competing class, (B, C) (algorithm 1).

        Until a task's exemplars are chosen, which is at its end, the network's outputs answer.
        """
        if self.state.means is None or self.learner.inside_task:
            return None
        first, last = self.learner.layout.inference_range(task, self.learner.n_seen)
        features = self._features(inputs)
        means = self.state.means[first:last]
        # |φ - μ|² = |φ|² - 2 φμ + |μ|², as a product of matrices.
        squares = features.square().sum(1, keepdim=True) + means.square().sum(1)
        logits: Tensor = 2 * features @ means.T - squares
        return logits.nan_to_num(nan=-torch.inf)

    def remembered(self) -> tuple[Tensor, Tensor]:
        """Return output index and task of every exemplar, (n,) int64 each."""
        sizes = torch.tensor([len(own) for own in self.state.exemplars.values()], dtype=torch.int64)
        labels = torch.tensor(list(self.state.exemplars), dtype=torch.int64)
        tasks = torch.tensor([self._task_of(label) for label in self.state.exemplars], dtype=torch.int64)
        return labels.repeat_interleave(sizes), tasks.repeat_interleave(sizes)

    def _features(self, inputs: Tensor) -> Tensor:
        """Return the L2-normalised features of inputs, (B, F) float32."""
        parts = [self.learner.network.backbone(part) for part in torch.split(inputs, _ROWS)]
        return F.normalize(torch.cat(parts))

    def _task_of(self, label: int) -> int:
        return next(task for task, (first, last) in enumerate(self.learner.layout.ranges) if first <= label < last)


def herd(features: Tensor, n: int) -> Tensor:
    """Return the rows of the first `n` exemplars, best first, (min(n, N),) int64 (algorithm 4).

    The k-th is the example, not chosen before, that moves the mean of the k chosen closest to the mean of all:
    argmin |μ - (φ(x) + Σ φ(p)) / k| = argmax 2 φ(x)(kμ - Σ φ(p)) - |φ(x)|².

    Args:
        features: L2-normalised, (N, F) float32.
        n: exemplars wanted.
    """
    mean = _mean(features)
    squares = features.square().sum(1)
    left = mean.clone()  # kμ - Σ φ(p)
    chosen = torch.empty(min(n, len(features)), dtype=torch.int64, device=features.device)
    for k in range(len(chosen)):
        best = torch.argmax(2 * (features @ left) - squares)
        chosen[k] = best
        left += mean - features[best]
        squares[best] = torch.inf
    return chosen


def _mean(features: Tensor) -> Tensor:
    """Return the normalised mean of features (N, F), (F,)."""
    return F.normalize(features.mean(0), dim=0)
