"""The answer of a sweep from its rows: chosen on validation, measured on test."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from orchestrator.core.scores import ACCURACY
from orchestrator.execution.session import outcome_of
from orchestrator.results.rows import trial_row
from orchestrator.results.schema import TRIALS_SCHEMA
from orchestrator.search.answers.certainty import Spread
from orchestrator.search.answers.summary import CellSummary, ScenarioSummary, n_met, note_on_others, spread, summarise
from orchestrator.search.suggestion import Outcome
from orchestrator.search.sweep_search import SweepSearch
from orchestrator.spec.loading import parse_spec
from orchestrator.spec.trial_spec import TrialSpec
from orchestrator.streams.facts import Phase
from orchestrator.trial.result import TrialResult
from search_spaces import Constraint
from tests.conftest import without_finals

N = 1000
"""Held-out examples per task, of two; the accuracies below are counts of them."""

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


POOR: tuple[Measured, Measured] = ((0.2, 0.8), (0.2, 0.8))
"""Violates every limit by far, on two seeds."""


class Rows:
    """The rows of a sweep whose trials measure what `add` has told; trials without an entry never end.

    Args:
        fields: fields of the spec, besides those in FIELDS.
    """

    def __init__(self, **fields: Any) -> None:
        self.spec = parse_spec(without_finals(FIELDS | fields))
        self.measured: dict[tuple[str, Phase, int], tuple[Measured, ...]] = {}
        self.rows: dict[str, dict[str, Any]] = {}
        self.outcomes: dict[str, Outcome] = {}

    def add(
        self, method: str, phase: Phase, *seeds: Measured, number: int = 0, scenario: str = "split-digits/task"
    ) -> Rows:
        """Add what a suggestion measures on each seed, in order; the trials of further seeds never end."""
        self.measured[f"{scenario} {method}", phase, number] = seeds
        return self

    def run(self, **fields: Any) -> Rows:
        """Run the sweep; or, given `fields`, another sweep over the rows of earlier ones."""
        self.spec = parse_spec(without_finals(FIELDS | fields)) if fields else self.spec
        search = self.search()
        while search.n_waiting:
            planned = search.hand_out(search.waiting_requests()[0])
            trial = planned.spec
            measured = self.measured.get((trial.cell, trial.phase, planned.suggestion), ())
            place = self.spec.seeds.of(trial.phase).index(trial.seed)
            if place < len(measured):
                ended = result(trial, measured[place])
                self.rows[trial.key] = trial_row(trial, planned.suggestion, ended, {})
                self.outcomes[trial.key] = outcome_of(ended, self.spec, ACCURACY)
                search.record(trial.key, self.outcomes[trial.key])
        return self

    def search(self) -> SweepSearch:
        return SweepSearch(self.spec, {"digits": "f00d"}, self.outcomes)

    def frame(self) -> pd.DataFrame:
        frame: pd.DataFrame = pa.Table.from_pylist(list(self.rows.values()), schema=TRIALS_SCHEMA).to_pandas()
        return frame

    def found(self) -> ScenarioSummary:
        """Return the answer from the present rows."""
        search = self.search()
        (scenario,) = summarise(search, self.frame())
        missing = {c.cell.name for c in search.cells if c.n_unknown}
        assert not missing & {c.cell.name for c in scenario.cells if c.is_complete}, "both must agree"
        assert {c.cell.name for c in scenario.unconfirmed} <= missing, "the next run trains what the answer waits for"
        return scenario

    def summary(self) -> ScenarioSummary:
        return self.run().found()

    def cell(self, method: str) -> CellSummary:
        return next(c for c in self.summary().cells if c.cell.method == method)


def plain(**fields: Any) -> Rows:
    """Return a complete sweep: naive forgets, joint is best, ewc has one suggestion of two that meets the limit."""
    rows = Rows(**fields)
    rows.add("naive", "search", (0.7, 0.3), (0.7, 0.3)).add("naive", "confirm", (0.7, 0.3), (0.7, 0.3))
    rows.add("joint", "search", (0.99, 0), (0.99, 0)).add("joint", "confirm", (0.99, 0), (0.99, 0))
    rows.add("ewc", "search", (0.80, 0.05), (0.82, 0.05), number=0)
    rows.add("ewc", "search", (0.90, 0.20), (0.90, 0.20), number=1)
    return rows.add("ewc", "confirm", (0.78, 0.06), (0.80, 0.02), number=0)


def with_replay(validation: list[Measured], test: list[Measured], **fields: Any) -> Rows:
    rows = plain(**fields).add("replay", "search", *validation).add("replay", "search", *POOR, number=1)
    return rows.add("replay", "confirm", *test)


def best(rows: Rows) -> str | None:
    found = rows.summary().best
    return found.cell.method if found else None


def test_the_best_feasible_suggestion_is_chosen_on_validation() -> None:
    ewc = plain().cell("ewc")
    assert ewc.chosen is not None
    assert ewc.chosen.number == 0, "number 1 is more accurate but violates the limit"
    assert ewc.hyperparameters(ewc.chosen) == ewc.chosen.hyperparameters
    assert ewc.chosen.hyperparameters.keys() == {"penalty_weight"}
    assert (ewc.n_failed, ewc.is_complete, ewc.is_reference) == (0, True, False)


def test_without_limits_the_most_accurate_is_chosen() -> None:
    rows = plain(limits=[])
    assert rows.cell("ewc").chosen.number == 1  # type: ignore[union-attr]
    assert not rows.cell("ewc").is_complete, "its confirm trials are missing"


def test_the_choice_is_measured_on_test() -> None:
    chosen = plain().cell("ewc").chosen
    assert chosen is not None
    accuracy = spread(chosen, "test", "average_accuracy")
    assert accuracy.values == (0.78, 0.80)
    assert accuracy.mean == pytest.approx(0.79)
    assert accuracy.std == pytest.approx(math.sqrt(2) * 0.01), "the sample's deviation, n - 1"
    assert spread(chosen, "validation", "average_accuracy").mean == pytest.approx(0.81)
    assert spread(chosen, "test", "worst_forgetting").values == pytest.approx((0.06, 0.02))


def test_deviation_needs_two_values() -> None:
    assert Spread((0.5,)).mean == 0.5
    assert math.isnan(Spread((0.5,)).std)
    assert math.isnan(Spread(()).mean)


def test_seeds_that_meet_a_limit_are_counted() -> None:
    limit = Constraint.parse("worst_forgetting <= 0.05")
    assert n_met(limit, [0.0, 0.05, 0.06, math.nan]) == 2
    assert n_met(Constraint.parse("backward_transfer >= -0.1"), [-0.2, -0.1, 0.3]) == 2


def test_the_best_method_is_recommended_never_a_bound() -> None:
    rows = with_replay([(0.9, 0.0)] * 2, [(0.85, 0.01)] * 2)
    assert best(rows) == "replay"
    assert rows.summary().vetoed == ()
    assert rows.summary().nearest_miss is None
    assert best(plain()) == "ewc"
    assert plain().cell("joint").is_reference


def test_methods_are_ranked_on_validation_and_not_on_test() -> None:
    """Ranking on the test split would reward luck."""
    assert best(with_replay([(0.79, 0.0)] * 2, [(0.95, 0.0)] * 2)) == "ewc"


def test_a_violated_limit_on_test_is_a_veto() -> None:
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


def test_if_all_are_vetoed_the_nearest_miss_is_on_test() -> None:
    rows = Rows(methods=["naive", "replay"])
    rows.add("naive", "search", (0.5, 0.05), (0.5, 0.05)).add("naive", "confirm", (0.5, 0.30), (0.5, 0.30))
    rows.add("replay", "search", (0.9, 0.05), (0.9, 0.05)).add("replay", "search", *POOR, number=1)
    rows.add("replay", "confirm", (0.9, 0.12), (0.9, 0.12))
    summary = rows.summary()
    assert summary.best is None
    assert [cell.cell.method for cell in summary.vetoed] == ["replay", "naive"]
    assert summary.nearest_miss is not None
    cell, suggestion, phase = summary.nearest_miss
    assert (cell.cell.method, phase) == ("replay", "test")
    assert spread(suggestion, phase, "worst_forgetting").mean == pytest.approx(0.12)


def test_the_nearest_miss_is_else_on_validation() -> None:
    rows = Rows(methods=["naive", "joint", "ewc"])
    rows.add("naive", "search", (0.7, 0.3), (0.7, 0.3)).add("naive", "confirm", (0.7, 0.3), (0.7, 0.3))
    rows.add("joint", "search", (0.9, 0), (0.9, 0)).add("joint", "confirm", (0.9, 0), (0.9, 0))
    rows.add("ewc", "search", (0.8, 0.20), (0.8, 0.10), number=0)
    rows.add("ewc", "search", (0.9, 0.12), (0.9, 0.12), number=1)
    summary = rows.summary()
    assert summary.best is None
    ewc = next(c for c in summary.cells if c.cell.method == "ewc")
    assert ewc.chosen is None
    assert not ewc.is_complete
    assert summary.nearest_miss is not None
    cell, suggestion, phase = summary.nearest_miss
    assert (cell.cell.method, suggestion.number, phase) == ("ewc", 1, "validation")


def test_an_unsearched_method_is_judged_on_validation() -> None:
    """Its test trials run in any case; if only they meet the limit, that is luck."""
    rows = Rows(methods=["naive"])
    rows.add("naive", "search", (0.7, 0.2), (0.7, 0.2)).add("naive", "confirm", (0.7, 0.05), (0.7, 0.05))
    summary = rows.summary()
    assert summary.best is None
    assert summary.nearest_miss is not None
    assert summary.nearest_miss[2] == "validation"


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
    """A NaN among the sort keys would leave the others in an arbitrary order."""
    spaces = {"ewc": {"penalty_weight": 1}, "packnet": {"pruning_rate": 0.5, "post_prune_epochs": 1}}
    rows = Rows(seeds={"search": 0, "confirm": 2}, spaces=spaces, methods=methods, limits=[])
    rows.add("naive", "confirm", (0.7, 0.0), (0.7, 0.0)).add("ewc", "confirm", (0.9, 0.0), "failed")
    rows.add("packnet", "confirm", (0.8, 0.0), (0.8, 0.0))
    assert best(rows) == "packnet"


# Missing rows.


def test_no_rows_at_all() -> None:
    rows = Rows()
    summary = rows.summary()
    assert (summary.best, summary.nearest_miss, summary.vetoed, summary.unconfirmed) == (None, None, (), ())
    assert [(c.chosen, c.is_complete) for c in summary.cells] == [(None, False)] * 4


def test_a_partly_confirmed_cell_is_not_recommended() -> None:
    rows = with_replay([(0.9, 0.0)] * 2, [(0.9, 0.0)])
    assert best(rows) == "ewc"
    assert [c.cell.method for c in rows.summary().unconfirmed] == ["replay"]


def test_an_unconfirmed_cell_is_not_a_miss() -> None:
    rows = Rows(methods=["replay"]).add("replay", "search", (0.9, 0.0), (0.9, 0.0))
    assert [c.cell.method for c in rows.summary().unconfirmed] == ["replay"], "number 1 may be better"
    summary = rows.add("replay", "search", *POOR, number=1).summary()
    assert summary.best is None
    assert summary.nearest_miss is None
    assert [c.cell.method for c in summary.unconfirmed] == ["replay"]


def test_an_error_of_the_machine_is_not_measured() -> None:
    rows = with_replay([(0.9, 0.0)] * 2, [(0.9, 0.0), "error"])
    summary = rows.summary()
    assert best(rows) == "ewc"
    assert summary.vetoed == (), "the trial will run again"
    assert [c.cell.method for c in summary.unconfirmed] == ["replay"]


def test_a_suggestion_that_lacks_a_seed_is_not_chosen() -> None:
    rows = Rows(methods=["replay"]).add("replay", "search", (0.9, 0.0))
    cell = rows.cell("replay")
    assert (cell.chosen, cell.nearest) == (None, None)


def test_a_suggestion_with_a_failed_seed_is_not_chosen() -> None:
    rows = Rows(methods=["replay"]).add("replay", "search", (0.9, 0.0), "failed")
    cell = rows.cell("replay")
    assert (cell.chosen, cell.nearest, cell.n_failed) == (None, None, 1)


def test_other_seeds_or_fixed_values_change_the_answer() -> None:
    def again(**fields: Any) -> ScenarioSummary:
        rows = with_replay([(0.9, 0.0)] * 2, [(0.9, 0.0)] * 2).run()
        rows.spec = parse_spec(without_finals(FIELDS | fields))
        return rows.found()

    fewer = again(seeds={"search": 2, "confirm": 1})
    assert [len(c.chosen.outcomes["confirm"]) for c in fewer.cells if c.chosen] == [1, 1, 1, 1]
    assert again(spaces={"replay": {"replay_ratio": 0.6}}).cells[-1].chosen is None
    more = again(seeds={"search": 2, "confirm": 3})
    assert more.best is None
    assert not any(c.is_complete for c in more.cells)


def test_fixed_values_are_shown_with_searched_ones() -> None:
    replay = with_replay([(0.9, 0.0)] * 2, [(0.9, 0.0)] * 2).cell("replay")
    assert replay.chosen is not None
    assert replay.hyperparameters(replay.chosen) == {**replay.chosen.hyperparameters, "replay_ratio": 0.5}


# Rows of earlier sweeps.


def test_a_lower_budget_chooses_among_its_own_suggestions() -> None:
    """The first sweep stopped before it confirmed number 5; the second never suggests it."""
    rows = Rows(methods=["naive", "replay"], search={"suggestions": 6, "batch": 2})
    rows.add("naive", "search", (0.7, 0.0), (0.7, 0.0)).add("naive", "confirm", (0.7, 0.0), (0.7, 0.0))
    for number, accuracy in enumerate((0.8, 0.9, 0.8, 0.8, 0.8, 0.95)):
        rows.add("replay", "search", (accuracy, 0.0), (accuracy, 0.0), number=number)
    assert rows.cell("replay").chosen.number == 5  # type: ignore[union-attr]
    rows.add("replay", "confirm", (0.9, 0.0), (0.9, 0.0), number=1)
    found = rows.run(methods=["naive", "replay"], search={"suggestions": 4, "batch": 2}).found()
    assert found.best is not None
    assert (found.best.cell.method, found.best.chosen.number) == ("replay", 1)  # type: ignore[union-attr]
    assert found.unconfirmed == ()
    assert rows.search().n_unknown == 0
    assert note_on_others(rows.search(), rows.frame()) == (
        "Not in this answer: 4 completed trials in the tables, from other searches (with another budget, space, seeds, "
        "methods, data or code)."
    )


def test_a_narrower_space_is_not_answered_from_the_wider_one() -> None:
    wide, narrow = ({"replay": {"replay_ratio": 0.5, "buffer_size": sizes}} for sizes in ([1000, 2000], [10, 20]))
    rows = Rows(methods=["replay"], spaces=wide)
    for number in (0, 1):
        rows.add("replay", "search", (0.9, 0.0), (0.9, 0.0), number=number)
        rows.add("replay", "confirm", (0.9, 0.0), (0.9, 0.0), number=number)
    rows.run()
    for number in (0, 1):
        rows.add("replay", "search", (0.6, 0.0), (0.6, 0.0), number=number)
    found = rows.run(methods=["replay"], spaces=narrow).found()
    assert found.best is not None
    assert found.best.hyperparameters(found.best.chosen)["buffer_size"] in (10, 20)  # type: ignore[arg-type]
    assert found.unconfirmed == ()


def test_suggestions_outside_the_space_are_not_awaited() -> None:
    """They violated the impossible limit and would meet the looser one, but are not in the space any more."""
    wide, narrow = ({"replay": {"replay_ratio": 0.5, "buffer_size": sizes}} for sizes in ([1000, 2000], [10, 20]))
    rows = Rows(methods=["replay"], spaces=wide, limits=["worst_forgetting <= -0.5"])
    for number in (0, 1):
        rows.add("replay", "search", (0.9, 0.0), (0.9, 0.0), number=number)
    assert rows.summary().nearest_miss is not None
    for number in (0, 1):
        rows.add("replay", "search", *POOR, number=number)
    found = rows.run(methods=["replay"], spaces=narrow).found()
    assert (found.best, found.unconfirmed) == (None, ())
    assert found.nearest_miss is not None
    assert found.nearest_miss[1].hyperparameters["buffer_size"] in (10, 20)


def test_failures_of_other_searches_are_not_counted() -> None:
    rows = Rows(methods=["replay"], search={"suggestions": 4, "batch": 2})
    for number in range(4):
        rows.add("replay", "search", "failed", "failed", number=number)
    rows.run()
    found = rows.run(methods=["replay"], search={"suggestions": 2, "batch": 2}).found()
    assert found.cells[0].n_failed == 4
    assert note_on_others(rows.search(), rows.frame()) == "", "the note counts completed trials only"


def test_the_note_counts_rows_of_other_searches() -> None:
    rows = with_replay([(0.9, 0.0)] * 2, [(0.9, 0.0)] * 2).run()
    assert note_on_others(rows.search(), rows.frame()) == ""
    rows.spec = parse_spec(without_finals(FIELDS | {"methods": ["ewc", "replay"]}))
    assert note_on_others(rows.search(), rows.frame()) == (
        "Not in this answer: 8 completed trials in the tables, from other searches (with another budget, space, seeds, "
        "methods, data or code)."
    )


def test_the_note_allows_for_lost_rows() -> None:
    rows = (
        Rows(methods=["replay"])
        .add("replay", "search", (0.9, 0.0), (0.9, 0.0))
        .add("replay", "search", *POOR, number=1)
    )
    rows.add("replay", "confirm", (0.9, 0.0), (0.9, 0.0)).run()
    del rows.outcomes[next(iter(rows.outcomes))], rows.rows[next(iter(rows.rows))]
    note = note_on_others(rows.search(), rows.frame())
    assert note.startswith("Not in this answer: 2 completed trials")
    assert note.endswith("or follow from missing trials.")


def test_each_scenario_has_its_answer() -> None:
    scenarios = ["split-digits/domain", "split-digits/task"]
    rows = Rows(scenarios=scenarios, methods=["naive"])
    rows.add("naive", "search", (0.9, 0.0), (0.9, 0.0), scenario=scenarios[1])
    rows.add("naive", "confirm", (0.9, 0.0), (0.9, 0.0), scenario=scenarios[1])
    found = summarise(rows.run().search(), rows.frame())
    assert [(s.scenario, s.best is not None) for s in found] == [(scenarios[0], False), (scenarios[1], True)]
