from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from tiny_worlds import (
    KINDS,
    N_EXAMPLES,
    gradients_of,
    learn_tasks,
    make_learner,
    make_task,
    parameters_of,
    same,
)
from torch import Tensor, nn
from torch.nn import functional as F

from strategies import Batch, Forward, IncrementalType, Learner, OutputLayout, TaskData
from strategies.methods.lwf import Lwf, LwfHyperparameters


class Stopped(Exception):
    pass


def lwf(kind: IncrementalType = "task", training: dict[str, Any] | None = None, **own: Any) -> Learner:
    return make_learner("lwf", kind=kind, hyperparameters=own, **({"learning_rate": 0.02} | (training or {})))


def inside(learner: Learner, task: TaskData) -> Lwf:
    """Stop right after the first step of `task` and return the method."""

    def stop() -> None:
        raise Stopped

    with pytest.raises(Stopped):
        learner.learn(task, between_steps=stop)
    method = learner.strategies[-1]
    assert isinstance(method, Lwf)
    return method


def old_logits(learner: Learner, inputs: Tensor, task: int) -> Tensor:
    """Return what the network says (B, C_old) on the outputs that it had before `task`."""
    n_heads = 1 if learner.layout.incremental_type == "domain" else task
    learner.network.eval()
    with torch.no_grad():
        return learner.network.outputs(learner.network.backbone(inputs), n_heads)


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_task_is_the_naive_run_and_the_second_is_not(kind: IncrementalType) -> None:
    naive, learner = make_learner("naive", kind=kind, learning_rate=0.02), lwf(kind)

    assert same(parameters_of(learn_tasks(learner, [0])), parameters_of(learn_tasks(naive, [0])))
    assert not same(parameters_of(learn_tasks(learner, [1])), parameters_of(learn_tasks(naive, [1])))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("active", ["seen", "all", "current"])
def test_the_teacher_is_the_network_before_the_task_on_the_tasks_own_inputs(kind: IncrementalType, active: str) -> None:
    learner = learn_tasks(lwf(kind, {"active_outputs": active}, temperature=3.0), [0, 1])
    task = make_task(2, kind)
    before = old_logits(learner, task.inputs, 2)
    targets = inside(learner, task).state.targets

    groups = [before[:, :2], before[:, 2:]] if kind == "task" else [before]
    torch.testing.assert_close(targets, torch.cat([(group / 3).softmax(1) for group in groups], 1))
    learner.learn(task)
    assert learner.strategies[0].state.targets is None
    assert learner.strategies[0].kept_bytes() == 0


def test_the_teacher_answers_in_evaluation_mode() -> None:
    learner = learn_tasks(lwf(), [0])
    modes = []
    layer = learner.network.backbone[0]  # type: ignore[index]
    layer.register_forward_hook(lambda module, *_: modes.append(module.training))
    learner.network.train()
    learner.strategies[0].begin_task(make_task(1))

    assert modes == [False]


def penalty_of(learner: Learner, inputs: Tensor, task: int, targets: list[list[float]]) -> float:
    """Return the penalty of the first len(targets) rows, with a network whose features are its inputs."""
    method = learner.strategies[0]
    method.state.targets = torch.tensor(targets)
    learner.n_seen, learner.task = task + 1, task
    settings = learner.settings
    logits, first = learner.network.training_outputs(inputs, task, learner.n_seen, settings.active_outputs)
    batch = Batch(inputs, torch.zeros(len(inputs), dtype=torch.int64), task, torch.arange(len(targets)))
    value = method.penalty(batch, Forward(inputs, logits, first))
    assert value is not None
    return float(value.detach())


def speaking(learner: Learner, *biases: list[float]) -> Learner:
    """Make the heads say `biases` whatever the features."""
    learner.network.add_heads(len(biases), learner.device, learner.generators.fresh)
    with torch.no_grad():
        for head, bias in zip(learner.network.heads, biases, strict=True):
            assert isinstance(head, nn.Linear)
            head.weight.zero_()
            head.bias.copy_(torch.tensor(bias))
    return learner


# ln 3 at T = 1 makes probabilities of 1/4 and 3/4.
LN2, LN3 = 0.6931472, 1.0986123


def test_in_task_the_penalty_is_the_sum_over_old_heads_by_hand() -> None:
    """λT² = 2·4; head 0 says ¼, ¾ against (½, ½), head 1 says ½, ½ against (1, 0)."""
    learner = speaking(lwf(distillation_weight=2.0, temperature=2.0), [0.0, 2 * LN3], [5.0, 5.0], [9.0, -9.0])
    first = 0.5 * 2 * LN2 + 0.5 * (2 * LN2 - LN3)

    found = penalty_of(learner, torch.randn(3, 5), 2, [[0.5, 0.5, 1.0, 0.0]] * 3)
    assert found == pytest.approx(8 * (first + LN2), rel=1e-5)


def test_in_domain_the_penalty_is_over_the_one_head_by_hand() -> None:
    learner = speaking(lwf("domain", distillation_weight=2.0, temperature=2.0), [0.0, 2 * LN3])

    found = penalty_of(learner, torch.randn(3, 5), 1, [[0.5, 0.5]] * 3)
    assert found == pytest.approx(8 * (2 * LN2 - 0.5 * LN3), rel=1e-5)


