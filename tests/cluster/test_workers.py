"""Workers that die: a trial is tried again, its row says so, and what cannot be saved is left to the next run."""

from __future__ import annotations

import inspect
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from ray.exceptions import NodeDiedError, OutOfMemoryError, RayActorError, RayError

from orchestrator.cluster import Cluster, connected
from orchestrator.provenance import Placement
from orchestrator.run import Run
from orchestrator.session import Session
from orchestrator.spec import SweepSpec, parse_spec
from orchestrator.streams import PhaseData
from orchestrator.sweep import MAX_RETRIES, run_on_ray
from orchestrator.trial import TrialResult, run_trial
from orchestrator.trialspec import TrialSpec
from orchestrator.workers import MOST_LOST_MACHINES, Losses

pytestmark = [
    pytest.mark.ray,
    # Ray leaves sockets and files of the processes that it ends to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with connected(None, 2) as connection:
        yield connection


@pytest.fixture
def spec() -> SweepSpec:
    return parse_spec(
        {
            "methods": ["naive", "ewc"],
            "seeds": {"search": 2, "confirm": 1},
            "search": {"suggestions": 2, "batch": 2},
            "model": {"hidden": [16]},
            "training": {"epochs": 1},
        }
    )


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


def test_a_trial_whose_worker_dies_is_tried_again_and_said_in_a_line(
    cluster: Cluster, spec: SweepSpec, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run, said = Run.create(tmp_path / "run", spec), list[str]()
    run_on_ray(Session(spec, run, tmp_path), cluster, function=dies_once, on_loss=said.append)
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


def test_a_trial_that_always_kills_its_worker_is_an_error_that_the_next_run_tries_again(
    cluster: Cluster, spec: SweepSpec, tmp_path: Path
) -> None:
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


def told_to_tune(losses: Losses, *exceptions: Exception) -> list[Exception]:
    """Return what Tune hears of the losses of one trial's workers."""
    heard: list[Exception] = []
    manager = SimpleNamespace(_actor_task_failed=lambda tracked_actor_task, exception: heard.append(exception))
    worker = object()
    losses.watch(SimpleNamespace(_actor_manager=manager, _actor_to_trial={worker: SimpleNamespace(trial_id="7")}))
    for exception in exceptions:
        manager._actor_task_failed(tracked_actor_task=SimpleNamespace(_tracked_actor=worker), exception=exception)
    return heard


def test_a_worker_that_is_lost_in_any_way_fails_its_trial_and_not_the_sweep() -> None:
    """Ray says of a worker that it ended for want of memory with an exception that Tune does not know."""
    losses = Losses()
    (low,) = told_to_tune(losses, OutOfMemoryError("low on memory"))
    assert isinstance(low, RayActorError)
    assert "low on memory" in str(low)
    assert not low.preempted
    assert losses.reason("7") == "worker lost: low on memory"
    bug = ValueError("a bug")
    assert told_to_tune(losses, bug) == [bug]
    losses.watch(SimpleNamespace())  # a version of Tune without its internals
    assert Losses().reason("8") == "worker lost: no reason given"


def test_what_ray_says_of_a_loss_is_told_without_its_heading_and_names() -> None:
    text = "The actor died unexpectedly before finishing this task.\n\tclass_name: A\n\tpid: 7\nIts process died.\n"
    losses = Losses()
    told_to_tune(losses, RayActorError(error_msg=text))
    assert losses.reason("7") == "worker lost: Its process died."
    told_to_tune(losses, RayActorError(error_msg=text + "very long " * 100))
    assert len(losses.reason("7")) < 320


@pytest.mark.parametrize(
    "loss",
    [
        RayActorError(error_msg="The actor died because its node has died. Node Id: 0"),
        RayActorError(error_msg="taken away", preempted=True),
        NodeDiedError("gone"),
    ],
    ids=["node", "preempted", "unreachable"],
)
def test_a_machine_that_is_lost_is_no_fault_of_the_trial_up_to_a_bound(loss: RayError) -> None:
    losses = Losses()
    heard = told_to_tune(losses, *[loss] * (MOST_LOST_MACHINES + 2))
    counted = [not error.preempted for error in heard if isinstance(error, RayActorError)]
    assert counted == [False] * MOST_LOST_MACHINES + [True] * 2
    assert losses.reason("7").startswith("worker lost: its machine is gone: ")


def test_tune_has_what_is_hooked() -> None:
    from ray.air.execution._internal.actor_manager import RayActorManager
    from ray.tune.execution.tune_controller import TuneController

    taken = inspect.signature(RayActorManager._actor_task_failed).parameters
    assert list(taken) == ["self", "tracked_actor_task", "exception"]
    assert list(inspect.signature(RayActorManager._actor_start_failed).parameters)[1:] == ["tracked_actor", "exception"]
    for name in ("_actor_manager", "_actor_to_trial"):
        assert f"self.{name}" in inspect.getsource(TuneController)


def test_the_checkpoint_of_a_trial_that_has_its_rows_is_deleted(spec: SweepSpec, tmp_path: Path) -> None:
    """A worker that was taken for dead may write one after another has finished its trial."""
    run = Run.create(tmp_path / "run", spec)
    session = Session(spec, run, tmp_path)
    planned = session.search.hand_out(session.search.waiting_requests()[0])
    session.finish(run_trial(planned.spec, session.phase_data("digits", planned.spec.phase)))
    late, other = Path(run.checkpoint_path(planned.spec.key)), Path(run.checkpoint_path("0" * 16))
    erred = session.search.hand_out(session.search.waiting_requests()[0]).spec.key
    session.finish(TrialResult(erred, "error", "worker lost"))
    kept = Path(run.checkpoint_path(erred))
    late.parent.mkdir()
    for path in (late, other, kept):
        path.touch()
    session.close()
    assert set(late.parent.iterdir()) == {other, kept}, "the next run tries that trial again, and goes on from it"
