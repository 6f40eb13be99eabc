"""Streaming linear discriminant analysis: class means and one shared covariance.

Source: Hayes & Kanan 2020, arXiv 1909.01520, section 3; over random features, Prabhu et al. 2024, arXiv 2402.08823.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from strategies.contract import TrialDivergedError
from strategies.lazy import torch
from strategies.parts.analytic import Analytic, AnalyticHyperparameters, solved

if TYPE_CHECKING:
    from torch import Tensor


class SldaHyperparameters(AnalyticHyperparameters):
    """The features, and how far the covariance is drawn to a multiple of the identity."""

    shrinkage: float = Field(
        1e-4, gt=0, le=1, description="share ε of the covariance (1 - ε)Σ + ε tr(Σ)/F I that is the identity's"
    )


class Slda(Analytic):
    """Answer with the class whose mean is nearest in the metric of the shared covariance.

    Σ is the mean over all examples of (φ - μ)(φ - μ)ᵀ with μ of the example's class; w_k = Λμ_k and b_k = -½ μ_kᵀΛμ_k
    with Λ the inverse of the shrunk Σ. All classes are equally likely beforehand. Differs: Σ is that of all examples
    about the final means, from sums, where the paper updates it about the means of the moment; the identity is scaled
    by the mean variance, so that ε does not depend on units; features are random by default (0 is the paper's).
    """

    name = "slda"
    summary = "linear discriminants with running class means and a shared covariance, on fixed features; no gradients"
    paper = "Hayes & Kanan 2020, arXiv 1909.01520; Prabhu et al. 2024, arXiv 2402.08823"
    hyperparameter_class = SldaHyperparameters
    fixed_by_state = Analytic.fixed_by_state | {"shrinkage"}

    def solve(self) -> tuple[Tensor, Tensor]:
        """Return weights (F, C) and offsets (C,) float64.

        Raises:
            TrialDivergedError: if the covariance cannot be factorised.
        """
        counts, sums = self.class_sums()
        means = sums / counts.clamp_min(1)[:, None]
        gram = self.gram()
        size = float(gram.diagonal().mean() / counts.sum())
        covariance = gram.sub_(means.T @ sums).div_(counts.sum())
        share = self.hyperparameters.shrinkage
        variance = float(covariance.diagonal().mean())
        covariance = (covariance + covariance.T).mul_(1 - share).div_(2)
        # equal examples of a class leave nothing but rounding
        is_spread = variance > 1e-12 * size
        covariance.diagonal().add_(share * variance if is_spread else 1.0)
        weights = solved(covariance, means.T)
        if weights is None:
            raise TrialDivergedError("slda: the covariance is singular; raise shrinkage")
        return weights, -0.5 * torch.einsum("fc,cf->c", weights, means)
