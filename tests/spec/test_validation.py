"""What a spec refuses: every fault at once, in one form, and nothing but `SpecError`."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import Any

import pytest

from orchestrator.core.errors import SpecError
from orchestrator.core.text import nearest
from orchestrator.spec.loading import load_spec, parse_spec

FORM = re.compile(r"^\S+: expected .+, got .*; .+$", re.DOTALL)


def faults_of(content: Any) -> list[str]:
    with pytest.raises(SpecError) as caught:
        parse_spec(content)
    for fault in caught.value.faults:
        assert FORM.match(fault), fault
        assert fault in str(caught.value)
    return list(caught.value.faults)


def deep(levels: int) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for _ in range(levels):
        content = {"spaces": content}
    return content


def ewc(entry: Any, name: str = "penalty_weight") -> dict[str, Any]:
    return {"methods": ["ewc"], "spaces": {"ewc": {name: entry}}}


def replay(entry: Any, name: str = "buffer_size") -> dict[str, Any]:
    return {"methods": ["replay"], "spaces": {"replay": {name: entry}}}


ONE_FAULT: dict[str, tuple[Any, str, str]] = {
    # name: (content, where, a part of the rest)
    "unknown field": ({"scenario": 1}, "scenario", "did you mean 'scenarios'?"),
    "unknown field of a part": ({"search": {"suggestion": 3}}, "search.suggestion", "did you mean 'suggestions'?"),
    "unknown field far away": ({"foo": 1}, "foo", "choose from: name, scenarios, methods"),
    "field named like a type": ({"value": 1}, "value", "expected a known field, got 'value'"),
    "field with a number as key": ({3: 1}, "3", "expected text as a key"),
    "field of a request": ({"resources": {"methods": {"ewc": {"gpu": 1}}}}, "resources.methods.ewc.gpu", "'gpus'?"),
    "field of a stream": ({"streams": {"split-digits": {"ntasks": 1}}}, "streams.split-digits.ntasks", "'n_tasks'?"),
    "field of training": ({"training": {"learningrate": 1}}, "training.learningrate", "'learning_rate'?"),
    "field of a range": (ewc({"low": 1, "high": 2, "logg": True}), "spaces.ewc.penalty_weight.logg", "'log'?"),
    "unknown method": ({"methods": ["ewcc"]}, "methods.0", "expected a known method, got 'ewcc'; did you mean 'ewc'?"),
    "unknown stream": ({"scenarios": ["split-digit/task"]}, "scenarios.0", "did you mean 'split-digits'?"),
    "unknown type": ({"scenarios": ["split-digits/klass"]}, "scenarios.0", "got 'klass'; did you mean 'class'?"),
    "no type": ({"scenarios": ["split-digits"]}, "scenarios.0", "expected STREAM/TYPE, got 'split-digits'"),
    "too many parts": ({"scenarios": ["split-digits/task/x"]}, "scenarios.0", "got 'task/x'"),
    "type that a stream has not": ({"scenarios": ["rotated-digits/class"]}, "scenarios.0", "keeps its class"),
    "method that cannot do a type": (
        {"methods": ["packnet"], "scenarios": ["split-digits/class"]},
        "methods.packnet",
        "can do split-digits/class, got packnet: it must know the task at inference",
    ),
    "nothing left to run": (
        {"methods": ["packnet"], "scenarios": ["split-digits/class"], "unsupported_cells": "skip"},
        "methods",
        "at least one that can do one of the scenarios",
    ),
    "scenario twice": ({"scenarios": ["split-digits/task"] * 2}, "scenarios", "got 'split-digits/task' 2 times"),
    "method twice": ({"methods": ["ewc", "naive", "ewc"]}, "methods", "got 'ewc' 2 times"),
    "no methods": ({"methods": []}, "methods", "expected at least 1 of them, got []"),
    "methods as text": ({"methods": "ewc"}, "methods", "expected a list, got 'ewc'"),
    "method as number": ({"methods": [1]}, "methods.0", "expected text, got 1"),
    "limits as text": ({"limits": "forgetting <= 1"}, "limits", "expected a list"),
    "limit as number": ({"limits": [3]}, "limits.0", "expected text, got 3; such as worst_forgetting <= 0.05"),
    "limit of an unknown metric": ({"limits": ["forgeting <= 0.1"]}, "limits.0", "did you mean 'forgetting'?"),
    "limit with <": ({"limits": ["forgetting < 0.1"]}, "limits.0", "expected 'METRIC <= NUMBER' or"),
    "limit that is empty": ({"limits": [""]}, "limits.0", "for example worst_forgetting <= 0.05"),
    "limit without a number": ({"limits": ["forgetting <= low"]}, "limits.0", "expected 'METRIC <= NUMBER'"),
    "limit with two numbers": ({"limits": ["forgetting <= 1.2.3"]}, "limits.0", "expected 'METRIC <= NUMBER'"),
    "limit nan": ({"limits": ["forgetting <= nan"]}, "limits.0", "got 'forgetting <= nan'"),
    "limit infinite": ({"limits": ["kept_bytes <= 1e400"]}, "limits.0", "got 'kept_bytes <= 1e400'"),
    "tolerance 0": ({"limits": ["forgetting <= 0.1 (tolerance 0)"]}, "limits.0", "expected 'METRIC <= NUMBER'"),
    "limit out of reach": ({"limits": ["average_accuracy >= 1.5"]}, "limits.0", "average_accuracy lies in 0 … 1"),
    "limit below reach": ({"limits": ["kept_bytes <= -1"]}, "limits.0", "expected a limit that can be met"),
    "limit twice": (
        {"limits": ["forgetting <= 0.1", "kept_bytes <= 1", "forgetting <= 0.2"]},
        "limits.2",
        "expected one '<=' limit a metric, got 'forgetting <= 0.2' too",
    ),
    "limits that contradict": (
        {"limits": ["forgetting >= 0.5", "forgetting <= 0.1"]},
        "limits.1",
        "expected limits that can both hold, got 'forgetting >= 0.5' and 'forgetting <= 0.1'",
    ),
    "forward transfer outside of domain": (
        {"limits": ["forward_transfer >= 0"], "scenarios": ["split-digits/domain", "split-digits/task"]},
        "limits.0",
        "expected a metric that split-digits/task has, got forward_transfer; it needs domain",
    ),
    "forward transfer as objective": ({"objective": "forward_transfer"}, "objective", "it needs domain"),
    "forgetting with 1 task": (
        {"limits": ["forgetting <= 0.1"], "streams": {"split-digits": {"n_tasks": 1}}},
        "limits.0",
        "it needs 2 tasks or more",
    ),
    "unknown objective": ({"objective": "accuracy"}, "objective", "did you mean 'average_accuracy'?"),
    "overlapping lists": ({"seeds": {"search": [1, 2], "confirm": [2, 3]}}, "seeds", "without overlap, got 2 in both"),
    "count overlaps list": ({"seeds": {"search": 3, "confirm": [2]}}, "seeds", "got 2 in both"),
    "counts overlap": ({"seeds": {"search": 1003}}, "seeds", "got 1000, 1001, 1002 in both"),
    "negative count": ({"seeds": {"search": -1}}, "seeds.search", "expected a count in 0 … 10000, got -1"),
    "huge count": ({"seeds": {"confirm": 10**30}}, "seeds.confirm", "expected a count in 0 … 10000"),
    "negative seed": ({"seeds": {"confirm": [3, -1]}}, "seeds.confirm", "got [3, -1]; mend the list"),
    "repeated seed": ({"seeds": {"search": [1, 1]}}, "seeds.search", "expected distinct seeds"),
    "seed that no table holds": ({"seeds": {"search": [2**63]}}, "seeds.search", "2^63 - 1, got [9223372036854775808]"),
    "seed as fraction": ({"seeds": {"search": 1.5}}, "seeds.search", "expected a whole number or a list, got 1.5"),
    "no confirm seeds": ({"seeds": {"confirm": 0}}, "seeds.confirm", "expected at least 1 seed"),
    "empty confirm seeds": ({"seeds": {"confirm": []}}, "seeds.confirm", "expected at least 1 seed"),
    "budget 0": ({"search": {"suggestions": 0}}, "search.suggestions", "greater than or equal to 1, got 0"),
    "batch 0": ({"search": {"batch": 0}}, "search.batch", "greater than or equal to 1, got 0"),
    "budget of a bomb": (
        {"search": {"suggestions": 50_000_000}},
        "search.suggestions",
        "equal to 100000, got 50000000",
    ),
    "batch of a bomb": ({"search": {"batch": 50_000_000}}, "search.batch", "less than or equal to 1000, got 50000000"),
    "trials of a bomb": (
        {"search": {"suggestions": 100_000}, "seeds": {"search": 20}},
        "search.suggestions",
        "expected at most 1000000 trials in the sweep, got 4000060",
    ),
    "trials at once of a bomb": (
        {"search": {"suggestions": 1_000, "batch": 1_000}, "seeds": {"search": 400}},
        "search.batch",
        "expected at most 100000 trials before any result, got 800820",
    ),
    "cells of a bomb": (
        {"scenarios": ["split-digits/task"] * 101, "methods": ["naive"] * 100},
        "scenarios",
        "expected at most 10000 scenarios times methods, got 10100",
    ),
    "methods of a bomb": ({"methods": ["naive"] * 101}, "methods", "expected at most 100 of them"),
    "limits of a bomb": ({"limits": ["seconds <= 1"] * 101}, "limits", "expected at most 100 of them"),
    "spaces of a bomb": ({"spaces": {f"m{n}": {} for n in range(1_001)}}, "spaces", "expected at most 1000 of them"),
    "seeds of a bomb": (
        {"seeds": {"confirm": list(range(5, 10_006))}},
        "seeds.confirm",
        "at most 10000 seeds, got 10001",
    ),
    "negative sampler seed": ({"search": {"seed": -1}}, "search.seed", "greater than or equal to 0"),
    "unknown sampler": ({"search": {"sampler": "cma"}}, "search.sampler", "'tpe', 'random' or 'gp', got 'cma'"),
    "range upside down": (ewc({"low": 5, "high": 1}), "spaces.ewc.penalty_weight", "low 5 and high 1; swap them"),
    "log from 0": (ewc({"low": 0, "high": 1, "log": True}), "spaces.ewc.penalty_weight", "expected low > 0"),
    "range below bounds": (ewc({"low": -1, "high": 1}), "spaces.ewc.penalty_weight", "greater than or equal to 0"),
    "range above bounds": (replay({"low": 0, "high": 2}, "replay_ratio"), "spaces.replay.replay_ratio", "0.95, got 2"),
    "log and step": (
        ewc({"low": 1, "high": 2, "log": True, "step": 1}),
        "spaces.ewc.penalty_weight",
        "expected log or step, got both",
    ),
    "step 0": (ewc({"low": 1, "high": 2, "step": 0}), "spaces.ewc.penalty_weight.step", "greater than 0"),
    "step of a count as fraction": (
        replay({"low": 10, "high": 20, "step": 0.5}),
        "spaces.replay.buffer_size",
        "expected a whole step, got 0.5",
    ),
    "step that misses high": (ewc({"low": 0, "high": 1, "step": 0.3}), "spaces.ewc.penalty_weight", "got 0.3"),
    "range without high": (ewc({"low": 1}), "spaces.ewc.penalty_weight.high", "expected a value, got nothing"),
    "range of text": (ewc({"low": "a", "high": 2}), "spaces.ewc.penalty_weight.low", "expected a number, got 'a'"),
    "range of what is no number": (ewc({"low": 1, "high": 2}, "variant"), "spaces.ewc.variant", "is not a number"),
    "range of fractions of a count": (replay({"low": 1.5, "high": 2}), "spaces.replay.buffer_size", "got 1.5"),
    "range to infinity": (ewc({"low": 1, "high": math.inf}), "spaces.ewc.penalty_weight", "finite"),
    "no choices": (ewc([]), "spaces.ewc.penalty_weight", "expected at least one choice, got []"),
    "wrong choice": (ewc(["separate", "x"], "variant"), "spaces.ewc.variant", "'separate' or 'online', got 'x'"),
    "choices in choices": (ewc([[1]]), "spaces.ewc.penalty_weight.0", "got [1]"),
    "value out of bounds": (ewc(-1), "spaces.ewc.penalty_weight", "got -1"),
    "value nan": (ewc(math.nan), "spaces.ewc.penalty_weight", "got nan"),
    "value of the wrong type": (replay("many"), "spaces.replay.buffer_size", "got 'many'"),
    "unknown hyper-parameter": (ewc(1, "lambda"), "spaces.ewc.lambda", "got 'lambda'; choose from: penalty_weight"),
    "space of an unknown method": ({"spaces": {"ewcc": {"a": 1}}}, "spaces.ewcc", "did you mean 'ewc'?"),
    "space that is no mapping": ({"spaces": {"ewc": 3}}, "spaces.ewc", "expected a mapping, got 3"),
    "space of all that not all have": (
        {"spaces": {"all": {"penalty_weight": 1}}},
        "spaces.all.penalty_weight",
        "expected a hyper-parameter",
    ),
    "search without a search phase": (
        {"methods": ["naive", "ewc"], "seeds": {"search": 0}},
        "spaces.ewc",
        "expected nothing to search without a search phase, got penalty_weight; fix each",
    ),
    "search without validation data": (
        {"methods": ["naive"], "validation_share": 0},
        "validation_share",
        "more than 0 with search seeds, got 0",
    ),
    "GPUs 1.5": ({"resources": {"gpus": 1.5}}, "resources.gpus", "a fraction up to 1 or a whole number, got 1.5"),
    "GPUs 1.5 of a method": (
        {"resources": {"methods": {"ewc": {"gpus": 1.5}}}},
        "resources.methods.ewc.gpus",
        "got 1.5",
    ),
    "GPUs infinite": ({"resources": {"gpus": math.inf}}, "resources.gpus", "a finite number, got inf"),
    "CPUs infinite": ({"resources": {"cpus": math.inf}}, "resources.cpus", "a finite number, got inf"),
    "CPUs negative": ({"resources": {"cpus": -1}}, "resources.cpus", "greater than or equal to 0"),
    "CPUs 0": ({"resources": {"cpus": 0}}, "resources.cpus", "more than 0 where no GPU is asked for"),
    "CPUs 0 of a method": (
        {"resources": {"methods": {"ewc": {"cpus": 0}}}},
        "resources.methods.ewc.cpus",
        "more than 0 where no GPU is asked for",
    ),
    "CPUs 0 where a method gives up the GPU": (
        {"resources": {"cpus": 0, "gpus": 1, "methods": {"ewc": {"gpus": 0}}}},
        "resources.methods.ewc.cpus",
        "more than 0 where no GPU is asked for",
    ),
    "threads 0": ({"resources": {"threads": 0}}, "resources.threads", "greater than or equal to 1"),
    "unknown device": ({"resources": {"device": "tpu"}}, "resources.device", "'cpu' or 'cuda', got 'tpu'"),
    "request of an unknown method": (
        {"resources": {"methods": {"ewcc": {"cpus": 1}}}},
        "resources.methods.ewcc",
        "did you mean 'ewc'?",
    ),
    "request of an unknown scenario": (
        {"resources": {"scenarios": {"split-digits/tusk": {"cpus": 1}}}},
        "resources.scenarios.split-digits/tusk",
        "did you mean 'split-digits/task'?",
    ),
    "settings of an unknown stream": ({"streams": {"splt-digits": {}}}, "streams.splt-digits", "'split-digits'?"),
    "settings of another family": (
        {"streams": {"split-digits": {"max_rotation": 90}}},
        "streams.split-digits.max_rotation",
        "expected to be left out, got 90.0; it belongs to rotated streams",
    ),
    "too many tasks": (
        {"streams": {"split-digits": {"n_tasks": 6}}},
        "streams.split-digits.n_tasks",
        "<= 10 classes, got 6 x 2",
    ),
    "too many classes": ({"streams": {"split-digits": {"classes_per_task": 11}}}, "streams.split-digits.n_tasks", "11"),
    "one class a task": (
        {"streams": {"split-digits": {"classes_per_task": 1}}},
        "scenarios.0",
        "a head of one class could not miss it; use class, or 2 classes per task or more",
    ),
    "class twice": (
        {"streams": {"split-digits": {"class_order": [1, 1]}}},
        "streams.split-digits.class_order",
        "got [1, 1]; list each class once",
    ),
    "class that is none": (
        {"streams": {"split-digits": {"class_order": [1, 10]}}},
        "streams.split-digits.class_order",
        "distinct classes in 0 … 9",
    ),
    "class order as text": (
        {"streams": {"split-digits": {"class_order": "random"}}},
        "streams.split-digits.class_order",
        "'fixed' or 'shuffled' or a list, got 'random'",
    ),
    "name with a slash": ({"name": "a/b"}, "name", "got 'a/b'"),
    "name ..": ({"name": ".."}, "name", "got '..'"),
    "name that is empty": ({"name": ""}, "name", "got ''"),
    "name with a line end": ({"name": "a\n"}, "name", r"got 'a\n'"),
    "name that is hidden": ({"name": ".a"}, "name", "got '.a'"),
    "name that is too long": ({"name": "a" * 65}, "name", "got 'aaa"),
    "name as number": ({"name": 5}, "name", "expected text, got 5"),
    "name of too many digits": ({"name": 10**5000}, "name", "expected text, got"),
    "part that is no mapping": ({"search": []}, "search", "expected a mapping, got []"),
    "part that is null": ({"seeds": None}, "seeds", "expected a mapping, got None"),
    "share 1": ({"validation_share": 1}, "validation_share", "less than or equal to 0.9, got 1"),
    "share nan": ({"validation_share": math.nan}, "validation_share", "finite"),
    "learning rate 0": ({"training": {"learning_rate": 0}}, "training.learning_rate", "greater than 0"),
    "no layers": ({"model": {"hidden": []}}, "model.hidden", "at least 1 of them"),
    "unknown model": ({"model": {"name": "cn"}}, "model.name", "expected mlp, cnn, resnet18 or module:Class, got 'cn'"),
    "field of another model": (
        {"model": {"name": "cnn", "width": 20}},
        "model.width",
        "expected no width (or null) with model.name cnn, got 20; channels of the first stage",
    ),
    "options of no class": (
        {"model": {"options": {"depth": 2}}},
        "model.options",
        "no options (or null) with model.name mlp",
    ),
    "options that are not finite": (
        {"model": {"name": "a.b:C", "options": {"x": math.inf}}},
        "model.options.x",
        "expected a finite number",
    ),
    "no channels": ({"model": {"name": "cnn", "channels": []}}, "model.channels", "at least 1 of them"),
    "deeply nested": (deep(3000), "spec", "a few levels deep"),
}


@pytest.mark.parametrize("name", ONE_FAULT)
def test_one_fault_is_told_as_one(name: str) -> None:
    content, where, part = ONE_FAULT[name]
    (fault,) = faults_of(content)
    assert fault.startswith(f"{where}: "), fault
    assert part in fault


def test_the_reason_is_told_for_each_cell_that_is_refused() -> None:
    content = {"methods": ["packnet"], "scenarios": ["split-digits/task", "split-digits/class", "split-digits/domain"]}
    faults = faults_of(content)
    assert len(faults) == 2
    assert "split-digits/class" in faults[0]
    assert "a single head would change under it" in faults[1]
    assert all("unsupported_cells: skip" in fault for fault in faults)


def test_skipping_leaves_the_others() -> None:
    spec = parse_spec(
        {"methods": ["packnet", "naive"], "scenarios": ["split-digits/class"], "unsupported_cells": "skip"}
    )
    assert [cell.name for cell in spec.cells] == ["split-digits/class naive"]


def test_all_faults_are_told_at_once() -> None:
    content = {
        "name": "a/b",
        "scenario": "x",
        "methods": ["ewcc", "naive"],
        "limits": ["nonsense", "forgetting <= 0.1", "forgetting <= 0.2", "average_accuracy >= 2"],
        "objective": "accuracy",
        "seeds": {"search": "x", "confirm": [1, 1]},
        "search": {"suggestions": 0, "batch": 0},
        "spaces": {"ewc": {"penalty_weight": {"low": 2, "high": 1}, "lambda": 1}, "nope": {}},
        "streams": {"split-digits": {"n_tasks": 9}, "split-foo": {}},
        "resources": {"gpus": 1.5, "cpus": -1, "methods": {"foo": {}}},
    }
    faults = faults_of(content)
    wheres = [fault.partition(": ")[0] for fault in faults]
    assert sorted(wheres) == sorted(
        [
            "name",
            "scenario",
            "methods.0",
            "limits.0",
            "limits.2",
            "limits.3",
            "objective",
            "seeds.search",
            "seeds.confirm",
            "search.suggestions",
            "search.batch",
            "spaces.ewc.penalty_weight",
            "spaces.ewc.lambda",
            "spaces.nope",
            "streams.split-digits.n_tasks",
            "streams.split-foo",
            "resources.gpus",
            "resources.cpus",
            "resources.methods.foo",
        ]
    )


def test_the_count_stands_in_the_message() -> None:
    with pytest.raises(SpecError, match=r"the spec has 1 fault:\n  name: "):
        parse_spec({"name": "/"})
    with pytest.raises(SpecError, match="the spec has 2 faults:"):
        parse_spec({"name": "/", "foo": 1})


def test_a_faulty_part_does_not_hide_its_neighbour() -> None:
    """Two errors at one place must not take the whole part away before the rest of it is checked."""
    faults = faults_of({"seeds": {"search": "x", "confirm": [1, 1]}})
    assert [fault.partition(":")[0] for fault in faults] == ["seeds.search", "seeds.confirm"]


def test_bad_seeds_do_not_pretend_that_there_is_no_search() -> None:
    assert len(faults_of({"methods": ["ewc"], "seeds": {"search": -1}})) == 1


def test_no_cpus_beside_a_gpu_is_fine() -> None:
    spec = parse_spec({"methods": ["ewc", "naive"], "resources": {"gpus": 1, "methods": {"ewc": {"cpus": 0}}}})
    assert spec.resources.of("split-digits/task", "ewc").cpus == 0


def test_fixing_everything_needs_no_search_phase() -> None:
    spec = parse_spec({"methods": ["ewc"], "seeds": {"search": 0}, "spaces": {"ewc": {"penalty_weight": 1}}})
    assert not spec.cells[0].is_searched


def test_limits_that_meet_in_one_point_are_fine() -> None:
    assert len(parse_spec({"limits": ["forgetting <= 0.1", "forgetting >= 0.1"]}).constraints) == 2


def test_text_that_uses_itself_is_refused_in_short() -> None:
    bomb: Any = ["x" * 1000]
    for _ in range(30):
        bomb = [bomb, bomb]
    (fault,) = faults_of({"name": bomb})
    assert len(fault) < 300


def test_nearest_offers_all_where_none_is_near() -> None:
    assert nearest("zzz", ["ewc", "naive"]) == "choose from: ewc, naive"
    assert nearest("niave", ["ewc", "naive"]) == "did you mean 'naive'?"


# Files.


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"- a\n- b\n", "expected a mapping of fields, got list"),
        (b"just text", "expected a mapping of fields, got str"),
        (b"a: [1, 2\nb: 3\n", "expected YAML, got"),
        (b"a: b: c\n", "mapping values are not allowed"),
        (b"\tname: a\n", "expected YAML, got"),
        (b"\x89PNG\r\n\x1a\n\x00\xff\xfe", "expected a readable YAML file"),
        (b"name: \x00\n", "expected YAML, got"),
        (b"!!python/object/apply:os.system ['true']", "expected YAML, got"),
        (b"a: !!int ''\n", "expected YAML, got"),
        (b"a: !!bool perhaps\n", "expected YAML, got"),
        (b"a: !!timestamp soon\n", "expected YAML, got"),
        (b"? {a: 1}\n: 2\n", "expected YAML, got"),
        (b"[" * 5000, "expected YAML, got"),
        (b"a: " + b"9" * 5000, "expected numbers of at most 1000 digits, got one of 5000"),
        (b"2: 3\n", "2: expected text as a key"),
        (b"a: &a {b: *a}\n", "the alias on line 1 is inside the anchor that it repeats"),
        (b"name: 1" + b":1" * 100_000, "expected numbers of at most 1000 digits"),
        (b"name: " + b"a" * 2**20, "expected at most 1048576 bytes, got more"),
        (b"name: &a " + b"a" * 10_000 + b"\nmethods: [" + b"*a," * 1_000 + b"]", "characters with aliases written out"),
    ],
    ids=lambda value: value[:60],
)
def test_a_bad_file_is_told_as_one(tmp_path: Path, content: bytes, part: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)
    with pytest.raises(SpecError) as caught:
        load_spec(path)
    (fault,) = caught.value.faults
    assert part in fault
    assert FORM.match(fault), fault


@pytest.mark.parametrize("form", ["[{}]", "{{<<: [{}]}}"], ids=["lists", "merges"])
def test_aliases_that_grow_are_refused_before_they_do(tmp_path: Path, form: str) -> None:
    """Nine levels of nine are 10^9 entries: with them anything but a refusal while counting takes minutes."""
    levels = [f"  l{level}: &l{level} {form.format(','.join([f'*l{level - 1}'] * 9))}" for level in range(1, 10)]
    path = tmp_path / "bomb.yaml"
    path.write_text("\n".join(["model:", " name: m:M", " options:", "  l0: &l0 {a: 1}", *levels]))
    with pytest.raises(
        SpecError, match=r"bomb\.yaml: expected at most 50000 entries with aliases written out, got more"
    ):
        load_spec(path)


def test_aliases_of_a_reasonable_spec_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(
        "methods: [ewc, mas]\n"
        "spaces: {ewc: &both {penalty_weight: &range {low: 1, high: 9}}, mas: {<<: *both, penalty_weight: *range}}\n"
    )
    assert load_spec(path).spaces["ewc"] == load_spec(path).spaces["mas"]


def test_a_spec_may_come_through_a_pipe(tmp_path: Path) -> None:
    """As from `sweep <(…)`."""
    reading, writing = os.pipe()
    with open(reading, "rb"), open(writing, "wb") as file:
        file.write(b"name: piped\n")
        file.close()
        assert load_spec(f"/dev/fd/{reading}").name == "piped"


def test_the_bounds_of_a_sweep_are_above_what_is_real() -> None:
    spec = parse_spec({"search": {"suggestions": 10_000, "batch": 1_000}, "seeds": {"search": 10, "confirm": 10}})
    assert parse_spec({"seeds": {"confirm": list(range(5_000, 15_000))}, "methods": ["naive"]}).cells
    assert spec.search.suggestions == 10_000


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"nope.yaml: expected a readable YAML file, got 'No such file or directory'"):
        load_spec(tmp_path / "nope.yaml")
    with pytest.raises(SpecError, match="got 'Is a directory'"):
        load_spec(tmp_path)


def test_an_unknown_preset_is_told() -> None:
    with pytest.raises(
        SpecError, match=r"--preset: expected a known preset, got 'quickstrt'; did you mean 'quickstart'"
    ):
        load_spec(preset="quickstrt")


def test_a_preset_is_a_name_and_no_path() -> None:
    with pytest.raises(SpecError, match="expected a known preset"):
        load_spec(preset="../presets/quickstart")


def test_a_file_and_a_preset_are_too_many(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="expected a file or a preset"):
        load_spec(tmp_path / "a.yaml", preset="quickstart")
