"""The one training step, and the life of a task around it.

Order of a task: `begin_task`, `prepare`, optimizer, steps, `end_task`. Order of a step: extend the batch, logits, loss
and penalties, backward, adjust gradients, clip, optimizer, after-step. No strategy changes either order. If
no network is trained, one pass over the task takes the place of the optimizer and its steps.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from strategies.contract import Batch, Forward, Hyperparameters, Strategy, TaskData
from strategies.gradients.label_loss import LabelLoss
from strategies.gradients.logit_term import LogitTerm
from strategies.gradients.perceptron import PerceptronPass
from strategies.layout import OutputLayout
from strategies.network import Network
from strategies.optimizers import make_optimizer
from strategies.progress import Progress, finite, take_one_pass
from strategies.seeds import Generators
from strategies.settings import TrainingSettings

_STEPS_BETWEEN_CHECKS = 500


class Learner:
    """A network, its optimizer, and the strategies against forgetting.

    Args:
        build: returns a new untrained network without heads, the same each time.
        past_task: returns the training data of an earlier task, for methods that read it again (`joint`).
        methods: strategy classes with their hyper-parameters, in the order in which their seams add up.
        settings: how each task is trained.
        generators: the trial's random generators.
        device: device of all tensors.
        class_names: the class behind each output, for class weights by name.
        planned_tasks: how many tasks there will be, if they are more than the layout has.

    Attributes:
        rows_at_once: examples of a portion, for methods that train no network.
        n_seen: tasks with examples so far: the present one is the last of them, unless some are of the next already.
        task: the task that is being trained or was trained last, from 0.
        new_tasks: those whose outputs compete since the present task began.
        progress: how far the training of a task has got, None between tasks.
    """

    rows_at_once: int = 1024

    def __init__(
        self,
        build: Callable[[], Network],
        past_task: Callable[[int], TaskData],
        methods: Sequence[tuple[type[Strategy], Hyperparameters]],
        settings: TrainingSettings,
        generators: Generators,
        device: torch.device,
        class_names: Sequence[str] = (),
        planned_tasks: int = 0,
    ) -> None:
        self._build = build
        self.past_task = past_task
        self.network = build().to(device)
        self.settings = settings
        self.generators = generators
        self.device = device
        self.optimizer: torch.optim.Optimizer | None = None
        self.n_seen, self.task, self.new_tasks = 0, 0, range(0)
        self.label_loss = LabelLoss(settings, class_names, self.layout.n_outputs, device)
        if settings.active_outputs == "all" or self.layout.incremental_type == "domain":
            self.network.add_heads(self.layout.n_heads, device, generators.fresh)
        self.planned_tasks = planned_tasks
        self.strategies = [strategy(self, hyperparameters) for strategy, hyperparameters in methods]
        self.progress: Progress | None = None
        self.in_last_pass = False
        self._losses = self._filling("classification_loss")
        self._penalties = self._filling("penalty")
        self._extenders = self._filling("extend_batch")
        self._needs_graph = any(s.differentiates_itself for s in (*self._losses, *self._penalties))
        self._adjusters = self._filling("adjust_gradients")
        self._after = self._filling("after_step")

    @property
    def layout(self) -> OutputLayout:
        """Return which outputs belong to which task."""
        return self.network.layout

    @property
    def n_tasks(self) -> int:
        """Return how many tasks there will be, as far as is known, for methods that plan ahead."""
        return max(self.layout.n_tasks, self.planned_tasks)

    @property
    def trains_network(self) -> bool:
        """Return whether the network is trained; else the strategies absorb each task in one pass."""
        return all(strategy.trains_network for strategy in self.strategies)

    @property
    def n_parameters(self) -> int:
        """Return how many numbers answer: parameters of the network, or what strategies have in its place."""
        if not self.trains_network:
            return sum(strategy.n_parameters() for strategy in self.strategies)
        return sum(parameter.numel() for parameter in self.network.parameters())

    @property
    def inside_task(self) -> bool:
        """Return whether a task is being trained."""
        return self.progress is not None

    def learn(self, task: TaskData, between_steps: Callable[[], None] | None = None) -> None:
        """Train on `task` and consolidate it; continue if a state inside this task was loaded.

        Args:
            task: the training examples.
            between_steps: called after every training step (not in consolidation). `state_dict` may be called there.

        Raises:
            TrialDivergedError: if the loss or a parameter is no longer finite.
        """
        resumed, self.task = self.progress is not None, task.index
        if not resumed:
            self.new_tasks = range(self.n_seen, task.last + 1)
            self.n_seen = task.last + 1
            self.network.add_heads(self.layout.head_of(task.last) + 1, self.device, self.generators.fresh)
            self.label_loss.count(task.labels)
            for strategy in self.strategies:
                strategy.begin_task(task)
            self.progress = Progress()
        data = task
        for strategy in self.strategies:
            strategy.prepare(task)
        for strategy in self.strategies:
            data = strategy.training_data(data)
        assert self.progress is not None
        if self.trains_network:
            self._renew_optimizer(keep_state=resumed or self.settings.keep_optimizer)
            epochs = next((s.epochs for s in self.strategies if s.epochs is not None), self.settings.epochs)
            self._fit(data, epochs, self.settings.iterations, self.progress, between_steps)
        else:
            take_one_pass(self, data, self.progress, between_steps)
        self.progress = None
        for strategy in self.strategies:
            strategy.end_task(task)

    def fit(self, data: TaskData, epochs: int, iterations: int | None = None) -> None:
        """Train for `epochs` passes over `data`, or for `iterations` steps if given.

        Raises:
            TrialDivergedError: if the loss or a parameter is no longer finite.
        """
        self._fit(data, epochs, iterations, Progress(), None)

    def _fit(
        self,
        data: TaskData,
        epochs: int,
        iterations: int | None,
        progress: Progress,
        between_steps: Callable[[], None] | None,
    ) -> None:
        """Train on from `progress`. An epoch is one pass over the shuffled data; its last batch may be smaller."""
        self.network.train()
        if len(data) == 0:
            return
        n_a_pass = math.ceil(len(data) / self.settings.batch_size)
        n_steps = epochs * n_a_pass if iterations is None else iterations
        last_pass = max(n_steps // n_a_pass - 1, 0)
        generator = self.generators["batches"]
        total = torch.tensor(progress.loss, device=self.device)
        batches: Sequence[Tensor] = ()
        for n_done in self.steps(progress.n_steps, n_steps):
            n_passes, n_in_pass = divmod(n_done, n_a_pass)
            if n_in_pass == 0:
                progress.order = generator.get_state()
            elif not batches:
                generator.set_state(progress.order)
            if n_in_pass == 0 or not batches:
                order = torch.randperm(len(data), generator=generator).to(self.device)
                batches = torch.split(order, self.settings.batch_size)
            self.in_last_pass = progress is self.progress and n_passes == last_pass
            total += self.step(data.take(batches[n_in_pass]))
            progress.count(len(batches[n_in_pass]), n_done + 1 == n_steps)
            if progress.n_steps % _STEPS_BETWEEN_CHECKS == 0:
                progress.loss = finite(total, f"the training loss of task {data.index} by step {progress.n_steps}")
            if between_steps is not None:
                between_steps()
        finite(total, f"the training loss of task {data.index}")
        self._check_parameters(data.index)

    def steps(self, first: int, stop: int) -> Iterable[int]:
        """Return the numbers of the steps to take. The estimate of `plan` takes a few of them and counts the rest.

        A method that trains something of its own loops over these too.
        """
        return range(first, stop)

    def step(self, batch: Batch) -> Tensor:
        """Take one optimizer step and return the loss of the batch, () float32."""
        assert self.optimizer is not None
        for strategy in self._extenders:
            batch = strategy.extend_batch(batch)
        self.optimizer.zero_grad(set_to_none=True)
        forward, loss = self._backward(batch)
        if self.settings.output_layer == "single":
            self._reach_all_heads()
        for strategy in self._adjusters:
            strategy.adjust_gradients()
        if self.settings.clip_gradient_norm is not None:
            moved = self.optimizer.param_groups[0]["params"]
            nn.utils.clip_grad_norm_(moved, self.settings.clip_gradient_norm)
        self.optimizer.step()
        for strategy in self._after:
            strategy.after_step(batch, forward)
        return loss

    def _backward(self, batch: Batch) -> tuple[Forward, Tensor]:
        """Set the gradients of the loss of `batch`, () float32, and return the outputs and the loss without graph."""
        cut = self._pass_without_graph(batch)
        forward = self._forward(batch) if cut is None else self._outputs_of(cut, batch)
        losses = (strategy.classification_loss(batch, forward) for strategy in self._losses)
        loss = next((found for found in losses if found is not None), None)
        terms = [found for s in self._penalties if (found := s.penalty(batch, forward)) is not None]
        known = [term for term in terms if isinstance(term, LogitTerm)]
        if cut is not None and loss is None and len(known) == len(terms):
            value, to_logits = self.label_loss.with_gradient(forward.logits, batch.labels, forward.first, known)
            cut.backward(to_logits)
            return forward, value
        loss = self.label_loss(forward.logits, batch.labels, forward.first) if loss is None else loss
        for term in terms:
            loss = loss + (term.in_graph(forward.logits) if isinstance(term, LogitTerm) else term)
        loss.backward()  # type: ignore[no-untyped-call]
        if cut is not None:
            cut.backward(cut.logits.grad, cut.features.grad)
        return forward, loss.detach()

    def _reach_all_heads(self) -> None:
        """Set missing gradients of heads to 0."""
        for parameter in self.network.heads.parameters():
            if parameter.grad is None and parameter.requires_grad:
                parameter.grad = torch.zeros_like(parameter)

    def _pass_without_graph(self, batch: Batch) -> PerceptronPass | None:
        """Return a pass whose graph begins at its outputs, None if the network or a strategy needs the whole graph."""
        if self._needs_graph:
            return None
        active = self.settings.active_outputs
        return self.network.training_pass(batch.inputs, batch.task_ids, self.n_seen, active)

    def _outputs_of(self, cut: PerceptronPass, batch: Batch) -> Forward:
        if self._losses or self._penalties:
            cut.begin_graph()
        competing = self.network.competing(cut.logits, batch.task_ids, self.settings.active_outputs)
        return Forward(cut.features, *competing)

    def cross_entropy(self, batch: Batch) -> Tensor:
        """Return the mean cross-entropy () float32 of `batch`, with its graph."""
        forward = self._forward(batch)
        return self.label_loss(forward.logits, batch.labels, forward.first)

    def _forward(self, batch: Batch) -> Forward:
        features = self.network.backbone(batch.inputs)
        active = self.settings.active_outputs
        return Forward(features, *self.network.training_outputs(features, batch.task_ids, self.n_seen, active))

    @torch.no_grad()
    def logits(self, inputs: Tensor, task: int) -> Tensor:
        """Return logits (B, C) for inference on `task`; column 0 is `layout.inference_range(task, n_seen)[0]`."""
        for strategy in self.strategies:
            if (logits := strategy.logits(inputs, task)) is not None:
                return logits
        return self.network(inputs, task, max(self.n_seen, 1))  # type: ignore[no-any-return]

    # The network, the optimizer and the state.

    def reset_optimizer(self) -> None:
        """Start a new optimizer over all parameters that require a gradient."""
        self.optimizer = make_optimizer([p for p in self.network.parameters() if p.requires_grad], self.settings)

    def start_from_scratch(self) -> None:
        """Replace the network by the untrained one that the trial began with, and give it as many heads."""
        self.network = self.untrained(len(self.network.heads)).to(self.device)
        self.optimizer = None

    def untrained(self, n_heads: int) -> Network:
        """Return the untrained network that the trial began with, on the CPU."""
        network = self._build()
        network.add_heads(n_heads, torch.device("cpu"), self.generators.fresh)
        return network

    def state_dict(self) -> dict[str, Any]:
        """Return everything that must survive a restart, which loads with `weights_only=True`.

        Call it between tasks, or between two steps of one. The tensors are no copies: save them before you train on.
        """
        keep = self.progress is not None or self.settings.keep_optimizer
        return {
            "n_seen": self.n_seen,
            "n_heads": len(self.network.heads),
            "class_counts": self.label_loss.counts,
            "network": self.network.state_dict(),
            "optimizer": self._optimizer_state() if self.optimizer and keep else None,
            "generators": self.generators.state_dict(),
            "strategies": [strategy.state_dict() for strategy in self.strategies],
            "progress": dataclasses.asdict(self.progress) if self.progress else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what `state_dict` returned. If a task was being trained, `learn` it next."""
        self.n_seen = state["n_seen"]
        self.label_loss.load_counts(state["class_counts"])
        for strategy, strategy_state in zip(self.strategies, state["strategies"], strict=True):
            strategy.load_state_dict(strategy_state)
        self.network.add_heads(state["n_heads"], self.device, self.generators.fresh)
        self.network.load_state_dict(state["network"])
        if state["optimizer"] is not None:
            self.reset_optimizer()
            assert self.optimizer is not None
            parameters = dict(self.network.named_parameters())
            for name, own in state["optimizer"].items():
                self.optimizer.state[parameters[name]] = copy.deepcopy(own)
        self.generators.load_state_dict(state["generators"])
        self.progress = Progress(**state["progress"]) if state["progress"] else None

    def _optimizer_state(self) -> dict[str, Any]:
        """Return the optimizer's state by parameter name, which does not depend on the order of parameters."""
        assert self.optimizer is not None
        state = self.optimizer.state
        return {name: dict(state[p]) for name, p in self.network.named_parameters() if p in state}

    def _renew_optimizer(self, keep_state: bool) -> None:
        """Start a new optimizer; with `keep_state`, continue from the state of the old one."""
        old = self.optimizer
        self.reset_optimizer()
        assert self.optimizer is not None
        for parameter in self.optimizer.param_groups[0]["params"] if old and keep_state else ():
            if old is not None and parameter in old.state:
                self.optimizer.state[parameter] = old.state[parameter]

    def _filling(self, seam: str) -> list[Strategy]:
        return [s for s in self.strategies if getattr(type(s), seam) is not getattr(Strategy, seam)]

    def _check_parameters(self, task: int) -> None:
        for name, parameter in self.network.named_parameters():
            finite(parameter.detach().sum(), f"parameter {name} after task {task}")
