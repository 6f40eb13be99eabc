"""Whatever is handed to `parse_spec`, it returns a valid spec or raises `SpecError` with faults in our form."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.core.errors import SpecError
from orchestrator.core.metrics import COSTS
from orchestrator.models.settings import ModelSettings
from orchestrator.spec.fields import Request, Resources, SearchSettings, Seeds
from orchestrator.spec.loading import parse_spec, read_spec
from orchestrator.spec.notes import notes_of
from orchestrator.spec.sweep_spec import SweepSpec
from orchestrator.streams.settings import STREAMS, StreamSettings
from search_spaces import Range
from strategies import STRATEGIES, TrainingSettings

FORM = re.compile(".*: .+; .+", re.DOTALL)
"""PLACE: WHAT IS WRONG; WHAT TO DO."""

FEW = settings(
    max_examples=200,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

MODELS = (SweepSpec, Seeds, SearchSettings, Request, Resources, ModelSettings, TrainingSettings, StreamSettings, Range)
FIELDS = sorted({name for model in MODELS for name in model.model_fields})
HYPERPARAMETERS = sorted({n for s in STRATEGIES.values() for n in s.hyperparameter_class.model_fields})
WORDS = [
    *STRATEGIES,
    *STREAMS,
    *COSTS,
    *(f"{stream}/{kind}" for stream in ("split-digits", "permuted-digits") for kind in ("task", "class", "x")),
    *("all", "tpe", "gp", "mean", "skip", "refuse", "cuda", "shuffled", "value", "range", "int", "[key]", ""),
    *("forgetting <= 0.1", "forgetting >= 1e3", "seconds <= -1", "average_accuracy >= .5 (tolerance 2)", "a <= b"),
]

keys = st.one_of(st.sampled_from([*FIELDS, *HYPERPARAMETERS, *WORDS]), st.text(max_size=5))
leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 30),
    st.integers(),
    st.floats(),
    st.sampled_from(WORDS),
    st.text(max_size=8),
    st.binary(max_size=3),
    st.dates(),
)
anything = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(keys, inner, max_size=3),
        st.dictionaries(st.one_of(st.integers(-1, 2), st.booleans(), st.none()), inner, max_size=1),
    ),
    max_leaves=8,
)

VALID: dict[str, Any] = {
    "name": "a",
    "scenarios": ["split-digits/task", "permuted-digits/domain"],
    "methods": ["naive", "ewc", "packnet"],
    "unsupported_cells": "skip",
    "limits": ["forgetting <= 0.1", "kept_bytes <= 1e6"],
    "objective": "average_accuracy",
    "seeds": {"search": [1, 2], "confirm": 2},
    "search": {"suggestions": 5, "batch": 2, "sampler": "tpe", "seed": 1, "limits_hold_for": "mean"},
    "spaces": {
        "all": {"learning_rate": [0.1, 0.2]},
        "ewc": {"penalty_weight": {"low": 1, "high": 9, "log": True, "step": None}, "variant": "online"},
        "packnet": {"post_prune_epochs": {"low": 1, "high": 5, "step": 2}},
    },
    "model": {"name": "mlp", "hidden": [4]},
    "training": TrainingSettings().model_dump(),
    "streams": {"split-digits": {"n_tasks": 2, "class_order": [4, 2, 1, 3]}, "permuted-digits": {"n_tasks": 3}},
    "validation_share": 0.2,
    "resources": {
        "cpus": 1,
        "gpus": 0,
        "methods": {"ewc": {"gpus": 0.5}},
        "scenarios": {"split-digits/task": {"threads": 2}},
    },
}


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of every entry of a nested mapping or list."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [(*path, key) for key, _ in inner] + [p for key, item in inner for p in places(item, (*path, key))]


PLACES = places(VALID)


def changed(path: tuple[Any, ...], change: str, key: Any, value: Any) -> dict[str, Any]:
    """Return VALID with one entry replaced, dropped, or given a neighbour."""
    content = copy.deepcopy(VALID)
    owner: Any = content
    for part in path[:-1]:
        owner = owner[part]
    if change == "replace":
        owner[path[-1]] = value
    elif change == "drop":
        del owner[path[-1]]
    elif isinstance(owner, dict):
        owner[key] = value
    else:
        owner.append(value)
    return content


def check(content: dict[Any, Any]) -> None:
    """Assert that a usable spec comes out, or faults in our form."""
    try:
        spec = parse_spec(content)
    except SpecError as error:
        faults = error.faults
    else:
        check_usable(spec)
        return
    assert faults
    assert all(FORM.fullmatch(fault) for fault in faults), faults
    assert len(set(faults)) == len(faults), faults


def check_usable(spec: SweepSpec) -> None:
    assert spec.cells
    assert parse_spec(yaml.safe_load(spec.to_yaml())) == spec
    notes_of(spec)
    for cell in spec.cells:
        assert len(spec.trial(cell, cell.space.start, 0, "confirm", "").key) == 16
        spec.resources.of(cell.scenario, cell.method)


def test_the_spec_that_others_change_is_valid() -> None:
    check(VALID)
    assert len(parse_spec(VALID).cells) == 5
    assert len(PLACES) > 60


@FEW
@given(st.dictionaries(st.one_of(keys, st.integers(0, 1)), anything, max_size=4))
def test_random_mappings(content: dict[Any, Any]) -> None:
    check(content)


@FEW
@given(st.dictionaries(st.sampled_from(list(SweepSpec.model_fields)), anything, min_size=1, max_size=5))
def test_known_fields_with_random_values(content: dict[str, Any]) -> None:
    check(content)


@FEW
@given(st.sampled_from(PLACES), st.sampled_from(["replace", "replace", "drop", "add"]), keys, anything)
def test_a_valid_spec_with_one_change(path: tuple[Any, ...], change: str, key: Any, value: Any) -> None:
    check(changed(path, change, key, value))


@FEW
@given(
    st.lists(st.tuples(st.sampled_from([p for p in PLACES if len(p) == 2]), anything), min_size=2, max_size=4),
)
def test_a_valid_spec_with_several_changes(changes: list[tuple[tuple[str, str], Any]]) -> None:
    content = copy.deepcopy(VALID)
    for (outer, inner), value in changes:
        content[outer][inner] = value
    check(content)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("name",), "é/.."),
        (("scenarios",), {}),
        (("methods",), None),
        (("methods", 1), {"a": [1]}),
        (("limits", 0), True),
        (("objective",), []),
        (("seeds", "search"), True),
        (("seeds", "search", 0), 1e999),
        (("search", "batch"), 1e999),
        (("search", "sampler"), {"a": [1]}),
        (("spaces",), []),
        (("spaces", "ewc"), -1),
        (("spaces", "ewc", "penalty_weight", "low"), 1e999),
        (("spaces", "ewc", "penalty_weight", "step"), -1),
        (("spaces", "packnet", "post_prune_epochs"), None),
        (("model", "hidden", 0), 1e999),
        (("training", "epochs"), True),
        (("training", "iterations"), {}),
        (("streams", "split-digits", "class_order", 3), None),
        (("streams", "permuted-digits"), -1),
        (("validation_share",), 1e999),
        (("resources", "methods", "ewc"), None),
        (("resources", "scenarios"), True),
    ],
    ids=str,
)
def test_odd_values_at_chosen_places(path: tuple[Any, ...], value: Any) -> None:
    check(changed(path, "replace", None, value))


@FEW
@given(st.binary(max_size=60))
def test_random_files(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "random.yaml"
    path.write_bytes(content)
    try:
        found = read_spec(path)
    except SpecError:
        return
    check(found)
