"""The plan of a sweep in the terminal."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table

from orchestrator.core.text import counted
from orchestrator.execution.capacity import NodeResources, share_slots
from orchestrator.report.data_view import render_data
from orchestrator.report.numbers import duration
from orchestrator.spec.sweep_spec import SweepSpec

if TYPE_CHECKING:
    from orchestrator.search.plan import Plan


def render_plan(spec: SweepSpec, plan: Plan, workers: int | None) -> RenderableType:
    """Return the trials of each cell, their totals, and an estimate of the time.

    Args:
        spec: the sweep.
        plan: what it would do.
        workers: trials that run at the same time; by default as many as fit on this machine.
    """
    table = Table(box=box.SIMPLE_HEAD)
    for column in ("cell", "done", "to do", "s per trial", "why"):
        table.add_column(column, justify="left" if column in ("cell", "why") else "right")
    for cell in plan.cells:
        shown = "" if math.isnan(cell.seconds_a_trial) else f"{cell.seconds_a_trial:.1f}"
        table.add_row(cell.cell.name, str(cell.n_done), str(cell.n_ready + cell.n_later), shown, cell.why)
    n_done = sum(cell.n_done for cell in plan.cells)
    n_to_do = sum(cell.n_ready + cell.n_later for cell in plan.cells)
    slots = workers or _slots_here(spec)
    seconds = sum(cell.seconds for cell in plan.cells) / slots
    source = "trials of this run" if any(cell.is_measured for cell in plan.cells) else "a few training steps timed here"
    return Group(
        *(part for summary in plan.data for part in render_data(spec, summary)),
        *(f"note: {note}" for note in plan.notes),
        table,
        f"{n_done} trials done, up to {n_to_do} to do in {plan.run}",
        f"about {duration(seconds)} with {counted(slots, 'trial')} at once, estimated from {source}, without the "
        "cluster's start",
        *_changes(plan, n_to_do),
    )


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
    requests = list(dict.fromkeys(spec.resources.of(c.scenario, c.method) for c in spec.cells))
    # macOS has no call for the CPUs that this process may use.
    cpus = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    gpus = max(math.ceil(max(request.gpus for request in requests)), 1)
    return max(sum(share_slots([NodeResources(cpus, gpus)], requests).values()), 1)
