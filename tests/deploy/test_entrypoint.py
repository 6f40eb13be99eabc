"""The command of the RayJob, submitted as KubeRay's submitter does, to a head that asks for a token."""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import yaml

from tests.conftest import SMALL
from tests.deploy.test_kuberay import JOB

pytestmark = pytest.mark.ray

ROOT = Path(__file__).parents[2]
RAY = str(Path(sys.executable).with_name("ray"))
SECONDS = 120.0


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    """Return what KubeRay sets in the pods, and what the image does."""
    return os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",  # else the head would drain for 30 seconds as it ends
    }


@pytest.fixture(scope="module")
def dashboard(environment: dict[str, str]) -> Iterator[str]:
    """Start a head and yield the address of its dashboard."""
    ports: list[int] = []
    for _ in range(3):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            ports.append(probe.getsockname()[1])
    with tempfile.TemporaryDirectory(prefix="job-", ignore_cleanup_errors=True) as folder:
        listens = [f"--port={ports[0]}", f"--dashboard-port={ports[1]}", f"--dashboard-agent-listen-port={ports[2]}"]
        head = subprocess.Popen(
            [RAY, "start", "--head", "--block", "--num-cpus=2", f"--temp-dir={folder}", *listens],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            address = f"http://127.0.0.1:{ports[1]}"
            wait_for(address, environment["RAY_AUTH_TOKEN"], head)
            yield address
        finally:
            head.terminate()
            try:
                head.wait(timeout=60)
            except subprocess.TimeoutExpired:
                head.kill()
                head.wait()


def wait_for(address: str, token: str, head: subprocess.Popen[bytes]) -> None:
    """Wait until a dashboard says that its cluster is well, as KubeRay does."""
    asked = urllib.request.Request(f"{address}/api/gcs_healthz", headers={"Authorization": f"Bearer {token}"})
    deadline = time.monotonic() + SECONDS
    while True:
        assert head.poll() is None, "ray start ended"
        assert time.monotonic() < deadline, "the dashboard does not answer"
        try:
            urllib.request.urlopen(asked, timeout=5).close()
            return
        except OSError:
            time.sleep(0.2)


def test_the_command_passes_two_shells_and_ends_a_sweep(
    dashboard: str, environment: dict[str, str], tmp_path: Path
) -> None:
    spec = tmp_path / "sweep.yaml"
    spec.write_text(yaml.safe_dump(SMALL | {"name": "job", "search": {"suggestions": 1}}), encoding="utf-8")
    command = JOB["spec"]["entrypoint"]
    for known, here in {"/spec/sweep.yaml": str(spec), "s3://EDIT-BUCKET/runs": str(tmp_path / "runs")}.items():
        assert known in command
        command = command.replace(known, here)
    script = (
        f"ray job submit --address {dashboard} --no-wait --submission-id one -- {command} ; "
        f"ray job logs --address {dashboard} --follow one ; ray job status --address {dashboard} one"
    )
    done = subprocess.run(
        ["/bin/bash", "-ce", "--", script],
        env=environment,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert "succeeded" in done.stdout, done.stdout + done.stderr
    assert "Recommended: naive" in done.stdout
    trials = pd.read_parquet(tmp_path / "runs" / "job" / "trials")
    assert set(trials["status"]) == {"completed"}
    assert json.loads((tmp_path / "runs" / "job" / "answer.json").read_text(encoding="utf-8"))


def test_without_the_token_nothing_is_submitted(dashboard: str) -> None:
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"{dashboard}/api/jobs/", timeout=5)
