"""The forward and backward pass of a multi-layer perceptron, without a graph of single operations.

A small network spends its step on PyTorch's bookkeeping, several times what its matrix products take. Here the graph
begins at features and logits: autograd differentiates the losses with respect to these, and the pass goes on from there
to the parameters. It runs the operations that autograd would run, on the same numbers in the same order, so outputs and
gradients are the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from strategies.gradients.products import linear

_relu_backward = torch.ops.aten.threshold_backward.default


class PerceptronPass:
    """One pass of a perceptron through hidden layers and heads, whose graph begins at features and logits.

    Args:
        layers: hidden layers, then heads.
        n_hidden: how many are hidden.
        inputs: (B, I) float32.

    Attributes:
        features: (B, F) float32.
        logits: (B, C) float32 of all heads side by side.
    """

    def __init__(self, layers: Sequence[nn.Module], n_hidden: int, inputs: Tensor) -> None:
        self._n_hidden = n_hidden
        self._parameters: list[tuple[nn.Parameter, nn.Parameter]] = [
            (layer._parameters["weight"], layer._parameters["bias"])  # type: ignore[misc]  # no slow lookup
            for layer in layers
        ]
        self._values = [inputs]
        with torch.no_grad():
            for weight, bias in self._parameters[:n_hidden]:
                self._values.append(torch.addmm(bias, self._values[-1], weight.t()).relu_())
            self.features = self._values[-1]
            found = [torch.addmm(bias, self.features, weight.t()) for weight, bias in self._parameters[n_hidden:]]
            self.logits = found[0] if len(found) == 1 else torch.cat(found, dim=1)

    def begin_graph(self) -> None:
        """Let features and logits require a gradient, for a loss that autograd differentiates with respect to these."""
        self.features = self.features.detach().requires_grad_()
        self.logits.requires_grad_()

    @torch.no_grad()
    def backward(self, to_logits: Tensor | None, to_features: Tensor | None = None) -> None:
        """Add to the gradients of the parameters what follows from the gradients of logits (B, C) and features (B, F).

        Parameters that need none, and those that neither depends on, keep what they have.
        """
        lowest = self._lowest()
        delta = to_features
        if to_logits is not None:
            delta = self._through_heads(to_logits, delta, is_last=lowest >= self._n_hidden)
        for index in range(self._n_hidden - 1, lowest - 1, -1):
            if delta is None:
                return
            delta = _relu_backward(delta, self._values[index + 1], 0)
            self._add(index, delta)
            if index > lowest:
                delta = torch.mm(delta, self._parameters[index][0])

    def _lowest(self) -> int:
        """Return the index of the first layer with a parameter that needs a gradient."""
        needy = (i for i, (weight, bias) in enumerate(self._parameters) if weight.requires_grad or bias.requires_grad)
        return next(needy, len(self._parameters))

    def _through_heads(self, to_logits: Tensor, to_features: Tensor | None, is_last: bool) -> Tensor | None:
        """Add the heads' gradients and return that of the features, summed from the last head on as autograd does."""
        n_heads, stop = len(self._parameters) - self._n_hidden, to_logits.shape[1]
        for index in range(len(self._parameters) - 1, self._n_hidden - 1, -1):
            weight = self._parameters[index][0]
            width = weight.shape[0]
            delta = to_logits if n_heads == 1 else to_logits.narrow(1, stop - width, width)
            self._add(index, delta)
            if not is_last:
                part = torch.mm(delta, weight)
                to_features = part if to_features is None else to_features + part
            stop -= width
        return to_features

    def _add(self, index: int, delta: Tensor) -> None:
        """Add the gradients of a layer, from that of its outputs (B, O) and from its inputs (B, I)."""
        weight, bias = self._parameters[index]
        if weight.requires_grad:
            _accumulate(weight, torch.mm(delta.t(), self._values[min(index, self._n_hidden)]))
        if bias.requires_grad:
            _accumulate(bias, delta.sum(0))


def perceptron_pass(backbone: nn.Module, heads: Sequence[nn.Module], inputs: Tensor) -> PerceptronPass | None:
    """Return the pass of a perceptron, None if this is none, or one that only PyTorch's own modules serve.

    It is one if the backbone has pairs of a linear layer and a ReLU, after a `Flatten` or not, if heads are linear, all
    is on a CPU, and nothing has a hook, which would not be called.

    Args:
        backbone: a network without heads.
        heads: one or more.
        inputs: (B, *S) float32 that need no gradient.
    """
    layers = _layers_of(backbone, heads, inputs)
    return PerceptronPass(layers, len(layers) - len(heads), inputs.flatten(1)) if layers else None


@torch.no_grad()
def perceptron_look(backbone: nn.Module, heads: Sequence[nn.Module], inputs: Tensor) -> Tensor | None:
    """Return the logits (B, C) float32 of a perceptron's heads side by side, or None as `perceptron_pass` does.

    They take less time than those of a pass, and may differ from them in the last bits: products are those of `linear`.
    """
    layers = _layers_of(backbone, heads, inputs)
    if not layers:
        return None
    values, n_hidden = inputs.flatten(1), len(layers) - len(heads)
    for layer in layers[:n_hidden]:
        values = _product(layer, values).relu_()
    found = [_product(layer, values) for layer in layers[n_hidden:]]
    return found[0] if len(found) == 1 else torch.cat(found, dim=1)


def _product(layer: nn.Module, values: Tensor) -> Tensor:
    """Return the outputs of a linear layer."""
    weight, bias = layer._parameters["weight"], layer._parameters["bias"]
    assert weight is not None
    assert bias is not None
    return linear(values, weight, bias)


def _layers_of(backbone: nn.Module, heads: Sequence[nn.Module], inputs: Tensor) -> list[nn.Module]:
    """Return a perceptron's hidden layers and heads; none if only PyTorch's own modules serve."""
    hidden = _hidden_layers(backbone, inputs)
    if not hidden or not inputs.is_cpu or inputs.requires_grad:
        return []
    layers = [*hidden, *heads]
    for layer in layers:
        if type(layer) is not nn.Linear or _has_hooks(layer) or layer._parameters["bias"] is None:
            return []
        for parameter in layer._parameters.values():
            if parameter._backward_hooks or parameter._post_accumulate_grad_hooks:  # type: ignore[union-attr]
                return []
    return layers


def _hidden_layers(backbone: nn.Module, inputs: Tensor) -> list[nn.Module]:
    """Return the layers of a backbone that have a ReLU after each, with or without a `Flatten` before; else none."""
    if type(backbone) is not nn.Sequential or _has_hooks(backbone):
        return []
    modules: list[nn.Module] = list(backbone._modules.values())
    if modules and type(modules[0]) is nn.Flatten:
        if _has_hooks(modules.pop(0)):
            return []
    elif inputs.dim() != 2:
        return []
    if len(modules) % 2 or any(type(module) is not nn.ReLU or _has_hooks(module) for module in modules[1::2]):
        return []
    return modules[::2]


def _has_hooks(module: nn.Module) -> bool:
    return bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    )


def _accumulate(parameter: nn.Parameter, gradient: Tensor) -> None:
    parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
