"""What a spec says, resolves to and writes. What it refuses is in test_validation."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from pydantic import BaseModel, ValidationError

from orchestrator.core.errors import SpecError
from orchestrator.models.settings import ModelSettings
from orchestrator.spec.fields import Resources, Seeds
from orchestrator.spec.loading import PRESETS, load_spec, parse_spec, preset_names, read_spec
from orchestrator.spec.notes import cell_notes, notes_of
from orchestrator.spec.sweep_spec import SweepSpec
from orchestrator.spec.trial_spec import TrialSpec
from orchestrator.streams.settings import StreamSettings
from strategies import TrainingSettings

RICH: dict[str, Any] = {
    "name": "spring-retrain",
    "scenarios": ["permuted-digits/domain", "split-digits/task"],
    "methods": ["ewc", "packnet", "naive"],
    "unsupported_cells": "skip",
    "limits": ["worst_forgetting <= 0.05 (tolerance 0.02)", "kept_bytes <= 4e6"],
    "objective": "learning_accuracy",
    "seeds": {"search": [5, 3], "confirm": 2},
    "search": {"suggestions": 7, "batch": 3, "sampler": "random", "seed": 9, "limits_hold_for": "every_seed"},
    "spaces": {
        "all": {"learning_rate": {"low": 1e-3, "high": 0.1, "log": True}},
        "ewc": {"penalty_weight": 10, "variant": ["separate", "online"], "fisher_samples": None},
        "packnet": {"post_prune_epochs": {"low": 1, "high": 5, "step": 2}},
    },
    "model": {"hidden": [8, 4]},
    "training": {"iterations": 3, "optimizer": "adam", "clip_gradient_norm": 1.0},
    "streams": {
        "split-digits": {"n_tasks": 2, "class_order": [9, 1, 3, 5]},
        "permuted-digits": {"n_tasks": 3, "permutation_seed": 4},
    },
    "validation_share": 0.25,
    "resources": {"cpus": 2, "methods": {"ewc": {"gpus": 0.5}}, "scenarios": {"split-digits/task": {"threads": 2}}},
}
"""A spec in which nearly every field differs from its default."""


def test_defaults() -> None:
    assert parse_spec({}).model_dump(mode="json") == {
        "name": "sweep",
        "scenarios": ["split-digits/task"],
        "methods": ["naive", "joint", "ewc", "replay"],
        "variants": {},
        "limits": [],
        "score": "accuracy",
        "scores": [],
        "objective": "average",
        "seeds": {"search": 3, "finals": 8, "confirm": 5, "confirm_more": 10},
        "search": {
            "mode": "search",
            "suggestions": 24,
            "batch": 4,
            "sampler": "tpe",
            "seed": 0,
            "seeds": "race",
            "finalists": 3,
            "stop": "proven",
            "limits_hold_for": "mean",
        },
        "confirm": "chosen",
        "spaces": {},
        "model": {"name": "mlp", "hidden": [256, 256]},
        "training": {
            "epochs": 5,
            "iterations": None,
            "batch_size": 64,
            "optimizer": "sgd",
            "learning_rate": 0.01,
            "momentum": 0.9,
            "weight_decay": 0.0,
            "keep_optimizer": False,
            "clip_gradient_norm": None,
            "active_outputs": "seen",
            "class_weight": None,
            "output_layer": "heads",
            "evaluate": "as_trained",
            "evaluate_every": None,
        },
        "streams": {},
        "validation_share": 0.1,
        "validation_split": "seed",
        "unsupported_cells": "refuse",
        "diagnostics": False,
        "resources": {"cpus": 1.0, "gpus": 0.0, "threads": 1, "device": None, "methods": {}, "scenarios": {}},
    }


def test_defaults_of_a_stream() -> None:
    assert parse_spec({}).stream_settings("split-mnist").model_dump() == {
        "n_tasks": None,
        "classes_per_task": 2,
        "class_order": "fixed",
        "leftover": "refuse",
        "permutation_seed": 0,
        "max_rotation": 180.0,
        "rotation_seed": None,
        "max_noise": 0.5,
        "noise_seed": 0,
        "rotation": 45.0,
        "folder": None,
        "image_size": None,
        "background": "white",
        "table": None,
        "label": None,
        "task": None,
        "categorical": (),
        "drop": (),
        "test_table": None,
        "missing": "refuse",
        "hash": None,
        "frequency": (),
        "dates": {},
        "decimal": None,
        "thousands": None,
        "separator": None,
        "order": None,
        "boundaries": None,
        "encoding_from": "all_tasks",
        "from_model": None,
        "features": None,
        "blurry": 0.0,
        "test_share": 0.2,
        "normalisation": "unit",
        "padding": 0,
    }


def test_every_field_says_what_it_means() -> None:
    def silent(model: type[BaseModel]) -> list[str]:
        return [f"{model.__name__}.{name}" for name, field in model.model_fields.items() if not field.description]

    models = [SweepSpec, *(field.annotation for field in SweepSpec.model_fields.values()), StreamSettings]
    assert [f for m in models if isinstance(m, type) and issubclass(m, BaseModel) for f in silent(m)] == []


@pytest.mark.parametrize(
    "content", [{}, RICH, *(yaml.safe_load(p.read_text()) for p in sorted(PRESETS.glob("*.yaml")))]
)
def test_yaml_round_trip(content: dict[str, Any]) -> None:
    spec = parse_spec(content)
    again = parse_spec(yaml.safe_load(spec.to_yaml()))
    assert again == spec
    assert again.content_hash() == spec.content_hash()
    assert again.cells == spec.cells
    assert again.to_yaml() == spec.to_yaml()


def test_parsing_leaves_its_argument_alone() -> None:
    content: dict[str, Any] = {"search": {"suggestions": 0}, "seeds": {"search": "x"}, "methods": ["ewc"]}
    before = json.dumps(content)
    with pytest.raises(SpecError):
        parse_spec(content)
    assert json.dumps(content) == before


def test_a_spec_and_its_parts_are_frozen() -> None:
    spec = parse_spec({})
    parts = (spec.seeds, spec.search, spec.model, spec.training, spec.resources, spec.stream_settings("a"))
    for part in (spec, *parts):
        for field in type(part).model_fields:
            with pytest.raises(ValidationError, match="frozen"):
                setattr(part, field, getattr(part, field))


# Presets.


def test_presets_are_listed() -> None:
    assert preset_names() == [
        "quickstart", "split-mnist", "split-mnist-aljundi", "split-mnist-hsu", "split-mnist-mammoth",
        "split-mnist-van-de-ven",
    ]  # fmt: skip


@pytest.mark.parametrize("preset", preset_names())
def test_presets_are_valid_under_the_published_schema(preset: str) -> None:
    schema = SweepSpec.model_json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    content = yaml.safe_load((PRESETS / f"{preset}.yaml").read_text())
    validator.validate(content)
    validator.validate(yaml.safe_load(load_spec(preset=preset).to_yaml()))
    assert not validator.is_valid(content | {"scenario": "x"})
    assert not validator.is_valid(content | {"search": {"suggestions": 0}})
    assert load_spec(preset=preset).name == preset


def test_quickstart_is_what_its_comments_say() -> None:
    spec = load_spec()
    assert spec == load_spec(preset="quickstart")
    assert spec.scenarios == ("split-digits/task", "split-digits/domain", "split-digits/class")
    assert spec.methods == ("naive", "joint", "ewc", "replay", "packnet", "ridge")
    assert [cell.scenario for cell in spec.cells if cell.method == "packnet"] == ["split-digits/task"]
    assert len(spec.cells) == 3 * 6 - 2
    assert [(c.metric, c.operator, c.limit) for c in spec.constraints] == [
        ("worst_forgetting", "<=", 0.05),
        ("kept_bytes", "<=", 400_000),
    ]
    assert spec.objective == "average_accuracy"
    assert spec.search.suggestions == 12
    assert len(spec.seeds.of("search")) == 3
    assert len(spec.seeds.of("confirm")) == 5
    assert not set(spec.seeds.of("search")) & set(spec.seeds.of("confirm"))
    buffer = next(cell for cell in spec.cells if cell.method == "replay").space.distributions["buffer_size"]
    assert (buffer.low, buffer.high, buffer.log) == (20, 1000, True)  # type: ignore[attr-defined]
    assert [note for note in notes_of(spec) if "packnet is left out" in note] == [
        note
        for note in notes_of(spec)
        if note.startswith(("split-digits/domain packnet", "split-digits/class packnet"))
    ]


def test_split_mnist_is_what_its_comments_say() -> None:
    spec = load_spec(preset="split-mnist")
    assert [cell.name for cell in spec.cells] == [
        f"split-mnist/task {method}" for method in ("naive", "joint", "ewc", "replay", "packnet")
    ]
    assert not any(cell.is_searched for cell in spec.cells)
    assert (spec.seeds.of("search"), len(spec.seeds.of("confirm"))) == ((), 5)
    assert spec.model.hidden == (256, 256)
    training = spec.training
    assert (training.epochs, training.batch_size, training.optimizer) == (5, 64, "sgd")
    assert (training.learning_rate, training.momentum) == (0.01, 0.9)
    fixed = {cell.method: dict(cell.space.fixed) for cell in spec.cells}
    assert fixed["packnet"] == {"pruning": "equal_share", "post_prune_epochs": 3}
    assert fixed["ewc"] == {"penalty_weight": 0.4, "fisher_samples": 200}
    assert fixed["replay"] == {"buffer_size": 500, "replay_ratio": 0.5}


# Seeds, resources, cells.


@pytest.mark.parametrize(
    ("seeds", "search", "confirm"),
    [
        ({}, (0, 1, 2), (1000, 1001, 1002, 1003, 1004)),
        ({"search": 1, "confirm": 1}, (0,), (1000,)),
        ({"search": [7, 3], "confirm": [1, 0]}, (7, 3), (1, 0)),
        ({"search": 1000}, tuple(range(1000)), tuple(range(1000, 1005))),
        ({"search": []}, (), (1000, 1001, 1002, 1003, 1004)),
    ],
)
def test_seeds_are_counts_or_lists(seeds: dict[str, Any], search: tuple[int, ...], confirm: tuple[int, ...]) -> None:
    stated = Seeds.model_validate(seeds)
    assert stated.of("search") == search
    assert stated.of("confirm") == confirm


def test_method_resources_win_over_scenario_resources() -> None:
    resources = Resources.model_validate(
        {
            "cpus": 2,
            "threads": 2,
            "scenarios": {"a/task": {"cpus": 3, "gpus": 1, "threads": 3}},
            "methods": {"ewc": {"cpus": 4}, "gem": {"gpus": 0.25, "device": "cpu"}},
        }
    )
    cases = {
        ("b/task", "naive"): (2, 0, 2, "cpu"),
        ("a/task", "naive"): (3, 1, 3, "cuda"),
        ("b/task", "ewc"): (4, 0, 2, "cpu"),
        ("a/task", "ewc"): (4, 1, 3, "cuda"),
        ("a/task", "gem"): (3, 0.25, 3, "cpu"),
    }
    for cell, expected in cases.items():
        request = resources.of(*cell)
        assert (request.cpus, request.gpus, request.threads, request.device) == expected, cell


def test_zero_gpus_of_a_method_win() -> None:
    resources = Resources.model_validate({"gpus": 1, "methods": {"naive": {"gpus": 0}}})
    assert resources.of("a/task", "naive").device == "cpu"
    assert resources.of("a/task", "ewc").device == "cuda"


def test_cells_come_scenario_by_scenario() -> None:
    spec = parse_spec(RICH)
    assert [cell.name for cell in spec.cells] == [
        "permuted-digits/domain ewc",
        "permuted-digits/domain naive",
        "split-digits/task ewc",
        "split-digits/task packnet",
        "split-digits/task naive",
    ]


def test_a_cell_is_searched_if_its_space_is_not_empty() -> None:
    searched = {cell.method: cell.is_searched for cell in parse_spec({"methods": ["naive", "ewc", "packnet"]}).cells}
    assert searched == {"naive": False, "ewc": True, "packnet": True}
    fixed = parse_spec({"methods": ["ewc"], "spaces": {"ewc": {"penalty_weight": 3}}}).cells[0]
    assert not fixed.is_searched
    assert fixed.space.fixed == {"penalty_weight": 3.0}


def test_a_methods_own_entry_wins_over_all() -> None:
    spaces = {"all": {"learning_rate": {"low": 0.01, "high": 0.1}}, "naive": {"learning_rate": 0.5}}
    naive, ewc = parse_spec({"methods": ["naive", "ewc"], "spaces": spaces}).cells
    assert naive.space.fixed == {"learning_rate": 0.5}
    assert set(ewc.space.distributions) == {"penalty_weight", "learning_rate"}


# Trials.


def test_a_trial_is_fully_resolved() -> None:
    spec = parse_spec(RICH)
    cell = next(c for c in spec.cells if c.name == "permuted-digits/domain ewc")
    trial = spec.trial(cell, {"learning_rate": 0.05, "variant": "online"}, 3, "search", "f00d")
    assert (trial.scenario, trial.cell, trial.dataset) == ("permuted-digits/domain", cell.name, "digits")
    assert trial.hyperparameters == {
        "penalty_weight": 10.0,  # fixed by the spec
        "penalty_decay": 1.0,  # the method's default
        "variant": "online",  # suggested
        "fisher_decay": 1.0,
        "fisher": "true",
        "fisher_samples": None,  # fixed to null
        "learning_rate": 0.05,  # a suggested training setting
    }
    assert trial.stream_settings == StreamSettings(n_tasks=3, permutation_seed=4)
    assert (trial.seed, trial.phase, trial.data_fingerprint, trial.validation_share) == (3, "search", "f00d", 0.25)
    assert trial.strategy_versions == {"ewc": 1}


def test_a_suggestion_overrides_training_settings() -> None:
    spec = parse_spec(RICH)
    trial = spec.trial(spec.cells[0], {"learning_rate": 0.05, "variant": "online"}, 3, "search", "f00d")
    assert trial.training.learning_rate == 0.01
    assert trial.resolved_training() == TrainingSettings(
        iterations=3, optimizer="adam", clip_gradient_norm=1.0, learning_rate=0.05
    )
    ((_, hyperparameters),) = trial.methods()
    assert hyperparameters.model_dump()["variant"] == "online"
    assert "learning_rate" not in hyperparameters.model_dump()


BASE = TrialSpec(
    stream="split-digits",
    incremental_type="task",
    stream_settings=StreamSettings(),
    method="ewc",
    hyperparameters={"penalty_weight": 10.0, "fisher_samples": 200},
    model=ModelSettings(),
    training=TrainingSettings(),
    seed=0,
    phase="search",
    validation_share=0.1,
    data_fingerprint="f00d",
    strategy_versions={"ewc": 1},
)
CHANGES: dict[str, list[Any]] = {
    "stream": ["split-mnist"],
    "incremental_type": ["class", "domain"],
    "stream_settings": [
        {"n_tasks": 3},
        {"classes_per_task": 3},
        {"class_order": "shuffled"},
        {"class_order": [1, 0]},
        {"leftover": "drop"},
        {"permutation_seed": 1},
        {"permutation_seed": "trial"},
        {"max_rotation": 90.0},
        {"rotation_seed": 0},
        {"max_noise": 0.1},
        {"noise_seed": 1},
        {"rotation": 30.0},
        {"folder": ""},
        {"image_size": 8},
        {"image_size": [8, 9]},
        {"background": "#ff8800"},
        {"table": ""},
        {"label": "y"},
        {"task": "quarter"},
        {"categorical": ["plan"]},
        {"drop": ["id"]},
        {"missing": "median"},
        {"missing": {"age": "drop"}},
        {"hash": 64},
        {"frequency": ["city"]},
        {"dates": {"since": "iso"}},
        {"decimal": ","},
        {"thousands": "."},
        {"separator": ";"},
        {"encoding_from": "first_task"},
        {"from_model": {"model": "champion", "data": "next.parquet", "task": "2023Q3"}},
        {"features": {"module": "mine:Backbone"}},
        {"blurry": 0.1},
        {"order": ["low", "high"]},
        {"order": "timestamp"},
        {"boundaries": {}},
        {"boundaries": {"detector": "kswin"}},
        {"test_table": ""},
        {"test_share": 0.3},
        {"normalisation": "standard"},
        {"padding": 2},
    ],
    "method": ["naive"],
    "hyperparameters": [{"penalty_weight": 11.0, "fisher_samples": 200}, {"penalty_weight": 10.0}],
    "model": [{"hidden": [256]}, {"init": "xavier"}, {"init": "kaiming"}],
    "validation_seed": [0, 7],
    "training": [
        {"epochs": 6},
        {"iterations": 6},
        {"batch_size": 65},
        {"optimizer": "adam"},
        {"learning_rate": 0.02},
        {"momentum": 0.8},
        {"weight_decay": 0.1},
        {"keep_optimizer": True},
        {"clip_gradient_norm": 1.0},
        {"active_outputs": "all"},
        {"class_weight": "balanced"},
        {"output_layer": "single"},
        {"evaluate": "masked"},
        {"evaluate_every": 100},
    ],
    "seed": [1],
    "phase": ["confirm"],
    "validation_share": [0.2],
    "data_fingerprint": ["beef"],
    "strategy_versions": [{"ewc": 2}],
    "protocol_version": [BASE.protocol_version + 1],
    "ranked_scores": [["auroc"]],
    "variant": ["ewc-strong"],
}


def test_changes_cover_every_field() -> None:
    assert set(CHANGES) == set(TrialSpec.model_fields)
    for field, model in (("training", TrainingSettings), ("stream_settings", StreamSettings)):
        assert {name for change in CHANGES[field] for name in change} == set(model.model_fields)


@pytest.mark.parametrize(("field", "value"), [(field, value) for field in CHANGES for value in CHANGES[field]])
def test_the_key_changes_with_every_field(field: str, value: Any) -> None:
    changed = TrialSpec.model_validate(BASE.model_dump() | {field: value})
    assert changed.key != BASE.key
    assert len(changed.key) == 16


def test_equal_trials_have_equal_keys() -> None:
    again = TrialSpec.model_validate(
        BASE.model_dump() | {"hyperparameters": {"fisher_samples": 200, "penalty_weight": 10.0}}
    )
    assert again.key == BASE.key
    assert TrialSpec.model_validate_json(BASE.model_dump_json()).key == BASE.key


PINNED = {
    "split-digits/task naive": "2a062b2cfe04187c",
    "split-digits/task packnet": "0def15282f5d327a",
    "split-digits/domain ewc": "d50b343db29883a5",
    "split-digits/class replay": "58492897bced71be",
}
"""Keys of quickstart's first suggestions, as version 0.1 wrote them."""


