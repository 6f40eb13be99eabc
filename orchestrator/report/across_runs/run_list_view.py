"""A list of runs as the terminal shows it."""

from __future__ import annotations

from rich import box
from rich.table import Table
from rich.text import Text

from orchestrator.core.text import visible
from orchestrator.report.across_runs.run_list import ListedRun, in_words

_STYLES = {"complete": "green", "unreadable": "red", "not a run": "dim"}


def render_runs(runs: list[ListedRun]) -> Table:
    """Return a row a run, the newest first; folders without a date come last."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("run", overflow="fold")
    table.add_column("newest trial", no_wrap=True)
    table.add_column("trials", justify="right")
    table.add_column("state", overflow="fold")
    table.add_column("answer", overflow="fold")
    for run in sorted(runs, key=lambda run: (run.date, run.where), reverse=True):
        date = run.date[:16].replace("T", " ")
        trials = "" if run.n_trials is None else str(run.n_trials)
        state = Text(visible(run.state_text), style=_STYLES.get(run.state, ""))
        table.add_row(Text(visible(run.where)), date, trials, state, Text(visible(in_words(run))))
    return table
