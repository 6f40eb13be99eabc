"""The objective against a limited metric: what each suggestion reached, and what another limit would give."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from orchestrator.core.errors import UsageError
from orchestrator.core.metrics import quantity
from orchestrator.core.text import visible
from orchestrator.report.figures.drawing import (
    Drawing,
    colour,
    finish,
    legend_columns,
    limit_text,
    marker,
    measure,
    new_figure,
    panels,
    rows_of,
    say,
    shown,
    styled,
)
from orchestrator.report.figures.scene import Scene, only
from orchestrator.search.answers.what_if import Step
from search_spaces import Constraint

STEP: dict[str, Any] = {"marker": "o", "markersize": 6.5, "markerfacecolor": "none", "markeredgewidth": 0.6}
"""Rings around what becomes best at a limit."""


@dataclass(frozen=True)
class Point:
    """A suggestion on validation.

    Args:
        method: its method.
        number: in its cell.
        metric: its mean of the limited metric.
        objective: its mean objective.
        is_complete: whether it ran on all search seeds, and was not left behind in the race.
    """

    method: str
    number: int
    metric: float
    objective: float
    is_complete: bool


def frontier(scene: Scene) -> Drawing:
    """Return the objective against the metric of a limit, with the curve 'limit → best objective' of the answer."""
    limit = _limit(scene)
    found = {scenario: list(points(scene, scenario, limit)) for scenario in scene.scenarios}
    scenarios = scene.kept(lambda name: bool(found[name]), f"suggestions with a {visible(limit.metric)} on validation")
    per_row = min(len(scenarios), 3 if scene.is_wide else 1)
    n_rows = rows_of(len(scenarios), per_row)
    methods = [m for m in scene.spec.methods if any(p.method == m for name in scenarios for p in found[name])]
    has_hollow = any(not point.is_complete for name in scenarios for point in found[name])
    handles, labels = _legend(scene, methods, limit, has_hollow)
    columns = legend_columns(labels, scene.width)
    height = n_rows * (3.0 if per_row == 1 and scene.is_wide else 2.3) + 0.15 * rows_of(len(labels), columns) + 0.2
    scene.refuse_tall(height)
    with styled():
        figure = new_figure(scene.width, height)
        flat = [one for axes in panels(figure, [len(scenarios)], per_row) for one in axes]
        for place, (one, scenario) in enumerate(zip(flat, scenarios, strict=True)):
            _draw(one, scene, limit, found[scenario], scene.answer.scenario(scenario).what_if[limit.name])
            one.set_title(shown(scenario, 40))
            if place % per_row == 0:
                one.set_ylabel(f"{shown(scene.spec.objective, 40)}, validation")
        figure.legend(handles, labels, loc="outside lower center", ncols=columns)
        say(figure, [*scene.notes(), *only(scenarios, scene.scenarios, "as nothing was measured on validation")])
        return Drawing(finish(figure), [_caption(limit, has_hollow), *scene.notes()])


def _limit(scene: Scene) -> Constraint:
    """Return the limit that `--metric` names, or the first.

    Raises:
        UsageError: if the sweep has no such limit.
    """
    constraints, asked = scene.spec.constraints, scene.metric
    if not scene.spec.seeds.of("search"):
        raise UsageError("plot frontier: expected a sweep with search seeds, got none; draw bars instead")
    if not constraints:
        raise UsageError("plot frontier: expected a sweep with limits, got one without; draw bars instead")
    if asked is None:
        return constraints[0]
    for constraint in constraints:
        if asked in (constraint.metric, constraint.name, str(quantity(constraint.metric))):
            return constraint
    known = ", ".join(dict.fromkeys(visible(constraint.metric) for constraint in constraints))
    raise UsageError(f"--metric: expected the metric of a limit, got '{asked}'; choose from: {known}")


def points(scene: Scene, scenario: str, limit: Constraint) -> Iterator[Point]:
    """Yield each suggestion of a scenario whose two numbers are known on validation."""
    n_all = len(scene.spec.seeds.of("search"))
    for cell in scene.cells(scenario):
        for suggestion in cell.suggestions:
            metric = suggestion.mean("validation", limit.metric)
            objective = suggestion.mean("validation", scene.spec.objective)
            if math.isfinite(metric) and math.isfinite(objective):
                is_complete = len(suggestion.outcomes["search"]) >= n_all
                yield Point(cell.cell.method, suggestion.number, metric, objective, is_complete)


def _draw(axes: Axes, scene: Scene, limit: Constraint, found: Sequence[Point], steps: Sequence[Step]) -> None:
    for method in dict.fromkeys(point.method for point in found):
        place = scene.place(method)
        for is_complete in (False, True):
            own = [point for point in found if point.method == method and point.is_complete is is_complete]
            axes.scatter(
                [point.metric for point in own],
                [point.objective for point in own],
                s=14,
                marker=marker(place),
                facecolors=colour(place) if is_complete else "none",
                edgecolors=colour(place),
                linewidths=0.7,
                alpha=0.9,
                zorder=3,
                gid=f"{place}-{'complete' if is_complete else 'raced'}",
            )
    is_at_most = limit.operator == "<="
    _scale(axes, limit.metric, [point.metric for point in found], limit.limit)
    low, high = axes.get_xlim()
    for constraint in scene.spec.constraints:
        if quantity(constraint.metric) == quantity(limit.metric):
            axes.axvline(constraint.limit, color="black", linestyle="--", linewidth=0.8, gid="limit")
    axes.axvspan(limit.limit, high if is_at_most else low, color="#000000", alpha=0.06, linewidth=0, zorder=0)
    if steps:
        ends = [*(step.limit for step in steps), max(high, limit.limit) if is_at_most else min(low, limit.limit)]
        values = [*(step.objective for step in steps), steps[-1].objective]
        axes.plot(
            ends,
            values,
            drawstyle="steps-post",
            color="black",
            linewidth=0.8,
            zorder=2,
            gid="what-if",
            markevery=slice(len(steps)),
            **STEP,
        )
    axes.set_xlim(low, high)
    measure(axes.yaxis, scene.spec.objective)
    axes.set_xlabel(f"{shown(limit.metric, 40)}, validation")


def _scale(axes: Axes, metric: str, values: Sequence[float], limit: float) -> None:
    """Choose the axis of the limited metric: its values and the limit, as powers if they differ much."""
    every = [*values, limit]
    positive = [value for value in every if value > 0]
    is_wide = positive and min(every) >= 0 and max(positive) > 100 * min(positive)
    if is_wide and quantity(metric).definition.high == math.inf:
        least = 10 ** math.floor(math.log10(min(positive)))
        axes.set_xscale("symlog", linthresh=least, linscale=0.5) if min(every) == 0 else axes.set_xscale("log")
        axes.set_xlim(-0.15 * least if min(every) == 0 else min(every) / 1.5, max(every) * 1.8)
        powers = [10.0**n for n in range(round(math.log10(least)), math.ceil(math.log10(max(every) * 1.8)))]
        measure(axes.xaxis, metric)
        axes.set_xticks([*([0.0] if min(every) == 0 else []), *powers[:: math.ceil(len(powers) / 4)]])
        axes.minorticks_off()
        return
    room = 0.05 * (max(every) - min(every)) or 0.05
    axes.set_xlim(min(every) - room, max(every) + room)
    measure(axes.xaxis, metric)


def _legend(
    scene: Scene, methods: Sequence[str], limit: Constraint, has_hollow: bool
) -> tuple[list[Line2D], list[str]]:
    """Return the symbols and what each means."""
    handles = [Line2D([], [], marker=marker(p), color=colour(p), linestyle="") for p in map(scene.place, methods)]
    labels = [
        shown(method, 18) + (" (bound)" if scene.spec.method_of(method).is_reference else "") for method in methods
    ]
    if has_hollow:
        handles.append(Line2D([], [], marker="o", markerfacecolor="none", color="#555555", linestyle=""))
        labels.append("fewer seeds")
    handles.append(Line2D([], [], color="black", linewidth=0.8, **STEP))
    handles.append(Line2D([], [], color="black", linestyle="--", linewidth=0.8))
    return handles, [*labels, "best at a limit", f"limit {limit_text(limit)}"]


def _caption(limit: Constraint, has_hollow: bool) -> str:
    hollow = "; hollow ones were left behind in the race, on fewer seeds" if has_hollow else ""
    return (
        f"A point a suggestion, mean over its validation seeds{hollow}. Dashed: the limit {visible(limit.name)}; "
        "shaded: what violates it. Line: the best objective of what meets the other limits if this one is moved, none "
        "if nothing does; upper bounds such as joint are not in it."
    )