def test_keys_of_quickstart_never_change() -> None:
    """With other keys every run folder would train again; only a new PROTOCOL_VERSION may change them."""
    spec = load_spec(preset="quickstart")
    cells = {cell.name: cell for cell in spec.cells}
    spec = spec.model_copy(update={"validation_split": "fixed"})  # as it was then
    keys = {n: spec.trial(cells[n], cells[n].space.start, 0, "search", "0123456789abcdef").key for n in PINNED}
    assert keys == PINNED


@pytest.mark.parametrize(
    "fields",
    [
        {"resources": {"cpus": 3, "threads": 3, "gpus": 1}},
        {"name": "other"},
        {"limits": ["forgetting <= 0.5"]},
        {"objective": "learning_accuracy"},
        {"search": {"suggestions": 99, "seed": 4}},
        {"seeds": {"search": 9}},
        {"methods": ["ewc", "naive"]},
    ],
)
def test_the_key_ignores_what_no_result_depends_on(fields: dict[str, Any]) -> None:
    def key(spec: SweepSpec) -> str:
        return spec.trial(spec.cells[0], {"penalty_weight": 2.0}, 0, "search", "f00d").key

    assert key(parse_spec({"methods": ["ewc"]} | fields)) == key(parse_spec({"methods": ["ewc"]}))


