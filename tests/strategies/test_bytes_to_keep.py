"""What methods say before training that they will keep, counted by hand; trials hold them to it elsewhere."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from tiny_worlds import KINDS, make_layout, make_learner, make_settings, make_task
from torch import Tensor, nn

from strategies import STRATEGIES, Generators, Learner, Network, StreamSizes, TaskData

SIZES = {
    "task": StreamSizes((20, 20, 20), (10,) * 6, (4,)),
    "domain": StreamSizes((20, 20, 20), (30, 30), (4,)),
    "class": StreamSizes((20, 20, 20), (10,) * 6, (4,)),
}
BACKBONE, HEAD = (4 * 6 + 6) + (6 * 5 + 5), 5 * 2 + 2
ALL, SHARED = BACKBONE + 3 * HEAD, BACKBONE + HEAD
VAE = (4 * 8 + 8) + (8 * 8 + 8) + (8 * 6 + 6) + (3 * 8 + 8) + (8 * 8 + 8) + (8 * 4 + 4)
SMALL_VAE = {"latent_size": 3, "hidden_size": 8}


@pytest.mark.parametrize(
    ("method", "kind", "own", "settings", "expected"),
    [
        ("naive", "class", {}, {}, 0),
        ("freeze", "class", {}, {}, 0),
        ("lwf", "class", {}, {}, 0),
        ("pnn", "task", {}, {}, 0),
        ("joint", "class", {}, {}, 40 * (16 + 8)),
        ("replay", "class", {"buffer_size": 9}, {}, 9 * (16 + 16)),
        ("replay", "class", {"buffer_size": 99, "buffer": "class_balanced"}, {}, 60 * (16 + 24)),
        ("replay", "class", {"buffer_size_per_class": 4}, {}, 6 * 4 * (16 + 24)),
        ("replay", "domain", {"buffer_size_per_class": 4}, {}, 2 * 4 * (16 + 24)),
        ("replay", "class", {"buffer_size": 99, "filled": "while_training"}, {"iterations": 2}, 3 * 16 * (16 + 16)),
        ("mer", "domain", {"buffer_size": 99}, {}, 60 * (16 + 16)),
        ("er-ace", "class", {"buffer_size": 9}, {}, 9 * (16 + 16)),
        ("cls-er", "class", {"buffer_size": 9}, {}, 9 * (16 + 16) + 2 * 4 * ALL),
        ("cls-er", "domain", {"buffer_size": 99}, {}, 60 * (16 + 16) + 2 * 4 * SHARED),
        ("mir", "class", {"buffer_size": 9}, {}, 9 * (16 + 16)),
        ("gdumb", "class", {"buffer_size": 9}, {}, 9 * (16 + 24)),
        ("wa", "class", {}, {}, 0),
        ("l2", "class", {}, {}, 4 * ALL + 4 * (4 + 3 * 2)),
        ("l2", "domain", {"penalty_weight": 0.0}, {}, 4 * SHARED + 4 * (4 + 2)),
        ("l2-init", "class", {}, {}, 4 * ALL),
        ("shrink-and-perturb", "class", {}, {}, 0),
        ("redo", "class", {}, {}, 0),
        ("cbp", "class", {}, {}, (6 + 5) * (8 + 4 + 4)),
        ("cbp", "task", {"replacement_rate": 0.0}, {}, (6 + 5) * (8 + 4 + 4)),
        ("agem", "task", {"buffer_size": 9}, {}, 9 * (16 + 16)),
        ("gem", "task", {"buffer_size": 10}, {}, (4 + 3 + 3) * (16 + 8)),
        ("gem", "task", {"buffer_size": 2}, {}, 2 * (16 + 8)),
        ("gem", "domain", {"buffer_size": 100}, {}, 60 * (16 + 8)),
        ("der", "class", {"buffer_size": 9}, {}, 9 * (16 + 16 + 4 * 6)),
        ("der", "domain", {"buffer_size": 9}, {}, 9 * (16 + 16 + 4 * 2)),
        ("der++", "task", {"buffer_size": 99}, {}, 60 * (16 + 16 + 4 * 6)),
        ("x-der", "class", {"buffer_size": 9}, {"active_outputs": "all"}, 9 * (16 + 24 + 4 * 6 + 8)),
        ("x-der", "class", {"buffer_size": 99}, {"iterations": 2}, 60 * (16 + 24 + 4 * 6 + 8)),
        ("der", "class", {"buffer_size": 99}, {"iterations": 2}, 3 * 16 * (16 + 16 + 4 * 6)),
        ("der", "class", {"buffer_size": 99}, {"iterations": 3}, 60 * (16 + 16 + 4 * 6)),
        ("icarl", "class", {"buffer_size": 13}, {}, 6 * 2 * 16 + 6 * 5 * 4),
        ("icarl", "task", {"buffer_size": 999}, {}, 60 * 16 + 6 * 5 * 4),
        ("ewc", "task", {}, {}, 2 * 4 * ALL),
        ("ewc", "domain", {"variant": "online"}, {}, 2 * 4 * SHARED),
        ("ewc", "class", {"penalty_weight": 0.0}, {"active_outputs": "current"}, 2 * 4 * ALL),
        ("ewc", "class", {"variant": "online", "structure": "low_rank", "rank": 3}, {}, 5 * 4 * ALL),
        ("ewc", "domain", {"structure": "low_rank", "eigenvectors_in": "int8", "rank": 3}, {}, 11 * SHARED + 3 * 4 * 6),
        ("ewc", "task", {"structure": "kronecker"}, {}, 4 * (ALL + 5**2 + 6**2 + 7**2 + 5**2 + 3 * (6**2 + 2**2))),
        ("mas", "class", {}, {"active_outputs": "all"}, 2 * 4 * ALL),
        ("mas", "domain", {"penalty_weight": 0.0}, {}, 2 * 4 * SHARED),
        ("si", "task", {}, {}, 2 * 4 * ALL),
        ("si", "domain", {"penalty_weight": 0.0}, {}, 2 * 4 * SHARED),
        ("packnet", "task", {}, {}, 4 * 6 + 6 * 5),
        ("supsup", "task", {}, {}, 3 * (4 * 6 + 6 * 5)),
        # counts; sums; products of rows 0 to 7 with 10 columns, and of rows 8 and 9 with 2
        ("ridge", "class", {"features": 10}, {}, 6 * 8 + 6 * 10 * 4 + (8 * 10 + 2 * 2) * 4),
        ("ridge", "domain", {"features": 0}, {}, 2 * 8 + 2 * 4 * 8 + 4 * 4 * 8),
        ("slda", "task", {"features": 8}, {}, 6 * 8 + 6 * 8 * 4 + 8 * 8 * 4),
        ("ncm", "class", {}, {}, 6 * 8 + 6 * 4 * 8),
        ("generative-replay", "class", SMALL_VAE, {}, 4 * VAE + 2 * 4 * 4),
        ("generative-replay", "class", SMALL_VAE | {"replay_ratio": 0.0}, {}, 0),
        ("generative-replay", "class", SMALL_VAE | {"replay_ratio": 0.05}, {}, 0),  # 0.05 of 8 rounds to no example
    ],
)
def test_by_hand(method: str, kind: Any, own: dict[str, Any], settings: dict[str, Any], expected: int) -> None:
    learner = make_learner(method, kind=kind, hyperparameters=own, **settings)
    assert learner.strategies[0].bytes_to_keep(SIZES[kind]) == expected


def test_tasks_and_classes_that_are_small_have_their_own_share() -> None:
    sizes = StreamSizes((3, 20, 9), (1, 2, 10, 10, 9, 0), (4,))
    said = {
        method: make_learner(method, hyperparameters={"buffer_size": 24}).strategies[0].bytes_to_keep(sizes)
        for method in ("gem", "icarl", "replay")
    }
    assert said == {"gem": (3 + 8 + 8) * 24, "icarl": (1 + 2 + 4 + 4 + 4) * 16 + 6 * 5 * 4, "replay": 24 * 32}
    assert make_learner("joint").strategies[0].bytes_to_keep(sizes) == 23 * 24


@pytest.mark.parametrize("method", [name for name in STRATEGIES.own if STRATEGIES[name].alone == ""])
def test_one_task_keeps_what_is_said_too(method: str) -> None:
    learner = make_learner(method, n_tasks=1)
    sizes = StreamSizes((20,), (10, 10), (4,))
    said = learner.strategies[0].bytes_to_keep(sizes)
    learner.learn(make_task(0))
    assert said == learner.strategies[0].kept_bytes()


# A user's own network.


class Normed(nn.Module):
    """Norms, a frozen layer, and a tied weight."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen = nn.Linear(4, 6).requires_grad_(False)
        self.norm = nn.BatchNorm1d(6)
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)
        self.second.weight = self.first.weight
        self.n_frozen, self.n_trained = 4 * 6 + 6, 2 * 6 + 6 * 6 + 6 + 6

    def forward(self, inputs: Tensor) -> Tensor:
        values: Tensor = self.second(self.first(self.norm(self.frozen(inputs)).relu()).relu())
        return values


