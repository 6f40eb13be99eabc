"""Replay with two averaged networks, a fast and a slow one, that remembered answers are held to.

Source: Arani et al. 2022, arXiv 2201.12604, section 3 and algorithm 1 (CLS-ER).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from strategies.contract import Batch, Forward, StreamSizes, TaskData
from strategies.gradients.logit_term import LogitTerm
from strategies.lazy import no_grad, torch
from strategies.methods.replay import Replay, ReplayHyperparameters
from strategies.parts.buffers import BufferState
from strategies.parts.layers import grown_bytes

if TYPE_CHECKING:
    from torch import Tensor

    from strategies.network import Network


class ClsErHyperparameters(ReplayHyperparameters):
    """Those of replay, the consistency loss, and the two averages."""

    consistency_weight: float = Field(1.0, ge=0, description="λ of the squared difference to the averaged logits")
    stable_decay: float = Field(0.99, ge=0, lt=1, description="share that the slow average keeps at an update")
    stable_frequency: float = Field(0.7, gt=0, le=1, description="share of steps after which it is updated")
    plastic_decay: float = Field(0.99, ge=0, lt=1, description="share that the fast average keeps at an update")
    plastic_frequency: float = Field(0.9, gt=0, le=1, description="share of steps after which it is updated")

    def unused(self) -> frozenset[str]:
        """Return what `replay` does, and the fast average if nothing is held to it."""
        is_loose = self.consistency_weight == 0
        return super().unused() | (frozenset({"plastic_decay", "plastic_frequency"}) if is_loose else frozenset())


@dataclass
class ClsErState(BufferState):
    """The buffer and the two averages.

    Args:
        stable: parameters of the slow average by name, float32.
        plastic: those of the fast one.
        n_steps: optimizer steps taken so far.
    """

    stable: dict[str, Tensor] = field(default_factory=dict)
    plastic: dict[str, Tensor] = field(default_factory=dict)
    n_steps: int = 0


class ClsEr(Replay):
    """Replay, with λ times the mean squared difference of remembered logits to those of the better average.

    For each remembered example that is the average which gives its class the higher probability. After a step each
    average is updated with its frequency, α ← min(1 - 1/(n + 1), decay) after n steps. The slow one answers.

    Differs: the averaged networks normalise with the running statistics of the trained one, where the authors' code
    lets each keep its own. The difference is a mean over the outputs that compete for an example. New heads enter the
    averages with their first weights. The buffer takes a task's examples at its end, as in `replay`.
    """

    name = "cls-er"
    version = 2
    summary = (
        "replays, holds remembered answers to a fast and a slow average of the network, and answers by the slow one"
    )
    paper = "Arani et al. 2022, arXiv 2201.12604"
    hyperparameter_class = ClsErHyperparameters
    state_class = ClsErState
    alone = "it answers by an average of the network, which other parts do not see"
    naive_at: ClassVar[Mapping[str, Any]] = {
        "replay_ratio": 0.0,
        "memory_batch_size": None,
        "stable_decay": 0.0,
        "stable_frequency": 1.0,
    }

    def __init__(self, learner: Any, hyperparameters: Any) -> None:
        super().__init__(learner, hyperparameters)
        self._networks: dict[str, Network] = {}
        self._lists: dict[str, tuple[list[Tensor], list[Tensor]]] = {}

    def bytes_to_keep(self, sizes: StreamSizes) -> int:
        """Return the bytes of the buffer and of two numbers for each parameter."""
        return super().bytes_to_keep(sizes) + 2 * sum(grown_bytes(self.learner))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Replace the state; the networks of the old one are made anew when they are asked for."""
        super().load_state_dict(state)
        self._networks, self._lists = {}, {}

    def begin_task(self, task: TaskData) -> None:
        """Let the averages begin with the network, and new heads with their first weights."""
        for average in (self.state.stable, self.state.plastic):
            for name, parameter in self.learner.network.named_parameters():
                if name not in average:
                    average[name] = parameter.detach().clone()
        self._networks, self._lists = {}, {}

    def penalty(self, batch: Batch, forward: Forward) -> LogitTerm | None:
        """Return λ times the mean of (z - z*)² over remembered examples and the outputs that compete for them."""
        n, own = batch.n_new, self.hyperparameters
        if own.consistency_weight == 0 or len(batch.labels) == n:
            return None
        with torch.no_grad():
            logits, labels = forward.logits[n:], batch.labels[n:] - forward.first
            idle = torch.isinf(logits)
            ids = batch.task_ids if isinstance(batch.task_ids, int) else batch.task_ids[n:]
            both = torch.stack([self._answers(name, batch.inputs[n:], ids) for name in ("stable", "plastic")])
            both.masked_fill_(idle, -torch.inf)
            stable, plastic = both.softmax(2).gather(2, labels[:, None].expand(2, -1, -1))
            difference = (logits - torch.where(stable > plastic, both[0], both[1])).masked_fill_(idle, 0.0)
            n_compared = idle.numel() - idle.sum()
            gradient = torch.zeros_like(forward.logits)
            torch.mul(2.0 * difference, n_compared.reciprocal() * own.consistency_weight, out=gradient[n:])
            return LogitTerm(own.consistency_weight * difference.square().sum() / n_compared, gradient)

    @no_grad
    def after_step(self, batch: Batch, forward: Forward) -> None:
        """Fill the buffer as `replay` does, and update each average with its frequency, the fast one first."""
        super().after_step(batch, forward)
        state, own = self.state, self.hyperparameters
        state.n_steps += 1
        warm = 1 - 1 / (state.n_steps + 1)
        draws = torch.rand(2, generator=self.learner.generators["cls-er"]).tolist()
        for name, decay, frequency, drawn in (
            ("plastic", own.plastic_decay, own.plastic_frequency, draws[0]),
            ("stable", own.stable_decay, own.stable_frequency, draws[1]),
        ):
            if drawn < frequency:
                torch._foreach_lerp_(*self._pairs(name), 1 - min(warm, decay))

    def _pairs(self, name: str) -> tuple[list[Tensor], list[Tensor]]:
        """Return an average and the network's parameters in one order."""
        if name not in self._lists:
            average: dict[str, Tensor] = getattr(self.state, name)
            named = dict(self.learner.network.named_parameters())
            self._lists[name] = list(average.values()), [named[path].detach() for path in average]
        return self._lists[name]

    def logits(self, inputs: Tensor, task: int) -> Tensor | None:
        """Return the logits (B, C) of the slow average."""
        if not self.state.stable:
            return None
        network: Any = self._network("stable")
        found: Tensor = network(inputs, task, max(self.learner.n_seen, 1))
        return found

    def _answers(self, name: str, inputs: Tensor, ids: int | Tensor) -> Tensor:
        """Return the logits (B, C) of an average at the outputs in the training loss; not all compete for a row."""
        learner = self.learner
        return self._network(name).look(inputs, ids, learner.n_seen, learner.settings.active_outputs)

    def _network(self, name: str) -> Network:
        """Return the network of an average: parameters as in the state, buffers of the trained network."""
        if name not in self._networks:
            average: dict[str, Tensor] = getattr(self.state, name)
            trained = self.learner.network
            network = copy.deepcopy(trained).requires_grad_(False).eval()
            for path, parameter in network.named_parameters():
                parameter.data = average[path]
            shared = dict(trained.named_modules())
            for path, module in network.named_modules():
                for buffer in module._buffers:
                    module._buffers[buffer] = shared[path]._buffers[buffer]
            self._networks[name] = network
        return self._networks[name]
