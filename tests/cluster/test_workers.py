"""Workers that die, and sweeps that are stopped: which trials are tried again, and what is left to the next run."""

from __future__ import annotations

import errno
import gc
import logging
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from ray import tune
from ray.tune.experiment import Trial

from orchestrator.core.errors import StorageError
from orchestrator.core.placement import Placement
from orchestrator.core.signals import Terminated
from orchestrator.execution import searcher as searcher_module
from orchestrator.execution import tuner as tuner_module
from orchestrator.execution.capacity import NodeResources
from orchestrator.execution.cluster import Cluster
from orchestrator.execution.scheduler import KeepWorkers
from orchestrator.execution.searcher import TuneSearcher
from orchestrator.execution.session import Session
from orchestrator.execution.tuner import MAX_RETRIES, run_on_ray
from orchestrator.results.run import Run
from orchestrator.spec.loading import parse_spec
from orchestrator.spec.sweep_spec import SweepSpec
from orchestrator.spec.trial_spec import TrialSpec
from orchestrator.streams.datasets import PhaseData
from orchestrator.trial.protocol import run_trial
from orchestrator.trial.result import TrialResult
from tests.cluster.conftest import RAY_IN_THIS_PROCESS
from tests.conftest import without_finals

pytestmark = RAY_IN_THIS_PROCESS


def small_spec(**changed: Any) -> SweepSpec:
    fields = {
        "methods": ["naive", "ewc"],
        "seeds": {"search": 2, "confirm": 1},
        "search": {"suggestions": 2, "batch": 2},
        "model": {"hidden": [16]},
        "training": {"epochs": 1},
    }
    return parse_spec(without_finals(fields | changed))


@pytest.fixture
def spec() -> SweepSpec:
    return small_spec()


def dies_once(spec: TrialSpec, data: PhaseData, placement: Placement, report: None, checkpoint: Path) -> TrialResult:
    """Kill the worker at the first attempt of one trial."""
    marker = checkpoint.with_suffix(".died")
    if spec.method == "naive" and spec.phase == "confirm" and not marker.exists():
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return run_trial(spec, data, placement, report, checkpoint)


def always_dies(spec: TrialSpec, data: PhaseData, placement: Placement, report: None, checkpoint: Path) -> TrialResult:
    """Kill the worker at every attempt of one trial."""
    if spec.method == "ewc" and spec.seed == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return run_trial(spec, data, placement, report, checkpoint)


def dies_while_idle(
    spec: TrialSpec, data: PhaseData, placement: Placement, report: None, checkpoint: Path
) -> TrialResult:
    """Let one worker of a batch die once its trial has its row, while the batch's other trial still runs."""
    folder = checkpoint.parents[1]
    (folder / "idle").mkdir(exist_ok=True)
    if spec.phase == "search" and is_first(folder / "idle" / "long"):
        wait(lambda: any(not lives(int(path.stem)) for path in folder.glob("idle/*.pid")))
    elif spec.phase == "search" and is_first(folder / "idle" / "short"):

        def die() -> None:
            wait((folder / "trials" / f"{spec.key}.parquet").exists)
            (folder / "idle" / f"{os.getpid()}.pid").touch()
            os.kill(os.getpid(), signal.SIGKILL)

        threading.Thread(target=die, daemon=True).start()
    return run_trial(spec, data, placement, report, checkpoint)


def is_first(marker: Path) -> bool:
    try:
        marker.mkdir()
    except FileExistsError:
        return False
    return True


def lives(process: int) -> bool:
    try:
        return psutil.Process(process).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait(until: Callable[[], bool], seconds: float = 120) -> None:
    """Wait for something that comes; if it does not, the test fails on it later."""
    end = time.monotonic() + seconds
    while not until() and time.monotonic() < end:
        time.sleep(0.02)


def test_a_worker_that_dies_idle_costs_no_trial(cluster: Cluster, tmp_path: Path) -> None:
    """Its death is noticed when the next trial is handed to it, which Tune would take for the trial's second loss."""
    spec = small_spec(methods=["ewc"], search={"suggestions": 2, "batch": 1})
    run, said = Run.create(tmp_path / "run", spec), list[str]()
    run_on_ray(Session(spec, run, tmp_path), cluster, function=dies_while_idle, on_event=said.append)
    assert len(list(tmp_path.glob("run/idle/*.pid"))) == 1
    assert len(said) == 1
    assert run.n_missing(spec) == 0
    assert (run.trials()["status"] == "completed").all()
    assert sorted(run.trials()["n_attempts"]) == [1, 1, 1, 1, 2]


