"""Synaptic intelligence.

Source: Zenke et al. 2017, arXiv 1703.04200, Eq. 3 to 5.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic import Field

from strategies.contract import Batch, Forward, Hyperparameters, StreamSizes, TaskData
from strategies.lazy import nn, no_grad, torch
from strategies.parts.quadratic import QuadraticState, QuadraticStrategy, bytes_to_hold

if TYPE_CHECKING:
    from torch import Tensor

    from strategies.learner import Learner


class SiHyperparameters(Hyperparameters):
    """The penalty, and the damping of its importance."""

    penalty_weight: float = Field(100.0, ge=0, description="c of the penalty c Σ Ω (θ - θ*)²")
    damping: float = Field(0.1, gt=0, description="ξ, added to the squared change that divides the path integral")

    def unused(self) -> frozenset[str]:
        """Return `damping` if the penalty is 0."""
        return frozenset({"damping"}) if self.penalty_weight == 0 else frozenset()


@dataclass
class SiState(QuadraticState):
    """The consolidated importance Ω and anchor θ*, and the present task's path integral.

    Args:
        path: ω, parameter name -> how much its changes lowered the loss in this task, of its shape, float32.
        start: parameter name -> its value before this task, likewise. Both are empty between tasks.
    """

    path: dict[str, Tensor] = field(default_factory=dict)
    start: dict[str, Tensor] = field(default_factory=dict)


class Si(QuadraticStrategy):
    """Hold each parameter near its value after the last task, in proportion to how much its changes lowered the loss.

    ω uses the gradient of the training loss (including replay and distillation), before any pull and before clipping,
    and the change that the optimizer made. The penalty is c Σ Ω (θ - θ*)², as published, so the pull's λ of λ/2 is 2c.
    Differs: a negative ω counts as 0, so Ω ≥ 0; steps that would diverge are damped (`QuadraticPull`).
    """

    name = "si"
    summary = "pulls parameters towards past values, weighted by how much their moves lowered the loss"
    paper = "Zenke et al. 2017, arXiv 1703.04200"
    hyperparameter_class = SiHyperparameters
    state_class = SiState
    knows_kept_bytes = True

    def __init__(self, learner: Learner, hyperparameters: Any) -> None:
        super().__init__(learner, hyperparameters)
        self._parameters: list[nn.Parameter] = []
        self._paths: list[Tensor] = []
        self._gradients: list[Tensor] = []
        self._before: list[Tensor] = []
        self._moved: list[int] = []

    def bytes_to_keep(self, sizes: StreamSizes) -> int | None:
        """Return the bytes of one Ω and one anchor of every parameter, frozen ones too."""
        return bytes_to_hold(self.learner, sizes.example_shape, unused_too=True)

    def begin_task(self, task: TaskData) -> None:
        """Start a path at the present parameters."""
        parameters = dict(self.learner.network.named_parameters())
        self.state.path = {name: torch.zeros_like(p, requires_grad=False) for name, p in parameters.items()}
        self.state.start = {name: p.detach().clone() for name, p in parameters.items()}

    def prepare(self, task: TaskData) -> None:
        """Prepare the pull, and allocate a step's gradient and parameters."""
        super().prepare(task)
        parameters = dict(self.learner.network.named_parameters())
        self._parameters = [parameters[name] for name in self.state.path]
        self._paths = list(self.state.path.values())
        self._gradients = [torch.empty_like(path) for path in self._paths]
        self._before = [torch.empty_like(path) for path in self._paths]

    @no_grad
    def adjust_gradients(self) -> None:
        """Store the gradient of the loss and the parameters, then add 2cΩ(θ - θ*) (the derivative of Eq. 4)."""
        self._moved = [index for index, parameter in enumerate(self._parameters) if parameter.grad is not None]
        for index in self._moved:
            parameter = self._parameters[index]
            self._gradients[index].copy_(parameter.grad)  # type: ignore[arg-type]
            self._before[index].copy_(parameter)
        super().adjust_gradients()

    @no_grad
    def after_step(self, batch: Batch, forward: Forward) -> None:
        """Add -gΔθ, by which the step lowered the loss to first order (Eq. 3)."""
        for index in self._moved:
            minus_change = self._before[index].sub_(self._parameters[index])
            self._paths[index].addcmul_(self._gradients[index], minus_change)

    @no_grad
    def end_task(self, task: TaskData) -> None:
        """Add ω / (Δθ² + ξ) to Ω, Δθ being the change over the task (Eq. 5), and set the anchor."""
        for name, parameter in self.learner.network.named_parameters():
            change = parameter - self.state.start[name]
            gain = self.state.path[name].clamp(min=0).div_(change.square_().add_(self.hyperparameters.damping))
            old = self.state.importance.get(name)
            self.state.importance[name] = gain if old is None else old + gain
            self.state.anchor[name] = parameter.detach().clone()
        self.state.path, self.state.start = {}, {}
        self.state.n_consolidated += 1
