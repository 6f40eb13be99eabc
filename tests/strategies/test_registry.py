from __future__ import annotations

import re
from typing import Any

import pytest
from tiny_worlds import KINDS, learn_tasks, make_learner, make_task

from strategies import STRATEGIES, Hyperparameters, IncrementalType

NAMES = list(STRATEGIES)
SMALL: dict[str, dict[str, Any]] = {"generative-replay": {"hidden_size": 8, "latent_size": 4, "pool_size": 50}}
"""Hyper-parameters of what is slow at its defaults."""
CASES = [(name, kind) for name in NAMES for kind in KINDS if kind not in STRATEGIES[name].unsupported]


@pytest.mark.parametrize("name", NAMES)
def test_a_method_says_what_it_is(name: str) -> None:
    strategy = STRATEGIES[name]

    assert strategy.name == name
    assert strategy.summary
    assert strategy.version >= 1
    assert strategy.unsupported.keys() | strategy.notes.keys() <= set(KINDS)
    assert not strategy.unsupported.keys() & strategy.notes.keys()
    assert (
        re.search("arXiv|ECCV", strategy.paper)
        or strategy.hyperparameter_class.model_fields == {}
        or strategy.is_reference
    )


@pytest.mark.parametrize("name", NAMES)
def test_hyperparameters_have_defaults_and_descriptions(name: str) -> None:
    own = STRATEGIES[name].hyperparameter_class
    assert issubclass(own, Hyperparameters)
    own()

    assert all(field.description for field in own.model_fields.values())


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_a_method_learns_every_supported_type(name: str, kind: IncrementalType) -> None:
    own = SMALL.get(name, {})
    task = make_task(0, kind)
    logits = learn_tasks(make_learner(name, kind=kind, hyperparameters=own, epochs=12), [0]).logits(task.inputs, 0)
    accuracy = (logits.argmax(1) == task.labels).float().mean()
    last = learn_tasks(make_learner(name, kind=kind, hyperparameters=own, epochs=1), range(3))
    n_outputs = last.logits(task.inputs, 0).shape[1]

    assert accuracy >= 0.75
    assert n_outputs == (6 if kind == "class" else 2)


def test_naive_has_no_memory_and_joint_is_the_bound() -> None:
    assert learn_tasks(make_learner("naive"), range(2)).strategies[0].kept_bytes() == 0
    assert [name for name, strategy in STRATEGIES.items() if strategy.is_reference] == ["joint"]
