from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from tiny_worlds import (
    N_EXAMPLES,
    N_INPUTS,
    gradients_of,
    learn_tasks,
    make_learner,
    make_task,
    parameters_of,
    same,
)
from torch.nn import functional as F

from strategies import Batch, Forward, IncrementalType, Learner, Strategy
from strategies.methods.replay import Replay, ReplayHyperparameters, n_remembered


class Watch(Strategy):
    """Notes every batch that follows the strategies before it."""

    name = "watch"
    summary = "for tests"
    seen: list[Batch]

    def extend_batch(self, batch: Batch) -> Batch:
        self.seen = [*getattr(self, "seen", []), batch]
        return batch


def replay(kind: IncrementalType = "task", training: dict[str, Any] | None = None, **own: Any) -> Learner:
    return make_learner("replay", kind=kind, hyperparameters=own, **(training or {}))


def watched(tasks: list[int], **own: Any) -> list[Batch]:
    """Return the batches, with what was remembered, of the last of `tasks`."""
    learner = make_learner("naive", "replay", Watch, kind="task")
    learner.strategies[1].hyperparameters = ReplayHyperparameters(**own)
    learn_tasks(learner, tasks[:-1])
    watch = learner.strategies[2]
    assert isinstance(watch, Watch)
    watch.seen = []
    learn_tasks(learner, tasks[-1:])
    return watch.seen


@pytest.mark.parametrize(
    ("batch_size", "ratio", "expected"),
    [(64, 0.5, 64), (64, 0.0, 0), (64, 0.2, 16), (64, 0.9, 576), (10, 0.75, 30), (10, 0.3, 4), (8, 0.01, 0)],
)
def test_the_number_remembered_makes_the_ratio_the_share_of_the_batch(
    batch_size: int, ratio: float, expected: int
) -> None:
    assert n_remembered(batch_size, ratio) == expected


def test_the_first_task_has_nothing_to_remember() -> None:
    assert [len(batch.labels) for batch in watched([0])] == [8, 8, 4, 8, 8, 4]


def test_later_batches_are_new_examples_followed_by_remembered_ones() -> None:
    batches = watched([0, 1], replay_ratio=0.6, buffer_size=5)
    new = torch.cat([batch.inputs[:-12] for batch in batches])
    task = make_task(1)

    assert [len(batch.labels) for batch in batches] == [8 + 12, 8 + 12, 4 + 12] * 2
    for epoch in new.split(N_EXAMPLES):
        assert torch.equal(epoch[epoch[:, 1].argsort()], task.inputs[task.inputs[:, 1].argsort()])
    for batch in batches:
        assert isinstance(batch.task_ids, torch.Tensor)
        assert set(batch.task_ids[:-12].tolist()) == {1}
        assert set(batch.task_ids[-12:].tolist()) == {0}


def test_a_given_number_of_remembered_examples_replaces_the_ratio() -> None:
    assert [len(b.labels) for b in watched([0, 1], memory_batch_size=3)] == [8 + 3, 8 + 3, 4 + 3] * 2
    assert ReplayHyperparameters(memory_batch_size=3).unused() == {"replay_ratio"}
    assert ReplayHyperparameters().unused() == frozenset()
    equal = [learn_tasks(replay(**own), range(3)) for own in ({"memory_batch_size": 8}, {"replay_ratio": 0.5})]
    assert same(parameters_of(equal[0]), parameters_of(equal[1]))


def test_remembered_examples_are_those_of_past_tasks_with_their_labels() -> None:
    past = {
        tuple(x): (y, task)
        for task in (0, 1)
        for x, y in zip(make_task(task).inputs.tolist(), make_task(task).labels.tolist(), strict=True)
    }
    remembered: dict[tuple[float, ...], tuple[int, int]] = {}
    for batch in watched([0, 1, 2], replay_ratio=0.75, buffer_size=12):
        assert isinstance(batch.task_ids, torch.Tensor)
        rows = [values[-24:].tolist() for values in (batch.inputs, batch.labels, batch.task_ids)]
        remembered |= {tuple(x): (y, task) for x, y, task in zip(*rows, strict=True)}

    assert remembered.items() <= past.items()
    assert len(remembered) == 12
    assert {task for _, task in remembered.values()} == {0, 1}


def test_the_data_of_a_task_enters_the_buffer_once_and_not_once_an_epoch() -> None:
    learner = learn_tasks(replay(training={"epochs": 7}), range(3))

    assert learner.strategies[0].state.n_offered == 3 * N_EXAMPLES


def test_in_task_each_replayed_example_trains_its_own_head() -> None:
    learner = learn_tasks(replay(replay_ratio=0.75, buffer_size=20), [0, 1])
    learner.n_seen = 3
    learner.network.add_heads(3, learner.device, learner.generators.fresh)
    learner.reset_optimizer()
    method = learner.strategies[0]
    assert isinstance(method, Replay)
    new = make_task(2).take(torch.arange(8))
    position = learner.generators["replay"].get_state()
    extended = method.extend_batch(new)
    learner.generators["replay"].set_state(position)
    network = learner.network
    assert isinstance(extended.task_ids, torch.Tensor)

    total = torch.zeros(())
    for task in range(3):
        rows = extended.task_ids == task
        assert bool(rows.any())
        logits = network.heads[task](network.backbone(extended.inputs[rows]))
        total = total + F.cross_entropy(logits, extended.labels[rows] - 2 * task, reduction="sum")
    expected = torch.autograd.grad(total / 32, list(network.parameters()))
    loss = learner.step(new)

    torch.testing.assert_close(loss, (total / 32).detach())
    found = gradients_of(learner)
    for (name, _), gradient in zip(network.named_parameters(), expected, strict=True):
        torch.testing.assert_close(found[name], gradient)


