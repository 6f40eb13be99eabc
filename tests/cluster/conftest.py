"""What the tests on real clusters share: one cluster of two nodes, a small sweep, its reference tables, comparisons."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml

import orchestrator.execution  # noqa: F401 (first: it sets what Ray reads on import)

import ray  # isort: skip
from ray.cluster_utils import Cluster as Nodes

from orchestrator.cli.main import app
from orchestrator.cli.shared.exits import guarded
from orchestrator.core.metrics import METRICS
from orchestrator.execution.cluster import Cluster
from orchestrator.execution.session import Session
from orchestrator.execution.tune_internals import silence_dead_workers
from orchestrator.results.run import Run
from orchestrator.spec.loading import parse_spec
from orchestrator.trial.protocol import run_trial

ROOT = Path(__file__).parents[2]

RAY_IN_THIS_PROCESS = [
    pytest.mark.ray,
    # Ray leaves sockets and files of the processes that it ends to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
]
"""Marks of tests that start or join a cluster in their own process."""

SMALL: dict[str, Any] = {
    "name": "small",
    "scenarios": ["split-digits/class"],
    "methods": ["naive", "ewc", "replay"],
    "limits": ["worst_forgetting <= 0.7"],
    "seeds": {"search": 2, "confirm": 1},
    "search": {"suggestions": 3, "batch": 2},
    "model": {"hidden": [32]},
    "training": {"epochs": 2, "batch_size": 32},
    "spaces": {"replay": {"buffer_size": {"low": 20, "high": 200, "log": True}}},
}
"""Three cells, in one of which, ewc, nothing is feasible."""


@dataclass(frozen=True)
class TwoNodes:
    """The cluster that the tests share: a node with a CPU, and one with a CPU and a logical GPU.

    Args:
        address: for `--address`.
        cpu: id of the node without a GPU.
        gpu: id of the other.
    """

    address: str
    cpu: str
    gpu: str


@pytest.fixture(scope="session")
def two_nodes() -> Iterator[TwoNodes]:
    """Start the shared cluster once, and join it, as quietly as a command does."""
    nodes = Nodes()
    silence_dead_workers()
    try:
        plain = nodes.add_node(num_cpus=1, num_gpus=0)
        with_gpu = nodes.add_node(num_cpus=1, num_gpus=1)
        nodes.wait_for_nodes()
        ray.init(address=nodes.address, log_to_driver=False, logging_level="ERROR")
        yield TwoNodes(nodes.address, plain.node_id, with_gpu.node_id)
    finally:
        ray.shutdown()
        nodes.shutdown()


@pytest.fixture
def cluster(two_nodes: TwoNodes) -> Cluster:
    """Return the shared cluster as if it were embedded: no more trials are handed out than there is room for."""
    return Cluster(True, "")


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the run folder of the small sweep as this process runs it, one trial after the other and without Ray."""
    folder, spec = tmp_path_factory.mktemp("reference") / "run", parse_spec(SMALL)
    torch.set_num_threads(1)
    session = Session(spec, Run.create(folder, spec), folder)
    while not session.search.is_finished:
        trial = session.search.hand_out(session.search.waiting_requests()[0]).spec
        session.finish(run_trial(trial, session.arrays(trial)))
    session.close()
    return folder


def environment() -> dict[str, str]:
    """Return an environment for a process that finds the packages of this checkout."""
    return os.environ | {"PYTHONPATH": str(ROOT)}


def command(*arguments: str) -> list[str]:
    """Return the command line of the orchestrator."""
    return [sys.executable, "-m", "orchestrator", *arguments]


def call(*arguments: str) -> int:
    """Run the command line in this process, which has joined the shared cluster, and return its exit code."""
    return guarded(lambda: app(list(arguments), prog_name="orchestrator"))


def write_spec(spec: dict[str, Any], folder: Path) -> str:
    """Write a spec into a folder and return its path."""
    path = folder / "spec.yaml"
    path.write_text(yaml.safe_dump(spec))
    return str(path)


def start(spec: str, folder: Path, *options: str) -> subprocess.Popen[str]:
    """Start a sweep in a process group of its own."""
    return subprocess.Popen(
        command("sweep", spec, "--run", str(folder), *options),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(),
        start_new_session=True,
    )


def results(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the sorted tables of a run, without the columns that differ from run to run."""
    trials = pd.read_parquet(folder / "trials")
    identity = ["key", "scenario", "method", "phase", "suggestion", "seed", "hyperparameters", "status", *METRICS]
    accuracy = pd.read_parquet(folder / "accuracy")
    return (
        trials[identity].sort_values("key", ignore_index=True),
        accuracy.sort_values(["key", "after_task", "task"], ignore_index=True),
    )


def assert_same_results(folder: Path, other: Path) -> None:
    """Assert that two runs hold the same rows, each once."""
    for one, two in zip(results(folder), results(other), strict=True):
        pd.testing.assert_frame_equal(one, two, check_exact=True)
    assert not pd.read_parquet(folder / "trials")["key"].duplicated().any()
