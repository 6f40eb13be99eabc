"""The command `trial`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from orchestrator.cli.shared.exits import EXIT_DIFFERENT, EXIT_INCOMPLETE
from orchestrator.cli.shared.options import (
    DataDir,
    Plugins,
    Preset,
    Setting,
    parse_overrides,
)
from orchestrator.core.defaults import DATA_DIR
from orchestrator.core.errors import UsageError

if TYPE_CHECKING:
    from orchestrator.core.placement import Placement

EXAMPLE = "python -m orchestrator trial split-digits/class replay"


def trial(
    scenario: Annotated[str | None, typer.Argument(help="For example split-digits/class.")] = None,
    method: Annotated[str | None, typer.Argument(help="For example replay.")] = None,
    hyperparameters: Annotated[
        list[str] | None, typer.Option("--with", metavar="NAME=VALUE", help="Set a hyper-parameter of the method.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="The seed of the trial.")] = 0,
    phase: Annotated[
        Literal["search", "confirm"],
        typer.Option(help="Measure on the validation split (search) or on the test split (confirm)."),
    ] = "confirm",
    spec: Annotated[
        Path | None, typer.Option(help="Take the model, training, streams and fixed hyper-parameters from this spec.")
    ] = None,
    preset: Preset = None,
    data_dir: DataDir = DATA_DIR,
    settings: Setting = None,
    source: Annotated[
        tuple[str, str] | None, typer.Option("--from", metavar="RUN KEY", help="Repeat this trial of a run.")
    ] = None,
    device: Annotated[Literal["cpu", "cuda"], typer.Option(help="The device to train on.")] = "cpu",
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 1,
    plugins: Plugins = None,
) -> None:
    """Run one trial in this process, without Ray; or repeat a trial of a run and compare the results."""
    if source is None and (scenario is None or method is None):
        raise UsageError(*_missing_arguments(scenario))
    import torch

    from orchestrator import api
    from orchestrator.core.placement import Placement
    from orchestrator.report.console import make_console
    from orchestrator.report.trial_view import print_result, reporter
    from orchestrator.spec.loading import load_spec
    from orchestrator.spec.notes import cell_notes

    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: PyTorch finds no CUDA device on this machine. Use --device cpu.")
    if source is not None:
        _repeat(source[0], source[1], data_dir, Placement(device, threads), plugins or [])
        return
    # Limits, seeds and resources of a sweep do not apply to a single trial.
    single = {"scenarios": [scenario], "methods": [method], "limits": [], "seeds": {}, "resources": {}}
    overrides = parse_overrides(settings, single | {"unsupported_cells": "refuse"})
    loaded = load_spec(spec, preset, overrides, phase)
    own = parse_overrides(hyperparameters, {}, "--with")
    resolved = api.single_trial_spec(loaded, own, seed, phase, data_dir)
    console, score = make_console(), loaded.score_of(resolved.scenario)
    for note in cell_notes(loaded, own):
        console.print(f"note: {note}")
    placement, report = Placement(device, threads), reporter(console, score)
    result = api.run_single_trial(resolved, data_dir, placement, report, loaded.streams, diagnostics=loaded.diagnostics)
    print_result(console, result, score)
    if result.status != "completed":
        raise typer.Exit(EXIT_INCOMPLETE)


def _missing_arguments(scenario: str | None) -> list[str]:
    """Return what to add to a `trial` without a method."""
    if scenario is None:
        return [
            f"trial: a scenario and a method are missing. For example: {EXAMPLE}",
            "To repeat a trial of a run, give --from RUN KEY.",
        ]
    if "/" not in scenario:
        return [f"trial: a scenario and a method are needed, but there is only '{scenario}'. For example: {EXAMPLE}"]
    return [
        f"trial: a method is missing after '{scenario}'. For example: python -m orchestrator trial {scenario} replay",
        "'python -m orchestrator methods' lists the methods.",
    ]


def _repeat(run: str, key: str, data_dir: Path, placement: Placement, plugins: list[str]) -> None:
    """Repeat a trial of a run and compare the results."""
    from orchestrator import api
    from orchestrator.core.scores import Score
    from orchestrator.report.console import make_console
    from orchestrator.report.trial_view import compare, reporter
    from orchestrator.results.rows import recorded_rule

    console, opened = make_console(), api.open_run(run, cached=True)
    recorded, row = api.recorded_trial(opened, key, plugins)
    console.print(f"repeating {recorded.cell}, seed {recorded.seed}, {recorded.phase}")
    report = reporter(console, Score.parse(row["score"]))
    rule = recorded_rule(opened.tables.trials, row)
    result = api.run_single_trial(recorded, data_dir, placement, report, opened.spec.streams, rule)
    if not compare(console, opened, row, result):
        raise typer.Exit(EXIT_DIFFERENT)
