from __future__ import annotations

from typing import Any

import optuna
import pytest
from optuna import distributions
from pydantic import ValidationError

from search_spaces import (
    SPACES,
    TRAINING_KNOBS,
    Choices,
    Distribution,
    FloatRange,
    IntRange,
    Range,
    SearchSpace,
    SpaceError,
    build_space,
    sample,
    space_of,
    to_optuna,
)
from strategies import STRATEGIES, TrainingSettings, find_method

TRAINING = TrainingSettings(learning_rate=0.03, batch_size=16)


def space(method: str, **overrides: Any) -> SearchSpace:
    return space_of(find_method(method), overrides, TRAINING)


def test_optuna_gets_the_same_distributions() -> None:
    space: dict[str, Distribution] = {
        "share": FloatRange(0.1, 0.7, step=0.1),
        "rate": FloatRange(1e-4, 1.0, log=True),
        "size": IntRange(50, 5000, log=True),
        "count": IntRange(100, 500, step=100),
        "kind": Choices((None, "true", 3)),
    }

    assert to_optuna(space) == {
        "share": distributions.FloatDistribution(0.1, 0.7, step=0.1),
        "rate": distributions.FloatDistribution(1e-4, 1.0, log=True),
        "size": distributions.IntDistribution(50, 5000, log=True),
        "count": distributions.IntDistribution(100, 500, step=100),
        "kind": distributions.CategoricalDistribution([None, "true", 3]),
    }


def test_methods_and_spaces_match() -> None:
    assert SPACES.keys() == STRATEGIES.keys()


@pytest.mark.parametrize("method", STRATEGIES)
def test_ranges_lie_within_the_allowed_values(method: str) -> None:
    own = STRATEGIES[method].hyperparameter_class
    for name, distribution in SPACES[method].items():
        assert name in own.model_fields
        if isinstance(distribution, Choices):
            assert [getattr(own(**{name: choice}), name) for choice in distribution.choices] == [*distribution.choices]
            continue
        assert isinstance(distribution, FloatRange | IntRange)
        for end in (distribution.low, distribution.high):
            assert getattr(own(**{name: end}), name) == end
        assert distribution.low < distribution.high


@pytest.mark.parametrize("method", STRATEGIES)
def test_every_sample_is_a_valid_setting(method: str) -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    for suggestion in sample(SPACES[method], 20, seed=0):
        assert STRATEGIES[method].hyperparameter_class(**suggestion).model_dump().items() >= suggestion.items()


@pytest.mark.parametrize("method", STRATEGIES)
def test_without_overrides_the_defaults_are_searched(method: str) -> None:
    found = space(method)
    defaults = STRATEGIES[method].hyperparameter_class().model_dump()

    assert found.distributions == SPACES[method]
    assert found.fixed == {}
    assert found.start == {name: defaults[name] for name in SPACES[method]}


def test_ewc_range_covers_the_literature() -> None:
    distribution = SPACES["ewc"]["penalty_weight"]

    assert isinstance(distribution, FloatRange)
    assert distribution.log
    assert distribution.low <= 0.4
    assert distribution.high >= 1e10


def test_unused_hyperparameters_are_not_searched() -> None:
    assert set(space("packnet", pruning="equal_share").distributions) == {"post_prune_epochs"}
    asked = space("packnet", pruning="equal_share", pruning_rate=Range(low=0.5, high=0.6))
    assert set(asked.distributions) == {"post_prune_epochs", "pruning_rate"}


def test_passes_are_not_searched_beside_iterations() -> None:
    assert set(space("gdumb").distributions) == {"passes", "buffer_size"}
    assert set(space("gdumb", iterations=40).distributions) == {"buffer_size"}
    assert set(space("gdumb", iterations=[40, 80]).distributions) == {"buffer_size", "iterations"}
    found = space_of(find_method("gdumb"), {}, TrainingSettings(iterations=40))
    assert set(found.distributions) == {"buffer_size"}
    assert (
        "passes" in space_of(find_method("gdumb"), {"iterations": None}, TrainingSettings(iterations=40)).distributions
    )


@pytest.mark.parametrize(
    ("method", "name", "value", "fixed"),
    [
        ("ewc", "penalty_weight", 3, 3.0),
        ("ewc", "fisher", "empirical", "empirical"),
        ("ewc", "fisher", True, "true"),
        ("ewc", "fisher_samples", None, None),
        ("replay", "buffer_size", 200.0, 200),
        ("packnet", "pruning", "constant", "constant"),
        ("naive", "learning_rate", 0.5, 0.5),
        ("naive", "iterations", None, None),
    ],
)
def test_a_value_fixes_a_hyperparameter(method: str, name: str, value: Any, fixed: Any) -> None:
    found = space(method, **{name: value})

    assert found.fixed == {name: fixed}
    assert type(found.fixed[name]) is type(fixed)
    assert found.distributions == {n: d for n, d in SPACES[method].items() if n != name}
    assert name not in found.start


