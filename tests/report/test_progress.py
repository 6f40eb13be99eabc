"""Live progress: a table that redraws itself in a terminal, plain lines elsewhere."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from orchestrator.execution.budget import Budget, Spending
from orchestrator.execution.session import Session
from orchestrator.report.console import PlainConsole
from orchestrator.report.progress import ProgressDisplay
from orchestrator.results.run import Run
from orchestrator.spec.sweep_spec import SweepSpec
from orchestrator.spec.trial_spec import TrialSpec
from orchestrator.trial.result import TrialResult


@pytest.fixture
def session(tmp_path: Path, make_spec: Callable[..., SweepSpec]) -> Session:
    spec = make_spec()
    return Session(spec, Run.create(tmp_path / "run", spec), tmp_path)


def show(session: Session, make_result: Callable[..., TrialResult], statuses: list[str], terminal: bool) -> str:
    """Return what the console receives while trials end with the given statuses."""
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


def test_plain_lines_show_failures_and_progress(session: Session, make_result: Callable[..., TrialResult]) -> None:
    shown = show(session, make_result, ["completed", "failed"], terminal=False)
    assert "1/4 trials done, 1 running, 0 failed, time left not known yet\n" in shown
    assert "failed: split-digits/task naive #0 seed" in shown
    assert "diverged: loss is nan" in shown
    assert "\x1b[" not in shown


def test_a_terminal_shows_the_state_of_every_cell(session: Session, make_result: Callable[..., TrialResult]) -> None:
    shown = show(session, make_result, ["completed"], terminal=True)
    for word in ("split-digits/task naive", "1/4", "measuring", "0 running"):
        assert word in shown


def test_at_the_end_no_time_is_left(session: Session, make_result: Callable[..., TrialResult]) -> None:
    n_trials = session.search.n_expected
    shown = show(session, make_result, ["completed"] * n_trials, terminal=True)
    assert f"{n_trials}/{n_trials} trials done, 0 running, 0 failed, about 0 s left" in shown
    assert "measured on test" in shown


def test_what_is_left_of_a_budget_is_shown(
    tmp_path: Path, make_spec: Callable[..., SweepSpec], make_result: Callable[..., TrialResult]
) -> None:
    spec = make_spec()
    spending = Spending(Budget(7200, 500, 20, price_per_hour=1), clock=lambda: 0.0)
    session = Session(spec, Run.create(tmp_path / "run", spec), tmp_path, spending=spending)
    shown = show(session, make_result, ["completed"], terminal=False)
    assert "not known yet; budget left: 2 h 0 min, 500 trials, 20.00 of the cost\n" in shown


@pytest.mark.parametrize("terminal", [False, True])
def test_a_failure_reason_is_one_plain_line(
    session: Session, make_result: Callable[..., TrialResult], terminal: bool
) -> None:
    def hostile(spec: TrialSpec, status: str) -> TrialResult:
        reason = "[/] \x1b]52;c;ZXZpbA==\x07\x1b[2J\x1b]0;title\r\u202e :smile:\nnaive: measured on test"
        return replace(make_result(spec, status), reason=reason)

    shown = show(session, hostile, ["failed"], terminal)
    spelled = r"[/] \x1b]52;c;ZXZpbA==\x07\x1b[2J\x1b]0;title\r\u202e :smile:\nnaive: measured on test"
    assert f": {spelled}\n" in shown
    for raw in ("\x1b]", "\x1b[2J", "\x07", "\u202e"):
        assert raw not in shown


@pytest.mark.parametrize("make", [Console, PlainConsole])
def test_a_line_is_plain_on_any_console(make: type[Console]) -> None:
    console = make(file=io.StringIO(), force_terminal=True, width=60)
    ProgressDisplay(console).say("tried again: [/x] \x1b[2J\x9b :smile:\nfake")
    assert console.file.getvalue() == "tried again: [/x] \\x1b[2J\\x9b :smile:\\nfake\n"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("address", "line"),
    [
        (None, "starting a Ray cluster on this machine …\n"),
        ("auto", "joining a running Ray cluster …\n"),
        ("10.0.0.1:6379", "joining Ray cluster 10.0.0.1:6379 …\n"),
    ],
)
def test_the_cluster_is_announced_once(address: str | None, line: str) -> None:
    console = PlainConsole(file=io.StringIO())
    display = ProgressDisplay(console)
    display.connecting(address)
    display.connecting(address)
    assert console.file.getvalue() == line  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("limits", "verdict"),
    [(["worst_forgetting <= -0.9"], "no suggestion meets the limits"), ([], "no suggestion completed")],
)
def test_a_cell_without_a_choice_says_why(
    tmp_path: Path,
    make_spec: Callable[..., SweepSpec],
    make_result: Callable[..., TrialResult],
    limits: list[str],
    verdict: str,
) -> None:
    spec = make_spec(methods=["ewc"], limits=limits, seeds={"search": 1, "confirm": 1})
    session = Session(spec, Run.create(tmp_path / "run", spec), tmp_path)
    shown = show(session, make_result, ["completed" if limits else "failed"] * 4, terminal=False)
    assert f"split-digits/task ewc: {verdict}\n" in shown
