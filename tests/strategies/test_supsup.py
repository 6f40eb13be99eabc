from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from tiny_worlds import (
    N_BACKBONE_WEIGHTS,
    N_FEATURES,
    N_HIDDEN,
    N_INPUTS,
    learn_tasks,
    make_learner,
    make_task,
    parameters_of,
    same,
)
from torch import Tensor, nn
from torch.nn import functional as F

from strategies import Generators, Learner, Network, OutputLayout, TaskData
from strategies.methods.supsup import Supsup, SupsupHyperparameters
from strategies.parts.subnet import Subnet, highest
from strategies.settings import TrainingSettings

WAYS_TO_TRAIN: list[dict[str, Any]] = [
    {},
    {"weight_decay": 0.1, "keep_optimizer": True},
    {"optimizer": "adam", "learning_rate": 0.01, "keep_optimizer": True, "weight_decay": 0.1},
    {"optimizer": "adamw", "learning_rate": 0.01, "weight_decay": 0.1},
    {"optimizer": "rmsprop", "learning_rate": 0.01, "keep_optimizer": True},
    {"clip_gradient_norm": 0.1, "iterations": 7},
]


def supsup(share: float = 0.5, **training: Any) -> Learner:
    return make_learner("supsup", hyperparameters={"kept_share": share}, **training)


def method_of(learner: Learner) -> Supsup:
    method = learner.strategies[0]
    assert isinstance(method, Supsup)
    return method


def cnn_learner(*extra: nn.Module) -> Learner:
    def build() -> Network:
        layers = [nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 5), nn.ReLU()]
        return Network(nn.Sequential(*layers, *extra), 5, OutputLayout("task", ((0, 2), (2, 4))))

    return Learner(
        build,
        lambda index: image_task(index),
        [(Supsup, SupsupHyperparameters())],
        TrainingSettings(epochs=2, batch_size=8),
        Generators(0),
        torch.device("cpu"),
    )


def image_task(index: int) -> TaskData:
    inputs = torch.randn(20, 2, 4, 4, generator=torch.Generator().manual_seed(index))
    return TaskData(index, inputs, torch.arange(20) % 2 + 2 * index, index)


@pytest.mark.parametrize("training", WAYS_TO_TRAIN, ids=str)
def test_logits_of_old_tasks_never_change_by_a_bit(training: dict[str, Any]) -> None:
    learner = supsup(**training)
    inputs = [make_task(task).inputs for task in range(3)]
    measured: list[Tensor] = []
    for task in range(3):
        learn_tasks(learner, [task])
        measured.append(learner.logits(inputs[task], task))
        for past in range(task):
            assert torch.equal(learner.logits(inputs[past], past), measured[past])


@pytest.mark.parametrize("training", WAYS_TO_TRAIN, ids=str)
def test_no_weight_of_the_backbone_ever_moves(training: dict[str, Any]) -> None:
    learner = supsup(**training)
    before = {n: p for n, p in parameters_of(learner).items() if n.startswith("backbone")}
    learn_tasks(learner, range(3))
    after = parameters_of(learner)

    assert same(before, {name: after[name] for name in before})
    assert {name for name in after if "scores" in name} == set()


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_weights_are_signed_constants_and_biases_zero(share: float) -> None:
    learner = supsup(share)
    for index, fan_in in ((0, N_INPUTS), (2, N_HIDDEN)):
        layer = learner.network.backbone.get_submodule(str(index))
        assert isinstance(layer, nn.Linear)
        torch.testing.assert_close(layer.weight.abs(), torch.full_like(layer.weight, math.sqrt(2 / (fan_in * share))))
        assert 0 < float((layer.weight > 0).float().mean()) < 1
        assert not bool(layer.bias.any())


def test_the_highest_scores_are_the_mask() -> None:
    scores = torch.tensor([[0.3, -2.0, 0.1], [5.0, 0.2, -0.1]])

    assert highest(scores, 2).tolist() == [[True, False, False], [True, False, False]]
    assert highest(scores, 4).tolist() == [[True, False, True], [True, True, False]]
    assert bool(highest(scores, 6).all())


