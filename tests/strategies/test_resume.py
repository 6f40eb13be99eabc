"""A stop changes nothing, for settings that tests/conformance does not train every method with."""

from __future__ import annotations

from typing import Any

import pytest
from rehearsal_worlds import resumed_inside
from tiny_worlds import learn_tasks, make_learner, make_task, same, through_a_file

from strategies import IncrementalType, Learner


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


STOPS: list[tuple[str, IncrementalType, dict[str, Any], dict[str, Any]]] = [
    ("agem", "class", {"buffer_size": 9, "memory_batch_size": 4}, {"optimizer": "rmsprop"}),
    ("der", "task", {"buffer_size": 25}, {"optimizer": "adamw"}),
    ("der++", "class", {"buffer_size": 25}, {"active_outputs": "all"}),
    ("x-der", "class", {"buffer_size": 25}, {"active_outputs": "all", "optimizer": "adam"}),
    ("er-ace", "class", {"buffer_size": 9}, {"optimizer": "rmsprop"}),
    ("cls-er", "class", {"buffer_size": 9}, {"optimizer": "adam", "keep_optimizer": True}),
    ("mir", "class", {"buffer_size": 30, "memory_batch_size": 3, "candidate_factor": 3}, {"optimizer": "adamw"}),
    ("gdumb", "class", {"buffer_size": 30, "passes": 4}, {"optimizer": "rmsprop"}),
    ("wa", "class", {}, {"optimizer": "adam", "keep_optimizer": True}),
    ("l2", "task", {}, {"optimizer": "adam"}),
    ("l2-init", "class", {}, {"optimizer": "adam", "keep_optimizer": True}),
    ("redo", "class", {"threshold": 0.9, "every": 3}, {"optimizer": "adam", "keep_optimizer": True}),
    ("cbp", "task", {"replacement_rate": 0.07, "maturity": 2}, {"optimizer": "adam", "keep_optimizer": True}),
    ("shrink-and-perturb", "task", {"every": 3}, {"optimizer": "adamw"}),
    ("ewc", "class", {"variant": "online", "fisher_samples": 7}, {"optimizer": "rmsprop"}),
    ("ewc", "task", {"variant": "online", "structure": "low_rank", "rank": 3}, {"optimizer": "adam"}),
    ("ewc", "class", {"structure": "low_rank", "rank": 3, "eigenvectors_in": "int8"}, {"optimizer": "adam"}),
    ("ewc", "task", {"structure": "kronecker"}, {"optimizer": "adam"}),
    ("freeze", "domain", {}, {"optimizer": "rmsprop", "keep_optimizer": True}),
    ("gem", "class", {"memory_batch_size": 4}, {"optimizer": "rmsprop"}),
    ("generative-replay", "task", {"pool_size": 30, "hidden_size": 8}, {"optimizer": "adamw"}),
    ("icarl", "class", {"buffer_size": 12}, {"keep_optimizer": True}),
    ("lwf", "class", {}, {"active_outputs": "current"}),
    ("mas", "class", {"importance_samples": 7}, {"optimizer": "rmsprop"}),
    ("mer", "class", {"reptile_steps": 4, "buffer_size": 9}, {"optimizer": "rmsprop"}),
    ("packnet", "task", {"pruning": "equal_share"}, {"optimizer": "rmsprop", "weight_decay": 0.1}),
    ("pnn", "task", {}, {"optimizer": "rmsprop", "keep_optimizer": True}),
    ("si", "class", {"penalty_weight": 2.0}, {"optimizer": "rmsprop", "clip_gradient_norm": 0.5}),
    ("supsup", "task", {}, {"optimizer": "adamw", "keep_optimizer": True}),
]


@pytest.mark.parametrize(("method", "kind", "own", "training"), STOPS)
def test_a_stop_inside_a_task_changes_nothing(
    method: str, kind: IncrementalType, own: dict[str, Any], training: dict[str, Any]
) -> None:
    def fresh() -> Learner:
        return make_learner(method, kind=kind, hyperparameters=own, **{"learning_rate": 0.01} | training)

    straight, resumed = resumed_inside(fresh, task=1, n_steps=5)

    assert_indistinguishable(straight, resumed)
