"""Runs in an object store: on a real S3 server on this machine, and in memory if that shows as much."""

from __future__ import annotations

import dataclasses
import errno
import itertools
import re
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import timedelta
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pandas as pd
import pytest
import torch
from obstore.exceptions import GenericError, PermissionDeniedError, UnauthenticatedError

import orchestrator.trial.protocol as trial_module
from orchestrator import api
from orchestrator.core.errors import RunFolderError, StorageError
from orchestrator.execution.session import Session
from orchestrator.execution.worker import checkpoint_of
from orchestrator.results.rows import accuracy_rows, outcome_rows, trial_row
from orchestrator.results.run import Run
from orchestrator.spec.sweep_spec import SweepSpec
from orchestrator.spec.trial_spec import TrialSpec
from orchestrator.storage import objects, stores
from orchestrator.storage.base import TABLES
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
    rows = accuracy_rows(spec, 0, result), outcome_rows(spec, 0, result)
    run.tables.write_trial(spec.key, trial_row(spec, 0, result, {}), *rows)


def drive(run: Run, spec: SweepSpec, data_dir: Path) -> None:
    """Run a sweep in this process."""
    with run.locked():
        opened = Run.create(run.storage, spec)
        session = Session(spec, opened, data_dir)
        while not session.search.is_finished:
            trial = session.search.hand_out(session.search.waiting_requests()[0]).spec
            checkpoint = checkpoint_of(opened.checkpoint_path(trial.key))
            result = run_trial(trial, session.arrays(trial), checkpoint=checkpoint)
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


def test_large_content_comes_back(root: str) -> None:
    content = memoryview(bytes(range(256)) * 24_000)  # more than a part of an upload in parts
    open_storage(root).write("k.pt", content)
    assert open_storage(root).read("k.pt") == content
    open_storage(root).write("k.pt", b"")
    assert open_storage(root).read("k.pt") == b""


@pytest.mark.parametrize("prefix", ["user@example.com/a b", "a:b", "x%2520y", "é=[*]#"])
def test_a_prefix_may_hold_odd_signs(s3: str, prefix: str) -> None:
    place = join(s3, uuid.uuid4().hex)
    storage = open_storage(join(place, prefix.replace("#", "%23")))
    storage.folder("trials").write("a", b"x")
    assert storage.names() == ["trials"]
    assert stored_file(storage.folder("trials").address("a")).storage.read("a") == b"x"


def test_objects_that_stand_for_folders_are_hidden(s3: str) -> None:
    """pyarrow, and so earlier versions, left such objects: their names end in a slash."""
    place = uuid.uuid4().hex
    host = re.findall(r"127\.0\.0\.1:\d+", s3)[0]
    for name in ("", "checkpoints/"):
        request = Request(f"http://{host}/sweeps/runs/{place}/{name}", method="PUT", data=b"")
        urlopen(request).close()
    storage = open_storage(join(s3, place))
    assert storage.names() == ["checkpoints"]
    assert storage.folder("checkpoints").names() == []


def test_addresses_lead_back_from_another_process(root: str) -> None:
    folder = open_storage(root).folder("checkpoints")
    folder.write("k.pt", b"x")
    file = stored_file(folder.address("k.pt"))
    assert file.storage.read(file.name) == b"x"
    assert str(file) == f"{folder.where}/k.pt"
    assert "?" not in str(file)


def test_a_sweep_without_ray_lives_in_a_store(memory: str, make_spec: MakeSpec, tmp_path: Path) -> None:
    spec = make_spec(methods=["naive", "joint"])
    drive(Run(api.run_place(spec, storage=memory)), spec, tmp_path)
    again = api.open_run(join(memory, spec.name))
    assert again.spec == spec
    trials = again.trials()
    assert len(trials) == 8
    assert (trials["status"] == "completed").all()
    assert trials["intransigence"].notna().all()
    assert again.n_missing(spec) == 0
    own = {"spec.yaml", *TABLES, "checkpoints", "answer.json", "suggestions.json"}
    assert set(again.storage.names()) <= own
    assert api.plan(spec, storage=memory, data_dir=tmp_path).cells[0].n_done == 4
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
    assert len(pd.read_parquet(join(place, "outcomes"))) == 9


def test_an_error_of_the_machine_is_replaced(
    memory: str, make_spec: MakeSpec, make_trial: MakeTrial, make_result: MakeResult
) -> None:
    run, spec = Run.create(memory, make_spec()), make_trial()
    record(run, spec, make_result(spec, "error"))
    record(run, spec, make_result(spec))
    assert run.trials()["status"].tolist() == ["completed"]


