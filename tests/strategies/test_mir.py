from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from tiny_worlds import KINDS, learn_tasks, make_learner, make_task, parameters_of, same
from torch import nn
from torch.nn import functional as F

from strategies import Batch, IncrementalType, Learner
from strategies.methods.mir import Mir, MirHyperparameters


def mir(kind: IncrementalType = "class", training: dict[str, Any] | None = None, **own: Any) -> Learner:
    return make_learner("mir", kind=kind, hyperparameters=own, **(training or {}))


def the_strategy(learner: Learner) -> Mir:
    (strategy,) = learner.strategies
    assert isinstance(strategy, Mir)
    return strategy


@pytest.mark.parametrize("kind", KINDS)
def test_interference_is_the_rise_of_each_loss_in_a_plain_step(kind: IncrementalType) -> None:
    """Against a copy that takes the step with torch's own SGD; the network itself is left bit for bit as it was."""
    learner = learn_tasks(mir(kind, buffer_size=12), range(2))
    strategy, before = the_strategy(learner), parameters_of(learner)
    new = make_task(1, kind).take(torch.arange(6))
    state = strategy.state
    pool = Batch(state.inputs, state.labels, state.task_ids)
    found = strategy._interference(new, pool)
    assert same(parameters_of(learner), before)
    assert learner.network.training

    def losses() -> torch.Tensor:
        logits, first = learner.network.training_logits(pool.inputs, pool.task_ids, learner.n_seen, "seen")
        return F.cross_entropy(logits, pool.labels - first, reduction="none").detach()

    start = losses()
    optimizer = torch.optim.SGD(learner.network.parameters(), lr=0.1)
    optimizer.zero_grad()
    learner.cross_entropy(new).backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    torch.testing.assert_close(found, losses() - start)
    assert bool((found > 0).any())


def test_interference_by_hand() -> None:
    """One input, a head of two outputs that begin at 0, η = 0.1; new: x = 1 of class 0. Its gradient is ∓1/2.

    So the step gives logits (1 + x) · (0.05, -0.05) for a remembered x, as weight and bias both move. The loss of
    class 1 rises from log 2 to log(1 + exp(0.1 (1 + x))), that of class 0 falls.
    """
    learner = mir("domain", buffer_size=4)
    learner.network.backbone = nn.Flatten()
    learner.network.heads = nn.ModuleList([nn.Linear(1, 2)])
    learner.n_seen = 1
    with torch.no_grad():
        for parameter in learner.network.parameters():
            parameter.zero_()
    new = Batch(torch.tensor([[1.0]]), torch.tensor([0]), 0, torch.tensor([0]))
    pool = Batch(torch.tensor([[0.0], [3.0], [3.0]]), torch.tensor([1, 1, 0]), torch.tensor([0, 0, 0]))
    found = the_strategy(learner)._interference(new, pool)
    logarithms = (math.log(1 + math.exp(z)) - math.log(2) for z in (0.1, 0.4, -0.4))
    torch.testing.assert_close(found, torch.tensor(list(logarithms)))


def test_the_most_hurt_candidates_join_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    learner = learn_tasks(mir(buffer_size=12, memory_batch_size=2, candidate_factor=3), [0])
    strategy, pools = the_strategy(learner), []

    def rank(batch: Batch, pool: Batch) -> torch.Tensor:
        pools.append(pool)
        return torch.tensor([0.1, 0.9, -1.0, 0.3, 0.2, 0.0])

    monkeypatch.setattr(strategy, "_interference", rank)
    new = make_task(1, "class").take(torch.arange(4))
    extended = strategy.extend_batch(new)
    (pool,) = pools
    assert len(pool.labels) == 6
    assert len(torch.unique(pool.inputs, dim=0)) == 6  # no example twice
    assert same(extended.inputs[4:], pool.inputs[[1, 3]])
    assert same(extended.labels[4:], pool.labels[[1, 3]])
    assert isinstance(extended.task_ids, torch.Tensor)
    assert isinstance(pool.task_ids, torch.Tensor)
    assert same(extended.task_ids[4:], pool.task_ids[[1, 3]])


def test_at_its_defaults_it_chooses() -> None:
    """It is another run than that of replay, at the usual batch and ratio too."""
    training = {"batch_size": 8, "epochs": 3}
    one, other = (learn_tasks(make_learner(name, kind="class", **training), range(2)) for name in ("mir", "replay"))
    assert not same(parameters_of(one), parameters_of(other))


@pytest.mark.parametrize("kind", KINDS)
def test_no_choice_is_replay_bit_for_bit(kind: IncrementalType) -> None:
    own = {"buffer_size": 20, "memory_batch_size": 4}
    replay = learn_tasks(make_learner("replay", kind=kind, hyperparameters=own), range(3))
    assert same(parameters_of(learn_tasks(mir(kind, candidate_factor=1, **own), range(3))), parameters_of(replay))
    assert not same(parameters_of(learn_tasks(mir(kind, candidate_factor=3, **own), range(3))), parameters_of(replay))


def test_running_statistics_do_not_see_the_candidates() -> None:
    learner = mir(buffer_size=12, memory_batch_size=2, candidate_factor=3)
    learner.network.backbone.add_module("norm", nn.BatchNorm1d(5))
    learn_tasks(learner, [0])
    learner.network.train()
    before = {name: value.clone() for name, value in learner.network.state_dict().items()}
    the_strategy(learner).extend_batch(make_task(0, "class").take(torch.arange(4)))
    assert same(dict(learner.network.state_dict()), before)
    assert all(module.training for module in learner.network.modules())


def test_what_has_no_effect() -> None:
    assert MirHyperparameters(replay_ratio=0).unused() >= {"buffer_size", "buffer", "candidate_factor"}
    assert MirHyperparameters(memory_batch_size=3).unused() == {"replay_ratio"}
