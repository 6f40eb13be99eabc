"""The commands `show` and `compact`, for runs that exist."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.shared.answers import end, print_answer
from orchestrator.cli.shared.options import (
    Plugins,
    RequireAnswer,
    RunArgument,
)
from orchestrator.core.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd

    from orchestrator.report.console import PlainConsole
    from orchestrator.results.run import Run


def show(
    run: RunArgument,
    trial: Annotated[str | None, typer.Option(metavar="KEY", help="Show this trial and its accuracy matrix.")] = None,
    trials: Annotated[bool, typer.Option("--trials", help="List every trial.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the answer for machines, as in answer.json.")] = False,
    what_if: Annotated[
        str | None, typer.Option(metavar="METRIC", help="Show what another limit on this metric would give.")
    ] = None,
    plugins: Plugins = None,
    require_answer: RequireAnswer = False,
) -> None:
    """Show the answer of a run, or its trials, from its tables alone."""
    from orchestrator import api
    from orchestrator.report.console import make_console
    from orchestrator.report.inside_view import render_inside
    from orchestrator.report.trial_view import render_trial, render_trials
    from orchestrator.spec.loading import load_plugins

    load_plugins(plugins or [])
    console = make_console()
    opened = api.open_run(run, cached=True)
    if trial is not None:
        row = _row_of(opened.trials(), trial, "--trial")
        console.print(render_trial(row, opened.matrix(str(row["key"]))))
        diagnostics = opened.diagnostics()
        if len(own := diagnostics[diagnostics["key"] == row["key"]]):
            console.print(render_inside(own))
    elif trials:
        console.print(render_trials(opened.trials(), opened.spec.objective))
    elif as_json:
        print(opened.answer().to_json(), end="")
    elif what_if is not None:
        _print_what_if(console, opened, what_if)
    else:
        end(console, *print_answer(console, opened, opened.spec), require_answer)


def logs(
    run: RunArgument,
    key: Annotated[str, typer.Argument(metavar="KEY", help="The trial's key, or a unique beginning of it.")],
) -> None:
    """Show what is known of a trial: how it ended, its lines in sweep.log, and what its worker said if it failed."""
    from orchestrator import api
    from orchestrator.core.text import visible
    from orchestrator.results.folder import lines_on

    opened = api.open_run(run, cached=True)
    row = _row_of(opened.tables.trials.read(), key, "KEY")
    reason = f": {row['reason']}" if row["reason"] else ""
    print(visible(f"trial {row['key']} {row['scenario']} {row['method']}: {row['status']}{reason}"))
    for line in lines_on(opened.storage, str(row["key"])):
        print(visible(line))


def _print_what_if(console: PlainConsole, run: Run, metric: str) -> None:
    """Print the curve of each scenario for the limit on a metric."""
    from orchestrator.report.certainty_view import render_what_if

    answer = run.answer()
    named = {constraint.metric: constraint.name for constraint in run.spec.constraints}
    if metric not in named:
        known = f"choose from: {', '.join(named)}" if named else "this sweep has no limits"
        raise UsageError(f"--what-if: expected the metric of a limit, got '{metric}'; {known}")
    for scenario in answer.scenarios:
        console.print(render_what_if(run.spec.objective, scenario, named[metric]))


def _row_of(trials: pd.DataFrame, key: str, option: str) -> dict[str, object]:
    """Return the one row whose key begins with `key`."""
    rows = trials[trials["key"].str.startswith(key)]
    if len(rows) != 1:
        found = f"{len(rows)} trials have keys that begin" if len(rows) else "no trial has a key that begins"
        raise UsageError(f"{option}: {found} with '{key}'. 'show RUN --trials' lists the keys.")
    return {str(name): value for name, value in rows.iloc[0].items()}


def compact(run: RunArgument) -> None:
    """Merge the many small files of a run's tables into a few. Readers see every row exactly once throughout."""
    from orchestrator import api

    for done in api.compact(run):
        print(f"{done.table}: {done.n_before} files before, {done.n_after} now")
