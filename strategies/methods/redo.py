"""ReDo: recycle dormant units.

Source: Sokar, Agarwal, Castro & Evci 2023, arXiv 2302.12902, definitions 3.1 and 3.2, algorithm 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from strategies.contract import Batch, Forward, Hyperparameters, Strategy, StreamSizes
from strategies.lazy import no_grad
from strategies.methods.shrink_and_perturb import StepCount
from strategies.parts.layers import HiddenUnits

if TYPE_CHECKING:
    from strategies.learner import Learner


class RedoHyperparameters(Hyperparameters):
    """Which units are dormant, and how often they are looked for."""

    threshold: float = Field(0.025, ge=0, description="a unit is dormant below this share of its layer's mean output")
    every: int = Field(200, ge=1, description="optimizer steps from one look to the next")

    def unused(self) -> frozenset[str]:
        """Return `every` if no unit is dormant."""
        return frozenset({"every"}) if self.threshold == 0 else frozenset()


class Redo(Strategy):
    """Give units that hardly respond new weights in, and none out, so that they can learn something else.

    A unit's score is the mean over a batch of the size of its output, divided by the mean of its layer. Below the
    threshold its weights and bias are drawn anew and what it adds to the next layer, or to the heads, is set to 0; the
    optimizer forgets both. So answers on the batch hardly change.

    It is a cure for lost plasticity and does nothing for old tasks: a unit that sleeps on the present task may have
    served an old one. Differs: scores are of the batch of the step, remembered examples included; a unit exactly at the
    threshold is kept, so that 0 recycles nothing.
    """

    name = "redo"
    summary = "gives units that hardly respond new weights, so that many tasks later the network still learns"
    paper = "Sokar et al. 2023, arXiv 2302.12902"
    hyperparameter_class = RedoHyperparameters
    state_class = StepCount
    knows_kept_bytes = True
    naive_at: ClassVar[Mapping[str, Any]] = {"threshold": 0.0}
    unsupported_models: ClassVar[Mapping[str, str]] = {
        "resnet18": "it follows units through plain chains of layers, without shortcuts or norms"
    }

    def __init__(self, learner: Learner, hyperparameters: Hyperparameters) -> None:
        super().__init__(learner, hyperparameters)
        self._units = HiddenUnits(learner, self.name)

    def bytes_to_keep(self, sizes: StreamSizes) -> int:
        """Return 0."""
        return 0

    @no_grad
    def after_step(self, batch: Batch, forward: Forward) -> None:
        """Recycle the dormant units of every layer, if it is time."""
        own, self.state.n_steps = self.hyperparameters, self.state.n_steps + 1
        if self.state.n_steps % own.every or own.threshold == 0:
            return
        for index, outputs in enumerate(self._units.outputs(batch.inputs)):
            sizes, n_units = outputs.abs().transpose(0, 1).flatten(1).mean(1), len(self._units.layers[index].weight)
            if outputs.dim() == 2 and outputs.shape[1] != n_units:  # maps, flattened
                sizes = sizes.view(n_units, -1).mean(1)
            dormant = sizes < own.threshold * sizes.mean()
            if bool(dormant.any()):
                self._units.recycle(index, dormant)
