"""The answer as the terminal shows it: a table and sentences."""

from __future__ import annotations

import math
from dataclasses import replace
from io import StringIO
from typing import Any

import pytest

from orchestrator.report.answer_view import answer_lines, render_answer
from orchestrator.report.console import PlainConsole
from orchestrator.report.methods_table import columns, with_spread
from orchestrator.search.answers.summary import CellSummary, ScenarioSummary, summarise
from orchestrator.search.suggestion import Outcome, Suggestion
from orchestrator.spec.loading import parse_spec
from orchestrator.spec.sweep_spec import SweepSpec
from tests.search.test_answer import with_replay

Values = dict[str, float]
GOOD: Values = {"average": 0.9, "worst_forgetting": 0.02, "kept_bytes": 2.0e6, "seconds": 3.0}


def table_of(spec: SweepSpec, *scenarios: ScenarioSummary) -> str:
    console = PlainConsole(file=StringIO(), width=220)
    console.print(render_answer(spec, list(scenarios)))
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def spec_of(**fields: Any) -> SweepSpec:
    return parse_spec(
        {
            "methods": ["ewc", "replay", "joint"],
            "limits": ["worst_forgetting <= 0.05", "kept_bytes <= 4e6"],
            "seeds": {"search": 2, "confirm": 2},
        }
        | fields
    )


def outcomes(*seeds: Values | str, first: int = 0) -> dict[int, Outcome]:
    return {
        first + i: Outcome(s, dict.fromkeys(GOOD, math.nan)) if isinstance(s, str) else Outcome("completed", s)
        for i, s in enumerate(seeds)
    }


def cell_of(
    spec: SweepSpec, method: str, search: list[Values | str], confirm: list[Values | str], **hyperparameters: Any
) -> CellSummary:
    cell = next(c for c in spec.cells if c.method == method)
    suggestion = Suggestion(3, hyperparameters)
    suggestion.outcomes["search"] = outcomes(*search)
    suggestion.outcomes["confirm"] = outcomes(*confirm, first=1000)
    is_complete = len(confirm) == len(spec.seeds.of("confirm"))
    return CellSummary(cell, suggestion, None, 0, is_complete)


def lines(spec: SweepSpec, scenario: ScenarioSummary) -> list[str]:
    return list(answer_lines(spec, scenario))


def test_mean_and_deviation() -> None:
    suggestion = Suggestion(0, {})
    suggestion.outcomes["confirm"] = outcomes({"forgetting": 0.1}, {"forgetting": 0.3})
    assert with_spread("forgetting", suggestion, "test") == "0.200 ± 0.141"
    suggestion.outcomes["confirm"] = outcomes({"forgetting": 0.1})
    assert with_spread("forgetting", suggestion, "test") == "0.100"
    suggestion.outcomes["confirm"] = outcomes({"forgetting": 0.1}, {"forgetting": 0.1})
    assert with_spread("forgetting", suggestion, "test") == "0.100"
    suggestion.outcomes["confirm"] = outcomes({"forgetting": 0.1}, "failed")
    assert with_spread("forgetting", suggestion, "test") == "–"


def test_columns_are_the_objective_and_the_limits() -> None:
    spec = spec_of(limits=["forgetting <= 0.1", "average_accuracy >= 0.5"])
    assert columns(spec) == ["average", "worst_forgetting", "forgetting", "average_accuracy", "kept_bytes", "seconds"]


# The answer in words.


def test_the_best_is_named_with_its_margins_and_seeds() -> None:
    spec = spec_of()
    worse = GOOD | {"worst_forgetting": 0.06, "average": 0.8}
    best = cell_of(spec, "ewc", [GOOD] * 2, [GOOD, worse], penalty_weight=12.345678)
    scenario = ScenarioSummary("split-digits/task", (best,), best, ())
    assert lines(spec, scenario) == [
        "Recommended: ewc with penalty_weight 12.35: average accuracy 0.850 ± 0.071 on test.",
        "  on validation, where it was chosen: 0.900",
        "  worst_forgetting <= 0.05: 0.040 ± 0.028, met with 0.010 to spare; met on 1 of 2 seeds",
        "  kept_bytes <= 4000000: 2 MB, met with 2 MB to spare; met on 2 of 2 seeds",
    ]


