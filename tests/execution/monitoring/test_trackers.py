"""`--log-to`: MLflow's server, TensorBoard's reader and a file of Weights & Biases hold what the tables hold."""

from __future__ import annotations

import importlib.util
import os
import socket
import struct
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.core.errors import MissingExtraError, StorageError, UsageError
from orchestrator.core.scores import ACCURACY
from orchestrator.execution.monitoring.trackers import tracking
from orchestrator.execution.monitoring.trackers.records import EndRecord, SweepRecord, TrialRecord, boundaries_of
from orchestrator.execution.monitoring.trackers.targets import Target, parse_targets
from orchestrator.execution.session import Session
from orchestrator.results.run import Run
from orchestrator.spec.sweep_spec import SweepSpec
from orchestrator.trial.protocol import run_trial

SERVER = Path(sys.prefix) / "mlflow" / "bin" / "mlflow"
"""Of an environment of its own (`make mlflow`): MLflow's server needs an earlier pyarrow than we have."""

NAMES = ["a/b", "c"]
FIELDS = {
    "name": "tracked",
    "methods": ["naive", "ewc"],
    "search": {"suggestions": 2, "batch": 2},
    "seeds": {"search": 2, "confirm": 1},
}


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.fixture(scope="module")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start an MLflow server and return its address."""
    if not SERVER.exists():
        pytest.skip("MLflow's server is not here: make mlflow")
    folder, port = tmp_path_factory.mktemp("mlflow"), free_port()
    command = [SERVER, "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/store.db", "--artifacts-destination", f"{folder}/artifacts"]
    plain = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    with open(folder / "log", "wb") as log, subprocess.Popen(command, stdout=log, stderr=log, env=plain) as server:
        address = f"http://127.0.0.1:{port}"
        try:
            for _ in range(600):
                try:
                    urllib.request.urlopen(f"{address}/health", timeout=5).close()
                    break
                except OSError:
                    assert server.poll() is None, (folder / "log").read_text()
                    time.sleep(0.2)
            yield address
        finally:
            server.terminate()


@pytest.fixture
def sweep(tmp_path: Path, make_spec: Callable[..., SweepSpec]) -> Callable[..., Session]:
    """Return a function that runs a sweep without Ray, or goes on with it, as far as `most` trials, and is tracked."""

    def run(target: str, most: int = 1000, **fields: Any) -> tuple[Session, list[str]]:
        spec, said = make_spec(**FIELDS | fields), list[str]()
        session = Session(spec, Run.create(tmp_path / "run", spec), tmp_path / "data")
        with tracking.tracked(parse_targets([target]), session, said.append):
            for _ in range(most):
                if session.search.is_finished:
                    break
                trial = session.search.hand_out(session.search.waiting_requests()[0])
                session.finish(run_trial(trial.spec, session.arrays(trial.spec)))
            session.close()
            (tmp_path / "run" / "report.html").write_text("a page")
        return session, said

    return run  # type: ignore[return-value]


def expected(session: Session) -> dict[tuple[str, str, int], dict[str, float]]:
    """Return cell and hyper-parameters -> name of a metric -> its value, by another way than the code's own."""
    trials, found = session.run.trials(), dict[tuple[str, str, int], dict[str, float]]()
    for row in trials.to_dict("records"):
        own = found.setdefault((row["scenario"], row["method"], row["suggestion"]), {})
        split = "test" if row["phase"] == "confirm" else "validation"
        matrix = session.run.matrix(row["key"])
        for task, values in matrix.iterrows():
            own[f"{split}/seed {row['seed']}/score/{task}"] = float(values.iloc[-1])
        own[f"{split}/seed {row['seed']}/average"] = float(matrix.iloc[:, -1].mean())
    means = trials.assign(split=trials["phase"].eq("confirm").map({True: "test", False: "validation"}))
    groups = means.groupby(["scenario", "method", "suggestion", "split"])["average_accuracy"].mean()
    for (scenario, method, number, split), mean in groups.items():  # type: ignore[misc]
        found[scenario, method, number][f"{split}/average_accuracy"] = float(mean)
    return found


def agree(found: Mapping[str, float], wanted: Mapping[str, float]) -> bool:
    return {name: found[name] for name in wanted} == pytest.approx(dict(wanted), abs=1e-6)


def test_mlflow_has_a_run_for_each_suggestion(sweep: Any, mlflow_server: str) -> None:
    from mlflow import MlflowClient

    sweep(f"mlflow:{mlflow_server}", most=3)
    client = MlflowClient(mlflow_server)

    def runs() -> dict[str, Any]:
        found = client.get_experiment_by_name("tracked")
        assert found is not None
        return {run.info.run_name: run for run in client.search_runs([found.experiment_id])}

    assert runs()["tracked"].data.tags["continual_sweep.is_complete"] == "false"
    session, said = sweep(f"mlflow:{mlflow_server}")
    sweep(f"mlflow:{mlflow_server}")  # nothing is written twice
    assert said == []
    wanted, found = expected(session), runs()
    assert len(found) == 1 + len(wanted)
    parent = found["tracked"]
    assert parent.info.status == "FINISHED"
    assert parent.data.tags["continual_sweep.is_complete"] == "true"
    assert parent.data.tags["continual_sweep.answer split-digits/task"]
    assert {file.path for file in client.list_artifacts(parent.info.run_id)} == {
        "report.html",
        "answer.json",
        "spec.yaml",
    }
    for (scenario, method, number), values in wanted.items():
        child = found[f"{scenario} {method} #{number}"]
        assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert agree(child.data.metrics, values)
        history = client.get_metric_history(child.info.run_id, "validation/seed 0/average")
        assert [one.step for one in history] == [1, 2, 3, 4, 5]
    ewc = found["split-digits/task ewc #0"]
    assert float(ewc.data.params["penalty_weight"]) > 0
    marks = [run.data.tags.get("continual_sweep.is_chosen") for name, run in found.items() if " ewc #" in name]
    assert marks.count("true") == 1