def test_hyperparameters_that_were_added_are_in_keys_once_they_are_used() -> None:
    def trial(**own: Any) -> TrialSpec:
        spec = parse_spec({"methods": ["replay"], "spaces": {"replay": own}})
        return spec.trial(spec.cells[0], {}, 0, "search", "f00d")

    assert trial().key == trial(filled="after_task").key
    assert "filled" not in trial(filled="after_task").hyperparameters
    used = [trial(), trial(filled="while_training"), trial(loss_weighting="by_task"), trial(buffer_size_per_class=3)]
    assert len({one.key for one in used}) == 4
    assert used[1].methods()[0][1].model_dump()["filled"] == "while_training"


PROGRAM = """
import json, sys
from orchestrator.core.errors import SpecError
from orchestrator.spec.loading import parse_spec
spec = parse_spec(json.load(sys.stdin))
keys = [spec.trial(c, {}, s, "search", "f00d").key for c in spec.cells for s in spec.seeds.of("search")]
try:
    parse_spec({"methods": ["x"], "objective": 1, "search": {"batch": 0}})
except SpecError as error:
    faults = error.faults
print(json.dumps([keys, spec.content_hash(), faults, sorted(m for m in ("ray", "pyarrow") if m in sys.modules)]))
"""


def test_keys_are_equal_in_every_process() -> None:
    def start(hash_seed: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
        )

    running = [start("1"), start("2")]
    outputs = [process.communicate(json.dumps(RICH), timeout=120)[0] for process in running]
    assert outputs[0] == outputs[1]
    keys, content_hash, faults, imported = json.loads(outputs[0])
    spec = parse_spec(RICH)
    assert keys == [spec.trial(c, {}, s, "search", "f00d").key for c in spec.cells for s in spec.seeds.of("search")]
    assert len(set(keys)) == len(spec.cells) * 2
    assert content_hash == spec.content_hash()
    assert len(faults) == 3
    assert imported == [], "parsing a spec needs neither Ray nor the tables"


