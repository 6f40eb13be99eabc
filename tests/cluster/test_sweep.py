"""Whole sweeps on the shared cluster: what is refused, what fails, and what Ray's internals are needed for."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import ray

from orchestrator.core.errors import ClusterError
from orchestrator.execution import tune_internals
from orchestrator.execution.cluster import Cluster, connected
from orchestrator.execution.session import Session
from orchestrator.execution.tuner import run_on_ray
from orchestrator.results.run import Run
from orchestrator.spec.loading import parse_spec
from tests.cluster.conftest import RAY_IN_THIS_PROCESS, SMALL, TwoNodes, assert_same_results, call, write_spec

pytestmark = RAY_IN_THIS_PROCESS


def test_a_diverging_suggestion_is_a_failed_row(
    two_nodes: TwoNodes, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    spec = SMALL | {
        "methods": ["naive", "ewc"],
        "limits": [],
        # A step of 100 with weight decay multiplies the weights by -99.
        "spaces": {"ewc": {"learning_rate": [0.01, 100.0], "weight_decay": 1.0, "penalty_weight": 1.0}},
    }
    assert call("sweep", write_spec(spec, tmp_path), "--run", str(tmp_path / "run")) == 0
    trials = pd.read_parquet(tmp_path / "run" / "trials")
    failed = trials[trials["status"] == "failed"]
    assert len(failed)
    assert failed["reason"].str.startswith("diverged: ").all()
    assert failed["average_accuracy"].isna().all()
    assert "failed: split-digits/class ewc" in capfd.readouterr().out
    assert set(trials.loc[trials["phase"] == "confirm", "method"]) == {"naive", "ewc"}


def test_workers_measure_diagnostics_and_results_are_the_same(
    two_nodes: TwoNodes, reference: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    assert call("sweep", write_spec(SMALL | {"diagnostics": True}, tmp_path), "--run", str(run)) == 0
    assert_same_results(run, reference)
    trials, diagnostics = pd.read_parquet(run / "trials"), pd.read_parquet(run / "diagnostics")
    assert set(diagnostics["key"]) == set(trials.loc[trials["status"] == "completed", "key"])
    assert {"fisher_share_ever", "feature_rank", "plasticity_gap"} <= set(diagnostics["name"])


def test_gpus_that_no_node_has_are_refused(
    two_nodes: TwoNodes, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    spec = write_spec(SMALL, tmp_path)
    assert call("sweep", spec, "--run", str(tmp_path / "run"), "--gpus-per-trial", "64") == 2
    printed = capfd.readouterr()
    assert "No node of the cluster can run a trial with 1 CPUs and 64 GPUs" in printed.err
    assert "--gpus-per-trial" in printed.err
    assert "Traceback" not in printed.err + printed.out
    assert not list((tmp_path / "run").glob("trials/*"))


def test_a_budget_ends_a_sweep_on_a_cluster(
    two_nodes: TwoNodes, reference: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """More trials are handed out than there is room for, and none of them starts once the budget is reached."""
    arguments = ("sweep", write_spec(SMALL, tmp_path), "--run", str(tmp_path / "run"))
    assert call(*arguments, "--trial-budget", "3") == 3
    assert len(pd.read_parquet(tmp_path / "run" / "trials")) == 3
    printed = capfd.readouterr().out
    assert "The budget of 3 trials is reached: finishing" in printed
    assert "The budget of 3 trials ended this run.\n" in printed
    assert "trials are missing, so this answer is not final." in printed
    assert call(*arguments) == 0
    assert_same_results(reference, tmp_path / "run")


def test_an_address_without_a_cluster_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **_: pytest.fail("Ray itself would try for minutes"))
    with (
        pytest.raises(ClusterError, match=r"Cannot reach a Ray cluster at --address 127\.0\.0\.1:1: "),
        connected("127.0.0.1:1"),
    ):
        pass


def test_without_rays_internals_the_tables_are_the_same(
    cluster: Cluster, reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tune_internals, "hide_all", True)
    monkeypatch.setattr(tune_internals, "_missing", {})
    spec, said = parse_spec(SMALL), list[str]()
    with connected(None):
        session = Session(spec, Run.create(tmp_path / "run", spec), tmp_path)
        run_on_ray(session, cluster, on_event=said.append)
        session.close()
    assert_same_results(tmp_path / "run", reference)
    (note,) = said
    assert note.startswith(f"note: Ray {ray.__version__} lacks internals")
    assert "_actor_cache" in note
    assert "print_to_stdstream" in note