def test_a_veto_names_the_limit() -> None:
    spec = spec_of()
    vetoed = cell_of(spec, "replay", [GOOD] * 2, [GOOD | {"worst_forgetting": 0.2}] * 2)
    best = cell_of(spec, "ewc", [GOOD] * 2, [GOOD] * 2)
    scenario = ScenarioSummary("split-digits/task", (best, vetoed), best, (vetoed,))
    assert lines(spec, scenario)[0] == "replay did better on validation, but violates worst_forgetting <= 0.05 on test."


def test_a_veto_of_one_seed_names_the_limit_too() -> None:
    spec = spec_of(search={"limits_hold_for": "every_seed"})
    vetoed = cell_of(spec, "replay", [GOOD] * 2, [GOOD, GOOD | {"worst_forgetting": 0.06}])
    scenario = ScenarioSummary("split-digits/task", (vetoed,), None, (vetoed,), (vetoed, vetoed.chosen, "test"))  # type: ignore[arg-type]
    assert lines(spec, scenario)[0] == (
        "replay did better on validation, but violates worst_forgetting <= 0.05 on at least one test seed."
    )


def test_one_violating_seed_is_not_called_met() -> None:
    spec = spec_of(search={"limits_hold_for": "every_seed"}, limits=["worst_forgetting <= 0.05"])
    cell = cell_of(spec, "replay", [GOOD] * 2, [GOOD, GOOD | {"worst_forgetting": 0.06}])
    scenario = ScenarioSummary("split-digits/task", (cell,), None, (), (cell, cell.chosen, "test"))  # type: ignore[arg-type]
    assert lines(spec, scenario)[1:] == [
        "  worst_forgetting <= 0.05: 0.040 ± 0.028, violated, as every seed must meet it; met on 1 of 2 seeds"
    ]


def test_a_veto_of_failed_trials_blames_no_limit() -> None:
    spec = spec_of(limits=[])
    vetoed = cell_of(spec, "replay", [GOOD] * 2, [GOOD, "failed"])
    best = cell_of(spec, "ewc", [GOOD] * 2, [GOOD] * 2)
    scenario = ScenarioSummary("split-digits/task", (best, vetoed), best, (vetoed,))
    assert lines(spec, scenario)[0] == "replay did better on validation, but 1 of its 2 trials on test failed."


def test_without_search_validation_is_not_mentioned() -> None:
    spaces = {"ewc": {"penalty_weight": 1}, "replay": {"buffer_size": 5, "replay_ratio": 0.5}}
    spec = spec_of(seeds={"search": 0, "confirm": 2}, spaces=spaces)
    vetoed = cell_of(spec, "replay", [], [GOOD | {"kept_bytes": 9e6}] * 2)
    best = cell_of(spec, "ewc", [], [GOOD] * 2)
    scenario = ScenarioSummary("split-digits/task", (best, vetoed), best, (vetoed,))
    assert lines(spec, scenario)[0] == "replay violates kept_bytes <= 4000000 on test."


def test_the_nearest_miss_says_by_how_much() -> None:
    spec = spec_of()
    cell = cell_of(spec, "ewc", [GOOD | {"worst_forgetting": 0.08}] * 2, [], penalty_weight=2.0)
    nearest = CellSummary(cell.cell, None, cell.chosen, 0, False)
    scenario = ScenarioSummary("split-digits/task", (nearest,), None, (), (nearest, cell.chosen, "validation"))  # type: ignore[arg-type]
    assert lines(spec, scenario) == [
        "No method meets the limits. The nearest miss is ewc with penalty_weight 2, on validation:",
        "  worst_forgetting <= 0.05: 0.080, violated by 0.030; met on 0 of 2 seeds",
        "  kept_bytes <= 4000000: 2 MB, met with 2 MB to spare; met on 2 of 2 seeds",
    ]


