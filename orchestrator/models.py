"""Models by name: a backbone without heads, sized for a stream."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from strategies import Network, OutputLayout
from strategies.network import initialise_linear


class ModelSettings(BaseModel):
    """Which model is trained; part of a trial's identity."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Literal["mlp"] = Field("mlp", description="a multi-layer perceptron with ReLU")
    hidden: tuple[Annotated[int, Field(ge=1, le=65536)], ...] = Field(
        (256, 256), min_length=1, max_length=100, description="width of each hidden layer"
    )


def build_network(
    settings: ModelSettings,
    input_shape: tuple[int, ...],
    layout: OutputLayout,
    generator: torch.Generator,
) -> Network:
    """Return an untrained network without heads, on the CPU, its weights drawn from `generator`.

    Args:
        settings: which model.
        input_shape: shape of one example, without the batch.
        layout: which outputs belong to which task.
        generator: for the initial weights.
    """
    widths = [math.prod(input_shape), *settings.hidden]
    layers: list[nn.Module] = [nn.Flatten()]
    for fan_in, fan_out in pairwise(widths):
        linear = nn.Linear(fan_in, fan_out)
        initialise_linear(linear, generator)
        layers += [linear, nn.ReLU()]
    return Network(nn.Sequential(*layers), widths[-1], layout)
