"""What kind of value the spec has at a path, so that `1e5`, `true` or `2024` are understood by where they stand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from orchestrator.spec.sweep_spec import SweepSpec

Path = tuple[str, ...]
"""Keys from the top of a spec; `*` stands for the index in a list."""


def is_text(path: Path) -> bool:
    """Return whether the spec has text at `path`, and nothing else but null."""
    kinds = _kinds_at(path)
    return str in kinds and kinds <= {str, NoneType}


def spell_booleans(content: Any, path: Path = ()) -> Any:
    """Return `content` with `true` as text where the spec has numbers, so that it is refused and not taken for 1."""
    if not _kinds_at(path):
        return content  # no field of a spec; a repetition that is larger than any spec ends here
    if isinstance(content, bool):
        return str(content).lower() if _is_number(path) else content
    if isinstance(content, Mapping):
        return {key: spell_booleans(value, (*path, str(key))) for key, value in content.items()}
    if isinstance(content, Sequence) and not isinstance(content, str | bytes):
        return [spell_booleans(item, (*path, "*")) for item in content]
    return content


def _is_number(path: Path) -> bool:
    kinds = _kinds_at(path)
    return bool(kinds & {int, float}) and not kinds & {bool, str}


@cache
def _kinds_at(path: Path) -> frozenset[Any]:
    """Return the types that the spec allows at `path`; none if there is no such field."""
    if not path:
        return frozenset({SweepSpec})
    return frozenset(inner for kind in _kinds_at(path[:-1]) for inner in _under(kind, path[-1]))


def _under(kind: Any, part: str) -> Iterator[Any]:
    """Yield the types of the entry `part` of a value of type `kind`."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        if part in kind.model_fields:
            yield from _members(kind.model_fields[part].annotation)
    elif get_origin(kind) is dict:
        yield from _members(get_args(kind)[1])
    elif get_origin(kind) in (tuple, list) and part == "*":
        for argument in get_args(kind):
            yield from _members(argument)


def _members(annotation: Any) -> Iterator[Any]:
    """Yield the types of a union, without annotations."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from _members(get_args(annotation)[0])
    elif origin in (Union, UnionType):
        for argument in get_args(annotation):
            yield from _members(argument)
    elif origin is Literal:
        yield Literal
    elif annotation is not Ellipsis:
        yield annotation
