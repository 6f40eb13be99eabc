"""How much each parameter matters to what has been learned: the diagonal of the Fisher information."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from strategies.base import Batch, TrialDivergedError

FisherKind = Literal["true", "empirical", "predicted"]


def fisher_diagonal(
    network: nn.Module,
    batches: list[Batch],
    logits_of: Callable[[Batch], tuple[Tensor, int]],
    kind: FisherKind,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """Return the diagonal Fisher information, parameter name -> tensor of the parameter's shape, float32.

    The mean over examples of the squared gradient of -log p(y|x), one example at a time (not of a batch's mean).

    Args:
        network: the model, in evaluation mode; every parameter that takes part belongs to an `nn.Linear`.
        batches: the examples.
        logits_of: maps a batch to logits (B, C) and the output index of column 0.
        kind: where y comes from: `true` draws it from the model's own prediction, `empirical` takes the data's label,
            `predicted` the most likely label.
        generator: for `true`.

    Raises:
        TrialDivergedError: where no label can be drawn, because the logits are no longer finite.

    Source: Kirkpatrick et al. 2017, arXiv 1612.00796; kinds as in Martens 2014, arXiv 1412.1193, section 5.
    """
    n_examples = sum(batch.labels.shape[0] for batch in batches)
    sums: dict[str, Tensor] = {}
    for batch in batches:

        def negative_log_likelihood(batch: Batch = batch) -> Tensor:
            logits, first = logits_of(batch)
            labels = _labels(logits.detach(), batch.labels - first, kind, generator)
            return F.cross_entropy(logits, labels, reduction="sum")

        for name, squares in squared_gradients(network, negative_log_likelihood).items():
            sums[name] = sums[name] + squares if name in sums else squares
    return {name: total / n_examples for name, total in sums.items()}


def output_sensitivity(
    network: nn.Module, batches: list[Batch], logits_of: Callable[[Batch], tuple[Tensor, int]]
) -> dict[str, Tensor]:
    """Return the importance of MAS, parameter name -> tensor of the parameter's shape, float32, ≥ 0.

    The mean over examples of the absolute gradient of ½‖f(x)‖², with f the logits that take part; labels are not used.
    Parameters that take no part in the logits are absent.

    Args:
        network: the model, in evaluation mode; every parameter that takes part belongs to an `nn.Linear`.
        batches: the examples.
        logits_of: maps a batch to logits (B, C), -inf where an output takes no part, and the output index of column 0.

    Raises:
        TrialDivergedError: where a logit is no longer finite.

    Source: Aljundi et al. 2018, arXiv 1711.09601, Eq. 3 and 4. Differs: ½ before the squared norm, which halves Ω.
    """
    n_examples = sum(batch.labels.shape[0] for batch in batches)
    sums: dict[str, Tensor] = {}
    for batch in batches:

        def half_squared_norms(batch: Batch = batch) -> Tensor:
            logits, _ = logits_of(batch)
            if not bool((torch.isfinite(logits) | torch.isneginf(logits)).all()):
                raise TrialDivergedError("the logits of the examples overflow; lower the learning rate")
            return 0.5 * logits.masked_fill(torch.isneginf(logits), 0.0).square().sum()

        for name, magnitudes in _summed_gradients(network, half_squared_norms, torch.abs).items():
            sums[name] = sums[name] + magnitudes if name in sums else magnitudes
    return {name: total / n_examples for name, total in sums.items()}


def squared_gradients(network: nn.Module, loss: Callable[[], Tensor]) -> dict[str, Tensor]:
    """Return the sum over examples of each example's squared gradient, parameter name -> tensor of its shape.

    Args:
        network: a model whose parameters that take part in `loss` belong to `nn.Linear` layers, each used once.
        loss: runs the network on a batch and returns the *sum* of the examples' losses, () float32.

    With a layer's inputs a (B, I) and the gradients δ (B, O) of the loss with respect to its outputs, example n's
    gradient is δ_n a_nᵀ, so the sum of squares is (δ²)ᵀ(a²): one backward pass for the whole batch.
    Source: Goodfellow 2015, arXiv 1510.01799.
    """
    return _summed_gradients(network, loss, torch.square)


def _summed_gradients(
    network: nn.Module, loss: Callable[[], Tensor], magnitude: Callable[[Tensor], Tensor]
) -> dict[str, Tensor]:
    """Return the sum over examples of each gradient's `magnitude` (square or absolute value); frozen layers apart."""
    inputs: dict[str, Tensor] = {}
    outputs: dict[str, Tensor] = {}
    hooks = []
    for name, module in network.named_modules():
        if isinstance(module, nn.Linear):

            def remember(_: nn.Module, args: tuple[Tensor], output: Tensor, name: str = name) -> None:
                if output.requires_grad:
                    inputs[name], outputs[name] = args[0].detach(), output

            hooks.append(module.register_forward_hook(remember))
    try:
        total = loss()
    finally:
        for hook in hooks:
            hook.remove()
    deltas = torch.autograd.grad(total, list(outputs.values()))
    sums: dict[str, Tensor] = {}
    for name, delta in zip(outputs, deltas, strict=True):
        each = magnitude(delta)
        sums[f"{name}.weight"] = each.T @ magnitude(inputs[name])
        if network.get_submodule(name).bias is not None:
            sums[f"{name}.bias"] = each.sum(0)
    return sums


def _labels(logits: Tensor, labels: Tensor, kind: FisherKind, generator: torch.Generator) -> Tensor:
    if kind == "empirical":
        return labels
    if kind == "predicted":
        return logits.argmax(1)
    probabilities = logits.softmax(1).cpu()
    if not bool(torch.isfinite(probabilities).all()):
        raise TrialDivergedError("the logits of the Fisher samples overflow; lower the learning rate")
    return torch.multinomial(probabilities, 1, generator=generator)[:, 0].to(logits.device)
