"""Changes of software or device since a run's trials are listed, and need the user's consent."""

from __future__ import annotations

import re
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from orchestrator import api
from orchestrator.core.errors import RunFolderError
from orchestrator.execution.session import Session
from orchestrator.report.plan_view import render_plan
from orchestrator.results.compatibility.software_changes import COMPARED, OF_WORKERS, software_changes, worker_changes
from orchestrator.results.run import Run
from orchestrator.spec.sweep_spec import SweepSpec
from orchestrator.trial.provenance import code_revision, software_now, source_hash
from tests.conftest import MakeResult, MakeSpec

NOW = {
    "code_revision": "b",
    "package_version": "1",
    "torch_version": "2.2",
    "optuna_version": "5",
    "python_version": "3",
}


@pytest.fixture
def spec(make_spec: MakeSpec) -> SweepSpec:
    return make_spec(scenarios=["split-digits/task"], methods=["naive", "ewc"])


def trials(**columns: list[Any]) -> pd.DataFrame:
    """Return three rows of naive, as of now but for `columns`."""
    same: dict[str, list[Any]] = {name: [NOW[name]] * 3 for name in COMPARED}
    place = {"scenario": ["split-digits/task"] * 3, "method": ["naive"] * 3, "device": ["cpu"] * 3, "threads": [1] * 3}
    return pd.DataFrame({"status": ["completed"] * 3, **place, **same} | columns)


def test_equal_or_unrecorded_software_is_no_change(spec: SweepSpec) -> None:
    assert software_changes(trials(), spec, NOW) == []
    assert software_changes(trials(torch_version=[None, None, "2.2"], code_revision=[""] * 3), spec, NOW) == []
    assert software_changes(trials(code_revision=["a"] * 3), spec, NOW | {"code_revision": ""}) == []


@pytest.mark.parametrize("column", COMPARED)
def test_each_change_has_its_number_of_trials(spec: SweepSpec, column: str) -> None:
    found = software_changes(trials(**{column: ["old", "old", NOW[column]]}), spec, NOW)

    assert found == [f"  {column}: old in 2 trials -> {NOW[column]}"]


def test_another_kind_of_device_is_a_change_of_its_cell(spec: SweepSpec) -> None:
    found = software_changes(trials(device=["cuda", "cpu", "cpu"]), spec, NOW)

    assert found == ["  device of split-digits/task naive: cuda in 1 trial -> cpu"]


def test_another_number_of_threads_is_a_change(spec: SweepSpec) -> None:
    found = software_changes(trials(threads=[4, 4, 1]), spec, NOW)

    assert found == ["  threads of split-digits/task naive: 4 in 2 trials -> 1"]


@pytest.mark.parametrize(
    ("before", "now", "is_change"),
    [
        ("a.1", "a.1", False),
        ("a.1", "b.1", False),  # a commit that left the source as it was
        ("a.1", "a+dirty.2", True),
        ("a+dirty.1", "a+dirty.2", True),
        ("none.1", "b.1", False),
        ("none.1", "none.2", True),
        ("a", "b.1", True),
    ],
)
def test_code_changes_with_its_hash(spec: SweepSpec, before: str, now: str, is_change: bool) -> None:
    found = software_changes(trials(code_revision=[before] * 3), spec, NOW | {"code_revision": now})

    assert found == ([f"  code_revision: {before} in 3 trials -> {now}"] if is_change else [])


def test_the_code_revision_ends_with_the_source_hash() -> None:
    assert re.fullmatch(r"([0-9a-f]{12}(\+dirty)?|none)\.[0-9a-f]{12}", code_revision())
    assert code_revision().endswith(source_hash())


def test_workers_are_compared_within_a_kind_of_device() -> None:
    before = trials(device=["cpu", "cpu", "cuda"], torch_version=["2.1", "2.2", "2.0"])

    assert worker_changes(before, {"device": "cpu", "torch_version": "2.2"}) == [
        "  torch_version: 2.1 in 1 trial -> 2.2"
    ]
    assert worker_changes(before, {"device": "cuda", "torch_version": "2.0", "python_version": "3"}) == []
    assert worker_changes(before, {"device": "tpu", "torch_version": "9"}) == []


