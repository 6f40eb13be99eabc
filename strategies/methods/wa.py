"""Weight aligning: the outputs of new classes are made as large as those of old ones.

Source: Zhao et al. 2020, arXiv 1911.07053, section 4, Eq. 6 to 9.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from strategies.contract import Hyperparameters, Strategy, StreamSizes, TaskData
from strategies.lazy import no_grad, torch

if TYPE_CHECKING:
    from strategies.layout import IncrementalType


class WaHyperparameters(Hyperparameters):
    """How far the weights are aligned."""

    strength: float = Field(1.0, ge=0, le=1, description="new classes' weights are multiplied by γ to this power")


class Wa(Strategy):
    """After each task but the first, multiply the weights of its outputs by γ, the ratio of mean norms.

    γ = mean ‖w‖ of the outputs of earlier tasks / mean ‖w‖ of the task's own. Cross-entropy on mostly new examples
    makes the latter larger, so old examples are answered as new classes. It is for combinations with remembered
    examples or distillation, as in the paper, which distils (`replay+lwf+wa`); alone it keeps nothing of the past.

    Differs: γ is at most 1. Where remembered examples keep the outputs of old classes larger than new ones, a factor
    above 1 would favour new classes more (`replay+wa` on Split-MNIST: 0.46 with it, 0.86 without). Biases stay as they
    are (the paper has none), and weights are not clipped to be positive while training. Parts that measure parameters
    after the task, such as `ewc`, measure the aligned ones.
    """

    name = "wa"
    summary = "scales the outputs of new classes to the size of old ones after each task"
    paper = "Zhao et al. 2020, arXiv 1911.07053"
    hyperparameter_class = WaHyperparameters
    knows_kept_bytes = True
    naive_at: ClassVar[Mapping[str, Any]] = {"strength": 0.0}
    unsupported: ClassVar[Mapping[IncrementalType, str]] = {
        "task": "outputs of different tasks do not compete, so there is nothing to align",
        "domain": "all tasks share their outputs, so there are no new ones to align",
    }

    def bytes_to_keep(self, sizes: StreamSizes) -> int:
        """Return 0."""
        return 0

    @no_grad
    def end_task(self, task: TaskData) -> None:
        """Multiply the weights of the task's outputs by γ^strength."""
        if task.index == 0 or self.hyperparameters.strength == 0:
            return
        named = dict(self.learner.network.heads.named_parameters())
        norms = [named[f"{head}.weight"].norm(dim=1) for head in range(task.index + 1)]
        ratio = torch.cat(norms[:-1]).mean() / norms[-1].mean()
        named[f"{task.index}.weight"].mul_(ratio.clamp_max(1.0) ** self.hyperparameters.strength)
