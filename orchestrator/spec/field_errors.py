"""Faults of single fields: pydantic's errors in the words of somebody who writes YAML."""

from __future__ import annotations

import reprlib
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from orchestrator.core.text import nearest

_TAGS = {"range", "choices", "value", "int", "tuple[int, ...]", "tuple[int, int]", "float", "str", "bool", "none"}


def _path(one: Any) -> list[int | str]:
    """Return where an error is, without pydantic's names for the types that it tried."""
    *parents, last = one["loc"] or ("",)
    kept = [p for p in parents if str(p) not in _TAGS and not str(p).startswith("literal[")]
    is_name = one["type"] == "extra_forbidden" or not (str(last) in _TAGS or str(last).startswith("literal["))
    return [*kept, last] if is_name else kept


def remove_faulty(content: dict[Any, Any], error: ValidationError) -> bool:
    """Delete the entry at each place of `error`, or the innermost mapping's entry that leads to it.

    Returns: whether there was any.
    """
    entries: dict[tuple[int, str], tuple[dict[Any, Any], Any]] = {}
    for one in error.errors():
        path = _path(one)[: -1 if one["type"] == "missing" else None]
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
    """Return the key of a mapping that pydantic writes as `part`, None where there is none."""
    if not isinstance(owner, dict):
        return None
    return part if part in owner else next((key for key in owner if str(key) == str(part)), None)


def structural_faults(spec: type[BaseModel], error: ValidationError) -> list[str]:
    """Return pydantic's errors in our form, one a place; what several types were tried for is joined by 'or'."""
    rules: dict[str, list[str]] = {}
    rest: dict[str, str] = {}
    for one in error.errors(include_url=False):
        if one["type"] == "too_short" and one["input"]:
            continue  # too short only because faulty entries do not count: they are told themselves
        path = _path(one)
        where = ".".join(str(part) for part in path) or "spec"
        owner = _model_at(spec, path[:-1])
        if one["type"] == "extra_forbidden":
            rule, value = "a known field", f"'{path[-1]}'"
            way_out = nearest(str(path[-1]), owner.model_fields)
        else:
            rule, value = _rule(one), "nothing" if one["type"] == "missing" else _shown(one["input"])
            way_out = _meaning(spec, path) or "see the README for the form of a spec"
        rules.setdefault(where, []).append(rule)
        rest.setdefault(where, f"got {value}; {way_out}")
    return [f"{where}: expected {' or '.join(rules[where])}, {rest[where]}" for where in rules]


_RULES = {
    "missing": "a value",
    "too_short": "at least {min_length} of them",
    "too_long": "at most {max_length} of them",
    "string_pattern_mismatch": "text of the form {pattern}",
    "string_type": "text",
    "invalid_key": "text as a key",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "float_parsing": "a number",
    "float_type": "a number",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
}
"""What pydantic's types of errors mean to somebody who writes YAML; the others keep pydantic's words."""


def _rule(one: Any) -> str:
    if one["type"] in _RULES:
        return _RULES[one["type"]].format(**one.get("ctx", {}))
    rule: str = one["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    return rule[:1].lower() + rule[1:]


def _meaning(spec: type[BaseModel], path: list[int | str]) -> str | None:
    """Return the description of the innermost field that `path` leads to, where it is one or an entry of one."""
    for end in (len(path), len(path) - 1):
        field = _model_at(spec, path[: end - 1]).model_fields.get(str(path[end - 1])) if end > 0 else None
        if field is not None and field.description:
            return field.description
    return None


_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother, _SHORT.maxlong = 3, 80, 80, 80


def _shown(value: Any) -> str:
    try:
        text = _SHORT.repr(value)
    except ValueError:  # a whole number of more digits than Python prints
        text = f"a {type(value).__name__}"
    return text if len(text) <= 80 else text[:77] + "..."


def _model_at(model: type[BaseModel], path: list[Any]) -> type[BaseModel]:
    """Return the model that `path` leads to; a part that is no field is the key of a mapping of models."""
    for part in path:
        field = model.model_fields.get(str(part))
        found = _models_in(field.annotation) if field else []
        model = found[0] if found else model
    return model


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for argument in get_args(annotation) for found in _models_in(argument)]
