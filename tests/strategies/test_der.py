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
from torch import Tensor
from torch.nn import functional as F

from strategies import Batch, Forward, IncrementalType, Learner, Strategy
from strategies.methods.der import Der, DerHyperparameters, DerState

METHODS = ["der", "der++"]


class Watch(Strategy):
    """Notes the new examples of every step and the logits that the step began with."""

    name = "watch"
    summary = "for tests"

    def __init__(self, learner: Learner, hyperparameters: Any) -> None:
        super().__init__(learner, hyperparameters)
        self.seen: list[tuple[Tensor, Tensor, int, bool]] = []

    def after_step(self, batch: Batch, forward: Forward) -> None:
        last = self.learner.in_last_pass
        self.seen.append((batch.inputs.clone(), forward.logits.detach().clone(), forward.first, last))


class LeftOut(Der):
    """DER with the hyper-parameters that a list of several methods cannot be given."""

    def __init__(self, learner: Learner, hyperparameters: Any) -> None:
        super().__init__(learner, DerHyperparameters(buffer_size=1000, new_outputs="left_out"))


def state_of(learner: Learner) -> DerState:
    state: DerState = learner.strategies[0].state
    return state


def held(learner: Learner) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    state = state_of(learner)
    assert state.inputs is not None
    assert state.labels is not None
    assert state.task_ids is not None
    assert state.logits is not None
    return state.inputs, state.labels, state.task_ids, state.logits


def ready(method: str, kind: IncrementalType, own: dict[str, Any], **training: Any) -> Learner:
    """Return a learner that has learned tasks 0 and 1 and can take a step on task 2."""
    learner = learn_tasks(make_learner(method, kind=kind, hyperparameters=own, **training), [0, 1])
    learner.n_seen = 3
    learner.network.add_heads(1 if kind == "domain" else 3, learner.device, learner.generators.fresh)
    learner.reset_optimizer()
    return learner


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("active", ["seen", "all", "current"])
def test_an_example_enters_in_the_last_pass_with_the_logits_of_that_step(kind: IncrementalType, active: str) -> None:
    learner = make_learner(LeftOut, Watch, kind=kind, epochs=3, active_outputs=active)
    learn_tasks(learner, range(3))
    watch = learner.strategies[1]
    assert isinstance(watch, Watch)
    inputs, labels, ids, logits = held(learner)
    expected: dict[tuple[float, ...], list[float]] = {}
    for seen, values, first, last in watch.seen:
        for x, row in zip(seen.tolist(), values, strict=True):
            stored = torch.zeros(2 if kind == "domain" else 6)
            stored[first : first + len(row)] = row
            if last:
                expected[tuple(x)] = stored.tolist()

    assert state_of(learner).n_offered == len(labels) == 3 * N_EXAMPLES
    assert {tuple(x): row for x, row in zip(inputs.tolist(), logits.tolist(), strict=True)} == expected
    for task in range(3):
        own = make_task(task, kind)
        where = {tuple(x): int(y) for x, y in zip(own.inputs.tolist(), own.labels, strict=True)}
        rows = ids == task
        found = zip(inputs[rows].tolist(), labels[rows].tolist(), strict=True)
        assert {tuple(x): y for x, y in found} == where


@pytest.mark.parametrize("kind", KINDS)
def test_stored_logits_are_never_renewed(kind: IncrementalType) -> None:
    own = {"buffer_size": 1000, "new_outputs": "left_out"}
    learner = learn_tasks(make_learner("der", kind=kind, hyperparameters=own), [0])
    before = [values.clone() for values in held(learner)]
    learn_tasks(learner, [1, 2])

    for old, now in zip(before, held(learner), strict=True):
        assert torch.equal(old, now[: len(old)])


def test_with_one_pass_the_first_task_is_remembered_while_it_is_learned() -> None:
    once, often = (make_learner("der", epochs=epochs) for epochs in (1, 2))
    sizes: dict[int, list[int]] = {1: [], 2: []}
    once.learn(make_task(0), between_steps=lambda: sizes[1].append(len(state_of(once))))
    often.learn(make_task(0), between_steps=lambda: sizes[2].append(len(state_of(often))))

    assert sizes == {1: [8, 16, 20], 2: [0, 0, 0, 8, 16, 20]}


COMPETED = {
    ("task", "seen"): [(0, 2), (2, 4)],
    ("domain", "seen"): [(0, 2), (0, 2)],
    ("class", "seen"): [(0, 2), (0, 4)],
    ("class", "all"): [(0, 6), (0, 6)],
    ("class", "current"): [(0, 2), (2, 4)],
}


