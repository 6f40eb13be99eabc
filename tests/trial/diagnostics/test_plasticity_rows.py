"""Units, features and weights by hand, and a fresh network that leaves no trace."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from orchestrator.trial.diagnostics.plasticity import (
    evaluated,
    feature_rows,
    fresh_accuracy,
    own_accuracy,
    own_randomness,
)
from strategies import Network, OutputLayout, TaskData, TrainingSettings

LAYOUT = OutputLayout("class", ((0, 2), (2, 4)))


def network(backbone: nn.Module, n_features: int, n_heads: int = 2) -> Network:
    found = Network(backbone, n_features, LAYOUT)
    found.add_heads(n_heads, torch.device("cpu"), lambda purpose: torch.Generator().manual_seed(0))
    return found


def linear(weight: list[list[float]]) -> nn.Linear:
    layer = nn.Linear(len(weight[0]), len(weight), bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weight))
    return layer


def rows(found: Network, inputs: Tensor) -> dict[tuple[str, str], float]:
    return {(name, part): value for name, part, value in feature_rows(found.eval(), inputs)}


def test_dead_units_features_and_norms_by_hand() -> None:
    """Units are x, -x, 2y; x > 0 kills the second. Features are then (x, 2y): diag(2, 4) for these two examples."""
    net = network(nn.Sequential(linear([[1, 0], [-1, 0], [0, 2]]), nn.ReLU()), 3)
    found = rows(net, torch.tensor([[2.0, 0.0], [0.0, 2.0]]))
    assert found["dead_units", ""] == found["dead_units", "relu 1"] == pytest.approx(1 / 3)
    assert found["feature_rank", ""] == pytest.approx((4 + 16) / 16)
    assert found["weight_norm", "backbone.0"] == pytest.approx(math.sqrt(6))


def test_a_channel_is_dead_if_it_is_at_all_pixels() -> None:
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 2, 1, bias=False)
            with torch.no_grad():
                self.conv.weight.copy_(torch.tensor([1.0, -1.0]).view(2, 1, 1, 1))

        def forward(self, inputs: Tensor) -> Tensor:
            return torch.relu(F.relu(self.conv(inputs))).flatten(1)

    found = rows(network(Functional(), 8), torch.ones(3, 1, 2, 2))
    assert found["dead_units", "relu 1"] == found["dead_units", "relu 2"] == 0.5, "as a function, and again"
    assert found["dead_units", ""] == 0.5


def test_a_network_without_relu_has_no_dead_units() -> None:
    found = rows(network(nn.Sequential(nn.Linear(2, 3), nn.Tanh()), 3), torch.randn(4, 2))
    assert not [name for name, _ in found if name == "dead_units"]
    assert 1.0 <= found["feature_rank", ""] <= 2.0 + 1e-6


def test_accuracy_is_among_the_classes_of_the_task() -> None:
    """The head of task 1 answers right where x > 0; outputs of task 0 do not compete."""
    net = network(nn.Sequential(linear([[1.0], [-1.0]])), 2)
    with torch.no_grad():
        for head, scale in zip(net.heads, (100.0, 1.0), strict=True):
            head.weight.copy_(scale * torch.eye(2))  # type: ignore[operator, union-attr]
            head.bias.zero_()  # type: ignore[operator, union-attr]
    task = TaskData(1, torch.tensor([[1.0], [2.0], [-1.0], [-2.0]]), torch.tensor([2, 2, 3, 2]), 1)
    assert own_accuracy(net, task) == 0.75


def test_every_module_gets_its_own_mode_back() -> None:
    net = network(nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Dropout(0.5)), 3)
    net.train()
    net.backbone[1].eval()  # type: ignore[index, operator]
    modes = [module.training for module in net.modules()]
    with evaluated(net):
        assert not any(module.training for module in net.modules())
    assert [module.training for module in net.modules()] == modes


def settings(**changes: Any) -> TrainingSettings:
    return TrainingSettings(**({"batch_size": 4, "learning_rate": 0.1} | changes))


def learnable(index: int = 1) -> TaskData:
    generator = torch.Generator().manual_seed(index)
    labels = torch.arange(40) % 2
    inputs = torch.randn(40, 2, generator=generator)
    inputs[:, 0] += 6.0 * labels - 3.0
    return TaskData(index, inputs, labels + 2 * index, index)


def build(generator: torch.Generator) -> Network:
    layer = nn.Linear(2, 4)
    nn.init.uniform_(layer.weight, -0.5, 0.5, generator=generator)
    return Network(nn.Sequential(layer, nn.Dropout(0.1), nn.ReLU()), 4, LAYOUT)


def test_a_fresh_network_learns_and_leaves_the_random_numbers_as_they_were() -> None:
    state = torch.get_rng_state()
    found = fresh_accuracy(build, settings(), learnable(), learnable(), 30, seed=0, class_names=())
    assert found is not None
    assert found > 0.9
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(99)
    assert fresh_accuracy(build, settings(), learnable(), learnable(), 30, seed=0, class_names=()) == found


def test_a_fresh_network_takes_the_steps_that_it_is_given() -> None:
    slow = settings(learning_rate=1e-6, momentum=0.0)
    before = fresh_accuracy(build, slow, learnable(), learnable(), 1, seed=0, class_names=())
    assert before == fresh_accuracy(build, slow, learnable(), learnable(), 2, seed=0, class_names=())


def test_a_fresh_network_that_diverges_is_not_measured() -> None:
    wild = settings(learning_rate=100.0, momentum=0.99)
    task = learnable()
    huge = TaskData(1, task.inputs * 1e30, task.labels, 1)
    assert fresh_accuracy(build, wild, huge, huge, 20, seed=0, class_names=()) is None


def test_random_numbers_are_restored_after_an_error() -> None:
    state = torch.get_rng_state()

    def fail() -> None:
        with own_randomness(torch.device("cpu")):
            torch.rand(3)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert torch.equal(torch.get_rng_state(), state)
