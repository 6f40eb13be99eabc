"""Sweeps whose run folder is in an object store: tables written by the driver, checkpoints by the workers."""

from __future__ import annotations

import os
import signal
import subprocess
import uuid
from pathlib import Path

import pandas as pd
import yaml

from orchestrator import api
from orchestrator.core.placement import Placement
from orchestrator.execution.cluster import connected
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
from tests.cluster.conftest import RAY_IN_THIS_PROCESS, SMALL, command, environment

pytestmark = RAY_IN_THIS_PROCESS

SECRET = "hushhush"


def test_the_command_line_runs_and_shows_a_sweep_in_a_store(s3: str, tmp_path: Path) -> None:
    root = join(s3, uuid.uuid4().hex)
    content = SMALL | {"scenarios": ["split-digits/task"], "methods": ["naive", "ewc"]}
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(content))

    def call(*arguments: str) -> str:
        done = subprocess.run(
            command(*arguments), capture_output=True, text=True, env=environment(), cwd=tmp_path, timeout=300
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert SECRET not in done.stdout + done.stderr
        return done.stdout

    name = parse_spec(content).name
    out = call("sweep", "spec.yaml", "--storage", root, "--num-cpus", "2")
    assert f"/{name}/trials and s3://" in out
    assert sorted(p.name for p in tmp_path.iterdir()) == ["spec.yaml"], "nothing is left on this machine's disk"
    assert "up to 0 to do" in call("plan", "spec.yaml", "--storage", root)
    assert "average_accuracy" in call("show", join(root, name))
    frame = pd.read_parquet(join(join(root, name), "trials"))
    assert (frame["status"] == "completed").all()
    assert not frame["key"].duplicated().any()
    assert SECRET not in frame.to_csv()


def dies_after_a_checkpoint(
    spec: TrialSpec, data: PhaseData, placement: Placement, report: None, checkpoint: StoredFile
) -> TrialResult:
    """Kill the worker of one trial once, after its third task, and write down where the next attempt begins."""
    trial_module.SECONDS_BETWEEN_CHECKPOINTS = 0.0
    if spec.phase != "confirm" or spec.method != "naive":
        return run_trial(spec, data, placement, None, checkpoint)
    marks = checkpoint.storage.folder("marks")

    def tell(after: int, row: list[float]) -> None:
        if not marks.names() and after == 2:
            marks.write("died", b"")
            os.kill(os.getpid(), signal.SIGKILL)
        if "died" in marks.names() and "resumed" not in marks.names():
            marks.write("resumed", str(after).encode())

    return run_trial(spec, data, placement, tell, checkpoint)


def test_a_worker_goes_on_from_the_checkpoint_of_a_dead_one_in_the_store(s3: str, tmp_path: Path) -> None:
    spec = parse_spec(
        SMALL | {"scenarios": ["split-digits/task"], "methods": ["naive"], "seeds": {"search": 1, "confirm": 1}}
    )
    run = Run(api.run_place(spec, storage=join(s3, uuid.uuid4().hex)))
    with run.locked(), connected(None, 2) as cluster:
        session = Session(spec, Run.create(run.storage, spec), tmp_path)
        run_on_ray(session, cluster, function=dies_after_a_checkpoint)  # type: ignore[arg-type]
        session.close()
    trials = run.trials()
    assert (trials["status"] == "completed").all()
    assert trials.set_index("phase").loc["confirm", "n_attempts"] == 2
    checkpoints = run.storage.folder("checkpoints")
    assert checkpoints.folder("marks").read("resumed") == b"2", "it did not start from its beginning"
    assert [name for name in checkpoints.names() if name.endswith(".pt")] == []