class StartsLate:
    """Trials whose second worker does not start before the first has run three, which then waits for the second."""

    N_TRIALS = 3
    MOST_SECONDS = 20.0

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return StartsLate.arrived, (self.folder,)

    @staticmethod
    def arrived(folder: Path) -> StartsLate:
        """Return what a worker that starts unpickles."""
        try:
            (folder / "first").mkdir()
        except FileExistsError:
            if not (folder / "second").exists():
                (folder / "second").write_text(str(os.getpid()))
            wait(lambda: len(list(folder.glob("*.ran"))) >= StartsLate.N_TRIALS, StartsLate.MOST_SECONDS)
            if (folder / "second").read_text() == str(os.getpid()) and (folder / "dies").exists():
                os.kill(os.getpid(), signal.SIGKILL)
        return StartsLate(folder)

    def __call__(
        self, spec: TrialSpec, data: PhaseData, placement: Placement, report: None, checkpoint: Path
    ) -> TrialResult:
        (self.folder / f"{spec.key}.{os.getpid()}.ran").touch()
        if len(list(self.folder.glob("*.ran"))) > self.N_TRIALS:
            wait(lambda: len({path.suffixes[0] for path in self.folder.glob("*.ran")}) > 1, self.MOST_SECONDS)
        return run_trial(spec, data, placement, report, checkpoint)


def ends_at_once(spec: TrialSpec, data: PhaseData, placement: Placement, report: None, checkpoint: Path) -> TrialResult:
    return TrialResult(spec.key, "completed", n_correct=[[None], [1]], n_examples=[1])


def trials_in_memory() -> dict[int, Trial]:
    return {id(thing): thing for thing in gc.get_objects() if type(thing) is Trial}


def test_tune_keeps_no_trial_that_has_ended(cluster: Cluster, tmp_path: Path) -> None:
    spec = small_spec(methods=["naive"], seeds={"search": 15, "confirm": 1})
    session, kept = Session(spec, Run.create(tmp_path / "run", spec), tmp_path), list[int]()
    before = trials_in_memory()  # of the tests before, in this process
    session.listen(lambda *_: kept.append(len(trials_in_memory().keys() - before.keys())))
    run_on_ray(session, cluster, function=ends_at_once)
    assert len(kept) == 16
    assert max(kept) <= 8, "those that run, wait or have just ended, on a cluster of three slots"


def test_a_worker_that_starts_late_is_kept(cluster: Cluster, spec: SweepSpec, tmp_path: Path) -> None:
    """Else one worker after the other starts for seconds and is ended, and trials that are short run one by one."""
    run, marks, _ = one_starts_late(cluster, spec, tmp_path)
    processes = set(run.trials()["process_id"])
    assert len(processes) == 2
    assert int((marks / "second").read_text()) in processes


def test_a_worker_that_dies_as_it_starts_late(cluster: Cluster, spec: SweepSpec, tmp_path: Path) -> None:
    run, marks, said = one_starts_late(cluster, spec, tmp_path, "dies")
    assert run.n_missing(spec) == 0
    assert said == []
    assert set(run.trials()["n_attempts"]) == {1}
    processes = set(run.trials()["process_id"])
    assert len(processes) == 2
    assert int((marks / "second").read_text()) not in processes


def one_starts_late(cluster: Cluster, spec: SweepSpec, folder: Path, *marked: str) -> tuple[Run, Path, list[str]]:
    """Run a sweep whose second worker starts late; return its run, the folder of marks, and what was said."""
    run, marks, said = Run.create(folder / "run", spec), folder / "marks", list[str]()
    marks.mkdir()
    for name in marked:
        (marks / name).touch()
    run_on_ray(Session(spec, run, folder), cluster, function=StartsLate(marks), on_event=said.append)
    return run, marks, said


def errs(spec: TrialSpec, data: PhaseData, placement: Placement, report: None, checkpoint: Path) -> TrialResult:
    """Be a fault of the machine for one trial."""
    result = run_trial(spec, data, placement, report, checkpoint)
    if spec.method == "ewc" and spec.seed == 1:
        return TrialResult(spec.key, "error", "a GPU that is off the bus", provenance=result.provenance)
    return result


