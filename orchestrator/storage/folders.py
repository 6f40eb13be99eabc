"""Folders on a disk: files replaced all at once, names that survive a loss of power, and a lock for one process."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from typing import IO

from orchestrator.core.errors import ON_WINDOWS, OrchestratorError, RunFolderError, StorageError, system_message
from orchestrator.core.fault_points import reached

try:
    import fcntl
except ImportError as _error:
    raise OrchestratorError(ON_WINDOWS) from _error

_MOST_TRIES = 100
"""Gives up on a lock file that other processes remove so often while it is opened."""


def make_folder(path: Path) -> None:
    """Make a folder and those above it if they are missing, so that their names survive a loss of power."""
    try:
        add_folder(path)
    except FileNotFoundError:
        if path == path.parent:
            raise
        make_folder(path.parent)
        add_folder(path)


def add_folder(path: Path, durable: bool = True) -> None:
    """Make a folder if it is missing, in one that exists.

    Args:
        path: the folder.
        durable: whether the name of a new one must survive a loss of power.
    """
    try:
        path.mkdir()
    except OSError:  # it exists; a disk that cannot be written reports that first
        if not path.is_dir():
            raise
        return
    if durable:
        sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make the names in a folder survive a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)


def sync(descriptor: int) -> None:
    """Make what was written survive a loss of power; on macOS, `fsync` alone leaves it in the cache of the disk."""
    full = getattr(fcntl, "F_FULLFSYNC", None)
    if full is not None:
        with suppress(OSError):  # a file system without it
            fcntl.fcntl(descriptor, full)
            return
    os.fsync(descriptor)


def replace_file(
    path: Path, content: bytes | memoryview, purpose: str, durable: bool, check: Callable[[], None]
) -> None:
    """Replace a file all at once; its name is not yet synced.

    Args:
        path: the file.
        content: all of it.
        purpose: the first word of the fault points.
        durable: whether the content must survive a loss of power.
        check: called before the file takes its name; raises if it must not.
    """
    temporary = path.with_name(f".{path.name}.{token_hex(4)}.tmp")  # not the process id: two machines may share one
    try:
        with open(temporary, "wb") as file:
            reached(f"{purpose}.opened")
            file.write(content)
            file.flush()
            if durable:
                sync(file.fileno())
        reached(f"{purpose}.written")
        check()
        os.replace(temporary, path)
    except (OSError, StorageError):
        with suppress(OSError):  # report the first error
            temporary.unlink(missing_ok=True)
        raise
    reached(f"{purpose}.replaced")


def remove_files(folder: Path, are_ours: Callable[[str], bool]) -> None:
    """Delete files of a folder by their names.

    Raises:
        RunFolderError: if one of them is a folder.
    """
    for name in sorted(filter(are_ours, os.listdir(folder))):
        reached("tidy.next")
        _delete(folder / name)


def remove_folder(path: Path) -> None:
    """Delete a folder of files, which may be missing. A file, or a link to a folder, is deleted itself.

    Raises:
        RunFolderError: if there is a folder in it.
    """
    if not is_folder(path):
        path.unlink(missing_ok=True)
        return
    for name in sorted(os.listdir(path)):
        reached("delete.next")
        _delete(path / name)
        reached("delete.done")
    path.rmdir()


def hand_over(what: Path | int, folder: Path) -> None:
    """Give what this process has made the owner and the group of a folder, as far as the system allows.

    Args:
        what: a path or a descriptor.
        folder: whose owner and group.
    """
    like = os.stat(folder)
    for owner, group in ((-1, like.st_gid), (like.st_uid, -1)):
        with suppress(OSError):
            os.chown(what, owner, group)


def refuse_links(folder: Path, names: Iterable[str]) -> None:
    """Refuse a run folder in which a name that is written to is a link: it may lead to anybody's files.

    Raises:
        RunFolderError: naming it and where it leads.
    """
    for path in (folder / name for name in names):
        if path.is_symlink():
            raise RunFolderError(
                f"run: '{path}' is a link to '{os.readlink(path)}'. Nothing is written through links: move what it "
                "leads to into its place, or delete it."
            )


def refuse_unwritable(folders: Iterable[Path]) -> None:
    """Refuse folders in which no file can be made, by making one. Those that are missing are skipped.

    Raises:
        StorageError: naming the folder.
    """
    for folder in folders:
        probe = folder / f".{token_hex(4)}.tmp"
        try:
            if os.path.lexists(folder):
                os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
                probe.unlink()
        except OSError as error:
            raise StorageError(
                f"run: {system_message('write to', folder, error)} Change its permissions or free space, or "
                "choose another --run."
            ) from error


def is_folder(path: Path) -> bool:
    """Return whether a folder is there, and no link to one."""
    return path.is_dir() and not path.is_symlink()


def _delete(path: Path) -> None:
    if is_folder(path):
        raise RunFolderError(f"run: '{path}' is a folder among temporary files. Move it out of the run folder.")
    path.unlink(missing_ok=True)


class FolderLock:
    """A lock file; the system releases it when its process ends, however it ends.

    Args:
        path: the file, in the folder that it locks.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._ours: os.stat_result | None = None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold it; the folder is made if it is missing.

        Raises:
            RunFolderError: if another process holds it, or something else has its name.
        """
        with _locked_file(self._path) as file:
            ours = os.fstat(file.fileno())
            if ours.st_nlink == 1:  # else it is somebody's file under another name too, and is left as it is
                file.seek(0)
                file.truncate()
                file.write(str(os.getpid()))
                file.flush()
                if ours.st_uid == os.geteuid():
                    hand_over(file.fileno(), self._path.parent)
            self._ours = ours
            try:
                yield
            finally:
                self._ours = None

    @property
    def is_held(self) -> bool:
        """Return whether this object took the lock."""
        return self._ours is not None

    def is_lost(self) -> bool:
        """Return whether this object took the lock, and the file is no longer in its place."""
        if self._ours is None:
            return False
        try:
            return not os.path.samestat(self._ours, os.lstat(self._path))
        except (FileNotFoundError, NotADirectoryError):
            return True

    def check(self) -> None:
        """Raise if the lock was lost.

        Raises:
            StorageError: saying so.
        """
        if self.is_lost():
            raise StorageError(
                f"run: lost the lock '{self._path}': the run folder was moved, or its lock was deleted. Run the same "
                "command again on the folder where it is now: what is complete is kept."
            )


def _locked_file(lock: Path, tries: int = _MOST_TRIES) -> IO[str]:
    """Return the lock file, open and locked; if its last holder removed it meanwhile, the next one of its name."""
    try:
        with ExitStack() as opened:
            make_folder(lock.parent)
            file = opened.enter_context(_opened(lock))
            _lock(file, lock.parent)
            if not os.path.samestat(os.fstat(file.fileno()), os.lstat(lock)):
                raise FileNotFoundError(errno.ENOENT, "removed while it was opened", str(lock))
            opened.pop_all()
            return file
    except (FileNotFoundError, FileExistsError):  # the file, or its folder, is another one by now
        if tries == 1:
            raise
    return _locked_file(lock, tries - 1)


def _opened(lock: Path) -> IO[str]:
    """Return the lock file, made if it is missing; nothing is opened through a link."""

    def opener(path: str, flags: int) -> int:
        return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)

    with ExitStack() as opened:
        try:
            file = opened.enter_context(open(lock, "a+", opener=opener))
        except OSError as error:
            if _is_odd(lock):
                raise _no_lock_file(lock) from error
            if isinstance(error, PermissionError) and lock.exists():
                raise StorageError(
                    f"run: {system_message('write to the lock file', lock, error)} Change its permissions, or choose "
                    "another --run."
                ) from error
            raise
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise _no_lock_file(lock)
        opened.pop_all()
    return file


def _is_odd(lock: Path) -> bool:
    try:
        return not stat.S_ISREG(os.lstat(lock).st_mode)
    except OSError:
        return False


def _no_lock_file(lock: Path) -> RunFolderError:
    return RunFolderError(f"run: '{lock}' is a link, a folder or a device, and not a lock file. Delete it.")


def _lock(file: IO[str], folder: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.seek(0)
        holder = file.read(20).strip()
        raise RunFolderError(
            f"run: another sweep uses '{folder}'{f' (process {holder})' if holder.isdigit() else ''}. Wait for it, or "
            "choose another --run."
        ) from error
