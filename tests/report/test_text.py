"""What the terminal shows of a run."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from io import StringIO
from typing import Any

import pandas as pd
import pytest
from rich.console import RenderableType
from rich.control import Control
from rich.table import Table
from rich.text import Text

from orchestrator.report.answer import CellSummary, ScenarioSummary
from orchestrator.report.console import PlainConsole, make_console
from orchestrator.report.progress import duration
from orchestrator.report.text import (
    answer,
    columns,
    counted,
    number,
    render_matrix,
    render_summary,
    render_trial,
    with_spread,
)
from orchestrator.report.trial_view import render_trials
from orchestrator.search.suggestion import Outcome, Suggestion
from orchestrator.spec.loading import parse_spec
from orchestrator.spec.sweep_spec import SweepSpec

Values = dict[str, float]
GOOD: Values = {"average_accuracy": 0.9, "worst_forgetting": 0.02, "kept_bytes": 2.0e6, "seconds": 3.0}


def text_of(content: RenderableType) -> str:
    console = PlainConsole(file=StringIO(), width=220)
    console.print(content)
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
    return CellSummary(cell, suggestion, None, 1, 0, is_complete)


def lines(spec: SweepSpec, scenario: ScenarioSummary) -> list[str]:
    return list(answer(spec, scenario))


@pytest.mark.parametrize(
    ("metric", "value", "shown"),
    [
        ("average_accuracy", 0.12345, "0.123"),
        ("average_accuracy", math.nan, "–"),
        ("kept_bytes", 0, "0 B"),
        ("kept_bytes", 999, "999 B"),
        ("kept_bytes", 1500, "1.5 kB"),
        ("kept_bytes", 2.34e6, "2.34 MB"),
        ("peak_memory_bytes", 7.2e9, "7.2 GB"),
        ("kept_bytes", -1500, "-1.5 kB"),
        ("seconds", 1.234, "1.23 s"),
        ("train_seconds", 0, "0.00 s"),
        ("n_parameters", 85002, "85,002"),
    ],
)
def test_numbers_have_units(metric: str, value: float, shown: str) -> None:
    assert number(metric, value) == shown


def test_signs() -> None:
    assert number("backward_transfer", 0.5, signed=True) == "+0.500"
    assert number("backward_transfer", -0.5, signed=True) == "-0.500"
    assert number("kept_bytes", 2000, signed=True) == "+2 kB"


def test_mean_and_deviation() -> None:
    suggestion = Suggestion(0, {})
    suggestion.outcomes["confirm"] = outcomes({"forgetting": 0.1}, {"forgetting": 0.3})
    assert with_spread("forgetting", suggestion, "confirm") == "0.200 ± 0.141"
    suggestion.outcomes["confirm"] = outcomes({"forgetting": 0.1})
    assert with_spread("forgetting", suggestion, "confirm") == "0.100"
    suggestion.outcomes["confirm"] = outcomes({"forgetting": 0.1}, {"forgetting": 0.1})
    assert with_spread("forgetting", suggestion, "confirm") == "0.100"
    suggestion.outcomes["confirm"] = outcomes({"forgetting": 0.1}, "failed")
    assert with_spread("forgetting", suggestion, "confirm") == "–"


def test_columns_are_the_objective_and_whatever_is_limited_once_each() -> None:
    spec = spec_of(limits=["forgetting <= 0.1", "average_accuracy >= 0.5"])
    assert columns(spec) == ["average_accuracy", "worst_forgetting", "forgetting", "kept_bytes", "seconds"]


# The answer in words.


def test_the_best_is_named_with_its_margins_and_seeds() -> None:
    spec = spec_of()
    worse = GOOD | {"worst_forgetting": 0.06, "average_accuracy": 0.8}
    best = cell_of(spec, "ewc", [GOOD] * 2, [GOOD, worse], penalty_weight=12.345678)
    scenario = ScenarioSummary("split-digits/task", (best,), best, ())
    assert lines(spec, scenario) == [
        "Best feasible: ewc with penalty_weight 12.35: average_accuracy 0.850 ± 0.071 on test.",
        "  chosen on validation, where it had 0.900",
        "  worst_forgetting <= 0.05: 0.040 ± 0.028, 0.010 inside; holds on 1 of 2 seeds",
        "  kept_bytes <= 4000000: 2 MB, 2 MB inside; holds on 2 of 2 seeds",
    ]


def test_a_veto_names_the_limit() -> None:
    spec = spec_of()
    broken = cell_of(spec, "replay", [GOOD] * 2, [GOOD | {"worst_forgetting": 0.2}] * 2)
    best = cell_of(spec, "ewc", [GOOD] * 2, [GOOD] * 2)
    scenario = ScenarioSummary("split-digits/task", (best, broken), best, (broken,))
    assert lines(spec, scenario)[0] == (
        "replay did better on validation, but does not keep worst_forgetting <= 0.05 on test."
    )


def test_a_veto_of_one_seed_names_the_limit_too() -> None:
    spec = spec_of(search={"limits_hold_for": "every_seed"})
    broken = cell_of(spec, "replay", [GOOD] * 2, [GOOD, GOOD | {"worst_forgetting": 0.06}])
    scenario = ScenarioSummary("split-digits/task", (broken,), None, (broken,), (broken, broken.chosen, "confirm"))  # type: ignore[arg-type]
    assert lines(spec, scenario)[0] == (
        "replay did better on validation, but does not keep worst_forgetting <= 0.05 on every seed on test."
    )


def test_a_veto_of_failed_trials_blames_no_limit() -> None:
    spec = spec_of(limits=[])
    broken = cell_of(spec, "replay", [GOOD] * 2, [GOOD, "failed"])
    best = cell_of(spec, "ewc", [GOOD] * 2, [GOOD] * 2)
    scenario = ScenarioSummary("split-digits/task", (best, broken), best, (broken,))
    assert lines(spec, scenario)[0] == "replay did better on validation, but 1 of its 2 trials failed on test."


def test_without_a_search_phase_nothing_did_better_on_validation() -> None:
    spaces = {"ewc": {"penalty_weight": 1}, "replay": {"buffer_size": 5, "replay_ratio": 0.5}}
    spec = spec_of(seeds={"search": 0, "confirm": 2}, spaces=spaces)
    broken = cell_of(spec, "replay", [], [GOOD | {"kept_bytes": 9e6}] * 2)
    best = cell_of(spec, "ewc", [], [GOOD] * 2)
    scenario = ScenarioSummary("split-digits/task", (best, broken), best, (broken,))
    assert lines(spec, scenario)[0] == "replay does not keep kept_bytes <= 4000000 on test."


def test_the_nearest_miss_says_by_how_much() -> None:
    spec = spec_of()
    cell = cell_of(spec, "ewc", [GOOD | {"worst_forgetting": 0.08}] * 2, [], penalty_weight=2.0)
    nearest = CellSummary(cell.cell, None, cell.chosen, 1, 0, False)
    scenario = ScenarioSummary("split-digits/task", (nearest,), None, (), (nearest, cell.chosen, "search"))  # type: ignore[arg-type]
    assert lines(spec, scenario) == [
        "Nothing keeps the limits. Nearest miss: ewc with penalty_weight 2, on validation:",
        "  worst_forgetting <= 0.05: 0.080, 0.030 outside; holds on 0 of 2 seeds",
        "  kept_bytes <= 4000000: 2 MB, 2 MB inside; holds on 2 of 2 seeds",
    ]


def test_what_is_not_confirmed_is_not_said_to_break_limits() -> None:
    spec = spec_of()
    waiting = cell_of(spec, "replay", [GOOD] * 2, [GOOD])
    scenario = ScenarioSummary("split-digits/task", (waiting,), None, ())
    assert lines(spec, scenario) == [
        "No answer yet: replay is not confirmed on every test seed; run the same command again."
    ]
    best = cell_of(spec, "ewc", [GOOD] * 2, [GOOD] * 2)
    scenario = ScenarioSummary("split-digits/task", (best, waiting), best, ())
    assert lines(spec, scenario)[0].startswith("Best feasible: ewc")
    assert lines(spec, scenario)[-1].startswith("Still to be confirmed on test, and perhaps better: replay;")


def test_no_results_at_all() -> None:
    spec = spec_of()
    empty = CellSummary(spec.cells[0], None, None, 0, 0, False)
    assert lines(spec, ScenarioSummary("split-digits/task", (empty,), None, ())) == [
        "No method has a complete result yet: run the same command again for those that are missing."
    ]
    failed = CellSummary(spec.cells[0], None, None, 2, 4, False)
    (line,) = lines(spec, ScenarioSummary("split-digits/task", (failed,), None, ()))
    assert "4 trials failed, see show RUN --trials" in line


# Tables.


def test_the_table_of_a_scenario() -> None:
    spec = spec_of()
    best = cell_of(spec, "ewc", [GOOD] * 2, [GOOD] * 2, penalty_weight=2.0)
    partial = cell_of(spec, "replay", [GOOD] * 2, [GOOD | {"worst_forgetting": 0.5}], buffer_size=60, replay_ratio=0.5)
    bound = cell_of(spec, "joint", [GOOD] * 2, [GOOD] * 2)
    text = text_of(
        render_summary(spec, [ScenarioSummary("split-digits/task", (best, partial, bound), best, (partial,))])
    )
    rows = {line.split()[0]: line for line in text.splitlines() if line.split()[:1] and "test, " in line}
    assert "kept" in rows["ewc"]
    assert "test, 2 seeds" in rows["ewc"]
    assert "penalty_weight 2" in rows["ewc"]
    assert "broken" in rows["replay"]
    assert "test, 1 of 2 seeds" in rows["replay"]
    assert "buffer_size 60" in rows["replay"]
    assert "joint*" in rows
    assert "* the ceiling" in text
    assert "worst forgetting" in text


def test_a_cell_without_results_and_a_sweep_without_limits() -> None:
    spec = spec_of(limits=[])
    empty = CellSummary(spec.cells[0], None, None, 0, 3, False)
    full = cell_of(spec, "replay", [GOOD] * 2, [GOOD] * 2)
    text = text_of(render_summary(spec, [ScenarioSummary("split-digits/task", (empty, full), full, ())]))
    assert "no result" in text
    assert "3 failed" in text
    assert "* the ceiling" not in text
    assert "none" in next(line for line in text.splitlines() if "replay" in line and "test, 2 seeds" in line)


def test_a_matrix_is_printed_as_the_articles_do() -> None:
    matrix = pd.DataFrame({-1: [0.5, math.nan], 0: [0.9, math.nan], 1: [0.8, 0.7]}, index=[0, 1])
    found = [line.split() for line in text_of(render_matrix(matrix)).splitlines() if line.strip()]
    assert found[0] == ["task", "untrained", "after", "0", "after", "1"]
    assert found[2:] == [["0", "0.5000", "0.9000", "0.8000"], ["1", "0.7000"]]


def trial_row(**values: Any) -> dict[str, Any]:
    return {
        "key": "abc",
        "scenario": "split-digits/task",
        "method": "packnet",
        "phase": "confirm",
        "suggestion": 0,
        "seed": 1000,
        "status": "completed",
        "reason": "",
        "hyperparameters": '{"pruning_rate":0.5}',
        "details": "{}",
        "average_accuracy": 0.9,
        "worst_forgetting": 0.1,
    } | values


def test_a_trial_with_its_capacity() -> None:
    details = '{"packnet":{"capacity":{"backbone.1":{"0":0.75,"free":0.25}}}}'
    text = text_of(render_trial(trial_row(details=details), pd.DataFrame({0: [0.9]}, index=[0])))
    assert "trial abc" in text
    assert "split-digits/task packnet, confirm seed 1000: completed" in text
    assert "backbone.1: task 0 75.0%, free 25.0%" in text
    assert "after 0" in text


@pytest.mark.parametrize("facts", ["7", '{"capacity":7}', '{"capacity":{"a":[1]}}', '{"capacity":{"a":{"0":"x"}}}'])
def test_a_report_of_another_form_is_shown_as_it_is(facts: str) -> None:
    """A user's method may report anything."""
    row = trial_row(details='{"mine":' + facts + "}")
    text = text_of(render_trial(row, pd.DataFrame({0: [0.9]}, index=[0])))
    assert f"mine: {json.loads(facts)}" in text


