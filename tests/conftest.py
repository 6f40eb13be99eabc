"""What all tests share: one thread, the real data where it is, and factories for specs, trials and results."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import threading
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from orchestrator.spec.loading import parse_spec
from orchestrator.spec.sweep_spec import SweepSpec
from orchestrator.spec.trial_spec import TrialSpec
from orchestrator.storage import folders
from orchestrator.storage.uris import join
from orchestrator.streams.datasets import Dataset
from orchestrator.streams.sources.builtin import load_dataset
from orchestrator.trial.packed import as_text, pack
from orchestrator.trial.result import TrialResult

REAL_DATA = Path(__file__).parents[2] / "shared" / "data"

SMALL: dict[str, Any] = {
    "scenarios": ["split-digits/task"],
    "methods": ["naive"],
    "seeds": {"search": 2, "confirm": 2},
    "search": {"suggestions": 4, "batch": 2},
    "model": {"hidden": [16]},
    "training": {"epochs": 1, "batch_size": 32},
}
"""A sweep whose trials take a fraction of a second."""


def without_finals(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a spec that runs all seeds of each suggestion and no finals, unless it says otherwise."""
    base: dict[str, dict[str, Any]] = {"seeds": {"finals": 0}, "search": {"seeds": "all"}}
    given = {name: fields.get(name, {}) for name in base}
    return {**fields, **{name: base[name] | one if isinstance(one, dict) else one for name, one in given.items()}}


S3_SERVER = """
import sys
from moto.s3.models import FakeKey
from moto.server import ThreadedMotoServer

def dispose(key, garbage=False):
    key.disposed = True  # moto closes an object that is replaced under those who read it, and answers them with 500

FakeKey.dispose = dispose
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""
MakeSpec = Callable[..., SweepSpec]
MakeTrial = Callable[..., TrialSpec]
MakeResult = Callable[..., TrialResult]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--conformance",
        choices=("cut", "all"),
        default="cut",
        help="rows of tests/conformance: a cut (docs/conformance.md says which), or all, as before a release",
    )
    parser.addoption("--device", choices=("cpu", "cuda"), default="cpu", help="where tests/conformance computes")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object:
    """Keep together what one process runs: a module, whose fixtures it makes once, or what shares a cluster.

    Marks of `--dist loadgroup` would say the same, but pytest-xdist 3.8 puts them where pytest 9.2 does not look.
    """
    from xdist.scheduler import LoadScopeScheduling

    class Kept(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            module = nodeid.partition("::")[0]
            return next((f for f in ("tests/cluster", "tests/docs") if module.startswith(f"{f}/")), module)

    return Kept(config, log)


@pytest.fixture(autouse=True)
def _own_width(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is printed does not depend on the width of whoever runs the tests."""
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def mnist_dir() -> Path:
    """Return the folder with the real MNIST and Fashion-MNIST files, or skip."""
    for name in ("MNIST", "FashionMNIST"):
        if not (REAL_DATA / name / "raw" / "train-images-idx3-ubyte").is_file():
            pytest.skip(f"the real {name} files are not in {REAL_DATA}")
    return REAL_DATA


@pytest.fixture(scope="session")
def digits() -> Dataset:
    return load_dataset("digits", Path("nowhere"))


@pytest.fixture(scope="session")
def make_spec() -> MakeSpec:
    """Return a function from changed fields to a valid sweep of small trials."""

    def make(**fields: Any) -> SweepSpec:
        return parse_spec(without_finals(SMALL | fields))

    return make


@pytest.fixture(scope="session")
def make_trial(make_spec: MakeSpec, digits: Dataset) -> MakeTrial:
    """Return a function to one trial; `fields` are those of the sweep that it belongs to."""

    def make(
        scenario: str = "split-digits/task",
        method: str = "naive",
        hyperparameters: Mapping[str, Any] | None = None,
        seed: int = 0,
        phase: str = "confirm",
        **fields: Any,
    ) -> TrialSpec:
        spec = make_spec(scenarios=[scenario], methods=[method], **fields)
        return spec.trial(spec.cells[0], hyperparameters or {}, seed, phase, digits.fingerprint())  # type: ignore[arg-type]

    return make


