"""What a user sees while a sweep runs: a table that redraws itself in a terminal, plain lines elsewhere."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from orchestrator.execution.session import Session
from orchestrator.report.console import PlainConsole
from orchestrator.report.progress import ProgressDisplay, duration
from orchestrator.results.run import Run
from orchestrator.spec.sweep_spec import SweepSpec
from orchestrator.spec.trial_spec import TrialSpec
from orchestrator.trial.result import TrialResult


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.4, "0 s"), (119, "119 s"), (121, "2 min"), (7199, "119 min"), (9000, "2 h 30 min")]
)
def test_durations_are_read_at_a_glance(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


@pytest.fixture
def session(tmp_path: Path, make_spec: Callable[..., SweepSpec]) -> Session:
    spec = make_spec()
    return Session(spec, Run.create(tmp_path / "run", spec), tmp_path)


def show(session: Session, make_result: Callable[..., TrialResult], statuses: list[str], terminal: bool) -> str:
    """Return what is on the screen after one trial a status has ended."""
    console = PlainConsole(file=io.StringIO(), force_terminal=terminal, width=120, height=50)
    with ProgressDisplay(console) as display:
        session.listen(display.trial_ended)
        display.start(session)
        for status in statuses:
            trial = session.search.hand_out(session.search.waiting_requests()[0])
            session.finish(make_result(trial.spec, status))
        if terminal:
            console.print(display._render())
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def test_plain_lines_say_what_failed_and_how_far_it_is(
    session: Session, make_result: Callable[..., TrialResult]
) -> None:
    shown = show(session, make_result, ["completed", "failed"], terminal=False)
    assert "1/4 trials done, 1 running, 0 failed, time left not known yet\n" in shown
    assert "failed: split-digits/task naive #0 seed" in shown
    assert "diverged: loss is nan" in shown
    assert "\x1b[" not in shown


def test_a_terminal_shows_every_cell_with_its_state(session: Session, make_result: Callable[..., TrialResult]) -> None:
    shown = show(session, make_result, ["completed"], terminal=True)
    for word in ("split-digits/task naive", "1/4", "measuring", "0 running"):
        assert word in shown


def test_the_end_counts_what_ran_and_leaves_nothing(session: Session, make_result: Callable[..., TrialResult]) -> None:
    n_trials = session.search.n_expected
    shown = show(session, make_result, ["completed"] * n_trials, terminal=True)
    assert f"{n_trials}/{n_trials} trials done, 0 running, 0 failed, about 0 s left" in shown
    assert "confirmed" in shown


@pytest.mark.parametrize("terminal", [False, True])
def test_what_a_worker_says_of_its_end_is_one_plain_line(
    session: Session, make_result: Callable[..., TrialResult], terminal: bool
) -> None:
    def hostile(spec: TrialSpec, status: str) -> TrialResult:
        reason = "[/] \x1b]52;c;ZXZpbA==\x07\x1b[2J\x1b]0;title\r\u202e :smile:\nnaive: confirmed"
        return replace(make_result(spec, status), reason=reason)

    shown = show(session, hostile, ["failed"], terminal)
    spelled = r"[/] \x1b]52;c;ZXZpbA==\x07\x1b[2J\x1b]0;title\r\u202e :smile:\nnaive: confirmed"
    assert f": {spelled}\n" in shown
    for raw in ("\x1b]", "\x1b[2J", "\x07", "\u202e"):
        assert raw not in shown


@pytest.mark.parametrize("make", [Console, PlainConsole])
def test_a_said_line_is_plain_on_any_console(make: type[Console]) -> None:
    console = make(file=io.StringIO(), force_terminal=True, width=60)
    ProgressDisplay(console).say("tried again: [/x] \x1b[2J\x9b :smile:\nfake")
    assert console.file.getvalue() == "tried again: [/x] \\x1b[2J\\x9b :smile:\\nfake\n"  # type: ignore[attr-defined]
