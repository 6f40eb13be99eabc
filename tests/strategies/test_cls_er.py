from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from tiny_worlds import KINDS, learn_tasks, make_learner, make_task, parameters_of, same
from torch import nn

from strategies import Batch, Forward, IncrementalType, Learner, MethodError, find_method
from strategies.methods.cls_er import ClsEr, ClsErHyperparameters


def cls_er(kind: IncrementalType = "class", training: dict[str, Any] | None = None, **own: Any) -> Learner:
    return make_learner("cls-er", kind=kind, hyperparameters=own, **(training or {}))


def the_strategy(learner: Learner) -> ClsEr:
    (strategy,) = learner.strategies
    assert isinstance(strategy, ClsEr)
    return strategy


def test_averages_by_hand() -> None:
    """Updated after each step with min(1 - 1/(n + 1), decay): 1/2, then 2/3 capped at 0.6 for the slow one."""
    learner = cls_er(stable_decay=0.6, stable_frequency=1.0, plastic_decay=0.0, plastic_frequency=1.0)
    strategy, start = the_strategy(learner), parameters_of(learner)
    learner.network.add_heads(1, torch.device("cpu"), learner.generators.fresh)
    start = parameters_of(learner)
    strategy.begin_task(make_task(0, "class"))
    expected = start
    batch = make_task(0, "class").take(torch.arange(4))
    forward = Forward(torch.zeros(4, 5), torch.zeros(4, 2), 0)
    for n, alpha in ((1, 0.5), (2, 0.6), (3, 0.6)):
        with torch.no_grad():
            for parameter in learner.network.parameters():
                parameter.add_(1.0)
        strategy.after_step(batch, forward)
        expected = {name: alpha * value + (1 - alpha) * (start[name] + n) for name, value in expected.items()}
        for name, value in expected.items():
            torch.testing.assert_close(strategy.state.stable[name], value)
        assert same(strategy.state.plastic, parameters_of(learner))
    assert strategy.state.n_steps == 3


def test_frequencies_are_shares_of_steps() -> None:
    learner = cls_er(stable_frequency=0.25, plastic_frequency=0.75, stable_decay=0.0, plastic_decay=0.0)
    strategy = the_strategy(learner)
    learner.network.add_heads(1, torch.device("cpu"), learner.generators.fresh)
    strategy.begin_task(make_task(0, "class"))
    forward, n = Forward(torch.zeros(4, 5), torch.zeros(4, 2), 0), {"stable": 0, "plastic": 0}
    for step in range(1, 401):
        with torch.no_grad():
            for parameter in learner.network.parameters():
                parameter.fill_(float(step))
        strategy.after_step(make_task(0, "class").take(torch.arange(4)), forward)
        for name in n:
            n[name] += float(next(iter(getattr(strategy.state, name).values())).flatten()[0]) == step
    assert 80 <= n["stable"] <= 120
    assert 280 <= n["plastic"] <= 320


