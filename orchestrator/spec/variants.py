"""Variants: one method under several names, each with entries of `spaces` of its own.

In a spec, an entry of `methods` may be `{name: replay-500, method: replay, spaces: {buffer_size: 500}}`. It becomes the
name in `methods`, `variants: {replay-500: replay}` and `spaces: {replay-500: {buffer_size: 500}}`, which may as well be
written so.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
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
    """The variants that `methods` held.

    Args:
        faults: what is wrong with them.
        places: where a field was written, such as `methods.2` for `variants.replay-500`.
    """

    faults: list[str] = field(default_factory=list)
    places: dict[str, str] = field(default_factory=dict)

    def all_faults(self, others: Iterable[str]) -> list[str]:
        """Return these and other faults of the spec, each with the place where its field was written."""
        return [*self.faults, *map(self._placed, others)]

    def _placed(self, fault: str) -> str:
        where = fault.partition(":")[0]
        own = [place for place in self.places if where == place or where.startswith(f"{place}.")]
        if not own:
            return fault
        place = max(own, key=len)  # a name may hold a dot, so one may begin with another
        return self.places[place] + fault.removeprefix(place)


def take_apart(content: dict[str, Any]) -> Written:
    """Replace the variants among `methods` by their names, in place, and return what and where they were.

    Args:
        content: the fields of a spec as they were written, of any types.
    """
    written = Written()
    methods = content.get("methods")
    if not isinstance(methods, list | tuple) or not any(isinstance(entry, Mapping) for entry in methods):
        return written
    names: list[Any] = []
    for index, entry in enumerate(methods):
        if not isinstance(entry, Mapping):
            names.append(entry)
            continue
        where = f"methods.{index}"
        found = list(_entry_faults(where, entry)) or list(_put(where, entry, content, written.places))
        written.faults += found
        if not found:
            names.append(entry["name"])
    content["methods"] = names or ["naive"]  # of which nothing else is said
    return written


def methods_written(methods: Any) -> list[str]:
    """Return the names of methods in the field `methods` of a spec as it was written; variants give their method's."""
    entries = methods if isinstance(methods, list | tuple) else []
    found = (entry.get("method") if isinstance(entry, Mapping) else entry for entry in entries)
    return [name for name in found if isinstance(name, str)]


def variant_faults(spec: SweepSpec, method_fault: Any) -> Iterator[str]:
    """Yield what is wrong with `variants`.

    Args:
        spec: the spec.
        method_fault: returns why a name is no method, or None.
    """
    for name, method in spec.variants.items():
        where = f"variants.{name}"
        if not _NAME.fullmatch(name) or name == "all":
            yield f"{where}: expected a name of up to 64 letters, digits, '.', '_' and '-', got '{name}'; rename it"
        elif method_fault(name) is None:
            yield f"{where}: '{name}' is a method itself; choose another name"
        elif name not in spec.methods:
            yield f"{where}: expected a variant that methods name, got '{name}'; {nearest(name, spec.methods)}"
        elif fault := method_fault(method):
            yield f"{where}: {fault}"
        elif not any(key == name or key.endswith(f" {name}") for key, entries in spec.spaces.items() if entries):
            yield f"{where}: it has no spaces of its own, so it is '{method}' again; add spaces.{name}"


def _entry_faults(where: str, entry: Mapping[Any, Any]) -> Iterator[str]:
    for own in entry:
        if own not in _FIELDS:
            yield f"{where}.{own}: expected {', '.join(_FIELDS)}, got '{own}'; {nearest(str(own), _FIELDS)}"
    for own in ("name", "method"):
        if own not in entry:
            yield f"{where}: a variant needs a {own}; write it as {_FORM}"
        elif not isinstance(entry[own], str):
            yield f"{where}.{own}: expected text, got {entry[own]!r}; write the variant as {_FORM}"
    if not isinstance(entry.get("spaces", {}), Mapping):
        yield f"{where}.spaces: expected hyper-parameters, got {entry['spaces']!r}; write the variant as {_FORM}"


def _put(where: str, entry: Mapping[str, Any], content: dict[str, Any], places: dict[str, str]) -> Iterator[str]:
    """Put a variant where the fields `variants` and `spaces` have it, or yield why another is there.

    Args:
        where: place of the entry.
        entry: the variant.
        content: the spec; changed.
        places: of `Written`; changed.
    """
    name, own = entry["name"], dict(entry.get("spaces", {}))
    variants = content.setdefault("variants", {})
    spaces = content.setdefault("spaces", {})
    if not isinstance(variants, dict) or not isinstance(spaces, dict):
        return  # which their own types tell
    if variants.setdefault(name, entry["method"]) != entry["method"]:
        yield f"{where}.method: '{name}' is a variant of '{variants[name]}' too; rename one of the two"
        return
    places.setdefault(f"variants.{name}", where)
    there = spaces.get(name, {})
    if not isinstance(there, Mapping):
        return
    for twice in sorted(own.keys() & there.keys(), key=str):
        yield f"{where}.spaces.{twice}: it is given under spaces.{name} too; drop one of the two"
    if own:
        spaces[name] = {**there, **own}
        if not there:
            places[f"spaces.{name}"] = f"{where}.spaces"
