"""Where an export goes: a file, all at once, on a disk or in an object store."""

from __future__ import annotations

import os
from pathlib import Path

from orchestrator.core.errors import StorageError, UsageError, system_message
from orchestrator.storage.opening import stored_file
from orchestrator.storage.uris import is_uri


def write_export(place: str, content: bytes) -> None:
    """Replace a file all at once.

    Args:
        place: a path or a URI; its folder is made if it is missing.
        content: all of it.

    Raises:
        UsageError: if a folder, a device or a pipe is there.
        StorageError: if the system refuses.
    """
    target: str | Path = place
    if not is_uri(place):
        target = Path(os.path.realpath(Path(place).expanduser()))  # a link stays, and what it leads to is replaced
        if not place.strip() or (target.exists() and not target.is_file()):
            kind = "a folder" if target.is_dir() else "a device or a pipe"
            raise UsageError(f"-o: expected a file to write, got {kind}, '{place}'; name a file in it, or leave -o out")
    try:
        file = stored_file(target)
        file.storage.write(file.name, content, "export")
    except OSError as error:
        raise StorageError(f"{system_message('write to', place, error)} Choose another -o.") from error
