"""Dark experience replay: remembered examples keep the logits that they had when they were first seen.

Source: Buzzega et al. 2020, arXiv 2004.07211, Algorithms 1 (DER) and 2 (DER++), Eqs. 5 and 6.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from strategies.contract import Batch, Forward, Hyperparameters, Strategy, StreamSizes, TaskData
from strategies.lazy import F, no_grad, torch
from strategies.parts.buffers import BufferState, buffer_bytes, n_remembered, put, reservoir_slots, write

if TYPE_CHECKING:
    from torch import Tensor

    from strategies.layout import IncrementalType
    from strategies.learner import Learner

_FILL_BATCH = 1024


class LogitReplayHyperparameters(Hyperparameters):
    """How many examples are kept with their logits, how many join a step, and how much the logits weigh."""

    buffer_size: int = Field(500, ge=1, description="examples kept with their logits, all tasks together")
    replay_ratio: float = Field(
        0.5, ge=0, le=0.95, description="share of a step's examples that is remembered, all draws together"
    )
    memory_batch_size: int | None = Field(
        None, ge=1, description="remembered examples per draw; replaces replay_ratio if given"
    )
    logit_weight: float = Field(0.5, ge=0, description="α, weight of the squared distance to the stored logits")

    def unused(self) -> frozenset[str]:
        """Return `replay_ratio` if the number of remembered examples is given."""
        return frozenset() if self.memory_batch_size is None else frozenset({"replay_ratio"})


class DerHyperparameters(LogitReplayHyperparameters):
    """The paper's choices of α and β lie between 0.1 and 1."""

    new_outputs: Literal["left_out", "as_added"] = Field(
        "as_added",
        description="`class` with seen outputs only: outputs younger than an example are held on it at what they were "
        "when their head was added, or are not compared",
    )


class DerPlusPlusHyperparameters(DerHyperparameters):
    """Those of DER, and the weight of the labels."""

    label_weight: float = Field(0.5, ge=0, description="β, weight of the cross-entropy of a second draw")


@dataclass
class DerState(BufferState):
    """The buffer, with logits.

    Args:
        logits: of each example at its insertion, one column per output, (n, n_outputs) float32; 0 for outputs that did
            not compete then and have not been filled since.
    """

    logits: Tensor | None = None