def test_replay_remembers_in_class_what_naive_forgets() -> None:
    def accuracy_on_the_first_task(learner: Learner) -> float:
        learn_tasks(learner, range(2))
        task = make_task(0, "class")
        return float((learner.logits(task.inputs, 0).argmax(1) == task.labels).float().mean())

    training = {"epochs": 30, "learning_rate": 0.05}
    naive = accuracy_on_the_first_task(make_learner("naive", kind="class", **training))
    remembered = accuracy_on_the_first_task(replay("class", training, replay_ratio=0.5))

    assert remembered > naive + 0.2


@pytest.mark.parametrize(("buffer", "bytes_each"), [("reservoir", 8 + 8), ("class_balanced", 8 + 8 + 8)])
def test_kept_bytes_are_those_of_the_examples_held(buffer: str, bytes_each: int) -> None:
    learner = replay(buffer=buffer, buffer_size=30)
    assert learner.strategies[0].kept_bytes() == 0
    for task, n_held in enumerate([20, 30, 30]):
        learn_tasks(learner, [task])
        assert learner.strategies[0].kept_bytes() == n_held * (4 * N_INPUTS + bytes_each)


@pytest.mark.parametrize(
    ("field", "value"), [("buffer_size", 0), ("replay_ratio", -0.1), ("replay_ratio", 1.0), ("buffer", "fifo")]
)
def test_hyperparameters_outside_of_their_range_are_refused(field: str, value: Any) -> None:
    with pytest.raises(ValidationError, match=field):
        ReplayHyperparameters(**{field: value})


def test_what_has_no_effect() -> None:
    assert ReplayHyperparameters().unused() == set()
    assert ReplayHyperparameters(memory_batch_size=4).unused() == {"replay_ratio"}
    nothing = {"buffer_size", "buffer", "buffer_size_per_class", "filled", "loss_weighting"}
    assert ReplayHyperparameters(replay_ratio=0).unused() == nothing
    assert ReplayHyperparameters(buffer_size_per_class=3).unused() == {"buffer_size", "buffer"}


def test_a_fixed_number_of_each_class() -> None:
    """At every moment, also of classes of which there are fewer, and never what others leave free."""
    learner = make_learner("replay", kind="class", hyperparameters={"buffer_size_per_class": 4})
    for task in range(3):
        learner.learn(make_task(task, "class", n=20 if task else 6))
        counts = torch.bincount(learner.strategies[0].state.labels).tolist()
        assert counts == [3, 3, *[4] * (2 * task)]


def test_a_buffer_that_fills_while_the_task_is_trained() -> None:
    """Each example is offered once, in the last pass, and may be drawn in the steps after it."""
    learner = make_learner("replay", kind="class", hyperparameters={"buffer_size": 12, "filled": "while_training"})
    state, sizes = learner.strategies[0].state, []
    learner.learn(make_task(0, "class"), lambda: sizes.append((len(state), state.n_offered)))
    assert sizes == [(0, 0)] * 3 + [(8, 8), (12, 16), (12, 20)]  # two passes of 8, 8 and 4
    learn_tasks(learner, [1, 2])
    assert state.n_offered == 60
    assert len(state) == 12
    stream = torch.cat([make_task(task, "class").inputs for task in range(3)])
    assert all(bool((stream == kept).all(1).any()) for kept in state.inputs)


def test_weights_of_tasks_by_hand() -> None:
    """1/t of the mean loss of new examples and 1 - 1/t of that of remembered ones; here t is 3."""
    learner = learn_tasks(
        make_learner("replay", kind="class", hyperparameters={"loss_weighting": "by_task", "buffer_size": 5}), range(3)
    )
    logits = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 1.0]])
    batch = Batch(torch.zeros(3, 4), torch.tensor([0, 0, 0]), torch.tensor([2, 0, 1]), torch.tensor([0]))
    new, old = math.log(2), (math.log(1 + math.exp(-2)) + math.log(1 + math.e)) / 2
    strategy = learner.strategies[0]
    found = strategy.classification_loss(batch, Forward(torch.zeros(3, 5), logits, 0))
    assert found is not None
    assert float(found) == pytest.approx(new / 3 + old * 2 / 3)
    alone = Batch(batch.inputs[:1], batch.labels[:1], 2, torch.tensor([0]))
    found = strategy.classification_loss(alone, Forward(torch.zeros(1, 5), logits[:1], 0))
    assert found is not None
    assert float(found) == pytest.approx(new)  # nothing is remembered yet


def test_what_contradicts_itself_is_refused() -> None:
    for own in ({"buffer": "class_balanced"}, {"buffer_size_per_class": 3}):
        with pytest.raises(ValueError, match=r"replay\.filled: while_training fills a reservoir.*drop"):
            make_learner("replay", kind="class", hyperparameters={"filled": "while_training", **own})
