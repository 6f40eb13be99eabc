"""A stop at a task boundary changes nothing: every method, every incremental type that it can do."""

from __future__ import annotations

from typing import Any

import pytest
from tiny_worlds import KINDS, learn_tasks, make_learner, make_task, same, through_a_file

from strategies import STRATEGIES, IncrementalType, Learner

VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("naive", {}),
    ("joint", {}),
    ("lwf", {"temperature": 3.0}),
    ("lwf", {"new_outputs": "left_out"}),
    ("si", {"penalty_weight": 2.0}),
    ("mas", {"importance_samples": 7}),
    ("ewc", {"fisher_samples": 7}),
    ("ewc", {"variant": "online", "fisher_decay": 0.5, "penalty_decay": 0.5}),
    ("replay", {"buffer_size": 9}),
    ("replay", {"buffer_size": 9, "buffer": "class_balanced", "replay_ratio": 0.3}),
    ("freeze", {"frozen_layers": 1}),
    ("freeze", {"frozen_layers": 9}),
    ("generative-replay", {"latent_size": 3, "hidden_size": 8, "pool_size": 30}),
    ("icarl", {"buffer_size": 13, "temperature": 2.0}),
    ("replay", {"buffer_size": 9, "memory_batch_size": 3}),
    ("der", {"buffer_size": 9}),
    ("der++", {"buffer_size": 30, "memory_batch_size": 3}),
    ("der", {"buffer_size": 9, "new_outputs": "as_added"}),
    ("mer", {"buffer_size": 9, "reptile_steps": 4}),
    ("gem", {"buffer_size": 9}),
    ("gem", {"buffer_size": 30, "memory_batch_size": 4}),
    ("agem", {"buffer_size": 9, "memory_batch_size": 5}),
    ("packnet", {"post_prune_epochs": 1, "pruning_rate": 0.5}),
    ("packnet", {"post_prune_epochs": 0, "pruning": "equal_share"}),
    ("pnn", {}),
    ("supsup", {"kept_share": 0.4}),
]
CASES = [
    pytest.param(method, own, kind, id=f"{method}-{'-'.join(map(str, own.values()))}-{kind}")
    for method, own in VARIANTS
    for kind in KINDS
    if kind not in STRATEGIES[method].unsupported
]


def assert_indistinguishable(one: Learner, other: Learner) -> None:
    assert same(one.state_dict(), other.state_dict())
    kind = one.layout.incremental_type
    for task in range(3):
        inputs = make_task(task, kind).inputs
        assert same(one.logits(inputs, task), other.logits(inputs, task))
    assert [s.kept_bytes() for s in one.strategies] == [s.kept_bytes() for s in other.strategies]
    assert [s.report() for s in one.strategies] == [s.report() for s in other.strategies]


@pytest.mark.parametrize("training", [{}, {"keep_optimizer": True}, {"keep_optimizer": True, "optimizer": "adam"}])
@pytest.mark.parametrize(("method", "own", "kind"), CASES)
def test_stopping_after_any_task_changes_nothing(
    method: str, own: dict[str, Any], kind: IncrementalType, training: dict[str, Any]
) -> None:
    def fresh() -> Learner:
        return make_learner(method, kind=kind, hyperparameters=own, **{"learning_rate": 0.02, **training})

    straight = learn_tasks(fresh(), range(3))
    for n_done in (1, 2):
        state = through_a_file(learn_tasks(fresh(), range(n_done)).state_dict())
        resumed = fresh()
        resumed.load_state_dict(state)
        learn_tasks(resumed, range(n_done, 3))
        assert_indistinguishable(straight, resumed)


@pytest.mark.parametrize(("method", "own", "kind"), CASES)
def test_a_loaded_learner_is_the_one_that_was_saved(method: str, own: dict[str, Any], kind: IncrementalType) -> None:
    saved = learn_tasks(make_learner(method, kind=kind, hyperparameters=own), range(3))
    loaded = make_learner(method, kind=kind, hyperparameters=own)
    loaded.load_state_dict(through_a_file(saved.state_dict()))

    assert_indistinguishable(saved, loaded)


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
