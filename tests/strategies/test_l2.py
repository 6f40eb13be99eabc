from __future__ import annotations

import pytest
import torch
from tiny_worlds import KINDS, learn_tasks, make_learner, make_task, parameters_of, same

from strategies import IncrementalType


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_by_hand(kind: IncrementalType) -> None:
    """θ - η(g + λ(θ - θ*)) for what was there after the last task; a head without an anchor takes a plain step."""
    plain, held = (
        learn_tasks(make_learner("l2", kind=kind, hyperparameters={"penalty_weight": weight}), [0])
        for weight in (0.0, 3.0)
    )
    anchor = parameters_of(held)
    assert same(parameters_of(plain), anchor)  # there was nothing to be held to
    batch = make_task(1, kind).take(torch.arange(8))
    for learner in (plain, held):
        learner.learn(make_task(1, kind, n=8))
        learner.strategies[0].prepare(make_task(1, kind))
        with torch.no_grad():
            for name, parameter in learner.network.named_parameters():
                parameter.copy_(anchor.get(name, torch.zeros_like(parameter)) + 0.25)
        learner.settings = learner.settings.model_copy(update={"momentum": 0.0})
        learner.reset_optimizer()
        learner.strategies[0].state.anchor = {name: value.clone() for name, value in anchor.items()}
        learner.strategies[0].state.importance = {name: torch.ones(()) for name in anchor}
        learner.strategies[0].prepare(make_task(1, kind))
        learner.step(batch)
    eta, after = 0.1, parameters_of(plain)
    for name, value in parameters_of(held).items():
        moved = plain.network.get_parameter(name).grad is not None and name in anchor
        expected = after[name] - (eta * 3.0 * 0.25 if moved else 0.0)
        torch.testing.assert_close(value, expected)


def test_the_anchor_is_the_latest_task() -> None:
    learner = learn_tasks(make_learner("l2", kind="class"), range(2))
    state = learner.strategies[0].state
    assert same(state.anchor, parameters_of(learner))
    assert all(float(importance) == 1.0 for importance in state.importance.values())
    assert state.n_consolidated == 2


def test_a_large_weight_holds_everything() -> None:
    """Damped as the other penalties are, it does not diverge: a step ends at the anchor."""
    learner = learn_tasks(make_learner("l2", kind="domain", hyperparameters={"penalty_weight": 1e8}), [0])
    before = parameters_of(learner)
    for name, value in parameters_of(learn_tasks(learner, [1])).items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=1e-5)
