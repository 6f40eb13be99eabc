"""Runs in an object store: against a real S3 server on this machine, and without one where that says as much."""

from __future__ import annotations

import dataclasses
import itertools
import re
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fsspec
import pandas as pd
import pytest
import torch
from fsspec.implementations.memory import MemoryFileSystem

import orchestrator.trial.protocol as trial_module
from orchestrator import api
from orchestrator.core.errors import RunFolderError, StorageError
from orchestrator.execution.session import Session
from orchestrator.execution.worker import checkpoint_of
from orchestrator.results.rows import accuracy_rows, trial_row
from orchestrator.results.run import Run
from orchestrator.spec.sweep_spec import SweepSpec
from orchestrator.spec.trial_spec import TrialSpec
from orchestrator.storage import objects as objectstore
from orchestrator.storage.opening import open_storage, stored_file
from orchestrator.storage.uris import join
from orchestrator.streams.datasets import Dataset
from orchestrator.trial.checkpoint import delete_checkpoint, identity_of, load_checkpoint, save_checkpoint
from orchestrator.trial.protocol import run_trial
from orchestrator.trial.result import TrialResult

MakeSpec = Callable[..., SweepSpec]
MakeTrial = Callable[..., TrialSpec]
MakeResult = Callable[..., TrialResult]
Repeated = Callable[..., AbstractContextManager[None]]

SECRET = "hushhush"
SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"


def record(run: Run, spec: TrialSpec, result: TrialResult) -> None:
    run.write_trial(spec.key, trial_row(spec, 0, result, {}), accuracy_rows(spec, 0, result))


def drive(run: Run, spec: SweepSpec, data_dir: Path) -> None:
    """Run a sweep in this process."""
    with run.locked():
        opened = Run.create(run.storage, spec)
        session = Session(spec, opened, data_dir)
        while not session.search.is_finished:
            trial = session.search.hand_out(session.search.waiting_requests()[0]).spec
            checkpoint = checkpoint_of(opened.checkpoint_path(trial.key))
            result = run_trial(trial, session.phase_data(trial.dataset, trial.phase), checkpoint=checkpoint)
            session.finish(result)
        session.close()


# Storage.


def test_what_is_written_comes_back(root: str) -> None:
    storage = open_storage(root)
    assert storage.names() == []
    assert storage.path is None
    storage.folder("trials").write("a.parquet", b"one")
    storage.folder("trials").write("a.parquet", b"other")
    storage.write("spec.yaml", b"x")
    assert set(storage.names()) == {"trials", "spec.yaml"}
    assert storage.folder("trials").names() == ["a.parquet"]
    assert storage.folder("trials").read("a.parquet") == b"other"
    assert dict(storage.folder("trials").read_many(["a.parquet"])) == {"a.parquet": b"other"}
    storage.delete("spec.yaml")
    storage.delete("spec.yaml")
    with pytest.raises(FileNotFoundError):
        storage.read("spec.yaml")


def test_addresses_lead_back_from_another_process(root: str) -> None:
    folder = open_storage(root).folder("checkpoints")
    folder.write("k.pt", b"x")
    file = stored_file(folder.address("k.pt"))
    assert file.storage.read(file.name) == b"x"
    assert str(file) == f"{folder.where}/k.pt"
    assert "?" not in str(file)


def test_a_sweep_without_ray_lives_in_a_store(root: str, make_spec: MakeSpec, digits: Dataset, tmp_path: Path) -> None:
    spec = make_spec(methods=["naive", "joint"])
    drive(Run(api.run_place(spec, storage=root)), spec, tmp_path)
    again = api.open_run(join(root, spec.name))
    assert again.spec == spec
    trials = again.trials()
    assert len(trials) == 8
    assert (trials["status"] == "completed").all()
    assert trials["intransigence"].notna().all()
    assert again.n_missing(spec) == 0
    assert set(again.storage.names()) <= {"spec.yaml", "trials", "accuracy", "checkpoints"}
    assert api.plan(spec, storage=root, data_dir=tmp_path).cells[0].n_done == 4
    key = str(trials["key"].iloc[0])
    assert api.recorded_trial(again, key)[0].key == key
    assert SECRET not in trials.to_csv() + again.where
    with pytest.raises(StorageError, match=r"run\.path: expected a run on a disk"):
        _ = again.path


def test_pandas_reads_a_store_without_us(
    s3: str, make_spec: MakeSpec, make_trial: MakeTrial, make_result: MakeResult
) -> None:
    place = join(s3, uuid.uuid4().hex)
    run = Run.create(place, make_spec())
    for seed in range(3):
        record(run, make_trial(seed=seed), make_result(make_trial(seed=seed)))
    assert len(pd.read_parquet(join(place, "trials"))) == 3
    assert len(pd.read_parquet(join(place, "accuracy"))) == 9


