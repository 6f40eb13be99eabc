"""The checkpoint of a running trial: one file, replaced whole, loaded without unpickling code."""

from __future__ import annotations

import io
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from orchestrator.storage import StoredFile, stored_file

_MAGIC = "continual-sweep checkpoint 1"


def save_checkpoint(path: Path | StoredFile, key: str, payload: dict[str, Any]) -> None:
    """Write `payload` (tensors, numbers, strings, lists and dicts) for the trial `key`, atomically.

    Raises:
        OSError: where the system refuses; the checkpoint before it stays.
    """
    content = io.BytesIO()  # straight into a file, torch turns a full disk into a RuntimeError
    torch.save({"magic": _MAGIC, "key": key, "payload": payload}, content)
    file = stored_file(path)
    file.storage.write(file.name, content.getbuffer(), "checkpoint", durable=False)


def load_checkpoint(path: Path | StoredFile, key: str, device: torch.device) -> dict[str, Any] | None:
    """Return the payload saved for the trial `key`, or None where there is none that can be used.

    A damaged or foreign file is none: the trial then starts from its beginning, which costs time and nothing else.
    """
    try:
        file = stored_file(path)
        content = torch.load(io.BytesIO(file.storage.read(file.name)), map_location="cpu", weights_only=True)
    except FileNotFoundError:
        return None
    except Exception:
        return None
    if not isinstance(content, dict) or content.get("magic") != _MAGIC or content.get("key") != key:
        return None
    payload: dict[str, Any] = content["payload"]
    return _to_device(payload, device) if device.type != "cpu" else payload


def delete_checkpoint(path: Path | StoredFile) -> None:
    """Delete a checkpoint where there is one; where the system refuses it stays, and is of no use to anyone."""
    file = stored_file(path)
    with suppress(OSError):
        file.storage.delete(file.name)


def _to_device(payload: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """Move all tensors to `device`, except the positions of random generators, which live on the CPU."""

    def move(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return value.to(device)
        if isinstance(value, dict):
            return {name: (item if name == "generators" else move(item)) for name, item in value.items()}
        if isinstance(value, list):
            return [move(item) for item in value]
        return value

    moved: dict[str, Any] = move(payload)
    return moved
