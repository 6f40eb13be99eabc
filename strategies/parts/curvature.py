"""A quadratic pull with more than a diagonal, λ/2 [Σ r (θ - θ*)² + ‖V(θ - θ*)‖²], V having few rows.

A Fisher information F = 1/n Σ ggᵀ of P parameters has P² entries. Its largest k eigenvalues s and eigenvectors u are
kept as the rows √s uᵀ of V (k, P), and the diagonal of the rest as r ≥ 0 (P,), so that the diagonal of F is exact.
The form, diagonal plus low rank, is that of Mishkin et al. 2018, arXiv 1811.04504, section 3.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from strategies.contract import TrialDivergedError
from strategies.gradients.kronecker import Factors, apart, diagonal_of, gradient_of, joined, value_along
from strategies.gradients.outer import OuterRows, leading_rows_with
from strategies.gradients.rows import flat, from_bytes, in_bytes, row_products, squares
from strategies.lazy import nn, no_grad, torch
from strategies.parts.quadratic import QuadraticState

if TYPE_CHECKING:
    from torch import Tensor

Rows = Mapping[str, "Tensor"]
"""A matrix of one column a parameter: parameter name -> (m, *shape of the parameter) float32."""


@dataclass
class CurvedState(QuadraticState):
    """The state of a quadratic penalty; `importance` is the diagonal r that `directions` leave.

    Args:
        directions: V by parameter, name -> (k, *shape) float32, or int8 with `scales`; empty if the penalty is
            diagonal.
        scales: by which the rows of int8 directions are multiplied, name -> (k,) float32; empty if they are float32.
        inner: A of the Kronecker product A ⊗ G of a layer, by its name; its parameters have no `importance` then.
        outer: G, likewise.
    """

    directions: dict[str, Tensor] = field(default_factory=dict)
    scales: dict[str, Tensor] = field(default_factory=dict)
    inner: dict[str, Tensor] = field(default_factory=dict)
    outer: dict[str, Tensor] = field(default_factory=dict)

    def rows(self) -> dict[str, Tensor]:
        """Return V by parameter, name -> (k, *shape) float32."""
        return {
            name: from_bytes(rows, self.scales[name]) if name in self.scales else rows
            for name, rows in self.directions.items()
        }

    def factors(self) -> dict[str, Factors]:
        """Return both factors of each layer."""
        return {name: Factors(self.inner[name], self.outer[name]) for name in self.inner}

    def _parts_of(self, layer: str) -> list[str]:
        return [name for part in ("weight", "bias") if (name := f"{layer}.{part}") in self.anchor]

    def diagonal(self) -> dict[str, Tensor]:
        """Return the diagonal of the whole curvature, parameter name -> tensor of the parameter's shape, float32."""
        return {
            name: rest + squares(rows, self.scales.get(name))
            if (rows := self.directions.get(name)) is not None
            else rest
            for name, rest in self.importance.items()
        } | {
            name: values
            for layer, own in self.factors().items()
            for name, values in zip(
                self._parts_of(layer),
                apart(diagonal_of(own), [self.anchor[name] for name in self._parts_of(layer)]),
                strict=True,
            )
        }

    def means(self) -> dict[str, Tensor]:
        """Return the diagonal, but both factors of a layer that has them: a product of means is no mean."""
        in_layers = {name for layer in self.inner for name in self._parts_of(layer)}
        return (
            {name: values for name, values in self.diagonal().items() if name not in in_layers}
            | {f"inner factor of {layer}": values for layer, values in self.inner.items()}
            | {f"outer factor of {layer}": values for layer, values in self.outer.items()}
        )

    def curvature_along(self, moves: Mapping[str, Tensor]) -> float:
        """Return Σ r d² + ‖Vd‖² for the moves d, parameter name -> tensor of the parameter's shape."""
        factored = sum(
            value_along(own, joined([moves[name] for name in self._parts_of(layer)]))
            for layer, own in self.factors().items()
        )
        along = [flat(rows) @ moves[name].reshape(-1) for name, rows in self.rows().items()]
        return (
            super().curvature_along(moves)
            + factored
            + (float(torch.stack(along).sum(0).square().sum()) if along else 0.0)
        )


