"""The checkpoint of a running trial: one file, replaced as a whole, and loaded without running code from it."""

from __future__ import annotations

import hashlib
import inspect
import io
import platform
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from orchestrator.storage.base import StoredFile
from orchestrator.storage.opening import stored_file
from orchestrator.trial.provenance import source_hash
from strategies import Strategy
from strategies.lazy import torch

_MAGIC = "continual-sweep checkpoint 1"

Identity = dict[str, str]
"""What a checkpoint belongs to; under any other identity it is not used."""


def identity_of(key: str, device: torch.device, strategies: Iterable[type[Strategy]]) -> Identity:
    """Return what a checkpoint of the trial `key` belongs to: the trial, the code, versions, and the kind of device.

    The code is this package and the modules that define `strategies`, which may be a user's own, but not what those
    modules import.
    """
    classes: set[Any] = {base for strategy in strategies for base in strategy.__mro__ if issubclass(base, Strategy)}
    return {
        "key": key,
        "source": source_hash(),
        "torch": str(torch.__version__),  # a subclass of str, which weights_only refuses to load
        "python": platform.python_version(),
        "device": device.type,
    } | {f"{cls.__module__}:{cls.__qualname__}": _module_hash(cls) for cls in classes}


def save_checkpoint(path: Path | StoredFile, identity: Identity, payload: dict[str, Any]) -> None:
    """Write `payload` (tensors, numbers, strings, lists and dicts), atomically.

    Raises:
        OSError: if the system refuses; the previous checkpoint stays.
    """
    content = io.BytesIO()  # writing to a file, torch would turn a full disk into a RuntimeError
    torch.save({"magic": _MAGIC, "identity": identity, "payload": payload}, content)
    file = stored_file(path)
    file.storage.write(file.name, content.getbuffer(), "checkpoint", durable=False)


def load_checkpoint(path: Path | StoredFile, identity: Identity) -> dict[str, Any] | None:
    """Return the payload saved under `identity`, or None if there is no usable one.

    With a damaged or foreign file the trial starts from its beginning, which costs nothing but time. Tensors return to
    the CPU or, if they were on a GPU, to the current one.

    Raises:
        torch.OutOfMemoryError: if the GPU has no room for it.
        torch.AcceleratorError: if the GPU fails.
    """

    def place(storage: Any, location: str) -> Any:
        return storage if "cpu" in (location, identity["device"]) else storage.cuda()

    try:
        file = stored_file(path)
        content = torch.load(io.BytesIO(file.storage.read(file.name)), map_location=place, weights_only=True)
        if content["magic"] != _MAGIC or content["identity"] != identity:
            return None
        payload: dict[str, Any] = content["payload"]
    except (torch.OutOfMemoryError, torch.AcceleratorError):
        raise
    except Exception:
        return None
    return payload


def delete_checkpoint(path: Path | StoredFile) -> None:
    """Delete a checkpoint if there is one; if the system refuses, it stays and does no harm."""
    file = stored_file(path)
    with suppress(OSError):
        file.storage.delete(file.name)


@cache
def _module_hash(cls: type) -> str:
    """Return a hash of the source of the module that defines a class; empty if it cannot be read."""
    try:
        source = inspect.getsourcefile(cls)
        return hashlib.sha256(Path(source).read_bytes()).hexdigest()[:12] if source else ""
    except (TypeError, OSError):
        return ""
