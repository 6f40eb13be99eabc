"""What an importance differentiates, and what it averages: the objectives of EWC and MAS."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from strategies.contract import Batch, TrialDivergedError
from strategies.lazy import F, torch

if TYPE_CHECKING:
    from torch import Tensor

FisherKind = Literal["true", "sampled", "exact", "empirical", "predicted"]
"""The source of the labels of a Fisher. `true` is `sampled` under the name that it had first, a boolean in YAML."""

GradientsOf = Literal["examples", "batches"]
"""Whose gradients an importance is the mean magnitude of."""

OF_BATCHES = {"importance": "of gradients of batches, not of examples"}
"""What a method reports of itself in that case."""

LogitsOf = Callable[[Batch], "tuple[Tensor, int]"]
"""Maps a batch to logits (B, C) float32, -inf for outputs that do not compete, and the output index of column 0."""


@dataclass(frozen=True)
class Objective:
    """What is differentiated, and what is averaged.

    Args:
        targets_of: (logits (B, C) detached, labels (B,) int64 relative to column 0) -> targets (B,) int64.
        loss_of: (logits (B, C), targets (B,)) -> the *sum* of the examples' losses, () float32.
        magnitude: elementwise, square or absolute value; |δaᵀ| = |δ||a|ᵀ must hold for it, as it does for both.
    """

    targets_of: Callable[[Tensor, Tensor], Tensor]
    loss_of: Callable[[Tensor, Tensor], Tensor]
    magnitude: Callable[[Tensor], Tensor]


def fisher_objectives(
    kind: FisherKind, generator: torch.Generator, batches: list[Batch], logits_of: LogitsOf
) -> Iterator[Objective]:
    """Yield the objectives whose squared gradients add up to the Fisher information: one, or one a label."""
    if kind != "exact":
        yield _fisher_objective(kind, generator)
        return
    with torch.no_grad():
        n_labels = logits_of(batches[0])[0].shape[1]
    for label in range(n_labels):
        yield _objective_of_label(label)


def _objective_of_label(label: int) -> Objective:
    """Return the objective -√p(y|x) log p(y|x) of one y, p not being differentiated, and its squared gradient."""

    def loss_of(logits: Tensor, targets: Tensor) -> Tensor:
        weights = logits.detach().softmax(1).gather(1, targets[:, None])[:, 0].sqrt()
        losses = F.cross_entropy(logits, targets, reduction="none")
        return (torch.where(weights > 0, losses, 0.0) * weights).sum()  # an output that does not compete has ∞

    return Objective(lambda _, labels: torch.full_like(labels, label), loss_of, torch.square)


def _fisher_objective(kind: FisherKind, generator: torch.Generator) -> Objective:
    """Return the objective -log p(y|x) and its squared gradient, y as `kind` says."""

    def targets_of(logits: Tensor, labels: Tensor) -> Tensor:
        return _labels(logits, labels, kind, generator)

    def loss_of(logits: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(logits, targets, reduction="sum")

    return Objective(targets_of, loss_of, torch.square)


def sensitivity_objective() -> Objective:
    """Return the objective ½‖f(x)‖² of MAS, and its absolute gradient.

    Raises, once it is used:
        TrialDivergedError: if a logit is not finite.
    """

    def targets_of(logits: Tensor, labels: Tensor) -> Tensor:
        if not bool((torch.isfinite(logits) | torch.isneginf(logits)).all()):
            raise TrialDivergedError("the logits of the examples overflow; lower the learning rate")
        return labels

    def loss_of(logits: Tensor, targets: Tensor) -> Tensor:
        return 0.5 * logits.masked_fill(torch.isneginf(logits), 0.0).square().sum()

    return Objective(targets_of, loss_of, torch.abs)


def _labels(logits: Tensor, labels: Tensor, kind: FisherKind, generator: torch.Generator) -> Tensor:
    if kind == "empirical":
        return labels
    if kind == "predicted":
        return logits.argmax(1)
    probabilities = logits.softmax(1).cpu()
    if not bool(torch.isfinite(probabilities).all()):
        raise TrialDivergedError("the logits of the Fisher samples overflow; lower the learning rate")
    return torch.multinomial(probabilities, 1, generator=generator)[:, 0].to(logits.device)
