"""The log of a sweep, and what the worker of a failed trial said."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from orchestrator.cli.main import app
from orchestrator.execution.monitoring.sweep_log import SweepLog
from orchestrator.execution.monitoring.trial_log import LEVEL_VARIABLE, TrialLog
from orchestrator.execution.session import Session
from orchestrator.results.folder import keep_trial_log, lines_on
from orchestrator.results.run import Run
from orchestrator.spec.sweep_spec import SweepSpec
from orchestrator.spec.trial_spec import TrialSpec
from orchestrator.streams.datasets import Dataset
from orchestrator.trial.protocol import run_trial
from orchestrator.trial.result import TrialResult
from strategies.contract import TrialDivergedError
from strategies.learner import Learner

MakeSpec = Callable[..., SweepSpec]
MakeTrial = Callable[..., TrialSpec]
MakeResult = Callable[..., TrialResult]


@pytest.fixture
def logger(monkeypatch: pytest.MonkeyPatch) -> Iterator[logging.Logger]:
    """Return the logger of a worker's process, as at its start; afterwards it is as before."""
    logger = logging.getLogger("continual_sweep")
    before = logger.handlers, logger.level, logger.propagate
    monkeypatch.setattr(logger, "handlers", [])
    yield logger
    logger.handlers, logger.propagate = before[0], before[2]
    logger.setLevel(before[1])


def logged_sweep(place: Any, make_spec: MakeSpec, make_result: MakeResult) -> Run:
    """Run a sweep of made-up trials, of which each first seed fails, with a log."""
    spec, run = make_spec(methods=["naive"], seeds={"search": 2, "confirm": 1}), Run(place)
    with run.locked():
        session = Session(spec, run, Path("unused"), accept_changes=True)
        run.write_spec(spec)
        log = SweepLog(run)
        session.listen(log.trial_ended)
        log.begin(session)
        while not session.search.is_finished:
            trial = session.search.hand_out(session.search.waiting_requests()[0]).spec
            session.finish(make_result(trial, "failed" if trial.seed == 0 else "completed"), log="the worker's words\n")
        log.end(session)
        log.end(session, RuntimeError("two\nlines"))
        log.close()
    return run


def test_a_line_an_event(root: str, make_spec: MakeSpec, make_result: MakeResult) -> None:
    run = logged_sweep(root, make_spec, make_result)
    lines = run.storage.read("sweep.log").decode().splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ ", line) for line in lines)
    events = [line.split(" ", 1)[1] for line in lines]
    assert events[0].startswith("begin: sweep sweep, spec ")
    assert events[0].endswith("0 trials known, at most 3 to do")
    assert [e.split(": ")[0].split(" ", 2)[2] for e in events[1:4]] == [
        "split-digits/task naive #0 seed 0 search",
        "split-digits/task naive #0 seed 1 search",
        "split-digits/task naive #0 seed 1000 confirm",
    ]
    assert events[1].endswith("failed in 1.5 s: diverged: loss is nan")
    assert events[2].endswith("completed in 1.5 s")
    assert events[4:] == ["end: 3 trials ended, 1 of them failed, at most 0 missing", "end: RuntimeError: two"]
    run.refuse_other_data({})
    assert len(Run.open(root).trials()) == 3, "a folder with a log is a run folder"


def test_a_log_that_cannot_be_written_costs_nothing(
    tmp_path: Path, make_spec: MakeSpec, make_result: MakeResult
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "sweep.log").symlink_to("/dev/full")
    run = logged_sweep(tmp_path / "run", make_spec, make_result)
    assert len(run.trials()) == 3


def test_logs_shows_what_is_known_of_a_trial(tmp_path: Path, make_spec: MakeSpec, make_result: MakeResult) -> None:
    run = logged_sweep(tmp_path / "run", make_spec, make_result)
    trials = run.trials()
    failed = trials.loc[trials["status"] == "failed", "key"].item()
    shown = CliRunner().invoke(app, ["logs", str(run.path), failed[:8]])
    first, second, third = shown.output.splitlines()
    assert first == f"trial {failed} split-digits/task naive: failed: diverged: loss is nan"
    assert re.fullmatch(rf"\S+ trial {failed} split-digits/task naive #0 seed 0 search: failed .*", second)
    assert third == "the worker's words"
    missing = CliRunner().invoke(app, ["logs", str(run.path), "nokey"])
    assert missing.exit_code != 0
    assert "KEY: no trial has a key that begins with 'nokey'" in str(missing.exception)


def test_a_hostile_log_moves_no_cursor(tmp_path: Path, make_spec: MakeSpec, make_result: MakeResult) -> None:
    run = logged_sweep(tmp_path / "run", make_spec, make_result)
    key = run.trials()["key"][0]
    keep_trial_log(run.storage, key, "a\x1b[2Jb\nc")
    assert "\x1b" not in "".join(lines_on(run.storage, key))
    assert "\x1b" not in CliRunner().invoke(app, ["logs", str(run.path), key]).output


def test_a_worker_says_how_a_trial_went(
    make_trial: MakeTrial, digits: Dataset, logger: logging.Logger, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """A completed trial keeps nothing; one that diverges keeps all lines, with the traceback and the rows of R."""
    monkeypatch.setenv(LEVEL_VARIABLE, "info")
    fine, bad = make_trial(), make_trial(seed=1)

    def diverge(*arguments: Any) -> None:
        raise TrialDivergedError("the training loss is nan")

    for spec in (fine, bad):
        if spec is bad:
            monkeypatch.setattr(Learner, "learn", diverge)
        data = digits.phase(spec.phase, spec.validation_share, spec.validation_seed)
        with TrialLog(spec) as log:
            result = run_trial(spec, data, report=log.report)
            kept = log.end(result)
        if spec is fine:
            assert (result.status, kept) == ("completed", "")
    assert result.status == "failed"
    assert f"trial {bad.key} begins: split-digits/task naive seed 1 confirm" in kept
    assert "DEBUG" in kept
    assert "untrained: accuracy" in kept
    assert "TrialDivergedError" in kept
    assert fine.key not in kept
    said = capsys.readouterr().err
    assert f"trial {fine.key} ends: completed" in said
    assert "accuracy" not in said, "rows are at level DEBUG"
    assert len(logger.handlers) == 1
