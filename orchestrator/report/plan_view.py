"""The plan of a sweep in the terminal."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table

from orchestrator.core.text import counted
from orchestrator.execution.capacity import NodeResources, share_slots
from orchestrator.report.data_view import render_data
from orchestrator.report.numbers import duration, money
from orchestrator.spec.sweep_spec import SweepSpec

if TYPE_CHECKING:
    from orchestrator.execution.budget import Budget
    from orchestrator.search.plan import CellPlan, Plan


def render_plan(spec: SweepSpec, plan: Plan, workers: int | None, prices: Budget | None = None) -> RenderableType:
    """Return the trials of each cell, their totals, and estimates of the time and, with a price, of the cost.

    Args:
        spec: the sweep.
        plan: what it would do.
        workers: trials that run at the same time; by default as many as fit on this machine.
        prices: what a CPU and a GPU cost an hour.
    """
    table = Table(box=box.SIMPLE_HEAD)
    for column in ("cell", "done", "at most", "expected", "s per trial", "why"):
        table.add_column(column, justify="left" if column in ("cell", "why") else "right")
    for cell in plan.cells:
        shown = "" if math.isnan(cell.seconds_a_trial) else f"{cell.seconds_a_trial:.1f}"
        n_trials = map(str, (cell.n_done, cell.n_at_most, cell.n_expected))
        table.add_row(cell.cell.name, *n_trials, shown, cell.why)
    n_done = sum(cell.n_done for cell in plan.cells)
    n_to_do = sum(cell.n_at_most for cell in plan.cells)
    n_expected = sum(cell.n_expected for cell in plan.cells)
    slots = workers or _slots_here(spec)
    unknown = [cell.cell.name for cell in plan.cells if math.isnan(cell.seconds)]
    seconds = sum(cell.seconds for cell in plan.cells if cell.cell.name not in unknown) / slots
    source = "trials of this run" if any(cell.is_measured for cell in plan.cells) else "a few training steps timed here"
    return Group(
        *(part for summary in plan.data for part in render_data(spec, summary)),
        *(f"note: {note}" for note in plan.notes),
        table,
        f"{n_done} trials done, at most {n_to_do} to do in {plan.run}, {n_expected} expected",
        f"about {duration(seconds)} with {counted(slots, 'trial')} at once, estimated from {source}, without the "
        "cluster's start",
        _hours([cell for cell in plan.cells if cell.cell.name not in unknown], prices),
        *([f"not counted, since their trials fail at once: {', '.join(unknown)}"] if unknown else []),
        *_changes(plan, n_to_do),
    )


def _hours(cells: Sequence[CellPlan], prices: Budget | None) -> str:
    """Return the hours of CPUs and GPUs that the trials take, and what they cost if there is a price."""
    cpus = sum(cell.seconds * cell.request.cpus for cell in cells) / 3600
    gpus = sum(cell.seconds * cell.request.gpus for cell in cells) / 3600
    text = f"about {_hours_text(cpus)} CPU hours and {_hours_text(gpus)} GPU hours"
    if prices is None or not prices.has_price:
        return text
    cost = sum(cell.seconds / 3600 * prices.price_of(cell.request) for cell in cells)
    return f"{text}, which cost about {money(cost)}"


def _hours_text(hours: float) -> str:
    return f"{hours:.3g}" if hours >= 0.01 or not hours else "0.01"


def _changes(plan: Plan, n_to_do: int) -> Iterator[str]:
    if plan.changes:
        yield "The completed trials ran with other software or on other devices than this machine has:"
        yield from plan.changes
        yield (
            "The sweep will only start with --accept-changes."
            if n_to_do
            else "Nothing is left to train, so the sweep does not need --accept-changes."
        )


def _slots_here(spec: SweepSpec) -> int:
    """Return how many trials run at the same time on the CPUs of this machine."""
    requests = list(dict.fromkeys(spec.resources.of(c.scenario, *c.names) for c in spec.cells))
    # macOS has no call for the CPUs that this process may use.
    cpus = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    gpus = max(math.ceil(max(request.gpus for request in requests)), 1)
    return max(sum(share_slots([NodeResources(cpus, gpus)], requests).values()), 1)
