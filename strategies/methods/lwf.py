"""Learning without forgetting.

Source: Li & Hoiem 2017, arXiv 1606.09282, section 3, Eq. 2 to 4.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from strategies.contract import Batch, Forward, Hyperparameters, Strategy, StreamSizes, TaskData
from strategies.lazy import F, torch

if TYPE_CHECKING:
    from torch import Tensor

    from strategies.layout import IncrementalType

_TEACHER_BATCH = 1024


class LwfHyperparameters(Hyperparameters):
    """The weight, temperature and outputs of the distillation loss."""

    distillation_weight: float = Field(1.0, ge=0, description="λ of the old outputs' loss beside cross-entropy")
    temperature: float = Field(2.0, gt=0, le=100, description="T that softens both distributions; its loss is times T²")
    weighting: Literal["constant", "by_task"] = Field(
        "constant", description="λ as it is, or times the number of past tasks (van de Ven & Tolias 2019)"
    )
    new_outputs: Literal["at_zero", "left_out"] = Field(
        "at_zero",
        description="`class` only, if new outputs compete with old: in the softmax with a target of 0, or left out",
    )

    def unused(self) -> frozenset[str]:
        """Return everything else if nothing is distilled."""
        return frozenset({"temperature", "weighting", "new_outputs"}) if self.distillation_weight == 0 else frozenset()


@dataclass
class LwfState:
    """The teacher's outputs on the present task's data.

    Args:
        targets: softened probabilities of the outputs that the teacher knew, (N, C_old) float32 in 0 … 1, one row per
            example of the task. In `task` they sum to 1 per head, otherwise over all. None in task 0 and between tasks.
    """

    targets: Tensor | None = None


class Lwf(Strategy):
    """Keep the old outputs on the *new* inputs as they were before the task.

    The loss is λT² times the cross-entropy of softmax(z/T) against the teacher's, averaged over the new examples of a
    batch.

    - `task`: summed over the old heads, as in section 3. Hsu et al. 2018 (arXiv 1810.12488) do the same, up to a factor
      of the whole loss.
    - `domain`: one softmax over the one head.
    - `class`: one softmax over the outputs that compete in the loss. The teacher gives 0 to those that it did not know
      (`at_zero`), as in Hsu et al. A softmax over the old ones alone (`left_out`) does not notice that cross-entropy
      pushes all of them down together, and the result is naive's, unless replay prevents that.
    - `class` with `active_outputs: current`: old and new outputs do not compete, as in the paper, so the softmax is
      always over the old ones.

    The teacher does not change within a task and inputs are not augmented, so its outputs are computed once per task.

    Differs: T² (Hinton et al. 2015, arXiv 1503.02531), so that T does not change the gradient's scale; no warm-up of
    the new head alone; in `class`, the softmax over all outputs that compete. `by_task` is the rule of van de Ven &
    Tolias 2019 (arXiv 1904.07734), who weigh the two losses 1/k and 1 - 1/k at task k (from 1), up to a factor of the
    whole loss.
    """

    name = "lwf"
    summary = "keeps the old outputs on new inputs as they were before the task, by distillation"
    paper = "Li & Hoiem 2017, arXiv 1606.09282"
    hyperparameter_class = LwfHyperparameters
    state_class = LwfState
    knows_kept_bytes = True
    differentiates_itself = False
    naive_at: ClassVar[Mapping[str, Any]] = {"distillation_weight": 0.0}
    notes: ClassVar[Mapping[IncrementalType, str]] = {
        "class": "known to do little better than naive, unless `active_outputs` is current: old and new outputs compete"
    }

    def bytes_to_keep(self, sizes: StreamSizes) -> int:
        """Return 0: the teacher's outputs are dropped after each task."""
        return 0

    def begin_task(self, task: TaskData) -> None:
        """Compute the outputs of the teacher, which is the network before the task, on the task's inputs."""
        if task.index == 0 or self.hyperparameters.distillation_weight == 0:
            return
        network = self.learner.network
        network.eval()
        with torch.no_grad():
            outputs = [
                network.outputs(network.backbone(inputs), self._n_old_heads(task.index))
                for inputs in torch.split(task.inputs, _TEACHER_BATCH)
            ]
        self.state.targets = self._log_probabilities(torch.cat(outputs), task.index).exp_()

    def penalty(self, batch: Batch, forward: Forward) -> Tensor | None:
        """Return λT² Σ -p log q, averaged over the new examples (Eq. 2 to 4)."""
        targets: Tensor | None = self.state.targets
        if targets is None or batch.rows is None:
            return None
        log_probabilities = self._student(forward, batch.n_new, targets.shape[1])
        loss = -(targets.index_select(0, batch.rows) * log_probabilities).sum() / batch.n_new
        own = self.hyperparameters
        n_past = self.learner.task if own.weighting == "by_task" else 1
        strength: float = own.distillation_weight * n_past * own.temperature**2
        return strength * loss

    def end_task(self, task: TaskData) -> None:
        """Drop the teacher's outputs."""
        self.state.targets = None

    def _n_old_heads(self, task: int) -> int:
        return 1 if self.learner.layout.incremental_type == "domain" else task

    def _student(self, forward: Forward, n_new: int, n_old: int) -> Tensor:
        """Return the new examples' log probabilities (n_new, C_old) of the outputs that the teacher knew."""
        kind, active = self.learner.layout.incremental_type, self.learner.settings.active_outputs
        if kind == "domain" or (kind == "class" and active != "current"):
            left_out = self.hyperparameters.new_outputs == "left_out"
            logits = forward.logits[:n_new, : n_old if left_out else None]
            return F.log_softmax(logits / self.hyperparameters.temperature, dim=1)[:, :n_old]
        task = self.learner.task
        return self._log_probabilities(self.learner.network.outputs(forward.features[:n_new], task), task)

    def _log_probabilities(self, logits: Tensor, task: int) -> Tensor:
        """Return log softmax(z/T) of old logits (B, C_old): per head in `task`, else over all."""
        softened = logits / self.hyperparameters.temperature
        if self.learner.layout.incremental_type != "task":
            return F.log_softmax(softened, dim=1)
        widths = [stop - start for start, stop in self.learner.layout.ranges[:task]]
        if len(set(widths)) == 1:
            return F.log_softmax(softened.unflatten(1, (task, widths[0])), dim=2).flatten(1)
        return torch.cat([F.log_softmax(head, dim=1) for head in torch.split(softened, widths, dim=1)], dim=1)
