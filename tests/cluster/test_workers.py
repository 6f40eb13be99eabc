"""Workers that die: a trial is tried again, its row says so, and what cannot be saved is left to the next run."""

from __future__ import annotations

import inspect
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from ray.exceptions import OutOfMemoryError, RayActorError

from orchestrator.cluster import Cluster, connected
from orchestrator.provenance import Placement
from orchestrator.run import Run
from orchestrator.session import Session
from orchestrator.spec import SweepSpec, parse_spec
from orchestrator.streams import PhaseData
from orchestrator.sweep import MAX_RETRIES, run_on_ray
from orchestrator.trial import TrialResult, run_trial
from orchestrator.trialspec import TrialSpec
from orchestrator.workers import _survive_lost_workers

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


def test_a_worker_that_is_lost_in_any_way_fails_its_trial_and_not_the_sweep() -> None:
    """Ray says of a worker that it ended for want of memory with an exception that Tune's manager does not know."""
    manager = SimpleNamespace(_actor_task_failed=lambda task, error: seen.append(error))
    seen: list[Exception] = []
    _survive_lost_workers(manager)
    bug, died = ValueError("a bug"), RayActorError(error_msg="gone")
    for error in (OutOfMemoryError("low on memory"), died, bug):
        manager._actor_task_failed(tracked_actor_task=None, exception=error)
    assert isinstance(seen[0], RayActorError)
    assert "low on memory" in str(seen[0])
    assert seen[1:] == [died, bug]
    _survive_lost_workers(SimpleNamespace())


def test_tune_has_what_is_mended() -> None:
    from ray.air.execution._internal.actor_manager import RayActorManager

    taken = inspect.signature(RayActorManager._actor_task_failed).parameters
    assert list(taken) == ["self", "tracked_actor_task", "exception"]
