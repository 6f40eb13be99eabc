"""A stop changes nothing, whatever outputs are active; tests/conformance holds every method to it."""

from __future__ import annotations

import pytest
from tiny_worlds import learn_tasks, make_learner, make_task, same, through_a_file

from strategies import Learner


def assert_indistinguishable(one: Learner, other: Learner) -> None:
    assert same(one.state_dict(), other.state_dict())
    kind = one.layout.incremental_type
    for task in range(3):
        inputs = make_task(task, kind).inputs
        assert same(one.logits(inputs, task), other.logits(inputs, task))
    assert [s.kept_bytes() for s in one.strategies] == [s.kept_bytes() for s in other.strategies]
    assert [s.report() for s in one.strategies] == [s.report() for s in other.strategies]


def test_a_combination_resumes_too() -> None:
    def fresh() -> Learner:
        return make_learner("ewc", "replay", kind="class", hyperparameters={"buffer_size": 6})

    straight = learn_tasks(fresh(), range(3))
    resumed = fresh()
    resumed.load_state_dict(through_a_file(learn_tasks(fresh(), [0]).state_dict()))

    assert_indistinguishable(straight, learn_tasks(resumed, [1, 2]))


@pytest.mark.parametrize("active", ["all", "current"])
def test_every_choice_of_active_outputs_resumes(active: str) -> None:
    def fresh() -> Learner:
        return make_learner("ewc", kind="class", active_outputs=active, keep_optimizer=True)

    straight = learn_tasks(fresh(), range(3))
    resumed = fresh()
    resumed.load_state_dict(through_a_file(learn_tasks(fresh(), [0]).state_dict()))

    assert_indistinguishable(straight, learn_tasks(resumed, [1, 2]))
