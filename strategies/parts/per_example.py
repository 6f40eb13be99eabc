"""Inputs and output gradients of every `nn.Linear` in one pass, and whether they determine each example's gradient."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from strategies.contract import Batch
from strategies.gradients.graph import uses_in_graph
from strategies.lazy import nn, torch

if TYPE_CHECKING:
    from torch import Tensor


def only_linear(network: nn.Module) -> bool:
    """Return whether every trainable parameter is the weight or the bias of one plain `nn.Linear`."""
    every = list(network.named_parameters(remove_duplicate=False))
    trainable = {name for name, parameter in every if parameter.requires_grad}
    own = {
        f"{name}.{part}" if name else part
        for name, module in network.named_modules()
        if type(module) is nn.Linear
        for part, _ in module.named_parameters(recurse=False)
        if part in ("weight", "bias")
    }
    return trainable <= own and len({id(parameter) for _, parameter in every}) == len(every)


class LinearPass:
    """The calls of a network's `nn.Linear` layers in one forward pass."""

    def __init__(self) -> None:
        self._calls: dict[str, list[tuple[nn.Linear, Tensor, Tensor, int, int]]] = {}

    def remember(self, name: str, layer: nn.Linear, inputs: Tensor, output: Tensor) -> None:
        """Record one call of a layer."""
        call = (layer, inputs.detach(), output, inputs._version, output._version)
        self._calls.setdefault(name, []).append(call)

    def are_all_of(self, logits: Tensor) -> bool:
        """Return whether the layers' inputs and output gradients determine each example's gradient.

        They do if each layer was called at most once, with one row per example; if nothing was changed in place
        afterwards; and if these calls are the only uses of parameters in the graph of `logits` (B, C).
        """
        expected: Counter[Tensor] = Counter()
        for calls in self._calls.values():
            if len(calls) > 1:
                return False
            layer, inputs, output, *versions = calls[0]
            if inputs.dim() != 2 or len(inputs) != len(logits) or [inputs._version, output._version] != versions:
                return False
            expected.update(layer.parameters())
        return uses_in_graph(logits) == expected

    def gradients(self, loss: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """Return each layer's inputs (B, I) and the gradient of `loss` with respect to its outputs (B, O)."""
        calls = {name: calls[0] for name, calls in self._calls.items()}
        deltas = torch.autograd.grad(loss, [call[2] for call in calls.values()])
        return {name: (call[1], delta) for (name, call), delta in zip(calls.items(), deltas, strict=True)}


@contextmanager
def linear_pass(network: nn.Module) -> Iterator[LinearPass]:
    """Record the calls of the `nn.Linear` layers of `network` within the block."""
    watched = LinearPass()
    hooks = []
    for name, module in network.named_modules():
        if isinstance(module, nn.Linear):

            def remember(layer: nn.Module, args: tuple[Tensor], output: Tensor, name: str = name) -> None:
                assert isinstance(layer, nn.Linear)
                watched.remember(name, layer, args[0], output)

            hooks.append(module.register_forward_hook(remember))
    try:
        yield watched
    finally:
        for hook in hooks:
            hook.remove()


def taking_part(
    network: nn.Module, batch: Batch, logits_of: Callable[[Batch], tuple[Tensor, int]]
) -> dict[str, nn.Parameter]:
    """Return the parameters that the logits depend on, by name, from the graph of the first example."""
    with torch.enable_grad():
        uses = uses_in_graph(logits_of(next(single(batch)))[0])
    return {name: parameter for name, parameter in network.named_parameters() if uses[parameter]}


def single(batch: Batch) -> Iterator[Batch]:
    """Yield each example as a batch of one."""
    for row in range(len(batch.labels)):
        ids = batch.task_ids[row : row + 1] if isinstance(batch.task_ids, torch.Tensor) else batch.task_ids
        yield Batch(batch.inputs[row : row + 1], batch.labels[row : row + 1], ids)
