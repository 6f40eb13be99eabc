"""Methods against lost plasticity: what a step of each does, by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_worlds import KINDS, gradients_of, learn_tasks, make_learner, make_network, make_task, parameters_of, same

from strategies import IncrementalType, Learner
from strategies.methods.shrink_and_perturb import ShrinkAndPerturbHyperparameters


def one_step(learner: Learner, kind: IncrementalType) -> dict[str, torch.Tensor]:
    learner.reset_optimizer()
    learner.step(make_task(1, kind).take(torch.arange(8)))
    return parameters_of(learner)


@pytest.mark.parametrize("kind", KINDS)
def test_l2_init_pulls_to_the_first_values(kind: IncrementalType) -> None:
    """θ - η(g + λ(θ - θ₀)), θ₀ being what the trial began with, and what a new head began with."""
    stepped = {}
    for weight in (0.0, 2.0):
        own = {"penalty_weight": weight}
        learner = make_learner("l2-init", kind=kind, hyperparameters=own, momentum=0.0)
        naive = learn_tasks(make_learner("naive", kind=kind, momentum=0.0), [0])
        learner.learn(make_task(0, kind))
        learner.network.load_state_dict(naive.network.state_dict())  # the same point for both
        learner.network.add_heads(learner.layout.head_of(1) + 1, learner.device, learner.generators.fresh)
        learner.n_seen = 2
        learner.strategies[0].begin_task(make_task(1, kind))
        learner.strategies[0].prepare(make_task(1, kind))
        before = parameters_of(learner)
        stepped[weight] = one_step(learner, kind)
        reached = gradients_of(learner).keys()
    first = dict(make_network(kind, learner.layout.head_of(1) + 1).named_parameters())
    for name, value in stepped[2.0].items():
        pull = 0.1 * 2.0 * (before[name] - first[name]) if name in reached else 0.0
        torch.testing.assert_close(value, stepped[0.0][name] - pull)
    assert any(bool((before[name] != first[name]).any()) for name in reached)


def shrink(**own: Any) -> Learner:
    learner = make_learner("shrink-and-perturb", kind="class", hyperparameters=own, momentum=0.0)
    return learn_tasks(learner, [0])


def test_shrinking_takes_a_share_every_so_many_steps() -> None:
    learner = shrink(shrinkage=0.25, noise=0.0, every=7)
    learner.strategies[0].state.n_steps = 0
    learner.reset_optimizer()
    batch = make_task(0, "class").take(torch.arange(8))
    for step in range(1, 15):
        before = parameters_of(learner)
        learner.step(batch)
        after, gradients = parameters_of(learner), gradients_of(learner)
        for name, value in after.items():
            moved = before[name] - 0.1 * gradients[name]
            torch.testing.assert_close(value, moved * (0.75 if step % 7 == 0 else 1.0))


def test_noise_has_its_deviation_and_leaves_other_heads_alone() -> None:
    learner = make_learner(
        "shrink-and-perturb", kind="task", hyperparameters={"noise": 0.5, "shrinkage": 0.0, "every": 1}
    )
    learn_tasks(learner, [0, 1])
    quiet = learner.settings.model_copy(update={"learning_rate": 1e-12, "momentum": 0.0})
    learner.settings = quiet
    learner.reset_optimizer()
    before = parameters_of(learner)
    for _ in range(200):
        learner.step(make_task(1).take(torch.arange(8)))
    after = parameters_of(learner)
    assert same(after["heads.0.weight"], before["heads.0.weight"])
    drift = torch.cat([(after[n] - before[n]).flatten() for n in after if not n.startswith("heads.0")])
    assert float(drift.std()) == pytest.approx(0.5 * 200**0.5, rel=0.2)


def test_what_has_no_effect() -> None:
    assert ShrinkAndPerturbHyperparameters(shrinkage=0, noise=0).unused() == {"every"}
    assert ShrinkAndPerturbHyperparameters().unused() == set()


@pytest.mark.parametrize("cure", ["l2-init", "shrink-and-perturb"])
def test_they_go_beside_a_method_against_forgetting(cure: str) -> None:
    alone = learn_tasks(make_learner("replay", kind="class"), range(3))
    both = learn_tasks(make_learner("replay", cure, kind="class"), range(3))
    assert not same(parameters_of(both), parameters_of(alone))
    assert same(both.strategies[0].state_dict(), alone.strategies[0].state_dict())
