"""The quadratic pull without importances: every parameter is held alike.

Source: Hsu et al. 2018, arXiv 1810.12488, who compare EWC, SI and MAS with it; Kirkpatrick et al. 2017, figure 2.
"""

from __future__ import annotations

from pydantic import Field

from strategies.contract import Hyperparameters, StreamSizes, TaskData
from strategies.lazy import torch
from strategies.parts.quadratic import QuadraticStrategy


class L2Hyperparameters(Hyperparameters):
    """The strength of the pull."""

    penalty_weight: float = Field(1.0, ge=0, description="λ of the penalty λ/2 Σ (θ - θ*)²")


class L2(QuadraticStrategy):
    """Pull each parameter towards its value after the latest task, all with importance 1.

    What importances add to the other quadratic penalties shows beside it. Hsu et al. write λ without the half, so their
    λ is half of ours. Differs: a head gets its anchor once its task was trained; theirs has all heads from the start.
    """

    name = "l2"
    summary = "pulls all parameters alike towards their values after the latest task; the baseline of such penalties"
    paper = "Hsu et al. 2018, arXiv 1810.12488"
    hyperparameter_class = L2Hyperparameters
    knows_kept_bytes = True

    def bytes_to_keep(self, sizes: StreamSizes) -> int:
        """Return the bytes of an anchor for each parameter, and of a 1 for each layer's weight and bias."""
        with torch.random.fork_rng(devices=[]):  # new layers draw from PyTorch's own generator
            network = self.learner.untrained(self.learner.layout.n_heads)
        return sum(parameter.nbytes + 4 for parameter in network.parameters())

    def strength(self) -> float:
        """Return λ."""
        return float(self.hyperparameters.penalty_weight)

    def end_task(self, task: TaskData) -> None:
        """Put the anchor where the parameters are."""
        named = dict(self.learner.network.named_parameters())
        self.state.anchor = {name: parameter.detach().clone() for name, parameter in named.items()}
        self.state.importance = {name: torch.ones((), device=self.learner.device) for name in named}
        self.state.n_consolidated += 1
