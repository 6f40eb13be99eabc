"""One method several times in a sweep, each with spaces of its own."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest

from orchestrator.core.errors import SpecError
from orchestrator.results.rows import trial_row
from orchestrator.spec.loading import parse_spec
from orchestrator.spec.sweep_spec import SweepSpec
from orchestrator.trial.result import TrialResult

ENTRY = {"name": "replay-500", "method": "replay", "spaces": {"buffer_size": 500}}


def _spec(*methods: Any, **fields: Any) -> SweepSpec:
    return parse_spec({"scenarios": ["split-digits/class"], "methods": [*methods], **fields})


def test_a_variant_is_a_name_with_a_method_and_spaces() -> None:
    spec = _spec("naive", "replay", ENTRY)

    assert spec.methods == ("naive", "replay", "replay-500")
    assert spec.variants == {"replay-500": "replay"}
    assert [cell.name for cell in spec.cells][1:] == ["split-digits/class replay", "split-digits/class replay-500"]
    assert spec.cells[2].space.fixed == {"buffer_size": 500}
    assert "buffer_size" in spec.cells[1].space.distributions
    assert spec.known_methods == ("naive", "replay")


def test_both_ways_to_write_it_are_the_same_spec_and_survive_yaml() -> None:
    apart = _spec("replay-500", variants={"replay-500": "replay"}, spaces={"replay-500": {"buffer_size": 500}})

    assert _spec(ENTRY) == apart
    assert parse_spec(apart.model_dump(mode="json")) == apart


def test_the_schema_allows_variants() -> None:
    validator = jsonschema.Draft202012Validator(SweepSpec.model_json_schema())
    assert validator.is_valid({"methods": ["replay", ENTRY]})
    assert not validator.is_valid({"methods": [{"name": "replay-500"}]})


def test_a_variant_begins_with_the_spaces_of_its_method_and_its_own_win() -> None:
    spaces = {
        "all": {"learning_rate": 0.1},
        "replay": {"buffer_size": 100, "replay_ratio": 0.5, "learning_rate": 0.2},
        "split-digits/class replay": {"replay_ratio": 0.25},
        "split-digits/class replay-500": {"batch_size": 8},
    }
    spec = _spec("replay", ENTRY, spaces=spaces)

    shared = {"learning_rate": 0.2, "replay_ratio": 0.25}
    assert spec.cells[0].space.fixed == {**shared, "buffer_size": 100}
    assert spec.cells[1].space.fixed == {**shared, "buffer_size": 500, "batch_size": 8}


def test_a_variant_is_trained_as_its_method_and_has_rows_of_its_own_name() -> None:
    spec = _spec("replay", ENTRY, spaces={"replay": {"replay_ratio": 0.5, "buffer_size": 500}})
    plain, variant = (spec.trial(cell, {}, 0, "confirm", "x") for cell in spec.cells)

    assert (variant.method, variant.shown_method, variant.cell) == ("replay", "replay-500", spec.cells[1].name)
    assert plain.hyperparameters == variant.hyperparameters
    assert [cls.name for cls, _ in variant.methods()] == ["replay"]
    assert plain.key != variant.key, "each cell counts its own trials"
    assert trial_row(variant, 0, TrialResult(variant.key, "error", "x"), {})["method"] == "replay-500"


def test_a_variant_asks_for_the_resources_of_its_method_unless_it_has_its_own() -> None:
    resources = {"methods": {"replay": {"cpus": 2, "gpus": 1}, "replay-500": {"cpus": 4}}}
    spec = _spec("replay", ENTRY, resources=resources)

    found = spec.resources.of("split-digits/class", *spec.cells[1].names)
    assert (found.cpus, found.gpus) == (4, 1)


def test_combinations_may_have_variants() -> None:
    entry = {"name": "both", "method": "replay+lwf", "spaces": {"buffer_size": 30}}
    assert _spec(entry).cells[0].found.is_combination


def test_what_a_method_cannot_learn_its_variant_cannot_either() -> None:
    entry = {"name": "half", "method": "packnet", "spaces": {"pruning_rate": 0.5}}
    with pytest.raises(SpecError, match=r"methods\.half: half cannot learn split-digits/class"):
        _spec(entry)


@pytest.mark.parametrize(
    ("methods", "fault"),
    [
        ([{"name": "a", "method": "replay", "spaces": {}, "sapces": {}}], "methods.0.sapces: expected name, method"),
        ([{"method": "replay", "spaces": {"buffer_size": 5}}], "methods.0: a variant needs a name"),
        ([{"name": "a", "spaces": {"buffer_size": 5}}], "methods.0: a variant needs a method"),
        ([{"name": 5, "method": "replay"}], "methods.0.name: expected text, got 5"),
        ([{"name": "a", "method": "replay", "spaces": 5}], "methods.0.spaces: expected hyper-parameters, got 5"),
        ([{"name": "a", "method": "replay"}], "methods.0: it has no spaces of its own, so it is 'replay' again"),
        (
            [{"name": "a", "method": "repaly", "spaces": {"buffer_size": 5}}],
            "methods.0: expected a known method, got 'repaly'",
        ),
        ([{**ENTRY, "name": "ewc"}], "methods.0: 'ewc' is a method itself"),
        ([{**ENTRY, "name": "a b"}], "methods.0: expected a name of up to 64 letters"),
        ([{**ENTRY, "name": "all"}], "methods.0: expected a name"),
        ([ENTRY, {**ENTRY, "method": "der"}], "methods.1.method: 'replay-500' is a variant of 'replay' too"),
        ([ENTRY, ENTRY], "methods.1.spaces.buffer_size: it is given in methods.0.spaces.buffer_size too"),
        ([{**ENTRY, "spaces": {"bufer": 5}}], "methods.0.spaces.bufer: expected a hyper-parameter, got 'bufer'"),
        ([{**ENTRY, "spaces": {"buffer_size": -5}}], "methods.0.spaces.buffer_size: expected"),
        ([{**ENTRY, "name": "r"}, {"name": "r.1", "method": "der"}], "methods.1: it has no spaces of its own"),
        (["replay-500"], "methods.0: expected a known method, got 'replay-500'"),
    ],
)
def test_faults(methods: list[Any], fault: str) -> None:
    with pytest.raises(SpecError) as caught:
        _spec(*methods)
    assert fault in str(caught.value)


R = {"name": "r", "method": "replay", "spaces": {"buffer_size": 5}}
LO = {**R, "spaces": {"buffer_size": {"lo": 1}}}
OF_LO = [f"methods.0.spaces.buffer_size.{field}" for field in ("low", "high", "lo")]


@pytest.mark.parametrize(
    ("methods", "others", "places"),
    [
        ([R, "r.1"], {"variants": {"r.1": "der"}}, ["variants.r.1"]),
        ([R, "r.1"], {"variants": {"r.1": "der"}, "spaces": {"r.1": {"bufer": 5}}}, ["spaces.r.1.bufer"]),
        ([R, {**R, "name": "r.1", "spaces": {"bufer": 5}}], {}, ["methods.1.spaces.bufer"]),
        ([R, {**R, "name": "r:b"}], {}, ["methods.1"]),
        ([{**R, "spaces": {"bufer": 5}}], {"spaces": {"r": {"replay_ratio": 0.5}}}, ["methods.0.spaces.bufer"]),
        ([R], {"spaces": {"r": {"bufer": 5}}}, ["spaces.r.bufer"]),
        ([R, {**R, "spaces": {"bufer": 5}}], {}, ["methods", "methods.1.spaces.bufer"]),
        ([LO], {}, OF_LO),
        ([{"name": "r", "method": "replay"}], {"spaces": {"r": 5}}, ["spaces.r"]),
        ([R], {"spaces": 5}, ["spaces"]),
        ([R], {"variants": 5}, ["variants"]),
        ([{"name": "a"}, "ewcc", R], {}, ["methods.0", "methods.1"]),
        (
            [{**LO, "name": "constrained-r"}, "ewc"],
            {"spaces": {"ewc": {"penalty_weight": -1}}},
            [f"methods.0.spaces.buffer_size.{field}" for field in ("low", "high", "lo")]
            + ["spaces.ewc.penalty_weight"],
        ),
    ],
)
def test_a_fault_is_placed_where_it_was_written(methods: list[Any], others: dict[str, Any], places: list[str]) -> None:
    with pytest.raises(SpecError) as caught:
        _spec(*methods, **others)
    assert [fault.split(":")[0] for fault in caught.value.faults] == places


def test_a_variant_that_is_not_listed_is_a_fault() -> None:
    with pytest.raises(SpecError, match=r"variants\.a: expected a variant that methods name"):
        _spec("replay", variants={"a": "replay"}, spaces={"a": {"buffer_size": 5}})


def test_all_faults_come_at_once() -> None:
    with pytest.raises(SpecError) as caught:
        _spec({"name": "a"}, {**ENTRY, "method": "repaly"}, objective="nothing", epochs=3)
    assert [fault.split(":")[0] for fault in caught.value.faults] == [
        "methods.0",
        "epochs",
        "methods.1",
        "objective",
    ]
