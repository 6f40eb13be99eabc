from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from tiny_worlds import KINDS, learn_tasks, make_learner, make_task, parameters_of, same
from torch import Tensor

from strategies import IncrementalType, Learner
from strategies.methods.mer import MerHyperparameters, MerState


def mer(kind: IncrementalType = "task", training: dict[str, Any] | None = None, **own: Any) -> Learner:
    return make_learner("mer", kind=kind, hyperparameters=own, **(training or {}))


def way(learner: Learner, tasks: range, steps_of: int) -> list[list[dict[str, Tensor]]]:
    """Return the parameters before the first step and after every step of each task, from `between_steps`."""
    ways = []
    for index in tasks:
        seen: list[dict[str, Tensor]] = []
        learner.learn(
            make_task(index, learner.layout.incremental_type),
            between_steps=lambda seen=seen: seen.append(parameters_of(learner)),  # type: ignore[misc]
        )
        assert len(seen) == steps_of
        ways.append([*seen, parameters_of(learner)])
    return ways


@pytest.mark.parametrize("kind", KINDS)
def test_a_rate_of_1_is_replay_and_without_memory_naive_bit_for_bit(kind: IncrementalType) -> None:
    own = {"buffer_size": 20, "replay_ratio": 0.6}
    replay = learn_tasks(make_learner("replay", kind=kind, hyperparameters=own), range(3))
    naive = learn_tasks(make_learner("naive", kind=kind), range(3))

    assert same(parameters_of(learn_tasks(mer(kind, reptile_rate=1, **own), range(3))), parameters_of(replay))
    alone = learn_tasks(mer(kind, reptile_rate=1, replay_ratio=0, reptile_steps=2), range(3))
    assert same(parameters_of(alone), parameters_of(naive))
    assert not same(parameters_of(learn_tasks(mer(kind, replay_ratio=0), range(3))), parameters_of(naive))


@pytest.mark.parametrize("kind", KINDS)
def test_a_group_keeps_its_share_of_the_way_and_the_next_starts_there(kind: IncrementalType) -> None:
    """Without momentum a step depends on the parameters alone, so plain steps from θ₀ are what the group undid."""
    training = {"momentum": 0.0, "epochs": 1}  # three steps a task
    naive, learner = make_learner("naive", kind=kind, **training), mer(kind, training, reptile_steps=2, replay_ratio=0)
    learner.strategies[0].hyperparameters = MerHyperparameters(reptile_rate=0.25, reptile_steps=2, replay_ratio=0)
    naive.network.add_heads(1, naive.device, naive.generators.fresh)
    start = parameters_of(naive)
    plain, found = (way(one, range(1), 3)[0] for one in (naive, learner))

    assert same(found[0], plain[0])
    for name in start:
        torch.testing.assert_close(found[1][name], start[name] + 0.25 * (plain[1][name] - start[name]))
        # The third step is a group of its own, closed at the end of the task.
        torch.testing.assert_close(found[3][name], found[1][name] + 0.25 * (found[2][name] - found[1][name]))
    assert not same(found[3], found[2])


def test_the_way_starts_anew_with_each_task_and_takes_its_new_head_along() -> None:
    learner = mer("task", reptile_rate=0.5, reptile_steps=4, buffer_size=10)
    learn_tasks(learner, [0])
    state: MerState = learner.strategies[0].state
    assert (state.n_in_group, state.group_start) == (0, {})
    before = parameters_of(learner)
    learner.network.add_heads(2, learner.device, learner.generators.fresh)
    fresh = parameters_of(learner)
    seen: list[tuple[int, dict[str, Tensor]]] = []
    learner.learn(
        make_task(1),
        between_steps=lambda: seen.append((state.n_in_group, {n: p.clone() for n, p in state.group_start.items()})),
    )

    assert [n for n, _ in seen] == [1, 2, 3, 0, 1, 2]
    assert same(seen[0][1], fresh)
    assert seen[0][1].keys() - before.keys() == {"heads.1.weight", "heads.1.bias"}
    assert not same(seen[3][1], fresh)
    assert learner.strategies[0].kept_bytes() == 10 * (4 * 4 + 8 + 8)


def test_what_has_no_effect_and_what_is_refused() -> None:
    assert MerHyperparameters().unused() == frozenset()
    assert MerHyperparameters(reptile_rate=1, memory_batch_size=3).unused() == {"reptile_steps", "replay_ratio"}
    for field, value in [("reptile_rate", 0), ("reptile_rate", 1.1), ("reptile_steps", 0)]:
        with pytest.raises(ValidationError, match=field):
            MerHyperparameters(**{field: value})
