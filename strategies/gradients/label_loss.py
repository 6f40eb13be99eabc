"""The loss of the labels: the mean cross-entropy, weighted by class if the settings ask for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from strategies.gradients.logit_term import LogitTerm
    from strategies.settings import TrainingSettings

_nll_loss = torch.ops.aten.nll_loss_forward.default
_nll_loss_backward = torch.ops.aten.nll_loss_backward.default
_log_softmax_backward = torch.ops.aten._log_softmax_backward_data.default
_MEAN, _NO_LABEL = 1, -100


class LabelLoss:
    """The mean cross-entropy of a trial.

    Args:
        settings: how each task is trained.
        class_names: the class behind each output, for weights by name.
        n_outputs: of all tasks.
        device: of the logits.

    Attributes:
        weights: of each output (C,) float32, or None.
        counts: examples of each output in the tasks so far, (C,) int64 on the CPU.
    """

    def __init__(
        self, settings: TrainingSettings, class_names: Sequence[str], n_outputs: int, device: torch.device
    ) -> None:
        self._is_balanced = settings.class_weight == "balanced"
        self._device = device
        self.counts = torch.zeros(n_outputs, dtype=torch.int64)
        self.weights = given_weights(settings, class_names, device)
        self._renew()

    def count(self, labels: Tensor) -> None:
        """Take in the labels of a new task, (N,) int64."""
        self.counts += torch.bincount(labels.cpu(), minlength=len(self.counts))
        self._renew()

    def load_counts(self, counts: Tensor) -> None:
        """Continue from `counts`, which are of fewer outputs if there are more tasks now."""
        self.counts[: len(counts)] = counts
        self._renew()

    def __call__(self, logits: Tensor, labels: Tensor, first: int = 0) -> Tensor:
        """Return the loss () float32, with its graph.

        Args:
            logits: (B, C) float32, -inf for outputs that do not compete for a row.
            labels: output index of each example, (B,) int64.
            first: output index of the logits' first column.
        """
        return F.cross_entropy(logits, labels - first if first else labels, self._of_columns(logits, first))

    @torch.no_grad()
    def with_gradient(
        self, logits: Tensor, labels: Tensor, first: int = 0, terms: Sequence[LogitTerm] = ()
    ) -> tuple[Tensor, Tensor]:
        """Return the loss () float32 with further terms, and its gradient with respect to the logits (B, C).

        There is no graph. The gradient is 0 for outputs that do not compete. Arguments are those of a call.
        """
        own, weights = labels - first if first else labels, self._of_columns(logits, first)
        log_p = torch.log_softmax(logits, 1)
        loss, total = _nll_loss(log_p, own, weights, _MEAN, _NO_LABEL)
        gradient = _nll_loss_backward(torch.ones_like(loss), log_p, own, weights, _MEAN, _NO_LABEL, total)
        to_logits = _log_softmax_backward(gradient, log_p, 1, logits.dtype)
        for term in terms:
            loss, to_logits = loss + term.value, to_logits + term.to_logits
        return loss, to_logits

    def _of_columns(self, logits: Tensor, first: int) -> Tensor | None:
        return None if self.weights is None else self.weights[first : first + logits.shape[1]]

    def _renew(self) -> None:
        """Set balanced weights to n / (k n_c), as scikit-learn does.

        Of n examples of k classes in the tasks so far, n_c are of class c.
        """
        if self._is_balanced:
            counts = self.counts.double()
            n_classes = max(int((counts > 0).sum()), 1)
            weights = torch.where(counts > 0, counts.sum() / (n_classes * counts.clamp_min(1)), 1.0)
            self.weights = weights.float().to(self._device)


def given_weights(settings: TrainingSettings, class_names: Sequence[str], device: torch.device) -> Tensor | None:
    """Return the weight of each output (C,) float32 that the settings give by the name of its class, or None."""
    if not isinstance(settings.class_weight, dict):
        return None
    return torch.tensor([settings.class_weight.get(name, 1.0) for name in class_names], device=device)
