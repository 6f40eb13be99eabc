"""The one training step, and the life of a task around it.

Order of a task: `begin_task`, fresh optimizer, steps, `end_task`. Order of a step: extend the batch, logits, loss and
penalties, backward, adjust gradients, clip, optimizer, after-step. No strategy changes either order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from strategies.base import Batch, Hyperparameters, Strategy, TaskData, TrialDivergedError
from strategies.network import Network, OutputLayout
from strategies.seeds import Generators
from strategies.settings import TrainingSettings

_STEPS_BETWEEN_CHECKS = 500


class Learner:
    """A network, its optimizer and the strategies that guard it against forgetting.

    Args:
        build: returns a new untrained network without heads, the same each time.
        past_task: returns the training data of an earlier task, for methods that may read it again (`joint`).
        methods: strategy classes with their hyper-parameters, in the order in which their seams add up.
        settings: how each task is trained.
        generators: the trial's random generators.
        device: where everything lives.
    """

    def __init__(
        self,
        build: Callable[[], Network],
        past_task: Callable[[int], TaskData],
        methods: Sequence[tuple[type[Strategy], Hyperparameters]],
        settings: TrainingSettings,
        generators: Generators,
        device: torch.device,
    ) -> None:
        self._build = build
        self.past_task = past_task
        self.network = build().to(device)
        self.settings = settings
        self.generators = generators
        self.device = device
        self.optimizer: torch.optim.Optimizer | None = None
        self.n_seen = 0
        if settings.active_outputs == "all" or self.layout.incremental_type == "domain":
            self._grow(len(set(self.layout.ranges)))
        self.strategies = [strategy(self, hyperparameters) for strategy, hyperparameters in methods]
        self._penalties = self._filling("penalty")
        self._extenders = self._filling("extend_batch")
        self._adjusters = self._filling("adjust_gradients")
        self._after = self._filling("after_step")

    @property
    def layout(self) -> OutputLayout:
        """Return which outputs belong to which task."""
        return self.network.layout

    @property
    def n_tasks(self) -> int:
        """Return the number of tasks of the stream."""
        return self.layout.n_tasks

    # A task.

    def learn(self, task: TaskData) -> None:
        """Train on `task` and consolidate it.

        Raises:
            TrialDivergedError: where the loss or a parameter is no longer finite.
        """
        self.n_seen = task.index + 1
        self._grow(self.layout.head_of(task.index) + 1)
        data = task
        for strategy in self.strategies:
            strategy.begin_task(task)
        for strategy in self.strategies:
            data = strategy.training_data(data)
        if self.optimizer is None or not self.settings.keep_optimizer:
            self.reset_optimizer()
        self.fit(data, self.settings.epochs, self.settings.iterations)
        for strategy in self.strategies:
            strategy.end_task(task)

    def fit(self, data: TaskData, epochs: int, iterations: int | None = None) -> None:
        """Run the training steps of `epochs` passes over `data`, or of `iterations` steps where given.

        Raises:
            TrialDivergedError: where the loss or a parameter is no longer finite.
        """
        self.network.train()
        total = torch.zeros((), device=self.device)
        for step, batch in enumerate(self._batches(data, epochs, iterations), 1):
            total += self.step(batch)
            if step % _STEPS_BETWEEN_CHECKS == 0:
                _check_finite(total, f"the training loss of task {data.index} by step {step}")
        _check_finite(total, f"the training loss of task {data.index}")
        self._check_parameters(data.index)

    def step(self, batch: Batch) -> Tensor:
        """Take one optimizer step and return the loss on the batch, () float32."""
        assert self.optimizer is not None
        for strategy in self._extenders:
            batch = strategy.extend_batch(batch)
        self.optimizer.zero_grad(set_to_none=True)
        logits, first = self.network.training_logits(
            batch.inputs, batch.task_ids, self.n_seen, self.settings.active_outputs
        )
        loss = F.cross_entropy(logits, batch.labels - first if first else batch.labels)
        for strategy in self._penalties:
            penalty = strategy.penalty(batch, logits)
            if penalty is not None:
                loss = loss + penalty
        loss.backward()  # type: ignore[no-untyped-call]
        for strategy in self._adjusters:
            strategy.adjust_gradients()
        if self.settings.clip_gradient_norm is not None:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.clip_gradient_norm)
        self.optimizer.step()
        for strategy in self._after:
            strategy.after_step(batch)
        return loss.detach()

    @torch.no_grad()
    def logits(self, inputs: Tensor, task: int) -> Tensor:
        """Return logits (B, C) for inference on `task`; column 0 is `layout.inference_range(task, n_seen)[0]`."""
        for strategy in self.strategies:
            logits = strategy.logits(inputs, task)
            if logits is not None:
                return logits
        return self.network(inputs, task, max(self.n_seen, 1))  # type: ignore[no-any-return]

    # The parts.

    def reset_optimizer(self) -> None:
        """Start a fresh optimizer over every parameter that the network has now."""
        self.optimizer = make_optimizer(list(self.network.parameters()), self.settings)

    def start_from_scratch(self) -> None:
        """Replace the network by the untrained one that the trial began with, with as many heads as it has now."""
        n_heads = len(self.network.heads)
        self.network = self._build().to(self.device)
        self.network.add_heads(n_heads, self.device, self.generators.fresh)
        self.optimizer = None

    def state_dict(self) -> dict[str, Any]:
        """Return everything that must survive a restart at a task boundary, loadable with `weights_only=True`."""
        return {
            "n_seen": self.n_seen,
            "n_heads": len(self.network.heads),
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict() if self.optimizer and self.settings.keep_optimizer else None,
            "generators": self.generators.state_dict(),
            "strategies": [strategy.state_dict() for strategy in self.strategies],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what `state_dict` returned, as if there had been no stop."""
        self.n_seen = state["n_seen"]
        self._grow(state["n_heads"])
        self.network.load_state_dict(state["network"])
        if state["optimizer"] is not None:
            self.reset_optimizer()
            assert self.optimizer is not None
            self.optimizer.load_state_dict(state["optimizer"])
        self.generators.load_state_dict(state["generators"])
        for strategy, strategy_state in zip(self.strategies, state["strategies"], strict=True):
            strategy.load_state_dict(strategy_state)

    def _grow(self, n_heads: int) -> None:
        new = self.network.add_heads(n_heads, self.device, self.generators.fresh)
        if new and self.optimizer is not None and self.settings.keep_optimizer:
            self.optimizer.param_groups[0]["params"].extend(new)
            _start_momentum(self.optimizer, new)

    def _batches(self, data: TaskData, epochs: int, iterations: int | None) -> Iterator[Batch]:
        """Yield shuffled batches; an epoch passes once over the data, its last batch may be smaller."""
        generator = self.generators["batches"]
        remaining = iterations
        epoch = 0
        while (epoch < epochs) if remaining is None else (remaining > 0):
            order = torch.randperm(len(data), generator=generator).to(self.device)
            rows = torch.split(order, self.settings.batch_size)
            for chosen in rows if remaining is None else rows[:remaining]:
                yield data.take(chosen)
            epoch += 1
            remaining = None if remaining is None else remaining - len(rows)

    def _filling(self, seam: str) -> list[Strategy]:
        return [s for s in self.strategies if getattr(type(s), seam) is not getattr(Strategy, seam)]

    def _check_parameters(self, task: int) -> None:
        for name, parameter in self.network.named_parameters():
            _check_finite(parameter.detach().sum(), f"parameter {name} after task {task}")