@pytest.fixture(scope="session")
def make_result() -> MakeResult:
    """Return a function to the result of a trial that was never trained: R of 2 tasks as counts of 10 examples.

    On the test split, the first examples of a task are those that were right.
    """

    def right(rows: tuple[tuple[int | None, int | None], ...]) -> list[list[str | None]]:
        kept = [[after == task or after == 1 for task in range(2)] for after in range(-1, 2)]
        return [
            [None if n is None or not keep else as_text(pack(np.arange(10) < n)) for n, keep in zip(*each, strict=True)]
            for each in zip(rows, kept, strict=True)
        ]

    def make(
        spec: TrialSpec,
        status: str = "completed",
        rows: tuple[tuple[int | None, int | None], ...] = ((None, None), (9, None), (7, 8)),
        costs: Mapping[str, float] | None = None,
    ) -> TrialResult:
        complete, started_at = status == "completed", "2026-01-02T03:04:05.678901+00:00"
        return TrialResult(
            spec.key,
            status,  # type: ignore[arg-type]
            "" if complete else "diverged: loss is nan",
            [list(row) for row in rows] if complete else [],
            [10, 10] if complete else [],
            dict(costs or {"seconds": 1.5, "kept_bytes": 40.0, "n_parameters": 7.0}),
            {"device": "cpu", "threads": 1, "started_at": started_at, "data_hash": spec.data_fingerprint},
            {"naive": {"share": 0.5}} if complete else {},
            task_names=["0/1", "2/3"] if complete else [],
            right=right(rows) if complete and spec.phase == "confirm" else [],
            examples=["0" * 16, "1" * 16] if complete and spec.phase == "confirm" else [],
        )

    return make


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """Return the URI of a bucket on an S3 server of our own; credentials are in the environment."""
    if importlib.util.find_spec("moto") is None:
        pytest.skip("moto is not installed: pip install -c constraints.txt '.[dev]'")
    names = {"AWS_ACCESS_KEY_ID": "someone", "AWS_SECRET_ACCESS_KEY": "hushhush", "AWS_EC2_METADATA_DISABLED": "true"}
    with (
        subprocess.Popen(
            [sys.executable, "-c", S3_SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as child,
        pytest.MonkeyPatch.context() as patch,
    ):
        assert child.stdout is not None
        port = int(child.stdout.readline())
        for name, value in names.items():
            patch.setenv(name, value)
        patch.delenv("AWS_PROFILE", raising=False)
        urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{port}/sweeps", method="PUT")).close()
        yield f"s3://sweeps/runs?endpoint_override=127.0.0.1:{port}&scheme=http&region=us-east-1"
        child.terminate()


@pytest.fixture
def full_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return what makes the next temporary file of a name in `tmp_path` one on a device that is full."""

    def prepare(name: str) -> None:
        monkeypatch.setattr(folders, "token_hex", lambda n: "0")
        (tmp_path / f"{name}.0.tmp").symlink_to("/dev/full")

    return prepare


Repeated = Callable[..., AbstractContextManager[None]]


@pytest.fixture
def repeated() -> Repeated:
    """Return a context manager that calls something once, then in a thread, every so many seconds, until it ends."""

    @contextmanager
    def context(call: Callable[[], object], seconds: float = 0.0) -> Iterator[None]:
        stop = threading.Event()

        def repeat() -> None:
            while not stop.wait(seconds):
                call()

        call()
        thread = threading.Thread(target=repeat)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    return context


@pytest.fixture
def as_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], AbstractContextManager[None]]:
    """Return what makes this process another user's for some lines, in `tmp_path`; without rights to, it stays ours.

    Paths in it must be relative: the folders above it are ours alone.
    """
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)

    @contextmanager
    def context(user: int, group: int) -> Iterator[None]:
        if os.geteuid() != 0:
            yield
            return
        groups = os.getgroups()
        os.setgroups([])
        os.setegid(group)
        os.seteuid(user)
        try:
            yield
        finally:
            os.seteuid(0)
            os.setegid(0)
            os.setgroups(groups)

    return context


@pytest.fixture(params=["s3", "memory"])
def root(request: pytest.FixtureRequest) -> str:
    """Return a fresh root in an object store: on the S3 server, and in the memory of this process."""
    if request.param == "s3":
        return join(str(request.getfixturevalue("s3")), uuid.uuid4().hex)
    return str(request.getfixturevalue("memory"))


@pytest.fixture
def memory() -> str:
    """Return a fresh root in an object store in the memory of this process."""
    return f"memory://{uuid.uuid4().hex}/runs"
