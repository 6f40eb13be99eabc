"""Averaged gradient episodic memory: no step opposes the gradient of a batch of remembered examples.

Source: Chaudhry et al. 2019, arXiv 1812.00420, Eqs. 10 and 11.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from strategies.contract import Exclusive, Hyperparameters, Strategy, StreamSizes, TaskData
from strategies.lazy import torch
from strategies.parts.buffers import BufferState, buffer_bytes, draw, offer_reservoir

if TYPE_CHECKING:
    from torch import Tensor


class AgemHyperparameters(Hyperparameters):
    """The memory, and the size of its batches."""

    buffer_size: int = Field(500, ge=1, description="examples kept, all past tasks together")
    memory_batch_size: int = Field(16, ge=1, description="remembered examples of a step's reference gradient")


class Agem(Strategy):
    """If a step's gradient opposes the reference gradient, remove its component along the reference (Eq. 11).

    The reference is the gradient of the loss on a new random batch of remembered examples. Differs: the memory is a
    reservoir over the past tasks, filled at the end of each (the paper keeps an equal number per class); the reference
    has few examples by default, so a step with 64 new examples costs at most 1.6 times a plain one.
    """

    name = "agem"
    summary = "turns each gradient that would raise the loss on a remembered batch"
    paper = "Chaudhry et al. 2019, arXiv 1812.00420"
    hyperparameter_class = AgemHyperparameters
    fixed_by_state: ClassVar[frozenset[str]] = frozenset({"buffer_size"})
    state_class = BufferState
    owns = Exclusive.GRADIENT_DIRECTION
    knows_kept_bytes = True

    def bytes_to_keep(self, sizes: StreamSizes) -> int:
        """Return the bytes of a full memory, or of all examples if there are fewer."""
        return buffer_bytes(min(self.hyperparameters.buffer_size, sizes.n_in_all), sizes.example_bytes)

    def adjust_gradients(self) -> None:
        """Project the gradient of all trained parameters; a missing gradient counts as zero."""
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
        """Offer each example of the task to the memory once."""
        offer_reservoir(self.state, task, self.hyperparameters.buffer_size, self.learner.generators["agem/memory"])


def projection_length(gradient: list[Tensor], shared: list[Tensor], reference: list[Tensor]) -> float:
    """Return gᵀr / rᵀr if gᵀr < 0, else 0: how much of r to subtract from g (Eq. 11).

    Args:
        gradient: g, one tensor per parameter, float32, without the parameters that have none.
        shared: r of the same parameters.
        reference: r of all parameters that have one.

    Returns:
        A number ≤ 0; also 0 if r is zero.
    """
    products = [torch.dot(g.flatten(), r.flatten()) for g, r in zip(gradient, shared, strict=True)]
    product = float(torch.stack(products).sum()) if products else 0.0
    if not product < 0:
        return 0.0
    # `sum` adds in pairs. `torch.dot` keeps one running sum, which is wrong by more than 1e-6 for 3e5 parameters.
    square = float(torch.stack([part.sum() for part in torch._foreach_mul(reference, reference)]).sum())
    return product / square if square > 0 else 0.0
