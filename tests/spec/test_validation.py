"""What a spec refuses: every fault at once, each in the same form, and only `SpecError`."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import Any

import pytest

from orchestrator.core.errors import SpecError
from orchestrator.core.text import nearest
from orchestrator.spec.loading import load_spec, parse_spec, parse_yaml

FORM = re.compile(r"^\S+: .+; .+$", re.DOTALL)
"""PLACE: WHAT IS WRONG; WHAT TO DO."""


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
    "unknown field far away": ({"foo": 1}, "foo", "choose from: name, scenarios, methods"),
    "field named like a type": ({"value": 1}, "value", "expected a known field, got 'value'"),
    "field with a number as key": ({3: 1}, "3", "expected text as a key"),
    "field of a request": ({"resources": {"methods": {"ewc": {"gpu": 1}}}}, "resources.methods.ewc.gpu", "'gpus'?"),
    "field of a stream": ({"streams": {"split-digits": {"ntasks": 1}}}, "streams.split-digits.ntasks", "'n_tasks'?"),
    "field of a range": (ewc({"low": 1, "high": 2, "logg": True}), "spaces.ewc.penalty_weight.logg", "'log'?"),
    "unknown method": ({"methods": ["ewcc"]}, "methods.0", "expected a known method, got 'ewcc'; did you mean 'ewc'?"),
    "unknown stream": ({"scenarios": ["split-digit/task"]}, "scenarios.0", "did you mean 'split-digits'?"),
    "unknown type": ({"scenarios": ["split-digits/klass"]}, "scenarios.0", "got 'klass'; did you mean 'class'?"),
    "no type": ({"scenarios": ["split-digits"]}, "scenarios.0", "expected STREAM/TYPE, got 'split-digits'"),
    "type that a stream has not": ({"scenarios": ["rotated-digits/class"]}, "scenarios.0", "keeps its class"),
    "method that cannot do a type": (
        {"methods": ["packnet"], "scenarios": ["split-digits/class"]},
        "methods.packnet",
        "packnet cannot learn split-digits/class: it must know the task at inference",
    ),
    "nothing left to run": (
        {"methods": ["packnet"], "scenarios": ["split-digits/class"], "unsupported_cells": "skip"},
        "methods.packnet",
        "packnet cannot learn split-digits/class: it must know the task at inference",
    ),
    "scenario twice": (
        {"scenarios": ["split-digits/task"] * 2},
        "scenarios",
        "'split-digits/task' is listed 2 times; list it once",
    ),
    "method twice": ({"methods": ["ewc", "naive", "ewc"]}, "methods", "'ewc' is listed 2 times"),
    "no methods": ({"methods": []}, "methods", "a list of 1 or more, got []; for example methods: [naive"),
    "methods as text": (
        {"methods": "ewc"},
        "methods",
        "expected a list, got 'ewc'; for example methods: [naive, joint, ewc, replay]",
    ),
    "method as number": ({"methods": [1]}, "methods.0", "expected text, got 1"),
    "limits as text": ({"limits": "forgetting <= 1"}, "limits", "expected a list"),
    "limit as number": ({"limits": [3]}, "limits.0", "got 3; for example limits: [worst_forgetting <= 0.05]"),
    "limit of an unknown metric": ({"limits": ["forgeting <= 0.1"]}, "limits.0", "did you mean 'forgetting'?"),
    "limit with <": ({"limits": ["forgetting < 0.1"]}, "limits.0", "expected 'METRIC <= NUMBER' or"),
    "limit out of reach": (
        {"limits": ["average_accuracy >= 1.5"]},
        "limits.0",
        "can never be met: it lies between 0 and 1; 1.5 points are 0.015",
    ),
    "limit below reach": ({"limits": ["kept_bytes <= -1"]}, "limits.0", "can never be met: it is at least 0;"),
    "limit never violated": (
        {"limits": ["kept_bytes <= 1", "worst_forgetting<=3"]},
        "limits.1",
        "'worst_forgetting <= 3' can never be violated: it lies between -1 and 1; 3 points are 0.03",
    ),
    "limit of one point": ({"limits": ["forgetting <= 1"]}, "limits.0", "can never be violated: it lies between -1"),
    "limit on a level": ({"limits": ["average_accuracy >= 0"]}, "limits.0", "can never be violated: it lies between 0"),
    "limit on a cost": ({"limits": ["seconds >= 0"]}, "limits.0", "can never be violated: it is at least 0; change"),
    "limit on an unknown score": ({"limits": ["aurok.average >= 0.5"]}, "limits.0", "did you mean 'auroc'?"),
    "limit without a class": ({"limits": ["recall.average >= 0.5"]}, "limits.0", "write recall(CLASS)"),
    "limit on an unknown task": ({"limits": ["forgetting[0/2] <= 0.1"]}, "limits.0", "has no task '0/2'; did you mean"),
    "limit on the last task": ({"limits": ["forgetting[8/9] <= 0.1"]}, "limits.0", "is the last task of"),
    "limit twice in other words": (
        {"limits": ["forgetting[0/1] <= 0.1", "forgetting [ 0/1 ] <= 10 %"]},
        "limits.1",
        "limit the same metric twice; keep one",
    ),
    "score of a cost": ({"limits": ["auroc.seconds <= 5"]}, "limits.0", "'seconds' is a cost"),
    "accuracy of a score": ({"objective": "auroc.average_accuracy"}, "objective", "write auroc.average"),
    "unknown score": ({"score": "acuracy"}, "score", "there is no score 'acuracy'; did you mean 'accuracy'?"),
    "score with a class": ({"score": "auroc(1)"}, "score", "leave '(1)' out"),
    "score of another scenario": ({"score": {"split-digits/clas": "auroc"}}, "score.split-digits/clas", "did you mean"),
    "unknown further score": ({"scores": ["accuracy", "f1"]}, "scores.1", "write f1(CLASS)"),
    "limit twice": (
        {"limits": ["forgetting <= 0.1", "kept_bytes <= 1", "forgetting <= 0.2"]},
        "limits.2",
        "'forgetting <= 0.1' and 'forgetting <= 0.2' limit the same metric twice; keep one",
    ),
    "limits that contradict": (
        {"limits": ["forgetting >= 0.5", "forgetting <= 0.1"]},
        "limits.1",
        "'forgetting >= 0.5' and 'forgetting <= 0.1' can never be met together",
    ),
    "forward transfer outside of domain": (
        {"limits": ["forward_transfer >= 0"], "scenarios": ["split-digits/domain", "split-digits/task"]},
        "limits.0",
        "split-digits/task has no forward_transfer, which needs a domain scenario",
    ),
    "forward transfer as objective": ({"objective": "forward_transfer"}, "objective", "needs a domain scenario"),
    "forgetting with 1 task": (
        {"limits": ["forgetting <= 0.1"], "streams": {"split-digits": {"n_tasks": 1}}},
        "limits.0",
        "split-digits/task has no forgetting, which needs 2 tasks or more",
    ),
    "unknown objective": ({"objective": "accuracy"}, "objective", "'accuracy' is a score: write accuracy.average"),
    "overlapping lists": (
        {"seeds": {"search": [1, 2], "confirm": [2, 3]}},
        "seeds",
        "search and confirm share 2; choose other",
    ),
    "counts overlap": ({"seeds": {"search": 1003}}, "seeds", "share 1000, 1001, 1002;"),
    "negative count": ({"seeds": {"search": -1}}, "seeds.search", "expected 0 to 10000 seeds, got -1"),
    "huge count": (
        {"seeds": {"confirm": 10**30}},
        "seeds.confirm",
        "expected 0 to 10000 seeds, got a number of more than 20 digits",
    ),
    "negative seed": ({"seeds": {"confirm": [3, -1]}}, "seeds.confirm", "got [3, -1]; correct the list"),
    "seed that no table holds": ({"seeds": {"search": [2**63]}}, "seeds.search", "2^63 - 1, got [9223372036854775808]"),
    "seed as fraction": (
        {"seeds": {"search": 1.5}},
        "seeds.search",
        "a whole number or a list, got 1.5; for example search: 3",
    ),
    "no confirm seeds": ({"seeds": {"confirm": 0}}, "seeds.confirm", "needs at least 1 seed"),
    "budget 0": ({"search": {"suggestions": 0}}, "search.suggestions", "expected 1 or more, got 0; raise it"),
    "batch 0": ({"search": {"batch": 0}}, "search.batch", "expected 1 or more, got 0; raise it"),
    "budget of a bomb": (
        {"search": {"suggestions": 50_000_000}},
        "search.suggestions",
        "100000 or less, got 50000000; lower it",
    ),
    "batch of a bomb": ({"search": {"batch": 50_000_000}}, "search.batch", "1000 or less, got 50000000; lower it"),
    "trials of a bomb": (
        {"search": {"suggestions": 100_000}, "seeds": {"search": 20}},
        "search.suggestions",
        "expected at most 1000000 trials in the sweep, got 4000510",
    ),
    "trials at once of a bomb": (
        {"search": {"suggestions": 1_000, "batch": 1_000}, "seeds": {"search": 400}},
        "search.batch",
        "expected at most 100000 trials before any result, got 800810",
    ),
    "cells of a bomb": (
        {"scenarios": ["split-digits/task"] * 101, "methods": ["naive"] * 100},
        "scenarios",
        "at most 10000 cells (scenarios times methods), got 10100",
    ),
    "methods of a bomb": ({"methods": ["naive"] * 101}, "methods", "expected 100 entries or fewer"),
    "limits of a bomb": ({"limits": ["seconds <= 1"] * 101}, "limits", "expected 100 entries or fewer"),
    "spaces of a bomb": ({"spaces": {f"m{n}": {} for n in range(1_001)}}, "spaces", "expected 1000 entries or fewer"),
    "seeds of a bomb": (
        {"seeds": {"confirm": list(range(5, 10_006))}},
        "seeds.confirm",
        "at most 10000 seeds, got 10001",
    ),
    "negative sampler seed": ({"search": {"seed": -1}}, "search.seed", "expected 0 or more, got -1"),
    "unknown sampler": ({"search": {"sampler": "cma"}}, "search.sampler", "'tpe', 'random' or 'gp', got 'cma'"),
    "step 0": (ewc({"low": 1, "high": 2, "step": 0}), "spaces.ewc.penalty_weight.step", "more than 0"),
    "range without high": (ewc({"low": 1}), "spaces.ewc.penalty_weight.high", "got nothing; add it"),
    "range of text": (ewc({"low": "a", "high": 2}), "spaces.ewc.penalty_weight.low", "expected a number, got 'a'"),
    "choices in choices": (ewc([[1]]), "spaces.ewc.penalty_weight.0", "got [1]"),
    "value out of bounds": (ewc(-1), "spaces.ewc.penalty_weight", "got -1"),
    "value nan": (ewc(math.nan), "spaces.ewc.penalty_weight", "got nan"),
    "unknown hyper-parameter": (ewc(1, "lambda"), "spaces.ewc.lambda", "got 'lambda'; choose from: penalty_weight"),
    "none of several types": (
        {"streams": {"permuted-digits": {"permutation_seed": "foo"}}},
        "streams.permuted-digits.permutation_seed",
        "expected a whole number or 'trial', got 'foo'",
    ),
    "an entry of a list": ({"seeds": {"search": [1, "x"]}}, "seeds.search.1", "expected a whole number, got 'x'"),
    "a name like a type of pydantic's": (
        {"streams": {"constrained-int": {"table": "x.csv", "label": "y", "bogus": 1}}},
        "streams.constrained-int.bogus",
        "expected a known field, got 'bogus'",
    ),
    "space of an unknown method": ({"spaces": {"ewcc": {"a": 1}}}, "spaces.ewcc", "did you mean 'ewc'?"),
    "space that is no mapping": (
        {"spaces": {"ewc": 3}},
        "spaces.ewc",
        "expected a mapping, got 3; for example spaces: {ewc:",
    ),
    "space of all that not all have": (
        {"spaces": {"all": {"penalty_weight": 1}}},
        "spaces.all.penalty_weight",
        "expected a hyper-parameter",
    ),
    "search without a search phase": (
        {"methods": ["naive", "ewc"], "seeds": {"search": 0}},
        "spaces.ewc",
        "penalty_weight cannot be searched without search seeds; fix each",
    ),
    "search without validation data": (
        {"methods": ["naive"], "validation_share": 0},
        "validation_share",
        "the search phase needs validation data, got 0",
    ),
    "GPUs 1.5": ({"resources": {"gpus": 1.5}}, "resources.gpus", "a fraction up to 1 or a whole number, got 1.5"),
    "GPUs 1.5 of a method": (
        {"resources": {"methods": {"ewc": {"gpus": 1.5}}}},
        "resources.methods.ewc.gpus",
        "got 1.5",
    ),
    "GPUs infinite": ({"resources": {"gpus": math.inf}}, "resources.gpus", "a finite number, got inf"),
    "CPUs negative": ({"resources": {"cpus": -1}}, "resources.cpus", "expected 0 or more, got -1"),
    "CPUs 0": ({"resources": {"cpus": 0}}, "resources.cpus", "a trial without a GPU needs more than 0 CPUs"),
    "CPUs 0 of a method": (
        {"resources": {"methods": {"ewc": {"cpus": 0}}}},
        "resources.methods.ewc.cpus",
        "a trial without a GPU needs more than 0 CPUs",
    ),
    "CPUs 0 of a method without the GPU": (
        {"resources": {"cpus": 0, "gpus": 1, "methods": {"ewc": {"gpus": 0}}}},
        "resources.methods.ewc.cpus",
        "a trial without a GPU needs more than 0 CPUs",
    ),
    "threads 0": ({"resources": {"threads": 0}}, "resources.threads", "expected 1 or more, got 0"),
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
        "only rotated streams have this field; leave it out",
    ),
    "too many tasks": (
        {"streams": {"split-digits": {"n_tasks": 6}}},
        "streams.split-digits.n_tasks",
        "6 x 2 (n_tasks x classes_per_task) is more than the 10 classes",
    ),
    "classes left over": (
        {"streams": {"split-digits": {"classes_per_task": 3}}},
        "streams.split-digits.classes_per_task",
        "10 classes make 3 tasks of 3 and leave 1 over ('9'); set leftover: last_task, leftover: drop or n_tasks: 3",
    ),
    "shuffled classes left over": (
        {"streams": {"split-digits": {"classes_per_task": 4, "class_order": "shuffled"}}},
        "streams.split-digits.classes_per_task",
        "leave 2 over (the trial's seed decides which); set leftover: last_task",
    ),
    "listed classes left over": (
        {"streams": {"split-digits": {"class_order": [7, 2, 4, 5, 1]}}},
        "streams.split-digits.classes_per_task",
        "5 classes make 2 tasks of 2 and leave 1 over ('1');",
    ),
    "leftover of a stream that is not split": (
        {"streams": {"permuted-digits": {"leftover": "drop"}}},
        "streams.permuted-digits.leftover",
        "have this field; leave it out",
    ),
    "background that is no colour": (
        {"streams": {"photos": {"folder": "a", "background": "pink"}}},
        "streams.photos.background",
        "expected white, black or a colour such as '#ff8800', got 'pink'; put it in quotes, because # begins",
    ),
    "background that YAML takes for a comment": (
        {"streams": {"photos": {"folder": "a", "background": None}}},
        "streams.photos.background",
        "got null; put it in quotes, because # begins a comment",
    ),
    "background without a folder": (
        {"streams": {"split-digits": {"background": "black"}}},
        "streams.split-digits.background",
        "only streams of your own folder, under a name of their own, have this field; leave it out",
    ),
    "one class a task": (
        {"streams": {"split-digits": {"classes_per_task": 1}}},
        "scenarios.0",
        "split-digits/task is impossible: a task of one class",
    ),
    "class order as text": (
        {"streams": {"split-digits": {"class_order": "random"}}},
        "streams.split-digits.class_order",
        "'fixed' or 'shuffled' or a list, got 'random'",
    ),
    "epochs of a method with passes of its own": (
        {"methods": ["gdumb"], "spaces": {"gdumb": {"epochs": 3}}},
        "spaces.gdumb.epochs",
        "gdumb makes passes in place of epochs, so epochs changes nothing; drop it",
    ),
    "passes beside iterations": (
        {"methods": ["gdumb"], "training": {"iterations": 40}, "spaces": {"gdumb": {"passes": 3}}},
        "spaces.gdumb.passes",
        "gdumb takes as many steps as iterations says, so passes changes nothing; drop it",
    ),
    "epochs beside iterations": (
        {"methods": ["ewc"], "training": {"iterations": 40}, "spaces": {"ewc": {"epochs": [3, 4]}}},
        "spaces.ewc.epochs",
        "ewc takes as many steps as iterations says, so epochs changes nothing; drop it",
    ),
    "epochs beside iterations of the method": (
        {"methods": ["ewc"], "spaces": {"ewc": {"epochs": 3, "iterations": 40}}},
        "spaces.ewc.epochs",
        "ewc takes as many steps as iterations says, so epochs changes nothing; drop it",
    ),
    "steps of a method without": (
        {"methods": ["ridge"], "spaces": {"ridge": {"epochs": 3}}},
        "spaces.ridge.epochs",
        "ridge takes no training steps, so epochs changes nothing; drop it",
    ),
    "name with a slash": ({"name": "a/b"}, "name", "got 'a/b'"),
    "name with a line end": ({"name": "a\n"}, "name", r"got 'a\n'"),
    "name that is hidden": ({"name": ".a"}, "name", "got '.a'"),
    "name that is too long": ({"name": "a" * 65}, "name", "got 'aaa"),
    "name as number": ({"name": 5}, "name", "expected text, got 5; for example name: sweep"),
    "name of too many digits": ({"name": 10**5000}, "name", "expected text, got"),
    "part that is no mapping": ({"search": []}, "search", "expected a mapping, got []"),
    "share 1": ({"validation_share": 1}, "validation_share", "expected 0.9 or less, got 1"),
    "learning rate 0": ({"training": {"learning_rate": 0}}, "training.learning_rate", "expected more than 0, got 0"),
    "no layers": ({"model": {"hidden": []}}, "model.hidden", "a list of 1 or more, got []"),
    "unknown model": ({"model": {"name": "cn"}}, "model.name", "got 'cn'; did you mean 'cnn'?"),
    "field of another model": (
        {"model": {"name": "cnn", "width": 20}},
        "model.width",
        "expected no width with model.name cnn, got 20; leave it out",
    ),
    "options that are not finite": (
        {"model": {"name": "a.b:C", "options": {"x": math.inf}}},
        "model.options.x",
        "expected a finite number",
    ),
    "deeply nested": (deep(3000), "spec", "nested far too deeply"),
}


@pytest.mark.parametrize("name", ONE_FAULT)
def test_each_fault_is_reported_once(name: str) -> None:
    content, where, part = ONE_FAULT[name]
    (fault,) = faults_of(content)
    assert fault.startswith(f"{where}: "), fault
    assert part in fault


def test_each_refused_cell_has_its_reason() -> None:
    content = {"methods": ["packnet"], "scenarios": ["split-digits/task", "split-digits/class", "split-digits/domain"]}
    faults = faults_of(content)
    assert len(faults) == 2
    assert "split-digits/class" in faults[0]
    assert "a single head would change under it" in faults[1]
    assert all("unsupported_cells: skip" in fault for fault in faults)


def test_skipping_every_cell_tells_each_reason() -> None:
    """Quickstart skips what a method cannot learn, so `--methods packnet` alone could leave nothing to run."""
    with pytest.raises(SpecError) as caught:
        load_spec(overrides={"methods": ["packnet"], "scenarios": ["split-digits/class"], "limits": ["x <= 1"]})
    assert len(caught.value.faults) == 2
    assert (
        "methods.packnet: packnet cannot learn split-digits/class: it must know the task at inference to choose its "
        "weights; choose another method or another scenario"
    ) in caught.value.faults


def test_a_method_is_refused_by_what_it_is_trained_as() -> None:
    (fault,) = faults_of({"methods": ["packnet"], "training": {"evaluate": "masked"}})
    assert "packnet cannot learn split-digits/task: with training.evaluate masked it is trained as class: it" in fault


def test_entries_for_all_may_have_no_effect_on_some() -> None:
    spec = parse_spec({"methods": ["gdumb", "naive"], "spaces": {"all": {"epochs": 3}}})
    assert [set(cell.space.fixed) for cell in spec.cells] == [set(), {"epochs"}]
    assert parse_spec({"methods": ["ewc"], "training": {"iterations": 9}, "spaces": {"ewc": {"iterations": None}}})


def test_skipping_leaves_the_others() -> None:
    spec = parse_spec(
        {"methods": ["packnet", "naive"], "scenarios": ["split-digits/class"], "unsupported_cells": "skip"}
    )
    assert [cell.name for cell in spec.cells] == ["split-digits/class naive"]


def test_all_faults_are_reported_at_once() -> None:
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
    """Two errors at one place must not hide faults in the rest of the part."""
    faults = faults_of({"seeds": {"search": "x", "confirm": [1, 1]}})
    assert [fault.partition(":")[0] for fault in faults] == ["seeds.search", "seeds.confirm"]


def test_bad_seeds_cause_one_fault() -> None:
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
        (b"a: [1, 2\nb: 3\n", "not valid YAML: "),
        (b"a: b: c\n", "mapping values are not allowed"),
        (b"\tname: a\n", "not valid YAML: "),
        (b"\x89PNG\r\n\x1a\n\x00\xff\xfe", "cannot read this YAML file: "),
        (b"name: \x00\n", "not valid YAML: "),
        (b"!!python/object/apply:os.system ['true']", "not valid YAML: "),
        (b"a: !!int ''\n", "not valid YAML: "),
        (b"a: !!bool perhaps\n", "not valid YAML: "),
        (b"a: !!timestamp soon\n", "not valid YAML: "),
        (b"? {a: 1}\n: 2\n", "not valid YAML: "),
        (b"[" * 5000, "not valid YAML: "),
        (b"a: " + b"9" * 5000, "expected numbers of at most 1000 digits, got one of 5000"),
        (b"2: 3\n", "2: expected text as a key"),
        (b"a: &a {b: *a}\n", "the alias on line 1 is inside the anchor that it repeats"),
        (b"name: !!int 1" + b":1" * 100_000, "expected numbers of at most 1000 digits"),
        (b"name: " + b"a" * 2**20, "expected at most 1048576 bytes, got more"),
        (b"name: &a " + b"a" * 10_000 + b"\nmethods: [" + b"*a," * 1_000 + b"]", "characters with aliases written out"),
    ],
    ids=lambda value: value[:60],
)
def test_a_bad_file_is_one_fault(tmp_path: Path, content: bytes, part: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)
    with pytest.raises(SpecError) as caught:
        load_spec(path)
    (fault,) = caught.value.faults
    assert part in fault
    assert FORM.match(fault), fault


@pytest.mark.parametrize("form", ["[{}]", "{{<<: [{}]}}"], ids=["lists", "merges"])
def test_growing_aliases_are_refused_while_counting(tmp_path: Path, form: str) -> None:
    """Nine levels of nine aliases are 10^9 entries: writing them out would take minutes."""
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


TEXTS = ["2023", "010", "1e5", "yes", "off", "true", "1:30", "2024-01-01", "0x10", "1_000", ".inf", "3.50"]
"""What looks like something else, and is the name of a column."""


@pytest.mark.parametrize("text", TEXTS)
def test_a_name_without_quotes_is_text(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(
        "streams:\n  own:\n    table: a.csv\n"
        f"    label: {text}\n    drop: [{text}a, x]\n    categorical:\n    - {text}b\n    task: {text}c\n"
    )
    spec = load_spec(path)
    own = spec.streams["own"]
    assert (own.label, own.drop, own.categorical) == (text, (f"{text}a", "x"), (f"{text}b",))
    assert parse_yaml(spec.to_yaml().encode(), "it")["streams"]["own"]["label"] == text


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("training: {epochs: 010}", "begins with 0, which YAML may take for an octal number; write 10"),
        (
            "training:\n  epochs: 1\n  'epochs': 2\n",
            "a.yaml: the key 'epochs' is on line 2 and again on line 3; keep one",
        ),
        ("training: {epochs: 1:30}", "training.epochs: expected a whole number, got '1:30';"),
        ("training: {epochs: yes}", "training.epochs: expected a whole number, got 'yes';"),
        ("training: {epochs: true}", "training.epochs: expected a whole number, got 'true';"),
        ("training: {learning_rate: on}", "training.learning_rate: expected a number, got 'on';"),
        ("training: {learning_rate: false}", "training.learning_rate: expected a number, got 'false';"),
        ("training: {epochs: 2024-01-01}", "training.epochs: expected a whole number, got '2024-01-01';"),
        ("training: {learning_rate: .inf}", "training.learning_rate: expected a finite number, got inf;"),
        ("training: {epochs: ~}", "training.epochs: expected a whole number, got null;"),
        ("seeds: {search: [1, true]}", "seeds.search.1: expected a whole number, got 'true';"),
        ("model: {hidden: [true]}", "model.hidden.0: expected a whole number, got 'true';"),
        ("spaces: {ewc: {penalty_weight: {low: true, high: 3}}}", "penalty_weight.low: expected a number, got 'true'"),
        ("spaces: {ewc: {penalty_weight: 2024-01-01}}", "expected a number, got '2024-01-01'"),
        ("spaces: {ewc: {penalty_weight: yes}}", "expected a number, got 'yes'"),
        ("methods: [~]", "methods.0: expected text, got null;"),
        ("2024: 1", "2024: expected text as a key, got 2024; put it in quotes"),
    ],
)
def test_what_is_no_number_is_refused(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(line)
    with pytest.raises(SpecError) as caught:
        load_spec(path)
    assert said in str(caught.value)


def test_numbers_and_choices_are_understood(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(
        "methods: [ewc]\n"
        "training: {learning_rate: 1e-3, epochs: 1e1, batch_size: 1_6, keep_optimizer: yes}\n"
        "seeds: {search: 0x2}\n"
        "spaces: {ewc: {penalty_weight: {low: 1, high: 1e5, log: on}, fisher: true}}\n"
    )
    spec = load_spec(path)
    training = spec.training
    assert (training.learning_rate, training.epochs, training.batch_size, training.keep_optimizer) == (
        *(0.001, 10, 16),
        True,
    )
    assert spec.seeds.search == 2
    assert spec.cells[0].space.fixed == {"fisher": "true"}


def test_a_spec_may_come_through_a_pipe(tmp_path: Path) -> None:
    """As with `sweep <(…)`."""
    reading, writing = os.pipe()
    with open(reading, "rb"), open(writing, "wb") as file:
        file.write(b"name: piped\n")
        file.close()
        assert load_spec(f"/dev/fd/{reading}").name == "piped"


def test_the_bounds_of_a_sweep_are_above_what_is_real() -> None:
    spec = parse_spec({"search": {"suggestions": 10_000, "batch": 1_000}, "seeds": {"search": 10, "confirm": 10}})
    assert parse_spec({"seeds": {"confirm": list(range(5_000, 15_000))}, "methods": ["naive"]}).cells
    assert spec.search.suggestions == 10_000


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"nope.yaml: cannot read this YAML file: No such file or directory; check"):
        load_spec(tmp_path / "nope.yaml")
    with pytest.raises(SpecError, match="file: Is a directory"):
        load_spec(tmp_path)


def test_an_unknown_preset_is_named() -> None:
    with pytest.raises(
        SpecError, match=r"--preset: expected a known preset, got 'quickstrt'; did you mean 'quickstart'"
    ):
        load_spec(preset="quickstrt")


def test_a_preset_is_a_name_and_no_path() -> None:
    with pytest.raises(SpecError, match="expected a known preset"):
        load_spec(preset="../presets/quickstart")


def test_a_file_and_a_preset_are_too_many(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"read from .* or from preset 'quickstart', not both"):
        load_spec(tmp_path / "a.yaml", preset="quickstart")
