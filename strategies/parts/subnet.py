"""Masks on fixed weights, learned by edge-popup.

Source: Ramanujan et al. 2020, arXiv 1911.13299, section 3.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


class Subnet(nn.Module):
    """A parametrization of a layer's weight: the fixed weight times the mask of a task, or else of the scores.

    Args:
        n_kept: weights that a task uses.
    """

    scores: nn.Parameter | None

    def __init__(self, n_kept: int) -> None:
        super().__init__()
        self.n_kept = n_kept
        self.mask: Tensor | None = None
        self.register_parameter("scores", None)

    def forward(self, weight: Tensor) -> Tensor:
        """Return the masked weight, or `weight` itself if there is neither a mask nor scores."""
        if self.mask is not None:
            return weight * self.mask
        if self.scores is None:
            return weight
        return _StraightThrough.apply(self.scores, weight, self.n_kept)  # type: ignore[no-any-return]

    def chosen(self) -> Tensor:
        """Return the mask that the scores stand for now, of the weight's shape, bool."""
        assert self.scores is not None
        return highest(self.scores.detach(), self.n_kept)


class _StraightThrough(torch.autograd.Function):
    """weight · mask, with ∂L/∂score = ∂L/∂(weight · mask) · weight: gradients pass straight through the mask."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, weight: Tensor, n_kept: int) -> Tensor:
        ctx.save_for_backward(weight)
        return weight * highest(scores, n_kept)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (weight,) = ctx.saved_tensors
        return gradients[0] * weight, None, None


def highest(scores: Tensor, n: int) -> Tensor:
    """Return which scores are among the `n` highest, of their shape, bool; all ties with the n-th are included."""
    k = scores.numel() - n
    if scores.is_cpu:  # NumPy's selection is about ten times as fast as PyTorch's
        return scores >= float(np.partition(scores.detach().flatten().numpy(), k)[k])
    return scores >= scores.flatten().sort().values[k]  # unlike kthvalue, deterministic on a GPU
