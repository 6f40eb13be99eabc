"""The quadratic pull without importances: every parameter is held alike.

Source: Hsu et al. 2018, arXiv 1810.12488, who compare EWC, SI and MAS with it; Kirkpatrick et al. 2017, figure 2.
"""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import Field

from strategies.contract import Hyperparameters, StreamSizes, TaskData
from strategies.lazy import torch
from strategies.parts.layers import grown_bytes
from strategies.parts.quadratic import QuadraticStrategy


class L2Hyperparameters(Hyperparameters):
    """The strength of the pull."""

    penalty_weight: float = Field(1.0, ge=0, description="λ of the penalty λ/2 Σ (θ - θ*)²")


class L2(QuadraticStrategy):
    """Pull each parameter towards its value after the latest task, all with importance 1.

    What importances add to the other quadratic penalties shows beside it. Hsu et al. write λ without the half, so their
    λ is half of ours. As in their code, in which all heads are there from the start, a new head is held to its first
    weights.
    """

    name = "l2"
    summary = "pulls all parameters alike towards their values after the latest task; the baseline of such penalties"
    paper = "Hsu et al. 2018, arXiv 1810.12488"
    hyperparameter_class = L2Hyperparameters
    knows_kept_bytes = True

    def bytes_to_keep(self, sizes: StreamSizes) -> int:
        """Return the bytes of an anchor for each parameter, and of a 1 for each layer's weight and bias."""
        return sum(n + 4 for n in grown_bytes(self.learner))

    def strength(self) -> float:
        """Return λ."""
        return float(self.hyperparameters.penalty_weight)

    def begin_task(self, task: TaskData) -> None:
        """Hold what is new to its first weights, from the second task on."""
        if self.state.n_consolidated:
            self._hold(name for name, _ in self.learner.network.named_parameters() if name not in self.state.anchor)

    def end_task(self, task: TaskData) -> None:
        """Put the anchor where the parameters are."""
        self._hold(name for name, _ in self.learner.network.named_parameters())
        self.state.n_consolidated += 1

    def _hold(self, names: Iterable[str]) -> None:
        parameters = dict(self.learner.network.named_parameters())
        for name in names:
            self.state.anchor[name] = parameters[name].detach().clone()
            self.state.importance[name] = torch.ones((), device=self.learner.device)
