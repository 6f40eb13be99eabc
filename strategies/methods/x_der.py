"""Extended dark experience replay: the stored logits of past examples follow what is learned about them later.

Source: Boschini et al. 2022, arXiv 2201.00766; the terms are those of the authors' Mammoth (models/xder_ce.py).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from strategies.contract import Batch, Forward, Strategy, StreamSizes, TaskData
from strategies.lazy import no_grad, torch
from strategies.methods.der import LogitReplayHyperparameters, widened
from strategies.parts.buffers import BufferState, buffer_bytes, n_remembered, offer_class_balanced

if TYPE_CHECKING:
    from torch import Tensor

    from strategies.layout import IncrementalType
    from strategies.learner import Learner

_ROWS = 1024


class XDerHyperparameters(LogitReplayHyperparameters):
    """The weights of the terms, and the limit of what is written into memories."""

    label_weight: float = Field(0.5, ge=0, description="β, weight of the cross-entropy of a second draw")
    implant_limit: float = Field(0.85, gt=0, le=1, description="γ, largest stored later logit over the label's")
    constraint_weight: float = Field(0.1, ge=0, description="η, weight of the margin between outputs of two tasks")
    margin: float = Field(0.3, ge=0, description="m, by how much the outputs of the own task must be ahead")

    def unused(self) -> frozenset[str]:
        """Return what the others do, and `margin` if it has no weight."""
        return super().unused() | (frozenset({"margin"}) if self.constraint_weight == 0 else frozenset())


@dataclass
class XDerState(BufferState):
    """The buffer, with what its examples are held at.

    Args:
        targets: stored logits, one column per output, (n, n_outputs) float32.
        n_draws: how often each example was drawn in the present task, (n,) int64.
    """

    targets: Tensor | None = None
    n_draws: Tensor | None = None


class XDer(Strategy):
    """Hold remembered examples at stored logits, and write into these what the network learns about them later.

    With p, c and f the outputs of past, present and later tasks, the loss of a step is the sum of

    - the cross-entropy of new examples over c and f, which pushes nothing in p away;
    - α times the mean squared distance of a draw to its stored logits, over all outputs;
    - β times the cross-entropy of another draw over p alone;
    - η times the mean of what is above 0 of m + max p - max c, of the probabilities of new examples over p and c, where
      p is a constant; and the same of m + max f - max of the own task's outputs, of the logits of all examples.

    The present logits over c and f take the place of the stored ones, times γ h / max if their largest is above the
    stored logit h of the label: for all examples at the end of a task, and in it after the k-th draw of an example with
    probability 1/k. The buffer is class-balanced and filled at the end of a task, p of new examples limited likewise.

    With `active_outputs: seen` there is no f: nothing is prepared for later tasks, and stored logits get columns for a
    head when it is added. `active_outputs: all` is X-DER with cross-entropy on future heads.

    Differs: there is no contrastive loss on f, and nothing is augmented. The two draws of a step have no example in
    common, so none is dropped. The first task has no buffer; Mammoth's has a reservoir that is dropped at its end. If h
    is not positive, all logits are lowered by what is above it.
    """

    name = "x-der"
    summary = "holds remembered examples at logits that are renewed as later classes are learned"
    paper = "Boschini et al. 2022, arXiv 2201.00766"
    hyperparameter_class = XDerHyperparameters
    fixed_by_state: ClassVar[frozenset[str]] = frozenset({"buffer_size"})
    state_class = XDerState
    knows_kept_bytes = True
    differentiates_itself = False
    alone = "it has losses of its own for new and for remembered examples, which other parts would count twice"
    needs_whole_tasks = "it foresees and corrects logits by the task that brings a class"
    unsupported: ClassVar[Mapping[IncrementalType, str]] = dict.fromkeys(
        ("task", "domain"), "it balances the outputs of tasks that compete, and here none do; use der++"
    )

    def __init__(self, learner: Learner, hyperparameters: Any) -> None:
        super().__init__(learner, hyperparameters)
        if learner.settings.active_outputs == "current":
            raise ValueError("x-der: training.active_outputs must be seen or all, got current; set one, or use der++")
        self._ranges = torch.tensor(learner.layout.ranges, device=learner.device)
        self._drawn: tuple[Tensor, Tensor] | None = None

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Replace the state; of a network with fewer outputs, the stored logits get columns of 0 for the new ones."""
        super().load_state_dict(state)
        if self.state.targets is not None:
            self.state.targets = widened(self.state.targets, self.learner.layout.n_outputs)

    def bytes_to_keep(self, sizes: StreamSizes) -> int:
        """Return the bytes of a full buffer with a logit for every output, or of all examples if there are fewer."""
        n = min(self.hyperparameters.buffer_size, sizes.n_in_all)
        return buffer_bytes(n, sizes.example_bytes + 4 * self.learner.layout.n_outputs + 8, has_priorities=True)

    def begin_task(self, task: TaskData) -> None:
        """Store the logits of the task's new, untrained head for the remembered examples, if it is new."""
        if len(self.state) and self.learner.settings.active_outputs == "seen":
            self._implant(slice(None), self._answers(self.state.inputs), task.index)

    def classification_loss(self, batch: Batch, forward: Forward) -> Tensor:
        """Return the cross-entropy () of new examples over the outputs of the present task and later ones."""
        start = self._present()[0]
        return self.learner.label_loss(forward.logits[:, start:], batch.labels, start)

    def penalty(self, batch: Batch, forward: Forward) -> Tensor:
        """Return the sum () of all other terms, and note what was drawn."""
        own, state, (start, stop) = self.hyperparameters, self.state, self._present()
        logits, ids, total = forward.logits, torch.full_like(batch.labels, self.learner.task), 0.0
        rows, self._drawn = self._draw(), None
        if len(rows):
            n, network = len(rows) // 2, self.learner.network
            past = network.outputs(network.backbone(state.inputs[rows]), len(network.heads))
            self._drawn = rows, past.detach()
            distance = past[:n] - state.targets[rows[:n], : past.shape[1]]
            total = own.label_weight * self.learner.label_loss(past[n:, :start], state.labels[rows[n:]])
            total = total + own.logit_weight * distance.square().mean() if n else total
            logits, ids = torch.cat([logits, past]), torch.cat([ids, state.task_ids[rows]])
        if own.constraint_weight and start:
            shares = forward.logits[:, :stop].softmax(1)
            total = total + own.constraint_weight * self._behind(shares[:, start:], shares[:, :start].detach())
        if own.constraint_weight and logits.shape[1] > stop:
            columns = torch.arange(logits.shape[1], device=logits.device)
            other = (columns < self._ranges[ids][:, :1]) | (columns >= self._ranges[ids][:, 1:])
            total = total + own.constraint_weight * self._behind(logits.masked_fill(other, -math.inf), logits[:, stop:])
        return forward.logits.new_zeros(()) + total

    @no_grad
    def after_step(self, batch: Batch, forward: Forward) -> None:
        """Renew the stored logits of what was drawn, at the k-th draw of an example with probability 1/k."""
        if self._drawn is None:
            return
        (rows, logits), n_draws = self._drawn, self.state.n_draws
        n_draws[rows] += 1
        uniform = torch.rand(len(rows), generator=self.learner.generators["x-der/renew"]).to(rows.device)
        chosen = uniform * n_draws[rows] < 1
        self._implant(rows[chosen], logits[chosen], self.learner.task)

    @no_grad
    def end_task(self, task: TaskData) -> None:
        """Renew all stored logits, and offer each example of the task to the buffer once."""
        state, (start, _) = self.state, self._present()
        if len(state):
            self._implant(slice(None), self._answers(state.inputs), task.index)
        size, generator = self.hyperparameters.buffer_size, self.learner.generators["x-der/buffer"]
        old, new = offer_class_balanced(state, task, size, generator)
        fresh = widened(self._answers(task.inputs[new]), self.learner.layout.n_outputs)
        if start:
            fresh[:, :start] = self._limited(fresh[:, :start], fresh.gather(1, task.labels[new][:, None]))
        state.targets = fresh if state.targets is None else torch.cat([state.targets[old], fresh])
        state.n_draws = torch.zeros_like(state.labels)

    def _present(self) -> tuple[int, int]:
        """Return the first output of the present task, and one past its last."""
        return self.learner.layout.ranges[self.learner.task]

    def _draw(self) -> Tensor:
        """Return the rows (n,) int64 of both draws: half of them for the logits, the others for the labels."""
        n, ratio = self.hyperparameters.memory_batch_size, self.hyperparameters.replay_ratio
        total = n_remembered(self.learner.settings.batch_size, ratio) if n is None else 2 * n
        order = torch.randperm(len(self.state), generator=self.learner.generators["x-der/draw"])
        return order[:total].to(self.learner.device)

    @no_grad
    def _answers(self, inputs: Tensor) -> Tensor:
        """Return the logits (n, C) float32 in evaluation mode, in portions."""
        network = self.learner.network.eval()
        return torch.cat([network.outputs(network.backbone(p), len(network.heads)) for p in torch.split(inputs, _ROWS)])

    def _implant(self, rows: Any, logits: Tensor, task: int) -> None:
        """Store `logits` (n, C) of the outputs of `task` and of later ones for the examples `rows`, limited."""
        start, stop = self.learner.layout.ranges[task][0], logits.shape[1]
        held = self.state.targets[rows]
        held[:, start:stop] = self._limited(logits[:, start:], held.gather(1, self.state.labels[rows][:, None]))
        self.state.targets[rows] = held

    def _limited(self, logits: Tensor, truth: Tensor) -> Tensor:
        """Return `logits` (n, k), scaled to γ times `truth` (n, 1) at most in rows whose largest is above `truth`."""
        largest, limit = logits.max(1, keepdim=True).values, self.hyperparameters.implant_limit * truth
        lowered = torch.where(truth > 0, logits * (limit / largest), logits - (largest - truth))
        return torch.where(largest > truth, lowered, logits)

    def _behind(self, good: Tensor, bad: Tensor) -> Tensor:
        """Return the mean () of what is above 0 of m + max bad - max good, rows of which are examples; or 0."""
        short: Tensor = (self.hyperparameters.margin + bad.max(1).values - good.max(1).values).clamp_min(0)
        return short.sum() / (short > 0).sum().clamp_min(1)
