"""Inner products of the gradients of single examples, layer by layer: they hold the Fisher's whole spectrum."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from strategies.contract import Batch
from strategies.gradients.objectives import LogitsOf
from strategies.gradients.outer import OuterRows
from strategies.lazy import F, nn, torch
from strategies.parts.per_example import linear_pass, only_linear

if TYPE_CHECKING:
    from torch import Tensor

MOST_ROWS = 64
"""Examples whose gradients are taken one by one where layers are not all linear: each costs a pass."""

MOST_BYTES = 256 * 2**20
"""Bytes of single examples' gradients, at float64, that are held at once where layers are not all linear."""


def gradient_gram(network: nn.Module, batch: Batch, logits_of: LogitsOf) -> dict[str, Tensor]:
    """Return for each layer the inner products of the examples' gradients, name of the layer -> (n, n) float64.

    The gradient is that of -log p(y|x) for the labels y of the batch. With g_i the gradient of example i, the Fisher
    over the n examples is F = 1/n Σ g_i g_iᵀ, and K = Σ over layers of what is returned has K_ij = g_iᵀ g_j. So the
    eigenvalues of K / n are those of F that are not 0, and the share of a layer in an eigenvector Σ u_i g_i of F is
    uᵀ K_layer u / uᵀ K u. If layers are not all linear, fewer examples are taken, evenly from the batch: `MOST_ROWS`,
    or as many as fit into `MOST_BYTES`.

    Args:
        network: the model, in evaluation mode. Its output for an example must not depend on the others.
        batch: the examples.
        logits_of: runs `network` on a batch.

    Source: Karakida et al. 2019, arXiv 1806.01316, who call K the dual of the Fisher. For a linear layer with inputs a
    and output gradients δ, K_ij = (δ_iᵀ δ_j)(a_iᵀ a_j), and + 1 for a bias. Differs: exact, where others use power
    iteration on products of F and a vector: for a few hundred examples one decomposition of an (n, n) matrix is cheaper
    than a handful of passes.
    """
    rows = outer_rows(network, batch, logits_of)
    return rows.grams() if rows else _by_rows(network, batch, logits_of)


def outer_rows(
    network: nn.Module, batch: Batch, logits_of: LogitsOf, labels_of: Callable[[Tensor], Tensor | None] | None = None
) -> OuterRows | None:
    """Return the gradients of which `gradient_gram` has the products, as factors; None if layers are not all linear.

    Args:
        network: the model, in evaluation mode.
        batch: the examples.
        logits_of: runs `network` on a batch.
        labels_of: returns y (n,) int64 from the logits (n, C), counted from their first column, in place of the labels
            of the batch; or None, and then so does this.
    """
    if not only_linear(network):
        return None
    with linear_pass(network) as layers:
        logits, first = logits_of(batch)
    if not layers.are_all_of(logits):
        return None
    labels = labels_of(logits.detach()) if labels_of else batch.labels - first
    if labels is None:
        return None
    passed = layers.gradients(F.cross_entropy(logits, labels, reduction="sum"))
    return OuterRows(passed, frozenset(name for name in passed if network.get_submodule(name).bias is not None))


def _by_rows(network: nn.Module, batch: Batch, logits_of: LogitsOf) -> dict[str, Tensor]:
    """Return the same from the gradient of one example after the other."""
    parameters = {name: p for name, p in network.named_parameters() if p.requires_grad}
    n_bytes = 4 * max(sum(p.numel() for p in parameters.values()), 1)
    rows: list[list[Tensor | None]] = []
    n = min(len(batch.labels), MOST_ROWS, max(MOST_BYTES // (2 * n_bytes), 1))
    for row in (index * len(batch.labels) // n for index in range(n)):
        ids = batch.task_ids[row : row + 1] if isinstance(batch.task_ids, torch.Tensor) else batch.task_ids
        one = Batch(batch.inputs[row : row + 1], batch.labels[row : row + 1], ids)
        logits, first = logits_of(one)
        loss = F.cross_entropy(logits, one.labels - first)
        rows.append(list(torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)))
    found: dict[str, Tensor] = {}
    for index, name in enumerate(parameters):
        own = [gradients[index] for gradients in rows]
        like = next((gradient for gradient in own if gradient is not None), None)
        if like is None:
            continue
        matrix = torch.stack([torch.zeros_like(like) if g is None else g for g in own]).flatten(1).double()
        layer, product = name.rpartition(".")[0], matrix @ matrix.T
        found[layer] = found[layer] + product if layer in found else product
    return found
