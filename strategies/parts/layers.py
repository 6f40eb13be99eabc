"""What is done to layers: drawing their first weights, and choosing which of them train."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from strategies.lazy import torch

if TYPE_CHECKING:
    from torch import nn

    from strategies.learner import Learner


Initialisation = Literal["pytorch", "xavier", "kaiming"]


def initialise_layer(
    layer: nn.Linear | nn.Conv2d, generator: torch.Generator, init: Initialisation = "pytorch"
) -> None:
    """Draw weights, then bias, uniformly from `generator` (CPU layers only).

    - `pytorch`: both in ±1/sqrt(fan_in), PyTorch's default.
    - `xavier`: weights in ±sqrt(6 / (fan_in + fan_out)), biases 0 (Glorot & Bengio 2010, Eq. 16).
    - `kaiming`: weights in ±sqrt(6 / fan_in), biases 0 (He et al. 2015, arXiv 1502.01852, Eq. 10, uniform).

    The fan-in of a convolution is its input channels per group times the pixels of its kernel; the fan-out is its
    output channels times those pixels.
    """
    fan_in, fan_out = layer.weight[0].numel(), len(layer.weight) * layer.weight[0, 0].numel()
    bound = {
        "pytorch": 1.0 / math.sqrt(fan_in),
        "xavier": math.sqrt(6.0 / (fan_in + fan_out)),
        "kaiming": math.sqrt(6.0 / fan_in),
    }[init]
    with torch.no_grad():
        layer.weight.uniform_(-bound, bound, generator=generator)
        if layer.bias is None:
            return
        if init == "pytorch":
            layer.bias.uniform_(-bound, bound, generator=generator)
        else:
            layer.bias.zero_()


def grown_bytes(learner: Learner) -> list[int]:
    """Return the bytes of each parameter that the network will have after the last task."""
    with torch.random.fork_rng(devices=[]):  # new layers draw from PyTorch's own generator
        return [parameter.nbytes for parameter in learner.untrained(learner.layout.n_heads).parameters()]


def train_only(modules: nn.ModuleList, chosen: int) -> None:
    """Let one of the modules be trained; clear the others' gradients, which clipping would include."""
    for index, module in enumerate(modules):
        module.requires_grad_(index == chosen)
        if index != chosen:
            module.zero_grad(set_to_none=True)