def leading_rows(rows: Rows, rank: int) -> dict[str, Tensor]:
    """Return V (k, P) by parameter with VᵀV the best approximation of XᵀX of that rank; rows of zeros fill it up.

    The eigenvectors w of XXᵀ (m, m), in float64, give the rows wᵀX, which are orthogonal with squared lengths s.

    Args:
        rows: X (m, P) by parameter, m ≥ 1.
        rank: k ≥ 1.
    """
    gram = torch.stack([flat(some) @ flat(some).T for some in rows.values()]).double().sum(0)
    vectors = torch.linalg.eigh(gram).eigenvectors.flip(1)[:, :rank].float()
    lacking = rank - vectors.shape[1]
    leading = {name: torch.tensordot(vectors.T, some, dims=1) for name, some in rows.items()}
    if lacking > 0:
        leading = {name: torch.cat([v, v.new_zeros(lacking, *v.shape[1:])]) for name, v in leading.items()}
    return leading


def merge_curvature(
    state: CurvedState,
    portions: Iterable[Rows | OuterRows],
    n_examples: int,
    rank: int,
    decay: float,
    as_bytes: bool = False,
) -> None:
    """Make the curvature of `state` H ← γH + 1/n Σ ggᵀ, with its leading eigenvectors and the rest's diagonal.

    The portions are merged one after the other, so k + m rows are held at once. A truncation after each makes the
    eigenvectors approximate if the sum has a rank above k; the diagonal is exact all the same. Sums are float32.

    Args:
        state: changed in place; its anchor is not.
        portions: gradients g of single examples, all with the same parameters.
        n_examples: n.
        rank: k ≥ 1.
        decay: γ.
        as_bytes: whether the eigenvectors are 8-bit numbers afterwards, by `in_bytes`.
    """
    total = {name: diagonal * decay for name, diagonal in state.diagonal().items()}
    directions = {name: rows if decay == 1.0 else rows * decay**0.5 for name, rows in state.rows().items()}
    for portion in portions:
        if isinstance(portion, OuterRows):
            factors = portion.scaled(n_examples**-0.5)
            _add(total, factors.squares())
            directions = leading_rows_with(directions, factors, rank)
        else:
            scaled = {name: rows * n_examples**-0.5 for name, rows in portion.items()}
            _add(total, {name: rows.square().sum(0) for name, rows in scaled.items()})
            directions = leading_rows(_stacked(directions, scaled, rank), rank)
    state.directions, state.scales = directions, {}
    if as_bytes:
        both = {name: in_bytes(rows, total[name]) for name, rows in directions.items()}
        state.directions = {name: levels for name, (levels, _) in both.items()}
        state.scales = {name: scales for name, (_, scales) in both.items()}
    state.importance = {
        name: (diagonal - squares(state.directions[name], state.scales.get(name))).clamp_min(0.0)
        for name, diagonal in total.items()
    }


def _add(total: dict[str, Tensor], more: Rows) -> None:
    for name, values in more.items():
        total[name] = total[name] + values if name in total else values


def _stacked(above: Rows, below: Rows, rank: int) -> dict[str, Tensor]:
    """Return the rows of both; a parameter that one of them lacks has zeros there."""
    if not above:
        return dict(below)
    n_below = next(iter(below.values())).shape[0]
    stacked = {}
    for name in [*above, *(name for name in below if name not in above)]:
        like = above[name] if name in above else below[name]
        first = above[name] if name in above else like.new_zeros(rank, *like.shape[1:])
        stacked[name] = torch.cat([first, below[name] if name in below else like.new_zeros(n_below, *like.shape[1:])])
    return stacked


_PRECISION, _BYTES_PRECISION = 2.0**-16, 2.0**-8
"""The relative error that is expected of products with V in float32, and with V in 8 bits, by rounding."""


