"""Sweeps whose run folder is in an object store: tables written by the driver, checkpoints by the workers."""

from __future__ import annotations

import os
import signal
import uuid
from pathlib import Path

import pandas as pd
import pytest

from orchestrator import api
from orchestrator.core.placement import Placement
from orchestrator.execution.cluster import Cluster
from orchestrator.execution.session import Session
from orchestrator.execution.tuner import run_on_ray
from orchestrator.results.run import Run
from orchestrator.spec.loading import parse_spec
from orchestrator.spec.trial_spec import TrialSpec
from orchestrator.storage.base import StoredFile
from orchestrator.storage.uris import join
from orchestrator.streams.datasets import PhaseData
from orchestrator.trial import protocol as trial_module
from orchestrator.trial.protocol import run_trial
from orchestrator.trial.result import TrialResult
from tests.cluster.conftest import RAY_IN_THIS_PROCESS, SMALL, TwoNodes, call, write_spec

pytestmark = RAY_IN_THIS_PROCESS

SECRET = "hushhush"


def test_a_sweep_runs_in_an_object_store(
    two_nodes: TwoNodes, s3: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = join(s3, uuid.uuid4().hex)
    write_spec(SMALL | {"scenarios": ["split-digits/task"], "methods": ["naive", "ewc"]}, tmp_path)
    monkeypatch.chdir(tmp_path)

    def printed(*arguments: str) -> str:
        assert call(*arguments) == 0
        both = capfd.readouterr()
        assert SECRET not in both.out + both.err
        return both.out

    out = printed("sweep", "spec.yaml", "--storage", root)
    assert "/small/trials and s3://" in out
    assert sorted(p.name for p in tmp_path.iterdir()) == ["spec.yaml"], "nothing is left on this machine's disk"
    assert "at most 0 to do" in printed("plan", "spec.yaml", "--storage", root)
    assert "average accuracy" in printed("show", join(root, "small"))
    frame = pd.read_parquet(join(join(root, "small"), "trials"))
    assert (frame["status"] == "completed").all()
    assert not frame["key"].duplicated().any()
    assert SECRET not in frame.to_csv()


def dies_after_a_checkpoint(
    spec: TrialSpec, data: PhaseData, placement: Placement, report: None, checkpoint: StoredFile
) -> TrialResult:
    """Kill the worker of one trial once, after its third task, and note after which task the next attempt begins."""
    trial_module.SECONDS_BETWEEN_CHECKPOINTS = 0.0
    if spec.phase != "confirm" or spec.method != "naive":
        return run_trial(spec, data, placement, None, checkpoint)
    marks = checkpoint.storage.folder("marks")

    def report_row(after: int, row: object, stream: object) -> None:
        if not marks.names() and after == 2:
            marks.write("died", b"")
            os.kill(os.getpid(), signal.SIGKILL)
        if "died" in marks.names() and "resumed" not in marks.names():
            marks.write("resumed", str(after).encode())

    return run_trial(spec, data, placement, report_row, checkpoint)


def test_a_retry_resumes_from_a_checkpoint_in_the_store(cluster: Cluster, s3: str, tmp_path: Path) -> None:
    spec = parse_spec(SMALL | {"methods": ["naive"], "seeds": {"search": 1, "confirm": 1}})
    run = Run(api.run_place(spec, storage=join(s3, uuid.uuid4().hex)))
    with run.locked():
        session = Session(spec, Run.create(run.storage, spec), tmp_path)
        run_on_ray(session, cluster, function=dies_after_a_checkpoint)  # type: ignore[arg-type]
        session.close()
    trials = run.trials()
    assert (trials["status"] == "completed").all()
    assert trials.set_index("phase").loc["confirm", "n_attempts"] == 2
    checkpoints = run.storage.folder("checkpoints")
    assert checkpoints.folder("marks").read("resumed") == b"2", "it did not start from its beginning"
    assert [name for name in checkpoints.names() if name.endswith(".pt")] == []
