"""The commands `sweep` and `plan`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.shared.answers import end, print_answer
from orchestrator.cli.shared.budgets import (
    OPTIONS,
    GpuPricePerHour,
    MaxCost,
    PricePerHour,
    TimeBudget,
    TrialBudget,
    parse_budget,
)
from orchestrator.cli.shared.next_task import FromModel, NextData, NextName, NextTestData, base_of
from orchestrator.cli.shared.options import (
    AcceptChanges,
    Address,
    ConfirmSeeds,
    Cpus,
    DataDir,
    Gpus,
    Limit,
    LogTo,
    Methods,
    MirrorStudies,
    Notify,
    NumCpus,
    Preset,
    Quiet,
    RequireAnswer,
    RunOption,
    Scenarios,
    SearchSeeds,
    Serve,
    Setting,
    SpecFile,
    StorageOption,
    Suggestions,
    Verbose,
    parse_overrides,
    split,
)
from orchestrator.core.defaults import DATA_DIR
from orchestrator.core.errors import UsageError
from orchestrator.core.text import visible

if TYPE_CHECKING:
    from orchestrator.execution.budget import Spending
    from orchestrator.report.console import PlainConsole
    from orchestrator.report.progress import Detail, ProgressDisplay
    from orchestrator.results.run import Run
    from orchestrator.spec.sweep_spec import SweepSpec


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
    address: Address = None,
    num_cpus: NumCpus = None,
    mirror_studies: MirrorStudies = None,
    log_to: LogTo = None,
    accept_changes: AcceptChanges = False,
    require_answer: RequireAnswer = False,
    from_model: FromModel = None,
    data: NextData = None,
    task: NextName = None,
    test_data: NextTestData = None,
    time_budget: TimeBudget = None,
    trial_budget: TrialBudget = None,
    max_cost: MaxCost = None,
    price_per_hour: PricePerHour = None,
    gpu_price_per_hour: GpuPricePerHour = None,
    with_server: Serve = False,
    notify: Notify = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Run a sweep, finish an interrupted one, or extend one: always the same command."""
    from orchestrator.report.console import make_console

    budget = parse_budget(time_budget, trial_budget, max_cost, price_per_hour, gpu_price_per_hour)
    loaded = _load(
        spec, preset, settings, scenarios, methods, limit, suggestions, search_seeds, confirm_seeds,
        cpus_per_trial, gpus_per_trial, base_of(from_model, data, task, test_data, spec, preset),
    )  # fmt: skip
    budget.check(loaded, OPTIONS)
    console, detail = make_console(), _detail(verbose, quiet)
    with _watched(notify, with_server, loaded, run, storage, console, detail) as (display, tell):
        _say_first(display, loaded, run, storage, address)
        from orchestrator import api

        finished = api.run_sweep(
            loaded, run, data_dir, address, num_cpus, mirror_studies, display, storage, accept_changes, budget,
            log_to or (),
        )  # fmt: skip
        tell(finished)
    _finish(console, display.spending, finished.cached(), finished.spec, require_answer)


def _detail(verbose: bool, quiet: bool) -> Detail:
    if verbose and quiet:
        raise UsageError("--verbose, --quiet: expected one of them, got both; drop one")
    return "verbose" if verbose else "quiet" if quiet else "normal"


def _say_notes(console: PlainConsole, spec: SweepSpec) -> None:
    from orchestrator.spec.notes import notes_of

    for note in notes_of(spec):
        console.print(f"note: {note}")


def _say_first(
    display: ProgressDisplay, spec: SweepSpec, run: str | None, storage: str | None, address: str | None
) -> None:
    """Print what comes after the imports, which take seconds."""
    if _is_new(spec, run, storage):
        display.connecting(address)
    else:
        display.say("looking for trials that are already complete …")


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
    from_model: FromModel = None,
    data: NextData = None,
    task: NextName = None,
    test_data: NextTestData = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Estimate the time for this many trials at the same time.")
    ] = None,
    price_per_hour: PricePerHour = None,
    gpu_price_per_hour: GpuPricePerHour = None,
) -> None:
    """Show which trials a sweep would run, and about how long they take and cost, without running any."""
    from orchestrator import api
    from orchestrator.report.console import make_console
    from orchestrator.report.plan_view import render_plan

    prices = parse_budget(price_per_hour=price_per_hour, gpu_price_per_hour=gpu_price_per_hour)
    loaded = _load(
        spec, preset, settings, scenarios, methods, limit, suggestions, search_seeds, confirm_seeds,
        cpus_per_trial, gpus_per_trial, base_of(from_model, data, task, test_data, spec, preset),
    )  # fmt: skip
    console = make_console()
    _say_notes(console, loaded)
    console.print(render_plan(loaded, api.plan(loaded, run, data_dir, storage), workers, prices))