# Loading.


def test_overrides_reach_any_depth(tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_text("name: mine\ntraining: {epochs: 2}\nresources: null\n")
    spec = load_spec(path, overrides={"training.batch_size": 8, "resources.methods.ewc.cpus": 2, "methods": ["ewc"]})
    assert (spec.name, spec.training.epochs, spec.training.batch_size) == ("mine", 2, 8)
    assert spec.resources.of("split-digits/task", "ewc").cpus == 2


def test_an_empty_file_is_the_default_spec(tmp_path: Path) -> None:
    path = tmp_path / "empty.yaml"
    path.write_text("# nothing yet\n")
    assert load_spec(path) == parse_spec({})


def test_numbers_without_a_dot_are_numbers() -> None:
    """YAML 1.1 reads 1e-3 as text."""
    text = "{training: {learning_rate: 1e-3}, methods: [ewc], spaces: {ewc: {penalty_weight: {low: 1, high: 1e8}}}}"
    spec = parse_spec(yaml.safe_load(text))
    assert spec.training.learning_rate == 0.001
    distribution = spec.cells[0].space.distributions["penalty_weight"]
    assert distribution.high == 1e8  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("fields", "part"),
    [
        ({"methods": ["ewc"], "scenarios": ["split-digits/class"]}, "split-digits/class ewc: known to sit"),
        ({"objective": "seconds"}, "seconds is measured"),
        ({"limits": ["peak_memory_bytes <= 1e9"]}, "peak_memory_bytes is measured"),
        ({"search": {"sampler": "random"}, "limits": ["forgetting <= 0.1"]}, "random ignores limits"),
        ({"streams": {"split-mnist": {"n_tasks": 2}}}, "streams.split-mnist is not used"),
        (
            {
                "methods": ["replay", "joint"],
                "training": {"evaluate_every": 50},
                "objective": "anytime_average",
                "limits": ["auroc.worst_case_average >= 0.5"],
            },
            "joint: evaluated at the ends of tasks alone, because each task begins with an untrained network; "
            "anytime_average, auroc.worst_case_average of the others looks within tasks too",
        ),
        (
            {"scenarios": ["split-digits/class"], "training": {"evaluate": "masked"}},
            "masked changes nothing: no scenario",
        ),
        (
            {"methods": ["ewc"], "spaces": {"ewc": {"rank": [5, 9]}}},
            "ewc: rank: no effect beside the other hyper-param",
        ),
        ({"score": "recall(1)"}, "a recall of 1 is reached by answering '1' to everything"),
    ],
)
def test_notes(fields: Mapping[str, Any], part: str) -> None:
    assert any(part in note for note in notes_of(parse_spec(fields)))