def test_a_process_with_an_error_runs_no_more_trials(cluster: Cluster, spec: SweepSpec, tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", spec)
    run_on_ray(Session(spec, run, tmp_path), cluster, function=errs)
    trials = run.trials().sort_values("started_at")
    errors = trials[trials["status"] == "error"]
    assert len(errors) > 0
    for _, error in errors.iterrows():
        same = trials[trials["process_id"] == error["process_id"]]
        assert same["key"].iloc[-1] == error["key"]


def waits_for_an_interrupt(
    spec: TrialSpec, data: PhaseData, placement: Placement, report: None, checkpoint: Path
) -> TrialResult:
    """Leave a mark, and go on once the sweep was interrupted."""
    marks = checkpoint.parents[1] / "marks"
    (marks / spec.key).touch()
    while not (marks / "interrupted").exists():
        time.sleep(0.05)
    return run_trial(spec, data, placement, report, checkpoint)


def test_ctrl_c_does_not_wait_for_pending_trials(
    cluster: Cluster, spec: SweepSpec, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """On a joined cluster more trials are handed out than there is room for, so that an autoscaler adds nodes."""
    run = Run.create(tmp_path / "run", spec)
    session = Session(spec, run, tmp_path)
    marks, counts = tmp_path / "run" / "marks", list[tuple[int, int]]()
    marks.mkdir()

    def interrupt() -> None:
        while len(session.search.running) < 4 or len(list(marks.iterdir())) < 2:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    def drained(n_in_flight: int) -> None:
        counts.append((n_in_flight, len(session.search.running)))
        (marks / "interrupted").touch()

    threading.Thread(target=interrupt, daemon=True).start()
    run_on_ray(session, Cluster(False, ""), drained, function=waits_for_an_interrupt)
    assert "Trial" not in "".join(capfd.readouterr()), "Tune says of those that wait that they completed"
    assert counts == [(2, 4)]
    assert len(session.search.running) == 2, "those that wait are left to the next run"
    assert run.trials()["status"].tolist() == ["completed", "completed"]


def test_ctrl_c_before_any_worker_ends_at_once(cluster: Cluster, spec: SweepSpec, tmp_path: Path) -> None:
    run, said = Run.create(tmp_path / "run", spec), list[int]()
    session = Session(spec, run, tmp_path)

    def interrupt() -> None:
        while not session.search.running:
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    run_on_ray(session, Cluster(False, ""), said.append)
    assert said == [0]
    assert len(run.trials()) == 0


@pytest.mark.parametrize("stopped", [Terminated, KeyboardInterrupt])
@pytest.mark.parametrize("outcome", [None, SystemExit(1), RuntimeError("whatever Tune makes of it")])
def test_a_stop_that_was_swallowed_stops(
    cluster: Cluster,
    spec: SweepSpec,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    outcome: BaseException | None,
    stopped: type[BaseException],
) -> None:
    """What a signal's handler raises is lost if it interrupts a callback that C code has called."""

    def tuner(session: Session, searcher: TuneSearcher, scheduler: KeepWorkers, *_: object) -> SimpleNamespace:
        def fit() -> None:
            assert scheduler.choose_trial_to_run(SimpleNamespace(get_trials=list)) is None
            searcher.told_to_drain, searcher.stopped = True, stopped
            with pytest.raises(stopped):
                scheduler.choose_trial_to_run(SimpleNamespace(get_trials=list))
            if outcome is not None:
                raise outcome

        return SimpleNamespace(fit=fit)

    monkeypatch.setattr(tuner_module, "_tuner", tuner)
    with pytest.raises(stopped):
        run_on_ray(Session(spec, Run.create(tmp_path / "run", spec), tmp_path), cluster)


def test_a_stopped_sweep_leaves_no_worker_behind(
    cluster: Cluster, spec: SweepSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, note_start = Run.create(tmp_path / "run", spec), TuneSearcher.note_start

    def stop(searcher: TuneSearcher, config: dict[str, Any]) -> None:
        note_start(searcher, config)
        searcher.told_to_drain, searcher.stopped = True, KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(TuneSearcher, "note_start", stop)
        with pytest.raises(KeyboardInterrupt):
            run_on_ray(Session(spec, run, tmp_path), Cluster(False, ""))
    assert run.n_missing(spec) > 0
    run_on_ray(Session(spec, run, tmp_path), cluster)
    assert run.n_missing(spec) == 0


def test_the_first_fault_is_raised_and_not_tunes(
    cluster: Cluster, spec: SweepSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = Session(spec, Run.create(tmp_path / "run", spec), tmp_path)

    def fit(tuner: object) -> None:
        session.fault = StorageError("the run's disk is full")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tune.Tuner, "fit", fit)
    with pytest.raises(StorageError, match="the run's disk is full"):
        run_on_ray(session, cluster)


def test_a_dead_workers_trial_is_tried_again(
    cluster: Cluster, spec: SweepSpec, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run, said = Run.create(tmp_path / "run", spec), list[str]()
    run_on_ray(Session(spec, run, tmp_path), cluster, function=dies_once, on_event=said.append)
    printed = "".join(capfd.readouterr())
    assert "Traceback" not in printed
    assert "A worker died" not in printed
    assert len(said) == 1
    assert said[0].startswith("tried again: split-digits/task naive #0 seed")
    assert "\n" not in said[0]
    trials = run.trials()
    assert run.n_missing(spec) == 0
    assert (trials["status"] == "completed").all()
    retried = trials[trials["n_attempts"] == 2]
    assert list(retried["method"] + retried["phase"]) == ["naiveconfirm"]


def test_a_trial_that_always_dies_is_an_error(cluster: Cluster, tmp_path: Path) -> None:
    spec = small_spec(search={"suggestions": 1, "batch": 1})
    run = Run.create(tmp_path / "run", spec)
    session = Session(spec, run, tmp_path)
    run_on_ray(session, cluster, function=always_dies)
    trials = run.trials()
    lost = trials[trials["status"] == "error"]
    assert set(lost["method"]) == {"ewc"}
    assert lost["reason"].str.startswith("worker lost: ").all()
    assert (lost["n_attempts"] == 1 + MAX_RETRIES).all()
    assert lost["average_accuracy"].isna().all()
    naive = trials[trials["method"] == "naive"]
    assert (naive["status"] == "completed").all()
    assert run.n_missing(spec) > 0
    again = Session(spec, run, tmp_path)
    run_on_ray(again, cluster)
    assert run.n_missing(spec) == 0
    assert (run.trials()["status"] == "completed").all()
    assert not run.trials()["key"].duplicated().any()


def test_a_closed_temporary_folder_is_reported(
    cluster: Cluster, spec: SweepSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: object) -> str:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    run = Run.create(tmp_path / "run", spec)
    with pytest.raises(StorageError, match=r"Cannot write to .*[Nn]o space left.*run the same command again"):
        run_on_ray(Session(spec, run, tmp_path), cluster)


def test_a_full_temporary_folder_disturbs_nothing(
    cluster: Cluster, spec: SweepSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_refused = 0

    def refuse(*_: object, **__: object) -> None:
        nonlocal n_refused
        n_refused += 1
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    printed: list[logging.LogRecord] = []
    handler = logging.Handler()
    monkeypatch.setattr(handler, "emit", printed.append)
    monkeypatch.setattr("ray.train._internal.storage._pyarrow_fs_copy_files", refuse)
    run = Run.create(tmp_path / "run", spec)
    logging.getLogger("ray.tune.execution.experiment_state").addHandler(handler)
    try:
        run_on_ray(Session(spec, run, tmp_path), cluster)
    finally:
        logging.getLogger("ray.tune.execution.experiment_state").removeHandler(handler)
    assert run.n_missing(spec) == 0
    assert n_refused, "Tune did not try to save its state"
    assert printed == []


def test_a_request_without_a_node_is_shown_once(
    spec: SweepSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes: list[NodeResources] = []
    said: list[str] = []
    monkeypatch.setattr(searcher_module, "_SECONDS_BETWEEN_LOOKS", -1.0)
    lost = SimpleNamespace(is_embedded=False, nodes=lambda: nodes)
    session = Session(spec, Run.create(tmp_path / "run", spec), tmp_path)
    searcher = TuneSearcher(session, lost, said.append)  # type: ignore[arg-type]
    for trial in range(3):
        searcher.suggest(str(trial))
    assert said == ["waiting: no node has the 1 CPUs and 0 GPUs of a trial now; the sweep goes on when one joins"]
    nodes.append(NodeResources(1, 0))
    searcher.suggest("3")
    assert len(said) == 1
    nodes.clear()
    searcher.suggest("4")
    assert len(said) == 2


def test_the_checkpoint_of_a_complete_trial_is_deleted(spec: SweepSpec, tmp_path: Path) -> None:
    """A worker that was taken for dead may write one after another has finished its trial."""
    run = Run.create(tmp_path / "run", spec)
    session = Session(spec, run, tmp_path)
    planned = session.search.hand_out(session.search.waiting_requests()[0])
    session.finish(run_trial(planned.spec, session.arrays(planned.spec)))
    late, other = Path(run.checkpoint_path(planned.spec.key)), Path(run.checkpoint_path("0" * 16))
    erred = session.search.hand_out(session.search.waiting_requests()[0]).spec.key
    session.finish(TrialResult(erred, "error", "worker lost"))
    kept = Path(run.checkpoint_path(erred))
    late.parent.mkdir()
    for path in (late, other, kept):
        path.touch()
    session.close()
    assert set(late.parent.iterdir()) == {other, kept}, "the next run tries that trial again, and goes on from it"
