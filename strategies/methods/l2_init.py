"""Regenerative regularisation: parameters are pulled towards their first values, so that the network stays trainable.

Source: Kumar, Marklund & Van Roy 2023, arXiv 2308.11958, section 4 (L2 Init).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from strategies.contract import Hyperparameters, Strategy, StreamSizes, TaskData
from strategies.lazy import no_grad, torch
from strategies.parts.layers import grown_bytes

if TYPE_CHECKING:
    from torch import Tensor, nn

    from strategies.learner import Learner


class L2InitHyperparameters(Hyperparameters):
    """The strength of the pull."""

    penalty_weight: float = Field(0.01, ge=0, description="λ of the penalty λ/2 Σ (θ - θ(0))²")


@dataclass
class FirstWeights:
    """The values that parameters began with.

    Args:
        first: θ₀, parameter name -> tensor of the parameter's shape, float32.
    """

    first: dict[str, Tensor] = field(default_factory=dict)


class L2Init(Strategy):
    """Add λ/2 times the squared distance of every parameter to its first value to the loss.

    It is a cure for lost plasticity, the growing inability to learn new tasks, and does nothing for old ones: combine
    it with a method that does. The paper writes λ without the half. Parameters that a step does not reach, such as
    heads of other tasks, are left alone.
    """

    name = "l2-init"
    summary = "pulls parameters towards their first values, so that many tasks later the network still learns"
    paper = "Kumar et al. 2023, arXiv 2308.11958"
    hyperparameter_class = L2InitHyperparameters
    state_class = FirstWeights
    knows_kept_bytes = True
    naive_at: ClassVar[Mapping[str, Any]] = {"penalty_weight": 0.0}

    def __init__(self, learner: Learner, hyperparameters: Hyperparameters) -> None:
        super().__init__(learner, hyperparameters)
        self._pairs: list[tuple[nn.Parameter, Tensor]] = []

    def bytes_to_keep(self, sizes: StreamSizes) -> int:
        """Return the bytes of a first value for each parameter."""
        return sum(grown_bytes(self.learner))

    def begin_task(self, task: TaskData) -> None:
        """Remember the first values of what is new: all parameters in the first task, then new heads."""
        for name, parameter in self.learner.network.named_parameters():
            if name not in self.state.first:
                self.state.first[name] = parameter.detach().clone()

    def prepare(self, task: TaskData) -> None:
        """Put each parameter beside its first value."""
        named = dict(self.learner.network.named_parameters())
        self._pairs = [(named[name], first) for name, first in self.state.first.items()]

    @no_grad
    def adjust_gradients(self) -> None:
        """Add the derivative of the penalty, λ(θ - θ₀), to every gradient."""
        weight = float(self.hyperparameters.penalty_weight)
        reached = [(p.grad, p, first) for p, first in self._pairs if p.grad is not None]
        if weight == 0 or not reached:
            return
        gradients, parameters, first = map(list, zip(*reached, strict=True))
        torch._foreach_add_(gradients, torch._foreach_sub(parameters, first), alpha=weight)
