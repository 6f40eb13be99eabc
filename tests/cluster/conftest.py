"""What the tests on real clusters share: a small sweep, the command line in a process of its own, comparable tables."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from orchestrator.core.metrics import METRICS

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
    "scenarios": ["split-digits/task", "split-digits/class"],
    "methods": ["naive", "ewc", "replay"],
    "limits": ["worst_forgetting <= 0.5"],
    "seeds": {"search": 2, "confirm": 2},
    "search": {"suggestions": 4, "batch": 2},
    "model": {"hidden": [32]},
    "training": {"epochs": 2, "batch_size": 32},
    "spaces": {"replay": {"buffer_size": {"low": 20, "high": 200, "log": True}}},
}
"""Two scenarios, one of which has nothing feasible for ewc: 60 trials at most."""


def environment() -> dict[str, str]:
    """Return an environment for a process that finds the packages of this checkout."""
    return os.environ | {"PYTHONPATH": str(ROOT)}


def command(*arguments: str) -> list[str]:
    """Return the command line of the orchestrator."""
    return [sys.executable, "-m", "orchestrator", *arguments]


@pytest.fixture
def sweep(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return a function that runs a spec through the command line, in a process and a cluster of its own."""

    def run(spec: dict[str, Any], folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
        path = tmp_path / f"{folder.name}.yaml"
        path.write_text(yaml.safe_dump(spec))
        return subprocess.run(
            command("sweep", str(path), "--run", str(folder), *options),
            capture_output=True,
            text=True,
            env=environment(),
            cwd=tmp_path,
            timeout=300,
        )

    return run


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