def test_an_error_of_the_machine_is_replaced(
    root: str, make_spec: MakeSpec, make_trial: MakeTrial, make_result: MakeResult
) -> None:
    run, spec = Run.create(root, make_spec()), make_trial()
    record(run, spec, make_result(spec, "error"))
    record(run, spec, make_result(spec))
    assert run.trials()["status"].tolist() == ["completed"]


def test_other_specs_and_places_are_refused(root: str, make_spec: MakeSpec) -> None:
    Run.create(root, make_spec())
    with pytest.raises(RunFolderError, match="validation_share"):
        Run.create(root, make_spec(validation_share=0.3))
    open_storage(root).folder("foreign").write("thesis.tex", b"years of work")
    with pytest.raises(RunFolderError, match=r"run: expected an empty or a run folder, got .*thesis\.tex"):
        Run.create(join(root, "foreign"), make_spec())
    with pytest.raises(RunFolderError, match=r"run: expected a run folder with spec\.yaml"):
        Run.open(join(root, "absent"))
    with pytest.raises(RunFolderError, match="compact: expected a run folder on a disk"):
        api.compact(root)
    with pytest.raises(RunFolderError, match="--storage: expected --run or --storage, got both"):
        api.run_place(make_spec(), "run", root)


def test_damaged_and_missing_objects_are_told_by_name(
    root: str, make_spec: MakeSpec, make_trial: MakeTrial, make_result: MakeResult
) -> None:
    run, spec = Run.create(root, make_spec()), make_trial()
    record(run, spec, make_result(spec))
    trials = run.storage.folder("trials")
    trials.write(f"{spec.key}.parquet", trials.read(f"{spec.key}.parquet")[:-200])
    with pytest.raises(
        RunFolderError, match=rf"trials/{spec.key}\.parquet: expected a Parquet file, got a damaged one"
    ):
        run.trials()


def test_a_bucket_that_is_not_there_is_told_without_secrets(s3: str, make_spec: MakeSpec) -> None:
    with pytest.raises(StorageError) as caught:
        Run.create(s3.replace("sweeps", "nowhere"), make_spec())
    assert "s3://nowhere/runs" in str(caught.value)
    assert SECRET not in str(caught.value)


# Checkpoints.


