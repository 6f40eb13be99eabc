from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from tiny_worlds import KINDS, learn_tasks, make_learner, make_task, parameters_of, same
from torch import Tensor, nn

from strategies import IncrementalType, Learner, Network
from strategies.methods.freeze import FreezeHyperparameters, frozen_modules

UPDATES: list[dict[str, Any]] = [
    {},
    {"momentum": 0.9, "keep_optimizer": True},
    {"weight_decay": 0.1},
    {"optimizer": "adam", "keep_optimizer": True, "weight_decay": 0.1},
    {"optimizer": "adamw", "keep_optimizer": True, "weight_decay": 0.1},
    {"optimizer": "rmsprop", "keep_optimizer": True, "weight_decay": 0.1},
]


class Stopped(Exception):
    pass


def freeze(kind: IncrementalType = "task", training: dict[str, Any] | None = None, **own: Any) -> Learner:
    return make_learner("freeze", kind=kind, hyperparameters=own, **({"learning_rate": 0.02} | (training or {})))


def moved(before: dict[str, Tensor], learner: Learner) -> set[str]:
    after = parameters_of(learner)
    return {name for name in before if not torch.equal(before[name], after[name])}


def normed(learner: Learner) -> Network:
    """Give the learner's network norms, before its first use: linear, norm, linear, norm."""
    torch.manual_seed(0)
    norms = [nn.BatchNorm1d(width) for width in (6, 5)]
    first, relu, second, _ = learner.network.backbone
    learner.network.backbone = nn.Sequential(first, norms[0], relu, second, norms[1])
    return learner.network


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_task_is_the_naive_run(kind: IncrementalType) -> None:
    naive = learn_tasks(make_learner("naive", kind=kind, learning_rate=0.02), [0])

    assert same(parameters_of(learn_tasks(freeze(kind, frozen_layers=2), [0])), parameters_of(naive))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("training", UPDATES)
@pytest.mark.parametrize(("n_layers", "names"), [(1, {"backbone.0"}), (2, {"backbone.0", "backbone.2"}), (9, None)])
def test_exactly_the_first_layers_rest_after_task_0(
    kind: IncrementalType, training: dict[str, Any], n_layers: int, names: set[str] | None
) -> None:
    learner = learn_tasks(freeze(kind, training, frozen_layers=n_layers), [0])
    before = parameters_of(learner)
    learn_tasks(learner, [1, 2])
    resting = {f"{layer}.{part}" for layer in names or {"backbone.0", "backbone.2"} for part in ("weight", "bias")}
    old_head = {"heads.0.weight", "heads.0.bias"} if kind == "task" else set()

    assert moved(before, learner) == before.keys() - resting - old_head


def test_with_all_layers_frozen_an_old_task_of_its_own_head_is_never_forgotten() -> None:
    learner = learn_tasks(freeze(frozen_layers=2), [0])
    inputs = make_task(0).inputs
    before = learner.logits(inputs, 0)

    assert torch.equal(learn_tasks(learner, [1, 2]).logits(inputs, 0), before)


def test_frozen_gradients_do_not_count_when_gradients_are_clipped() -> None:
    """The gradient that a frozen layer had last in task 0 must not stay behind."""
    learner = freeze(frozen_layers=1)
    learn_tasks(learner, [0, 1])

    assert all(p.grad is None for p in learner.network.backbone[0].parameters())  # type: ignore[index]


def test_a_layer_is_a_matrix_or_kernel_with_the_norm_that_follows() -> None:
    block = nn.Sequential(nn.Conv2d(2, 2, 1, bias=False), nn.BatchNorm2d(2), nn.ReLU())
    backbone = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), block, nn.Flatten(), nn.Linear(8, 3))
    names = {id(parameter): name for name, parameter in backbone.named_parameters()}

    def frozen(n_layers: int) -> set[str]:
        return {names[id(p)] for m in frozen_modules(backbone, n_layers) for p in m.parameters(recurse=False)}

    first = {"0.weight", "0.bias", "1.weight", "1.bias"}
    second = first | {"2.0.weight", "2.1.weight", "2.1.bias"}
    assert [frozen(n) for n in (0, 1, 2)] == [set(), first, second]
    assert frozen(3) == frozen(4) == set(names.values())


@pytest.mark.parametrize("kind", KINDS)
def test_the_statistics_of_frozen_norms_rest_too(kind: IncrementalType) -> None:
    learner = freeze(kind, frozen_layers=2)
    network = normed(learner)
    learn_tasks(learner, [0])
    buffers = {name: value.clone() for name, value in network.backbone.named_buffers()}
    assert float(buffers["1.running_mean"].abs().sum()) > 0
    network.eval()
    features = network.backbone(make_task(0, kind).inputs)
    learn_tasks(learner, [1, 2])

    assert same(dict(network.backbone.named_buffers()), buffers)
    network.eval()
    assert torch.equal(network.backbone(make_task(0, kind).inputs), features)


def test_norms_go_on_where_nothing_is_frozen() -> None:
    learner = freeze(frozen_layers=0)
    network = normed(learner)
    learn_tasks(learner, [0])
    before = {name: value.clone() for name, value in network.backbone.named_buffers()}
    learn_tasks(learner, [1])

    assert not same(dict(network.backbone.named_buffers()), before)


@pytest.mark.parametrize("other", ["ewc", "mas", "si", "lwf", "replay"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_frozen_rests_beside_other_methods(other: str, kind: IncrementalType) -> None:
    learner = make_learner(other, "freeze", kind=kind, learning_rate=0.02, keep_optimizer=True, clip_gradient_norm=1.0)
    learn_tasks(learner, [0])
    before = parameters_of(learner)
    learn_tasks(learner, [1, 2])

    assert not {"backbone.0.weight", "backbone.0.bias"} & moved(before, learner)
    assert "backbone.2.weight" in moved(before, learner)


def test_a_number_below_zero_is_refused() -> None:
    with pytest.raises(ValidationError, match="frozen_layers"):
        FreezeHyperparameters(frozen_layers=-1)
