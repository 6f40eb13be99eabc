"""The lock of a run in an object store."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable

import pytest

from orchestrator.core.errors import RunFolderError, StorageError
from orchestrator.results.rows import accuracy_rows, trial_row
from orchestrator.results.run import Run
from orchestrator.spec.sweep_spec import SweepSpec
from orchestrator.spec.trial_spec import TrialSpec
from orchestrator.storage import lease as objectlock
from orchestrator.storage.lease import ObjectLock
from orchestrator.storage.opening import open_storage
from orchestrator.storage.uris import join
from orchestrator.trial.result import TrialResult

MakeSpec = Callable[..., SweepSpec]
MakeTrial = Callable[..., TrialSpec]
MakeResult = Callable[..., TrialResult]


def lock_of_another(root: str, age: float, owner: str = "x") -> None:
    content = {"owner": owner, "host": "far", "process": 1, "machine": "another", "renewed": time.time() - age}
    open_storage(root).write(".lock", json.dumps(content).encode())


def test_a_second_holder_is_refused_until_the_first_lets_go(root: str, make_spec: MakeSpec) -> None:
    run = Run.create(root, make_spec())
    with run.locked():
        with (
            pytest.raises(RunFolderError, match=r"no other sweep uses, got .* with a lock of process \d+ on "),
            Run(root).locked(),
        ):
            pass
        assert Run.create(root, make_spec()).spec == make_spec()
    assert ".lock" not in run.storage.names()
    with Run(root).locked():
        pass


def test_another_process_is_refused_and_a_dead_one_does_not_block(s3: str) -> None:
    place = join(s3, uuid.uuid4().hex)
    code = (
        "import sys, time\nfrom orchestrator.results.run import Run\n"
        "with Run(sys.argv[1]).locked():\n    print('held', flush=True)\n    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, place], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        with pytest.raises(RunFolderError, match=f"a lock of process {child.pid} on"), Run(place).locked():
            pass
        child.send_signal(signal.SIGKILL)
        child.wait()
        with Run(place).locked():
            pass


def test_a_lock_of_another_machine_holds_while_it_is_renewed(root: str) -> None:
    lock_of_another(root, age=30)
    with (
        pytest.raises(RunFolderError, match=r"process 1 on far; wait for it.* takes its lock 120 seconds later"),
        Run(root).locked(),
    ):
        pass
    open_storage(root).write(".lock", b"no lock of ours")
    with Run(root).locked():
        pass


@pytest.mark.parametrize("age", [-3600, -1, 61, 3600])
def test_a_live_lock_is_left_alone_whatever_its_clock_says(
    root: str, age: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock_of_another(root, age)
    monkeypatch.setattr(objectlock.time, "sleep", lambda seconds: lock_of_another(root, age))
    with pytest.raises(RunFolderError, match="process 1 on far"), Run(root).locked():
        pass
    assert json.loads(open_storage(root).read(".lock"))["owner"] == "x"


@pytest.mark.parametrize("age", [-3600, 61])
def test_a_lock_that_nobody_renews_is_taken_after_a_watch_that_is_told(
    root: str, age: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objectlock, "SECONDS_OF_WATCH", 0.3)
    said: list[str] = []
    lock_of_another(root, age)
    with Run(root).locked(said.append):
        assert json.loads(open_storage(root).read(".lock"))["owner"] != "x"
    assert said == ["watching the lock of process 1 on far for 0 seconds: it seems to be dead"]
    assert ".lock" not in open_storage(root).names()


def test_of_two_who_write_at_once_one_holds(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objectlock.time, "sleep", lambda seconds: lock_of_another(root, 0))
    with pytest.raises(RunFolderError, match="process 1 on far"), Run(root).locked():
        pass
    assert json.loads(open_storage(root).read(".lock"))["owner"] == "x", "the winner's lock is left alone"


def test_a_watch_outlasts_a_renewal_that_was_refused_and_the_next() -> None:
    assert (
        objectlock.SECONDS_OF_WATCH
        > objectlock.SECONDS_BETWEEN_RENEWALS + objectlock.SECONDS_BETWEEN_TRIES + objectlock.SECONDS_TO_SETTLE
    )


def test_a_watched_lock_that_its_owner_lets_go_of_is_taken_at_once(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lock_of_another(root, age=3600)
    monkeypatch.setattr(objectlock, "_SECONDS_BETWEEN_LOOKS", 0.0)
    with Run(root).locked(lambda text: open_storage(root).delete(".lock")):
        assert json.loads(open_storage(root).read(".lock"))["owner"] != "x"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff",
        b"3",
        b"{}",
        b"[" * 100_000,
        b'{"owner": "x", "renewed": "soon"}',
        b'{"owner": "x", "renewed": 1%s}' % (b"0" * 400),
        b'{"owner": "x", "renewed": NaN}',
    ],
)
def test_what_is_no_lock_does_not_block(root: str, content: bytes) -> None:
    said: list[str] = []
    open_storage(root).write(".lock", content)
    with Run(root).locked(said.append):
        pass
    assert said == []


@pytest.mark.parametrize("process", [None, "1", -1, 10**30, [1]])
def test_a_lock_of_this_machine_with_an_odd_process_is_a_lock(root: str, process: object) -> None:
    content = {"owner": "x", "host": "here", "process": process, "machine": objectlock._machine()}
    open_storage(root).write(".lock", json.dumps(content | {"renewed": time.time()}).encode())
    with pytest.raises(RunFolderError, match="wait for it"), Run(root).locked():
        pass


def renewed_at(run: Run) -> float:
    """Return what a lock that we hold says, read while nobody renews it."""
    with run.storage._lock._renewing:  # type: ignore[attr-defined]
        return float(json.loads(run.storage.read(".lock"))["renewed"])


def wait_for(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 20
    while not (met := condition()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return met


def test_a_lock_is_renewed_while_it_is_held_and_after_a_store_that_refused(
    root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objectlock, "SECONDS_BETWEEN_RENEWALS", 0.05)
    monkeypatch.setattr(objectlock, "SECONDS_BETWEEN_TRIES", 0.05)
    put, n_refused = ObjectLock._put, 0

    def refuse_some(lock: ObjectLock) -> None:
        nonlocal n_refused
        if refusing:
            n_refused += 1
            raise OSError("out of reach")
        put(lock)

    refusing = False
    monkeypatch.setattr(ObjectLock, "_put", refuse_some)
    run = Run(root)
    with run.locked():
        first = renewed_at(run)
        assert wait_for(lambda: renewed_at(run) > first)
        refusing = True
        assert wait_for(lambda: n_refused > 1)
        refused = renewed_at(run)
        refusing = False
        assert wait_for(lambda: renewed_at(run) > refused)


def test_who_could_not_renew_for_long_looks_before_the_next_write(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(root)
    with run.locked():
        now = run.storage._lock._renewed  # type: ignore[attr-defined]
        monkeypatch.setattr(objectlock, "_now", lambda: now + 25)
        lock_of_another(root, 0)  # written past the lock, as another machine would
        monkeypatch.setattr(objectlock, "_now", lambda: now + 35)
        with pytest.raises(StorageError, match=r"expected to hold the lock .* got one of process 1 on far"):
            run.storage.write("spec.yaml", b"")
        lock_of_another_is_kept = json.loads(open_storage(root).read(".lock"))["owner"] == "x"
    assert lock_of_another_is_kept
    assert "spec.yaml" not in open_storage(root).names()


def test_who_is_told_while_renewing_that_another_holds_the_lock_writes_no_more(
    root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objectlock, "SECONDS_BETWEEN_RENEWALS", 0.5)
    run = Run(root)
    with run.locked():
        (renewing,) = (thread for thread in threading.enumerate() if thread.name == "run-lock")
        with run.storage._lock._renewing:  # type: ignore[attr-defined]
            lock_of_another(root, 0)
        renewing.join(20)
        assert not renewing.is_alive()
        with pytest.raises(StorageError, match="expected to hold the lock"):
            run.storage.write("spec.yaml", b"")


def test_a_sweep_that_lost_its_lock_writes_nothing_more(
    root: str, make_spec: MakeSpec, make_trial: MakeTrial, make_result: MakeResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    def record(spec: TrialSpec) -> None:
        result = make_result(spec)
        run.write_trial(spec.key, trial_row(spec, 0, result, {}), accuracy_rows(spec, 0, result))

    run, first, second = Run.create(root, make_spec()), make_trial(), make_trial(seed=1)
    with run.locked():
        monkeypatch.setattr(ObjectLock, "is_due", lambda lock: bool(lock._owner))
        record(first)
        lock_of_another(root, 0)
        with pytest.raises(StorageError, match="run: expected to hold the lock"):
            record(second)
    assert Run.open(root).outcomes().keys() == {first.key}
    assert json.loads(run.storage.read(".lock"))["owner"] == "x"