class Routed(nn.Module):
    """Two branches, one of which each batch takes."""

    def __init__(self) -> None:
        super().__init__()
        self.low, self.high = nn.Linear(4, 6), nn.Linear(4, 6)

    def forward(self, inputs: Tensor) -> Tensor:
        values: Tensor = (self.high if float(inputs.sum()) > 0 else self.low)(inputs)
        return values


class Lazy(nn.Module):
    """Weights whose shape the first batch decides, and random numbers in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.layer = nn.LazyLinear(6)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.layer(inputs) * torch.rand(())  # type: ignore[no-any-return]


def own_learner(backbone: type[nn.Module], method: str, kind: Any = "class") -> Learner:
    def build() -> Network:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            return Network(backbone(), 6, make_layout(kind))

    def past_task(index: int) -> TaskData:
        raise AssertionError

    methods = [(STRATEGIES[method], STRATEGIES[method].hyperparameter_class())]
    return Learner(build, past_task, methods, make_settings(), Generators(0), torch.device("cpu"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["ewc", "mas", "si"])
def test_norms_count_and_frozen_parameters_only_where_they_have_an_importance(method: str, kind: Any) -> None:
    learner = own_learner(Normed, method, kind)
    parts, net = (1 if kind == "domain" else 3), Normed()
    n = net.n_trained + parts * (6 * 2 + 2) + (net.n_frozen if method == "si" else 0)
    said = learner.strategies[0].bytes_to_keep(SIZES[kind])
    assert said == 2 * 4 * n
    for index in range(3):
        learner.learn(make_task(index, kind))
    assert learner.strategies[0].kept_bytes() == said


@pytest.mark.parametrize("method", ["ewc", "mas"])
def test_nothing_is_said_of_parameters_that_may_take_no_part(method: str) -> None:
    assert own_learner(Routed, method).strategies[0].bytes_to_keep(SIZES["class"]) is None
    said = own_learner(Routed, "si").strategies[0].bytes_to_keep(SIZES["class"])
    assert said == 2 * 4 * (2 * (4 * 6 + 6) + 3 * (6 * 2 + 2)), "SI measures every parameter"


@pytest.mark.parametrize("method", ["ewc", "mas", "si"])
def test_asking_changes_neither_the_network_nor_a_generator(method: str) -> None:
    learner = own_learner(Lazy, method)
    before, own = torch.get_rng_state(), learner.generators.state_dict()
    said = learner.strategies[0].bytes_to_keep(SIZES["class"])
    assert said == 2 * 4 * ((4 * 6 + 6) + 3 * (6 * 2 + 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert learner.generators.state_dict() == own
    assert isinstance(learner.network.backbone.layer.weight, nn.UninitializedParameter)
    assert len(learner.network.heads) == 0
