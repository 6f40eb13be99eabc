"""Two runs side by side: paired by seed or Welch's test, and what else differs."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from scipy import stats

from orchestrator.report.across_runs.comparison import (
    Change,
    ComparedCell,
    RunComparison,
    compare_runs,
    difference,
    spec_changes,
    welch,
)
from orchestrator.report.across_runs.comparison_view import render_comparison
from orchestrator.report.console import PlainConsole
from orchestrator.search.answers.full_answer import Measured, Number
from tests.report.across_runs.runs import written
from tests.search.test_answer import Rows, plain


def measured(**by_seed: dict[int, float]) -> Measured:
    numbers = {name: Number(0, 0, 0, 0, [*values.values()]) for name, values in by_seed.items()}
    return Measured("test", 3, numbers, [], [*next(iter(by_seed.values()))])


def cell(found: RunComparison, method: str) -> ComparedCell:
    return next(one for one in found.cells if one.method == method)


def other(**fields: object) -> Rows:
    """Return the sweep of `plain` in which ewc is better by 0.06 and 0.10 on test, and replay is left out."""
    rows = plain(methods=["naive", "joint", "ewc"], **fields)
    return rows.add("ewc", "confirm", (0.84, 0.06), (0.90, 0.02), number=0)


def test_paired_by_the_seeds_that_both_have() -> None:
    """Differences 0.04, 0.06, 0.02: mean 0.04, s = 0.02, t = 2 √3 = 3.4641, p = 1 - t / √(2 + t²) = 0.0742."""
    first = measured(a={1: 0.5, 2: 0.6, 3: 0.7, 9: 0.1})
    second = measured(a={3: 0.72, 1: 0.54, 2: 0.66, 8: 0.9})
    found = difference("a", first, second)
    assert (found.test, found.n_seeds) == ("paired", (3, 3))
    assert found.difference == pytest.approx(0.04)
    assert found.p_value == pytest.approx(1 - math.sqrt(12 / 14))
    half = 4.302653 * 0.02 / math.sqrt(3)
    assert found.interval == pytest.approx((0.04 - half, 0.04 + half), abs=1e-6)


def test_welch_without_shared_seeds() -> None:
    first, second = {1: 0.5, 2: 0.6, 3: 0.55}, {4: 0.7, 5: 0.9}
    found = difference("a", measured(a=first), measured(a=second))
    expected = stats.ttest_ind([*second.values()], [*first.values()], equal_var=False)
    assert (found.test, found.n_seeds) == ("Welch", (3, 2))
    assert found.difference == pytest.approx(0.25)
    assert found.p_value == pytest.approx(expected.pvalue)
    assert found.interval == pytest.approx(tuple(expected.confidence_interval(0.95)))
    assert welch([1, 1], [2, 2]) == ((1, 1), 0.0)
    assert welch([1, 1], [1, 1]) == ((0, 0), 1.0)


def test_too_few_seeds_for_a_test() -> None:
    found = difference("a", measured(a={1: 0.5}), measured(a={1: 0.7}))
    assert (found.test, found.n_seeds) == ("none", (1, 1))
    assert found.difference == pytest.approx(0.2)
    assert math.isnan(found.p_value)
    missing = difference("a", None, measured(a={1: 0.7}))
    assert (missing.test, missing.n_seeds, missing.second) == ("none", (0, 1), 0.7)
    assert math.isnan(missing.first)


def test_what_differs_in_a_spec() -> None:
    old = {"limits": ["a <= 1"], "model": {"name": "mlp", "hidden": [1]}, "streams": {"x": {"n_tasks": 2}}, "same": 1}
    new = {"limits": [], "model": {"name": "mlp", "hidden": [2]}, "streams": {}, "same": 1}
    assert [*spec_changes(old, new)] == [
        Change("limits", "['a <= 1']", "[]"),
        Change("model.hidden", "[1]", "[2]"),
        Change("streams.x", "{'n_tasks': 2}", "left out"),
    ]


def test_two_runs(tmp_path: Path) -> None:
    """ewc: paired differences 0.06 and 0.10; p-values are corrected over the cells naive, joint and ewc."""
    first = written(tmp_path / "a", plain())
    second = written(tmp_path / "b", other(training={"epochs": 7}), "beef", torch_version="3.0")
    found = compare_runs(first, second)
    ewc = cell(found, "ewc")
    average = ewc.differences[0]
    assert (average.metric, average.test, average.n_seeds) == ("average", "paired", (2, 2))
    assert (average.first, average.second, average.difference) == pytest.approx((0.79, 0.87, 0.08))
    p = 2 * math.atan(0.02 * math.sqrt(2) / math.sqrt(2) / 0.08) / math.pi  # t with 1 degree of freedom is Cauchy
    assert average.p_value == pytest.approx(p)
    assert average.p_holm == pytest.approx(min(3 * p, 1))
    assert [one.metric for one in ewc.differences] == ["average", "worst_forgetting"]
    assert ewc.notes == ["the data differ"]
    assert Change("training.epochs", "5", "7") in found.spec
    assert found.data == [Change("split-digits", "f00d", "beef")]
    assert found.software == [Change("torch_version", "2.0", "3.0")]
    assert (found.only_first, found.only_second) == (["split-digits/task replay"], [])
    assert found.n_missing[0] > 0
    assert "NaN" not in json.dumps(found.to_plain(), allow_nan=False)


def test_other_objectives_are_said_and_both_shown(tmp_path: Path) -> None:
    first = written(tmp_path / "a", plain(methods=["naive", "joint", "ewc"]))
    second = written(tmp_path / "b", other(objective="learning_average", limits=["kept_bytes <= 1000"]))
    found = compare_runs(first, second)
    assert found.objectives == ("average", "learning_average")
    assert [one.metric for one in cell(found, "naive").differences] == [
        "average", "worst_forgetting", "learning_average", "kept_bytes",
    ]  # fmt: skip
    text = shown(found)
    assert "The objectives differ: average in A, learning_average in B. Both are shown." in text
    assert "data: the trials of the streams that both have were trained on the same data" in text


def test_means_over_more_seeds_than_are_shared(tmp_path: Path) -> None:
    """ewc's third seed is in the first run alone."""
    three = {"methods": ["naive", "ewc"], "seeds": {"search": 2, "confirm": 3}}
    rows = plain(**three).add("ewc", "confirm", (0.78, 0.06), (0.80, 0.02), (0.94, 0.02))
    found = compare_runs(written(tmp_path / "a", rows), written(tmp_path / "b", other()))
    average = cell(found, "ewc").differences[0]
    assert (average.first, average.difference, average.n_seeds) == (pytest.approx(0.84), pytest.approx(0.08), (2, 2))
    assert "A and B are means over all seeds of each run" in shown(found)


def test_a_run_beside_itself_and_an_empty_one(tmp_path: Path) -> None:
    first = written(tmp_path / "a", plain(methods=["naive", "ewc"]))
    same = compare_runs(first, first)
    assert (same.spec, same.data, same.software) == ([], [], [])
    assert {one.difference for one in cell(same, "ewc").differences} == {0}
    empty = written(tmp_path / "b", Rows(methods=["naive", "ewc"]), keep=False)
    text = shown(compare_runs(first, empty))
    assert "of B are missing at most" in text
    assert "none: not measured on test" in text


def test_names_of_a_run_cannot_draw_on_the_terminal(tmp_path: Path) -> None:
    first = written(tmp_path / "a\x1b[2J", plain(methods=["naive"]))
    assert "\x1b" not in shown(compare_runs(first, first))


def shown(found: RunComparison) -> str:
    console = PlainConsole(width=200, no_color=True)
    with console.capture() as capture:
        console.print(render_comparison(found))
    return capture.get()
