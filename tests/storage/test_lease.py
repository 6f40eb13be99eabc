"""The lock of a run in an object store."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from orchestrator.core.errors import RunFolderError, StorageError
from orchestrator.results.rows import accuracy_rows, trial_row
from orchestrator.results.run import Run
from orchestrator.spec.sweep_spec import SweepSpec
from orchestrator.spec.trial_spec import TrialSpec
from orchestrator.storage import lease
from orchestrator.storage.lease import ChangedError, ObjectLock, Version
from orchestrator.storage.opening import open_storage
from orchestrator.storage.uris import join
from orchestrator.trial.result import TrialResult

MakeSpec = Callable[..., SweepSpec]
MakeTrial = Callable[..., TrialSpec]
MakeResult = Callable[..., TrialResult]

FAR = {"owner": "x", "host": "far", "process": 1, "machine": "another", "renewed": 0.0}


class Stored:
    """The object of a lock, in memory; `refusing` makes it a store that is out of reach."""

    def __init__(self, content: bytes | None = None) -> None:
        self.content, self.n_puts, self.refusing, self.answers_get_lost = content, 0, False, False
        self.conditions_are_ignored = False

    def read(self) -> tuple[bytes, Version]:
        if self.content is None:
            raise FileNotFoundError
        return self.content, {"e_tag": str(self.n_puts)}

    def put(self, content: bytes, seen: Version | None) -> Version:
        if self.refusing:
            raise OSError("out of reach")
        there = None if self.content is None else {"e_tag": str(self.n_puts)}
        if seen != there and not self.conditions_are_ignored:
            raise ChangedError
        self.force(content)
        if self.answers_get_lost:
            self.answers_get_lost = False
            raise ChangedError  # of a second try, which the store's library makes
        return {"e_tag": str(self.n_puts)}

    def force(self, content: bytes) -> None:
        """Put what another machine puts."""
        self.content = content
        self.n_puts += 1

    def delete(self) -> None:
        self.content = None

    @property
    def owner(self) -> str:
        assert self.content is not None
        return str(json.loads(self.content)["owner"])


def lock_of_far(**changes: Any) -> bytes:
    return json.dumps(FAR | changes).encode()


@pytest.fixture
def stored() -> Stored:
    return Stored()


def lock_on(stored: Stored) -> ObjectLock:
    return ObjectLock("s3://b/run", stored)


@pytest.fixture
def each_look(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], list[float]]:
    """Return what makes waiting take no time and calls something each time; the waits go into the list it returns."""

    def prepare(call: Callable[[], object] = lambda: None) -> list[float]:
        waits: list[float] = []

        def sleep(seconds: float) -> None:
            waits.append(seconds)
            call()

        monkeypatch.setattr(lease, "_sleep", sleep)
        monkeypatch.setattr(lease, "_clock", lambda: sum(waits))
        return waits

    return prepare


EachLook = Callable[..., list[float]]


@contextmanager
def refused(holder: str = "process 1 on far") -> Iterator[None]:
    with pytest.raises(
        RunFolderError, match=rf"run: another sweep uses 's3://b/run' \({holder}\)\. Wait for it, or choose another"
    ):
        yield


def take(stored: Stored, said: list[str] | None = None) -> None:
    """Take the lock and let go of it."""
    with lock_on(stored).held((said if said is not None else []).append):
        assert stored.owner not in ("", "x")


# In a store.


def test_a_second_holder_waits_for_the_first(root: str, make_spec: MakeSpec) -> None:
    run = Run.create(root, make_spec())
    with run.locked():
        with (
            pytest.raises(RunFolderError, match=rf"another sweep uses .* \(process {os.getpid()} on "),
            Run(root).locked(),
        ):
            pass
        assert Run.create(root, make_spec()).spec == make_spec()
        run.storage._lock.renew()  # type: ignore[attr-defined]
    assert ".lock" not in run.storage.names()
    with Run(root).locked():
        pass


def test_a_dead_process_of_this_machine_does_not_block(s3: str) -> None:
    place = join(s3, uuid.uuid4().hex)
    code = (
        "import sys, time\nfrom orchestrator.storage.opening import open_storage\n"
        "with open_storage(sys.argv[1]).locked():\n    print('held', flush=True)\n    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, place], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        with pytest.raises(RunFolderError, match=rf"\(process {child.pid} on"), open_storage(place).locked():
            pass
        child.send_signal(signal.SIGKILL)
        child.wait()
        with open_storage(place).locked(lambda text: pytest.fail(text)):
            pass


def test_a_lock_is_taken_over_once(root: str, each_look: EachLook) -> None:
    """Of two processes that saw the same abandoned lock, the store lets one replace it."""
    each_look()
    storage = open_storage(root)
    storage.write(".lock", lock_of_far())
    stored = storage._lock._stored  # type: ignore[attr-defined]
    content, version = stored.read()
    assert content == lock_of_far()
    with storage.locked():
        with pytest.raises(ChangedError):
            stored.put(b"", version)
        with pytest.raises(ChangedError):
            stored.put(b"", None)
    with pytest.raises(ChangedError):
        stored.put(b"", version)
    assert storage.names() == []


def test_a_sweep_that_lost_its_lock_writes_no_more(
    root: str, make_spec: MakeSpec, make_trial: MakeTrial, make_result: MakeResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    def record(spec: TrialSpec) -> None:
        result = make_result(spec)
        run.tables.write_trial(spec.key, trial_row(spec, 0, result, {}), accuracy_rows(spec, 0, result))

    run, first, second = Run.create(root, make_spec()), make_trial(), make_trial(seed=1)
    with run.locked():
        monkeypatch.setattr(ObjectLock, "is_due", lambda lock: bool(lock._owner))
        record(first)
        open_storage(root).write(".lock", lock_of_far())
        with pytest.raises(StorageError, match=r"run: lost the lock of .* to process 1 on far"):
            record(second)
    assert Run.open(root).outcomes().keys() == {first.key}
    assert run.storage.read(".lock") == lock_of_far(), "the next holder's lock is left alone"


# Taking it.


@pytest.mark.parametrize("renewed", [-3600.0, 0.0, 10**9, "now", None, "soon", float("nan"), float("inf")])
def test_an_abandoned_lock_is_taken_whatever_its_clock(stored: Stored, each_look: EachLook, renewed: object) -> None:
    said: list[str] = []
    waits = each_look()
    stored.force(lock_of_far(renewed=time.time() if renewed == "now" else renewed))
    take(stored, said)
    assert said == ["waiting for up to 60 seconds to see whether process 1 on far still renews its lock"]
    assert sum(waits) == lease.LEASE_SECONDS
    assert stored.content is None


def test_a_lock_that_is_renewed_is_left_alone(stored: Stored, each_look: EachLook) -> None:
    stored.force(lock_of_far())
    each_look(lambda: stored.force(lock_of_far()))
    with refused():
        take(stored)
    assert stored.owner == "x"


def test_a_renewal_at_the_last_moment_is_respected(stored: Stored, each_look: EachLook) -> None:
    stored.force(lock_of_far())
    waits = each_look(lambda: stored.force(lock_of_far()) if sum(waits) >= lease.LEASE_SECONDS else None)
    with refused():
        take(stored)
    assert stored.owner == "x"


def test_a_renewal_after_the_last_look_is_respected(
    stored: Stored, each_look: EachLook, monkeypatch: pytest.MonkeyPatch
) -> None:
    each_look()
    stored.force(lock_of_far())
    put = Stored.put

    def late(self: Stored, content: bytes, seen: Version | None) -> Version:
        stored.force(lock_of_far())
        return put(self, content, seen)

    monkeypatch.setattr(Stored, "put", late)
    with refused():
        take(stored)
    assert stored.owner == "x"


def test_a_lock_that_is_let_go_of_is_taken_at_once(stored: Stored, each_look: EachLook) -> None:
    stored.force(lock_of_far())
    waits = each_look(stored.delete)
    take(stored)
    assert len(waits) == 1


def test_of_two_who_start_at_once_one_holds(stored: Stored, monkeypatch: pytest.MonkeyPatch) -> None:
    read, n_reads = Stored.read, 0

    def too_early(self: Stored) -> tuple[bytes, Version]:
        nonlocal n_reads
        n_reads += 1
        if n_reads == 1:
            stored.force(lock_of_far())
            raise FileNotFoundError
        return read(self)

    monkeypatch.setattr(Stored, "read", too_early)
    with refused():
        take(stored)
    assert stored.owner == "x"


def test_a_lock_gone_after_a_refusal_is_a_refusal(stored: Stored, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Stored, content: bytes, seen: Version | None) -> Version:
        raise ChangedError

    monkeypatch.setattr(Stored, "put", refuse)
    with refused("another process"):
        take(stored)


def test_a_first_put_whose_answer_was_lost_counts(stored: Stored) -> None:
    stored.answers_get_lost = True
    take(stored)
    assert stored.content is None


@pytest.mark.parametrize(
    "content", [b"", b"\xff", b"3", b"{}", b'"owner"', b'{"owner": 3}', b"[" * 100_000], ids=lambda c: c[:9]
)
def test_what_is_no_lock_does_not_block(stored: Stored, content: bytes) -> None:
    said: list[str] = []
    stored.force(content)
    take(stored, said)
    assert said == []


@pytest.mark.parametrize("process", [None, "one", 10**30, [1]])
def test_a_lock_with_an_odd_process_is_watched(stored: Stored, each_look: EachLook, process: object) -> None:
    waits = each_look()
    stored.force(lock_of_far(process=process, machine=lease._machine(), renewed=time.time()))
    take(stored)
    assert waits


def test_a_live_process_here_is_respected_at_once(stored: Stored, each_look: EachLook) -> None:
    waits = each_look()
    here = {"process": os.getpid(), "machine": lease._machine()}
    stored.force(lock_of_far(renewed=time.time(), **here))
    with refused(f"process {os.getpid()} on far"):
        take(stored)
    assert waits == []
    stored.force(lock_of_far(renewed=time.time() - 3600, **here))
    take(stored)
    assert waits, "its number may be that of another process by now"


def test_another_users_process_here_is_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", refuse)
    assert lease._process_here({"process": 7, "machine": lease._machine()}) is True


def test_without_boot_numbers_every_lock_is_watched(
    stored: Stored, each_look: EachLook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on macOS."""
    monkeypatch.setattr(lease, "Path", lambda *_: Path("/nowhere"))
    assert lease._machine() == ""
    waits = each_look()
    stored.force(lock_of_far(machine="", process=2**22 + 1, renewed=time.time()))  # beyond every process
    take(stored)
    assert sum(waits) == lease.LEASE_SECONDS