def test_a_trial_of_another_worker_needs_acceptance(spec: SweepSpec, tmp_path: Path, make_result: MakeResult) -> None:
    def end_one(session: Session, version: str) -> None:
        planned = session.search.hand_out(session.search.waiting_requests()[0])
        result = make_result(planned.spec)
        result.provenance["torch_version"] = version
        session.finish(result)

    run = Run.create(tmp_path / "run", spec)
    end_one(Session(spec, run, tmp_path), "2.1")
    other = Session(spec, run, tmp_path)
    with pytest.raises(RunFolderError, match=r"torch_version: 2\.1 in 1 trial -> 2\.2\n.*--accept-changes"):
        end_one(other, "2.2")
    assert len(run.trials()) == 1
    end_one(other, "2.1")
    end_one(Session(spec, run, tmp_path, accept_changes=True), "2.2")
    assert len(run.trials()) == 3


def test_rows_that_are_run_again_are_not_compared(spec: SweepSpec) -> None:
    assert software_changes(trials(torch_version=["1"] * 3, status=["error"] * 3), spec, NOW) == []


def end(session: Session, make_result: MakeResult, n_trials: int = 1000) -> None:
    """Record the next `n_trials` trials, or all that are left, as of workers with PyTorch 1.0."""
    while n_trials and not session.search.is_finished:
        result = make_result(session.search.hand_out(session.search.waiting_requests()[0]).spec)
        result.provenance["torch_version"] = "1.0"
        session.finish(result)
        n_trials -= 1


def test_changed_software_is_refused_before_a_start(spec: SweepSpec, tmp_path: Path, make_result: MakeResult) -> None:
    run = Run.create(tmp_path / "run", spec)
    end(Session(spec, run, tmp_path), make_result, 3)

    with pytest.raises(RunFolderError) as caught:
        run.refuse_changed(spec, software_now())
    assert "torch_version: 1.0 in 3 trials -> " in str(caught.value)
    assert "--accept-changes" in str(caught.value)
    assert {"torch_version", "python_version", *COMPARED} <= software_now().keys()


def test_a_complete_sweep_reports_changes_only(
    spec: SweepSpec, make_spec: MakeSpec, tmp_path: Path, make_result: MakeResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        pytest.fail("nothing is left to train")

    def shown(planned: SweepSpec) -> tuple[str, str]:
        console = Console(file=StringIO(), width=160)
        console.print(render_plan(planned, api.plan(planned, run.path, tmp_path), 1))
        first, *_, last = console.file.getvalue().partition("The completed trials ran")[2].splitlines()  # type: ignore[attr-defined]
        return first, last.strip()

    run = Run.create(tmp_path / "run", spec)
    end(Session(spec, run, tmp_path), make_result)
    n_trials = len(run.trials())
    monkeypatch.setattr("orchestrator.execution.launch.launch", refuse)
    for _ in range(2):
        assert len(api.run_sweep(spec, run.path, tmp_path).trials()) == n_trials
    assert [line.partition(":")[0].strip() for line in api.plan(spec, run.path, tmp_path).changes] == ["torch_version"]
    assert shown(spec)[1] == "Nothing is left to train, so the sweep does not need --accept-changes."

    more = make_spec(scenarios=["split-digits/task"], methods=["naive", "ewc"], seeds={"search": 2, "confirm": 3})
    monkeypatch.setattr("orchestrator.trial.estimate.trial_seconds", lambda *_: 2.0)
    assert shown(more)[1] == "The sweep will only start with --accept-changes."
    with pytest.raises(RunFolderError, match=r"torch_version: 1\.0 in .* trials -> "):
        api.run_sweep(more, run.path, tmp_path)
    assert api.plan(spec, tmp_path / "new", tmp_path).changes == ()


def test_run_sweep_asks_unless_the_change_is_accepted(
    spec: SweepSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Run.create(tmp_path / "run", spec)
    asked: list[dict[str, Any]] = []

    def refuse(self: Run, spec: SweepSpec, now: dict[str, Any]) -> None:
        asked.append(now)
        raise RunFolderError("changed")

    class Stop(Exception):
        pass

    def stop(*_: Any) -> None:
        raise Stop

    monkeypatch.setattr(Run, "refuse_changed", refuse)
    monkeypatch.setattr("orchestrator.execution.launch.launch", stop)
    with pytest.raises(RunFolderError, match="changed"):
        api.run_sweep(spec, tmp_path / "run")
    with pytest.raises(Stop):
        api.run_sweep(spec, tmp_path / "run", accept_changes=True)
    assert asked == [software_now()]
    with pytest.raises(RunFolderError, match="changed"):
        api.run_sweep(spec, tmp_path / "run", address="auto")
    assert asked[1] == software_now(are_workers_here=False)
    assert not set(OF_WORKERS) & asked[1].keys()