def test_a_list_is_choices_in_their_order() -> None:
    found = space("ewc", fisher_samples=[None, 100.0, 200], fisher=[True, "predicted"], batch_size=[8, 32])

    assert found.distributions["fisher_samples"] == Choices((None, 100, 200))
    assert found.distributions["fisher"] == Choices(("true", "predicted"))
    assert found.distributions["batch_size"] == Choices((8, 32))
    assert found.fixed == {}


@pytest.mark.parametrize(
    ("name", "override", "expected"),
    [
        ("replay_ratio", Range(low=0.2, high=0.6), FloatRange(0.2, 0.6)),
        ("replay_ratio", Range(low=0.1, high=0.7, step=0.1), FloatRange(0.1, 0.7, step=0.1)),
        ("buffer_size", Range(low=10, high=1000, log=True), IntRange(10, 1000, log=True)),
        ("buffer_size", Range(low=100, high=500, step=100), IntRange(100, 500, step=100)),
        ("learning_rate", Range(low=1e-4, high=1e-1, log=True), FloatRange(1e-4, 1e-1, log=True)),
        ("epochs", Range(low=1, high=9), IntRange(1, 9)),
        ("iterations", Range(low=10, high=90), IntRange(10, 90)),
    ],
)
def test_a_range_has_the_type_of_its_hyperparameter(name: str, override: Range, expected: Any) -> None:
    found = space("replay", **{name: override})

    assert found.distributions[name] == expected
    assert found.distributions.keys() == SPACES["replay"].keys() | {name}


@pytest.mark.parametrize(
    ("method", "overrides", "start"),
    [
        ("replay", {}, {"replay_ratio": 0.5, "buffer_size": 500}),
        ("replay", {"buffer_size": Range(low=10, high=100)}, {"replay_ratio": 0.5}),
        ("replay", {"buffer_size": Range(low=500, high=900)}, {"replay_ratio": 0.5, "buffer_size": 500}),
        ("replay", {"buffer_size": Range(low=10, high=610, step=100)}, {"replay_ratio": 0.5}),
        ("replay", {"replay_ratio": Range(low=0.1, high=0.9, step=0.1)}, {"replay_ratio": 0.5, "buffer_size": 500}),
        ("replay", {"replay_ratio": Range(low=0.1, high=0.7, step=0.3)}, {"buffer_size": 500}),
        ("replay", {"replay_ratio": [0.1, 0.5], "buffer_size": [10]}, {"replay_ratio": 0.5}),
        ("naive", {"learning_rate": Range(low=0.01, high=0.1)}, {"learning_rate": 0.03}),
        ("naive", {"batch_size": [16, 32], "momentum": [0.0]}, {"batch_size": 16}),
        ("naive", {"iterations": Range(low=1, high=9)}, {}),
        ("naive", {"iterations": [None, 9]}, {"iterations": None}),
    ],
)
def test_the_first_suggestion_is_the_defaults(method: str, overrides: dict[str, Any], start: dict[str, Any]) -> None:
    assert space(method, **overrides).start == start


def test_optuna_accepts_the_first_suggestion() -> None:
    found = space("replay", learning_rate=Range(low=0.01, high=0.05, step=0.01), buffer=["reservoir", "class_balanced"])
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.enqueue_trial(dict(found.start))

    assert found.start.keys() == found.distributions.keys()
    assert study.ask(to_optuna(found.distributions)).params == found.start


