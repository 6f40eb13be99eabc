from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_worlds import (
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

from strategies import Generators, Learner
from strategies.methods.pnn import Pnn
from strategies.parts.columns import Progressive
from strategies.parts.layers import initialise_layer

N_COLUMN = (N_INPUTS * N_HIDDEN + N_HIDDEN) + (N_HIDDEN * N_FEATURES + N_FEATURES)
WAYS_TO_TRAIN: list[dict[str, Any]] = [
    {},
    {"weight_decay": 0.1, "keep_optimizer": True},
    {"optimizer": "adam", "learning_rate": 0.01, "keep_optimizer": True, "weight_decay": 0.1},
    {"optimizer": "adamw", "learning_rate": 0.01, "weight_decay": 0.1},
    {"optimizer": "rmsprop", "learning_rate": 0.01, "keep_optimizer": True},
    {"clip_gradient_norm": 0.1, "iterations": 7},
]


def pnn(**training: Any) -> Learner:
    return make_learner("pnn", **training)


def columns_of(learner: Learner) -> Progressive:
    backbone = learner.network.backbone
    assert isinstance(backbone, Progressive)
    return backbone


def cnn() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(3, 4, 3, stride=2, bias=False), nn.ReLU(), nn.Flatten(),
        nn.Linear(4, 5), nn.ReLU(),
    )  # fmt: skip


@pytest.mark.parametrize("training", WAYS_TO_TRAIN, ids=str)
def test_logits_of_old_tasks_never_change_by_a_bit(training: dict[str, Any]) -> None:
    learner = pnn(**training)
    inputs = [make_task(task).inputs for task in range(3)]
    measured: list[Tensor] = []
    for task in range(3):
        learn_tasks(learner, [task])
        measured.append(learner.logits(inputs[task], task))
        for past in range(task):
            assert torch.equal(learner.logits(inputs[past], past), measured[past])
    assert not torch.equal(learner.logits(inputs[0], 1), learner.logits(inputs[0], 2))


@pytest.mark.parametrize("training", WAYS_TO_TRAIN, ids=str)
def test_the_first_task_is_the_naive_run_bit_for_bit(training: dict[str, Any]) -> None:
    one = learn_tasks(pnn(**training), [0])
    other = learn_tasks(make_learner("naive", **training), [0])

    assert same(list(parameters_of(one).values()), list(parameters_of(other).values()))
    assert same(one.logits(make_task(0).inputs, 0), other.logits(make_task(0).inputs, 0))


def test_features_are_those_of_equation_1() -> None:
    learner = learn_tasks(pnn(), range(3))
    inputs = make_task(2).inputs
    p = {name.removeprefix("backbone."): values for name, values in parameters_of(learner).items()}

    def layer(column: int, stage: int, hidden: list[Tensor]) -> Tensor:
        total = hidden[column] @ p[f"columns.{column}.layers.{stage}.weight"].T
        for j in range(column):
            if stage > 0:
                total = total + hidden[j] @ p[f"columns.{column}.laterals.{stage - 1}.{j}.weight"].T
        return F.relu(total + p[f"columns.{column}.layers.{stage}.bias"])

    hidden = [layer(column, 0, [inputs] * 3) for column in range(3)]
    expected = layer(2, 1, hidden) @ p["heads.2.weight"].T + p["heads.2.bias"]
    torch.testing.assert_close(learner.logits(inputs, 2), expected)


def test_only_the_present_column_and_head_are_in_the_optimizer() -> None:
    learner = learn_tasks(pnn(), range(3))
    assert learner.optimizer is not None
    trained = {id(p) for p in learner.optimizer.param_groups[0]["params"]}
    names = {name for name, p in learner.network.named_parameters() if id(p) in trained}

    assert names == {n for n in parameters_of(learner) if n.startswith(("backbone.columns.2.", "heads.2."))}


def test_laterals_and_the_new_column_learn() -> None:
    learner = learn_tasks(pnn(), [0])
    drawn = columns_of(pnn())
    drawn.grow()
    learn_tasks(learner, [1])
    after = dict(columns_of(learner).columns[1].named_parameters())

    for name, values in drawn.columns[1].named_parameters():
        assert not torch.equal(after[name], values)


def test_a_new_column_is_drawn_as_the_first_one_from_its_own_generator() -> None:
    learner = pnn()
    columns_of(learner).grow()
    generator = learner.generators.fresh("init/column/1")
    column = columns_of(learner).columns[1]
    for layer in (*column.layers, column.laterals[0][0]):  # type: ignore[misc, index]
        assert isinstance(layer, nn.Linear)
        expected = nn.Linear(layer.in_features, layer.out_features, layer.bias is not None)
        initialise_layer(expected, generator)
        assert torch.equal(layer.weight, expected.weight)


def test_convolutions_have_laterals_of_their_own_kind_and_geometry() -> None:
    columns = Progressive(cnn(), Generators(0).fresh)
    inputs = torch.randn(3, 2, 6, 6, generator=torch.Generator().manual_seed(0))
    plain = columns(inputs)
    columns.grow()
    columns.train_column(1)
    second, (into_conv, into_linear) = columns.columns[1], columns.columns[1].laterals
    first = columns.columns[0].layers
    h0, h1 = (F.max_pool2d(F.relu(column.layers[0](inputs)), 2) for column in columns.columns)
    g0 = F.relu(first[1](h0)).flatten(1)
    g1 = F.relu(second.layers[1](h1) + into_conv[0](h0)).flatten(1)
    expected = F.relu(second.layers[2](g1) + into_linear[0](g0))

    assert isinstance(into_conv[0], nn.Conv2d)
    assert into_conv[0].stride == (2, 2)
    assert into_conv[0].bias is None
    torch.testing.assert_close(columns(inputs), expected)
    columns.active = 0
    assert torch.equal(columns(inputs), plain)


@pytest.mark.parametrize(
    ("backbone", "found"),
    [
        (nn.Linear(2, 2), "got Linear"),
        (nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)), "got BatchNorm1d in it"),
        (nn.Sequential(nn.Sequential(nn.Linear(2, 2))), "got Sequential in it"),
        (nn.Sequential(nn.Conv2d(2, 2, 1, groups=2)), "got Conv2d in it"),
        (nn.Sequential(nn.Flatten()), "got none of them"),
    ],
)
def test_a_backbone_that_is_no_plain_chain_is_refused(backbone: nn.Module, found: str) -> None:
    with pytest.raises(ValueError, match=f"pnn: expected a backbone that is an nn.Sequential.*{found}"):
        Progressive(backbone, Generators(0).fresh)


def test_the_report_counts_the_parameters_of_each_column() -> None:
    learner = learn_tasks(pnn(), range(3))
    lateral = N_HIDDEN * N_FEATURES

    assert learner.strategies[0].report() == {
        "n_parameters": {"0": N_COLUMN, "1": N_COLUMN + lateral, "2": N_COLUMN + 2 * lateral}
    }


def test_it_needs_the_task_and_a_chain_of_layers_and_says_so() -> None:
    assert Pnn.unsupported.keys() == {"domain", "class"}
    assert Pnn.unsupported_models.keys() == {"resnet18"}
