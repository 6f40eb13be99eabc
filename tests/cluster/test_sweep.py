"""Whole sweeps through the command line on embedded clusters: the same tables whatever happens on the way."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
import yaml

from tests.cluster.conftest import SMALL, assert_same_results, command, environment

pytestmark = pytest.mark.ray
Sweep = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a sweep that ran through on two workers."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    spec = folder.parent / "spec.yaml"
    spec.write_text(yaml.safe_dump(SMALL))
    done = subprocess.run(
        command("sweep", str(spec), "--run", str(folder), "--num-cpus", "2"),
        capture_output=True,
        text=True,
        env=environment(),
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Recommended" in done.stdout
    assert "Ray dashboard: http://127.0.0.1:" in done.stdout
    return folder


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Callable[[Path], subprocess.Popen[str]]]:
    """Return a function that starts the small sweep; what is still running at the end is killed."""
    processes: list[subprocess.Popen[str]] = []

    def start(folder: Path) -> subprocess.Popen[str]:
        path = tmp_path / "spec.yaml"
        path.write_text(yaml.safe_dump(SMALL))
        process = subprocess.Popen(
            command("sweep", str(path), "--run", str(folder), "--num-cpus", "2"),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment(),
            start_new_session=True,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def wait_for_trials(process: subprocess.Popen[str], folder: Path, n_trials: int) -> None:
    """Wait until `n_trials` are committed."""
    while len(list(folder.glob("trials/*.parquet"))) < n_trials:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)


def test_one_worker_gives_the_tables_of_two(undisturbed: Path, sweep: Sweep, tmp_path: Path) -> None:
    done = sweep(SMALL, tmp_path / "run", "--num-cpus", "1")
    assert done.returncode == 0, done.stderr
    assert_same_results(tmp_path / "run", undisturbed)


def test_trials_share_workers_and_the_rows_say_where_they_ran(undisturbed: Path) -> None:
    trials = pd.read_parquet(undisturbed / "trials")
    assert trials["process_id"].nunique() <= 4 < len(trials)
    for column in ("code_revision", "torch_version", "ray_version", "spec_hash", "data_hash", "host", "node_id"):
        assert trials[column].notna().all(), column
    assert (trials["device"] == "cpu").all()
    assert (trials["threads"] == 1).all()
    assert (trials["peak_memory_bytes"] > 1e7).all()
    assert (trials["seconds"] >= trials["train_seconds"]).all()


def test_a_sweep_killed_half_way_and_run_again_gives_the_undisturbed_tables(
    undisturbed: Path, started: Callable[[Path], subprocess.Popen[str]], sweep: Sweep, tmp_path: Path
) -> None:
    process = started(tmp_path / "run")
    wait_for_trials(process, tmp_path / "run", 25)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    kept = pd.read_parquet(tmp_path / "run" / "trials").set_index("key")["started_at"]
    done = sweep(SMALL, tmp_path / "run")
    assert done.returncode == 0, done.stdout + done.stderr
    assert_same_results(tmp_path / "run", undisturbed)
    now = pd.read_parquet(tmp_path / "run" / "trials").set_index("key")["started_at"]
    assert (now[kept.index] == kept).all()


def test_one_interrupt_finishes_the_trials_in_flight_and_says_how_to_go_on(
    undisturbed: Path, started: Callable[[Path], subprocess.Popen[str]], sweep: Sweep, tmp_path: Path
) -> None:
    process = started(tmp_path / "run")
    wait_for_trials(process, tmp_path / "run", 10)
    os.kill(process.pid, signal.SIGINT)
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 3, output
    assert "finishing" in output
    assert "run the same command again" in output
    assert "Traceback" not in output
    assert sweep(SMALL, tmp_path / "run").returncode == 0
    assert_same_results(tmp_path / "run", undisturbed)


def test_sigterm_stops_at_once_in_order_and_says_how_to_go_on(
    undisturbed: Path, started: Callable[[Path], subprocess.Popen[str]], sweep: Sweep, tmp_path: Path
) -> None:
    process = started(tmp_path / "run")
    wait_for_trials(process, tmp_path / "run", 10)
    os.kill(process.pid, signal.SIGTERM)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 143, output
    assert "complete trials are kept; run the same command again" in output
    assert "Traceback" not in output
    kept = pd.read_parquet(tmp_path / "run" / "trials")
    assert 10 <= len(kept) < len(pd.read_parquet(undisturbed / "trials"))
    assert sweep(SMALL, tmp_path / "run").returncode == 0
    assert_same_results(tmp_path / "run", undisturbed)


def test_an_extension_trains_only_what_is_new(undisturbed: Path, sweep: Sweep, tmp_path: Path) -> None:
    smaller = SMALL | {
        "methods": ["naive", "ewc"],
        "seeds": {"search": 2, "confirm": 1},
        "search": {"suggestions": 2, "batch": 2},
    }
    assert sweep(smaller, tmp_path / "run").returncode == 0
    kept = pd.read_parquet(tmp_path / "run" / "trials").set_index("key")["started_at"]
    assert sweep(SMALL, tmp_path / "run").returncode == 0
    now = pd.read_parquet(tmp_path / "run" / "trials").set_index("key")["started_at"]
    assert (now[kept.index] == kept).all()
    full = pd.read_parquet(undisturbed / "trials")
    assert set(full["key"]) <= set(now.index)


def test_a_complete_run_starts_no_cluster_and_shows_the_same_answer(undisturbed: Path, sweep: Sweep) -> None:
    again = sweep(SMALL, undisturbed)
    shown = subprocess.run(
        command("show", str(undisturbed)), capture_output=True, text=True, env=environment(), timeout=60
    )
    assert again.returncode == shown.returncode == 0
    assert "Ray dashboard" not in again.stdout
    assert shown.stdout.strip() in again.stdout


def test_a_diverging_suggestion_is_a_failed_row_and_the_sweep_goes_on(sweep: Sweep, tmp_path: Path) -> None:
    spec = SMALL | {
        "scenarios": ["split-digits/task"],
        "methods": ["naive", "ewc"],
        "limits": [],
        # A step of 100 with weight decay multiplies the weights by -99.
        "spaces": {"ewc": {"learning_rate": [0.01, 100.0], "weight_decay": 1.0, "penalty_weight": 1.0}},
    }
    done = sweep(spec, tmp_path / "run")
    assert done.returncode == 0, done.stdout + done.stderr
    trials = pd.read_parquet(tmp_path / "run" / "trials")
    failed = trials[trials["status"] == "failed"]
    assert len(failed)
    assert failed["reason"].str.startswith("diverged: ").all()
    assert failed["average_accuracy"].isna().all()
    assert "failed: split-digits/task ewc" in done.stdout
    assert set(trials.loc[trials["phase"] == "confirm", "method"]) == {"naive", "ewc"}


def test_gpus_that_the_cluster_will_never_have_are_refused_at_once(sweep: Sweep, tmp_path: Path) -> None:
    done = sweep(SMALL, tmp_path / "run", "--gpus-per-trial", "64")
    assert done.returncode == 2
    assert "expected a request that some node can serve" in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert not list((tmp_path / "run").glob("trials/*"))


def test_a_recorded_trial_repeated_alone_is_bit_equal(undisturbed: Path) -> None:
    trials = pd.read_parquet(undisturbed / "trials")
    key = trials.loc[(trials["method"] == "replay") & (trials["phase"] == "search"), "key"].iloc[0]
    done = subprocess.run(
        command("trial", "--from", str(undisturbed), key), capture_output=True, text=True, env=environment(), timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "identical to the recorded one" in done.stdout


def test_a_cluster_that_does_not_start_is_told(sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / "file"))
    done = sweep(SMALL, tmp_path / "run")
    assert done.returncode == 2
    assert "cluster: expected to start one on this machine, got" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_address_where_nobody_listens_is_refused_at_once(sweep: Sweep, tmp_path: Path) -> None:
    done = sweep(SMALL, tmp_path / "run", "--address", "127.0.0.1:1")
    assert done.returncode == 2
    assert "expected a running Ray cluster, got '127.0.0.1:1'" in done.stderr
    assert "Traceback" not in done.stderr
