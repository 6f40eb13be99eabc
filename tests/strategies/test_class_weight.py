"""Weights of classes in the loss of every method, remembered examples included."""

from __future__ import annotations

import pytest
import torch
from tiny_worlds import KINDS, learn_tasks, make_learner, make_task, parameters_of, same, through_a_file
from torch.nn import functional as F

from strategies import STRATEGIES, IncrementalType, Learner, TaskData

SMALL = {"generative-replay": {"hidden_size": 8, "latent_size": 4, "pool_size": 50}}
CASES = [(name, kind) for name in STRATEGIES for kind in KINDS if kind not in STRATEGIES[name].unsupported]


def uneven(index: int, kind: IncrementalType) -> TaskData:
    """Return a task with 16 examples of its first class and 4 of its second."""
    task = make_task(index, kind, 40)
    first = task.labels.min()
    rows = torch.cat([torch.nonzero(task.labels == first)[:16, 0], torch.nonzero(task.labels != first)[:4, 0]])
    return TaskData(index, task.inputs[rows], task.labels[rows], index)


def test_balanced_is_scikit_learns_over_the_tasks_so_far() -> None:
    learner = make_learner("naive", kind="class", class_weight="balanced", epochs=1)
    learner.learn(uneven(0, "class"))
    assert learner.label_loss.weights is not None
    assert learner.label_loss.weights.tolist() == pytest.approx([20 / (2 * 16), 20 / (2 * 4), 1, 1, 1, 1])
    learner.learn(make_task(1, "class", 10))
    assert learner.label_loss.weights.tolist() == pytest.approx([30 / 64, 30 / 16, 30 / 20, 30 / 20, 1, 1])


def test_the_loss_is_the_weighted_mean() -> None:
    learner = make_learner("naive", kind="task", class_weight="balanced", epochs=1)
    learner.learn(uneven(0, "task"))
    logits, labels = torch.randn(3, 2), torch.tensor([0, 1, 0])
    each = F.cross_entropy(logits, labels, reduction="none")
    weights = torch.tensor([20 / 32, 20 / 8, 20 / 32])
    torch.testing.assert_close(learner.label_loss(logits, labels), (each * weights).sum() / weights.sum())
    learner.learn(uneven(1, "task"))
    torch.testing.assert_close(
        learner.label_loss(logits, labels + 2, 2), (each * weights).sum() / weights.sum(), msg="columns begin at 2"
    )


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_every_method_trains_with_weights_and_otherwise_than_without(name: str, kind: IncrementalType) -> None:
    if not STRATEGIES[name].trains_network:
        with pytest.raises(ValueError, match=f"{name}: expected no training.class_weight"):
            make_learner(name, kind=kind, class_weight="balanced")
        return
    found = []
    for weight in (None, "balanced"):
        learner = make_learner(name, kind=kind, hyperparameters=SMALL.get(name), class_weight=weight, epochs=2)
        for index in range(2):
            learner.learn(uneven(index, kind))
        found.append(parameters_of(learner))
    assert not same(*found)


def test_equal_weights_change_nothing_but_their_rounding() -> None:
    """Both classes of a task are equally frequent, so every weight is 1."""
    plain = learn_tasks(make_learner("replay", kind="domain"), range(2))
    weighted = learn_tasks(make_learner("replay", kind="domain", class_weight="balanced"), range(2))
    for name, parameter in parameters_of(plain).items():
        torch.testing.assert_close(parameters_of(weighted)[name], parameter)


def test_a_stop_between_tasks_keeps_the_counts() -> None:
    def fresh() -> Learner:
        return make_learner("replay", kind="domain", class_weight="balanced", epochs=2)

    straight, stopped = fresh(), fresh()
    for index in range(3):
        straight.learn(uneven(index, "domain"))
    stopped.learn(uneven(0, "domain"))
    resumed = fresh()
    resumed.load_state_dict(through_a_file(stopped.state_dict()))
    for index in (1, 2):
        resumed.learn(uneven(index, "domain"))
    assert same(straight.state_dict(), resumed.state_dict())


def test_weights_by_name() -> None:
    learner = make_learner("naive", kind="domain", class_weight={1: 10})
    assert learner.settings.class_weight == {"1": 10.0}, "YAML reads the class 1 as a number"
