"""Methods against lost plasticity: what a step of each does, by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_worlds import KINDS, gradients_of, learn_tasks, make_learner, make_network, make_task, parameters_of, same

from orchestrator.conformance import Case
from orchestrator.models.settings import ModelSettings
from strategies import Forward, IncrementalType, Learner
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


def dormant_learner(kind: IncrementalType = "class", **training: Any) -> Learner:
    """Return a learner whose units 0 and 3 of the first hidden layer, and 1 of the second, never respond."""
    own = {"threshold": 0.01, "every": 1}
    learner = learn_tasks(make_learner("naive", kind=kind, **training), [0])
    redo = make_learner("redo", kind=kind, hyperparameters=own, **training)
    redo.learn(make_task(0, kind))
    redo.network.load_state_dict(learner.network.state_dict())
    first, second = redo.network.backbone[0], redo.network.backbone[2]
    with torch.no_grad():
        first.bias.fill_(1.0)
        second.bias.fill_(1.0)
        first.bias[[0, 3]] = -1e3
        second.bias[1] = -1e3
    redo.reset_optimizer()
    return redo


def test_dormant_units_get_new_weights_in_and_none_out() -> None:
    learner = dormant_learner()
    batch = make_task(0, "class").take(torch.arange(8))
    strategy, before = learner.strategies[0], parameters_of(learner)
    features = learner.network.backbone(batch.inputs)
    answers = learner.network.outputs(features, 1).detach()
    strategy.after_step(batch, Forward(features, answers, 0))
    after = parameters_of(learner)
    changed = {name: (after[name] != before[name]) for name in after}
    assert changed["backbone.0.weight"].any(1).tolist() == [True, False, False, True, False, False]
    assert changed["backbone.0.bias"].nonzero()[:, 0].tolist() == [0, 3]
    assert changed["backbone.2.bias"].nonzero()[:, 0].tolist() == [1]
    assert not bool(after["backbone.2.weight"][[0, 2, 3, 4]][:, [0, 3]].any())
    assert not bool(after["heads.0.weight"][:, 1].any())
    kept = [unit for unit in range(6) if unit not in (0, 3)]
    assert same(after["backbone.2.weight"][[0, 2, 3, 4]][:, kept], before["backbone.2.weight"][[0, 2, 3, 4]][:, kept])
    now = learner.network.outputs(learner.network.backbone(batch.inputs), 1).detach()
    torch.testing.assert_close(now, answers)  # what was dormant had no part in them


def test_the_optimizer_forgets_recycled_weights() -> None:
    learner = dormant_learner(optimizer="adam")
    optimizer = learner.optimizer
    assert optimizer is not None
    batch = make_task(0, "class").take(torch.arange(8))
    first = learner.network.backbone[0].weight
    learner.strategies[0].hyperparameters = learner.strategies[0].hyperparameters.model_copy(update={"every": 10**6})
    learner.step(batch)
    optimizer.state[first]["exp_avg"].fill_(1.0)
    features = learner.network.backbone(batch.inputs)
    learner.strategies[0].hyperparameters = learner.strategies[0].hyperparameters.model_copy(update={"every": 1})
    learner.strategies[0].after_step(batch, Forward(features, features, 0))
    assert optimizer.state[first]["exp_avg"].any(1).tolist() == [False, True, True, False, True, True]


def test_maps_are_followed_through_a_flattening() -> None:
    """A convolution's dead channel loses its block of columns in the linear layer behind it."""
    model = ModelSettings(name="cnn", channels=(3,), hidden=(4,))
    case = Case("redo", "class", {"threshold": 0.01, "every": 1}, model=model)
    learner = case.learned([0])
    convolution, linear = learner.network.backbone[0], learner.network.backbone[4]
    with torch.no_grad():
        convolution.bias.fill_(1.0)
        convolution.bias[1] = -1e3
    task = case.task(0)
    batch = task.take(torch.arange(8))
    features = learner.network.backbone(batch.inputs)
    learner.strategies[0].after_step(batch, Forward(features, features, 0))
    zero = (linear.weight == 0).all(0)
    assert zero.tolist() == [False] * 16 + [True] * 16 + [False] * 16
    assert float(convolution.bias[1].detach()) > -1.0
