"""Kronecker-factored curvature: for each layer, one factor of its inputs and one of the gradients of its outputs.

The Fisher information of a linear layer with inputs a (with a 1 for the bias) and output gradients δ is E[aaᵀ ⊗ δδᵀ].
As if a and δ were independent, it is A ⊗ G with A = E[aaᵀ] and G = E[δδᵀ] (Martens & Grosse 2015, arXiv 1503.05671).
Of a convolution, a are the patches: A is their sum over positions, G the mean over them (Grosse & Martens 2016, arXiv
1602.01407, section 3). As a penalty against forgetting: Ritter et al. 2018, arXiv 1805.07810.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from strategies.contract import Batch, TrialDivergedError
from strategies.gradients.graph import uses_in_graph
from strategies.gradients.objectives import LogitsOf, Objective
from strategies.lazy import F, nn, no_grad, torch

if TYPE_CHECKING:
    from torch import Tensor
    from torch.autograd.graph import GradientEdge

_PATCH_BYTES = 64 * 2**20
"""Bytes of a convolution's patches that are held at once (but at least one example's)."""


_NOTHING = 1e-8
"""A stiffness ηλ · eigenvalue below it changes no float32."""


@dataclass
class Factors:
    """The factors of one layer's curvature A ⊗ G.

    Args:
        inner: A (I, I) float32, I being the inputs of a row of the layer's weight, and 1 for a bias.
        outer: G (O, O) float32.
    """

    inner: Tensor
    outer: Tensor


class Call(NamedTuple):
    """One call of a layer.

    Args:
        inputs: (B, *S, I) float32, of a convolution (B, C, H, W).
        outputs: where the graph leaves the layer. The outputs themselves may be changed in place afterwards, as by
            `nn.ReLU(inplace=True)`.
    """

    inputs: Tensor
    outputs: GradientEdge


def is_factored(layer: nn.Module) -> bool:
    """Return whether a layer has factors: a linear one, or a convolution in 2D without groups, padded by zeros.

    Its parameters are its own weight and bias: not so if its weight is a function of others, as in a weight norm.
    """
    names = [name for name, _ in layer.named_parameters(recurse=False)]
    if type(layer) not in (nn.Linear, nn.Conv2d) or names not in (["weight"], ["weight", "bias"]):
        return False
    if not isinstance(layer, nn.Conv2d):
        return True
    return layer.groups == 1 and layer.padding_mode == "zeros" and not isinstance(layer.padding, str)


@contextmanager
def watched_layers(network: nn.Module) -> Iterator[dict[str, list[Call]]]:
    """Record each call of a factored layer within the block, by the layer's name, if its outputs have a gradient."""
    calls: dict[str, list[Call]] = {}
    hooks = []
    for name, module in network.named_modules():
        if is_factored(module):

            def remember(
                layer: nn.Module, args: tuple[Tensor, ...], named: dict[str, Tensor], output: Tensor, name: str = name
            ) -> None:
                if output.requires_grad:
                    inputs = args[0] if args else named["input"]
                    edge = torch.autograd.graph.get_gradient_edge(output)
                    calls.setdefault(name, []).append(Call(inputs.detach(), edge))

            hooks.append(module.register_forward_hook(remember, with_kwargs=True))
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


def called_once(network: nn.Module, run: Callable[[], Tensor]) -> dict[str, nn.Module]:
    """Return the layers whose factors describe all that they do for the logits, by name.

    They are called once, with inputs of which the first dimension is the examples, and that call is the only use of
    their parameters.

    Args:
        network: the model.
        run: returns logits (B, C) of the network, with their graph.
    """
    with watched_layers(network) as calls, torch.enable_grad():
        logits = run()
    uses = uses_in_graph(logits)
    names = Counter(id(p) for _, p in network.named_parameters(remove_duplicate=False))
    found = {
        name: network.get_submodule(name)
        for name, own in calls.items()
        if len(own) == 1 and own[0].inputs.dim() > 1 and len(own[0].inputs) == len(logits)
    }
    return {
        name: layer
        for name, layer in found.items()
        if all(p.requires_grad and uses[p] == 1 and names[id(p)] == 1 for p in layer.parameters())
    }


