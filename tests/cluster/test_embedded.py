"""The sweep command as a user starts it, on a cluster of its own: from start to end, and ended before."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pandas as pd
import psutil
import pytest

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
    """A sweep that was interrupted by Ctrl-C, then by SIGTERM, and then ran to its end.

    Args:
        folder: its run folder.
        outputs: what each of the three commands printed.
        codes: their exit codes.
        kept: key -> start of the trials that were complete before the last command.
        listening: addresses that the port of the last one's dashboard was open on.
        refused: path on that dashboard -> HTTP status without the token.
    """

    folder: Path
    outputs: list[str] = field(default_factory=list)
    codes: list[int] = field(default_factory=list)
    kept: pd.Series[str] = field(default_factory=lambda: pd.Series(dtype=str))
    listening: list[str] = field(default_factory=list)
    refused: dict[str, int] = field(default_factory=dict)

    @property
    def output(self) -> str:
        """Return what the last command printed."""
        return self.outputs[-1]


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


def interrupted(done: Whole, process: subprocess.Popen[str], signal_number: int, n_trials: int) -> None:
    """Send a signal to a sweep once `n_trials` more are committed."""
    n_before = len(list(done.folder.glob("trials/*.parquet")))
    with process:
        try:
            while len(list(done.folder.glob("trials/*.parquet"))) < n_before + n_trials:
                assert process.poll() is None, process.communicate()[0]
                time.sleep(0.02)
            os.kill(process.pid, signal_number)
            done.outputs.append(process.communicate(timeout=120)[0])
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    done.codes.append(process.returncode)


def knocked_at(done: Whole, process: subprocess.Popen[str]) -> None:
    """Read what a sweep prints to its end, and knock at its dashboard meanwhile."""
    assert process.stdout is not None
    done.outputs.append("")
    for line in process.stdout:
        done.outputs[-1] += line
        if line.startswith("Ray dashboard: "):
            dashboard = line.split()[2]
            done.listening = listening(process.pid, urlsplit(dashboard).port)
            job = urllib.request.Request(
                f"{dashboard}/api/jobs/", b'{"entrypoint": "true"}', {"Content-Type": "application/json"}
            )
            done.refused = {path: status_of(dashboard + path) for path in PATHS} | {"job": status_of(job)}


@pytest.fixture(scope="module")
def whole(two_nodes: TwoNodes, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """Run the small sweep with three commands: twice on the shared cluster, and on its own to the end.

    `make faults` interrupts many more, on clusters of their own.
    """
    folder = tmp_path_factory.mktemp("whole")
    done, spec = Whole(folder / "run"), write_spec(SMALL, folder)
    for signal_number, n_trials in ((signal.SIGINT, 2), (signal.SIGTERM, 1)):
        process = start(spec, done.folder, "--address", two_nodes.address)
        interrupted(done, process, signal_number, n_trials)
    done.kept = pd.read_parquet(done.folder / "trials").set_index("key")["started_at"]
    with start(spec, done.folder, "--num-cpus", "2") as process:
        knocked_at(done, process)
    done.codes.append(process.returncode)
    return done


def test_a_sweep_ends_with_its_answer(whole: Whole, reference: Path) -> None:
    assert whole.codes[-1] == 0, whole.output
    assert "starting a Ray cluster on this machine" in whole.output
    assert "Recommended: replay" in whole.output
    assert_same_results(whole.folder, reference)


def test_an_embedded_cluster_is_a_new_one(whole: Whole, two_nodes: TwoNodes) -> None:
    """Ray's own default is to join the cluster that was started last; it may end at any moment."""
    trials = pd.read_parquet(whole.folder / "trials").set_index("key")
    nodes = set(trials.drop(whole.kept.index)["node_id"])
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
    by_the_last = trials[~trials["key"].isin(whole.kept.index)]
    assert by_the_last["process_id"].nunique() <= 4 < len(by_the_last)
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


def test_ctrl_c_loses_no_complete_trial(whole: Whole) -> None:
    assert whole.codes[0] == 3, whole.outputs[0]
    assert "finishing" in whole.outputs[0]
    assert "run the same command again" in whole.outputs[0]
    assert "Traceback" not in whole.outputs[0]


def test_sigterm_loses_no_complete_trial(whole: Whole) -> None:
    assert whole.codes[1] == 143, whole.outputs[1]
    assert "complete trials are kept; run the same command again" in whole.outputs[1]
    assert "Traceback" not in whole.outputs[1]


def test_what_was_complete_is_not_trained_again(whole: Whole, reference: Path) -> None:
    assert 3 <= len(whole.kept) < len(pd.read_parquet(reference / "trials"))
    now = pd.read_parquet(whole.folder / "trials").set_index("key")["started_at"]
    assert (now[whole.kept.index] == whole.kept).all()


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