def make_optimizer(parameters: list[nn.Parameter], settings: TrainingSettings) -> torch.optim.Optimizer:
    """Return the optimizer that `settings` name; parameters without a gradient are never moved by it."""
    rate, decay = settings.learning_rate, settings.weight_decay
    match settings.optimizer:
        case "sgd":
            sgd = torch.optim.SGD(parameters, lr=rate, momentum=settings.momentum, weight_decay=decay, fused=True)
            _start_momentum(sgd, parameters)
            return sgd
        case "adam":
            return torch.optim.Adam(parameters, lr=rate, weight_decay=decay, fused=True)
        case "adamw":
            return torch.optim.AdamW(parameters, lr=rate, weight_decay=decay, fused=True)
        case "rmsprop":
            return torch.optim.RMSprop(
                parameters, lr=rate, momentum=settings.momentum, weight_decay=decay, foreach=True
            )


def _start_momentum(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter]) -> None:
    """Give SGD a momentum of 0 for `parameters`: its fused step wants one for all or for none of those it moves."""
    if isinstance(optimizer, torch.optim.SGD) and optimizer.defaults["momentum"]:
        for parameter in parameters:
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)


def _check_finite(value: Tensor, what: str) -> None:
    if not torch.isfinite(value):
        raise TrialDivergedError(f"{what} is {value.item()}; lower the learning rate or the method's strength")
