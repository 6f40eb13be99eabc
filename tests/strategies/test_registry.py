from __future__ import annotations

import json

import pytest
from tiny_worlds import KINDS, learn_tasks, make_learner, make_settings, make_task, parameters_of, same, through_a_file

from strategies import STRATEGIES, Hyperparameters, IncrementalType

NAMES = list(STRATEGIES)
CASES = [(name, kind) for name in NAMES for kind in KINDS if kind not in STRATEGIES[name].unsupported]


@pytest.mark.parametrize("name", NAMES)
def test_a_method_says_what_it_is(name: str) -> None:
    strategy = STRATEGIES[name]

    assert strategy.name == name
    assert strategy.summary
    assert strategy.version >= 1
    assert strategy.unsupported.keys() | strategy.notes.keys() <= set(KINDS)
    assert not strategy.unsupported.keys() & strategy.notes.keys()
    assert "arXiv" in strategy.paper or strategy.hyperparameter_class.model_fields == {}


@pytest.mark.parametrize("name", NAMES)
def test_every_hyperparameter_has_a_default_and_is_described(name: str) -> None:
    own = STRATEGIES[name].hyperparameter_class
    assert issubclass(own, Hyperparameters)
    own()

    assert all(field.description for field in own.model_fields.values())


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_a_method_learns_every_type_that_it_supports(name: str, kind: IncrementalType) -> None:
    learner = learn_tasks(make_learner(name, kind=kind, epochs=20), [0])
    task = make_task(0, kind)
    accuracy = (learner.logits(task.inputs, 0).argmax(1) == task.labels).float().mean()
    n_outputs = learn_tasks(learner, [1, 2]).logits(task.inputs, 0).shape[1]

    assert accuracy >= 0.75
    assert n_outputs == (6 if kind == "class" else 2)


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_a_run_can_be_repeated_bit_for_bit(name: str, kind: IncrementalType) -> None:
    one, other = (parameters_of(learn_tasks(make_learner(name, kind=kind), range(3))) for _ in range(2))

    assert same(one, other)


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_what_a_method_keeps_can_be_saved_and_what_it_reports_is_plain_json(name: str, kind: IncrementalType) -> None:
    method = learn_tasks(make_learner(name, kind=kind), range(2)).strategies[0]

    assert same(through_a_file(method.state_dict()), method.state_dict())
    assert json.loads(json.dumps(method.report())) == method.report()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("iterations", [None, 100])
def test_the_cost_is_at_least_that_of_a_naive_run(name: str, iterations: int | None) -> None:
    strategy = STRATEGIES[name]
    cost = strategy.relative_cost(strategy.hyperparameter_class(), make_settings(iterations=iterations), 5)

    assert isinstance(cost, float)
    assert 1 <= cost < 10


def test_naive_keeps_nothing_and_only_joint_is_a_reference() -> None:
    assert learn_tasks(make_learner("naive"), range(2)).strategies[0].kept_bytes() == 0
    assert [name for name, strategy in STRATEGIES.items() if strategy.is_reference] == ["joint"]