def test_tensorboard_reads_what_was_written(sweep: Any, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    sweep(f"tensorboard:{tmp_path / 'tb'}", most=3)
    session, said = sweep(f"tensorboard:{tmp_path / 'tb'}")
    assert said == []
    (root,) = (tmp_path / "tb").iterdir()
    files = sorted(root.rglob("*tfevents*"))
    sweep(f"tensorboard:{tmp_path / 'tb'}")
    assert [file for file in sorted(root.rglob("*tfevents*")) if file.parent != root] == [
        file for file in files if file.parent != root
    ]
    assert (root / "report.html").read_text() == "a page"
    for (scenario, method, number), values in expected(session).items():
        (folder,) = (root / f"{scenario} {method}".replace("/", "_").replace(" ", "_")).glob(f"{number:03d}-*")
        events = EventAccumulator(str(folder)).Reload()
        found = {tag: events.Scalars(tag)[-1].value for tag in events.Tags()["scalars"]}
        assert agree(found, values)


def wandb_records(file: Path) -> Iterator[Any]:
    """Yield the records of a file of Weights & Biases: LevelDB's log, blocks of 32 KiB, after 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, at, parts = file.read_bytes(), 7, b""
    while at + 7 <= len(content):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        length, kind = struct.unpack("<4xHB", content[at : at + 7])
        parts += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            record = Record()
            record.ParseFromString(parts)
            parts = b""
            yield record


def test_wandb_is_written_offline(sweep: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_MODE", "offline")
    session, said = sweep("wandb")
    assert said == []
    files = sorted((tmp_path / "wandb").glob("offline-run-*/*.wandb"))
    wanted = expected(session)
    assert len(files) == 1 + len(wanted)
    found: dict[str, dict[str, str]] = {}
    for file in files:
        own, name = dict[str, str](), ""
        for record in wandb_records(file):
            kind = record.WhichOneof("record_type")
            name = record.run.display_name if kind == "run" else name
            items = record.history.item if kind == "history" else record.summary.update if kind == "summary" else ()
            own |= {item.key or "/".join(item.nested_key): item.value_json for item in items}
        found[name] = own
    for (scenario, method, number), values in wanted.items():
        own = found[f"{scenario} {method} #{number}"]
        assert agree({name: float(own[name]) for name in values}, values)
    assert "answer split-digits/task" in found["tracked"]
    sweep("wandb")
    assert sorted((tmp_path / "wandb").glob("offline-run-*/*.wandb")) == files


class Broken:
    """A tracker that refuses after some trials."""

    def begin(self, sweep: SweepRecord) -> set[str]:
        return set()

    def log(self, trial: TrialRecord, means: Mapping[str, float], n_seeds: int) -> None:
        raise OSError("http://me:secret@host/api is gone")

    def end(self, end: EndRecord | None) -> None:
        raise AssertionError("not called after a failure")


def test_a_refusal_is_said_and_costs_nothing(sweep: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "open_tracker", lambda target: Broken())
    session, said = sweep("mlflow:http://me:secret@host")
    assert session.search.n_unknown == 0
    (text,) = said
    assert text.startswith("--log-to: mlflow:http://…@host did not take all of the sweep (OSError: http://…@host/api")
    assert "secret" not in text


def test_no_server_is_said_at_once(sweep: Any) -> None:
    with pytest.raises(StorageError, match=r"--log-to: cannot write to mlflow:http://…@127.0.0.1:1 \(") as caught:
        sweep("mlflow:http://me:secret@127.0.0.1:1")
    assert "secret" not in str(caught.value)


def test_every_wrong_target_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(UsageError) as caught:
        parse_targets(["comet", "wandb:x", "tensorboard:", "mlflow"])
    assert [fault.partition(",")[0] for fault in caught.value.faults] == [
        "--log-to: expected mlflow:URI",
        "--log-to: expected wandb alone",
        "--log-to: expected tensorboard:DIR",
        "--log-to: expected mlflow:URI",
    ]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://one")
    assert parse_targets(["mlflow", "mlflow:http://one"]) == (Target("mlflow", "http://one"),)


def test_a_missing_extra_names_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'continual-sweep\[wandb\]'"):
        parse_targets(["wandb"])


def test_boundaries_are_those_of_r_cut_there() -> None:
    nan = float("nan")
    matrix = np.array([[nan, nan], [0.9, nan], [0.6, 0.8]])
    untrained, first, second = boundaries_of(matrix, NAMES, ACCURACY)
    assert untrained == {}
    assert first == {"score/a/b": 0.9, "average": 0.9}
    assert second == pytest.approx(
        {"score/a/b": 0.6, "score/c": 0.8, "average": 0.7, "forgetting": 0.3, "worst_forgetting": 0.3,
         "backward_transfer": -0.3}
    )  # fmt: skip