@pytest.mark.parametrize(
    ("active", "new_outputs", "expected"),
    [
        ("seen", "at_zero", 0.5 * 3 * LN2 + 0.5 * (3 * LN2 - LN3)),  # 1/8, 3/8, 1/4, 1/4
        ("seen", "left_out", 0.5 * 2 * LN2 + 0.5 * (2 * LN2 - LN3)),  # 1/4, 3/4
        ("current", "at_zero", 0.5 * 2 * LN2 + 0.5 * (2 * LN2 - LN3)),
        ("current", "left_out", 0.5 * 2 * LN2 + 0.5 * (2 * LN2 - LN3)),
    ],
)
def test_in_class_the_penalty_is_over_the_outputs_that_compete_by_hand(
    active: str, new_outputs: str, expected: float
) -> None:
    own = {"distillation_weight": 2.0, "temperature": 2.0, "new_outputs": new_outputs}
    learner = speaking(lwf("class", {"active_outputs": active}, **own), [0.0, 2 * LN3], [2 * LN2, 2 * LN2])

    found = penalty_of(learner, torch.randn(3, 5), 1, [[0.5, 0.5]] * 3)
    assert found == pytest.approx(8 * expected, rel=1e-5)


def test_heads_of_unequal_width_have_a_softmax_each() -> None:
    learner = lwf(temperature=1.0)
    learner.network.layout = OutputLayout("task", ((0, 2), (2, 5), (5, 7)))
    method = learner.strategies[0]
    assert isinstance(method, Lwf)
    logits = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    found = method._log_probabilities(logits, 2)

    torch.testing.assert_close(found, torch.cat([logits[:, :2].log_softmax(1), logits[:, 2:].log_softmax(1)], 1))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("active", ["seen", "all", "current"])
@pytest.mark.parametrize("with_replay", [False, True])
def test_a_step_follows_the_gradient_of_loss_plus_penalty_on_the_new_examples(
    kind: IncrementalType, active: str, with_replay: bool
) -> None:
    parts = ["replay", "lwf"] if with_replay else ["lwf"]
    own = {"temperature": 2.0, "distillation_weight": 0.7}
    learner = make_learner(*parts, kind=kind, hyperparameters=own, learning_rate=0.02, active_outputs=active)
    learn_tasks(learner, [0, 1])
    task = make_task(2, kind)
    before = old_logits(learner, task.inputs, 2)
    inside(learner, task)
    rows = torch.tensor([3, 17, 5, 11])
    batch = task.take(rows)
    position = learner.generators["replay"].get_state()
    extended = learner.strategies[0].extend_batch(batch)
    learner.generators["replay"].set_state(position)
    assert len(extended.labels) == (12 if with_replay else 4)

    network = learner.network
    features = network.backbone(extended.inputs)
    logits, first = network.training_outputs(features, extended.task_ids, 3, active)  # type: ignore[arg-type]
    loss = F.cross_entropy(logits, extended.labels - first)
    groups = [slice(0, 2), slice(2, 4)] if kind == "task" else [slice(0, before.shape[1])]
    student = network.outputs(features[:4], 1 if kind == "domain" else 2)
    if kind == "class" and active != "current":
        student = logits[:4]
        before = torch.cat([before, torch.full((N_EXAMPLES, logits.shape[1] - 4), -torch.inf)], 1)
        groups = [slice(0, logits.shape[1])]
    for group in groups:
        loss = loss + 0.7 * 4 * F.cross_entropy(student[:, group] / 2, (before[rows][:, group] / 2).softmax(1))
    expected = torch.autograd.grad(loss, list(network.parameters()), allow_unused=True)
    learner.step(batch)

    found = gradients_of(learner)
    for (name, _), gradient in zip(network.named_parameters(), expected, strict=True):
        if gradient is not None:
            torch.testing.assert_close(found[name], gradient)
    assert found.keys() == {n for (n, _), g in zip(network.named_parameters(), expected, strict=True) if g is not None}


@pytest.mark.parametrize("kind", KINDS)
def test_more_strength_keeps_the_old_outputs_on_new_inputs_nearer(kind: IncrementalType) -> None:
    def drift(weight: float) -> float:
        learner = learn_tasks(lwf(kind, {"epochs": 10, "active_outputs": "current"}, distillation_weight=weight), [0])
        inputs = make_task(1, kind).inputs
        before = old_logits(learner, inputs, 1).softmax(1)
        return float((old_logits(learn_tasks(learner, [1]), inputs, 1).softmax(1) - before).abs().mean())

    assert drift(10.0) < 0.5 * drift(0.0)


def test_without_distillation_nothing_else_has_an_effect() -> None:
    assert LwfHyperparameters(distillation_weight=0).unused() == {"temperature", "weighting", "new_outputs"}
    assert LwfHyperparameters().unused() == set()


@pytest.mark.parametrize(("field", "value"), [("distillation_weight", -1.0), ("temperature", 0.0), ("alpha", 1.0)])
def test_hyperparameters_outside_of_their_range_are_refused(field: str, value: Any) -> None:
    with pytest.raises(ValidationError, match=field):
        LwfHyperparameters(**{field: value})


@pytest.mark.parametrize("kind", KINDS)
def test_by_task_the_penalty_is_as_many_times_as_there_are_past_tasks(kind: IncrementalType) -> None:
    penalties: dict[str, list[float]] = {}
    for weighting in ("constant", "by_task"):
        for task in (1, 2):
            learner = lwf(kind)
            learn_tasks(learner, range(task))
            data = make_task(task, kind)
            learner.n_seen, learner.task = task + 1, task
            learner.network.add_heads(1 if kind == "domain" else task + 1, learner.device, learner.generators.fresh)
            method = learner.strategies[0]
            method.hyperparameters = LwfHyperparameters(weighting=weighting)
            method.begin_task(data)
            batch = data.take(torch.arange(8))
            penalty = method.penalty(batch, learner._forward(batch))
            assert penalty is not None
            penalties.setdefault(weighting, []).append(penalty.item())

    assert penalties["by_task"][0] == penalties["constant"][0]
    assert penalties["by_task"][1] == pytest.approx(2 * penalties["constant"][1])
