"""The command line, thin over `orchestrator.api`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from orchestrator.cli.exits import EXIT_DIFFERENT, EXIT_INCOMPLETE, guarded
from orchestrator.cli.options import (
    AcceptChanges,
    ConfirmSeeds,
    Cpus,
    DataDir,
    Gpus,
    Limit,
    Methods,
    Plugins,
    Preset,
    RunArgument,
    RunOption,
    Scenarios,
    SearchSeeds,
    Setting,
    SpecFile,
    StorageOption,
    Suggestions,
    parse_overrides,
    split,
)
from orchestrator.core.defaults import DATA_DIR
from orchestrator.core.errors import RunFolderError, SpecError

if TYPE_CHECKING:
    from orchestrator.core.placement import Placement
    from orchestrator.spec.sweep_spec import SweepSpec

app = typer.Typer(
    name="orchestrator",
    help="Sweeps over continual-learning methods under limits on forgetting. Start with: python -m orchestrator sweep",
    epilog="Exit codes: 0 complete, 1 a bug, 2 a mistake in what was asked, 3 trials are missing (run again), "
    "4 a repeated trial differs, 130 interrupted, 143 terminated.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _load(
    spec: Path | None,
    preset: str | None,
    settings: list[str] | None,
    scenarios: str | None,
    methods: str | None,
    limit: list[str] | None,
    suggestions: int | None,
    search_seeds: int | None,
    confirm_seeds: int | None,
    cpus: float | None,
    gpus: float | None,
) -> SweepSpec:
    from orchestrator.spec.loading import load_spec

    options = {
        "scenarios": split(scenarios),
        "methods": split(methods),
        "limits": limit or None,
        "search.suggestions": suggestions,
        "seeds.search": search_seeds,
        "seeds.confirm": confirm_seeds,
        "resources.cpus": cpus,
        "resources.gpus": gpus,
    }
    return load_spec(spec, preset, parse_overrides(settings, options))


@app.command()
def sweep(
    spec: SpecFile = None,
    preset: Preset = None,
    run: RunOption = None,
    storage: StorageOption = None,
    data_dir: DataDir = DATA_DIR,
    scenarios: Scenarios = None,
    methods: Methods = None,
    limit: Limit = None,
    suggestions: Suggestions = None,
    search_seeds: SearchSeeds = None,
    confirm_seeds: ConfirmSeeds = None,
    cpus_per_trial: Cpus = None,
    gpus_per_trial: Gpus = None,
    settings: Setting = None,
    address: Annotated[
        str | None, typer.Option(help="Join a running Ray cluster, or 'auto'; else one is started here.")
    ] = None,
    num_cpus: Annotated[int | None, typer.Option(min=1, help="CPUs of the cluster that is started here.")] = None,
    mirror_studies: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Copy the studies to an Optuna storage, for its dashboard."),
    ] = None,
    accept_changes: AcceptChanges = False,
) -> None:
    """Run a sweep, finish one that was interrupted, or extend one: always the same command."""
    from orchestrator import api
    from orchestrator.report.answer import note_on_others, summarise
    from orchestrator.report.console import make_console
    from orchestrator.report.progress import ProgressDisplay
    from orchestrator.report.text import render_summary
    from orchestrator.spec.validation import notes_of

    loaded = _load(
        spec, preset, settings, scenarios, methods, limit, suggestions, search_seeds, confirm_seeds,
        cpus_per_trial, gpus_per_trial,
    )  # fmt: skip
    console = make_console()
    for note in notes_of(loaded):
        console.print(f"note: {note}")
    with ProgressDisplay(console) as display:
        finished = api.run_sweep(
            loaded, run, data_dir, address, num_cpus, mirror_studies, display, storage, accept_changes
        )
    trials, search = finished.trials(), finished.search(loaded)
    console.print(render_summary(loaded, summarise(search, trials)))
    if others := note_on_others(search, trials):
        console.print(others)
    console.print(f"Tables: {finished.where}/trials and {finished.where}/accuracy (Parquet)")
    if search.n_unknown:
        console.print(f"{search.n_unknown} trials are missing: run the same command again to go on.")
        raise typer.Exit(EXIT_INCOMPLETE)


@app.command()
def plan(
    spec: SpecFile = None,
    preset: Preset = None,
    run: RunOption = None,
    storage: StorageOption = None,
    data_dir: DataDir = DATA_DIR,
    scenarios: Scenarios = None,
    methods: Methods = None,
    limit: Limit = None,
    suggestions: Suggestions = None,
    search_seeds: SearchSeeds = None,
    confirm_seeds: ConfirmSeeds = None,
    cpus_per_trial: Cpus = None,
    gpus_per_trial: Gpus = None,
    settings: Setting = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Trials at once, for the estimate.")] = None,
) -> None:
    """Say what a sweep would do, and about how long it takes, without starting anything."""
    from orchestrator import api
    from orchestrator.report.console import make_console
    from orchestrator.report.plan_view import render_plan
    from orchestrator.spec.validation import notes_of

    loaded = _load(
        spec, preset, settings, scenarios, methods, limit, suggestions, search_seeds, confirm_seeds,
        cpus_per_trial, gpus_per_trial,
    )  # fmt: skip
    console = make_console()
    for note in notes_of(loaded):
        console.print(f"note: {note}")
    console.print(render_plan(loaded, api.plan(loaded, run, data_dir, storage), workers))


@app.command()
def trial(
    scenario: Annotated[str | None, typer.Argument(help="Such as split-digits/class.")] = None,
    method: Annotated[str | None, typer.Argument(help="Such as ewc.")] = None,
    hyperparameters: Annotated[
        list[str] | None, typer.Option("--with", metavar="NAME=VALUE", help="A hyper-parameter.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="The trial's seed.")] = 0,
    phase: Annotated[
        Literal["search", "confirm"], typer.Option(help="search (validation split) or confirm (test split).")
    ] = "confirm",
    spec: Annotated[Path | None, typer.Option(help="Take model, training and streams from this spec.")] = None,
    preset: Preset = None,
    data_dir: DataDir = DATA_DIR,
    settings: Setting = None,
    source: Annotated[
        tuple[str, str] | None, typer.Option("--from", metavar="RUN KEY", help="Repeat a trial of a run.")
    ] = None,
    device: Annotated[Literal["cpu", "cuda"], typer.Option(help="Where it runs.")] = "cpu",
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 1,
    plugins: Plugins = None,
) -> None:
    """Run one trial in this process, without Ray; or repeat one of a run and compare."""
    import torch

    from orchestrator import api
    from orchestrator.core.placement import Placement
    from orchestrator.report.console import make_console
    from orchestrator.report.trial_view import print_result, reporter
    from orchestrator.spec.loading import load_spec

    if device == "cuda" and not torch.cuda.is_available():
        raise SpecError(["--device: expected a device of this machine, got 'cuda', which torch does not find; use cpu"])
    if source is not None:
        _repeat(source[0], source[1], data_dir, Placement(device, threads), plugins or [])
        return
    if scenario is None or method is None:
        raise SpecError(
            [f"trial: expected SCENARIO METHOD, or --from RUN KEY, got '{scenario or ''}'; see trial --help"]
        )
    # What a sweep is asked beyond its trials (limits, seeds, resources) says nothing about one trial.
    single = {"scenarios": [scenario], "methods": [method], "limits": [], "seeds": {}, "resources": {}}
    overrides = parse_overrides(settings, single | {"unsupported_cells": "refuse"})
    loaded = load_spec(spec, preset, overrides)
    if phase == "search" and loaded.validation_share == 0:
        raise SpecError(["validation_share: expected more than 0 for --phase search, got 0; set it"])
    resolved = api.single_trial_spec(loaded, parse_overrides(hyperparameters, {}, "--with"), seed, phase, data_dir)
    console = make_console()
    result = api.run_single_trial(resolved, data_dir, Placement(device, threads), reporter(console), loaded.streams)
    print_result(console, result)
    if result.status != "completed":
        raise typer.Exit(EXIT_INCOMPLETE)


def _repeat(run: str, key: str, data_dir: Path, placement: Placement, plugins: list[str]) -> None:
    """Run a trial of a run again and say whether it gives the same."""
    from orchestrator import api
    from orchestrator.report.console import make_console
    from orchestrator.report.trial_view import compare, reporter

    console, opened = make_console(), api.open_run(run)
    recorded, row = api.recorded_trial(opened, key, plugins)
    console.print(f"repeating {recorded.cell}, seed {recorded.seed}, {recorded.phase}")
    result = api.run_single_trial(recorded, data_dir, placement, reporter(console), opened.spec.streams)
    if not compare(console, opened, row, result):
        raise typer.Exit(EXIT_DIFFERENT)


@app.command()
def show(
    run: RunArgument,
    trial: Annotated[str | None, typer.Option(metavar="KEY", help="Show this trial's accuracy matrix.")] = None,
    trials: Annotated[bool, typer.Option("--trials", help="List every trial.")] = False,
    plugins: Plugins = None,
) -> None:
    """Show the answer of a run, or one of its trials, from its tables alone."""
    from orchestrator import api
    from orchestrator.report.answer import note_on_others, summarise
    from orchestrator.report.console import make_console
    from orchestrator.report.text import render_summary, render_trial
    from orchestrator.report.trial_view import render_trials
    from orchestrator.spec.loading import load_plugins

    load_plugins(plugins or [])
    console = make_console()
    opened = api.open_run(run)
    frame = opened.trials()
    if trial is not None:
        rows = frame[frame["key"].str.startswith(trial)]
        if len(rows) != 1:
            raise RunFolderError(
                f"--trial: expected the key of one trial, got '{trial}' which fits {len(rows)}; see show RUN --trials"
            )
        row = {str(name): value for name, value in rows.iloc[0].items()}
        console.print(render_trial(row, opened.matrix(str(row["key"]))))
        return
    if trials:
        console.print(render_trials(frame, opened.spec.objective))
        return
    search = opened.search(opened.spec)
    console.print(render_summary(opened.spec, summarise(search, frame)))
    if others := note_on_others(search, frame):
        console.print(others)
    if search.n_unknown:
        console.print(
            f"{search.n_unknown} trials are missing: what is shown is not final. Run the sweep again to go on."
        )


@app.command()
def compact(run: RunArgument) -> None:
    """Merge the many small files of a run's tables into few; who reads them meanwhile sees each row once."""
    from orchestrator import api

    for done in api.compact(run):
        print(f"{done.table}: {done.n_before} files, now {done.n_after}")


