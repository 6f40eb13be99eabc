"""A session: rows first, then the search; if rows cannot be written, nothing is recorded."""

from __future__ import annotations

import errno
import importlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator import api
from orchestrator.cli.main import app
from orchestrator.cli.shared.exits import guarded
from orchestrator.core.errors import DataError, RunFolderError, StorageError
from orchestrator.core.scores import ACCURACY
from orchestrator.execution.session import Progress, Session, outcome_of
from orchestrator.results.run import Run
from orchestrator.search.answers.summary import summarise
from orchestrator.search.suggestion import PlannedTrial
from orchestrator.spec.sweep_spec import SweepSpec
from orchestrator.spec.trial_spec import TrialSpec
from orchestrator.streams.datasets import Dataset, TrainingData
from orchestrator.trial.preflight import load_datasets
from orchestrator.trial.protocol import run_trial
from orchestrator.trial.provenance import software_versions
from orchestrator.trial.result import TrialResult

MakeSpec = Callable[..., SweepSpec]
MakeResult = Callable[..., TrialResult]


@pytest.fixture
def open_session(tmp_path: Path, make_spec: MakeSpec) -> Callable[..., Session]:
    """Return a function that opens a session on one folder, as the sweep command does."""

    def open_session(**options: Any) -> Session:
        spec = make_spec(**options.pop("fields", {}))
        return Session(spec, Run.create(tmp_path / "run", spec), tmp_path / "data", **options)

    return open_session


def hand_out(session: Session) -> TrialSpec:
    return session.search.hand_out(session.search.waiting_requests()[0]).spec