@pytest.mark.parametrize(("kind", "active"), COMPETED)
@pytest.mark.parametrize("method", METHODS)
def test_a_step_follows_equations_5_and_6(method: str, kind: IncrementalType, active: str) -> None:
    own = {"buffer_size": 30, "memory_batch_size": 7, "logit_weight": 0.7, "new_outputs": "left_out"}
    if method == "der++":
        own["label_weight"] = 0.3
    learner = ready(method, kind, own, active_outputs=active)
    inputs, labels, ids, stored = (values.clone() for values in held(learner))
    generator = learner.generators["der/draw"]
    position = generator.get_state()
    n = 7 if method == "der" else 14
    rows = torch.randint(30, (n,), generator=generator)
    generator.set_state(position)
    network = learner.network
    assert set(ids[rows[:7]].tolist()) == {0, 1}

    def present(row: int) -> Tensor:
        """Return the logits of one example that compete now, and -inf for the others."""
        features = network.backbone(inputs[row : row + 1])
        values = network.outputs(features, len(network.heads))[0]
        start, stop = (0, len(values)) if kind == "class" and active != "current" else COMPETED[kind, active][ids[row]]
        mask = torch.ones(len(values), dtype=torch.bool)
        mask[start:stop] = False
        return values.masked_fill(mask, -torch.inf)

    squares: list[Tensor] = []
    for row in rows[:7].tolist():
        start, stop = COMPETED[kind, active][ids[row]]
        squares += list((present(row)[start:stop] - stored[row, start:stop]).square())
    new = make_task(2, kind).take(torch.arange(8))
    expected = learner.cross_entropy(new) + 0.7 * sum(squares) / len(squares)
    if method == "der++":
        second = [F.cross_entropy(present(row)[None], labels[row : row + 1]) for row in rows[7:].tolist()]
        expected = expected + 0.3 * sum(second) / 7
    names, parameters = zip(*network.named_parameters(), strict=True)
    wanted = torch.autograd.grad(expected, parameters, allow_unused=True)

    torch.testing.assert_close(learner.step(new), expected.detach())
    found = gradients_of(learner)
    for name, gradient in zip(names, wanted, strict=True):
        if gradient is not None:
            torch.testing.assert_close(found[name], gradient, msg=name)


def test_the_distance_is_the_mean_over_what_competed_by_hand() -> None:
    learner = make_learner("der", kind="class", hyperparameters={"new_outputs": "left_out"})
    method = learner.strategies[0]
    assert isinstance(method, Der)
    method.state.logits = torch.tensor([[1.0, 2.0, 0, 0, 0, 0], [1.0, 1.0, 3.0, 0.0, 0, 0]])
    logits = torch.tensor([[2.0, 4.0, 50.0, 50.0], [1.0, 1.0, 0.0, 2.0]], requires_grad=True)
    distance = method._distance(logits, torch.tensor([0, 1]), torch.tensor([0, 1]))
    distance.backward()  # type: ignore[no-untyped-call]

    assert distance.item() == pytest.approx((1 + 4 + 9 + 4) / 6)
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, torch.tensor([[1.0, 2.0, 0, 0], [0, 0, -3.0, 2.0]]) / 3)


@pytest.mark.parametrize(
    ("method", "own", "sizes"),
    [
        ("der", {}, (8, 0)),
        ("der", {"replay_ratio": 0.2}, (2, 0)),
        ("der", {"replay_ratio": 0}, (0, 0)),
        ("der", {"memory_batch_size": 5}, (5, 0)),
        ("der++", {}, (4, 4)),
        ("der++", {"replay_ratio": 0.6}, (6, 6)),
        ("der++", {"replay_ratio": 0.1}, (1, 0)),
        ("der++", {"memory_batch_size": 5}, (5, 5)),
        ("der++", {"logit_weight": 0}, (0, 4)),
        ("der++", {"label_weight": 0}, (4, 0)),
    ],
)
def test_the_ratio_is_that_of_both_draws_and_a_batch_size_that_of_each(
    method: str, own: dict[str, Any], sizes: tuple[int, int]
) -> None:
    strategy = make_learner(method, hyperparameters=own).strategies[0]
    assert isinstance(strategy, Der)

    assert strategy._draw_sizes() == sizes


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "rmsprop"])
@pytest.mark.parametrize("method", METHODS)
def test_the_memory_is_never_over_capacity_with_any_optimizer(method: str, optimizer: str) -> None:
    learner = make_learner(
        method, kind="class", hyperparameters={"buffer_size": 13}, optimizer=optimizer, learning_rate=0.01, epochs=1
    )
    sizes: list[int] = []
    for task in range(3):
        learner.learn(make_task(task, "class"), between_steps=lambda: sizes.append(len(state_of(learner))))

    assert sizes == [8, *[13] * 8]
    assert [len(values) for values in held(learner)] == [13] * 4


