"""What the terminal says of what goes on inside of trials: methods that can no longer learn, and trials without."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pandas as pd
from rich import box
from rich.table import Table

from orchestrator.core.text import counted, visible
from orchestrator.report.methods_table import shown_of
from orchestrator.report.numbers import number
from orchestrator.results.diagnostics.losing import plasticity_warning
from orchestrator.search.answers.summary import ScenarioSummary
from orchestrator.search.sweep_search import SweepSearch
from orchestrator.trial.diagnostics.quantities import QUANTITIES
from orchestrator.trial.result import TrialResult


def inside_lines(search: SweepSearch, scenarios: Sequence[ScenarioSummary], diagnostics: pd.DataFrame) -> Iterator[str]:
    """Yield a line for each method that is losing its plasticity, by the trials that stand for it.

    Args:
        search: of the sweep.
        scenarios: its answer.
        diagnostics: the table.
    """
    if diagnostics.empty:
        return
    searches = {cell.cell.name: cell for cell in search.cells}
    for scenario in scenarios:
        for cell in scenario.cells:
            suggestion, split = shown_of(cell)
            if suggestion is None:
                continue
            keys = searches[cell.cell.name].keys_on(suggestion, split)
            line = plasticity_warning(cell.cell.method, diagnostics[diagnostics["key"].isin(keys)])
            if line:
                yield f"{scenario.scenario}: {line}."


def render_inside(rows: pd.DataFrame) -> Table:
    """Return what was measured inside one trial, of the whole network and of all buffers: a column a task.

    Args:
        rows: its rows of the table `diagnostics`.
    """
    whole = rows[rows["part"] == ""].pivot(index="name", columns="after_task", values="value")
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("inside, after task")
    for after in whole.columns:
        table.add_column(str(after), justify="right")
    for name in (name for name in dict.fromkeys([*QUANTITIES, *whole.index]) if name in whole.index):
        form = "kept_bytes" if name.startswith("column_bytes") else "average"
        table.add_row(visible(name), *(number(form, float(value)) for value in whole.loc[name]))
    return table


def inside_of(result: TrialResult) -> pd.DataFrame:
    """Return what a trial leaves of its inside, as `render_inside` takes it."""
    return pd.DataFrame(result.diagnostics, columns=["after_task", "name", "part", "value"])


def lacking(trials: pd.DataFrame, diagnostics: pd.DataFrame) -> str:
    """Return how many trials ran without diagnostics, though the spec asks for them; empty if none did."""
    ran = trials.loc[trials["status"].isin(["completed", "stopped"]) & ~(trials["stopped_after"] < 0), "key"]
    n = len(set(ran) - set(diagnostics["key"]))
    if not n:
        return ""
    return f"diagnostics: {counted(n, 'trial')} ran without, and {'is' if n == 1 else 'are'} not trained again for them"
