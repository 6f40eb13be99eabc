from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from tiny_worlds import (
    KINDS,
    N_BACKBONE_BIASES,
    N_BACKBONE_WEIGHTS,
    N_EXAMPLES,
    N_HEAD,
    gradients_of,
    learn_tasks,
    make_learner,
    make_task,
    parameters_of,
    same,
)
from torch import Tensor
from torch.nn import functional as F

from strategies import Batch, Forward, IncrementalType, Learner, Strategy, TaskData
from strategies.methods.si import SiHyperparameters, SiState
from strategies.parts.quadratic import penalty_value

UPDATES: list[dict[str, Any]] = [
    {"momentum": 0.9},
    {"momentum": 0.0, "weight_decay": 0.1},
    {"optimizer": "adam", "keep_optimizer": True},
    {"optimizer": "adamw", "weight_decay": 0.1},
    {"optimizer": "rmsprop"},
    {"clip_gradient_norm": 0.05},
]


class PathWatch(Strategy):
    """Adds up -gΔθ in float64 from what it sees before any pull, and notes where each task began."""

    name = "path-watch"
    summary = "for tests"
    paths: dict[str, Tensor]
    starts: dict[str, Tensor]

    def begin_task(self, task: TaskData) -> None:
        self.starts = parameters_of(self.learner)
        self.paths = {name: torch.zeros_like(value, dtype=torch.float64) for name, value in self.starts.items()}

    def adjust_gradients(self) -> None:
        self.gradients, self.before = gradients_of(self.learner), parameters_of(self.learner)

    def after_step(self, batch: Batch, forward: Forward) -> None:
        after = parameters_of(self.learner)
        for name, gradient in self.gradients.items():
            self.paths[name] -= gradient.double() * (after[name].double() - self.before[name].double())


class Stopped(Exception):
    pass


def si(kind: IncrementalType = "task", training: dict[str, Any] | None = None, **own: Any) -> Learner:
    return make_learner("si", kind=kind, hyperparameters=own, **({"learning_rate": 0.02} | (training or {})))


def state_of(learner: Learner) -> SiState:
    state: SiState = learner.strategies[-1].state
    return state


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_task_is_the_naive_run_and_the_second_is_not(kind: IncrementalType) -> None:
    naive, learner = make_learner("naive", kind=kind, learning_rate=0.02), si(kind, penalty_weight=10)

    assert same(parameters_of(learn_tasks(learner, [0])), parameters_of(learn_tasks(naive, [0])))
    assert not same(parameters_of(learn_tasks(learner, [1])), parameters_of(learn_tasks(naive, [1])))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("training", UPDATES)
def test_importance_is_the_loss_gradient_times_the_actual_change_over_the_squared_change(
    kind: IncrementalType, training: dict[str, Any]
) -> None:
    settings = {"learning_rate": 0.02} | training
    own = {"penalty_weight": 5.0, "damping": 0.01}
    learner = make_learner(PathWatch, "si", kind=kind, hyperparameters=own, **settings)
    watch = learner.strategies[0]
    assert isinstance(watch, PathWatch)
    expected: dict[str, Tensor] = {}
    for task in range(3):
        learn_tasks(learner, [task])
        for name, parameter in parameters_of(learner).items():
            change = parameter.double() - watch.starts[name].double()
            gain = watch.paths[name].clamp(min=0) / (change.square() + 0.01)
            expected[name] = expected.get(name, torch.zeros_like(gain)) + gain

    state = state_of(learner)
    assert state.importance.keys() == expected.keys()
    assert sum(float(values.sum()) for values in state.importance.values()) > 0
    for name, values in expected.items():
        torch.testing.assert_close(state.importance[name].double(), values, rtol=1e-3, atol=1e-6)
        assert torch.equal(state.anchor[name], parameters_of(learner)[name])


def test_importance_equals_numbers_by_hand() -> None:
    """0.6 / (0.2² + 0.1) = 30/7 where the path helped, and 0 where it hurt."""
    learner = si(damping=0.1)
    method, task = learner.strategies[0], make_task(0)
    for round_ in (1, 2):
        method.begin_task(task)
        with torch.no_grad():
            for name, path in state_of(learner).path.items():
                path.fill_(0.6)
                path.view(-1)[0] = -0.6
                dict(learner.network.named_parameters())[name].sub_(0.2)
        method.end_task(task)
        for values in state_of(learner).importance.values():
            torch.testing.assert_close(values.flatten()[1:], torch.full((values.numel() - 1,), round_ * 30 / 7))
            assert values.flatten()[0] == 0
    assert state_of(learner).n_consolidated == 2


