"""The Python API, as directives for autodoc."""

from __future__ import annotations

import inspect

import orchestrator


def python_page() -> str:
    """Return directives for autodoc: what `orchestrator` exports, the method contract and the conformance suite."""
    functions = [name for name in orchestrator.__all__ if inspect.isfunction(getattr(orchestrator, name))]
    classes = [name for name in orchestrator.__all__ if inspect.isclass(getattr(orchestrator, name))]
    parts = ["# Python API", "## orchestrator", "What a script or a notebook imports."]
    parts += [_directive("autofunction", f"orchestrator.{name}") for name in functions]
    parts += [_autoclass(f"orchestrator.{name}", getattr(orchestrator, name)) for name in classes]
    parts += ["## strategies", "What [a method of your own](../your-own-method.md) is written against."]
    contract = ("Strategy", "TaskData", "Batch", "StreamSizes")
    parts += [_directive("autoclass", f"strategies.{name}", ":members:") for name in contract]
    parts += ["## orchestrator.conformance", _directive("autoclass", "orchestrator.conformance.MethodConformance")]
    return "\n\n".join(parts) + "\n"


def _directive(kind: str, name: str, *options: str) -> str:
    return "\n".join(["```{eval-rst}", f".. {kind}:: {name}", *(f"   {option}" for option in options), "```"])


def _autoclass(name: str, found: type) -> str:
    """Return a class with the members that it documents itself, less pydantic's machinery."""
    fields = set(getattr(found, "model_fields", {}))
    members = [
        member
        for member, value in vars(found).items()
        if not member.startswith(("_", "model_")) and member not in fields and inspect.getdoc(value)
    ]
    return _directive("autoclass", name, f":members: {', '.join(members)}")