def test_the_gradient_of_a_score_takes_it_for_its_mask() -> None:
    subnet = Subnet(2)
    subnet.scores = nn.Parameter(torch.tensor([0.5, -1.0, 2.0, 0.0]))
    weight = torch.tensor([3.0, -3.0, -3.0, 3.0])
    used = subnet(weight)
    (used * torch.tensor([1.0, 2.0, 3.0, 4.0])).sum().backward()

    assert used.tolist() == [3.0, 0.0, -3.0, 0.0]
    assert subnet.scores.grad is not None
    assert subnet.scores.grad.tolist() == [3.0, -6.0, -9.0, 12.0]


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_each_task_uses_its_share_of_every_layer(share: float) -> None:
    learner = learn_tasks(supsup(share), range(3))
    masks = method_of(learner).state.masks

    assert len(masks) == 3
    for task in masks:
        for name, n in (("0", N_INPUTS * N_HIDDEN), ("2", N_HIDDEN * N_FEATURES)):
            assert task[name].dtype == torch.bool
            assert int(task[name].sum()) == round(share * n)
    assert not torch.equal(masks[0]["0"], masks[1]["0"])


def test_inference_multiplies_the_weights_with_the_mask_of_the_task() -> None:
    learner = learn_tasks(supsup(), range(2))
    hidden = inputs = make_task(0).inputs
    for name in ("0", "2"):
        layer = learner.network.backbone.get_submodule(name)
        assert isinstance(layer, nn.Linear)
        hidden = F.relu(hidden @ (layer.weight * method_of(learner).state.masks[0][name]).T)

    torch.testing.assert_close(learner.logits(inputs, 0), learner.network.heads[0](hidden).detach())


def test_the_mask_is_that_of_the_scores_after_the_last_step() -> None:
    learner = supsup()
    scores: dict[str, Tensor] = {}

    def note() -> None:
        scores.update({n: p for n, p in parameters_of(learner).items() if "scores" in n})

    learner.learn(make_task(0), note)
    for name, mask in method_of(learner).state.masks[0].items():
        own = scores[f"backbone.{name}.parametrizations.weight.0.scores"]
        assert torch.equal(mask, highest(own, round(0.5 * own.numel())))


def test_scores_of_each_task_are_drawn_anew_and_learn() -> None:
    seen: list[Tensor] = []
    for task in (0, 1):
        learner = supsup()
        method_of(learner)._add_scores(task)
        drawn = parameters_of(learner)["backbone.0.parametrizations.weight.0.scores"]
        assert float(drawn.abs().max()) <= 1 / math.sqrt(N_INPUTS)
        seen.append(drawn)
    learned: list[Tensor] = []
    learner = supsup()
    name = "backbone.0.parametrizations.weight.0.scores"
    learner.learn(make_task(0), lambda: learned.append(parameters_of(learner)[name]))

    assert not torch.equal(*seen)
    assert not torch.equal(learned[-1], seen[0])


def test_convolutions_are_masked_too_and_never_forget() -> None:
    learner = cnn_learner()
    learner.learn(image_task(0))
    before = learner.logits(image_task(0).inputs, 0)
    learner.learn(image_task(1))

    assert method_of(learner).state.masks[0]["0"].shape == (3, 2, 3, 3)
    assert torch.equal(learner.logits(image_task(0).inputs, 0), before)


@pytest.mark.parametrize("extra", [nn.BatchNorm1d(5), nn.BatchNorm1d(5, affine=False), nn.LayerNorm(5)])
def test_a_backbone_with_norms_is_refused(extra: nn.Module) -> None:
    with pytest.raises(ValueError, match=r"supsup: expected a backbone whose parameters .* got 5\.\w+.* in Sequential"):
        cnn_learner(extra)


def test_kept_bytes_are_a_byte_a_weight_and_task() -> None:
    learner = supsup()
    for task in range(3):
        learn_tasks(learner, [task])
        assert learner.strategies[0].kept_bytes() == (task + 1) * N_BACKBONE_WEIGHTS


def test_it_needs_the_task_and_says_so() -> None:
    assert Supsup.unsupported.keys() == {"domain", "class"}
    assert Supsup.unsupported_models.keys() == {"resnet18"}


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_share_outside_of_its_range_is_refused(value: float) -> None:
    with pytest.raises(ValidationError, match="kept_share"):
        SupsupHyperparameters(kept_share=value)
