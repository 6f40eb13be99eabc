"""State as safetensors: nested dicts and lists of tensors and plain values, written and read without any pickle.

Tensors lie in a flat file under the names of their places; the rest is JSON in the file's own header.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from orchestrator.core.errors import RunFolderError

_REST = "state"
"""Entry of the header with the JSON."""


def to_bytes(state: Mapping[str, Any]) -> bytes:
    """Return a state as the content of a safetensors file.

    Args:
        state: text -> None, booleans, numbers, text, tensors, and dicts, lists and tuples of them.

    Raises:
        TypeError: if it holds something else.
    """
    tensors: dict[str, Tensor] = {}
    plain = _plain(dict(state), "", tensors)
    return save(tensors, {_REST: json.dumps(plain, allow_nan=False)})


def from_bytes(content: bytes, where: str) -> dict[str, Any]:
    """Return the state that `to_bytes` wrote.

    Raises:
        RunFolderError: if the content is damaged or something else.
    """
    try:
        tensors = load(content)
        size = int.from_bytes(content[:8], "little")
        rest = json.loads(json.loads(content[8 : 8 + size])["__metadata__"][_REST])
        state = _state(rest, tensors)
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise RunFolderError(f"{where}: expected the state of a model, got a file with faults ({reason})") from error
    if not isinstance(state, dict):
        raise RunFolderError(f"{where}: expected the state of a model, got {type(state).__name__}")
    return state


def _plain(value: Any, place: str, tensors: dict[str, Tensor]) -> Any:
    """Return a value as JSON, and add its tensors."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": str(value)}
    if isinstance(value, Tensor):
        tensors[place] = value.detach().cpu().contiguous().clone()
        return {"tensor": place}
    if isinstance(value, dict):
        items = enumerate(value.items())
        return {"dict": [[_plain(k, "", tensors), _plain(v, f"{place}/{n}", tensors)] for n, (k, v) in items]}
    if isinstance(value, list | tuple):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [_plain(one, f"{place}/{n}", tensors) for n, one in enumerate(value)]}
    raise TypeError(f"the state holds a {type(value).__name__} at '{place}', which no model folder can keep")


def _state(plain: Any, tensors: Mapping[str, Tensor]) -> Any:
    if not isinstance(plain, dict):
        if isinstance(plain, list):
            raise ValueError("a list without its kind")
        return plain
    ((kind, content),) = plain.items()
    match kind:
        case "tensor":
            return tensors[content]
        case "float":
            return float(content)
        case "dict":
            return {_state(key, tensors): _state(value, tensors) for key, value in content}
        case "list":
            return [_state(one, tensors) for one in content]
        case "tuple":
            return tuple(_state(one, tensors) for one in content)
    raise ValueError(f"an unknown kind '{kind}'")


def same(one: Any, other: Any) -> bool:
    """Return whether two states are equal, bit for bit."""
    if isinstance(one, Tensor) or isinstance(other, Tensor):
        return (
            isinstance(one, Tensor)
            and isinstance(other, Tensor)
            and one.dtype == other.dtype
            and torch.equal(one, other)
        )
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)
