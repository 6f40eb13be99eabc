"""The commands `show` and `compact`, for runs that exist."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.answers import end, print_answer
from orchestrator.cli.options import (
    Plugins,
    RequireAnswer,
    RunArgument,
)
from orchestrator.core.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd


def show(
    run: RunArgument,
    trial: Annotated[str | None, typer.Option(metavar="KEY", help="Show this trial and its accuracy matrix.")] = None,
    trials: Annotated[bool, typer.Option("--trials", help="List every trial.")] = False,
    plugins: Plugins = None,
    require_answer: RequireAnswer = False,
) -> None:
    """Show the answer of a run, or its trials, from its tables alone."""
    from orchestrator import api
    from orchestrator.report.console import make_console
    from orchestrator.report.trial_view import render_trial, render_trials
    from orchestrator.spec.loading import load_plugins

    load_plugins(plugins or [])
    console = make_console()
    opened = api.open_run(run, cached=True)
    if trial is not None:
        row = _row_of(opened.trials(), trial)
        console.print(render_trial(row, opened.matrix(str(row["key"]))))
    elif trials:
        console.print(render_trials(opened.trials(), opened.spec.objective))
    else:
        end(console, *print_answer(console, opened, opened.spec), require_answer)


def _row_of(trials: pd.DataFrame, key: str) -> dict[str, object]:
    """Return the one row whose key begins with `key`."""
    rows = trials[trials["key"].str.startswith(key)]
    if len(rows) != 1:
        found = f"{len(rows)} trials have keys that begin" if len(rows) else "no trial has a key that begins"
        raise UsageError(f"--trial: {found} with '{key}'. 'show RUN --trials' lists the keys.")
    return {str(name): value for name, value in rows.iloc[0].items()}


def compact(run: RunArgument) -> None:
    """Merge the many small files of a run's tables into a few. Readers see every row exactly once throughout."""
    from orchestrator import api

    for done in api.compact(run):
        print(f"{done.table}: {done.n_before} files before, {done.n_after} now")
