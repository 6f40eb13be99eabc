"""Variants: one method under several names, each with entries of `spaces` of its own.

In a spec, an entry of `methods` may be `{name: replay-500, method: replay, spaces: {buffer_size: 500}}`. It becomes the
name in `methods`, `variants: {replay-500: replay}` and `spaces: {replay-500: {buffer_size: 500}}`, which may as well be
written so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from orchestrator.core.text import nearest

if TYPE_CHECKING:
    from orchestrator.spec.sweep_spec import SweepSpec

_FORM = "{name: replay-500, method: replay, spaces: {buffer_size: 500}}"
_FIELDS = ("name", "method", "spaces")
VARIANT_SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "method": {"type": "string"}, "spaces": {"type": "object"}},
    "required": ["name", "method", "spaces"],
    "additionalProperties": False,
}
"""The JSON schema of a variant among `methods`."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass
class Written:
    """How a spec was written, before its variants were taken apart.

    Args:
        faults: what is wrong with the variants among `methods`.
        places: path of a field -> where it was written, such as `methods.2` for `("variants", "replay-500")`.
        with_spaces: the methods and variants that have entries in `spaces`, faulty ones too.
    """

    faults: list[str] = field(default_factory=list)
    places: dict[tuple[str, ...], str] = field(default_factory=dict)
    with_spaces: set[str] = field(default_factory=set)

    def place(self, *path: object) -> str:
        """Return where the field at a path was written."""
        parts = tuple(map(str, path))
        for end in range(len(parts), 0, -1):
            if parts[:end] in self.places:
                return ".".join([self.places[parts[:end]], *parts[end:]])
        return ".".join(parts)


def as_it_is(spec: SweepSpec) -> Written:
    """Return that a spec was written with the fields that it has."""
    return Written(with_spaces=_with_spaces(spec.spaces))


def _with_spaces(spaces: Mapping[Any, Any]) -> set[str]:
    return {str(key).rpartition(" ")[2] for key, entries in spaces.items() if entries}


def take_apart(content: dict[str, Any]) -> Written:
    """Replace the variants among `methods` by their names, in place, and return what and where they were.

    Args:
        content: the fields of a spec as they were written, of any types.
    """
    written = Written()
    methods = content.get("methods")
    if isinstance(methods, list | tuple) and any(isinstance(entry, Mapping) for entry in methods):
        names: list[Any] = []
        for index, entry in enumerate(methods):
            where, name = f"methods.{index}", entry
            if isinstance(entry, Mapping):
                found = list(_entry_faults(where, entry)) or list(_put(where, entry, content, written))
                written.faults += found
                if found or not isinstance(content["variants"], dict):
                    continue
                name = entry["name"]
            written.places["methods", str(len(names))] = where
            names.append(name)
        content["methods"] = names or ["naive"]  # of which nothing else is said
    spaces = content.get("spaces")
    if isinstance(spaces, dict):
        written.with_spaces |= _with_spaces(spaces)
    return written


def methods_written(methods: Any) -> list[str]:
    """Return the names of methods in the field `methods` of a spec as it was written; variants give their method's."""
    entries = methods if isinstance(methods, list | tuple) else []
    found = (entry.get("method") if isinstance(entry, Mapping) else entry for entry in entries)
    return [name for name in found if isinstance(name, str)]


def variant_faults(spec: SweepSpec, written: Written, method_fault: Any) -> Iterator[str]:
    """Yield what is wrong with `variants`.

    Args:
        spec: the spec.
        written: how it was written.
        method_fault: returns why a name is no method, or None.
    """
    for name, method in spec.variants.items():
        where = written.place("variants", name)
        if not _NAME.fullmatch(name) or name == "all":
            yield f"{where}: expected a name of up to 64 letters, digits, '.', '_' and '-', got '{name}'; rename it"
        elif method_fault(name) is None:
            yield f"{where}: '{name}' is a method itself; choose another name"
        elif name not in spec.methods:
            yield f"{where}: expected a variant that methods name, got '{name}'; {nearest(name, spec.methods)}"
        elif fault := method_fault(method):
            yield f"{where}: {fault}"
        elif name not in written.with_spaces:
            yield f"{where}: it has no spaces of its own, so it is '{method}' again; add spaces.{name}"


def _entry_faults(where: str, entry: Mapping[Any, Any]) -> Iterator[str]:
    for key in entry:
        if key not in _FIELDS:
            yield f"{where}.{key}: expected {', '.join(_FIELDS)}, got '{key}'; {nearest(str(key), _FIELDS)}"
    for key in ("name", "method"):
        if key not in entry:
            yield f"{where}: a variant needs a {key}; write it as {_FORM}"
        elif not isinstance(entry[key], str):
            yield f"{where}.{key}: expected text, got {entry[key]!r}; write the variant as {_FORM}"
    if not isinstance(entry.get("spaces", {}), Mapping):
        yield f"{where}.spaces: expected hyper-parameters, got {entry['spaces']!r}; write the variant as {_FORM}"


def _put(where: str, entry: Mapping[str, Any], content: dict[str, Any], written: Written) -> Iterator[str]:
    """Put a variant where the fields `variants` and `spaces` have it, or yield why another is there.

    Args:
        where: place of the entry.
        entry: the variant.
        content: the spec; changed.
        written: places are added.
    """
    name, own = entry["name"], dict(entry.get("spaces", {}))
    variants, spaces = content.setdefault("variants", {}), content.setdefault("spaces", {})
    if not isinstance(variants, dict):
        return  # which its own type tells, as below
    if variants.setdefault(name, entry["method"]) != entry["method"]:
        yield f"{where}.method: '{name}' is a variant of '{variants[name]}' too; rename one of the two"
        return
    written.places.setdefault(("variants", name), where)
    there = spaces.get(name, {}) if isinstance(spaces, dict) else None
    if not isinstance(there, Mapping):
        written.with_spaces.add(name)
        return
    for twice in sorted(own.keys() & there.keys(), key=str):
        other = written.place("spaces", name, twice)
        yield f"{where}.spaces.{twice}: it is given in {other} too; drop one of the two"
    if own:
        spaces[name] = {**there, **own}
        written.places.update({("spaces", name, str(key)): f"{where}.spaces.{key}" for key in own})