def test_a_store_that_ignores_conditions_is_refused(stored: Stored) -> None:
    stored.conditions_are_ignored = True
    with pytest.raises(StorageError, match=r"cannot lock 's3://b/run': this store ignores the condition of a put"):
        take(stored)
    assert stored.content is None


def test_a_store_out_of_reach_is_an_oserror(stored: Stored) -> None:
    stored.refusing = True
    with pytest.raises(OSError, match="out of reach"):
        take(stored)


# Keeping it.


def wait_for(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 20
    while not (met := condition()) and time.monotonic() < deadline:
        time.sleep(0.005)
    return met


def test_a_lock_is_renewed_also_after_a_refusal(stored: Stored, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "RENEWAL_SECONDS", 0.01)
    monkeypatch.setattr(lease, "RETRY_SECONDS", 0.01)
    put, n_refused = Stored.put, 0

    def count(self: Stored, content: bytes, seen: Version | None) -> Version:
        nonlocal n_refused
        n_refused += self.refusing
        return put(self, content, seen)

    monkeypatch.setattr(Stored, "put", count)
    with lock_on(stored).held(print):
        for is_refusing in (False, True, False):
            stored.refusing = is_refusing
            before = (stored.n_puts, n_refused)
            assert wait_for(lambda: (n_refused if is_refusing else stored.n_puts) > before[is_refusing] + 1)  # noqa: B023


def test_every_renewal_differs(stored: Stored, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store may number versions by their content, and a clock may stand still."""
    monkeypatch.setattr(lease.time, "time", lambda: 1.0)
    lock, seen = lock_on(stored), set()
    with lock.held(print):
        for _ in range(3):
            lock.renew()
            seen.add(stored.content)
    assert len(seen) == 3


def test_a_renewal_whose_answer_was_lost_counts(stored: Stored) -> None:
    lock = lock_on(stored)
    with lock.held(print):
        stored.answers_get_lost = True
        lock.renew()
        lock.renew()


def test_a_write_after_half_the_lease_renews_first(stored: Stored, monkeypatch: pytest.MonkeyPatch) -> None:
    lock, now = lock_on(stored), lease._now()
    monkeypatch.setattr(lease, "_now", lambda: now)
    assert not lock.is_due()
    with lock.held(print):
        assert not lock.is_due()
        now += lease.LEASE_SECONDS / 2 + 1
        assert lock.is_due()
        lock.renew()
        assert not lock.is_due()
    now += lease.LEASE_SECONDS
    assert not lock.is_due(), "it is not held"


def test_the_lease_counts_from_before_the_put(stored: Stored, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store may have answered late."""
    lock, now, put = lock_on(stored), 0.0, Stored.put

    def slow(self: Stored, content: bytes, seen: Version | None) -> Version:
        nonlocal now
        now += lease.LEASE_SECONDS
        return put(self, content, seen)

    monkeypatch.setattr(lease, "_now", lambda: now)
    monkeypatch.setattr(Stored, "put", slow)
    with lock.held(print):
        assert lock.is_due()


def test_a_lease_outlasts_a_refused_renewal() -> None:
    assert lease.LEASE_SECONDS / 2 > lease.RENEWAL_SECONDS + lease.RETRY_SECONDS


@pytest.mark.parametrize("after", ["another's", "deleted", "no lock"])
def test_a_lost_lock_is_reported_and_left_alone(stored: Stored, after: str) -> None:
    lock = lock_on(stored)
    with lock.held(print):
        if after == "deleted":
            stored.delete()
        else:
            stored.force(lock_of_far() if after == "another's" else b"")
        holder = "process 1 on far" if after == "another's" else "another process"
        with pytest.raises(StorageError, match=rf"lost the lock of 's3://b/run' to {holder}.*run the same command"):
            lock.renew()
    assert stored.content == {"another's": lock_of_far(), "deleted": None, "no lock": b""}[after]


def test_a_write_after_a_lost_renewal_raises(stored: Stored, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "RENEWAL_SECONDS", 0.05)
    lock = lock_on(stored)
    with lock.held(print):
        (renewing,) = (thread for thread in threading.enumerate() if thread.name == "run-lock")
        with lock._renewing:
            stored.force(lock_of_far())
        renewing.join(20)
        assert not renewing.is_alive()
        assert lock.is_due()


def test_a_lock_that_cannot_be_deleted_is_left_to_end(stored: Stored, monkeypatch: pytest.MonkeyPatch) -> None:
    with lock_on(stored).held(print):
        stored.refusing = True
    assert stored.content is not None


@pytest.mark.parametrize("hidden", [(), ("CLOCK_BOOTTIME",), ("CLOCK_BOOTTIME", "CLOCK_MONOTONIC"), ("clock_gettime",)])
def test_there_is_a_clock_on_every_system(hidden: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in hidden:
        monkeypatch.delattr(time, name, raising=False)
    before = lease._now()
    assert lease._now() >= before > 0