def test_rows_are_written_before_anything_else(
    open_session: Callable[..., Session], make_result: MakeResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[str] = []

    def listener(session: Session, planned: PlannedTrial, result: TrialResult) -> None:
        called.append(f"{planned.spec.key} {result.status}")
        assert set(session.run.outcomes()) == {planned.spec.key}
        assert session.progress.n_done == 1

    session = open_session(listeners=(listener,))
    spec = hand_out(session)
    record = session.search.record

    def check(key: str, outcome: object) -> object:
        assert set(session.run.outcomes()) == {key}
        assert len(session.run.accuracy()) == 3
        return record(key, outcome)  # type: ignore[arg-type]

    monkeypatch.setattr(session.search, "record", check)
    session.finish(make_result(spec), n_attempts=3)
    assert called == [f"{spec.key} completed"]
    assert session.search.running == ()
    (row,) = session.run.trials().to_dict("records")
    assert row["n_attempts"] == 3
    assert row["spec_hash"] == session.spec.content_hash()
    assert {name: row[name] for name in software_versions()} == software_versions()
    assert row["optuna_version"]


@pytest.mark.parametrize("table", ["outcomes", "accuracy", "trials"])
def test_if_rows_cannot_be_written_nothing_is_recorded(
    open_session: Callable[..., Session], make_result: MakeResult, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    called: list[object] = []
    fields = {"seeds": {"search": 0, "confirm": 2}} if table == "outcomes" else {}
    session = open_session(listeners=(lambda *event: called.append(event),), fields=fields)
    spec = hand_out(session)
    real = os.replace

    def refuse(source: Path, target: Path) -> None:
        if Path(target).parent.name == table:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", refuse)
        with pytest.raises(StorageError, match=r"[Nn]o space left on device"):
            session.finish(make_result(spec))
    assert [trial.spec.key for trial in session.search.running] == [spec.key]
    assert session.search.cells[0].n_recorded == 0
    assert (session.progress.n_done, called) == (0, [])
    assert session.run.outcomes() == {}
    session.finish(make_result(spec))
    assert set(session.run.outcomes()) == {spec.key}
    assert session.search.running == ()


def test_another_run_finds_what_was_written(open_session: Callable[..., Session], make_result: MakeResult) -> None:
    session = open_session()
    assert (session.search.n_expected, session.progress.n_cached) == (4, 0)
    done = hand_out(session)
    session.finish(make_result(done))
    failed = hand_out(session)
    session.finish(make_result(failed, "failed"))
    erred = hand_out(session)
    session.finish(make_result(erred, "error"))
    assert (session.progress.n_done, session.progress.n_failed) == (3, 2)
    again = open_session()
    assert again.progress.n_cached == 2, "an error of the machine is tried again"
    waiting = {trial.spec.key for trial in again.search.waiting()}
    assert erred.key in waiting
    assert not {done.key, failed.key} & waiting


def test_a_result_from_the_tables_equals_a_live_one(
    open_session: Callable[..., Session], make_result: MakeResult
) -> None:
    session = open_session()
    result = make_result(hand_out(session), costs={"seconds": 0.1 + 0.2, "kept_bytes": 1e15 + 1, "n_parameters": 3.0})
    session.finish(result)
    stored, live = session.run.outcomes()[result.key], outcome_of(result, session.spec, ACCURACY)
    assert stored.status == live.status
    known = {name: value for name, value in live.values.items() if value == value}
    assert {name: stored.values[name] for name in known} == known
    assert all(stored.values[n] != stored.values[n] for n in stored.values.keys() - known.keys()), "else NaN"


def test_a_whole_sweep_without_ray(open_session: Callable[..., Session], digits: Dataset) -> None:
    """Real trials, one after the other."""
    fields = {"methods": ["naive", "replay"], "search": {"suggestions": 2, "batch": 2}}
    session = open_session(fields=fields)
    while not session.search.is_finished:
        spec = hand_out(session)
        session.finish(run_trial(spec, session.arrays(spec)))
    session.close()
    trials = session.run.trials()
    assert (trials["status"] == "completed").all()
    assert len(trials) == 4 + 2 * 2 + 2
    assert len(session.run.accuracy()) == len(trials) * 15
    assert set(trials["data_hash"]) == {digits.fingerprint()}
    assert session.run.n_missing(session.spec) == 0
    assert open_session(fields=fields).search.is_finished


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch, make_result: MakeResult) -> list[str]:
    """Return the keys of trials that sweeps run from now on; later suggestions are better."""
    keys: list[str] = []

    def launch(session: Session, *_: object) -> None:
        while not session.search.is_finished:
            planned = session.search.hand_out(session.search.waiting_requests()[0])
            rows = ((None, None), (9, None), (9, 3 + planned.suggestion))
            session.finish(make_result(planned.spec, rows=rows))
            keys.append(planned.spec.key)

    monkeypatch.setattr("orchestrator.execution.launch.launch", launch)
    return keys


def test_a_sweep_on_a_locked_run_is_refused(tmp_path: Path, make_spec: MakeSpec, trained: list[str]) -> None:
    spec = make_spec()
    run = Run.create(tmp_path / "run", spec)
    with run.locked(), pytest.raises(RunFolderError, match="another sweep uses"):
        api.run_sweep(spec, run.path, tmp_path)
    assert (trained, len(run.trials())) == ([], 0)
    api.run_sweep(spec, run.path, tmp_path)
    assert len(trained) == len(run.trials()) == 4


def test_an_extension_trains_only_what_is_new(tmp_path: Path, make_spec: MakeSpec, trained: list[str]) -> None:
    limits = {"limits": ["worst_forgetting <= 0.9"]}
    small = make_spec(
        methods=["naive", "ewc"], seeds={"search": 2, "confirm": 1}, search={"suggestions": 2, "batch": 2}, **limits
    )
    large = make_spec(methods=["naive", "ewc", "replay"], **limits)
    run = api.run_sweep(small, tmp_path / "run", tmp_path)
    kept, before = list(trained), run.trials().set_index("key")
    run = api.run_sweep(large, tmp_path / "run", tmp_path)
    assert len(trained) == len(set(trained)) > len(kept), "no trial is trained twice"
    assert run.n_missing(large) == 0
    now = run.trials().set_index("key")
    assert now.loc[before.index, "spec_hash"].equals(before["spec_hash"]), "their rows are as they were"
    assert {"naive", "ewc"} <= set(now.loc[[key for key in trained if key not in kept], "method"])


def test_a_second_sweep_on_a_run_is_refused(
    tmp_path: Path, make_spec: MakeSpec, trained: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, launch = make_spec(), importlib.import_module("orchestrator.execution.launch").launch
    refused: list[str] = []

    def launch_beside_another(session: Session, *rest: object) -> None:
        monkeypatch.setattr("orchestrator.execution.launch.launch", launch)
        try:
            api.run_sweep(spec, tmp_path / "run", tmp_path)
        except RunFolderError as error:
            refused.append(str(error))
        launch(session, *rest)

    monkeypatch.setattr("orchestrator.execution.launch.launch", launch_beside_another)
    assert len(api.run_sweep(spec, tmp_path / "run", tmp_path).trials()) == 4
    assert len(refused) == 1
    assert len(trained) == 4, "each trial once"


def test_a_lower_budget_ends_with_its_own_answer(
    tmp_path: Path,
    make_spec: MakeSpec,
    trained: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A larger sweep was stopped before it confirmed its best; the smaller one does not need that."""
    fields = {"methods": ["naive", "replay"], "limits": ["worst_forgetting <= 0.5"]}
    large, small = (make_spec(**fields, search={"suggestions": n, "batch": 2}) for n in (8, 4))
    finish = Session.finish

    def interrupted(session: Session, result: TrialResult) -> None:
        if len(trained) == 4 + 8 * 2:
            raise KeyboardInterrupt
        finish(session, result)

    with monkeypatch.context() as patch:
        patch.setattr(Session, "finish", interrupted)
        with pytest.raises(KeyboardInterrupt):
            api.run_sweep(large, tmp_path / "run", tmp_path)
    n_before = len(trained)
    run = api.run_sweep(small, tmp_path / "run", tmp_path)
    assert len(trained) == n_before + 2, "its best suggestion, on two confirm seeds"
    run = api.run_sweep(small, tmp_path / "run", tmp_path)
    assert len(trained) == n_before + 2, "nothing is missing"
    search = run.search(small)
    (scenario,) = summarise(search, run.trials())
    assert scenario.best is not None
    assert scenario.best.chosen is search.cells[1].chosen
    assert (scenario.best.cell.method, search.cells[1].chosen.number) == ("replay", 3)  # type: ignore[union-attr]
    assert run.n_missing(small) == search.n_unknown == 0
    assert guarded(lambda: app(["show", str(run.path)], prog_name="orchestrator")) == 0
    shown = capsys.readouterr().out
    assert "Recommended: replay" in shown
    assert "8 completed trials in the tables, from other searches" in shown
    assert "again" not in shown


def test_search_trials_never_get_the_test_images(open_session: Callable[..., Session], digits: Dataset) -> None:
    session = open_session()
    test = {image.tobytes() for image in digits.test_inputs}
    arrays = dict(session.data())
    assert list(arrays) == ["digits/validation", "digits/test"]
    seen = arrays["digits/validation"]
    assert isinstance(seen, TrainingData)
    assert not test & {image.tobytes() for image in seen.inputs}
    seen = seen.split(0.1, 7)
    assert not test & {image.tobytes() for part in (seen.train_inputs, seen.evaluation_inputs) for image in part}
    held_out = arrays["digits/test"].evaluation_inputs
    assert {image.tobytes() for image in held_out} == test


def test_each_data_set_is_loaded_once(tmp_path: Path, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = make_spec(scenarios=["split-digits/task", "permuted-digits/domain"])
    assert list(load_datasets(spec, tmp_path)) == ["digits"]

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("no network in tests")

    monkeypatch.setattr("torchvision.datasets.mnist.download_and_extract_archive", refuse)
    with pytest.raises(DataError, match=r"data_dir: mnist in .* lacks"):
        load_datasets(make_spec(scenarios=["split-mnist/task", "split-digits/task"]), tmp_path)


def test_time_left_follows_the_pace_since_the_first_end(monkeypatch: pytest.MonkeyPatch) -> None:
    progress = Progress(n_cached=0)
    assert progress.seconds_left(10) is None
    progress.first_end, progress.n_done = 100.0, 1
    assert progress.seconds_left(9) is None, "one end is no pace"
    progress.n_done = 5
    monkeypatch.setattr(time, "monotonic", lambda: 108.0)
    assert progress.seconds_left(4) == pytest.approx(8.0 / 4 * 4)
    assert progress.seconds_left(0) == 0.0
