"""Two folders change places in one step of the system: `renameat2` on Linux, `renamex_np` on macOS."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

from orchestrator.core.errors import StorageError

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # linux/fcntl.h, linux/fs.h
_RENAME_SWAP = 2  # sys/stdio.h of macOS
_UNSUPPORTED = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EXDEV)


def exchange(one: Path, other: Path) -> None:
    """Make two folders change places in one step.

    Raises:
        StorageError: if this system, or this file system, cannot; both are then as they were.
        OSError: if the system refuses for another reason.
    """
    source, target = os.fsencode(one), os.fsencode(other)
    try:
        library = ctypes.CDLL(None, use_errno=True)
    except OSError as error:
        raise _no_exchange(one) from error
    if hasattr(library, "renameat2"):
        failed = library.renameat2(_AT_FDCWD, source, _AT_FDCWD, target, _RENAME_EXCHANGE)
    elif hasattr(library, "renamex_np"):
        failed = library.renamex_np(source, target, _RENAME_SWAP)
    else:
        raise _no_exchange(one)
    if failed:
        number = ctypes.get_errno()
        if number in _UNSUPPORTED:
            raise _no_exchange(one)
        raise OSError(number, os.strerror(number), str(one))


def _no_exchange(path: Path) -> StorageError:
    return StorageError(
        f"compact: the file system of '{path.parent}' cannot swap two folders in one step, so nothing was changed; "
        "copy the run to another disk to compact it"
    )
