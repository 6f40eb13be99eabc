"""The sweep command as a user starts it, on a cluster of its own: from start to end, and ended before."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pandas as pd
import psutil
import pytest

from orchestrator import api
from orchestrator.spec.loading import parse_spec
from tests.cluster.conftest import (
    RAY_IN_THIS_PROCESS,
    SMALL,
    TwoNodes,
    assert_same_results,
    call,
    command,
    environment,
    start,
    write_spec,
)

pytestmark = RAY_IN_THIS_PROCESS

PATHS = ("/api/jobs/", "/nodes?view=summary", "/api/v0/actors", "/api/cluster_status")


@dataclass
class Whole:
    """A sweep that ran from start to end.

    Args:
        folder: its run folder.
        output: what it printed.
        listening: addresses that its dashboard's port was open on.
        refused: path on the dashboard -> HTTP status without the token.
    """

    folder: Path
    output: str = ""
    listening: list[str] = field(default_factory=list)
    refused: dict[str, int] = field(default_factory=dict)


def listening(process: int, port: int | None) -> list[str]:
    """Return the addresses that a process or its children listen on at `port`."""
    found = []
    for child in psutil.Process(process).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            found += [
                each.laddr.ip
                for each in child.net_connections("tcp")
                if each.status == psutil.CONN_LISTEN and each.laddr.port == port
            ]
    return found


def status_of(request: str | urllib.request.Request) -> int:
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


@pytest.fixture(scope="module")
def whole(two_nodes: TwoNodes, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """Run the small sweep beside the shared cluster, and knock at its dashboard meanwhile."""
    folder = tmp_path_factory.mktemp("whole")
    done = Whole(folder / "run")
    with start(write_spec(SMALL, folder), done.folder) as process:
        assert process.stdout is not None
        for line in process.stdout:
            done.output += line
            if line.startswith("Ray dashboard: "):
                dashboard = line.split()[2]
                done.listening = listening(process.pid, urlsplit(dashboard).port)
                job = urllib.request.Request(
                    f"{dashboard}/api/jobs/", b'{"entrypoint": "true"}', {"Content-Type": "application/json"}
                )
                done.refused = {path: status_of(dashboard + path) for path in PATHS} | {"job": status_of(job)}
    assert process.returncode == 0, done.output
    return done


def test_a_sweep_ends_with_its_answer(whole: Whole, reference: Path) -> None:
    assert "starting a Ray cluster on this machine" in whole.output
    assert "Recommended: replay" in whole.output
    assert_same_results(whole.folder, reference)


def test_an_embedded_cluster_is_a_new_one(whole: Whole, two_nodes: TwoNodes) -> None:
    """Ray's own default is to join the cluster that was started last; it may end at any moment."""
    nodes = set(pd.read_parquet(whole.folder / "trials")["node_id"])
    assert len(nodes) == 1
    assert not nodes & {two_nodes.cpu, two_nodes.gpu}


def test_the_dashboard_listens_on_loopback_only(whole: Whole) -> None:
    assert whole.listening == ["127.0.0.1"]


@pytest.mark.parametrize("path", [*PATHS, "job"])
def test_the_dashboard_asks_for_the_token(whole: Whole, path: str) -> None:
    assert whole.refused[path] in (401, 403)


def test_usage_reports_are_off(two_nodes: TwoNodes) -> None:
    from ray._common.usage import usage_lib

    assert not usage_lib.usage_stats_enabled()


def test_trials_share_workers_and_name_their_place(whole: Whole) -> None:
    trials = pd.read_parquet(whole.folder / "trials")
    assert trials["process_id"].nunique() <= 4 < len(trials)
    for column in ("code_revision", "torch_version", "ray_version", "spec_hash", "data_hash", "host", "node_id"):
        assert trials[column].notna().all(), column
    assert (trials["device"] == "cpu").all()
    assert (trials["threads"] == 1).all()
    assert (trials["peak_memory_bytes"] > 1e7).all()
    assert (trials["seconds"] >= trials["train_seconds"]).all()


def test_a_complete_run_starts_no_cluster(whole: Whole, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert call("sweep", write_spec(SMALL, tmp_path), "--run", str(whole.folder)) == 0
    again = capfd.readouterr().out
    assert call("show", str(whole.folder)) == 0
    assert "Ray cluster" not in again
    assert capfd.readouterr().out.strip() in again


def test_a_recorded_trial_repeats_bit_for_bit(whole: Whole, capfd: pytest.CaptureFixture[str]) -> None:
    trials = pd.read_parquet(whole.folder / "trials")
    key = trials.loc[(trials["method"] == "replay") & (trials["phase"] == "search"), "key"].iloc[0]
    assert call("trial", "--from", str(whole.folder), key) == 0
    assert "identical to the recorded one" in capfd.readouterr().out


@pytest.fixture
def started(tmp_path: Path) -> Iterator[list[subprocess.Popen[str]]]:
    """Return a list of processes; those that still run at the end are killed."""
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def after_trials(started: list[subprocess.Popen[str]], folder: Path, n_trials: int) -> subprocess.Popen[str]:
    """Start the small sweep and return its process once `n_trials` more are committed."""
    n_before = len(list(folder.glob("trials/*.parquet")))
    process = start(write_spec(SMALL, folder.parent), folder)
    started.append(process)
    while len(list(folder.glob("trials/*.parquet"))) < n_before + n_trials:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)
    return process


def assert_resumes(folder: Path, reference: Path, n_least: int) -> None:
    """Run the sweep again, on the shared cluster: what was complete is not trained again, and the tables are equal."""
    kept = pd.read_parquet(folder / "trials").set_index("key")["started_at"]
    assert n_least <= len(kept) < len(pd.read_parquet(reference / "trials"))
    api.run_sweep(parse_spec(SMALL), folder)
    assert_same_results(folder, reference)
    now = pd.read_parquet(folder / "trials").set_index("key")["started_at"]
    assert (now[kept.index] == kept).all()


def test_ctrl_c_and_sigterm_lose_no_complete_trial(
    two_nodes: TwoNodes, reference: Path, started: list[subprocess.Popen[str]], tmp_path: Path
) -> None:
    """Interrupt one sweep by each, one after the other. `make faults` kills sweeps too, and CI a few of its points."""
    folder = tmp_path / "run"
    process = after_trials(started, folder, 2)
    os.kill(process.pid, signal.SIGINT)
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 3, output
    assert "finishing" in output
    assert "run the same command again" in output
    assert "Traceback" not in output
    process = after_trials(started, folder, 1)
    os.kill(process.pid, signal.SIGTERM)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 143, output
    assert "complete trials are kept; run the same command again" in output
    assert "Traceback" not in output
    assert_resumes(folder, reference, 3)


def test_a_cluster_that_cannot_start_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = subprocess.run(
        command("sweep", write_spec(SMALL, tmp_path), "--run", str(tmp_path / "run")),
        capture_output=True,
        text=True,
        env=environment() | {"RAY_TMPDIR": str(tmp_path / "file")},
        timeout=300,
    )
    assert done.returncode == 2
    assert "Cannot start a Ray cluster on this machine: " in done.stderr
    assert "RAY_TMPDIR" in done.stderr
    assert "Traceback" not in done.stderr
