"""The figure of boundaries that a detector found: what it watched, and where tasks begin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pydantic import TypeAdapter, ValidationError

from orchestrator.core.text import counted
from orchestrator.report.page.content import ScenarioContent
from orchestrator.report.page.figure import COLOURS, Cell, Column, Figure
from orchestrator.spec.cells import split_scenario
from orchestrator.streams.boundaries import FoundBoundaries

FOUND: TypeAdapter[dict[str, FoundBoundaries]] = TypeAdapter(dict[str, FoundBoundaries])
"""Stream -> what was found, as a run folder keeps it."""

_FORM = "average"
"""The signal has the form of this metric: three decimals."""

_REASONS = {"drift": "drift", "maximal_length": "maximal length"}


def found_boundaries(kept: bytes) -> dict[str, FoundBoundaries]:
    """Return stream -> what was found, given the file of a run; nothing if it is empty or damaged."""
    try:
        return FOUND.validate_json(kept) if kept else {}
    except ValidationError:
        return {}


def with_boundaries(content: ScenarioContent, found: Mapping[str, FoundBoundaries]) -> ScenarioContent:
    """Return what the page says of a scenario, with the figure of its stream's boundaries first, if there is one."""
    own = found.get(split_scenario(content.name)[0])
    if own is None:
        return content
    shown = ("Where tasks begin", (boundary_figure(f"{content.anchor}-boundaries", own),))
    return replace(content, figures=(shown, *content.figures))


def boundary_figure(name: str, found: FoundBoundaries) -> Figure:
    """Return the figure of a signal over the rows, with the boundaries as vertical lines."""
    signal: list[dict[str, Cell]] = [
        {"row": row + 1, "signal": value, "value": None, "why": None} for row, value in found.signal
    ]
    begins: list[dict[str, Cell]] = [
        {"row": task.row + 1, "signal": None, "value": task.value, "why": _REASONS[task.why]}
        for task in found.tasks
        if task.why != "start"
    ]
    passed = f" {counted(found.n_passed_over, 'drift')} began no task." if found.n_passed_over else ""
    ordered = f"in the order of '{found.order}'" if found.order else "in the order of the table"
    columns = (
        Column("row", "training row"),
        Column("signal", "signal", _FORM),
        Column("value", found.order or "row of the table"),
        Column("why", "a task begins because of"),
    )
    return Figure(
        name,
        f"Boundaries found by {found.words}",
        f"The signal of each of {found.n_rows:,} training rows {ordered}, between 0 and 1, as the mean of the last "
        f"{found.smoothed_over} rows. A vertical line is where a task begins.{passed}",
        columns,
        [*signal, *begins],
        [("", _chart(found.n_rows))],
    )


def _chart(n_rows: int) -> dict[str, Any]:
    reasons = list(_REASONS.values())
    x = {
        "field": "row",
        "type": "quantitative",
        "title": "training row",
        "scale": {"domain": [1, n_rows], "nice": False},
    }
    line = {
        "transform": [{"filter": "isValid(datum.signal)"}],
        "mark": {"type": "line", "tooltip": True, "strokeWidth": 1.5, "color": COLOURS[0]},
        "encoding": {"x": x, "y": {"field": "signal", "type": "quantitative", "title": "signal, smoothed"}},
    }
    rule = {
        "transform": [{"filter": "isValid(datum.why)"}],
        "mark": {"type": "rule", "strokeWidth": 2, "tooltip": True},
        "encoding": {
            "x": x,
            "color": {"field": "why", "type": "nominal", "title": "a task begins because of",
                      "scale": {"domain": reasons, "range": [COLOURS[1], COLOURS[6]]}, "legend": {"orient": "bottom"}},
            "strokeDash": {"field": "why", "type": "nominal", "legend": None,
                           "scale": {"domain": reasons, "range": [[1, 0], [4, 4]]}},
        },
    }  # fmt: skip
    return {"height": 220, "layer": [line, rule]}
