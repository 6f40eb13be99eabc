"""Averaged gradient episodic memory: no step against the gradient of a batch of remembered examples.

Source: Chaudhry et al. 2019, arXiv 1812.00420, Eqs. 10 and 11.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from strategies.contract import Hyperparameters, Strategy, TaskData
from strategies.lazy import torch
from strategies.parts.buffers import BufferState, draw, offer_reservoir

if TYPE_CHECKING:
    from torch import Tensor


class AgemHyperparameters(Hyperparameters):
    """What can be set."""

    buffer_size: int = Field(500, ge=1, description="examples kept, all past tasks together")
    memory_batch_size: int = Field(16, ge=1, description="remembered examples of a step's reference gradient")


class Agem(Strategy):
    """Where a step's gradient opposes the reference gradient, remove its part along it (Eq. 11).

    The reference is the gradient of the loss on a fresh random batch of remembered examples. Differs: the memory is a
    reservoir over the past tasks, filled at the end of each, where the paper keeps an equal number a class; the
    reference has few examples by default, so that a step costs at most 1.6 plain ones at 64 new examples.
    """

    name = "agem"
    summary = "turns each gradient that would raise the loss on a remembered batch"
    paper = "Chaudhry et al. 2019, arXiv 1812.00420"
    hyperparameter_class = AgemHyperparameters
    state_class = BufferState
    owns = "the direction of the gradient"

    def adjust_gradients(self) -> None:
        """Project the gradient of every parameter that is trained; one without a gradient counts as zero."""
        if len(self.state) == 0:
            return
        learner = self.learner
        assert learner.optimizer is not None
        batch = draw(self.state, self.hyperparameters.memory_batch_size, learner.generators["agem"])
        parameters = learner.optimizer.param_groups[0]["params"]
        found = torch.autograd.grad(learner.cross_entropy(batch), parameters, allow_unused=True)
        reached = [(p, r) for p, r in zip(parameters, found, strict=True) if r is not None]
        shared = [(p, r) for p, r in reached if p.grad is not None]
        length = projection_length([p.grad for p, _ in shared], [r for _, r in shared], [r for _, r in reached])
        if length == 0.0:
            return
        torch._foreach_add_([p.grad for p, _ in shared], [r for _, r in shared], alpha=-length)
        for parameter, reference in reached:
            if parameter.grad is None:
                parameter.grad = reference.mul(-length)

    def end_task(self, task: TaskData) -> None:
        """Offer the task's examples to the memory, each once."""
        offer_reservoir(self.state, task, self.hyperparameters.buffer_size, self.learner.generators["agem/memory"])

    @classmethod
    def relative_cost(cls, hyperparameters: Any, settings: Any, n_tasks: int) -> float:
        """Return 1 and the share that the reference adds, for the tasks after the first."""
        return float(1 + (hyperparameters.memory_batch_size / settings.batch_size) * (n_tasks - 1) / n_tasks)


def projection_length(gradient: list[Tensor], shared: list[Tensor], reference: list[Tensor]) -> float:
    """Return gᵀr / rᵀr where gᵀr < 0, else 0: how much of r to take from g (Eq. 11).

    Args:
        gradient: g, a tensor a parameter, float32, without the parameters where it is zero.
        shared: r of the same parameters.
        reference: r of all parameters that it reaches.

    Returns:
        A number ≤ 0; 0 too where r is zero.
    """
    products = [torch.dot(g.flatten(), r.flatten()) for g, r in zip(gradient, shared, strict=True)]
    product = float(torch.stack(products).sum()) if products else 0.0
    if not product < 0:
        return 0.0
    # Summed in pairs: squares in one running sum, as in `torch.dot`, are wrong by more than 1e-6 for 3e5 parameters.
    square = float(torch.stack([part.sum() for part in torch._foreach_mul(reference, reference)]).sum())
    return product / square if square > 0 else 0.0
