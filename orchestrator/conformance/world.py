"""A world in which a method learns within milliseconds: three tasks of about twenty points and a tiny network."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from orchestrator.models.building import build_network
from orchestrator.models.settings import ModelSettings
from orchestrator.streams.blurry import blurred
from orchestrator.trial.diagnostics.plasticity import evaluated
from orchestrator.trial.setup import compute_repeatably
from strategies import (
    Generators,
    IncrementalType,
    Learner,
    OutputLayout,
    StreamSizes,
    TaskData,
    TrainingSettings,
    find_method,
)

N_TASKS = 3
WIDTH = 2
"""Classes a task."""

device = torch.device("cpu")
"""Where everything is computed. `pytest --device cuda` of this repository's tests changes it."""

_SHAPES: dict[str, tuple[int, ...]] = {"mlp": (1, 7), "cnn": (1, 8, 8), "resnet18": (1, 9, 9)}
"""Shape of an example by model. A user's own class gets the shape of `mlp`."""


class Stop(Exception):
    """Raised between two steps. Stands for the end of the process."""


@dataclass(frozen=True)
class Outcome:
    """Everything that can be observed of a learner after its tasks, as copies.

    Args:
        state: what a checkpoint holds, read back from a file.
        logits: of each task's examples at inference, (N, C) float32.
        kept_bytes: memory of each strategy.
        reports: what each strategy says of itself.
    """

    state: dict[str, Any]
    logits: list[Tensor]
    kept_bytes: list[int]
    reports: list[dict[str, Any]]


@dataclass(frozen=True)
class Case:
    """A method with its hyper-parameters on one incremental type.

    Args:
        method: its name in a spec.
        kind: the incremental type.
        hyperparameters: those that are not at their defaults.
        training: training settings that differ from those of this world.
        model: the network.
        is_blurry: whether tasks exchange examples with their neighbours.
    """

    method: str
    kind: IncrementalType = "task"
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    model: ModelSettings = field(default_factory=lambda: ModelSettings(hidden=(6, 5)))
    is_blurry: bool = False

    @property
    def input_shape(self) -> tuple[int, ...]:
        return _SHAPES.get(self.model.name, _SHAPES["mlp"])

    @property
    def layout(self) -> OutputLayout:
        """Return the outputs of the tasks."""
        first = [0 if self.kind == "domain" else WIDTH * task for task in range(N_TASKS)]
        return OutputLayout(self.kind, tuple((start, start + WIDTH) for start in first))

    @property
    def sizes(self) -> StreamSizes:
        """Return how many examples the tasks have."""
        labels = [self.task(index).labels for index in range(N_TASKS)]
        by_output = torch.bincount(torch.cat(labels), minlength=self.layout.n_outputs).tolist()
        return StreamSizes(tuple(map(len, labels)), tuple(by_output), self.input_shape)

    @cached_property
    def outcome(self) -> Outcome:
        """Return what a run over all tasks ends with. It is trained once and shared by the checks of this case."""
        return outcome_of(self.learned(), self)

    def with_(
        self, training: Mapping[str, Any] | None = None, hyperparameters: Mapping[str, Any] | None = None
    ) -> Case:
        """Return a new case with more training settings and hyper-parameters."""
        own, settings = {**self.hyperparameters, **(hyperparameters or {})}, {**self.training, **(training or {})}
        return replace(self, hyperparameters=own, training=settings)

    def as_naive(self) -> Case:
        """Return the same case for `naive`."""
        return replace(self, method="naive", hyperparameters={})

    def task(self, index: int) -> TaskData:
        """Return a task of 20 + `index` examples, a few of them of its neighbours if boundaries are blurry."""
        if not self.is_blurry:
            return self._task(index)

        def take(task: int, places: NDArray[np.int64]) -> TaskData:
            part = self._task(task).take(torch.from_numpy(places).to(device))
            return TaskData(task, part.inputs, part.labels, task)

        return blurred(index, [20 + task for task in range(N_TASKS)], 0.4, 0, take)

    def _task(self, index: int) -> TaskData:
        """Return 20 + `index` examples of two classes. Each task separates them in its own direction."""
        generator = torch.Generator().manual_seed(100 + index)
        n = 20 + index
        classes = torch.arange(n) % WIDTH
        inputs = torch.randn(n, *self.input_shape, generator=generator)
        inputs.flatten(1)[:, index] += 3.0 * classes
        labels = classes + self.layout.ranges[index][0]
        return TaskData(index, inputs.to(device), labels.to(device), index)

    def learner(self, seed: int = 0) -> Learner:
        """Return an untrained learner."""
        compute_repeatably(device)
        generators = Generators(seed)
        settings: dict[str, Any] = {"epochs": 2, "batch_size": 8, "learning_rate": 0.05, "momentum": 0.5}
        learner = Learner(
            build=lambda: build_network(self.model, self.input_shape, self.layout, generators.fresh("init/backbone")),
            past_task=self.task,
            methods=find_method(self.method).split(self.hyperparameters),
            settings=TrainingSettings(**settings | dict(self.training)),
            generators=generators,
            device=device,
        )
        learner.rows_at_once = learner.settings.batch_size
        return learner

    def learned(self, tasks: Iterable[int] = range(N_TASKS), seed: int = 0) -> Learner:
        """Return a learner that was trained on `tasks`."""
        return self.learn(self.learner(seed), tasks)

    def learn(self, learner: Learner, tasks: Iterable[int]) -> Learner:
        """Train `learner` on `tasks` and return it."""
        for index in tasks:
            learner.learn(self.task(index))
        return learner

    def learned_with_looks(self) -> Learner:
        """Return a learner that was asked about the tasks seen so far between all steps, as `evaluate_every` does."""
        learner = self.learner()
        for index in range(N_TASKS):

            def look(last: int = index) -> None:
                with evaluated(learner.network):
                    for task in reversed(range(last + 1)):
                        first, stop = self.layout.inference_range(task, last + 1)
                        logits = learner.logits(self.task(task).inputs, task)
                        assert logits.shape[1] == stop - first, f"answers {logits.shape[1]} classes within task {last}"
                        assert not bool(logits.isnan().any()), f"answers NaN within task {last}"

            learner.learn(self.task(index), look)
        return learner

    def learned_with_stops(self, stops: Iterable[tuple[int, int]]) -> Learner:
        """Return a learner that was trained on all tasks and stopped on the way, each time to go on from a file.

        Args:
            stops: (task, steps of this task taken before the stop). With 0 steps it is a stop between two tasks.
        """
        learner = self.learner()
        for index in range(N_TASKS):
            n_done = 0
            for n_steps in sorted(n for task, n in stops if task == index):
                if n_steps:
                    self._learn_until(learner, index, n_steps - n_done)
                state, n_done = through_a_file(learner.state_dict()), n_steps
                learner = self.learner()
                learner.load_state_dict(state)
            learner.learn(self.task(index))
        return learner

    def _learn_until(self, learner: Learner, task: int, n_steps: int) -> None:
        """Train on `task` for `n_steps` steps more and stop there."""
        left = n_steps

        def between_steps() -> None:
            nonlocal left
            left -= 1
            if left == 0:
                raise Stop

        try:
            learner.learn(self.task(task), between_steps)
        except Stop:
            return
        raise AssertionError(f"task {task} ended {left} steps before the stop")


