"""What is done to layers: drawing their first weights, choosing which of them train, and drawing single units anew."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from strategies.lazy import nn, no_grad, torch

if TYPE_CHECKING:
    from torch import Tensor

    from strategies.learner import Learner


Weighted: TypeAlias = "nn.Linear | nn.Conv2d"
Initialisation = Literal["pytorch", "xavier", "kaiming"]


def initialise_layer(layer: Weighted, generator: torch.Generator, init: Initialisation = "pytorch") -> None:
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


def stages(backbone: nn.Module, method: str) -> tuple[nn.Sequential, list[Weighted], list[nn.Sequential]]:
    """Return the modules before the first weighted layer, the weighted layers, and the modules after each of them."""
    rule = f"{method}: expected a backbone that is an nn.Sequential of nn.Linear and nn.Conv2d layers (groups 1)"
    way_out = "choose another model or method"
    if not isinstance(backbone, nn.Sequential) or type(backbone).forward is not nn.Sequential.forward:
        raise ValueError(f"{rule}, got {type(backbone).__name__}; {way_out}")
    first: list[nn.Module] = []
    layers: list[Weighted] = []
    between: list[list[nn.Module]] = []
    for module in backbone:
        if isinstance(module, nn.Linear | nn.Conv2d) and getattr(module, "groups", 1) == 1:
            layers.append(module)
            between.append([])
        elif not [*module.parameters(), *module.buffers()]:
            (between[-1] if layers else first).append(module)
        else:
            raise ValueError(f"{rule} and modules without parameters, got {type(module).__name__} in it; {way_out}")
    if not layers:
        raise ValueError(f"{rule}, got none of them; {way_out}")
    return nn.Sequential(*first), layers, [nn.Sequential(*modules) for modules in between]


class HiddenUnits:
    """The hidden units of a network whose backbone is a plain chain of layers: what they give, and drawing some anew.

    A unit is an output of a linear layer, or a channel of a convolution. What it gives is what the next layer reads of
    it, or the heads: one column of their weights, or a block of columns if maps were flattened.

    Args:
        learner: with the network and its optimizer.
        method: named in errors, and the purpose of the generator.

    Attributes:
        layers: the weighted layers, in order.
        n_units: of each layer.
        n_columns: of what is read of each layer's units, a multiple of them.

    Raises:
        ValueError: if the backbone is anything else.
    """

    def __init__(self, learner: Learner, method: str) -> None:
        self._learner, self._method = learner, method
        self._first, self.layers, self._between = stages(learner.network.backbone, method)
        self.n_units = [len(layer.weight) for layer in self.layers]
        self.n_columns = [*(layer.weight.shape[1] for layer in self.layers[1:]), learner.network.n_features]
        for index, (n_units, n_columns) in enumerate(zip(self.n_units, self.n_columns, strict=True)):
            if n_columns % n_units:
                raise ValueError(
                    f"{method}: expected that what follows layer {index} reads each of its {n_units} units alike, got "
                    f"{n_columns} inputs, which is no multiple; choose another model or method"
                )

    def outputs(self, inputs: Tensor) -> list[Tensor]:
        """Return what each layer's units give the next, (B, units) or (B, units, …), or maps that were flattened."""
        hidden, found = self._first(inputs), []
        for layer, between in zip(self.layers, self._between, strict=True):
            hidden = between(layer(hidden))
            found.append(hidden)
        return found

    def following(self, index: int) -> list[Weighted]:
        """Return what reads the units of layer `index`: the next layer, or all heads so far."""
        heads: Any = self._learner.network.heads
        return [self.layers[index + 1]] if index + 1 < len(self.layers) else [*heads]

    def spread(self, index: int, values: Tensor) -> Tensor:
        """Return the value of each unit (U,) of layer `index` for each of its columns, (columns,)."""
        n = self.n_columns[index] // self.n_units[index]
        return values if n == 1 else values.repeat_interleave(n)

    @no_grad
    def recycle(self, index: int, chosen: Tensor) -> None:
        """Draw the weights of units of a layer as the network's first, and let them add nothing to what follows.

        The optimizer's averages of these weights are set to 0.

        Args:
            index: the layer.
            chosen: which of its units, (U,) bool.
        """
        layer, network = self.layers[index], self._learner.network
        fresh = copy.deepcopy(layer).cpu()
        initialise_layer(fresh, self._learner.generators[self._method], network.init)
        for own, new in zip(layer.parameters(), fresh.parameters(), strict=True):
            own[chosen] = new.to(own.device)[chosen]
            self._forget(own, chosen)
        columns = self.spread(index, chosen)
        for module in self.following(index):
            module.weight[:, columns] = 0.0
            self._forget(module.weight, (slice(None), columns))

    def _forget(self, parameter: Tensor, where: Any) -> None:
        """Set the optimizer's averages of some entries to 0."""
        optimizer = self._learner.optimizer
        for value in optimizer.state.get(parameter, {}).values() if optimizer is not None else ():
            if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                value[where] = 0.0
