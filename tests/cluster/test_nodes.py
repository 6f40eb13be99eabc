"""Sweeps on a cluster of two nodes, one with a logical GPU, and a disk that becomes full on the way."""

from __future__ import annotations

import errno
import time
from pathlib import Path

import pandas as pd
import pytest

from orchestrator import api
from orchestrator.core.errors import StorageError
from orchestrator.core.placement import Placement
from orchestrator.execution.cluster import Cluster
from orchestrator.execution.session import Session
from orchestrator.execution.tuner import run_on_ray
from orchestrator.results.run import Run
from orchestrator.spec.loading import parse_spec
from orchestrator.spec.trial_spec import TrialSpec
from orchestrator.storage.local import LocalStorage
from orchestrator.streams.datasets import PhaseData
from orchestrator.trial.protocol import run_trial
from orchestrator.trial.result import TrialResult
from tests.cluster.conftest import RAY_IN_THIS_PROCESS, SMALL, TwoNodes, assert_same_results

pytestmark = RAY_IN_THIS_PROCESS


def meets_the_other_kind(
    spec: TrialSpec, data: PhaseData, placement: Placement, report: None, checkpoint: Path
) -> TrialResult:
    """Wait until a trial of the other kind, for a GPU or not, has begun."""
    marks = checkpoint.parents[1] / "marks"
    kind, other = ("gpu", "cpu") if spec.method == "replay" else ("cpu", "gpu")
    (marks / kind).touch()
    end = time.monotonic() + 60
    while not (marks / other).exists() and time.monotonic() < end:
        time.sleep(0.02)
    if not (marks / other).exists():
        (marks / "alone").touch()
    return run_trial(spec, data, placement, report, checkpoint)


def test_gpu_and_cpu_trials_run_side_by_side(two_nodes: TwoNodes, tmp_path: Path) -> None:
    # The GPU is logical, so its trials compute on the CPU.
    resources = {"methods": {"replay": {"gpus": 1, "device": "cpu"}}}
    spec = parse_spec(SMALL | {"methods": ["naive", "replay"], "resources": resources})
    run = Run.create(tmp_path / "run", spec)
    (tmp_path / "run" / "marks").mkdir()
    run_on_ray(Session(spec, run, tmp_path), Cluster(False, ""), function=meets_the_other_kind)
    trials = run.trials()
    assert run.n_missing(spec) == 0
    assert set(trials.loc[trials["method"] == "replay", "node_id"]) == {two_nodes.gpu}
    assert two_nodes.cpu in set(trials.loc[trials["method"] == "naive", "node_id"])
    assert not (tmp_path / "run" / "marks" / "alone").exists()


def test_after_a_full_disk_the_tables_are_the_same(
    two_nodes: TwoNodes, reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, write, n_writes = parse_spec(SMALL), LocalStorage.write, 0

    def full_disk(storage: LocalStorage, name: str, content: bytes, purpose: str = "row", durable: bool = True) -> None:
        nonlocal n_writes
        n_writes += name.endswith(".parquet")
        if n_writes > 9:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(storage, name, content, purpose, durable)

    with monkeypatch.context() as patch:
        patch.setattr(LocalStorage, "write", full_disk)
        with pytest.raises(StorageError, match=r"[Nn]o space left on device.*run the same command again"):
            api.run_sweep(spec, tmp_path / "run")
    assert len(pd.read_parquet(tmp_path / "run" / "trials")) == 4
    assert api.run_sweep(spec, tmp_path / "run").n_missing(spec) == 0
    assert_same_results(tmp_path / "run", reference)
