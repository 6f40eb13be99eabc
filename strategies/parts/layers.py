"""What is done to layers: drawing their first weights, and choosing which of them train."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from strategies.lazy import torch

if TYPE_CHECKING:
    from torch import nn


def initialise_layer(layer: nn.Linear | nn.Conv2d, generator: torch.Generator) -> None:
    """Draw weights, then bias, uniformly in ±1/sqrt(fan_in), PyTorch's default, from `generator` (CPU layers only).

    The fan-in of a convolution is its input channels per group times the pixels of its kernel.
    """
    bound = 1.0 / math.sqrt(layer.weight[0].numel())
    with torch.no_grad():
        layer.weight.uniform_(-bound, bound, generator=generator)
        if layer.bias is not None:
            layer.bias.uniform_(-bound, bound, generator=generator)


def train_only(modules: nn.ModuleList, chosen: int) -> None:
    """Let one of the modules be trained; clear the others' gradients, which clipping would include."""
    for index, module in enumerate(modules):
        module.requires_grad_(index == chosen)
        if index != chosen:
            module.zero_grad(set_to_none=True)
