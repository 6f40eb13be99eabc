"""Two runs side by side, as the terminal shows them."""

from __future__ import annotations

import math
from collections.abc import Iterator

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from orchestrator.core.metrics import UNKNOWN, number, quantity
from orchestrator.core.text import counted, visible
from orchestrator.report.across_runs.comparison import Change, ComparedCell, Difference, RunComparison
from orchestrator.report.numbers import value_text

_SMALLEST = 1e-9
"""Of two numbers that differ by more than rounding."""


def render_comparison(found: RunComparison) -> RenderableType:
    """Return what differs between two runs, and a row for each metric of each cell that both have."""
    parts: list[RenderableType] = [f"A: {found.first}", f"B: {found.second}", ""]
    parts += list(_lead(found))
    for title, changes, same in (
        ("spec", found.spec, "the specs are equal"),
        ("data", found.data, "the trials of the streams that both have were trained on the same data"),
        ("software and devices", found.software, "software and devices are the same"),
    ):
        parts += [_changes(title, changes)] if changes else [f"{title}: {same}"]
    parts.append("")
    if found.cells:
        parts += [_cells(found.cells), *_notes(found)]
    else:
        parts.append("No cell is in both runs.")
    for name, cells in (("A", found.only_first), ("B", found.only_second)):
        if cells:
            parts.append(f"Only in {name}: {', '.join(cells)}")
    return Group(*(Text(visible(part)) if isinstance(part, str) else part for part in parts))


def _lead(found: RunComparison) -> Iterator[str]:
    if found.objectives[0] != found.objectives[1]:
        yield f"The objectives differ: {found.objectives[0]} in A, {found.objectives[1]} in B. Both are shown."
    for name, n_missing in zip("AB", found.n_missing, strict=True):
        if n_missing:
            verb = "is" if n_missing == 1 else "are"
            yield f"{counted(n_missing, 'trial')} of {name} {verb} missing at most, so its answer is not final."


def _changes(title: str, changes: list[Change]) -> Table:
    table = Table(title=Text(title), title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    for head in ("what", "A", "B"):
        table.add_column(head, overflow="fold")
    for change in changes:
        table.add_row(*(Text(visible(text)) for text in (change.what, change.first, change.second)))
    return table


def _cells(cells: list[ComparedCell]) -> Table:
    table = Table(title=Text("cells, on test"), title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    for head in ("scenario", "method", "metric"):
        table.add_column(head, overflow="fold")
    for head in ("A", "B", "B less A", "95 % interval", "p (Holm)"):
        table.add_column(head, justify="right")
    table.add_column("test")
    for cell in cells:
        for place, one in enumerate(cell.differences):
            names = (cell.scenario, cell.method) if place == 0 else ("", "")
            style = "bold" if one.is_told_apart else ""
            table.add_row(*(Text(visible(text), style=style) for text in (*names, *_row(one))))
    return table


def _row(one: Difference) -> tuple[str, ...]:
    unit = quantity(one.metric).metric
    low, high = one.interval
    interval = UNKNOWN if math.isnan(low) else f"{_signed(unit, low)} to {_signed(unit, high)}"
    n_first, n_second = one.n_seeds
    how = {
        "paired": f"paired, {counted(n_first, 'seed')}",
        "Welch": f"Welch, {n_first} and {counted(n_second, 'seed')}",
        "none": "none: too few seeds" if n_first and n_second else "none: not measured on test",
    }[one.test]
    return (
        one.metric,
        number(unit, one.first),
        number(unit, one.second),
        _signed(unit, one.difference),
        interval,
        UNKNOWN if math.isnan(one.p_holm) else f"{one.p_holm:.3f}",
        how,
    )


def _signed(metric: str, value: float) -> str:
    if math.isnan(value):
        return UNKNOWN
    shown = number(metric, abs(value))
    is_zero = not any(digit in shown for digit in "123456789")
    return shown if is_zero else ("+" if value > 0 else "-") + shown


def _notes(found: RunComparison) -> Iterator[str]:
    """Yield what the tests are, what makes cells hard to compare, and which suggestions stand for them."""
    tests = {one.test for cell in found.cells for one in cell.differences}
    if "paired" in tests:
        yield "paired: Student's t over the seeds that both runs have."
    if any(_is_of_fewer(one) for cell in found.cells for one in cell.differences):
        yield "A and B are means over all seeds of each run, so that their difference may be another one."
    if "Welch" in tests:
        yield "Welch: fewer than two seeds are in both runs, so their samples are compared."
    yield "Holm's correction is over the cells, for each metric."
    for cell in found.cells:
        for note in cell.notes:
            yield f"{cell.scenario} {cell.method}: {note}."
    for cell in found.cells:
        if cell.first != cell.second:
            yield f"{cell.scenario} {cell.method}: {_assignment(cell.first)} in A, {_assignment(cell.second)} in B."


def _is_of_fewer(one: Difference) -> bool:
    """Return whether a paired difference is over fewer seeds than the means beside it."""
    return one.test == "paired" and abs(one.second - one.first - one.difference) > _SMALLEST


def _assignment(values: dict[str, object]) -> str:
    return ", ".join(f"{name} {value_text(value)}" for name, value in values.items()) or "no result"