def test_a_failed_trial_shows_its_reason_and_no_matrix() -> None:
    reason = "RuntimeError: index [3, 4] at [/x.py]"
    text = text_of(render_trial(trial_row(status="failed", reason=reason), pd.DataFrame()))
    assert reason in text
    assert "after" not in text


def test_errors_with_brackets_are_listed_as_they_are() -> None:
    """Rich would take them for markup, and refuse some."""
    rows = [trial_row(key="a", seed=1, status="failed", reason="KeyError: [/bold] [red]"), trial_row(key="b", seed=0)]
    found = text_of(render_trials(pd.DataFrame(rows), "average_accuracy")).splitlines()
    assert "KeyError: [/bold] [red]" in next(line for line in found if " a " in line)
    listed = [line.split()[0] for line in found if "split-digits" in line]
    assert listed == ["b", "a"], "in the order of the seeds"
    assert "pruning_rate 0.5" in next(line for line in found if " b " in line)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.4, "0 s"), (119, "119 s"), (121, "2 min"), (7199, "119 min"), (7260, "2 h 1 min")],
)
def test_durations(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


def test_a_best_method_at_chance_is_told_where_no_bound_is_there_to_tell_it() -> None:
    spec = spec_of(methods=["ewc"])
    good = GOOD | {"average_accuracy": 0.801}
    for chance, is_told in ((0.8, True), (0.6, False)):
        cell = replace(cell_of(spec, "ewc", [good, good], [good, good]), chance_accuracy=chance)
        said = lines(spec, ScenarioSummary("split-digits/task", (cell,), cell, ()))
        assert said[0].startswith("Warning: ewc is at chance (best constant answer: 0.800)") == is_told


def test_one_seed_is_one() -> None:
    assert [counted(n) for n in (0, 1, 2)] == ["0 seeds", "1 seed", "2 seeds"]


def test_what_is_no_terminal_gets_wide_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    console = make_console()
    assert not console.is_terminal
    console.print("x" * 180, style="bold red")
    assert capsys.readouterr().out == "x" * 180 + "\n"


# What others wrote.

ESCAPES = "\x1b]52;c;ZXZpbA==\x07\x1b[2J\x1b[1A\x1b[2K\x9b31m\x7f\r\b\u202e\u2066\u200f\u061c"
SPELLED = (
    r"\x1b]52;c;ZXZpbA==\x07\x1b[2J\x1b[1A\x1b[2K\x9b31m\x7f\r\x08\u202e\u2066\u200f\u061c"  # as it is on the screen
)


def screen(*contents: RenderableType, **options: Any) -> str:
    """Return what a terminal is sent."""
    console = PlainConsole(file=StringIO(), width=260, force_terminal=True, color_system="standard")
    console.print(*contents, **options)
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def raw(shown: str) -> set[str]:
    """Return the control characters that are left beside line breaks and Rich's colours."""
    return {character for character in re.sub(r"\x1b\[[0-9;]*m", "", shown) if not character.isprintable()} - {"\n"}


@pytest.mark.parametrize("text", ["[bold]x[/foo]", "[/]", "[link=https://evil.example]replay[/link]", ":smile:"])
def test_a_string_is_never_markup(text: str) -> None:
    table = Table("head [/b]", title=f"title {text}")
    table.add_row(text)
    for options in ({}, {"markup": True, "emoji": True, "highlight": True}):
        assert screen(text, **options) == f"{text}\n"
        assert screen(table, **options).count(text) == 2


def test_control_characters_are_spelled_out_wherever_they_stand() -> None:
    table = Table(f"head {ESCAPES}", title=f"title {ESCAPES}")
    table.add_row(f"cell {ESCAPES}\nnext")
    shown = screen(f"line {ESCAPES}\nnext\tone") + screen(table, width=250)
    for place in ("line", "head", "title", "cell"):
        assert f"{place} {SPELLED}" in shown
    assert shown.count(r"\nnext") == 2
    assert r"next\tone" in shown
    assert raw(shown) == set()


def test_what_the_program_itself_shows_keeps_its_style_its_lines_and_its_cursor() -> None:
    assert screen(Text("one\ntwo", style="red")) == "\x1b[31mone\x1b[0m\n\x1b[31mtwo\x1b[0m\n"
    assert screen(Text("a\x1b[2Jb")) == "a\\x1b[2Jb\n"
    assert "\x1b[2J" in screen(Control.clear())
    assert screen("für 😀 – 日本") == "für 😀 – 日本\n"


def test_a_row_that_is_wide_once_spelled_out_keeps_the_columns() -> None:
    table = Table("a", "b")
    table.add_row("\x1b" * 40, "beside")
    table.add_row("x", "below")
    found = text_of(table).splitlines()
    assert len({len(line) for line in found[1:]}) == 1
    assert sum(line.count(r"\x1b") for line in found) == 40


def test_every_column_of_the_trials_is_text() -> None:
    hostile = "[/] [bold]x[/foo] [link=https://evil.example]replay[/link] :smile: " + ESCAPES + "\nBest feasible: evil"
    fields = ("scenario", "method", "phase", "status", "reason")
    for field in fields:
        shown = screen(render_trials(pd.DataFrame([trial_row(**{field: hostile})]), "average_accuracy"), width=520)
        whole = "".join(line.strip() for line in shown.splitlines())
        for word in ("[/]", "x[/foo]", "replay[/link]", ":smile:", "c;ZXZpbA==", r"\u202e"):
            assert word in whole, (field, word)
        assert raw(shown) == set()
    assert "Best feasible" not in [line.strip()[:13] for line in shown.splitlines()]


def test_a_trial_says_each_value_on_its_line() -> None:
    hostile = f"{ESCAPES}\nBest feasible: evil"
    values = dict.fromkeys(("scenario", "method", "status", "reason", "hyperparameters"), hostile)
    details = json.dumps({hostile: {"capacity": {hostile: {hostile: 0.5}}}, f"other {hostile}": {}})
    shown = screen(render_trial(trial_row(**values, details=details), pd.DataFrame()))
    assert not [line for line in shown.splitlines() if line.startswith("Best feasible")]
    assert shown.count(SPELLED) + shown.count(r"\nBest feasible") >= 9
    assert raw(shown) == set()
