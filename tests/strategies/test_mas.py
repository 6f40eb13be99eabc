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

from strategies import IncrementalType, Learner, TaskData, TrialDivergedError
from strategies.methods import mas as mas_module
from strategies.methods.mas import Mas, MasHyperparameters
from strategies.parts.quadratic import QuadraticState, penalty_value


class Stopped(Exception):
    pass


def mas(kind: IncrementalType = "task", training: dict[str, Any] | None = None, **own: Any) -> Learner:
    return make_learner("mas", kind=kind, hyperparameters=own, **({"learning_rate": 0.02} | (training or {})))


def state_of(learner: Learner) -> QuadraticState:
    state: QuadraticState = learner.strategies[-1].state
    return state


def one_example_at_a_time(learner: Learner, task: TaskData) -> dict[str, Tensor]:
    """Return the mean of |∂ ½‖f(x)‖² / ∂θ|, one backward pass an example."""
    network = learner.network
    sums: dict[str, Tensor] = {}
    for row in range(len(task)):
        logits, _ = network.training_logits(task.inputs[row : row + 1], task.index, learner.n_seen, "seen")
        gradients = torch.autograd.grad(0.5 * logits.square().sum(), list(network.parameters()), allow_unused=True)
        for (name, _), gradient in zip(network.named_parameters(), gradients, strict=True):
            if gradient is not None:
                sums[name] = sums.get(name, torch.zeros_like(gradient)) + gradient.abs()
    return {name: total / len(task) for name, total in sums.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_task_is_the_naive_run_and_the_second_is_not(kind: IncrementalType) -> None:
    naive, learner = make_learner("naive", kind=kind, learning_rate=0.02), mas(kind)

    assert same(parameters_of(learn_tasks(learner, [0])), parameters_of(learn_tasks(naive, [0])))
    assert not same(parameters_of(learn_tasks(learner, [1])), parameters_of(learn_tasks(naive, [1])))


def test_importance_equals_numbers_by_hand() -> None:
    """A head alone, f = Wx with W = [[1, 2], [0, -1]]: mean over x of |f||x|ᵀ for x = (1, 1) and (-2, 1)."""
    learner = mas(importance_samples=None)
    network = learner.network
    network.backbone = torch.nn.Identity()  # type: ignore[assignment]
    head = torch.nn.Linear(2, 2)
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[1.0, 2.0], [0.0, -1.0]]))
        head.bias.zero_()
    network.heads.append(head)
    learner.n_seen = 1
    inputs = torch.tensor([[1.0, 1.0], [-2.0, 1.0]])  # f = (3, -1) and (0, -1)
    learner.strategies[0].end_task(TaskData(0, inputs, torch.tensor([0, 1]), 0))
    importance = state_of(learner).importance

    assert importance.keys() == {"heads.0.weight", "heads.0.bias"}
    assert importance["heads.0.weight"].tolist() == [[1.5, 1.5], [1.5, 1.0]]
    assert importance["heads.0.bias"].tolist() == [1.5, 1.0]


@pytest.mark.parametrize("kind", KINDS)
def test_importance_is_the_sum_over_tasks_of_each_examples_absolute_gradient(kind: IncrementalType) -> None:
    learner = mas(kind, penalty_weight=0.5, importance_samples=None)
    expected: dict[str, Tensor] = {}
    for task in range(3):
        learn_tasks(learner, [task])
        for name, values in one_example_at_a_time(learner, make_task(task, kind)).items():
            expected[name] = expected.get(name, torch.zeros_like(values)) + values

    state = state_of(learner)
    assert state.importance.keys() == expected.keys()
    assert state.n_consolidated == 3
    for name, values in expected.items():
        torch.testing.assert_close(state.importance[name], values)
        assert torch.equal(state.anchor[name], parameters_of(learner)[name])