def test_a_stopped_trial_goes_on_from_its_checkpoint_in_the_store(
    root: str, make_trial: MakeTrial, digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial_module, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    spec, data = make_trial(method="replay"), digits.phase("confirm", 0.1)
    checkpoint = checkpoint_of(Run(root).checkpoint_path(spec.key))

    def stop(after: int, row: list[float]) -> None:
        if after == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_trial(spec, data, report=stop, checkpoint=checkpoint)
    told: list[int] = []
    result = run_trial(spec, data, report=lambda after, row: told.append(after), checkpoint=checkpoint)
    assert told == [3, 4]
    assert result.n_correct == run_trial(spec, data).n_correct
    assert Run(root).storage.folder("checkpoints").names() == []


def test_a_damaged_checkpoint_is_none(root: str) -> None:
    file = stored_file(open_storage(root).address("c.pt"))
    identity = identity_of("k", torch.device("cpu"), [])
    assert load_checkpoint(file, identity) is None
    save_checkpoint(file, identity, {"next_task": 1})
    assert load_checkpoint(file, identity) == {"next_task": 1}
    file.storage.write("c.pt", file.storage.read("c.pt")[:-99])
    assert load_checkpoint(file, identity) is None
    delete_checkpoint(file)
    delete_checkpoint(file)


def test_a_store_out_of_reach_is_no_fault_of_the_trial(
    make_trial: MakeTrial, digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial_module, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    file = stored_file("memory://gone/c.pt")

    def refuse(*args: Any) -> None:
        raise OSError("connection refused")

    monkeypatch.setattr(objectstore.ObjectStorage, "_put", refuse)
    monkeypatch.setattr(objectstore.ObjectStorage, "delete", refuse)
    spec, data = make_trial(), digits.phase("confirm", 0.1)
    result = run_trial(spec, data, checkpoint=file)
    assert result.status == "completed"
    assert result.n_correct == run_trial(spec, data).n_correct


class ForeignError(Exception):
    """What a library raises that knows no OSError, such as those of Azure and botocore."""


def test_whatever_a_stores_library_raises_is_no_fault_of_the_trial(
    make_trial: MakeTrial, digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial_module, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    file = stored_file("memory://foreign/c.pt")
    file.storage.write("c.pt", b"of an earlier attempt")
    said = f"refused: https://me:{SECRET}@host/c?sig={SECRET} by the store\nrequest 7"

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise ForeignError(said)

    for name in ("_open", "rm", "isdir"):
        monkeypatch.setattr(MemoryFileSystem, name, refuse)
    for action in (
        lambda: file.storage.read("c.pt"),
        lambda: file.storage.write("c.pt", b""),
        lambda: file.storage.delete("c.pt"),
        lambda: file.storage.names(),
    ):
        with pytest.raises(OSError, match="refused") as caught:
            action()
        assert caught.value.strerror == "refused: https://host/c by the store"
        assert SECRET not in str(caught.value)
    delete_checkpoint(file)
    spec, data = make_trial(), digits.phase("confirm", 0.1)
    result = run_trial(spec, data, checkpoint=file)
    assert result.status == "completed", result.reason
    assert result.n_correct == run_trial(spec, data).n_correct
    said = ""
    with pytest.raises(OSError, match="ForeignError"):
        file.storage.read("c.pt")


def test_a_checkpoint_place_that_cannot_be_opened_is_none(
    tmp_path: Path, make_trial: MakeTrial, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert checkpoint_of("nonsense://a/k.pt") is None
    assert checkpoint_of(str(tmp_path / "k.pt")) == tmp_path / "k.pt"

    def refuse(*args: Any) -> None:
        raise ForeignError

    monkeypatch.setattr(objectstore, "_through_fsspec", refuse)
    assert checkpoint_of("nonsense://a/k.pt") is None


@pytest.mark.parametrize("n_before", [0, 1, 2, 5, 6, 9])
def test_a_store_that_refuses_ends_the_sweep_and_the_same_sweep_again_ends_as_if_nothing_was(
    root: str, make_spec: MakeSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_before: int
) -> None:
    spec, put, n_puts = make_spec(methods=["naive", "joint"]), objectstore.ObjectStorage._put, 0

    def refuse_later(storage: objectstore.ObjectStorage, *arguments: Any) -> Any:
        nonlocal n_puts
        if storage.where.endswith(("trials", "accuracy")):
            n_puts += 1
            if n_puts > n_before:
                raise OSError(5, "the store is out of reach")
        return put(storage, *arguments)

    run = Run(api.run_place(spec, storage=root))
    with monkeypatch.context() as patch:
        patch.setattr(objectstore.ObjectStorage, "_put", refuse_later)
        with pytest.raises(StorageError, match=r"the store is out of reach.*run the same command again"):
            drive(run, spec, tmp_path)
    kept = run.trials()
    assert len(kept) == n_before // 2
    drive(run, spec, tmp_path)
    drive(Run(tmp_path / "undisturbed"), spec, tmp_path)
    same = ["key", "seed", "status", "average_accuracy", "intransigence"]
    found, undisturbed = (each.trials().sort_values("key")[same] for each in (run, Run(tmp_path / "undisturbed")))
    pd.testing.assert_frame_equal(found.reset_index(drop=True), undisturbed.reset_index(drop=True))
    again = run.trials().set_index("key")["started_at"]
    assert again[kept["key"]].tolist() == kept["started_at"].tolist(), "complete trials were trained again"


# A store that has too much to do.


@pytest.fixture
def busy(s3: str) -> Iterator[Callable[[int], str]]:
    """Return a function to the URI of `s3` behind a server that answers the next n GETs with 503."""
    port, refusals = int(re.findall(r"127\.0\.0\.1:(\d+)", s3)[0]), [0]

    class Busy(BaseHTTPRequestHandler):
        def answer(self) -> None:
            status, headers, content = 503, [("Content-Length", str(len(SLOW_DOWN)))], SLOW_DOWN
            if self.command == "HEAD" or not refusals[0]:
                connection = HTTPConnection("127.0.0.1", port)
                connection.request(self.command, self.path, headers=dict(self.headers))
                response = connection.getresponse()
                status, headers, content = response.status, response.getheaders(), response.read()
                connection.close()
            else:
                refusals[0] -= 1
            self.send_response(status)
            for header in headers:
                self.send_header(*header)
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_HEAD = answer

        def log_message(self, *_: Any) -> None: ...

    def uri(n_refusals: int) -> str:
        refusals[0] = n_refusals
        return s3.replace(f":{port}", f":{server.server_port}")

    with ThreadingHTTPServer(("127.0.0.1", 0), Busy) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield uri
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("length", [2, 10_000])
def test_an_object_of_any_length_is_read_from_a_store_that_has_too_much_to_do(
    s3: str, busy: Callable[[int], str], monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    monkeypatch.setattr(objectstore, "_SECONDS_BETWEEN_READS", (0.01, 0.01))
    name = uuid.uuid4().hex
    open_storage(s3).write(name, b"x" * length)
    assert open_storage(busy(2)).read(name) == b"x" * length


def test_a_store_that_always_has_too_much_to_do_is_told(
    s3: str, busy: Callable[[int], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objectstore, "_SECONDS_BETWEEN_READS", (0.01, 0.01))
    open_storage(s3).write("busy", b"xx")
    with pytest.raises(OSError, match="AWS Error"):
        open_storage(busy(1000)).read("busy")


# Objects that are replaced while they are read.


def test_what_is_read_is_of_one_moment(s3: str, repeated: Repeated, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objectstore, "_MOST_READS", 1000)
    storage = open_storage(join(s3, uuid.uuid4().hex))
    lengths = itertools.cycle(range(7))
    with repeated(lambda: storage.write("spec.yaml", b"<" + b"x" * next(lengths) + b">")):
        for _ in range(20):  # without looking again, two of five come back cut off
            assert re.fullmatch(b"<x*>", storage.read("spec.yaml"))


def test_what_changes_all_the_time_is_told(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = open_storage(root)
    storage.write("spec.yaml", b"short")
    read = objectstore.ObjectStorage._read_once

    def lengthen(of: objectstore.ObjectStorage, name: str) -> bytes:
        content = read(of, name)
        storage.write(name, content + b"x")
        return content

    monkeypatch.setattr(objectstore.ObjectStorage, "_read_once", lengthen)
    with pytest.raises(OSError, match="changes while it is read"):
        storage.read("spec.yaml")


def test_tables_are_read_while_a_row_is_replaced(
    s3: str,
    repeated: Repeated,
    make_trial: MakeTrial,
    make_result: MakeResult,
    make_spec: MakeSpec,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(objectstore, "_MOST_READS", 1000)
    run, trial = Run.create(join(s3, uuid.uuid4().hex), make_spec()), make_trial()
    result = make_result(trial)

    lengths = itertools.cycle(range(0, 70, 10))

    def write() -> None:
        told = dataclasses.replace(result, reason="".join(f"{n * n:x}" for n in range(next(lengths))))
        run.write_trial(trial.key, trial_row(trial, 0, told, {}), [])

    with repeated(write):
        for _ in range(30):
            assert run.trials()["key"].tolist() == [trial.key]


# URIs.


@pytest.mark.parametrize(
    "uri", ["nonsense://a/b", "hdfs://host/a", "hdfs:///a", "viewfs:///a", "s3://bucket/a?colour=red"]
)
def test_what_is_no_store_is_told(uri: str) -> None:
    with pytest.raises(StorageError, match="storage: expected a path or ") as caught:
        open_storage(join(uri, "n"))
    assert f"got '{join(uri, 'n')}'" in str(caught.value)


@pytest.mark.parametrize("uri", ["local:///tmp/x", "local://tmp/x"])
def test_a_folder_is_no_store(uri: str) -> None:
    with pytest.raises(StorageError, match=re.escape(f"got '{uri}/n', a folder; give its path")):
        open_storage(join(uri, "n"))


class Unusable(MemoryFileSystem):
    """A store of fsspec that cannot be made."""

    protocol = "unusable"
    cachable = False

    def __init__(self) -> None:
        raise self.error

    error: Exception


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ImportError("Install some_hub"), "(Install some_hub); install that package here and on every worker"),
        (TypeError("__init__() missing 'token'"), "(__init__() missing 'token'); for example s3://"),
    ],
)
def test_what_a_store_asks_for_is_told(error: Exception, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Unusable, "error", error, raising=False)
    fsspec.register_implementation("unusable", Unusable, clobber=True)
    with pytest.raises(StorageError, match=re.escape(f"got 'unusable:///a/n' {told}")):
        open_storage(join("unusable:///a", "n"))


def test_a_package_that_pyarrow_misses_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ImportError("Install huggingface_hub to access HfFileSystem")

    monkeypatch.setattr(fsspec.core, "url_to_fs", fail)
    monkeypatch.setattr(objectstore, "pafs", SimpleNamespace(FileSystem=SimpleNamespace(from_uri=fail)))
    with pytest.raises(StorageError, match=r"\(Install huggingface_hub to access HfFileSystem\); install that package"):
        open_storage("hf://datasets/x")


def test_a_store_without_a_host_keeps_its_slashes() -> None:
    name = uuid.uuid4().hex
    storage = open_storage(join(f"MEMORY:///{name}", "n"))
    assert storage.where == f"memory:///{name}/n"
    storage.folder("trials").write("a", b"x")
    file = stored_file(storage.folder("trials").address("a"))
    assert str(file) == f"memory:///{name}/n/trials/a"
    assert file.storage.read("a") == b"x"


def test_what_a_store_says_is_told_without_users() -> None:
    said = OSError("no answer from http://me:a@hushhush@host:1/b?sig=hushhush")
    assert objectstore._reason(said) == "no answer from http://host:1/b"
