"""Maximally interfered retrieval: replay what the next step would hurt most.

Source: Aljundi et al. 2019, arXiv 1908.04742, section 3.1 and algorithm 1 (ER-MIR).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from strategies.contract import Batch
from strategies.lazy import F, torch
from strategies.methods.replay import Replay, ReplayHyperparameters
from strategies.parts.buffers import draw

if TYPE_CHECKING:
    from torch import Tensor, nn


class MirHyperparameters(ReplayHyperparameters):
    """Those of replay, and how many examples it chooses from."""

    candidate_factor: int = Field(
        5,
        ge=1,
        le=1000,
        description="times as many candidates are drawn as used, the most hurt ones; 1 is replay",
    )

    def unused(self) -> frozenset[str]:
        """Return what `replay` does, and the number of candidates if nothing is replayed."""
        is_off = self.memory_batch_size is None and self.replay_ratio == 0
        return super().unused() | (frozenset({"candidate_factor"}) if is_off else frozenset())


class Mir(Replay):
    """Replay in which the remembered examples of a step are those whose loss a step on the new ones would raise most.

    For each step, candidates are drawn from the buffer, none twice, and a virtual step θ - η ∇L(new examples) is taken.
    The candidates with the largest loss after it less the loss before it join the batch. With no more candidates than
    places in the batch, because the buffer is that small or the factor is 1, it is plain replay.

    Differs: the virtual step is plain SGD at the learning rate of training, without momentum, weight decay or clipping,
    whatever the optimizer, and candidates are ranked by losses without class weights.
    It is measured in evaluation mode, so norms use their running statistics. The authors' code may measure the rise
    from the least loss that an example ever had, and draws from past tasks alone; here too, but for `filled`.
    """

    name = "mir"
    version = 2
    summary = "replays those remembered examples whose loss the next step would raise most"
    paper = "Aljundi et al. 2019, arXiv 1908.04742"
    hyperparameter_class = MirHyperparameters

    def extend_batch(self, batch: Batch) -> Batch:
        """Return the new examples followed by the remembered ones that they interfere with most."""
        n = self.hyperparameters.n_remembered(self.learner.settings.batch_size)
        if n == 0 or len(self.state) == 0:
            return batch
        generator, factor = self.learner.generators["replay"], self.hyperparameters.candidate_factor
        if factor == 1 or len(self.state) <= n:
            return batch.with_remembered(draw(self.state, n, generator))
        drawn = torch.randperm(len(self.state), generator=generator)[: factor * n].to(self.learner.device)
        pool = self._remembered(drawn)
        hurt = self._interference(batch, pool).topk(n).indices.sort().values
        return batch.with_remembered(self._remembered(drawn[hurt]))

    def _remembered(self, rows: Tensor) -> Batch:
        state = self.state
        return Batch(*(values.index_select(0, rows) for values in (state.inputs, state.labels, state.task_ids)))

    def _interference(self, batch: Batch, pool: Batch) -> Tensor:
        """Return how much a step on `batch` raises the loss of each example of `pool`, (M,) float32."""
        network = self.learner.network
        moved = [p for p in network.parameters() if p.requires_grad]
        stepped, kept = self._stepped(batch, moved), [p.detach() for p in moved]
        with torch.no_grad():
            before = self._losses(pool)
            _place(moved, stepped)
            try:
                after = self._losses(pool)
            finally:
                _place(moved, kept)
        if not network.training:
            network.train()
        return after - before

    def _stepped(self, batch: Batch, moved: list[nn.Parameter]) -> list[Tensor]:
        """Return the parameters after a plain step on `batch`. The network is in evaluation mode then, if it has any.

        Parameters that the loss does not depend on are returned as they are.
        """
        learner, active = self.learner, self.learner.settings.active_outputs
        cut = learner.network.training_pass(batch.inputs, batch.task_ids, learner.n_seen, active)
        gradients: Sequence[Tensor | None]
        if cut is None:
            learner.network.eval()
            gradients = torch.autograd.grad(learner.cross_entropy(batch), moved, allow_unused=True)
        else:
            _drop_gradients(moved)
            logits, first = learner.network.competing(cut.logits, batch.task_ids, active)
            cut.backward(learner.label_loss.with_gradient(logits, batch.labels, first)[1])
            gradients = [parameter.grad for parameter in moved]
            _drop_gradients(moved)
        rate = learner.settings.learning_rate
        with torch.no_grad():
            return [
                # the memory of a gradient of one's own is at hand, and new memory is not
                p.detach() if g is None else torch.add(p, g, alpha=-rate, out=None if cut is None else g)
                for p, g in zip(moved, gradients, strict=True)
            ]

    def _losses(self, pool: Batch) -> Tensor:
        """Return the cross-entropy of each example among the outputs that compete for it, (M,) float32."""
        network, active = self.learner.network, self.learner.settings.active_outputs
        found = network.look(pool.inputs, pool.task_ids, self.learner.n_seen, active)
        logits, first = network.competing(found, pool.task_ids, active)
        return F.cross_entropy(logits, pool.labels - first, reduction="none")


def _place(parameters: list[nn.Parameter], values: list[Tensor]) -> None:
    """Let parameters hold other values, without a copy."""
    for parameter, value in zip(parameters, values, strict=True):
        parameter.data = value


def _drop_gradients(parameters: list[nn.Parameter]) -> None:
    for parameter in parameters:
        parameter.grad = None
