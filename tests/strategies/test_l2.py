from __future__ import annotations

import pytest
import torch
from tiny_worlds import KINDS, gradients_of, learn_tasks, make_learner, make_task, parameters_of, same

from strategies import IncrementalType


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_by_hand(kind: IncrementalType) -> None:
    """θ - η(g + λ(θ - θ*)), the anchor being that of the last task, or the first weights of a head that is new."""
    stepped = {}
    for weight in (0.0, 3.0):
        learner = make_learner("l2", kind=kind, hyperparameters={"penalty_weight": weight})
        learn_tasks(learner, [0])
        trained = parameters_of(learner)
        learner.network.add_heads(learner.layout.head_of(1) + 1, learner.device, learner.generators.fresh)
        learner.n_seen = 2
        task = make_task(1, kind)
        learner.strategies[0].begin_task(task)
        anchor = parameters_of(learner)
        assert same({name: anchor[name] for name in trained}, trained)
        learner.strategies[0].prepare(task)
        with torch.no_grad():
            for parameter in learner.network.parameters():
                parameter.add_(0.25)
        learner.settings = learner.settings.model_copy(update={"momentum": 0.0})
        learner.reset_optimizer()
        learner.step(task.take(torch.arange(8)))
        stepped[weight] = parameters_of(learner)
        reached = gradients_of(learner).keys()
    for name, value in stepped[3.0].items():
        expected = stepped[0.0][name] - (0.1 * 3.0 * 0.25 if name in reached else 0.0)
        torch.testing.assert_close(value, expected)
    assert len(reached) >= 6


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