def measure_factors(
    network: nn.Module, batches: list[Batch], logits_of: LogitsOf, objectives: Callable[[], Iterator[Objective]]
) -> dict[str, Factors]:
    """Return the factors of each layer that the logits depend on, by the layer's name.

    Args:
        network: the model, in evaluation mode. Its output for an example must not depend on the others.
        batches: the examples.
        logits_of: runs `network` on a batch.
        objectives: returns what is differentiated, one objective or one a label; its squared gradients add up.

    Raises:
        TrialDivergedError: if logits or factors are not finite.
    """

    def logits_alone(batch: Batch) -> Tensor:
        return logits_of(batch)[0]

    of_batches = [called_once(network, partial(logits_alone, batch)) for batch in batches]
    layers = {name: layer for name, layer in of_batches[0].items() if all(name in of for of in of_batches)}
    n_examples = sum(len(batch.labels) for batch in batches)
    inner: dict[str, Tensor] = {}
    outer: dict[str, Tensor] = {}
    for n_passes, objective in enumerate(objectives() if layers else ()):
        for batch in batches:
            with watched_layers(network) as calls, torch.enable_grad():
                logits, first = logits_of(batch)
                loss = objective.loss_of(logits, objective.targets_of(logits.detach(), batch.labels - first))
            found = torch.autograd.grad(loss, [calls[name][0].outputs for name in layers])
            for name, delta in zip(layers, found, strict=True):
                deltas = _rows_of_outputs(layers[name], delta)
                _add(outer, name, deltas.T @ deltas / (n_examples * (len(deltas) / len(logits))))
                if n_passes == 0:  # inputs are the same for every label
                    _add(inner, name, _products_of_inputs(layers[name], calls[name][0].inputs) / n_examples)
    for name in layers:
        if not bool(torch.isfinite(inner[name].sum() + outer[name].sum())):
            raise TrialDivergedError(f"the Kronecker factors of layer {name} overflow; lower the learning rate")
    return {name: Factors(inner[name], outer[name]) for name in layers}