@pytest.mark.parametrize(
    ("method", "name", "override", "message"),
    [
        (
            "replay",
            "ratio",
            0.5,
            "expected a hyper-parameter, got 'ratio'; choose from: buffer_size, replay_ratio, memory_batch_size, "
            "buffer, buffer_size_per_class, filled, loss_weighting, " + ", ".join(TRAINING_KNOBS),
        ),
        (
            "naive",
            "keep_optimizer",
            "adam",
            f"expected a hyper-parameter, got 'keep_optimizer'; choose from: {', '.join(TRAINING_KNOBS)}",
        ),
        ("replay", "replay_ratio", [], "expected at least one choice, got []; list the values to try"),
        (
            "replay",
            "buffer",
            Range(low=1, high=2),
            "expected a value or a list of choices, got a range; buffer is not a number",
        ),
        (
            "replay",
            "replay_ratio",
            Range(low=0.9, high=0.1),
            "expected low < high, got low 0.9 and high 0.1; swap them",
        ),
        (
            "replay",
            "replay_ratio",
            Range(low=0.5, high=0.50),
            "expected low < high, got 0.5 for both; write replay_ratio: 0.5 to fix it",
        ),
        (
            "replay",
            "buffer_size",
            Range(low=10, high=10.0, log=True),
            "expected low < high, got 10 for both; write buffer_size: 10 to fix it",
        ),
        (
            "ewc",
            "penalty_weight",
            [0.1, 5, 0.10],
            "expected different choices, got 0.1 and 0.1, which are equal; list one of them",
        ),
        (
            "ewc",
            "penalty_weight",
            [1, 2, 1.0],
            "expected different choices, got 1 and 1.0, which are equal; list one of them",
        ),
        (
            "ewc",
            "fisher",
            ["true", True],
            "expected different choices, got 'true' and true, which are equal; list one of them",
        ),
        (
            "ewc",
            "fisher_samples",
            [None, 10, None],
            "expected different choices, got null and null, which are equal; list one of them",
        ),
        ("ewc", "penalty_weight", [1, 2.0, True], "expected a number, got 'true'; change penalty_weight"),
        ("replay", "buffer_size", True, "expected a whole number, got 'true'; change buffer_size"),
        ("naive", "epochs", [1, True], "expected a whole number, got 'true'; change epochs"),
        (
            "ewc",
            "fisher",
            False,
            "expected 'true', 'sampled', 'exact', 'empirical' or 'predicted', got 'false'; change fisher",
        ),
        ("ewc", "penalty_weight", None, "expected a number, got null; change penalty_weight"),
        (
            "replay",
            "replay_ratio",
            Range(low=0.0, high=0.5, log=True),
            "expected low > 0 on a log scale, got 0; raise low or drop log",
        ),
        (
            "replay",
            "buffer_size",
            Range(low=10, high=20, log=True, step=5),
            "expected log or step, got both; drop one of them",
        ),
        (
            "replay",
            "buffer_size",
            Range(low=1, high=9, step=0.5),
            "expected a whole step, got 0.5; buffer_size takes whole numbers only",
        ),
        (
            "replay",
            "buffer_size",
            Range(low=10, high=100, step=40),
            "expected steps that lead from 10 to 100, got 40; change step or high",
        ),
        (
            "replay",
            "replay_ratio",
            Range(low=0.1, high=0.6, step=0.3),
            "expected steps that lead from 0.1 to 0.6, got 0.3; change step or high",
        ),
        (
            "replay",
            "replay_ratio",
            1.5,
            "expected 0.95 or less, got 1.5; change replay_ratio (share of each training batch that",
        ),
        (
            "replay",
            "replay_ratio",
            Range(low=0.5, high=0.99),
            "expected 0.95 or less, got 0.99; change replay_ratio (share of each training batch that",
        ),
        (
            "replay",
            "buffer_size",
            [10, 10.5],
            "expected a whole number, got 10.5; change buffer_size (examples kept, all past tasks together)",
        ),
        (
            "replay",
            "buffer",
            "fifo",
            "expected 'reservoir' or 'class_balanced', got 'fifo'; change buffer (uniform over the stream",
        ),
        ("naive", "learning_rate", 0.0, "expected more than 0, got 0.0; change learning_rate (step size)"),
        (
            "ewc",
            "penalty_weight",
            Range(low=1.0, high=float("inf")),
            "expected a finite number, got inf; change penalty_weight (λ of the penalty",
        ),
    ],
)
def test_a_wrong_override_says_what_to_do(method: str, name: str, override: Any, message: str) -> None:
    with pytest.raises(SpaceError) as error:
        space(method, **{name: override})
    assert str(error.value).startswith(message)


def test_a_range_checks_its_fields() -> None:
    with pytest.raises(ValidationError, match="step"):
        Range(low=0, high=1, step=0)
    with pytest.raises(ValidationError, match="width"):
        Range(low=0, high=1, width=3)  # type: ignore[call-arg]
    with pytest.raises(ValidationError, match="frozen"):
        Range(low=0, high=1).low = 2  # type: ignore[misc]


def test_building_a_space_leaves_the_defaults_alone() -> None:
    defaults = dict(SPACES["replay"])
    build_space(find_method("replay"), SPACES["replay"], {"buffer_size": 7}, TRAINING)

    assert SPACES["replay"] == defaults