@pytest.mark.parametrize(
    "space",
    [
        {"rank": 5, "structure": "low_rank"},
        {"rank": 5, "structure": ["diagonal", "low_rank"]},
        {"fisher_decay": 0.5, "variant": ["online", "separate"]},
        {"penalty_weight": {"low": 0.0, "high": 1.0}},
    ],
)
def test_no_note_of_what_has_an_effect_at_some_suggestion(space: dict[str, Any]) -> None:
    spec = parse_spec({"methods": ["ewc"], "spaces": {"ewc": space}})
    assert not any("no effect" in note for note in notes_of(spec))


def test_values_that_win_are_given_too() -> None:
    plain = parse_spec({"methods": ["ewc"], "scenarios": ["split-digits/class"]})
    searched = parse_spec({"methods": ["ewc"], "spaces": {"ewc": {"rank": 5, "structure": ["diagonal", "low_rank"]}}})
    assert any("ewc: rank: no effect" in note for note in cell_notes(plain, {"rank": 3}))
    assert not any("rank" in note for note in cell_notes(plain, {"rank": 3, "structure": "low_rank"}))
    assert not any("rank" in note for note in cell_notes(searched))
    assert any("ewc: rank: no effect" in note for note in cell_notes(searched, {"structure": "diagonal"}))


