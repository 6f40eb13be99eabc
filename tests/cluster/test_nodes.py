"""Sweeps on a cluster of two nodes, one with a logical GPU, and through faults of storage."""

from __future__ import annotations

import errno
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
import ray
from ray.cluster_utils import Cluster

from orchestrator import api
from orchestrator.core.errors import StorageError
from orchestrator.spec.loading import parse_spec
from tests.cluster.conftest import RAY_IN_THIS_PROCESS, SMALL, assert_same_results

pytestmark = RAY_IN_THIS_PROCESS


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[dict[str, str]]:
    """Start a node with a CPU and a node with a CPU and a logical GPU, joined; return kind -> node id."""
    cluster = Cluster()
    try:
        plain = cluster.add_node(num_cpus=1, num_gpus=0)
        with_gpu = cluster.add_node(num_cpus=1, num_gpus=1)
        cluster.wait_for_nodes()
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
        yield {"cpu": plain.node_id, "gpu": with_gpu.node_id}
    finally:
        ray.shutdown()
        cluster.shutdown()


def test_a_sweep_uses_the_gpu_node_and_the_cpu_node_at_the_same_time(two_nodes: dict[str, str], tmp_path: Path) -> None:
    # The GPU is logical, so its trials are told to compute on the CPU.
    resources = {"methods": {"replay": {"gpus": 1, "device": "cpu"}}}
    # Long enough that both kinds of workers have started before either kind of trial is done.
    spec = parse_spec(SMALL | {"resources": resources, "training": {"epochs": 30, "batch_size": 32}})
    run = api.run_sweep(spec, tmp_path / "run")
    trials = run.trials()
    assert run.n_missing(spec) == 0
    on_gpu = trials[trials["method"] == "replay"]
    assert set(on_gpu["node_id"]) == {two_nodes["gpu"]}
    assert two_nodes["cpu"] in set(trials.loc[trials["method"] != "replay", "node_id"])
    assert _overlap(on_gpu, trials[trials["node_id"] == two_nodes["cpu"]])


def test_the_same_tables_on_two_nodes_and_after_a_full_disk(
    two_nodes: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from orchestrator.storage.local import LocalStorage

    spec = parse_spec(SMALL)
    undisturbed = api.run_sweep(spec, tmp_path / "undisturbed")
    write, n_writes = LocalStorage.write, 0

    def full_disk(storage: LocalStorage, name: str, content: bytes, purpose: str = "row", durable: bool = True) -> None:
        nonlocal n_writes
        n_writes += name.endswith(".parquet")
        if n_writes > 21:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(storage, name, content, purpose, durable)

    monkeypatch.setattr(LocalStorage, "write", full_disk)
    with pytest.raises(StorageError, match=r"[Nn]o space left on device.*run the same command again"):
        api.run_sweep(spec, tmp_path / "run")
    monkeypatch.undo()
    n_kept = len(pd.read_parquet(tmp_path / "run" / "trials"))
    assert n_kept == 10
    again = api.run_sweep(spec, tmp_path / "run")
    assert again.n_missing(spec) == 0
    assert_same_results(tmp_path / "run", undisturbed.path)


def _overlap(one: pd.DataFrame, other: pd.DataFrame) -> bool:
    """Return whether a trial of one kind ran while one of the other did."""
    spans = [
        [(row.started_at, row.started_at + pd.Timedelta(seconds=row.seconds)) for row in frame.itertuples()]
        for frame in (one, other)
    ]
    return any(a[0] < b[1] and b[0] < a[1] for a in spans[0] for b in spans[1])


def test_a_sweep_without_an_address_starts_its_own_cluster_beside_one_that_runs_here(
    two_nodes: dict[str, str], sweep: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    """Ray's own default is to join the cluster that was started last; it may end at any moment."""
    done = sweep(SMALL | {"methods": ["naive"], "scenarios": ["split-digits/task"]}, tmp_path / "own")
    assert done.returncode == 0, done.stderr
    nodes = set(pd.read_parquet(tmp_path / "own" / "trials")["node_id"])
    assert len(nodes) == 1
    assert not nodes & set(two_nodes.values())
