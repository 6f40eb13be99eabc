from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from tiny_worlds import (
    N_EXAMPLES,
    N_INPUTS,
    learn_tasks,
    make_learner,
    make_task,
    same,
)
from torch import Tensor
from torch.nn import functional as F

from strategies import Forward, IncrementalType, Learner, TaskData
from strategies.methods.icarl import Icarl, IcarlHyperparameters, IcarlState, herd

TYPES: tuple[IncrementalType, ...] = ("task", "class")


def icarl(kind: IncrementalType = "class", size: int = 13, temperature: float = 1.0, **training: Any) -> Learner:
    own = {"buffer_size": size, "temperature": temperature}
    return make_learner("icarl", kind=kind, hyperparameters=own, **training)


def state_of(learner: Learner) -> IcarlState:
    state: IcarlState = learner.strategies[0].state
    return state


def features_of(learner: Learner, inputs: Tensor) -> Tensor:
    features: Tensor = learner.network.backbone(inputs).detach()
    return features / features.norm(dim=1, keepdim=True).clamp_min(1e-12)


def test_herding_chooses_what_brings_the_mean_closest_example_by_example() -> None:
    features = F.normalize(torch.randn(12, 3, generator=torch.Generator().manual_seed(0)))
    mean = features.mean(0) / features.mean(0).norm()
    expected: list[int] = []
    for k in range(1, 9):
        distance = {
            row: float((mean - (features[row] + features[expected].sum(0)) / k).norm())
            for row in range(12)
            if row not in expected
        }
        expected.append(min(distance, key=distance.__getitem__))

    assert herd(features, 8).tolist() == expected
    assert sorted(herd(features, 99).tolist()) == list(range(12))
    assert herd(features, 3).tolist() == expected[:3]


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_the_loss_equals_algorithm_3_by_hand(kind: IncrementalType, temperature: float) -> None:
    learner = learn_tasks(icarl(kind, temperature=temperature), [0])
    task = make_task(1, kind)
    method = learner.strategies[0]
    old = (learner.network.outputs(learner.network.backbone(task.inputs[:2]), 1) / temperature).sigmoid().tolist()
    learner.n_seen = 2
    learner.network.add_heads(2, learner.device, learner.generators.fresh)
    method.begin_task(task)
    with torch.no_grad():
        for parameter in learner.network.parameters():
            parameter.mul_(0.5)
    batch = method.training_data(task).take(torch.tensor([0, 1]))
    features = learner.network.backbone(batch.inputs)
    now = torch.cat([head(features) for head in learner.network.heads], 1).sigmoid().tolist()
    expected = 0.0
    for row, label in enumerate(batch.labels.tolist()):
        for output in range(4):
            target = old[row][output] if output < 2 else float(output == label)
            g = now[row][output]
            expected -= (target * math.log(g) + (1 - target) * math.log(1 - g)) / 2

    loss = method.classification_loss(batch, Forward(features, torch.empty(0), 0))
    assert loss is not None
    assert loss.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kind", TYPES)
def test_the_first_task_learns_from_labels_alone(kind: IncrementalType) -> None:
    learner = icarl(kind)
    learn_tasks(learner, [0])
    features = learner.network.backbone(make_task(0).inputs)
    batch = make_task(0, kind).take(torch.arange(N_EXAMPLES))
    found = learner.strategies[0].classification_loss(batch, Forward(features, torch.empty(0), 0))

    outputs = learner.network.heads[0](features)
    expected = F.binary_cross_entropy_with_logits(outputs, F.one_hot(batch.labels, 2).float()) * 2
    assert found is not None
    torch.testing.assert_close(found, expected)


