from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from tiny_worlds import KINDS, gradients_of, learn_tasks, make_learner, make_task, parameters_of, same
from torch import Tensor

from strategies import Batch, Forward, IncrementalType, Learner
from strategies.methods.er_ace import ErAce, ErAceHyperparameters


def er_ace(kind: IncrementalType = "class", training: dict[str, Any] | None = None, **own: Any) -> Learner:
    return make_learner("er-ace", kind=kind, hyperparameters=own, **(training or {}))


def loss_of(learner: Learner, batch: Batch, logits: Tensor, first: int = 0) -> Tensor | None:
    (strategy,) = learner.strategies
    assert isinstance(strategy, ErAce)
    return strategy.classification_loss(batch, Forward(torch.zeros(len(logits), 5), logits, first))


LOGITS = torch.tensor([[3.0, 0.0, 1.0, 2.0], [1.0, 0.0, 0.0, 1.0]])


@pytest.mark.parametrize(
    ("rivals", "new_loss"),
    [
        ("batch", 0.0),  # class 2 is alone in its batch
        ("task", math.log(1 + math.e)),  # logits 1 and 2 compete: log(e¹ + e²) - 1
        ("seen", math.log(math.exp(3) + 1 + math.e + math.exp(2)) - 1),
    ],
)
def test_the_loss_by_hand(rivals: str, new_loss: float) -> None:
    """A new example of class 2 and a remembered one of class 0, of tasks {0, 1} and {2, 3}."""
    learner = learn_tasks(er_ace(rivals=rivals, buffer_size=4), range(2))
    batch = Batch(LOGITS, torch.tensor([2, 0]), torch.tensor([1, 0]), torch.tensor([0]))
    old_loss = math.log(2 * math.e + 2) - 1
    found = loss_of(learner, batch, LOGITS)
    if found is None:
        assert rivals == "seen"
        found = learner.label_loss(LOGITS, batch.labels)
    assert float(found) == pytest.approx((new_loss + old_loss) / 2, rel=1e-6)


def test_two_classes_of_a_batch_compete_with_each_other_and_no_others() -> None:
    learner = learn_tasks(er_ace(buffer_size=4), range(2))
    batch = Batch(LOGITS, torch.tensor([2, 3]), 1, torch.tensor([0, 1]))
    expected = (math.log(math.e + math.exp(2)) - 1 + math.log(1 + math.e) - 1) / 2
    found = loss_of(learner, batch, LOGITS)
    assert found is not None
    assert float(found) == pytest.approx(expected, rel=1e-6)


def test_the_head_of_a_task_that_begins_later() -> None:
    """In `task` a batch of new examples alone has the logits of its own head, whose first column is output 2."""
    learner = learn_tasks(er_ace("task", buffer_size=4), range(2))
    batch = Batch(LOGITS, torch.tensor([3, 3]), 1, torch.tensor([0, 1]))
    assert float(loss_of(learner, batch, LOGITS[:, :2], 2)) == 0.0  # type: ignore[arg-type]
    learner.strategies[0].hyperparameters = ErAceHyperparameters(rivals="task")
    expected = (math.log(math.exp(3) + 1) - 0 + math.log(math.e + 1) - 0) / 2
    assert float(loss_of(learner, batch, LOGITS[:, :2], 2)) == pytest.approx(expected)  # type: ignore[arg-type]


def test_new_examples_do_not_move_old_heads() -> None:
    """Without remembered examples the rows of old classes have no gradient; plain cross-entropy gives them one."""
    for rivals, moves in (("batch", False), ("seen", True)):
        learner = learn_tasks(er_ace(rivals=rivals, replay_ratio=0.0), range(2))
        learner.step(make_task(1, "class").take(torch.arange(8)))
        gradient = gradients_of(learner)["heads.0.weight"]
        assert bool(gradient.any()) == moves
        assert bool(torch.isfinite(gradient).all())


@pytest.mark.parametrize("kind", KINDS)
def test_all_seen_as_rivals_are_replay_bit_for_bit(kind: IncrementalType) -> None:
    own = {"buffer_size": 20, "replay_ratio": 0.6}
    replay = learn_tasks(make_learner("replay", kind=kind, hyperparameters=own), range(3))
    plain = learn_tasks(er_ace(kind, rivals="seen", **own), range(3))
    assert same(parameters_of(plain), parameters_of(replay))
    assert same(plain.strategies[0].state_dict(), replay.strategies[0].state_dict())
    if kind == "class":
        assert not same(parameters_of(learn_tasks(er_ace(kind, **own), range(3))), parameters_of(replay))


@pytest.mark.parametrize("kind", ["task", "domain"])
def test_batches_of_all_classes_of_a_task_make_it_replay(kind: IncrementalType) -> None:
    """Every batch of 10 has both classes here, so nothing is left to be masked; the sums are in another order."""
    training = {"batch_size": 20, "epochs": 4}
    replay = learn_tasks(make_learner("replay", kind=kind, **training), range(3))
    for name, parameter in parameters_of(learn_tasks(er_ace(kind, training), range(3))).items():
        torch.testing.assert_close(parameter, parameters_of(replay)[name])


def test_the_first_task_is_replays() -> None:
    one, other = (learn_tasks(make_learner(name, kind="class"), [0]) for name in ("er-ace", "replay"))
    assert same(parameters_of(one), parameters_of(other))


def test_it_combines_with_a_distillation() -> None:
    learner = learn_tasks(make_learner("er-ace", "lwf", kind="class"), range(3))
    alone = learn_tasks(make_learner("er-ace", kind="class"), range(3))
    assert not same(parameters_of(learner), parameters_of(alone))


def test_what_has_no_effect_and_what_is_refused() -> None:
    assert ErAceHyperparameters(memory_batch_size=3).unused() == {"replay_ratio"}
    assert ErAceHyperparameters(replay_ratio=0).unused() >= {"buffer_size", "buffer"}
    with pytest.raises(ValidationError, match="rivals"):
        ErAceHyperparameters(rivals="none")
