from __future__ import annotations

import pytest
import torch
from tiny_worlds import KINDS, learn_tasks, make_learner, make_task, parameters_of, same

from strategies import IncrementalType, MethodError, find_method


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_a_new_network_trained_on_the_buffer(kind: IncrementalType) -> None:
    """Equal to a fresh naive learner that gets the buffer as its only data, pass by pass."""
    learner = make_learner("gdumb", kind=kind, hyperparameters={"buffer_size": 9, "passes": 7})
    learn_tasks(learner, range(3))
    state = learner.strategies[0].state
    fresh = make_learner("naive", kind=kind)
    fresh.n_seen = 3
    fresh.network.add_heads(learner.layout.n_heads, torch.device("cpu"), fresh.generators.fresh)
    fresh.reset_optimizer()
    fresh.generators.load_state_dict(positions(learner, kind))
    data = learner.strategies[0].training_data(make_task(2, kind))
    assert same(data.labels, state.labels)
    fresh.fit(data, 7)
    assert same(parameters_of(fresh), parameters_of(learner))


def positions(learner: object, kind: IncrementalType) -> dict[str, torch.Tensor]:
    """Return the random generators as they were when the last task began to be trained."""
    before = make_learner("gdumb", kind=kind, hyperparameters={"buffer_size": 9, "passes": 7})
    learn_tasks(before, range(2))
    return before.generators.state_dict()


def test_the_buffer_holds_as_many_of_each_class() -> None:
    learner = make_learner("gdumb", kind="class", hyperparameters={"buffer_size": 9, "passes": 1})
    for task, counts in ((0, [5, 4]), (1, [3, 2, 2, 2]), (2, [2, 2, 2, 1, 1, 1])):
        learn_tasks(learner, [task])
        assert torch.bincount(learner.strategies[0].state.labels).tolist() == counts


def test_passes_replace_epochs_and_iterations_replace_both() -> None:
    for training, n_steps in (({"epochs": 3}, 4 * 2), ({"epochs": 3, "iterations": 5}, 5)):
        learner = make_learner("gdumb", kind="class", hyperparameters={"buffer_size": 9, "passes": 4}, **training)
        taken = []
        learner.learn(make_task(0, "class"), lambda taken=taken: taken.append(1))  # 9 examples in batches of 8
        assert len(taken) == n_steps


def test_it_cannot_be_combined() -> None:
    with pytest.raises(MethodError, match="from an untrained network"):
        find_method("gdumb+lwf")
