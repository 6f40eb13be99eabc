"""A world so small that a method learns it in milliseconds: three tasks of some twenty points and a tiny network."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from orchestrator.models.building import build_network
from orchestrator.models.settings import ModelSettings
from strategies import Generators, IncrementalType, Learner, OutputLayout, TaskData, TrainingSettings, find_method

N_TASKS = 3
WIDTH = 2
"""Classes a task."""

_SHAPES: dict[str, tuple[int, ...]] = {"mlp": (1, 7), "cnn": (1, 8, 8), "resnet18": (1, 9, 9)}
"""Shapes of an example; that of `mlp` for a class of one's own."""


class Stop(Exception):
    """Raised between two steps, in place of the end of the process."""


@dataclass(frozen=True)
class Case:
    """A method with its hyper-parameters on one incremental type.

    Args:
        method: its name in a spec.
        kind: the incremental type.
        hyperparameters: those that are not at their defaults.
        training: training settings that are not those of the world.
        model: the network.
    """

    method: str
    kind: IncrementalType = "task"
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    model: ModelSettings = field(default_factory=lambda: ModelSettings(hidden=(6, 5)))

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Return the shape of one example."""
        return _SHAPES.get(self.model.name, _SHAPES["mlp"])

    @property
    def layout(self) -> OutputLayout:
        """Return the outputs of the tasks."""
        first = [0 if self.kind == "domain" else WIDTH * task for task in range(N_TASKS)]
        return OutputLayout(self.kind, tuple((start, start + WIDTH) for start in first))

    def with_(
        self, training: Mapping[str, Any] | None = None, hyperparameters: Mapping[str, Any] | None = None
    ) -> Case:
        """Return this case with more training settings and hyper-parameters."""
        own, settings = {**self.hyperparameters, **(hyperparameters or {})}, {**self.training, **(training or {})}
        return Case(self.method, self.kind, own, settings, self.model)

    def as_naive(self) -> Case:
        """Return the naive run beside this one."""
        return Case("naive", self.kind, {}, self.training, self.model)

    def task(self, index: int) -> TaskData:
        """Return a task of 20 + `index` examples, two classes that are apart in a direction of the task's own."""
        generator = torch.Generator().manual_seed(100 + index)
        n = 20 + index
        classes = torch.arange(n) % WIDTH
        inputs = torch.randn(n, *self.input_shape, generator=generator)
        inputs.flatten(1)[:, index] += 3.0 * classes
        return TaskData(index, inputs, classes + self.layout.ranges[index][0], index)

    def learner(self, seed: int = 0) -> Learner:
        """Return an untrained learner."""
        generators = Generators(seed)
        settings: dict[str, Any] = {"epochs": 2, "batch_size": 8, "learning_rate": 0.05, "momentum": 0.5}
        return Learner(
            build=lambda: build_network(self.model, self.input_shape, self.layout, generators.fresh("init/backbone")),
            past_task=self.task,
            methods=find_method(self.method).split(self.hyperparameters),
            settings=TrainingSettings(**settings | dict(self.training)),
            generators=generators,
            device=torch.device("cpu"),
        )

    def learned(self, tasks: Iterable[int] = range(N_TASKS), seed: int = 0) -> Learner:
        """Return a learner that was trained on `tasks`."""
        return self.learn(self.learner(seed), tasks)

    def learn(self, learner: Learner, tasks: Iterable[int]) -> Learner:
        """Train `learner` on `tasks` and return it."""
        for index in tasks:
            learner.learn(self.task(index))
        return learner

    def stopped(self, task: int, n_steps: int) -> dict[str, Any]:
        """Return the state, as a file holds it, of a learner that was stopped after `n_steps` steps of `task`."""
        learner = self.learned(range(task))
        taken = 0

        def between_steps() -> None:
            nonlocal taken
            taken += 1
            if taken == n_steps:
                raise Stop

        try:
            learner.learn(self.task(task), between_steps)
        except Stop:
            return through_a_file(learner.state_dict())
        raise AssertionError(f"task {task} has no {n_steps} steps")


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    """Return `state` as a checkpoint gives it back: saved, and loaded with `weights_only=True`."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    loaded: dict[str, Any] = torch.load(file, weights_only=True)
    return loaded


def equal(one: object, other: object) -> bool:
    """Return whether two nests of dicts, lists, tensors and numbers are equal bit for bit."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(equal(a, b) for a, b in zip(one, other, strict=True))
    return type(one) is type(other) and one == other


def parameters_of(learner: Learner) -> dict[str, Tensor]:
    """Return a copy of the network's parameters by name."""
    return {name: parameter.detach().clone() for name, parameter in learner.network.named_parameters()}


def logits_of(learner: Learner, case: Case, tasks: Iterable[int]) -> list[Tensor]:
    """Return the logits at inference on the examples of each of `tasks`, as an evaluation gets them."""
    learner.network.eval()
    return [learner.logits(case.task(index).inputs, index).clone() for index in tasks]


def tensors_in(value: object) -> list[Tensor]:
    """Return every tensor of a nest of dicts, lists and tuples."""
    if isinstance(value, Tensor):
        return [value]
    items: Iterable[object] = ()
    if isinstance(value, Mapping):
        items = value.values()
    elif isinstance(value, list | tuple):
        items = value
    return [tensor for item in items for tensor in tensors_in(item)]


Check = Callable[[Case], None]
