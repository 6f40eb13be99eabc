"""Faults of single fields: pydantic's errors in the words of somebody who writes YAML."""

from __future__ import annotations

import json
import math
import reprlib
from collections.abc import Callable
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from orchestrator.core.text import nearest
from search_spaces.wording import rule_of, way_out_of

_TAGS = {
    "range",
    "choices",
    "value",
    "int",
    "tuple[int, ...]",
    "tuple[int, int]",
    "tuple[str, ...]",
    "float",
    "str",
    "bool",
    "none",
}


def _path(one: Any, content: Any) -> list[int | str]:
    """Return the place of an error, without the names of the types that pydantic tried: those that are no keys."""
    *parents, last = one["loc"] or ("",)
    kept: list[int | str] = []
    for part in parents:
        key = _key(content, part)
        if key is not None or not _is_tag(part):
            kept.append(part)
            content = content[part if key is None else key] if key is not None or _has_index(content, part) else None
    is_name = one["type"] == "extra_forbidden" or _key(content, last) is not None or not _is_tag(last)
    return [*kept, last] if is_name else kept


def _has_index(value: Any, part: int | str) -> bool:
    return isinstance(value, list | tuple) and isinstance(part, int) and part < len(value)


def _is_tag(part: int | str) -> bool:
    return str(part) in _TAGS or str(part).startswith(("literal[", "dict[", "constrained-"))


def remove_faulty(content: dict[Any, Any], error: ValidationError) -> bool:
    """Delete the entry at each place of `error`, or the innermost mapping's entry that leads to it.

    Returns: whether anything was deleted.
    """
    entries: dict[tuple[int, str], tuple[dict[Any, Any], Any]] = {}
    for one in error.errors():
        path = _path(one, content)[: -1 if one["type"] == "missing" else None]
        value: Any = content
        found: tuple[dict[Any, Any], Any] | None = None
        for part in path:
            key = _key(value, part)
            if key is None:
                break
            found, value = (value, key), value[key]
        if found is not None:
            entries[id(found[0]), str(found[1])] = found
    for owner, key in entries.values():
        del owner[key]
    return bool(entries)


def _key(owner: Any, part: int | str) -> Any:
    """Return the key of a mapping that pydantic writes as `part`, or None."""
    if not isinstance(owner, dict):
        return None
    return part if part in owner else next((key for key in owner if str(key) == str(part)), None)


def _dotted(*path: int | str) -> str:
    return ".".join(map(str, path))


def structural_faults(
    spec: type[BaseModel], error: ValidationError, content: Any, place: Callable[..., str] = _dotted
) -> list[str]:
    """Return pydantic's errors as `PLACE: expected RULE, got VALUE; WAY OUT`, one message a place.

    A value that fits none of several types gives one message, with the rules joined by 'or'.

    Args:
        spec: the class.
        error: what it raised.
        content: for this.
        place: returns where the field at a path was written.
    """
    places: dict[tuple[int | str, ...], list[Any]] = {}
    for one in error.errors(include_url=False):
        if one["type"] == "too_short" and one["input"]:
            continue  # too short only because faulty entries do not count, and those have messages of their own
        places.setdefault(tuple(_path(one, content)), []).append(one)
    inner = {path[:end] for path in places for end in range(len(path))}  # a type that fits the rest tells more
    return [
        f"{place(*path) or 'spec'}: {_fault(spec, list(path), errors)}"
        for path, errors in places.items()
        if path not in inner
    ]


def _fault(spec: type[BaseModel], path: list[int | str], errors: list[Any]) -> str:
    """Return the message of one place, without the place."""
    first = errors[0]
    if first["type"] == "extra_forbidden":
        known = _model_at(spec, path[:-1]).model_fields
        return f"expected a known field, got '{path[-1]}'; {nearest(str(path[-1]), known)}"
    rules = dict.fromkeys(rule_of(one) for one in errors)
    if "a number" in rules:
        rules.pop("a whole number", None)
    value = "nothing" if first["type"] == "missing" else _shown(first["input"])
    way_out = (way_out_of(first) if len(errors) == 1 else None) or _example(_field_at(spec, path))
    return f"expected {' or '.join(rules)}, got {value}; {way_out}"


def _example(named: tuple[str, FieldInfo] | None) -> str:
    """Return a field as somebody may write it: its example, its default, or the fields under it."""
    if named is None:
        return "correct it, or see --preset quickstart"
    name, field = named
    default = None if field.is_required() or field.default_factory else field.default
    if (example := next(iter(field.examples or ()), default)) not in (None, ()):
        content = {name: list(example) if isinstance(example, tuple) else example}
        return f"for example {yaml.safe_dump(content, default_flow_style=True, width=math.inf).strip()[1:-1]}"
    if models := _models_in(field.annotation):
        return f"write fields under it ({', '.join(models[0].model_fields)}), or leave it out"
    return "correct it" if field.is_required() else "correct it, or leave it out"


def _field_at(spec: type[BaseModel], path: list[int | str]) -> tuple[str, FieldInfo] | None:
    """Return name and definition of the innermost field on `path`; what follows are entries of it."""
    for end in range(len(path), 0, -1):
        name = str(path[end - 1])
        if field := _model_at(spec, path[: end - 1]).model_fields.get(name):
            return name, field
    return None


_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother, _SHORT.maxlong = 3, 80, 80, 80


def _shown(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return json.dumps(value)  # as in YAML: null, true
    try:
        text = _SHORT.repr(value)
    except ValueError:  # a whole number with more digits than Python prints
        text = "a number with too many digits"
    return text if len(text) <= 80 else text[:77] + "..."


def _model_at(model: type[BaseModel], path: list[Any]) -> type[BaseModel]:
    """Return the model that `path` leads to. A part that is no field is a key of a mapping of models."""
    for part in path:
        field = model.model_fields.get(str(part))
        found = _models_in(field.annotation) if field else []
        model = found[0] if found else model
    return model


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for argument in get_args(annotation) for found in _models_in(argument)]
