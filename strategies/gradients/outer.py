"""Gradients of single examples in linear layers, δaᵀ, as their factors: products with them need no matrix of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from strategies.gradients.products import linear
from strategies.gradients.rows import flat
from strategies.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class OuterRows:
    """The matrix G (n, P) of n examples' gradients.

    Args:
        layers: name of the layer -> its inputs a (n, I) and the gradients δ (n, O) by its outputs, float32.
        biased: names of the layers that have a bias, of which the gradient is δ.
    """

    layers: Mapping[str, tuple[Tensor, Tensor]]
    biased: frozenset[str]

    def scaled(self, factor: float) -> OuterRows:
        """Return the gradients times a factor."""
        return OuterRows({name: (a, delta * factor) for name, (a, delta) in self.layers.items()}, self.biased)

    def squares(self) -> dict[str, Tensor]:
        """Return the sums over the examples of the squares, parameter name -> tensor of the parameter's shape."""
        found = {}
        for name, (a, delta) in self.layers.items():
            squared = delta.square()
            found[f"{name}.weight"] = squared.T @ a.square()
            if name in self.biased:
                found[f"{name}.bias"] = squared.sum(0)
        return found

    def grams(self) -> dict[str, Tensor]:
        """Return GGᵀ by layer, name of the layer -> (n, n) float64."""
        return {
            name: (delta.double() @ delta.double().T) * (a.double() @ a.double().T + float(name in self.biased))
            for name, (a, delta) in self.layers.items()
        }

    def gram(self) -> Tensor:
        """Return GGᵀ (n, n) float64."""
        return torch.stack(list(self.grams().values())).sum(0)

    def along(self, rows: Mapping[str, Tensor]) -> Tensor:
        """Return V Gᵀ (k, n) float32 for the rows V, parameter name -> (k, *shape); a missing parameter has zeros."""
        found = []
        for name, (a, delta) in self.layers.items():
            if f"{name}.weight" in rows:
                weight = rows[f"{name}.weight"]
                outputs = linear(weight.reshape(-1, weight.shape[2]), a).view(*weight.shape[:2], len(a))  # (k, O, n)
                found.append((outputs * delta.T).sum(1))
                if name in self.biased:
                    found.append(rows[f"{name}.bias"] @ delta.T)
        return torch.stack(found).sum(0)

    def combined(self, weights: Tensor) -> dict[str, Tensor]:
        """Return the sums `weights` G, parameter name -> (k, *shape), for weights (k, n) float32."""
        found = {}
        for name, (a, delta) in self.layers.items():
            weighted = weights[:, None, :] * delta.T  # (k, O, n)
            found[f"{name}.weight"] = linear(weighted.reshape(-1, len(a)), a.T).view(*weighted.shape[:2], a.shape[1])
            if name in self.biased:
                found[f"{name}.bias"] = weights @ delta
        return found


def leading_rows_with(above: Mapping[str, Tensor], below: OuterRows, rank: int) -> dict[str, Tensor]:
    """Return what `leading_rows` does of the rows of both, which are never held as one matrix.

    Args:
        above: V by parameter, (k, *shape) float32; empty if there is none yet.
        below: G.
        rank: of what is returned.
    """
    gram, k = below.gram(), 0
    if above:
        k = len(next(iter(above.values())))
        own = torch.stack([flat(rows) @ flat(rows).T for rows in above.values()]).double().sum(0)
        across = below.along(above).double()
        gram = torch.cat([torch.cat([own, across], 1), torch.cat([across.T, gram], 1)])
    vectors = torch.linalg.eigh(gram).eigenvectors.flip(1)[:, :rank].float().T
    leading = below.combined(vectors[:, k:])
    for name, rows in above.items():
        if name in leading:
            flat(leading[name]).addmm_(vectors[:, :k], flat(rows))
        else:
            leading[name] = (vectors[:, :k] @ flat(rows)).view(-1, *rows.shape[1:])
    lacking = rank - len(vectors)
    if lacking > 0:
        leading = {name: torch.cat([v, v.new_zeros(lacking, *v.shape[1:])]) for name, v in leading.items()}
    return leading