@pytest.mark.parametrize("method", ["replay+der", "replay+der++"])
@pytest.mark.parametrize("kind", KINDS)
def test_beside_replay_only_new_examples_enter(method: str, kind: IncrementalType) -> None:
    learner = make_learner(*method.split("+", 1), kind=kind, hyperparameters={"buffer_size": 1000}, epochs=1)
    learn_tasks(learner, range(3))
    state: DerState = learner.strategies[1].state
    assert state.logits is not None

    assert state.n_offered == len(state) == 3 * N_EXAMPLES
    assert bool(torch.isfinite(state.logits).all())


def test_what_a_given_batch_size_leaves_without_effect() -> None:
    assert DerHyperparameters().unused() == frozenset()
    assert DerHyperparameters(memory_batch_size=3).unused() == {"replay_ratio"}


@pytest.mark.parametrize(("field", "value"), [("buffer_size", 0), ("logit_weight", -1), ("memory_batch_size", 0)])
def test_hyperparameters_outside_of_their_range_are_refused(field: str, value: Any) -> None:
    with pytest.raises(ValidationError, match=field):
        DerHyperparameters(**{field: value})


def test_as_added_a_head_that_grows_is_asked_once_while_untrained_and_older_logits_stay() -> None:
    learner = make_learner("der", kind="class", hyperparameters={"buffer_size": 1000, "new_outputs": "as_added"})
    learn_tasks(learner, [0])
    for index in (1, 2):
        inputs, _, _, before = (values.clone() for values in held(learner))
        learner.network.add_heads(index + 1, learner.device, learner.generators.fresh)
        with torch.no_grad():
            expected = learner.network.heads[index](learner.network.backbone(inputs))
        learn_tasks(learner, [index])
        now = held(learner)[3][: len(before)]

        assert torch.equal(now[:, : 2 * index], before[:, : 2 * index])
        assert torch.equal(now[:, 2 * index : 2 * index + 2], expected)
        assert not now[:, 2 * index + 2 :].any()


def test_as_added_every_output_that_exists_is_compared_by_hand() -> None:
    learner = ready("der", "class", {"buffer_size": 30, "memory_batch_size": 7, "new_outputs": "as_added"})
    method = learner.strategies[0]
    assert isinstance(method, Der)
    inputs, _, ids, stored = held(learner)
    rows = torch.tensor([0, 1, 25, 29])
    logits = learner.network.outputs(learner.network.backbone(inputs[rows]), len(learner.network.heads))
    width = logits.shape[1]

    distance = method._distance(logits, rows, ids[rows])

    torch.testing.assert_close(distance, F.mse_loss(logits, stored[rows, :width]))


@pytest.mark.parametrize(
    ("kind", "active"), [("task", "seen"), ("domain", "seen"), ("class", "all"), ("class", "current")]
)
def test_as_added_has_no_effect_where_no_head_joins_those_that_compete(kind: IncrementalType, active: str) -> None:
    one, other = (
        learn_tasks(
            make_learner("der++", kind=kind, hyperparameters={"new_outputs": new}, active_outputs=active), range(3)
        )
        for new in ("left_out", "as_added")
    )

    assert same(parameters_of(one), parameters_of(other))


def test_as_added_keeps_in_class_what_left_out_forgets() -> None:
    accuracies = {}
    for new in ("left_out", "as_added"):
        own = {"buffer_size": 60, "new_outputs": new, "logit_weight": 1.0}
        learner = learn_tasks(make_learner("der", kind="class", epochs=40, hyperparameters=own), range(2))
        task = make_task(0, "class")
        accuracies[new] = float((learner.logits(task.inputs, 0).argmax(1) == task.labels).float().mean())

    assert accuracies["as_added"] >= accuracies["left_out"] + 0.3


@pytest.mark.parametrize(
    ("iterations", "last"), [(2, [0, 1]), (3, [0, 1, 2]), (5, [0, 1, 2]), (6, [3, 4, 5]), (8, [3, 4, 5])]
)
def test_the_last_pass_is_the_last_complete_one_or_the_only_one(iterations: int, last: list[int]) -> None:
    learner = make_learner(Watch, iterations=iterations)
    watch = learner.strategies[0]
    assert isinstance(watch, Watch)
    learner.learn(make_task(0))

    assert [step for step, (*_, in_last) in enumerate(watch.seen) if in_last] == last

    watch.seen = []
    learner.fit(make_task(0), epochs=1)  # what a method trains on top is no pass of the task
    assert not any(in_last for *_, in_last in watch.seen)