def _products_of_inputs(layer: nn.Module, inputs: Tensor) -> Tensor:
    """Return the sum of aaᵀ over the rows of inputs (I, I), from portions of examples whose rows fit into memory."""
    size = len(inputs)
    if isinstance(layer, nn.Conv2d):
        n_inputs, n_positions = layer.weight[0].numel(), inputs[0, 0].numel()  # at a stride of 1
        size = max(1, _PATCH_BYTES // (4 * n_inputs * n_positions))
    sums = [rows.T @ rows for rows in (rows_of_inputs(layer, some) for some in torch.split(inputs, size))]
    return sums[0] if len(sums) == 1 else torch.stack(sums).sum(0)


def rows_of_inputs(layer: nn.Module, inputs: Tensor) -> Tensor:
    """Return what each row of the weight is multiplied with (B · positions, I), with a 1 for a bias."""
    if isinstance(layer, nn.Conv2d):
        patches = F.unfold(inputs, layer.kernel_size, layer.dilation, layer.padding, layer.stride)  # type: ignore[arg-type]
        rows = patches.transpose(1, 2).flatten(0, 1)
    else:
        rows = inputs.flatten(0, -2)
    return torch.cat([rows, rows.new_ones(len(rows), 1)], dim=1) if layer.bias is not None else rows


def _rows_of_outputs(layer: nn.Module, delta: Tensor) -> Tensor:
    """Return gradients of outputs as (B · positions, O)."""
    return delta.flatten(2).transpose(1, 2).flatten(0, 1) if isinstance(layer, nn.Conv2d) else delta.flatten(0, -2)


def _add(sums: dict[str, Tensor], name: str, values: Tensor) -> None:
    sums[name] = sums[name] + values if name in sums else values


def nearest_product(one: Factors, other: Factors) -> Factors:
    """Return the Kronecker product that is nearest to the sum of two, in the Frobenius norm.

    Rearranged, a sum of two products is a matrix of rank 2, and the nearest product its largest singular value with its
    vectors, which are sums of the given factors with weights ≥ 0, so positive semi-definite.
    Source: Van Loan & Pitsianis 1993, 'Approximation with Kronecker products', section 2.
    """
    inner, outer = torch.stack([one.inner, other.inner]), torch.stack([one.outer, other.outer])
    a, g = inner.flatten(1).double(), outer.flatten(1).double()
    within_a, within_g = a @ a.T, g @ g.T
    values, vectors = torch.linalg.eig(within_g @ within_a)
    weights = vectors[:, int(values.real.argmax())].real.abs()
    length = (weights @ within_a @ weights).sqrt().clamp_min(torch.finfo(torch.float64).tiny)
    scaled = weights / length
    nearest = torch.tensordot(scaled, inner.double(), dims=1)
    matching = torch.tensordot(within_a @ scaled, outer.double(), dims=1)
    size = nearest.diagonal().mean() / inner.double().diagonal(dim1=1, dim2=2).mean(1).max()
    size = size if bool(size > 0) else torch.ones_like(size)  # of products of zeros
    return Factors((nearest / size).float(), (matching * size).float())  # as large as the larger inner factor


class FactoredPull:
    """The pull λ/2 Σ ⟨G D A, D⟩ of all layers, D = W - W* with the bias as last column, prepared for one task.

    The gradient is λGDA, as published, if ηλ times the largest eigenvalue of A ⊗ G is at most 1 in a layer, η being the
    learning rate. Differs: above, the layer's whole gradient g + λGDA is multiplied by (I + ηλ A ⊗ G)⁻¹, which makes a
    plain step the implicit one, stable for every λ.

    Args:
        network: the model.
        factors: of each layer, by name.
        anchor: value to return to, parameter name -> tensor of the parameter's shape.
        penalty_weight: λ.
        learning_rate: η of the optimizer.
    """

    def __init__(
        self,
        network: nn.Module,
        factors: dict[str, Factors],
        anchor: dict[str, Tensor],
        penalty_weight: float,
        learning_rate: float,
    ) -> None:
        self._layers = [
            _LayerPull(network.get_submodule(name), own, anchor, name, penalty_weight, learning_rate)
            for name, own in factors.items()
        ]

    @no_grad
    def add_to_gradients(self) -> None:
        """Add the pull to the gradients of every layer that has them; the others stay at their anchor."""
        for layer in self._layers:
            layer.add_to_gradients()


class _LayerPull:
    """The pull of one layer."""

    def __init__(
        self, layer: nn.Module, own: Factors, anchor: dict[str, Tensor], name: str, weight: float, rate: float
    ) -> None:
        self._parts: list[Tensor] = list(layer.parameters(recurse=False))
        self._anchor = joined([anchor[f"{name}.{part}"] for part, _ in layer.named_parameters(recurse=False)])
        self._factors, self._weight, self._rate = own, weight, rate
        a, g = (torch.linalg.eigh(factor.double()) for factor in (own.inner, own.outer))
        stiffness = torch.outer(g.eigenvalues.clamp_min(0), a.eigenvalues.clamp_min(0)) * weight * rate
        self._damping: tuple[Tensor, Tensor, Tensor] | None = None
        if bool((stiffness > 1).any()):
            held = stiffness.amax(0) > _NOTHING  # few examples have inputs in few directions
            stiffness = stiffness[:, held]
            shares = stiffness / (1 + stiffness)
            self._damping = shares.float(), a.eigenvectors[:, held].float(), g.eigenvectors.float()

    def add_to_gradients(self) -> None:
        """Add the pull, or make the gradient that of the implicit step.

        With the stiffness s = ηλ · eigenvalue along an eigenvector, that is g - (g - D/η) s/(1 + s).
        """
        if any(part.grad is None for part in self._parts):
            return
        move = joined([part.detach() for part in self._parts]) - self._anchor
        if self._damping is None:
            pull = self._factors.outer @ move @ self._factors.inner * self._weight
            gradients = apart(pull, self._parts)
            for part, gradient in zip(self._parts, gradients, strict=True):
                gradient_of(part).add_(gradient)
            return
        shares, u, v = self._damping
        beyond = joined([gradient_of(part) for part in self._parts]) - move / self._rate
        held = v @ ((v.T @ (beyond @ u)) * shares) @ u.T
        for part, gradient in zip(self._parts, apart(held, self._parts), strict=True):
            gradient_of(part).sub_(gradient)


def gradient_of(parameter: Tensor) -> Tensor:
    """Return the gradient of a parameter that has one."""
    assert parameter.grad is not None
    return parameter.grad


def joined(parts: list[Tensor]) -> Tensor:
    """Return a weight as (O, I), with the bias as last column if there is one."""
    flat = parts[0].flatten(1)
    return torch.cat([flat, parts[1][:, None]], dim=1) if len(parts) == 2 else flat


def apart(values: Tensor, like: list[Tensor]) -> list[Tensor]:
    """Return what `joined` joined, in the shapes of `like`."""
    weight = values[:, : like[0][0].numel()].reshape(like[0].shape)
    return [weight, values[:, -1]] if len(like) == 2 else [weight]


def merged_factors(old: dict[str, Factors], new: dict[str, Factors], decay: float) -> dict[str, Factors]:
    """Return γ · old + new, each layer's sum as the nearest single product."""
    total = {name: Factors(own.inner, own.outer * decay) for name, own in old.items()}
    for name, own in new.items():
        total[name] = nearest_product(total[name], own) if name in total else own
    return total


def value_along(own: Factors, move: Tensor) -> float:
    """Return ⟨G D A, D⟩ of a layer for the move D (O, I)."""
    return float((own.outer @ move @ own.inner).mul(move).sum())


def diagonal_of(own: Factors) -> Tensor:
    """Return the diagonal of A ⊗ G as (O, I)."""
    return torch.outer(own.outer.diagonal(), own.inner.diagonal())


def factor_bytes(layer: nn.Module) -> int:
    """Return the bytes of the factors of a layer, float32."""
    n_outputs, n_inputs = joined(list(layer.parameters(recurse=False))).shape
    return 4 * (n_inputs**2 + n_outputs**2)