def test_the_path_integral_of_small_steps_is_the_fall_of_the_loss() -> None:
    """Zenke et al. 2017, Eq. 3: the sum of ω over all parameters is what the loss fell by."""
    training = {"epochs": 200, "batch_size": N_EXAMPLES, "learning_rate": 1e-3, "momentum": 0.0}
    learner = si(training=training)
    task = make_task(0)
    fallen = []

    def note() -> None:
        with torch.no_grad():
            loss = F.cross_entropy(learner.network(task.inputs, 0, 1), task.labels)
        fallen.append((float(loss), sum(float(path.sum()) for path in state_of(learner).path.values())))

    learner.learn(task, between_steps=note)
    (first_loss, first_path), (last_loss, last_path) = fallen[0], fallen[-1]

    assert first_loss - last_loss > 0.01
    assert last_path - first_path == pytest.approx(first_loss - last_loss, rel=0.02)


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_follows_the_gradient_of_loss_plus_the_published_penalty(kind: IncrementalType) -> None:
    learner = learn_tasks(si(kind, penalty_weight=1.5), [0, 1])
    state, theta = state_of(learner), dict(learner.network.named_parameters())
    with torch.no_grad():
        for parameter in theta.values():
            parameter.add_(0.3)
    task = make_task(1, kind)
    logits, first = learner.network.training_logits(task.inputs, 1, 2, "seen")
    loss = F.cross_entropy(logits, task.labels - first)
    penalty = sum(1.5 * (omega * (theta[n] - state.anchor[n]).square()).sum() for n, omega in state.importance.items())
    used = {n: p for n, p in theta.items() if not (kind == "task" and "heads.0" in n)}
    expected = torch.autograd.grad(loss + penalty, list(used.values()))

    learner.strategies[0].begin_task(task)
    learner.strategies[0].prepare(task)
    learner.step(task.take(torch.arange(N_EXAMPLES)))

    found = gradients_of(learner)
    assert found.keys() == used.keys()
    for name, gradient in zip(used, expected, strict=True):
        torch.testing.assert_close(found[name], gradient)


def test_the_penalty_is_zero_at_the_anchor_and_positive_off_it() -> None:
    learner = learn_tasks(si(), [0])
    parameters = dict(learner.network.named_parameters())
    assert penalty_value(state_of(learner), parameters, 1.0) == 0

    with torch.no_grad():
        parameters["backbone.0.weight"].add_(0.01)
    assert penalty_value(state_of(learner), parameters, 1.0) > 0


def test_in_task_a_head_that_is_not_in_use_keeps_its_importance() -> None:
    learner = learn_tasks(si(penalty_weight=3.0), [0])
    importance, head = state_of(learner).importance["heads.0.weight"].clone(), parameters_of(learner)["heads.0.weight"]
    learn_tasks(learner, [1, 2])

    assert float(importance.sum()) > 0
    assert torch.equal(state_of(learner).importance["heads.0.weight"], importance)
    assert torch.equal(parameters_of(learner)["heads.0.weight"], head)


def test_between_tasks_two_numbers_a_parameter_are_kept() -> None:
    learner = si()
    assert learner.strategies[0].kept_bytes() == 0
    for task in range(3):
        learn_tasks(learner, [task])
        n_parameters = N_BACKBONE_WEIGHTS + N_BACKBONE_BIASES + (task + 1) * N_HEAD
        assert learner.strategies[0].kept_bytes() == 2 * 4 * n_parameters


@pytest.mark.parametrize(("field", "value"), [("penalty_weight", -1.0), ("damping", 0.0), ("xi", 0.1)])
def test_hyperparameters_outside_of_their_range_are_refused(field: str, value: Any) -> None:
    with pytest.raises(ValidationError, match=field):
        SiHyperparameters(**{field: value})


def test_without_a_pull_the_damping_has_no_effect() -> None:
    assert SiHyperparameters().unused() == set()
    assert SiHyperparameters(penalty_weight=0).unused() == {"damping"}