def test_other_specs_and_places_are_refused(memory: str, make_spec: MakeSpec) -> None:
    Run.create(memory, make_spec())
    with pytest.raises(RunFolderError, match="validation_share"):
        Run.create(memory, make_spec(validation_share=0.3))
    open_storage(memory).folder("foreign").write("thesis.tex", b"years of work")
    with pytest.raises(RunFolderError, match=r"run: expected an empty or a run folder, got .*thesis\.tex"):
        Run.create(join(memory, "foreign"), make_spec())
    with pytest.raises(RunFolderError, match=r"run: expected a run folder with spec\.yaml"):
        Run.open(join(memory, "absent"))
    with pytest.raises(RunFolderError, match=r"compact: .* lies in an object store"):
        api.compact(memory)
    with pytest.raises(RunFolderError, match="--storage: expected --run or --storage, got both"):
        api.run_place(make_spec(), "run", memory)


def test_a_damaged_object_is_named(
    memory: str, make_spec: MakeSpec, make_trial: MakeTrial, make_result: MakeResult
) -> None:
    run, spec = Run.create(memory, make_spec()), make_trial()
    record(run, spec, make_result(spec))
    trials = run.storage.folder("trials")
    trials.write(f"{spec.key}.parquet", trials.read(f"{spec.key}.parquet")[:-200])
    with pytest.raises(
        RunFolderError, match=rf"trials/{spec.key}\.parquet: expected a Parquet file, got a damaged one"
    ):
        run.trials()


def test_a_missing_bucket_is_reported_without_secrets(s3: str, make_spec: MakeSpec) -> None:
    with pytest.raises(StorageError) as caught:
        Run.create(s3.replace("sweeps", "nowhere"), make_spec())
    assert "s3://nowhere/runs" in str(caught.value)
    assert "NoSuchBucket: The specified bucket does not exist" in str(caught.value)
    assert SECRET not in str(caught.value)


# Checkpoints.


