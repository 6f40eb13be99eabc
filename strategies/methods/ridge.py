"""Ridge regression on fixed random features: one pass, no gradients, no examples kept.

Source: Prabhu et al. 2024 (RanDumb), arXiv 2402.08823; McDonnell et al. 2023 (RanPAC), arXiv 2307.02251, Eq. 4 and 5;
Zhuang et al. 2022 (ACIL), arXiv 2205.14922, which updates the inverse and gets the same weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from strategies.contract import TrialDivergedError
from strategies.lazy import F, torch
from strategies.parts.analytic import Analytic, AnalyticHyperparameters, solved

if TYPE_CHECKING:
    from torch import Tensor

STRENGTHS = tuple(10.0**power for power in range(-3, 5))
"""What `regularisation: auto` chooses from."""

_SHARPNESS = 50.0


class RidgeHyperparameters(AnalyticHyperparameters):
    """The features, and the strength of the regularisation."""

    regularisation: Annotated[float, Field(gt=0, le=1e9)] | Literal["auto"] = Field(
        1.0, description="λ of |Y - ΦW|² + λ|W|², > 0; or auto, by generalised cross-validation at each task"
    )


class Ridge(Analytic):
    """Regress one-hot labels on the features of all examples so far; the offset of each class is not regularised.

    With G = Σ (φ - m)(φ - m)ᵀ and c_k = Σ (φ - m) y_k over all examples, w_k = (G + λI)⁻¹ c_k. `auto` takes the λ of
    `STRENGTHS` with the least generalised cross-validation error (`cross_validation`). Differs from RanPAC: features
    have an offset, are rounded to multiples of 1/127 so that the sums are exact, and λ is not chosen on a part of each
    task's examples, which would depend on the order of tasks.
    """

    name = "ridge"
    summary = (
        "ridge regression on fixed random features, in one pass and in closed form; the order of tasks is no matter"
    )
    paper = "Prabhu et al. 2024, arXiv 2402.08823; McDonnell et al. 2023, arXiv 2307.02251"
    hyperparameter_class = RidgeHyperparameters
    fixed_by_state = Analytic.fixed_by_state | {"regularisation"}

    _strength: float | None = None

    def solve(self) -> tuple[Tensor, Tensor]:
        """Return weights (F, C) and offsets (C,) float64.

        Raises:
            TrialDivergedError: if the matrix cannot be factorised.
        """
        counts, sums = self.class_sums()
        n = counts.sum()
        mean = sums.sum(0) / n
        gram = self.gram().sub_(torch.outer(mean, mean).mul_(n))
        right = (sums - torch.outer(counts, mean)).T
        asked = self.hyperparameters.regularisation
        self._strength = best_strength(gram, right, counts) if asked == "auto" else asked
        weights = ridge_weights(gram, right, self._strength)
        if weights is None:
            raise TrialDivergedError("ridge: the Gram matrix is singular; raise regularisation")
        return weights, counts / n - mean @ weights

    def link(self, scores: Tensor) -> Tensor:
        """Return log(softplus(50 s) / 50) of the scores s, (B, C).

        A score estimates the probability of a class. So it is, after a softmax, but where scores are below 0.
        """
        sharp = _SHARPNESS * scores
        # far below 0 the logarithm of the softplus is its argument
        return torch.where(sharp < -15, sharp, F.softplus(sharp.clamp_min(-15)).log())

    def diagnose(self) -> dict[tuple[str, str], float]:
        """Return also λ."""
        own = {} if self._strength is None else {("regularisation", ""): float(self._strength)}
        return super().diagnose() | own


def ridge_weights(gram: Tensor, right: Tensor, strength: float) -> Tensor | None:
    """Return (G + λI)⁻¹ C, (F, C) float64; None if it cannot be factorised.

    Args:
        gram: G, (F, F) float64.
        right: C, (F, C) float64.
        strength: λ.
    """
    matrix = gram.clone()
    matrix.diagonal().add_(strength)
    return solved(matrix, right)


def best_strength(gram: Tensor, right: Tensor, counts: Tensor) -> float:
    """Return the strength of `STRENGTHS` with the least `cross_validation`; the largest if none can be computed.

    Args:
        gram: of centred features, (F, F) float64.
        right: their sums by class, (F, C) float64.
        counts: examples of each class, (C,) float64.
    """
    values = torch.linalg.eigvalsh(gram).clamp_min(0.0)
    errors: dict[float, float] = {}
    for strength in STRENGTHS:
        weights = ridge_weights(gram, right, strength)
        if weights is not None:
            errors[strength] = cross_validation(values, weights, right, counts, strength)
    return min(errors, key=errors.__getitem__) if errors else STRENGTHS[-1]


def cross_validation(values: Tensor, weights: Tensor, right: Tensor, counts: Tensor, strength: float) -> float:
    """Return the generalised cross-validation error: N |Y - Ŷ|² / (N - tr H)², a mean over the N examples.

    It is the error of leaving out one example at a time, Σ |y_i - ŷ_i|² / (1 - h_i)² / N, with each leverage h_i
    replaced by their mean tr H / N, and equal to it where all are equal. The leverages themselves need the examples;
    this needs the sums alone, so it can look at past tasks, and the order does not matter.
    With Y centred, |Y - Ŷ|² = |Y|² - tr WᵀC - λ|W|², and tr H = 1 + Σ d / (d + λ).

    Args:
        values: d, eigenvalues of the Gram matrix of centred features, (F,) float64.
        weights: W, (F, C) float64.
        right: C, (F, C) float64.
        counts: examples of each class, (C,) float64.
        strength: λ.

    Source: Golub, Heath & Wahba 1979, 'Generalized cross-validation', Eq. 1.4.
    """
    n = float(counts.sum())
    squares = n - float(counts.square().sum()) / n
    residual = squares - float((weights * right).sum()) - strength * float(weights.square().sum())
    left = n - 1 - float((values / (values + strength)).sum())
    return float("inf") if left <= 0 else n * max(residual, 0.0) / left**2
