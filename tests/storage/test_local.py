"""A run on a disk: files replaced all at once, remains of dead processes, refusals by the system, the lock."""

from __future__ import annotations

import errno
import fcntl
import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from orchestrator.core.errors import OrchestratorError, RunFolderError, StorageError
from orchestrator.results.run import Run
from orchestrator.results.tables import Table
from orchestrator.spec.sweep_spec import SweepSpec
from orchestrator.storage import folders
from orchestrator.storage.base import TABLES, StoredFile, compacting
from orchestrator.storage.local import LocalStorage
from orchestrator.storage.opening import stored_file

MakeSpec = Callable[..., SweepSpec]
AsUser = Callable[[int, int], AbstractContextManager[None]]

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")


def raising(number: int) -> Callable[..., None]:
    """Return a function that fails as the system does."""

    def refuse(*args: Any, **options: Any) -> None:
        raise OSError(number, os.strerror(number), *args[:1])

    return refuse


def test_remains_of_dead_processes_are_removed(tmp_path: Path, make_spec: MakeSpec) -> None:
    run = Run.create(tmp_path, make_spec())
    for folder in (*map(compacting, TABLES), *TABLES, "checkpoints"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / ".a.parquet.7.tmp").write_bytes(b"PAR1")
    (tmp_path / ".trials.compact" / "a.parquet").write_bytes(b"PAR1")
    (tmp_path / ".spec.yaml.7.tmp").write_bytes(b"name:")
    (tmp_path / "checkpoints" / "k.pt").write_bytes(b"x")
    assert run.trials().empty
    with run.locked():
        left = sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*"))
    assert left == sorted([*TABLES, ".lock", "checkpoints", "checkpoints/k.pt", "spec.yaml"])