class Der(Strategy):
    """Add α times the mean squared distance between the stored and present logits of remembered examples (Eq. 5).

    The buffer is a reservoir over the stream, including the present task. It takes examples in the last epoch of a
    task, so each counts once; with one epoch this is the paper's algorithm. The stored logits are those of the training
    step in which the example enters, and are never updated.

    The authors' head has the outputs of all tasks from the start, so the stored logits hold later classes down on old
    examples; `active_outputs: all` does the same. If heads grow, the logits of each new, untrained head are computed
    once for every remembered example and stored beside the older ones, which do not change (`new_outputs: as_added`).
    With `left_out`, only outputs that competed at insertion are compared, which leaves DER at the naive level in
    `class`.

    Differs: draws are with replacement; nothing is augmented.
    """

    name = "der"
    summary = "holds the logits of remembered examples at what they were when first seen"
    paper = "Buzzega et al. 2020, arXiv 2004.07211"
    hyperparameter_class = DerHyperparameters
    fixed_by_state: ClassVar[frozenset[str]] = frozenset({"buffer_size"})
    state_class = DerState
    knows_kept_bytes = True
    differentiates_itself = False
    naive_at: ClassVar[Mapping[str, Any]] = {"logit_weight": 0.0}
    n_draws: ClassVar[int] = 1

    def __init__(self, learner: Learner, hyperparameters: Any) -> None:
        super().__init__(learner, hyperparameters)
        self._columns = torch.arange(learner.layout.n_outputs, device=learner.device)
        self._bounds = torch.tensor(_competing(learner, self._fills), device=learner.device)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Replace the state; of a network with fewer outputs, the stored logits get columns of 0 for the new ones."""
        super().load_state_dict(state)
        if self.state.logits is not None:
            self.state.logits = widened(self.state.logits, len(self._columns))

    def bytes_to_keep(self, sizes: StreamSizes) -> int:
        """Return the bytes of a full buffer with a logit for every output, or of all examples if there are fewer.

        A task that takes too few steps for one pass offers only the examples of these steps.
        """
        n = min(self.hyperparameters.buffer_size, sizes.n_in_last_passes(self.learner.settings))
        return buffer_bytes(n, sizes.example_bytes + 4 * len(self._columns))

    @property
    def _fills(self) -> bool:
        """Whether stored logits grow with the heads."""
        grows = self.learner.layout.incremental_type == "class" and self.learner.settings.active_outputs == "seen"
        return grows and self.hyperparameters.new_outputs == "as_added"

    @no_grad
    def begin_task(self, task: TaskData) -> None:
        """Store the logits of the task's new, untrained head for the remembered examples."""
        if not self._fills or len(self.state) == 0:
            return
        network = self.learner.network
        network.eval()
        for index in self.learner.new_tasks:
            head = network.heads[index]
            found = [head(network.backbone(inputs)) for inputs in torch.split(self.state.inputs, _FILL_BATCH)]
            start, stop = self.learner.layout.ranges[index]
            self.state.logits[:, start:stop] = torch.cat(found)

    def penalty(self, batch: Batch, forward: Forward) -> Tensor | None:
        """Return α MSE on one draw, plus β times the cross-entropy on a second if there are two (Eq. 6).

        Both draws share one forward pass, apart from the new examples, as in the authors' code.
        """
        n_logits, n_labels = self._draw_sizes()
        if n_logits + n_labels == 0 or len(self.state) == 0:
            return None
        generator = self.learner.generators["der/draw"]
        rows = torch.randint(len(self.state), (n_logits + n_labels,), generator=generator).to(self.learner.device)
        ids = self.state.task_ids.index_select(0, rows)
        logits = self._logits(self.state.inputs.index_select(0, rows), ids)
        total = logits.new_zeros(())
        if n_logits:
            distance = self._distance(logits[:n_logits], rows[:n_logits], ids[:n_logits])
            total = total + self.hyperparameters.logit_weight * distance
        if n_labels:
            labels = self.state.labels.index_select(0, rows[n_logits:])
            total = total + self.hyperparameters.label_weight * self.learner.label_loss(logits[n_logits:], labels)
        return total

    @no_grad
    def after_step(self, batch: Batch, forward: Forward) -> None:
        """Offer the new examples and their logits from before the step to the reservoir."""
        if not self.learner.in_last_pass:
            return
        n, capacity = batch.n_new, self.hyperparameters.buffer_size
        slots, rows = reservoir_slots(self.state.n_offered, n, capacity, self.learner.generators["der/buffer"])
        self.state.n_offered += n
        if len(rows) == 0:
            return
        slots, rows = slots.to(self.learner.device), rows.to(self.learner.device)
        ids = batch.task_ids
        ids = torch.full_like(rows, ids) if isinstance(ids, int) else ids[rows]
        stored = forward.logits.new_zeros(len(rows), len(self._columns))
        stored[:, forward.first : forward.first + forward.logits.shape[1]] = forward.logits.detach()[rows]
        self.state.logits = put(self.state.logits, slots, stored.masked_fill(~self._competed(ids), 0.0))
        write(self.state, slots, Batch(batch.inputs[rows], batch.labels[rows], ids), self.learner.task)

    def _draw_sizes(self) -> tuple[int, int]:
        """Return how many examples to draw for the logits and for the labels; 0 if that term has no weight."""
        own = self.hyperparameters
        n = own.memory_batch_size
        total = n_remembered(self.learner.settings.batch_size, own.replay_ratio) if n is None else n * self.n_draws
        n_labels = total // 2 if self.n_draws == 2 else 0
        beta = own.label_weight if self.n_draws == 2 else 0
        return (total - n_labels) if own.logit_weight else 0, n_labels if beta else 0

    def _logits(self, inputs: Tensor, ids: Tensor) -> Tensor:
        """Return the present logits (B, C) float32 from output 0 on; in `task`, each example from its own head."""
        learner = self.learner
        return learner.network.training_logits(inputs, ids, learner.n_seen, learner.settings.active_outputs)[0]

    def _distance(self, logits: Tensor, rows: Tensor, ids: Tensor) -> Tensor:
        """Return the mean squared distance () to the stored logits, over all compared entries."""
        assert self.state.logits is not None
        width = logits.shape[1]
        compared = self._competed(ids)[:, :width]
        stored = self.state.logits.index_select(0, rows)[:, :width]
        return torch.where(compared, logits - stored, 0.0).square().sum() / compared.sum()

    def _competed(self, ids: Tensor) -> Tensor:
        """Return which outputs are compared for examples of the tasks `ids` (B,), (B, n_outputs) bool."""
        bounds = self._bounds.index_select(0, ids)
        return (self._columns >= bounds[:, :1]) & (self._columns < bounds[:, 1:])


class DerPlusPlus(Der):
    """DER plus β times the cross-entropy of a second, independent draw (Eq. 6); the ratio is split evenly."""

    name = "der++"
    summary = "der, and trains on the labels of a second draw of remembered examples"
    hyperparameter_class = DerPlusPlusHyperparameters
    naive_at: ClassVar[Mapping[str, Any]] = {"logit_weight": 0.0, "label_weight": 0.0}
    notes: ClassVar[Mapping[IncrementalType, str]] = {}
    n_draws: ClassVar[int] = 2


def widened(logits: Tensor, n_outputs: int) -> Tensor:
    """Return logits (n, C) float32 with columns of 0 for further outputs, (n, n_outputs) if C is less."""
    return F.pad(logits, (0, max(n_outputs - logits.shape[1], 0)))


def _competing(learner: Learner, fills: bool) -> list[tuple[int, int]]:
    """Return for each task the first output that is compared on its examples, and one past the last.

    These are the outputs that compete while the task trains, or all if the stored logits grow (`fills`).
    """
    layout, active = learner.layout, learner.settings.active_outputs
    if layout.incremental_type != "class" or active == "current":
        return list(layout.ranges)
    if active == "all" or fills:
        return [(0, layout.n_outputs)] * layout.n_tasks
    return [(0, stop) for _, stop in layout.ranges]