def test_a_stopped_trial_goes_on_from_its_checkpoint(
    memory: str, make_trial: MakeTrial, digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial_module, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    spec, data = make_trial(method="replay"), digits.phase("confirm", 0.1)
    checkpoint = checkpoint_of(Run(memory).checkpoint_path(spec.key))

    def stop(after: int, row: object, stream: object) -> None:
        if after == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_trial(spec, data, report=stop, checkpoint=checkpoint)
    reported: list[int] = []
    result = run_trial(spec, data, report=lambda after, row, stream: reported.append(after), checkpoint=checkpoint)
    assert reported == [3, 4]
    assert result.n_correct == run_trial(spec, data).n_correct
    assert Run(memory).storage.folder("checkpoints").names() == []


def test_a_damaged_checkpoint_is_none(memory: str) -> None:
    file = stored_file(open_storage(memory).address("c.pt"))
    identity = identity_of("k", torch.device("cpu"), [])
    assert load_checkpoint(file, identity) is None
    save_checkpoint(file, identity, {"next_task": 1})
    assert load_checkpoint(file, identity) == {"next_task": 1}
    file.storage.write("c.pt", file.storage.read("c.pt")[:-99])
    assert load_checkpoint(file, identity) is None
    delete_checkpoint(file)
    delete_checkpoint(file)


class ForeignError(Exception):
    """An error of a library that does not raise OSError."""


class ForeignStore:
    """A store whose every method is `call`."""

    def __init__(self, call: Callable[..., None]) -> None:
        self.put = self.get = self.delete = self.list_with_delimiter = call


def test_no_error_of_a_store_is_a_fault_of_the_trial(
    make_trial: MakeTrial, digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial_module, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    file = stored_file("memory://foreign/c.pt")
    file.storage.write("c.pt", b"of an earlier attempt")
    said = f"refused: https://me:{SECRET}@host/c?sig={SECRET} by the store\nrequest 7"

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise ForeignError(said)

    monkeypatch.setattr(file.storage, "_store", ForeignStore(refuse))
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


def test_a_checkpoint_that_cannot_be_opened_is_none(
    tmp_path: Path, make_trial: MakeTrial, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert checkpoint_of("nonsense://a/k.pt") is None
    assert checkpoint_of(str(tmp_path / "k.pt")) == tmp_path / "k.pt"

    def refuse(*args: Any, **options: Any) -> None:
        raise ForeignError

    monkeypatch.setattr(stores, "AzureStore", refuse)
    assert checkpoint_of("abfs://c@a/k.pt") is None


SAME = ["key", "seed", "status", "average_accuracy", "intransigence"]


@pytest.fixture(scope="module")
def undisturbed(make_spec: MakeSpec, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    place = tmp_path_factory.mktemp("undisturbed")
    drive(Run(place / "run"), make_spec(methods=["naive", "joint"]), place)
    return Run(place / "run").trials().sort_values("key")[SAME].reset_index(drop=True)


@pytest.mark.parametrize("n_before", [1, 6])
def test_a_sweep_goes_on_after_its_store_refused(
    memory: str,
    make_spec: MakeSpec,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    n_before: int,
    undisturbed: pd.DataFrame,
) -> None:
    spec, put, n_puts = make_spec(methods=["naive", "joint"]), objects.ObjectStorage._put, 0

    def refuse_later(storage: objects.ObjectStorage, *arguments: Any) -> Any:
        nonlocal n_puts
        if storage.where.endswith(TABLES):
            n_puts += 1
            if n_puts > n_before:
                raise OSError(5, "the store is out of reach")
        return put(storage, *arguments)

    run = Run(api.run_place(spec, storage=memory))
    with monkeypatch.context() as patch:
        patch.setattr(objects.ObjectStorage, "_put", refuse_later)
        with pytest.raises(StorageError, match=r"the store is out of reach.*run the same command again"):
            drive(run, spec, tmp_path)
    kept = run.trials()
    assert len(kept) == {1: 0, 6: 2}[n_before], "a trial is two puts, and three on the test split"
    drive(run, spec, tmp_path)
    pd.testing.assert_frame_equal(run.trials().sort_values("key")[SAME].reset_index(drop=True), undisturbed)
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


@pytest.fixture
def _no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    backoff = {"init_backoff": timedelta(milliseconds=1), "max_backoff": timedelta(milliseconds=2)}
    monkeypatch.setattr(stores, "_RETRY", stores._RETRY | {"backoff": backoff})


@pytest.mark.usefixtures("_no_waits")
def test_a_busy_store_is_asked_again(s3: str, busy: Callable[[int], str]) -> None:
    name = uuid.uuid4().hex
    open_storage(s3).write(name, b"xx")
    assert open_storage(busy(8)).read(name) == b"xx"


@pytest.mark.usefixtures("_no_waits")
def test_a_store_that_stays_busy_is_reported(s3: str, busy: Callable[[int], str]) -> None:
    open_storage(s3).write("busy", b"xx")
    with pytest.raises(OSError, match="SlowDown") as caught:
        open_storage(busy(1000)).read("busy")
    assert caught.value.strerror == "SlowDown: Please reduce your request rate"


def test_refusals_have_a_reason_and_a_number() -> None:
    reasons = {
        ValueError(""): (0, "ValueError"),
        FileNotFoundError("Object at location a not found"): (errno.ENOENT, "Object at location a not found"),
        PermissionDeniedError("x: <Code>AccessDenied</Code>"): (errno.EACCES, "AccessDenied"),
        UnauthenticatedError("no"): (errno.EACCES, "no"),
        GenericError("Generic S3 error: PUT http://169.254.169.254/latest"): (
            0,
            "no credentials: none are in the environment, and this machine has no role that gives any",
        ),
        GenericError("GET http://me:hush@host:1/b?sig=hush failed\n\nDebug: hush"): (0, "GET http://host:1/b failed"),
    }
    for error, (number, reason) in reasons.items():
        with pytest.raises(OSError, match=re.escape(reason)) as caught, objects._as_os_errors("s3://b/p"):
            raise error
        assert (caught.value.errno, caught.value.strerror, caught.value.filename) == (number, reason, "s3://b/p")


# Objects that are replaced while they are read.


def test_what_is_read_is_of_one_moment(s3: str, repeated: Repeated) -> None:
    storage = open_storage(join(s3, uuid.uuid4().hex))
    lengths = itertools.cycle(range(7))
    with repeated(lambda: storage.write("spec.yaml", b"<" + b"x" * next(lengths) + b">")):
        for _ in range(20):
            assert re.fullmatch(b"<x*>", storage.read("spec.yaml"))


def test_tables_are_read_while_a_row_is_replaced(
    s3: str, repeated: Repeated, make_trial: MakeTrial, make_result: MakeResult, make_spec: MakeSpec
) -> None:
    run, trial = Run.create(join(s3, uuid.uuid4().hex), make_spec()), make_trial()
    result, lengths = make_result(trial), itertools.cycle(range(0, 70, 10))

    def write() -> None:
        other = dataclasses.replace(result, reason="".join(f"{n * n:x}" for n in range(next(lengths))))
        run.tables.write_trial(trial.key, trial_row(trial, 0, other, {}), [])

    with repeated(write):
        for _ in range(10):
            assert run.trials()["key"].tolist() == [trial.key]