def test_a_folder_of_remains_takes_a_run(tmp_path: Path, make_spec: MakeSpec) -> None:
    (tmp_path / ".spec.yaml.7.tmp").write_bytes(b"name:")
    (tmp_path / ".lock").write_text("7")
    with Run(tmp_path).locked():
        assert Run.create(tmp_path, make_spec()).spec == make_spec()


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC, errno.EDQUOT])
def test_a_read_only_folder_is_reported_and_read(
    tmp_path: Path, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    run = Run.create(tmp_path, make_spec())
    real = open

    def read_only(file: Any, mode: str = "r", *args: Any, **options: Any) -> Any:
        if set(mode) & set("wax+"):
            raising(number)(file)
        return real(file, mode, *args, **options)

    monkeypatch.setattr("builtins.open", read_only)
    with pytest.raises(StorageError, match=r"(?i)choose another --run"):
        run.locked().__enter__()
    with pytest.raises(StorageError, match=f"(?i){os.strerror(number)}"):
        Run.create(tmp_path, make_spec())
    assert Run.open(tmp_path).spec == make_spec()
    assert run.trials().empty


@pytest.mark.parametrize("closed", [".", *TABLES])
def test_a_folder_closed_to_this_user_is_refused_early(
    tmp_path: Path, make_spec: MakeSpec, as_user: AsUser, closed: str
) -> None:
    """The system itself refuses; if the tests run as root, they become a user without rights."""
    run = Run.create(Path("run"), make_spec())
    for folder in (*TABLES, "."):
        (tmp_path / "run" / folder).mkdir(exist_ok=True)
        (tmp_path / "run" / folder).chmod(0o555 if folder == closed else 0o777)
    before = sorted(tmp_path.rglob("*"))
    with as_user(1234, 1234):
        with pytest.raises(StorageError, match=r"(?i)permission denied.*choose another --run"):
            run.locked().__enter__()
        assert Run.open(Path("run")).trials().empty, "it is still read"
    after = sorted(tmp_path.rglob("*"))
    assert [path.name for path in after if path not in before] == ([] if closed == "." else [".lock"])
    (tmp_path / "run" / closed).chmod(0o777)
    with as_user(1234, 1234), run.locked():
        pass


def test_the_folder_or_lock_that_is_closed_is_named(tmp_path: Path, make_spec: MakeSpec, as_user: AsUser) -> None:
    run = Run.create(Path("run"), make_spec())
    (tmp_path / "run").chmod(0o777)
    (tmp_path / "run" / "accuracy").mkdir(mode=0o555)
    with (
        as_user(1234, 1234),
        pytest.raises(StorageError, match=r"write to run/accuracy: permission denied\. Change its"),
    ):
        run.locked().__enter__()
    (tmp_path / "run" / "accuracy").rmdir()
    (tmp_path / "run" / "accuracy").write_text("a file")
    with pytest.raises(StorageError, match=r"Cannot write to run/accuracy: not a directory\."):
        run.locked().__enter__()
    (tmp_path / "run" / ".lock").chmod(0o444)
    with (
        as_user(4321, 4321),
        pytest.raises(StorageError, match=r"lock file run/\.lock: permission denied\. Change its"),
    ):
        run.locked().__enter__()


@needs_root
def test_a_lock_of_root_belongs_to_the_folders_owner(tmp_path: Path, make_spec: MakeSpec, as_user: AsUser) -> None:
    run = Run.create(Path("run"), make_spec())
    os.chown("run", 1234, 1235)
    with run.locked():
        pass
    found = os.stat("run/.lock")
    assert (found.st_uid, found.st_gid) == (1234, 1235)
    with as_user(1234, 1235), run.locked():
        pass


def test_a_moved_run_folder_is_written_no_more(tmp_path: Path, make_spec: MakeSpec) -> None:
    run = Run(tmp_path / "run")
    with run.locked():
        Run.create(run.storage, make_spec())
        run.path.rename(tmp_path / "moved")
        for call in (
            lambda: run.storage.folder("trials").write("a", b"x"),
            lambda: run.storage.write("spec.yaml", b"x"),
            lambda: run.storage.folder("trials").names(),
        ):
            with pytest.raises(StorageError, match=r"run: lost the lock '.*/run/\.lock': the run folder was moved, or"):
                call()
        assert [path.name for path in tmp_path.iterdir()] == ["moved"]
        (tmp_path / "run").mkdir()
        with pytest.raises(StorageError, match="was moved"):
            run.storage.folder("accuracy").write("a", b"x")
        assert list((tmp_path / "run").iterdir()) == []
    with Run(tmp_path / "moved").locked():
        assert Run.open(tmp_path / "moved").spec == make_spec()


def test_without_its_lock_a_sweep_writes_no_more(tmp_path: Path) -> None:
    one, other = LocalStorage(tmp_path / "run"), LocalStorage(tmp_path / "run")
    with one.locked():
        (tmp_path / "run" / ".lock").unlink()
        with pytest.raises(StorageError, match="its lock was deleted"):
            one.write("a", b"x")
        with other.locked():
            for write in (one.write, one.folder("trials").write):
                with pytest.raises(StorageError, match="its lock was deleted"):
                    write("a", b"x")
            (tmp_path / "run" / ".trials.compact").mkdir()
            with pytest.raises(StorageError, match="its lock was deleted"):
                one.drop_compactions()
            assert other.names() == [".lock", ".trials.compact"]
            (tmp_path / "run" / ".trials.compact").rmdir()


def test_a_lost_lock_leaves_the_next_holders_alone(tmp_path: Path) -> None:
    one, other = LocalStorage(tmp_path / "run"), LocalStorage(tmp_path / "run")
    first, second = one.locked(), other.locked()
    first.__enter__()
    (tmp_path / "run" / ".lock").unlink()
    second.__enter__()
    first.__exit__(None, None, None)
    other.write("a", b"x")
    with pytest.raises(RunFolderError, match="another sweep uses"):
        one.locked().__enter__()
    second.__exit__(None, None, None)


def test_a_lock_lost_during_a_write_commits_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = LocalStorage(tmp_path / "run")
    with storage.locked():
        storage.write("a", b"old")

        def lose(point: str) -> None:
            if point == "row.written":
                (tmp_path / "run" / ".lock").unlink()

        monkeypatch.setattr(folders, "reached", lose)
        with pytest.raises(StorageError, match="its lock was deleted"):
            storage.write("a", b"new")
    assert storage.read("a") == b"old"
    assert storage.names() == ["a"]


def test_a_checkpoint_makes_no_run_folder_anew(tmp_path: Path) -> None:
    """A worker holds no lock, and goes on without a checkpoint that it cannot write."""
    file = stored_file(tmp_path / "gone" / "checkpoints" / "k.pt")
    with pytest.raises(FileNotFoundError):
        file.storage.write(file.name, b"x", "checkpoint", durable=False)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_without_locks_is_no_other_sweep(
    tmp_path: Path, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fcntl, "flock", raising(errno.ENOLCK))
    with pytest.raises(StorageError, match=r"(?i)no locks available"), Run.create(tmp_path, make_spec()).locked():
        pass


def test_a_held_folder_names_its_process(tmp_path: Path, make_spec: MakeSpec) -> None:
    run = Run.create(tmp_path, make_spec())
    with run.locked():
        for _ in range(2):
            with (
                pytest.raises(
                    RunFolderError, match=rf"another sweep uses '.*' \(process {os.getpid()}\)\. Wait for it,"
                ),
                run.locked(),
            ):
                pass


def removed(path: Path) -> None:
    path.unlink()


def removed_with_its_folder(path: Path) -> None:
    path.unlink()
    path.parent.rmdir()


@pytest.mark.parametrize("remove", [removed, removed_with_its_folder])
def test_a_lock_file_removed_while_opened_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, remove: Callable[[Path], None]
) -> None:
    """Its last holder found a mistake in its spec, and removed the folder when it let go."""
    real, storage, paths = fcntl.flock, LocalStorage(tmp_path / "run"), [tmp_path / "run" / ".lock"]

    def flock(file: Any, operation: int) -> None:
        if paths:
            remove(paths.pop())
        real(file, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    with storage.locked():
        assert paths == []
        assert storage.read(".lock") == str(os.getpid()).encode()
        with pytest.raises(RunFolderError, match="another sweep uses"), LocalStorage(tmp_path / "run").locked():
            pass


def test_a_lock_file_made_anew_by_another_is_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, lock = fcntl.flock, tmp_path / ".lock"
    others: list[Any] = []

    def flock(file: Any, operation: int) -> None:
        if not others:
            lock.unlink()
            others.append(open(lock, "a+"))  # noqa: SIM115
            real(others[0], operation)
        real(file, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(RunFolderError, match="another sweep uses"), LocalStorage(tmp_path).locked():
        pass
    others[0].close()
    with LocalStorage(tmp_path).locked():
        pass


def test_a_lock_file_removed_for_ever_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", lambda file, operation: (tmp_path / ".lock").unlink())
    with pytest.raises(FileNotFoundError), LocalStorage(tmp_path).locked():
        pass


def test_a_new_folder_is_synced_before_its_first_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is lost with its folder if the name of the folder was not synced."""
    order: list[str] = []
    real_sync, real_mkdir = os.fsync, os.mkdir

    def sync(descriptor: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        order.append(f"sync {'file' if path.is_file() else path.relative_to(tmp_path)}")
        real_sync(descriptor)

    def mkdir(path: Any, *args: Any) -> None:
        real_mkdir(path, *args)
        order.append(f"make {Path(path).relative_to(tmp_path)}")

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "mkdir", mkdir)
    run = LocalStorage(tmp_path / "runs" / "one")
    table = run.folder("trials")
    with run.locked():
        assert order == ["make runs", "sync .", "make runs/one", "sync runs"], "the lock makes the folder of a run"
        order.clear()
        table.write("a", b"x")
        assert order == ["make runs/one/trials", "sync runs/one", "sync file", "sync runs/one/trials"]
        order.clear()
        table.write("b", b"x")
    assert order == ["sync file", "sync runs/one/trials"], "a folder that is there costs nothing more"
    order.clear()
    LocalStorage(tmp_path / "checkpoints").write("c", b"x", durable=False)
    assert order == ["make checkpoints"]


def test_an_unreadable_table_is_not_called_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.parquet").write_bytes(b"x")
    monkeypatch.setattr(LocalStorage, "read", lambda self, name: raising(errno.EACCES)(tmp_path / name))
    with pytest.raises(StorageError, match=r"Cannot read .*a\.parquet: permission denied\. Fix"):
        Table(tmp_path, "trials").read()


def test_a_folder_that_never_stands_still_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.parquet").write_bytes(b"x")
    monkeypatch.setattr(LocalStorage, "read", lambda self, name: raising(errno.ENOENT)(tmp_path / name))
    with pytest.raises(StorageError, match=r"Cannot read .*a\.parquet: "):
        Table(tmp_path, "trials").read()


def test_a_limit_of_the_system_leaves_the_old_file(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    storage.write("a", b"old")
    code = (
        "import resource, signal, sys\nfrom pathlib import Path\nfrom orchestrator.storage.local import LocalStorage\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\nresource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try:\n    LocalStorage(Path(sys.argv[1])).write('a', bytes(5000))\nexcept OSError as e:\n"
        "    print(e.strerror)\n"
    )
    child = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert child.stdout.strip() == os.strerror(errno.EFBIG), child.stderr
    assert storage.names() == ["a"]
    assert storage.read("a") == b"old"


def test_files_are_made_of_paths(tmp_path: Path) -> None:
    file = stored_file(tmp_path / "c.pt")
    assert stored_file(file) is file
    assert isinstance(file, StoredFile)
    assert str(file) == str(tmp_path / "c.pt")
    assert stored_file(file.storage.address("c.pt")).storage.path == tmp_path


def test_a_sync_empties_the_cache_of_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on macOS; a file system that has no such call gets the plain one."""
    calls: list[str] = []
    monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(os, "fsync", lambda descriptor: calls.append("plain"))
    monkeypatch.setattr(fcntl, "fcntl", lambda descriptor, command: calls.append(f"full {command}"))
    folders.sync_folder(tmp_path)
    assert calls == ["full 51"]
    monkeypatch.setattr(fcntl, "fcntl", raising(errno.ENOTSUP))
    folders.sync_folder(tmp_path)
    assert calls == ["full 51", "plain"]


def test_windows_gets_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fcntl", None)
    with pytest.raises(OrchestratorError, match=r"^continual-sweep runs on Linux and macOS\. On Windows, install WSL"):
        runpy.run_path(folders.__file__)
