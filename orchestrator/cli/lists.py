"""The commands that list what exists: `methods`, `scenarios`, `schema` and `spec`."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli.options import (
    Preset,
)


def methods(
    name: Annotated[
        str | None, typer.Argument(help="A method, a combination or module:Class; by default all methods.")
    ] = None,
) -> None:
    """List the methods: what they do, papers, hyper-parameters, ranges, and incremental types that they support."""
    from orchestrator.report.catalogue_view import render_methods
    from orchestrator.report.console import make_console
    from orchestrator.spec.loading import load_plugins

    load_plugins([name] if name else [])
    make_console().print(render_methods(name))


def scenarios() -> None:
    """List the streams, their settings, and which methods support which incremental type."""
    from orchestrator.report.catalogue_view import render_scenarios
    from orchestrator.report.console import make_console

    make_console().print(render_scenarios())


def schema() -> None:
    """Print the JSON Schema of a spec, for completion in editors."""
    import json

    from orchestrator.spec.sweep_spec import SweepSpec

    print(json.dumps(SweepSpec.model_json_schema(), indent=2))


def print_spec(preset: Preset = None) -> None:
    """Print a preset with its comments, as a start for your own spec."""
    from orchestrator.spec.loading import PRESETS, load_spec

    load_spec(preset=preset)
    print((PRESETS / f"{preset or 'quickstart'}.yaml").read_text(), end="")