def test_the_consistency_loss_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each remembered example is held to the average that gives its class more; a mean over both and all outputs."""
    learner = learn_tasks(cls_er(consistency_weight=3.0, buffer_size=4), range(2))
    strategy = the_strategy(learner)
    answers = {
        "stable": torch.tensor([[2.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]]),  # classes 0 and 1 are right
        "plastic": torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.0, 4.0, 0.0, 0.0]]),
    }
    monkeypatch.setattr(strategy, "_answers", lambda name, inputs, ids: answers[name])
    batch = Batch(torch.zeros(3, 4), torch.tensor([2, 0, 1]), torch.tensor([1, 0, 0]), torch.tensor([0]))
    logits = torch.tensor([[9.0, 9.0, 9.0, 9.0], [1.0, 1.0, 0.0, 0.0], [0.0, 2.0, 0.0, 2.0]])
    found = strategy.penalty(batch, Forward(torch.zeros(3, 5), logits, 0))
    assert found is not None
    # first: (1 - 2)² + 1² = 2; second, held to the fast one: (2 - 4)² + 2² = 8; over 8 outputs
    assert float(found.value) == pytest.approx(3.0 * (2 + 8) / 8)
    # 3 · 2 (z - z*) / 8
    expected = [[0.0] * 4, [-0.75, 0.75, 0.0, 0.0], [0.0, -1.5, 0.0, 1.5]]
    torch.testing.assert_close(found.to_logits, torch.tensor(expected))


def test_outputs_that_do_not_compete_are_left_out() -> None:
    """In `task` the logits of other heads are -inf; the loss is finite and moves the network."""
    learner = learn_tasks(cls_er("task", buffer_size=8), range(1))
    strategy = the_strategy(learner)
    learner.n_seen = 2
    learner.network.add_heads(2, torch.device("cpu"), learner.generators.fresh)
    strategy.begin_task(make_task(1))
    batch = (
        make_task(1)
        .take(torch.arange(2))
        .with_remembered(Batch(torch.ones(2, 4), torch.tensor([0, 1]), torch.tensor([0, 0])))
    )
    features = learner.network.backbone(batch.inputs)
    logits, first = learner.network.training_outputs(features, batch.task_ids, 2, "seen")
    assert bool(torch.isinf(logits).any())
    term = strategy.penalty(batch, Forward(features, logits, first))
    assert term is not None
    loss = term.in_graph(logits)
    assert math.isfinite(float(loss.detach()))
    loss.backward()  # type: ignore[no-untyped-call]
    assert any(bool(p.grad.any()) for p in learner.network.parameters() if p.grad is not None)
    assert all(bool(p.grad.isfinite().all()) for p in learner.network.parameters() if p.grad is not None)


@pytest.mark.parametrize("kind", KINDS)
def test_without_averages_it_is_replay_bit_for_bit(kind: IncrementalType) -> None:
    own = {"buffer_size": 20, "replay_ratio": 0.6}
    replay = learn_tasks(make_learner("replay", kind=kind, hyperparameters=own), range(3))
    plain = learn_tasks(cls_er(kind, consistency_weight=0.0, stable_decay=0.0, stable_frequency=1.0, **own), range(3))
    assert same(parameters_of(plain), parameters_of(replay))
    inputs = make_task(0, kind).inputs
    assert same(plain.logits(inputs, 0), replay.logits(inputs, 0))
    averaged = learn_tasks(cls_er(kind, consistency_weight=0.0, **own), range(3))
    assert same(parameters_of(averaged), parameters_of(replay))
    assert not same(averaged.logits(inputs, 0), replay.logits(inputs, 0))


def test_the_slow_average_answers() -> None:
    learner = learn_tasks(cls_er(), range(2))
    strategy, inputs = the_strategy(learner), make_task(0, "class").inputs
    found = learner.logits(inputs, 0)
    with torch.no_grad():
        for name, parameter in learner.network.named_parameters():
            parameter.copy_(strategy.state.stable[name])
        expected = learner.network(inputs, 0, 2)
    assert same(found, expected)


def test_averaged_networks_normalise_with_the_statistics_of_the_trained_one() -> None:
    learner = cls_er()
    learner.network.backbone.add_module("norm", nn.BatchNorm1d(5))
    learn_tasks(learner, range(1))
    inputs = make_task(0, "class").inputs
    learner.network.eval()
    before = learner.logits(inputs, 0)
    norm = learner.network.backbone.get_submodule("norm")
    with torch.no_grad():
        norm.get_buffer("running_mean").add_(1.0)
    assert not same(learner.logits(inputs, 0), before)


def test_what_has_no_effect_and_what_is_refused() -> None:
    assert ClsErHyperparameters(consistency_weight=0).unused() == {"plastic_decay", "plastic_frequency"}
    with pytest.raises(MethodError, match="answers by an average"):
        find_method("cls-er+lwf")
