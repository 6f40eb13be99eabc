"""Masks on fixed weights that are learned by edge-popup.

Source: Ramanujan et al. 2020, arXiv 1911.13299, section 3.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


class Subnet(nn.Module):
    """What a layer's weight is: its fixed weight where the mask of a task, or else of the scores, is True, and 0.

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
        """Return the weight to use; all of `weight` where nothing is learned or chosen yet."""
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
    """weight · [score among the highest], with ∂L/∂score = ∂L/∂(that product) · weight: the score is the mask."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, weight: Tensor, n_kept: int) -> Tensor:
        ctx.save_for_backward(weight)
        return weight * highest(scores, n_kept)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (weight,) = ctx.saved_tensors
        return gradients[0] * weight, None, None


def highest(scores: Tensor, n: int) -> Tensor:
    """Return which of the scores are among the `n` highest, of their shape, bool; all that tie with the n-th are."""
    k = scores.numel() - n
    if scores.is_cpu:  # NumPy's selection is some ten times as fast as PyTorch's
        return scores >= float(np.partition(scores.detach().flatten().numpy(), k)[k])
    return scores >= scores.flatten().sort().values[k]  # unlike kthvalue, deterministic on a GPU