def test_a_plain_spec_has_no_notes() -> None:
    assert notes_of(parse_spec({})) == []
    assert notes_of(parse_spec({"limits": ["forgetting <= 0.99", "average_accuracy >= 0.01", "kept_bytes <= 0"]})) == []


@pytest.mark.parametrize(
    "fields",
    [
        {"training": {"evaluate_every": 50}, "methods": ["replay", "gdumb"]},
        {"objective": "anytime_average", "methods": ["replay", "gdumb"]},
        {"training": {"evaluate_every": 50}, "objective": "anytime_average", "methods": ["joint"]},
        {"training": {"evaluate_every": 50}, "objective": "anytime_average", "methods": ["replay", "ridge"]},
    ],
)
def test_no_note_if_all_are_evaluated_alike(fields: Mapping[str, Any]) -> None:
    assert not any("ends of tasks alone" in note for note in notes_of(parse_spec(fields)))


@pytest.mark.parametrize(
    "asked", [{"objective": "anytime_average"}, {"limits": ["macro_f1.worst_case_average >= 0.5"]}]
)
def test_what_is_trained_at_the_ends_alone_is_not_judged_within_tasks(asked: dict[str, Any]) -> None:
    fields = {"methods": ["replay", "gdumb"], "training": {"evaluate_every": 50}, **asked}
    name = asked.get("objective", "macro_f1.worst_case_average")
    reason = f"each task begins with an untrained network, and {name} looks within tasks (evaluate_every)"
    with pytest.raises(SpecError) as error:
        parse_spec(fields)
    assert any(reason in fault for fault in error.value.faults)
    spec = parse_spec({**fields, "unsupported_cells": "skip"})
    assert {cell.method for cell in spec.cells} == {"replay"}
    assert any("gdumb is left out: " + reason in note for note in notes_of(spec))
    assert parse_spec({**fields, "training": {}}).cells
    with pytest.raises(SpecError) as error:  # all faults at once
        parse_spec({**fields, "objective": "anytime_averge"})
    assert any("anytime_averge" in fault for fault in error.value.faults)


def test_reading_returns_what_the_file_says(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("methods: [ewcc]\n")
    read: Callable[[Path], dict[str, Any]] = read_spec
    assert read(path) == {"methods": ["ewcc"]}