def test_an_unconfirmed_method_is_not_a_violation() -> None:
    spec = spec_of()
    waiting = cell_of(spec, "replay", [GOOD] * 2, [GOOD])
    scenario = ScenarioSummary("split-digits/task", (waiting,), None, ())
    assert lines(spec, scenario) == [
        "No answer yet. Still to be confirmed on test: replay. Run the same command again."
    ]
    best = cell_of(spec, "ewc", [GOOD] * 2, [GOOD] * 2)
    scenario = ScenarioSummary("split-digits/task", (best, waiting), best, ())
    assert lines(spec, scenario)[0].startswith("Recommended: ewc")
    assert lines(spec, scenario)[-1].startswith("Not confirmed on test yet, and perhaps better: replay.")


def test_no_results_at_all() -> None:
    spec = spec_of()
    empty = CellSummary(spec.cells[0], None, None, 0, False, is_finished=False)
    assert lines(spec, ScenarioSummary("split-digits/task", (empty,), None, ())) == [
        "No answer yet: no method has been measured on all of its seeds. Run the same command again."
    ]
    failed = CellSummary(spec.cells[0], None, None, 4, False, is_finished=False)
    (line,) = lines(spec, ScenarioSummary("split-digits/task", (failed,), None, ()))
    assert "4 trials failed (see show RUN --trials)" in line


def test_nothing_is_to_be_run_again_if_nothing_is_missing() -> None:
    spec = spec_of()
    ewc, joint = (
        CellSummary(next(c for c in spec.cells if c.method == name), None, None, n, False, is_finished=True)
        for name, n in (("ewc", 4), ("joint", 0))
    )
    assert lines(spec, ScenarioSummary("split-digits/task", (ewc, joint), None, ())) == [
        "No answer: every trial has ended, and no method completed on all of its seeds. 4 trials failed (see show RUN "
        "--trials). Check the data and the training settings; the same command would train nothing."
    ]
    assert lines(spec, ScenarioSummary("split-digits/task", (joint,), None, ())) == [
        "No answer: joint is an upper bound, never recommended. Add other methods."
    ]
    waiting = replace(ewc, is_finished=False)
    (line,) = lines(spec, ScenarioSummary("split-digits/task", (waiting, joint), None, ()))
    assert line.endswith("4 trials failed (see show RUN --trials). Run the same command again.")


def test_a_best_method_at_chance_is_not_recommended() -> None:
    spec = spec_of(methods=["ewc"])
    good = GOOD | {"average": 0.801}
    for level, is_at_chance in (({"constant": 0.8}, True), ({"untrained": 0.8}, True), ({"constant": 0.6}, False)):
        cell = replace(cell_of(spec, "ewc", [good, good], [good, good]), **level)
        assert cell.is_at_chance == is_at_chance
    cell = replace(cell_of(spec, "ewc", [good, good], [good, good]), constant=0.8)
    said = lines(spec, ScenarioSummary("split-digits/task", (cell,), None, (), None, cell))
    assert said[0].startswith(
        "No recommendation: ewc is no better in accuracy than giving always the same answer, which scores 0.800."
    )
    assert "score" in said[1], "most examples are of one class"
    assert "class_weight" in said[1]
    assert not any(line.startswith("Recommended") for line in said)


def test_a_reference_at_chance_ends_the_comparison() -> None:
    spec = spec_of(methods=["ewc", "joint"])
    cells = tuple(replace(cell_of(spec, name, [GOOD], [GOOD] * 2), untrained=0.9) for name in ("ewc", "joint"))
    said = lines(spec, ScenarioSummary("split-digits/task", cells, None, (), None, cells[1]))
    assert said[0].startswith(
        "No recommendation: even joint is no better in accuracy than an untrained network, which scores 0.900."
    )


