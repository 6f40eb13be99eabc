"""Memory aware synapses.

Source: Aljundi et al. 2018, arXiv 1711.09601, Eq. 2 to 5.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from strategies.contract import Hyperparameters, StreamSizes, TaskData
from strategies.gradients.objectives import OF_BATCHES, GradientsOf
from strategies.parts.importance import output_sensitivity
from strategies.parts.quadratic import QuadraticStrategy, bytes_to_hold
from strategies.settings import Added

if TYPE_CHECKING:
    from torch import Tensor


class MasHyperparameters(Hyperparameters):
    """The penalty, and the examples on which importance is measured."""

    penalty_weight: float = Field(1.0, ge=0, description="λ of the penalty λ Σ Ω (θ - θ*)²")
    importance_samples: int | None = Field(
        200, ge=1, description="examples a task for the importance; null takes all of the task"
    )

    importance_of: Annotated[GradientsOf, Added()] = Field(
        "examples",
        description="gradients whose absolute values are averaged: of single examples; or of means of training "
        "batches, as in much public code, which cancel",
    )


class Mas(QuadraticStrategy):
    """Hold each parameter near its value after the last task, in proportion to how much the outputs depend on it.

    Ω is the mean over examples of |∂ ½‖f(x)‖² / ∂θ|, f being the logits that compete. It needs no labels and is summed
    over tasks. The penalty is λ Σ Ω (θ - θ*)², as published, so the pull's λ of λ/2 is 2λ. Differs: the ½, which halves
    Ω; `importance_samples` examples instead of all; steps that would diverge are damped (`QuadraticPull`).
    """

    name = "mas"
    summary = "pulls parameters towards past values, weighted by how much the outputs depend on them"
    paper = "Aljundi et al. 2018, arXiv 1711.09601"
    hyperparameter_class = MasHyperparameters
    knows_kept_bytes = True

    def report(self) -> dict[str, Any]:
        """Return that the importance is not that of single examples, if it is not."""
        return OF_BATCHES if self.hyperparameters.importance_of == "batches" else {}

    def bytes_to_keep(self, sizes: StreamSizes) -> int | None:
        """Return the bytes of one Ω and one anchor; both are measured even if λ is 0."""
        return bytes_to_hold(self.learner, sizes.example_shape, unused_too=False)

    def end_task(self, task: TaskData) -> None:
        """Add the task's importance to Ω, and set the anchor to the present parameters."""
        parameters = dict(self.learner.network.named_parameters())
        for name, importance in self._importance(task).items():
            old = self.state.importance.get(name)
            self.state.importance[name] = importance if old is None else old + importance
        self.state.anchor = {name: parameters[name].detach().clone() for name in self.state.importance}
        self.state.n_consolidated += 1

    def _importance(self, task: TaskData) -> dict[str, Tensor]:
        """Return Ω of `task` alone by parameter name, without heads that take no part."""
        generator = self.learner.generators["importance"]
        of_batches = self.hyperparameters.importance_of == "batches"
        size = self.learner.settings.batch_size if of_batches else None
        batches = self.samples(task, self.hyperparameters.importance_samples, generator, size)
        return output_sensitivity(self.learner.network, batches, self.competing_logits, of_batches)
