"""Every method of the package against the shared suite, in variants that differ in what they keep."""

from __future__ import annotations

from typing import Any

import pytest
from matrix import METHODS, VARIANTS, in_the_cut, method_rows

from orchestrator.conformance import MethodConformance
from orchestrator.conformance.suite import CHECKS
from strategies import STRATEGIES, find_method


def _class(method: str, own: dict[str, Any]) -> type:
    return type("TestMethod", (MethodConformance,), {"method": method, "hyperparameters": own})


for _method in METHODS:
    for _number, _own in enumerate(VARIANTS.get(_method, [{}])):
        globals()[f"Test_{_method}_{_number}"] = _class(_method, _own)


def test_every_method_is_tested() -> None:
    found = {value.method for value in globals().values() if hasattr(value, "method")}
    assert found >= set(STRATEGIES.own)


def test_every_variant_names_a_method() -> None:
    assert {part for name in VARIANTS for part in find_method(name).parts} <= set(STRATEGIES.own)
    with pytest.raises(KeyError):
        STRATEGIES["recorder"]


@pytest.mark.parametrize("method", METHODS)
def test_the_cut_leaves_out_no_check_of_a_method(method: str) -> None:
    for variant in range(len(VARIANTS.get(method, [{}]))):
        rows = method_rows(method, variant)
        everything = {(row.check.name, row.training) for row in rows}
        assert {(row.check.name, row.training) for row in rows if in_the_cut(row)} == everything


def test_naive_gets_only_checks_that_it_could_fail() -> None:
    names = {row.check.name for method in METHODS for row in method_rows(method, 0)}
    assert names == {check.name for check in CHECKS}
    naive = {row.check.name for row in method_rows("naive", 0)}
    assert naive == {
        "declares_itself",
        "it_learns_blurry_tasks",
        "is_repeatable",
        "a_stop_between_tasks_changes_nothing",
        "a_stop_inside_a_task_changes_nothing",
        "an_evaluation_inside_a_task_changes_nothing",
        "the_start_of_a_task_changes_no_answer",
        "it_keeps_what_it_said",
        "the_protocol_accepts_it",
    }


@pytest.mark.parametrize("method", ["packnet", "pnn", "supsup"])
def test_methods_that_never_forget_say_so(method: str) -> None:
    assert "old_logits_never_change" in {row.check.name for row in method_rows(method, 0)}
