"""A term of the loss that a method differentiates by hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from strategies.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class LogitTerm:
    """A term of the loss and its gradient, which take less time than a graph.

    Args:
        value: () float32.
        to_logits: its gradient with respect to the logits in the loss (B, C) float32; 0 where these are -inf.
    """

    value: Tensor
    to_logits: Tensor

    def in_graph(self, logits: Tensor) -> Tensor:
        """Return the value () with a graph that begins at `logits`, for a loss with other terms that have one."""
        known = torch.where(self.to_logits == 0, 0.0, logits)  # -inf times 0 is no number
        moved = (known * self.to_logits).sum()
        return self.value + (moved - moved.detach())