def outcome_of(learner: Learner, case: Case) -> Outcome:
    """Return what can be observed of `learner`."""
    return Outcome(
        through_a_file(learner.state_dict()),
        logits_of(learner, case, range(N_TASKS)),
        [strategy.kept_bytes() for strategy in learner.strategies],
        [strategy.report() for strategy in learner.strategies],
    )


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    """Return `state` as a checkpoint gives it back: saved, and loaded with `weights_only=True`."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    loaded: dict[str, Any] = torch.load(file, weights_only=True)
    return loaded


def difference(one: object, other: object) -> str | None:
    """Return the path to the first value in which two nests differ, or None if they are equal bit for bit.

    Nests are outcomes, dicts, lists, tuples, tensors and plain values. A path reads like `.state.strategies[0].anchor`.
    """
    if isinstance(one, Outcome) and isinstance(other, Outcome):
        one, other = vars(one), vars(other)
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return None if one.dtype == other.dtype and torch.equal(one, other) else ""
    if isinstance(one, dict) and isinstance(other, dict):
        if one.keys() != other.keys():
            return ""
        return _first((f".{key}", one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        if len(one) != len(other):
            return ""
        return _first((f"[{index}]", *pair) for index, pair in enumerate(zip(one, other, strict=True)))
    return None if type(one) is type(other) and one == other else ""


def _first(items: Iterable[tuple[str, object, object]]) -> str | None:
    for at, one, other in items:
        inner = difference(one, other)
        if inner is not None:
            return at + inner
    return None


def equal(one: object, other: object) -> bool:
    """Return whether two nests are equal bit for bit."""
    return difference(one, other) is None


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