def test_a_task_trains_on_its_examples_and_all_exemplars_each_of_its_own_task() -> None:
    learner = learn_tasks(icarl("task"), [0, 1])
    task = make_task(2)
    data = learner.strategies[0].training_data(task)
    n = 4 * (13 // 4)

    assert len(data) == N_EXAMPLES + n
    assert isinstance(data.task_ids, Tensor)
    assert torch.equal(data.inputs[:N_EXAMPLES], task.inputs)
    assert data.labels[N_EXAMPLES:].tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
    assert data.task_ids.tolist() == [2] * N_EXAMPLES + [0] * 6 + [1] * 6


@pytest.mark.parametrize("kind", TYPES)
def test_targets_are_those_of_the_network_before_the_task_for_new_examples_and_exemplars(
    kind: IncrementalType,
) -> None:
    learner = learn_tasks(icarl(kind), [0])
    task = make_task(1, kind)
    data = learner.strategies[0].training_data(task)
    before = learner.network.outputs(learner.network.backbone(data.inputs), 1).sigmoid().detach()
    seen: list[Tensor] = []

    def stop() -> None:
        targets = state_of(learner).targets
        assert targets is not None
        seen.append(targets.clone())

    learner.learn(task, stop)
    assert all(torch.equal(targets, before) for targets in seen)
    assert len(before) == N_EXAMPLES + 12
    assert state_of(learner).targets is None


@pytest.mark.parametrize("kind", TYPES)
def test_memory_is_divided_exactly_and_lists_are_cut_in_order(kind: IncrementalType) -> None:
    learner = icarl(kind)
    before: dict[int, Tensor] = {}
    for task, size in enumerate((6, 3, 2)):
        learn_tasks(learner, [task])
        exemplars = state_of(learner).exemplars
        assert sorted(exemplars) == list(range(2 * task + 2))
        assert {len(own) for own in exemplars.values()} == {size}
        assert sum(len(own) for own in exemplars.values()) <= 13
        for label, own in before.items():
            assert torch.equal(exemplars[label], own[:size])
        before = dict(exemplars)
        data = make_task(task, kind)
        for label in data.labels.unique().tolist():
            inputs = data.inputs[data.labels == label]
            assert torch.equal(exemplars[label], inputs[herd(features_of(learner, inputs), size)])


def test_a_class_with_few_examples_has_all_of_them() -> None:
    learner = icarl(size=100)
    learn_tasks(learner, [0])

    assert {label: len(own) for label, own in state_of(learner).exemplars.items()} == {0: 10, 1: 10}


@pytest.mark.parametrize("kind", TYPES)
def test_classification_is_by_the_nearest_mean_under_present_features(kind: IncrementalType) -> None:
    learner = learn_tasks(icarl(kind), range(3))
    inputs = make_task(1, kind).inputs
    exemplars = state_of(learner).exemplars
    means = []
    for label in range(6) if kind == "class" else (2, 3):
        mean = features_of(learner, exemplars[label]).mean(0)
        means.append(mean / mean.norm())
    features = features_of(learner, inputs)
    expected = torch.stack([-(features - mean).square().sum(1) for mean in means], 1)

    torch.testing.assert_close(learner.logits(inputs, 1), expected)


def test_before_any_exemplar_the_network_answers() -> None:
    learner = icarl(active_outputs="all")
    inputs = make_task(0).inputs

    assert torch.equal(learner.logits(inputs, 0), learner.network(inputs, 0, 1))


def test_a_class_without_examples_is_never_the_answer() -> None:
    learner = icarl()
    task = make_task(0, "class")
    rows = (task.labels == 0).nonzero()[:, 0]
    learner.learn(TaskData(0, task.inputs[rows], task.labels[rows], 0))

    assert learner.logits(task.inputs, 0).argmax(1).unique().tolist() == [0]


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "rmsprop"])
@pytest.mark.parametrize("active", ["seen", "all", "current"])
def test_active_outputs_do_not_change_its_loss(optimizer: str, active: str) -> None:
    training = {"optimizer": optimizer, "learning_rate": 0.01}
    one, other = (learn_tasks(icarl(active_outputs=a, **training), range(3)) for a in ("seen", active))

    assert same(state_of(one).exemplars, state_of(other).exemplars)
    assert same(state_of(one).means, state_of(other).means)


def test_kept_bytes_are_the_exemplars_and_the_means() -> None:
    learner = learn_tasks(icarl(), range(3))

    assert learner.strategies[0].kept_bytes() == 4 * (12 * N_INPUTS + 6 * learner.network.n_features)


def test_fewer_exemplars_than_classes_are_refused() -> None:
    icarl(size=6)
    with pytest.raises(
        ValueError, match=r"icarl.buffer_size: expected at least one exemplar for each of the 6 classes"
    ):
        icarl(size=5)
    with pytest.raises(ValidationError, match="buffer_size"):
        IcarlHyperparameters(buffer_size=0)


def test_it_needs_classes_that_are_learned_once_and_says_so() -> None:
    assert Icarl.unsupported.keys() == {"domain"}


@pytest.mark.parametrize("training", [{}, {"class_weight": "balanced"}])
def test_the_mean_over_outputs_is_a_share_of_the_sum(training: dict[str, Any]) -> None:
    learner = learn_tasks(icarl("class", **training), range(2))
    (strategy,), batch = learner.strategies, make_task(1, "class").take(torch.arange(6))
    features = learner.network.backbone(batch.inputs).detach()
    losses = {}
    for over in ("sum", "mean"):
        strategy.hyperparameters = strategy.hyperparameters.model_copy(update={"over_outputs": over})
        loss = strategy.classification_loss(batch, Forward(features, features, 0))
        assert loss is not None
        losses[over] = loss.detach()
    torch.testing.assert_close(losses["mean"] * 4, losses["sum"])  # four outputs are seen
