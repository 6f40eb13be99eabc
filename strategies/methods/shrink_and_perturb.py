"""Shrink and perturb: parameters lose a little of their size and get a little noise, so that a network stays trainable.

Source: Ash & Adams 2020, arXiv 1910.08475, section 4; at every step as in Dohare et al. 2024, Nature 632, 768.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import Field

from strategies.contract import Batch, Forward, Hyperparameters, Strategy, StreamSizes
from strategies.lazy import no_grad, torch


class ShrinkAndPerturbHyperparameters(Hyperparameters):
    """How much is lost, how large the noise is, and how often."""

    shrinkage: float = Field(1e-3, ge=0, lt=1, description="share of each parameter that is lost each time")
    noise: float = Field(1e-3, ge=0, description="standard deviation of the noise that is added each time")
    every: int = Field(10, ge=1, description="optimizer steps from one time to the next")

    def unused(self) -> frozenset[str]:
        """Return `every` if nothing is done."""
        return frozenset({"every"}) if self.shrinkage == 0 and self.noise == 0 else frozenset()


@dataclass
class StepCount:
    """How many optimizer steps were taken.

    Args:
        n_steps: in all tasks.
    """

    n_steps: int = 0


class ShrinkAndPerturb(Strategy):
    """After every so many steps, θ ← (1 - s) θ + ε with ε ~ N(0, σ²) for each parameter that the step moved.

    It is a cure for lost plasticity and does nothing for old tasks: combine it with a method that does. Differs: Ash &
    Adams do it once, before training on new data, by a large share. Here answers on old tasks would be lost at once, so
    it is done little by little, as Dohare et al. do, and their shrinking is weight decay in the optimizer.
    """

    name = "shrink-and-perturb"
    summary = "shrinks parameters a little and adds noise, so that many tasks later the network still learns"
    paper = "Ash & Adams 2020, arXiv 1910.08475"
    hyperparameter_class = ShrinkAndPerturbHyperparameters
    state_class = StepCount
    knows_kept_bytes = True
    naive_at: ClassVar[Mapping[str, Any]] = {"shrinkage": 0.0, "noise": 0.0}

    def bytes_to_keep(self, sizes: StreamSizes) -> int:
        """Return 0."""
        return 0

    @no_grad
    def after_step(self, batch: Batch, forward: Forward) -> None:
        """Shrink and perturb what the step moved, if it is time."""
        own, self.state.n_steps = self.hyperparameters, self.state.n_steps + 1
        if self.state.n_steps % own.every:
            return
        moved = [p.detach() for p in self.learner.network.parameters() if p.grad is not None]
        if own.shrinkage:
            torch._foreach_mul_(moved, 1 - own.shrinkage)
        if own.noise:
            generator = self.learner.generators["shrink-and-perturb"]
            for parameter in moved:
                drawn = torch.randn(parameter.shape, generator=generator)
                parameter.add_(drawn.to(parameter.device), alpha=own.noise)