class CurvedPull:
    """The pull of a `CurvedState`, prepared for one task, in which λ and the learning rate do not change.

    With H = R + VᵀV and the move d from the anchor, the gradient is λHd, as published, if ηλ(max r + max s) ≤ 1, η
    being the learning rate. Differs: above, the whole gradient g + λHd is multiplied by (I + ηλH)⁻¹, which makes a
    plain step the implicit one, d ← (I + ηλH)⁻¹(d - ηg), stable for every λ. It costs the same two products with V.
    Products are rounded, those with eigenvectors in 8 bits to bfloat16. Rows of V that are almost parallel, as many are
    beside a large R, multiply such errors by up to the root of the stiffness. So, where it exceeds what the numbers
    resolve, the diagonal of the matrix that is inverted is larger by the share ε = 2⁻⁸ for 8 bits, and 2⁻¹⁶ for
    float32: a share of at most ε of the move along an eigenvector stays in place of one of 1/(1 + ηλs).

    Args:
        state: the consolidated curvature and anchors, with directions.
        parameters: the network's parameters by name.
        penalty_weight: λ > 0.
        learning_rate: η of the optimizer.
    """

    def __init__(
        self, state: CurvedState, parameters: dict[str, nn.Parameter], penalty_weight: float, learning_rate: float
    ) -> None:
        self._state, self._parameters = state, parameters
        self._weight, self._rate = penalty_weight, learning_rate
        self._rows = {name: row_products(rows, state.scales.get(name)) for name, rows in state.directions.items()}
        lengths = torch.stack([flat(rows).square().sum(1) for rows in state.rows().values()]).sum(0)
        most = max(float(rest.max()) for rest in state.importance.values()) + float(lengths.max())
        self._is_stiff = penalty_weight * learning_rate * most > 1
        stiffness = penalty_weight * learning_rate
        self._damping = {name: 1.0 + stiffness * rest for name, rest in state.importance.items() if self._is_stiff}
        self._inverses: dict[tuple[str, ...], Tensor] = {}

    @no_grad
    def add_to_gradients(self) -> None:
        """Add the pull to every gradient; parameters without a gradient stay at their anchor."""
        moved = {name: p for name in self._state.importance if (p := self._parameters[name]).grad is not None}
        if not moved:
            return
        along: list[Tensor] = []
        for name, parameter in moved.items():
            gradient, move = gradient_of(parameter), parameter - self._state.anchor[name]
            along_what = move
            if self._is_stiff:  # the step that the diagonal alone would take
                along_what = (move - self._rate * gradient).div_(self._damping[name])
            gradient.addcmul_(self._state.importance[name], move, value=self._weight)
            along.append(self._rows[name].along(along_what))
        sums = torch.stack(along).sum(0)
        sums = self._inverse(tuple(moved)) @ sums / self._rate if self._is_stiff else sums * self._weight
        for name, parameter in moved.items():
            gradient = gradient_of(parameter)
            self._rows[name].add_to(gradient, sums)
            if self._is_stiff:
                gradient.div_(self._damping[name])

    def _inverse(self, names: tuple[str, ...]) -> Tensor:
        """Return (I / (ηλ) + V D⁻¹ Vᵀ)⁻¹ (k, k), V being that of the parameters that move."""
        if names not in self._inverses:
            rows = self._state.rows()
            inner = [flat(rows[name] / self._damping[name]) @ flat(rows[name]).T for name in names]
            total = torch.stack(inner).double().sum(0)
            least, precision = 1.0 / (self._weight * self._rate), _BYTES_PRECISION if self._state.scales else _PRECISION
            if least < precision * float(total.diagonal().max()):
                total.diagonal().mul_(1.0 + precision)
            total.diagonal().add_(least)
            factor, failed = torch.linalg.cholesky_ex(total)
            if failed:
                raise TrialDivergedError("the curvature of past tasks overflows; lower the learning rate")
            self._inverses[names] = torch.cholesky_inverse(factor).float()
        return self._inverses[names]
