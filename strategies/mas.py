"""Memory aware synapses.

Source: Aljundi et al. 2018, arXiv 1711.09601, Eq. 2 to 5.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from strategies.base import Batch, Hyperparameters, Strategy, TaskData
from strategies.importance import output_sensitivity
from strategies.quadratic import QuadraticPull, QuadraticState

if TYPE_CHECKING:
    from strategies.learner import Learner
    from strategies.network import IncrementalType

_IMPORTANCE_BATCH = 256


class MasHyperparameters(Hyperparameters):
    """What can be set."""

    penalty_weight: float = Field(1.0, ge=0, description="λ of the penalty λ Σ Ω (θ - θ*)²")
    importance_samples: int | None = Field(
        200, ge=1, description="examples a task for the importance; null takes all of the task"
    )


class Mas(Strategy):
    """Hold each parameter near its value after the last task, in proportion to how much the outputs depend on it.

    Ω is the mean over examples of |∂ ½‖f(x)‖² / ∂θ|, with f the logits that compete; it needs no labels and is summed
    over tasks. The penalty is λ Σ Ω (θ - θ*)², as published, so the pull's λ of λ/2 is 2λ. Differs: the ½, which halves
    Ω; `importance_samples` instead of all examples; and see `strategies.quadratic` for strengths at which a plain step
    diverges.
    """

    name = "mas"
    summary = "pulls parameters towards past values, weighted by how much the outputs depend on them"
    paper = "Aljundi et al. 2018, arXiv 1711.09601"
    hyperparameter_class = MasHyperparameters
    state_class = QuadraticState
    naive_at: ClassVar[Mapping[str, Any]] = {"penalty_weight": 0.0}
    notes: ClassVar[Mapping[IncrementalType, str]] = {
        "class": "known to sit at the naive level: nothing separates classes of different tasks"
    }

    def __init__(self, learner: Learner, hyperparameters: Any) -> None:
        super().__init__(learner, hyperparameters)
        self._pull: QuadraticPull | None = None

    def prepare(self, task: TaskData) -> None:
        """Make the pull ready for this task."""
        parameters = dict(self.learner.network.named_parameters())
        strength = 2 * self.hyperparameters.penalty_weight
        self._pull = QuadraticPull(self.state, parameters, strength, self.learner.settings.learning_rate)

    def adjust_gradients(self) -> None:
        """Add 2λΩ(θ - θ*) (Eq. 5, differentiated)."""
        assert self._pull is not None
        self._pull.add_to_gradients()

    def end_task(self, task: TaskData) -> None:
        """Add the task's importance to Ω, and anchor at the present parameters."""
        parameters = dict(self.learner.network.named_parameters())
        for name, importance in self._importance(task).items():
            old = self.state.importance.get(name)
            self.state.importance[name] = importance if old is None else old + importance
        self.state.anchor = {name: parameters[name].detach().clone() for name in self.state.importance}
        self.state.n_consolidated += 1

    def _importance(self, task: TaskData) -> dict[str, Tensor]:
        """Return Ω of `task` alone, by parameter name; heads that take no part are absent."""
        learner, settings = self.learner, self.learner.settings
        n_samples = min(self.hyperparameters.importance_samples or len(task), len(task))
        rows = torch.randperm(len(task), generator=learner.generators["importance"])[:n_samples].to(learner.device)
        learner.network.eval()

        def logits_of(batch: Batch) -> tuple[Tensor, int]:
            return learner.network.training_logits(
                batch.inputs, batch.task_ids, learner.n_seen, settings.active_outputs
            )

        batches = [task.take(some) for some in torch.split(rows, _IMPORTANCE_BATCH)]
        return output_sensitivity(learner.network, batches, logits_of)
