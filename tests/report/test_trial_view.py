"""Single trials in the terminal, with whatever a run folder says about them."""

from __future__ import annotations

import json
import math
from io import StringIO
from typing import Any

import pandas as pd
import pytest
from rich.console import RenderableType

from orchestrator.report.console import PlainConsole
from orchestrator.report.trial_view import render_matrix, render_trial, render_trials
from tests.report.test_console import ESCAPES, SPELLED

FAKE = "\nRecommended: evil"
"""A line that a run folder may try to add to ours."""


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
        "score": "accuracy",
        "average_accuracy": 0.9,
        "worst_forgetting": 0.1,
    } | values


def text_of(content: RenderableType, width: int = 220) -> str:
    """Return what a terminal receives."""
    console = PlainConsole(file=StringIO(), width=width, force_terminal=True, color_system=None)
    console.print(content)
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def controls(shown: str) -> set[str]:
    """Return the control characters in a text, without line breaks."""
    return {character for character in shown if not character.isprintable()} - {"\n"}


def test_a_matrix_has_a_row_per_task() -> None:
    matrix = pd.DataFrame({-1: [0.5, math.nan], 0: [0.9, math.nan], 1: [0.8, 0.7]}, index=[0, 1])
    found = [line.split() for line in text_of(render_matrix(matrix)).splitlines() if line.strip()]
    assert found[0] == ["task", "untrained", "after", "0", "after", "1"]
    assert found[2:] == [["0", "0.5000", "0.9000", "0.8000"], ["1", "0.7000"]]


def test_a_trial_with_its_capacity() -> None:
    details = '{"packnet":{"capacity":{"backbone.1":{"0":0.75,"free":0.25}}}}'
    text = text_of(render_trial(trial_row(details=details), pd.DataFrame({0: [0.9]}, index=[0])))
    assert "trial abc" in text
    assert "split-digits/task packnet, confirm seed 1000: completed" in text
    assert "backbone.1: task 0 75.0%, free 25.0%" in text
    assert "after 0" in text


@pytest.mark.parametrize("facts", ["7", '{"capacity":7}', '{"capacity":{"a":[1]}}', '{"capacity":{"a":{"0":"x"}}}'])
def test_other_details_are_shown_unchanged(facts: str) -> None:
    """A user's method may report anything."""
    row = trial_row(details='{"mine":' + facts + "}")
    text = text_of(render_trial(row, pd.DataFrame({0: [0.9]}, index=[0])))
    assert f"mine: {json.loads(facts)}" in text


def test_a_failed_trial_shows_its_reason() -> None:
    reason = "RuntimeError: index [3, 4] at [/x.py]"
    text = text_of(render_trial(trial_row(status="failed", reason=reason), pd.DataFrame()))
    assert reason in text
    assert "after" not in text


def test_brackets_in_an_error_are_not_markup() -> None:
    """Rich would read them as markup, and raise an error for some."""
    rows = [trial_row(key="a", seed=1, status="failed", reason="KeyError: [/bold] [red]"), trial_row(key="b", seed=0)]
    found = text_of(render_trials(pd.DataFrame(rows), "average_accuracy")).splitlines()
    assert "KeyError: [/bold] [red]" in next(line for line in found if " a " in line)
    listed = [line.split()[0] for line in found if "split-digits" in line]
    assert listed == ["b", "a"], "in the order of the seeds"
    assert "pruning_rate 0.5" in next(line for line in found if " b " in line)


def test_every_column_of_the_trials_is_text() -> None:
    hostile = "[/] [bold]x[/foo] [link=https://evil.example]replay[/link] :smile: " + ESCAPES + FAKE
    fields = ("scenario", "method", "phase", "status", "reason")
    for field in fields:
        shown = text_of(render_trials(pd.DataFrame([trial_row(**{field: hostile})]), "average_accuracy"), 520)
        whole = "".join(line.strip() for line in shown.splitlines())
        for word in ("[/]", "x[/foo]", "replay[/link]", ":smile:", "c;ZXZpbA==", r"\u202e"):
            assert word in whole, (field, word)
        assert controls(shown) == set()
    assert "Recommended" not in [line.strip()[:11] for line in shown.splitlines()]


def test_each_value_of_a_trial_is_one_line() -> None:
    hostile = ESCAPES + FAKE
    values = dict.fromkeys(("scenario", "method", "status", "reason", "hyperparameters"), hostile)
    details = json.dumps({hostile: {"capacity": {hostile: {hostile: 0.5}}}, f"other {hostile}": {}})
    shown = text_of(render_trial(trial_row(**values, details=details), pd.DataFrame()))
    assert not [line for line in shown.splitlines() if line.startswith("Recommended")]
    assert shown.count(SPELLED) + shown.count(r"\nRecommended") >= 9
    assert controls(shown) == set()