def test_a_bound_that_violates_a_limit_is_said_first() -> None:
    spec = spec_of(methods=["ewc", "joint"])
    bad = GOOD | {"worst_forgetting": 0.2}
    cells = (cell_of(spec, "ewc", [GOOD], [GOOD] * 2), cell_of(spec, "joint", [bad] * 2, [bad] * 2))
    said = lines(spec, ScenarioSummary("split-digits/task", cells, cells[0], ()))
    assert said[0].startswith(
        "Even joint, which keeps the data of all tasks, violates worst_forgetting <= 0.05 on test."
    )


# The table.


def test_the_table_of_a_scenario() -> None:
    spec = spec_of()
    best = cell_of(spec, "ewc", [GOOD] * 2, [GOOD] * 2, penalty_weight=2.0)
    partial = cell_of(spec, "replay", [GOOD] * 2, [GOOD | {"worst_forgetting": 0.5}], buffer_size=60, replay_ratio=0.5)
    bound = cell_of(spec, "joint", [GOOD] * 2, [GOOD] * 2)
    text = table_of(spec, ScenarioSummary("split-digits/task", (best, partial, bound), best, (partial,)))
    rows = {line.split()[0]: line for line in text.splitlines() if line.split()[:1] and "test, " in line}
    assert rows["ewc"].split()[1] == "met"
    assert "test, 2 seeds" in rows["ewc"]
    assert "penalty_weight 2" in rows["ewc"]
    assert rows["replay"].split()[1] == "violated"
    assert "test, 1 of 2 seeds" in rows["replay"]
    assert "buffer_size 60" in rows["replay"]
    assert "joint*" in rows
    assert "* keeps the data of all tasks" in text
    (head,) = (line for line in text.splitlines() if line.split()[:1] == ["method"])
    assert head.split()[1:] == [*("limits", "accuracy", "worst", "forgetting", "memory"), *head.split()[6:]]


def test_a_failed_trial_says_nothing_about_limits() -> None:
    spec = spec_of()
    failed = cell_of(spec, "replay", [GOOD] * 2, [GOOD, "failed"])
    text = table_of(spec, ScenarioSummary("split-digits/task", (failed,), None, (failed,)))
    (row,) = (line for line in text.splitlines() if "test, 2 seeds" in line)
    assert row.split()[:3] == ["replay", "–", "–"]


def test_without_limits_there_is_no_limits_column() -> None:
    spec = spec_of(limits=[])
    empty = CellSummary(spec.cells[0], None, None, 3, False)
    full = cell_of(spec, "replay", [GOOD] * 2, [GOOD] * 2)
    text = table_of(spec, ScenarioSummary("split-digits/task", (empty, full), full, ()))
    assert "no result, 3 trials failed" in text
    assert "limits" not in text
    assert "* keeps the data" not in text
    assert "replay" in next(line for line in text.splitlines() if "test, 2 seeds" in line)


@pytest.mark.parametrize(("width", "form"), [(200, "wide"), (80, "narrow"), (68, "means")])
def test_the_table_keeps_words_whole(width: int, form: str) -> None:
    """Hyper-parameters stand below a table that has no room for them; nothing is cut."""
    rows = with_replay([(0.9, 0.02), (0.9, 0.02)], [(0.84, 0.02), (0.92, 0.04)])
    rows.run()
    search = rows.search()
    scenarios = summarise(search, rows.frame())
    out = StringIO()
    PlainConsole(file=out, width=width).print(render_answer(search.spec, scenarios))
    text = out.getvalue()
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
    assert ("  ewc: penalty_weight" in text) == (form != "wide")
    assert ("±" in text.partition("Recommended")[0].partition("ewc")[2]) == (form != "means")
