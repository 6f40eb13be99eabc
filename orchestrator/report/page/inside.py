"""Figures of what goes on inside of trials, from the table `diagnostics`; runs without it have none of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.report.page.facts import MethodFacts, Tables
from orchestrator.report.page.figure import COLOURS, Cell, Colours, Column, Figure
from orchestrator.results.diagnostics.losing import LOST, means

_SHARE = "average"
"""The form of a share is that of this metric: three decimals."""

_MOST_PARTS = 20
"""Tasks or classes up to which a buffer is drawn by them."""

_OVER = "Mean over the trials that stand for each method, those that ran with diagnostics."


@dataclass(frozen=True)
class Inside:
    """What was measured inside the trials of a method.

    Args:
        method: its name.
        names: of the tasks.
        values: task, quantity and part -> mean over the trials, in the order of the tasks.
    """

    method: str
    names: tuple[str, ...]
    values: dict[tuple[int, str, str], float]

    def of(self, after: int, name: str, part: str = "") -> Cell:
        """Return a value, None if it was not measured."""
        found = self.values.get((after, name, part), math.nan)
        return None if math.isnan(found) else found

    def has(self, *names: str) -> bool:
        """Return whether one of some quantities was measured."""
        return any(name in names for _, name, _ in self.values)

    def rows(self, **columns: str) -> Iterator[dict[str, Cell]]:
        """Yield a row a task: column -> the value of a quantity as a whole."""
        for after, task in enumerate(self.names):
            own = {column: self.of(after, name) for column, name in columns.items()}
            if any(value is not None for value in own.values()):
                yield {"method": self.method, "after_task": task, **own}

    def parts_of(self, name: str) -> list[str]:
        """Return the parts of a quantity in the order in which they appeared."""
        return list(dict.fromkeys(part for _, found, part in self.values if found == name))


def inside_figures(name: str, facts: Sequence[MethodFacts], tables: Tables, colours: Colours) -> tuple[Figure, ...]:
    """Return the figures of the methods whose trials have diagnostics; none if no trial has.

    Args:
        name: the beginning of the figures' names.
        facts: of the methods of a scenario.
        tables: of the run.
        colours: of the methods.
    """
    found = []
    for one in facts:
        own = means(tables.diagnostics_of(one.keys))
        if len(own):
            places = zip(own["after_task"].astype(int), own["name"], own["part"], strict=True)
            found.append(Inside(one.method, one.task_names, dict(zip(places, own["value"].astype(float), strict=True))))
    figures = (
        _fisher(f"{name}-fisher", [one for one in found if one.has("fisher_share")], colours),
        _plasticity(f"{name}-plasticity", [one for one in found if one.has("plasticity_gap", "dead_units")], colours),
        _buffers(f"{name}-buffers", [one for one in found if one.has("buffer_examples")]),
        _capacity(f"{name}-capacity", [one for one in found if one.has("free_share", "column_bytes")], colours),
    )
    return tuple(figure for figure in figures if figure is not None)


def _fisher(name: str, shown: Sequence[Inside], colours: Colours) -> Figure | None:
    rows = [
        row
        for one in shown
        for row in one.rows(
            ever="fisher_share_ever", now="fisher_share", rank="fisher_effective_rank", trace="fisher_trace"
        )
    ]
    if not rows:
        return None
    columns = (
        Column("method", "method"),
        Column("after_task", "after"),
        Column("ever", "share in use for any task", _SHARE),
        Column("now", "share in use for all tasks now", _SHARE),
        Column("rank", "effective rank", _SHARE),
        Column("trace", "trace", _SHARE),
    )
    return Figure(
        name,
        "Parameters in use: those with Fisher information",
        "The share of the parameters whose Fisher information is above 1 % of the mean: in the Fisher of any task so "
        "far, measured when it had been learned, and in that of examples of all tasks so far, measured now. If the "
        f"first approaches 1, a penalty on what is in use holds nearly everything. {_OVER}",
        columns,
        rows,
        [
            ("for any task so far", _line("ever", "share of the parameters", shown, rows, colours, [0, 1])),
            ("for all tasks so far, now", _line("now", "share of the parameters", shown, rows, colours, [0, 1])),
        ],
    )


def _plasticity(name: str, shown: Sequence[Inside], colours: Colours) -> Figure | None:
    rows = [
        row
        for one in shown
        for row in one.rows(
            probe="probe_accuracy", fresh="fresh_accuracy", gap="plasticity_gap", dead="dead_units", rank="feature_rank"
        )
    ]
    if not rows:
        return None
    columns = (
        Column("method", "method"),
        Column("after_task", "new task"),
        Column("probe", "accuracy after its first steps", _SHARE),
        Column("fresh", "of a fresh network", _SHARE),
        Column("gap", "gap", _SHARE),
        Column("dead", "dead units", _SHARE),
        Column("rank", "stable rank of features", _SHARE),
    )
    rule = {
        "mark": {"type": "rule", "strokeDash": [4, 4], "aria": False},
        "encoding": {"y": {"datum": -LOST, "type": "quantitative"}},
    }
    charts = [("gap to a fresh network", _line("gap", "accuracy", shown, rows, colours, None, rule))]
    if any(row["dead"] is not None for row in rows):
        charts.append(("dead units", _line("dead", "share of the units", shown, rows, colours, [0, 1])))
    return Figure(
        name,
        "Plasticity: can it still learn?",
        "Accuracy on the new task, among its own classes, after a tenth of its steps (30 at least), less that of a "
        "fresh network after as many; below the dashed line a method lags by more than five points. Of short tasks "
        f"only some are compared. A unit is dead if it is 0 on all examples of the new task. {_OVER}",
        columns,
        rows,
        charts,
    )


def _buffers(name: str, shown: Sequence[Inside]) -> Figure | None:
    rows: list[dict[str, Cell]] = []
    charts: list[tuple[str, dict[str, Any]]] = []
    for one in shown:
        for kind in ("task", "class"):
            parts = one.parts_of(f"buffer_of_{kind}")
            own = list(_buffer_rows(one, kind, parts))
            rows += own
            if own and len(parts) <= _MOST_PARTS:
                charts.append((f"{one.method}, by {kind}", _stacked(one, kind, parts)))
    if not rows:
        return None
    columns = (
        Column("method", "method"),
        Column("after_task", "after"),
        Column("kind", "by"),
        Column("part", "which"),
        Column("examples", "examples", _SHARE),
        Column("fair", "fair share", _SHARE),
        Column("rarest", "rarest class, of its fair share", _SHARE),
    )
    return Figure(
        name,
        "What the buffer holds",
        "Remembered examples after each task, by the task and by the class that they are of. The fair share is an "
        f"equal one of all tasks or classes so far. {_OVER}",
        columns,
        rows,
        charts,
    )


def _buffer_rows(one: Inside, kind: str, parts: Sequence[str]) -> Iterator[dict[str, Cell]]:
    for after, task in enumerate(one.names):
        known = [(part, one.of(after, f"buffer_of_{kind}", part)) for part in parts]
        present = [(part, value) for part, value in known if value is not None]
        total = one.of(after, "buffer_examples")
        for part, value in present:
            yield {
                "method": one.method,
                "after_task": task,
                "kind": kind,
                "part": part,
                "examples": value,
                "fair": total / len(present) if isinstance(total, float) else None,
                "rarest": one.of(after, "buffer_fairness"),
            }


def _capacity(name: str, shown: Sequence[Inside], colours: Colours) -> Figure | None:
    rows = [
        row
        for one in shown
        for row in one.rows(
            free="free_share",
            rule="predicted_free_share",
            left="tasks_left",
            size="column_bytes",
            later="column_bytes_long_run",
        )
    ]
    if not rows:
        return None
    columns = (
        Column("method", "method"),
        Column("after_task", "after"),
        Column("free", "free weights", _SHARE),
        Column("rule", "by the rule", _SHARE),
        Column("left", "tasks left"),
        Column("size", "columns", "kept_bytes"),
        Column("later", "after 20 tasks", "kept_bytes"),
    )
    charts = []
    if free := [one for one in shown if one.has("free_share")]:
        charts.append(
            ("free weights", _line("free", "share of the weights", free, _known(rows, "free"), colours, [0, 1]))
        )
    if grown := [one for one in shown if one.has("column_bytes")]:
        charts.append(("size of the columns", _line("size", "bytes", grown, _known(rows, "size"), colours, None)))
    return Figure(
        name,
        "What room is left",
        "packnet: the share of the weights that no task owns, that which the rule p^t gives, and how many further "
        f"tasks of this stream begin with 1 % or more. pnn: the size of its columns, and after 20 tasks. {_OVER}",
        columns,
        rows,
        charts,
    )


def _known(rows: Sequence[dict[str, Cell]], column: str) -> list[dict[str, Cell]]:
    return [row for row in rows if row[column] is not None]


def _longest(shown: Sequence[Inside]) -> list[str]:
    return list(max(shown, key=lambda one: len(one.names)).names)


def _line(
    field: str,
    title: str,
    shown: Sequence[Inside],
    rows: Sequence[dict[str, Cell]],
    colours: Colours,
    domain: list[float] | None,
    *under: dict[str, Any],
) -> dict[str, Any]:
    """Return a chart of a column over the tasks, a line a method, above other layers."""
    names = _longest(shown)
    encoding = {
        "x": {"field": "after_task", "type": "ordinal", "sort": names, "title": "after", "scale": {"domain": names}},
        "y": {"field": field, "type": "quantitative", "title": title,
              "scale": {"domain": domain} if domain else {"zero": False, "nice": True}},
        **colours.encodings(rows),
    }  # fmt: skip
    line = {
        "transform": [{"filter": f"isValid(datum.{field})"}],
        "mark": {"type": "line", "point": True, "tooltip": True},
        "encoding": {name: value for name, value in encoding.items() if name != "shape"},
    }
    return {"height": 220, "layer": [*under, line]}


def _stacked(one: Inside, kind: str, parts: list[str]) -> dict[str, Any]:
    names = list(one.names)
    few = len(parts) <= len(COLOURS)
    scale = {"domain": parts, "range": list(COLOURS[: len(parts)])} if few else {"scheme": "viridis", "domain": parts}
    x = {"field": "after_task", "type": "ordinal", "sort": names, "title": "after", "scale": {"domain": names}}
    return {
        "transform": [{"filter": {"and": [
            {"field": "method", "equal": one.method}, {"field": "kind", "equal": kind}]}}],
        "height": 220,
        "mark": {"type": "bar", "tooltip": True},
        "encoding": {
            "x": x,
            "y": {"field": "examples", "type": "quantitative", "title": "examples", "stack": "zero"},
            "color": {"field": "part", "type": "nominal", "sort": parts, "scale": scale, "title": kind,
                      "legend": {"orient": "bottom", "columns": 5}},
        },
    }  # fmt: skip