def test_importance_needs_no_labels() -> None:
    def importance(shift: int) -> dict[str, Tensor]:
        learner = learn_tasks(mas(), [0])
        task = make_task(1)
        learner.n_seen = 2
        learner.network.add_heads(2, learner.device, learner.generators.fresh)
        learner.strategies[0].end_task(TaskData(1, task.inputs, task.labels + shift, 1))
        return state_of(learner).importance

    assert same(importance(0), importance(1000))


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_follows_the_gradient_of_loss_plus_the_published_penalty(kind: IncrementalType) -> None:
    learner = learn_tasks(mas(kind, penalty_weight=1.5), [0, 1])
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
    # Far from where a plain step diverges: the closed form is then the plain gradient.
    assert max(float(omega.max()) for omega in state.importance.values()) * 3 * 0.02 < 1

    learner.strategies[0].prepare(task)
    learner.step(task.take(torch.arange(N_EXAMPLES)))

    found = gradients_of(learner)
    assert found.keys() == used.keys()
    for name, gradient in zip(used, expected, strict=True):
        torch.testing.assert_close(found[name], gradient)


def test_the_penalty_is_zero_at_the_anchor_and_positive_off_it() -> None:
    learner = learn_tasks(mas(), [0])
    parameters = dict(learner.network.named_parameters())
    assert penalty_value(state_of(learner), parameters, 1.0) == 0

    with torch.no_grad():
        parameters["backbone.0.weight"].add_(0.01)
    assert penalty_value(state_of(learner), parameters, 1.0) > 0


@pytest.mark.parametrize(("samples", "used"), [(7, 7), (20, 20), (500, 20), (None, 20)])
def test_the_importance_takes_distinct_examples_of_the_task_in_evaluation_mode(
    samples: int | None, used: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Tensor] = []
    measure = mas_module.output_sensitivity

    def noting(network: Any, batches: Any, *others: Any) -> dict[str, Tensor]:
        assert not network.training
        seen.extend(batch.inputs for batch in batches)
        return measure(network, batches, *others)

    monkeypatch.setattr(mas_module, "output_sensitivity", noting)
    learn_tasks(mas(importance_samples=samples), [0])
    rows = set(map(tuple, torch.cat(seen).tolist()))

    assert sum(map(len, seen)) == len(rows) == used
    assert rows <= set(map(tuple, make_task(0).inputs.tolist()))


def test_a_network_that_overflows_is_a_diverged_trial() -> None:
    learner = learn_tasks(mas(), [0])
    with torch.no_grad():
        learner.network.heads[0].bias.fill_(float("inf"))

    with pytest.raises(TrialDivergedError, match="overflow"):
        learner.strategies[0].end_task(make_task(0))


def test_two_numbers_a_parameter_are_kept_whatever_the_number_of_tasks() -> None:
    learner = mas()
    assert learner.strategies[0].kept_bytes() == 0
    for task in range(3):
        learn_tasks(learner, [task])
        n_parameters = N_BACKBONE_WEIGHTS + N_BACKBONE_BIASES + (task + 1) * N_HEAD
        assert learner.strategies[0].kept_bytes() == 2 * 4 * n_parameters


def test_in_class_it_is_known_to_do_badly_and_nowhere_refused() -> None:
    assert Mas.notes.keys() == {"class"}
    assert Mas.unsupported == {}


@pytest.mark.parametrize(("field", "value"), [("penalty_weight", -1.0), ("importance_samples", 0), ("lambda", 1.0)])
def test_hyperparameters_outside_of_their_range_are_refused(field: str, value: Any) -> None:
    with pytest.raises(ValidationError, match=field):
        MasHyperparameters(**{field: value})


def test_the_examples_are_drawn_and_not_the_first_ones() -> None:
    learner = learn_tasks(make_learner("mas", hyperparameters={}), [0])

    assert not torch.equal(
        learner.generators["importance"].get_state(), learner.generators.fresh("importance").get_state()
    )
