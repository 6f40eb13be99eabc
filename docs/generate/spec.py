"""The fields of a spec."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from generate.markdown import code, prose, table
from orchestrator.spec.sweep_spec import SweepSpec


def spec_page() -> str:
    """Return the fields of a spec, from the JSON Schema of its models."""
    schema = SweepSpec.model_json_schema()
    titles = {"SweepSpec": "The sweep"}
    sections = [
        "# Spec fields\n\nEvery field has a default. `python -m orchestrator schema` prints the same as a JSON Schema, "
        "for editors; `python -m orchestrator spec` prints a spec with comments to start from.\n"
    ]
    places = _places(schema)
    for name, part in {"SweepSpec": schema, **schema["$defs"]}.items():
        if "properties" not in part:
            continue
        head = titles.get(name) or " and ".join(code(place) for place in places[name])
        rows = [
            [code(field), _kind(facts), _default(facts), prose(facts.get("description", ""))]
            for field, facts in part["properties"].items()
        ]
        sections.append(f"## {head}\n\n{table(['field', 'values', 'default', 'meaning'], rows)}")
    return "\n".join(sections)


def _places(schema: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return where each definition is used: `search`, `resources.methods.NAME`, …"""
    places: dict[str, list[str]] = {}

    def walk(part: Mapping[str, Any], path: str) -> None:
        for field, facts in part.get("properties", {}).items():
            here = f"{path}{field}"
            for name, suffix in _references(facts):
                if f"{here}{suffix}" not in places.setdefault(name, []):
                    places[name].append(f"{here}{suffix}")
                    walk(schema["$defs"][name], f"{here}{suffix}.")

    walk(schema, "")
    return places


def _references(facts: Any, suffix: str = "") -> list[tuple[str, str]]:
    found = []
    if isinstance(facts, Mapping):
        if "$ref" in facts:
            found.append((facts["$ref"].rsplit("/", 1)[1], suffix))
        for key, value in facts.items():
            if key != "discriminator":
                found += _references(value, suffix + (".NAME" if key == "additionalProperties" else ""))
    elif isinstance(facts, list):
        for value in facts:
            found += _references(value, suffix)
    return found


def _kind(facts: Mapping[str, Any]) -> str:
    """Return the values that a field may have, in words."""
    options = [*facts.get("anyOf", ()), *facts.get("oneOf", ())]
    if options:
        return ", or ".join(dict.fromkeys(part for option in options for part in _kind(option).split(", or ")))
    if "$ref" in facts:
        return "any" if facts["$ref"].endswith("JsonValue") else "a mapping, see below"
    if "enum" in facts:
        return ", ".join(code(value) for value in facts["enum"])
    if "const" in facts:
        return code(facts["const"])
    kind = facts.get("type", "any")
    if kind == "array":
        return f"a list: {_kind(facts.get('items', {}))}" if facts.get("items") else "a list"
    if kind == "object":
        inner = facts.get("additionalProperties")
        return f"NAME: {_kind(inner)}" if isinstance(inner, Mapping) else "a mapping"
    names = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true or false"}
    signs = {"exclusiveMinimum": ">", "minimum": "≥", "exclusiveMaximum": "<", "maximum": "≤"}
    bounds = " and ".join(f"{sign} {facts[key]:,}" for key, sign in signs.items() if key in facts)
    return f"{names.get(kind, kind)} {bounds}".strip()


def _default(facts: Mapping[str, Any]) -> str:
    if "default" not in facts:
        return "see below" if "$ref" in facts else ""
    value = facts["default"]
    if isinstance(value, Mapping):
        return ""
    if isinstance(value, list):
        return code("[" + ", ".join(map(str, value)) + "]")
    return code(value if isinstance(value, str) else json.dumps(value))