@app.command()
def methods(
    name: Annotated[str | None, typer.Argument(help="One method, module:Class or a combination; else all.")] = None,
) -> None:
    """List the methods: what they do, papers, hyper-parameters, ranges, and which incremental types they can do."""
    from orchestrator.report.catalogue_view import render_methods
    from orchestrator.report.console import make_console
    from orchestrator.spec.loading import load_plugins

    load_plugins([name] if name else [])
    make_console().print(render_methods(name))


@app.command()
def scenarios() -> None:
    """List the streams, their settings, and the methods that run on each incremental type."""
    from orchestrator.report.catalogue_view import render_scenarios
    from orchestrator.report.console import make_console

    make_console().print(render_scenarios())


@app.command()
def schema() -> None:
    """Print the JSON Schema of a spec, for editors."""
    import json

    from orchestrator.spec.sweep_spec import SweepSpec

    print(json.dumps(SweepSpec.model_json_schema(), indent=2))


@app.command("spec")
def print_spec(preset: Preset = None) -> None:
    """Print a preset with its comments, to start a spec of one's own from."""
    from orchestrator.spec.loading import PRESETS, load_spec

    load_spec(preset=preset)
    print((PRESETS / f"{preset or 'quickstart'}.yaml").read_text(), end="")


def main() -> None:
    """Run the command line."""
    sys.exit(guarded(app))
