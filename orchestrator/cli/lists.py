"""The commands that list what exists: `methods`, `scenarios`, `schema` and `spec`."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli.shared.options import Preset
from orchestrator.core.errors import UsageError
from orchestrator.core.text import nearest


def methods(
    name: Annotated[
        str | None, typer.Argument(help="A method, a combination or module:Class; by default all methods.")
    ] = None,
) -> None:
    """List the methods: what they do, papers, hyper-parameters, ranges, and incremental types that they support."""
    from orchestrator.report.catalogue_view import render_methods
    from orchestrator.report.console import make_console
    from strategies import STRATEGIES, MethodError

    try:
        STRATEGIES.load_plugin(name or "")
    except MethodError as error:
        raise UsageError(f"methods: {error}") from error
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
    from orchestrator.spec.loading import PRESETS, preset_names

    name, names = preset or "quickstart", preset_names()
    if name not in names:
        raise UsageError(f"--preset: there is no preset '{name}'; {nearest(name, names)}")
    print((PRESETS / f"{name}.yaml").read_text(encoding="utf-8"), end="")