@contextmanager
def _watched(
    notify: str | None,
    with_server: bool,
    spec: SweepSpec,
    run: str | None,
    storage: str | None,
    console: PlainConsole,
    detail: Detail,
) -> Iterator[tuple[ProgressDisplay, Callable[[Run], None]]]:
    """Show a sweep to whom it may concern; yield the display, and what is called at the end."""
    from orchestrator.report.progress import ProgressDisplay

    if detail != "quiet":
        _say_notes(console, spec)
    with (
        _notified(notify, spec, run, storage, console) as tell,
        _served(with_server, spec, run, storage, console),
        ProgressDisplay(console, detail) as display,
    ):
        yield display, tell


@contextmanager
def _notified(
    url: str | None, spec: SweepSpec, run: str | None, storage: str | None, console: PlainConsole
) -> Iterator[Callable[[Run], None]]:
    """Send the answer to an address, or why there is none if the sweep raises; yield what is called at its end."""
    if url is None:
        yield lambda finished: None
        return
    from orchestrator import api
    from orchestrator.execution.monitoring.notify import check_address, notify

    check_address(url)
    place = str(api.run_place(spec, run, storage))

    def tell(event: str, **content: Any) -> None:
        if wrong := notify(url, event, place, content):
            console.print(wrong)

    def at_end(finished: Run) -> None:
        import json

        answer = finished.cached().answer()
        tell("incomplete" if answer.n_missing else "end", answer=json.loads(answer.to_json()))

    try:
        yield at_end
    except BaseException as fault:
        tell("halt", reason=f"{type(fault).__name__}: {fault}".strip(": "))
        raise


@contextmanager
def _served(
    is_wanted: bool, spec: SweepSpec, run: str | None, storage: str | None, console: PlainConsole
) -> Iterator[None]:
    """Serve the page of a sweep while it runs, if that is wanted, and print its address."""
    if not is_wanted:
        yield
        return
    from orchestrator import api
    from orchestrator.report.page.server import served_beside

    with served_beside(str(api.run_place(spec, run, storage))) as address:
        console.print(f"Page while it runs: {address}")
        yield


def _finish(console: PlainConsole, spending: Spending | None, run: Run, spec: SweepSpec, require_answer: bool) -> None:
    """Print the answer, where the tables are, and which budget ended the sweep; end with the exit code that says so."""
    from orchestrator.report.numbers import money
    from orchestrator.report.page.writing import has_page
    from orchestrator.storage.base import REPORT_FILE

    n_missing, unanswered = print_answer(console, run, spec)
    console.print(f"Tables: {run.where}/trials and {run.where}/accuracy (Parquet)")
    if has_page(run):
        console.print(f"Page: {run.where}/{REPORT_FILE}")
    if spending is not None and spending.budget.has_price:
        console.print(f"The trials of this run cost {money(spending.cost)}.")
    end(console, n_missing, unanswered, require_answer, spending.reached if spending is not None else "")


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
    base: dict[str, Any] | None,
) -> SweepSpec:
    from orchestrator.spec.loading import given, load_spec

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
    loaded = load_spec(spec, preset, parse_overrides(settings, options), base=base)
    written = map(str, given(spec, preset, base).get("limits") or ()) if limit else ()
    if replaced := [text for text in written if text not in loaded.limits]:
        print(visible(f"note: --limit replaces the limits of the spec; left out: {', '.join(replaced)}"))
    return loaded


def _is_new(spec: SweepSpec, run: str | None, storage: str | None) -> bool:
    """Return whether the run folder is local and not there yet, so that no trial of the sweep can be complete."""
    place = run if run is not None else f"{storage if storage is not None else 'runs'}/{spec.name}"
    return "://" not in place and not (Path(place).expanduser() / "spec.yaml").exists()
