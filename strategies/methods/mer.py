"""Meta-experience replay: replay with a Reptile step across batches.

Source: Riemer et al. 2019, arXiv 1810.11910, Algorithm 6 (one big batch), section 3 for the objective.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from strategies.contract import Batch, Forward, TaskData
from strategies.lazy import no_grad, torch
from strategies.methods.replay import Replay, ReplayHyperparameters
from strategies.parts.buffers import BufferState

if TYPE_CHECKING:
    from torch import Tensor


class MerHyperparameters(ReplayHyperparameters):
    """Those of replay, and of the Reptile step."""

    reptile_rate: float = Field(
        0.3, gt=0, le=1, description="share of a group's way that is kept, γ in the paper; 1 is plain replay"
    )
    reptile_steps: int = Field(5, ge=1, description="optimizer steps in a group")

    def unused(self) -> frozenset[str]:
        """Return what `replay` does, and `reptile_steps` if the whole change is kept."""
        return super().unused() | (frozenset({"reptile_steps"}) if self.reptile_rate == 1 else frozenset())


@dataclass
class MerState(BufferState):
    """The buffer, and the present group of steps.

    Args:
        group_start: θ₀, the parameters before the group's first step, by name, float32; empty if the rate is 1.
        n_in_group: steps taken since, 0 … reptile_steps - 1.
    """

    group_start: dict[str, Tensor] = field(default_factory=dict)
    n_in_group: int = 0


class Mer(Replay):
    """Replay, and after every group of steps return to θ₀ + γ(θ - θ₀).

    What remains is the change on which the steps of a group agree, which aligns the gradients of new and remembered
    examples. Differs from Algorithm 1: a step takes a batch of new and remembered examples, not one example, and there
    is one Reptile step per group, not one within and one across batches. So it is Algorithm 6 with batches for
    examples. The optimizer keeps its momentum through the Reptile step. The buffer takes a task's examples at its end,
    as in `replay`. No group spans two tasks: the last group of a task may be shorter.
    """

    name = "mer"
    summary = "replays, and after every few steps keeps only a share of the way they took"
    paper = "Riemer et al. 2019, arXiv 1810.11910"
    hyperparameter_class = MerHyperparameters
    state_class = MerState
    naive_at: ClassVar[Mapping[str, Any]] = {"replay_ratio": 0.0, "reptile_rate": 1.0}

    def begin_task(self, task: TaskData) -> None:
        """Start a group, which includes the task's new head."""
        self.state.n_in_group = 0
        self.state.group_start = {}
        if self.hyperparameters.reptile_rate < 1:
            named = self.learner.network.named_parameters()
            self.state.group_start = {name: p.detach().clone() for name, p in named}

    def after_step(self, batch: Batch, forward: Forward) -> None:
        """Fill the buffer as `replay` does, and close the group after its last step."""
        super().after_step(batch, forward)
        self.state.n_in_group += 1
        if self.state.n_in_group == self.hyperparameters.reptile_steps:
            self._close_group()

    def end_task(self, task: TaskData) -> None:
        """Close the last group, then offer the task's examples to the buffer."""
        if self.state.n_in_group:
            self._close_group()
        self.state.group_start = {}
        super().end_task(task)

    @no_grad
    def _close_group(self) -> None:
        """Set θ ← θ₀ + γ(θ - θ₀) and start the next group there."""
        self.state.n_in_group = 0
        if not self.state.group_start:
            return
        parameters = dict(self.learner.network.named_parameters())
        now = [parameters[name].detach() for name in self.state.group_start]
        start = list(self.state.group_start.values())
        torch._foreach_lerp_(start, now, self.hyperparameters.reptile_rate)
        torch._foreach_copy_(now, start)
