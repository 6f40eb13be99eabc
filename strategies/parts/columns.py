"""Columns of layers side by side, each of which reads the columns before it.

Source: Rusu et al. 2016, arXiv 1606.04671, section 2, Eq. 1.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from strategies.parts.layers import Initialisation, Weighted, initialise_layer, stages, train_only


class Column(nn.Module):
    """One task's layers, and its laterals from the columns before it.

    Args:
        layers: the weighted layers, in order.
        laterals: for layer l from the second on and each earlier column j, the matrix U from (l - 1, j) into l.
    """

    def __init__(self, layers: list[Weighted], laterals: list[list[Weighted]]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.laterals = nn.ModuleList(nn.ModuleList(into_layer) for into_layer in laterals)


class Progressive(nn.Module):
    """Columns side by side; `active` computes the features: inputs (B, *S) -> (B, n_features) float32.

    Eq. 1: h_i^k = f(W_i^k h_{i-1}^k + Σ_{j<k} U_i^{k:j} h_{i-1}^j), with a bias in W. Stage i is a weighted layer
    and the modules f after it, which have no parameters and are shared by all columns.

    Args:
        backbone: the first column as built: an `nn.Sequential` of `nn.Linear` or `nn.Conv2d` layers with modules
            without parameters between them.
        fresh: returns a new generator for a purpose.
        init: how new columns are drawn.

    Raises:
        ValueError: if the backbone is anything else.
    """

    def __init__(self, backbone: nn.Module, fresh: Any, init: Initialisation = "pytorch") -> None:
        super().__init__()
        self._init: Initialisation = init
        first, layers, between = stages(backbone, "pnn")
        self.first = first
        self.between = nn.ModuleList(between)
        self.columns = nn.ModuleList([Column(layers, [[] for _ in layers[1:]])])
        self.active = 0
        self._fresh = fresh

    def grow(self) -> None:
        """Add a column: layers and laterals like those of the first column, with new weights."""
        k = len(self.columns)
        like: list[Weighted] = list(self.columns[0].layers)  # type: ignore[arg-type]
        layers = [_similar(layer) for layer in like]
        laterals = [[_similar(layer, bias=False) for _ in range(k)] for layer in like[1:]]
        generator = self._fresh(f"init/column/{k}")
        for layer in (*layers, *(lateral for into_layer in laterals for lateral in into_layer)):
            initialise_layer(layer, generator, self._init)
        self.columns.append(Column(layers, laterals).to(like[0].weight.device))

    def train_column(self, k: int) -> None:
        """Use column `k`, and let only it be trained."""
        self.active = k
        train_only(self.columns, k)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the features (B, n_features) of the active column."""
        hidden = [self.first(inputs)] * (self.active + 1)
        last = len(self.between) - 1
        for stage, between in enumerate(self.between):
            # Nothing reads the last stage of the other columns.
            begin = self.active if stage == last else 0
            with torch.no_grad():
                past = [between(self._sum(stage, k, hidden)) for k in range(begin, self.active)]
            hidden = [*past, between(self._sum(stage, self.active, hidden))]
        features: Tensor = hidden[-1]
        return features

    def _sum(self, stage: int, k: int, hidden: list[Tensor]) -> Tensor:
        """Return W h^k + Σ_{j<k} U^j h^j, `hidden` being the previous stage's outputs h of columns 0 … active."""
        column: Column = self.columns[k]  # type: ignore[assignment]
        total: Tensor = column.layers[stage](hidden[k])
        if stage > 0:
            for lateral, past in zip(column.laterals[stage - 1], hidden, strict=False):  # type: ignore[call-overload]
                total = total + lateral(past)
        return total


def _similar(layer: Weighted, bias: bool = True) -> Weighted:
    """Return a new layer of the same kind and shape, on the CPU; it has a bias only if `layer` has one."""
    bias = bias and layer.bias is not None
    if isinstance(layer, nn.Linear):
        return nn.Linear(layer.in_features, layer.out_features, bias)
    return nn.Conv2d(
        layer.in_channels,
        layer.out_channels,
        layer.kernel_size,  # type: ignore[arg-type]
        layer.stride,  # type: ignore[arg-type]
        layer.padding,  # type: ignore[arg-type]
        layer.dilation,  # type: ignore[arg-type]
        bias=bias,
        padding_mode=layer.padding_mode,
    )
