"""Nearest class mean.

Source: Mensink et al. 2013, 'Distance-based image classification', Eq. 1; Rebuffi et al. 2017, arXiv 1611.07725, Eq. 2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from strategies.parts.analytic import Analytic, AnalyticHyperparameters

if TYPE_CHECKING:
    from torch import Tensor


class NcmHyperparameters(AnalyticHyperparameters):
    """The features: the inputs themselves by default."""

    features: int = Field(0, ge=0, le=20_000, description="number of random features; 0 for the inputs themselves")


class Ncm(Analytic):
    """Answer with the class whose mean is nearest: argmin |φ - μ_k|² = argmax 2φμ_k - |μ_k|².

    In `class` and `task` a class's mean never changes after its task, so forgetting is nothing but more classes that
    compete. Differs from iCaRL: means of all examples of a class, of features that are fixed and not normalised.
    """

    name = "ncm"
    summary = "answers with the nearest class mean of fixed features; no gradients, and little memory"
    paper = "Mensink et al. 2013; Rebuffi et al. 2017, arXiv 1611.07725"
    hyperparameter_class = NcmHyperparameters
    uses_products = False

    def solve(self) -> tuple[Tensor, Tensor]:
        """Return weights (F, C) and offsets (C,) float64."""
        counts, sums = self.class_sums()
        means = sums / counts.clamp_min(1)[:, None]
        return 2 * means.T, -means.square().sum(1)
