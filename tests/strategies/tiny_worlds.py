"""Streams and learners small enough to check by hand: 4 inputs, a backbone of 6 and 5 units, 2 classes a task."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from strategies import (
    STRATEGIES,
    Generators,
    IncrementalType,
    Learner,
    Network,
    OutputLayout,
    Strategy,
    TaskData,
    TrainingSettings,
)
from strategies.parts.layers import initialise_layer

N_INPUTS, N_HIDDEN, N_FEATURES, WIDTH = 4, 6, 5, 2
N_EXAMPLES = 20
KINDS: tuple[IncrementalType, ...] = ("task", "domain", "class")
N_BACKBONE_WEIGHTS = N_INPUTS * N_HIDDEN + N_HIDDEN * N_FEATURES
N_BACKBONE_BIASES = N_HIDDEN + N_FEATURES
N_HEAD = N_FEATURES * WIDTH + WIDTH


def make_layout(kind: IncrementalType, n_tasks: int = 3) -> OutputLayout:
    first = [0 if kind == "domain" else WIDTH * task for task in range(n_tasks)]
    return OutputLayout(kind, tuple((start, start + WIDTH) for start in first))


def make_task(index: int, kind: IncrementalType = "task", n: int = N_EXAMPLES, scale: float = 1.0) -> TaskData:
    generator = torch.Generator().manual_seed(100 + index)
    classes = torch.arange(n) % WIDTH
    inputs = torch.randn(n, N_INPUTS, generator=generator)
    inputs[:, 0] += 2.0 * classes
    first = make_layout(kind, index + 1).ranges[index][0]
    return TaskData(index, inputs * scale, classes + first, index)


def make_backbone(generator: torch.Generator, widths: tuple[int, ...] = (N_HIDDEN, N_FEATURES)) -> nn.Sequential:
    layers: list[nn.Module] = []
    fan_in = N_INPUTS
    for fan_out in widths:
        linear = nn.Linear(fan_in, fan_out)
        initialise_layer(linear, generator)
        layers += [linear, nn.ReLU()]
        fan_in = fan_out
    return nn.Sequential(*layers)


def make_network(kind: IncrementalType, n_heads: int, n_tasks: int = 3, seed: int = 0) -> Network:
    generators = Generators(seed)
    network = Network(make_backbone(generators.fresh("init/backbone")), N_FEATURES, make_layout(kind, n_tasks))
    network.add_heads(n_heads, torch.device("cpu"), generators.fresh)
    return network


def make_settings(**changes: Any) -> TrainingSettings:
    return TrainingSettings(**({"epochs": 2, "batch_size": 8, "learning_rate": 0.1} | changes))


def make_learner(
    *methods: str | type[Strategy],
    kind: IncrementalType = "task",
    n_tasks: int = 3,
    seed: int = 0,
    hyperparameters: dict[str, Any] | None = None,
    widths: tuple[int, ...] = (N_HIDDEN, N_FEATURES),
    past_task: Callable[[int], TaskData] | None = None,
    **settings: Any,
) -> Learner:
    """Return a learner of the methods; `hyperparameters` go to the last of them."""
    generators = Generators(seed)
    strategies = [STRATEGIES[method] if isinstance(method, str) else method for method in methods]
    chosen = [strategy.hyperparameter_class() for strategy in strategies]
    if hyperparameters:
        chosen[-1] = strategies[-1].hyperparameter_class(**hyperparameters)
    return Learner(
        build=lambda: Network(
            make_backbone(generators.fresh("init/backbone"), widths), widths[-1], make_layout(kind, n_tasks)
        ),
        past_task=past_task or (lambda index: make_task(index, kind)),
        methods=list(zip(strategies, chosen, strict=True)),
        settings=make_settings(**settings),
        generators=generators,
        device=torch.device("cpu"),
    )


def learn_tasks(learner: Learner, tasks: range | list[int]) -> Learner:
    for index in tasks:
        learner.learn(make_task(index, learner.layout.incremental_type))
    return learner


def parameters_of(learner: Learner) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in learner.network.named_parameters()}


def gradients_of(learner: Learner) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in learner.network.named_parameters() if p.grad is not None}


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    loaded: dict[str, Any] = torch.load(file, weights_only=True)
    return loaded


def same(one: object, other: object) -> bool:
    """Return whether two nests of dicts, lists, tensors and numbers are equal bit for bit."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    return type(one) is type(other) and one == other
