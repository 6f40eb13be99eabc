"""The answer of a sweep from its rows: chosen on validation, measured on test."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from orchestrator.schema import TRIALS_SCHEMA
from orchestrator.spec import parse_spec
from orchestrator.streams import Phase
from orchestrator.summary import CellSummary, ScenarioSummary, Spread, n_kept, spread, summarise
from orchestrator.tables import trial_row
from orchestrator.trial import TrialResult
from orchestrator.trialspec import TrialSpec
from search_spaces import Constraint

N = 1000
"""Held-out examples of each of two tasks: accuracies below are counts of them."""

FIELDS: dict[str, Any] = {
    "methods": ["naive", "joint", "ewc", "replay"],
    "limits": ["worst_forgetting <= 0.1"],
    "seeds": {"search": 2, "confirm": 2},
    "search": {"suggestions": 2, "batch": 2},
    "spaces": {"replay": {"replay_ratio": 0.5}},
}

Measured = tuple[float, float] | str
"""(final average accuracy, drop of the first task), or the status of a trial that did not complete."""


def result(spec: TrialSpec, measured: Measured, kept_bytes: float = 100.0) -> TrialResult:
    costs = {"seconds": 2.0, "kept_bytes": kept_bytes, "n_parameters": 7.0}
    if isinstance(measured, str):
        return TrialResult(spec.key, measured, f"{measured}: [why]", costs=costs)  # type: ignore[arg-type]
    final, drop = (round(value * N) for value in measured)
    rows: list[list[int | None]] = [[None, None], [N, None], [N - drop, 2 * final - (N - drop)]]
    return TrialResult(spec.key, "completed", "", rows, [N, N], costs)


class Rows:
    """Rows of a trials table, added a suggestion at a time.

    Args:
        fields: of the sweep, beside those of FIELDS.
    """

    def __init__(self, **fields: Any) -> None:
        self.spec = parse_spec(FIELDS | fields)
        self.rows: list[dict[str, Any]] = []

    def add(
        self,
        method: str,
        phase: Phase,
        *seeds: Measured,
        number: int = 0,
        values: Mapping[str, Any] | None = None,
        scenario: str = "split-digits/task",
    ) -> Rows:
        """Add a row a seed, in the order of the seeds; fewer than there are leaves the others out."""
        cell = next(c for c in self.spec.cells if (c.scenario, c.method) == (scenario, method))
        for seed, measured in zip(self.spec.seeds.of(phase), seeds, strict=False):
            trial = self.spec.trial(cell, values or {}, seed, phase, "f00d")
            self.rows.append(trial_row(trial, number, result(trial, measured), {}))
        return self

    def frame(self) -> pd.DataFrame:
        frame: pd.DataFrame = pa.Table.from_pylist(self.rows, schema=TRIALS_SCHEMA).to_pandas()
        return frame

    def summary(self) -> ScenarioSummary:
        (scenario,) = summarise(self.spec, self.frame())
        return scenario

    def cell(self, method: str) -> CellSummary:
        return next(c for c in self.summary().cells if c.cell.method == method)


def plain(**fields: Any) -> Rows:
    """Return a complete sweep: naive forgets, joint is best, ewc has one suggestion of two that keeps the limit."""
    rows = Rows(**fields)
    rows.add("naive", "search", (0.7, 0.3), (0.7, 0.3)).add("naive", "confirm", (0.7, 0.3), (0.7, 0.3))
    rows.add("joint", "search", (0.99, 0), (0.99, 0)).add("joint", "confirm", (0.99, 0), (0.99, 0))
    rows.add("ewc", "search", (0.80, 0.05), (0.82, 0.05), number=0, values={"penalty_weight": 10.0})
    rows.add("ewc", "search", (0.90, 0.20), (0.90, 0.20), number=1, values={"penalty_weight": 1.0})
    rows.add("ewc", "confirm", (0.78, 0.06), (0.80, 0.02), number=0, values={"penalty_weight": 10.0})
    return rows


def with_replay(validation: list[Measured], test: list[Measured], **fields: Any) -> Rows:
    rows = plain(**fields)
    return rows.add("replay", "search", *validation, values={"buffer_size": 60}).add(
        "replay", "confirm", *test, values={"buffer_size": 60}
    )


def best(rows: Rows) -> str | None:
    found = rows.summary().best
    return found.cell.method if found else None


def test_the_best_feasible_suggestion_is_chosen_on_validation() -> None:
    ewc = plain().cell("ewc")
    assert ewc.chosen is not None
    assert ewc.chosen.number == 0, "number 1 is more accurate and breaks the limit"
    assert ewc.hyperparameters(ewc.chosen) == {"penalty_weight": 10.0}
    assert (ewc.n_suggestions, ewc.n_failed, ewc.is_complete, ewc.is_reference) == (2, 0, True, False)


def test_without_limits_the_most_accurate_is_chosen() -> None:
    rows = plain(limits=[])
    assert rows.cell("ewc").chosen.number == 1  # type: ignore[union-attr]
    assert not rows.cell("ewc").is_complete, "its confirm trials are not there"


def test_the_choice_is_measured_on_test() -> None:
    chosen = plain().cell("ewc").chosen
    assert chosen is not None
    accuracy = spread(chosen, "confirm", "average_accuracy")
    assert accuracy.values == (0.78, 0.80)
    assert accuracy.mean == pytest.approx(0.79)
    assert accuracy.std == pytest.approx(math.sqrt(2) * 0.01), "the sample's deviation, n - 1"
    assert spread(chosen, "search", "average_accuracy").mean == pytest.approx(0.81)
    assert spread(chosen, "confirm", "worst_forgetting").values == pytest.approx((0.06, 0.02))


def test_deviation_needs_two_values() -> None:
    assert Spread((0.5,)).mean == 0.5
    assert math.isnan(Spread((0.5,)).std)
    assert math.isnan(Spread(()).mean)


def test_seeds_that_keep_a_limit_are_counted() -> None:
    limit = Constraint.parse("worst_forgetting <= 0.05")
    assert n_kept(limit, [0.0, 0.05, 0.06, math.nan]) == 2
    assert n_kept(Constraint.parse("backward_transfer >= -0.1"), [-0.2, -0.1, 0.3]) == 2


def test_the_best_method_is_recommended_and_never_a_bound() -> None:
    rows = with_replay([(0.9, 0.0)] * 2, [(0.85, 0.01)] * 2)
    assert best(rows) == "replay"
    assert rows.summary().vetoed == ()
    assert rows.summary().nearest_miss is None
    assert best(plain()) == "ewc"
    assert plain().cell("joint").is_reference


def test_methods_are_ranked_on_validation_and_not_on_test() -> None:
    """Ranking on the test split would choose by luck on it."""
    assert best(with_replay([(0.79, 0.0)] * 2, [(0.95, 0.0)] * 2)) == "ewc"


def test_what_breaks_a_limit_on_test_is_vetoed() -> None:
    summary = with_replay([(0.9, 0.05)] * 2, [(0.9, 0.15)] * 2).summary()
    assert [cell.cell.method for cell in summary.vetoed] == ["replay"]
    assert summary.best is not None
    assert summary.best.cell.method == "ewc"


def test_what_is_worse_on_validation_is_not_vetoed() -> None:
    summary = with_replay([(0.7, 0.05)] * 2, [(0.7, 0.15)] * 2).summary()
    assert summary.vetoed == ()


def test_a_failed_test_trial_is_no_recommendation() -> None:
    summary = with_replay([(0.9, 0.0)] * 2, [(0.9, 0.0), "failed"]).summary()
    assert summary.best is not None
    assert summary.best.cell.method == "ewc"
    assert [cell.cell.method for cell in summary.vetoed] == ["replay"]
    assert next(c for c in summary.cells if c.cell.method == "replay").n_failed == 1


def test_where_every_choice_breaks_a_limit_on_test_the_nearest_is_shown_there() -> None:
    rows = Rows(methods=["naive", "replay"])
    rows.add("naive", "search", (0.5, 0.05), (0.5, 0.05)).add("naive", "confirm", (0.5, 0.30), (0.5, 0.30))
    rows.add("replay", "search", (0.9, 0.05), (0.9, 0.05), values={"buffer_size": 60})
    rows.add("replay", "confirm", (0.9, 0.12), (0.9, 0.12), values={"buffer_size": 60})
    summary = rows.summary()
    assert summary.best is None
    assert [cell.cell.method for cell in summary.vetoed] == ["replay", "naive"]
    assert summary.nearest_miss is not None
    cell, suggestion, phase = summary.nearest_miss
    assert (cell.cell.method, phase) == ("replay", "confirm")
    assert spread(suggestion, phase, "worst_forgetting").mean == pytest.approx(0.12)


def test_where_nothing_is_feasible_the_nearest_miss_is_on_validation() -> None:
    rows = Rows(methods=["naive", "joint", "ewc"])
    rows.add("naive", "search", (0.7, 0.3), (0.7, 0.3)).add("naive", "confirm", (0.7, 0.3), (0.7, 0.3))
    rows.add("joint", "search", (0.9, 0), (0.9, 0)).add("joint", "confirm", (0.9, 0), (0.9, 0))
    rows.add("ewc", "search", (0.8, 0.20), (0.8, 0.10), number=0, values={"penalty_weight": 10.0})
    rows.add("ewc", "search", (0.9, 0.12), (0.9, 0.12), number=1, values={"penalty_weight": 1.0})
    summary = rows.summary()
    assert summary.best is None
    ewc = next(c for c in summary.cells if c.cell.method == "ewc")
    assert ewc.chosen is None
    assert not ewc.is_complete
    assert summary.nearest_miss is not None
    cell, suggestion, phase = summary.nearest_miss
    assert (cell.cell.method, suggestion.number, phase) == ("ewc", 1, "search")


def test_a_method_without_search_that_broke_a_limit_on_validation_is_judged_there() -> None:
    """Its test trials ran all the same; that they kept the limit is luck after the fact."""
    rows = Rows(methods=["naive"])
    rows.add("naive", "search", (0.7, 0.2), (0.7, 0.2)).add("naive", "confirm", (0.7, 0.05), (0.7, 0.05))
    summary = rows.summary()
    assert summary.best is None
    assert summary.nearest_miss is not None
    assert summary.nearest_miss[2] == "search"


def test_every_seed_is_stricter_than_the_mean() -> None:
    search: list[Measured] = [(0.9, 0.02), (0.9, 0.15)]
    confirm: list[Measured] = [(0.9, 0.0), (0.9, 0.0)]
    assert best(with_replay(search, confirm)) == "replay"
    strict = with_replay(search, confirm, search={"suggestions": 2, "limits_hold_for": "every_seed"})
    assert best(strict) == "ewc"
    assert strict.cell("replay").chosen is None


def test_a_lower_objective_is_better_for_costs() -> None:
    rows = with_replay([(0.7, 0.0)] * 2, [(0.7, 0.0)] * 2, objective="forgetting")
    assert best(rows) == "replay", "it forgets less, however inaccurate it is"


def test_without_a_search_phase_methods_are_ranked_on_test() -> None:
    fields = {"seeds": {"search": 0, "confirm": 2}, "spaces": {"ewc": {"penalty_weight": 1}, "replay": {}}}
    rows = Rows(**fields, methods=["naive", "ewc"])
    rows.add("naive", "confirm", (0.84, 0.3), (0.84, 0.3)).add("ewc", "confirm", (0.8, 0.0), (0.8, 0.0))
    summary = rows.summary()
    assert summary.best is not None
    assert summary.best.cell.method == "ewc"
    assert [cell.cell.method for cell in summary.vetoed] == ["naive"]


@pytest.mark.parametrize(
    "methods", [["naive", "ewc", "packnet"], ["packnet", "ewc", "naive"], ["ewc", "naive", "packnet"]]
)
def test_a_failure_does_not_disturb_the_ranking(methods: list[str]) -> None:
    """Sorting with NaN among the keys would leave the others in any order."""
    spaces = {"ewc": {"penalty_weight": 1}, "packnet": {"pruning_rate": 0.5, "post_prune_epochs": 1}}
    rows = Rows(seeds={"search": 0, "confirm": 2}, spaces=spaces, methods=methods, limits=[])
    rows.add("naive", "confirm", (0.7, 0.0), (0.7, 0.0)).add("ewc", "confirm", (0.9, 0.0), "failed")
    rows.add("packnet", "confirm", (0.8, 0.0), (0.8, 0.0))
    assert best(rows) == "packnet"


# What is not there yet.


def test_no_rows_at_all() -> None:
    rows = Rows()
    summary = rows.summary()
    assert (summary.best, summary.nearest_miss, summary.vetoed, summary.unconfirmed) == (None, None, (), ())
    assert [(c.chosen, c.n_suggestions, c.is_complete) for c in summary.cells] == [(None, 0, False)] * 4


def test_a_cell_that_is_not_confirmed_on_every_seed_is_not_recommended() -> None:
    rows = with_replay([(0.9, 0.0)] * 2, [(0.9, 0.0)])
    assert best(rows) == "ewc"
    assert [c.cell.method for c in rows.summary().unconfirmed] == ["replay"]


def test_what_is_still_to_be_confirmed_misses_nothing() -> None:
    rows = Rows(methods=["replay"]).add("replay", "search", (0.9, 0.0), (0.9, 0.0), values={"buffer_size": 60})
    summary = rows.summary()
    assert summary.best is None
    assert summary.nearest_miss is None
    assert [c.cell.method for c in summary.unconfirmed] == ["replay"]


def test_an_error_of_the_machine_is_not_measured() -> None:
    rows = with_replay([(0.9, 0.0)] * 2, [(0.9, 0.0), "error"])
    summary = rows.summary()
    assert best(rows) == "ewc"
    assert summary.vetoed == (), "it is run again"
    assert [c.cell.method for c in summary.unconfirmed] == ["replay"]


def test_a_suggestion_that_lacks_a_seed_is_not_chosen() -> None:
    rows = Rows(methods=["replay"]).add("replay", "search", (0.9, 0.0), values={"buffer_size": 60})
    cell = rows.cell("replay")
    assert (cell.chosen, cell.n_suggestions) == (None, 0)


def test_a_suggestion_with_a_failed_seed_is_not_chosen() -> None:
    rows = Rows(methods=["replay"]).add("replay", "search", (0.9, 0.0), "failed", values={"buffer_size": 60})
    cell = rows.cell("replay")
    assert (cell.chosen, cell.nearest, cell.n_suggestions, cell.n_failed) == (None, None, 1, 1)


def test_rows_of_other_seeds_and_of_other_fixed_values_are_left_aside() -> None:
    rows = with_replay([(0.9, 0.0)] * 2, [(0.9, 0.0)] * 2)
    frame = rows.frame()
    fewer = parse_spec(FIELDS | {"seeds": {"search": 2, "confirm": 1}})
    (summary,) = summarise(fewer, frame)
    assert [len(c.chosen.outcomes["confirm"]) for c in summary.cells if c.chosen] == [1, 1, 1, 1]
    other = parse_spec(FIELDS | {"spaces": {"replay": {"replay_ratio": 0.6}}})
    (summary,) = summarise(other, frame)
    assert summary.cells[-1].chosen is None
    more = parse_spec(FIELDS | {"seeds": {"search": 2, "confirm": 3}})
    (summary,) = summarise(more, frame)
    assert summary.best is None
    assert not any(c.is_complete for c in summary.cells)


def test_each_scenario_has_its_answer() -> None:
    scenarios = ["split-digits/domain", "split-digits/task"]
    rows = Rows(scenarios=scenarios, methods=["naive"])
    rows.add("naive", "search", (0.9, 0.0), (0.9, 0.0), scenario=scenarios[1])
    rows.add("naive", "confirm", (0.9, 0.0), (0.9, 0.0), scenario=scenarios[1])
    found = summarise(rows.spec, rows.frame())
    assert [(s.scenario, s.best is not None) for s in found] == [(scenarios[0], False), (scenarios[1], True)]
