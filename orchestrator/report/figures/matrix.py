"""The accuracy matrix R of the recommended method beside `naive`, the lower bound, and `joint`, the upper one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize

from orchestrator.core.text import counted, visible
from orchestrator.report.figures.drawing import (
    SMALL,
    Drawing,
    finish,
    label_inches,
    name_ticks,
    new_figure,
    panels,
    rows_of,
    say,
    shown,
    styled,
)
from orchestrator.report.figures.scene import Scene, leading, only
from orchestrator.report.page.facts import MethodFacts

_MOST_NUMBERED = 10
"""Tasks up to which cells show their numbers."""

_LEAST_CELL = 0.19
"""Inches that a cell with a number is wide at least."""

_LEAST_PANEL = 1.5
"""Inches that a panel without numbers, or with a title in two lines, is wide at least."""

_MARGIN = 1.0
"""Inches for names of tasks and the scale."""


def matrix(scene: Scene) -> Drawing:
    """Return the mean of R over the seeds: a row an 'after task', a column a task."""
    scene.refuse_metric("matrix")
    found = {scenario: _chosen(scene, scenario) for scenario in scene.scenarios}
    scenarios = scene.kept(lambda name: bool(found[name]), "a measured accuracy matrix")
    groups = [found[name] for name in scenarios]
    n_most = max(facts.n_tasks for group in groups for facts, _ in group)
    per_row = _per_row(scene.width, max(map(len, groups)), n_most)
    panel = (scene.width - _MARGIN) / per_row
    height = 0.1 + sum(_height(group, per_row, panel) for group in groups)
    scene.refuse_tall(height)
    with styled():
        figure = new_figure(scene.width, height)
        grid = panels(figure, [len(group) for group in groups], per_row)
        for scenario, group, axes in zip(scenarios, groups, grid, strict=True):
            for place, (one, (facts, role)) in enumerate(zip(axes, group, strict=True)):
                last = _draw(one, facts, role, panel)
                one.tick_params(labelleft=place % per_row == 0, labelbottom=place + per_row >= len(group))
                one.set_xlabel("task" if place + per_row >= len(group) else "")
            lead = f"{shown(scenario, 40)}\n" if len(scenarios) > 1 else ""
            for one in axes[::per_row]:
                one.set_ylabel(f"{lead}after task")
        scores = dict.fromkeys(str(scene.spec.score_of(name)) for name in scenarios)
        label = shown(next(iter(scores))) if len(scores) == 1 else "score"
        bar = figure.colorbar(
            last,
            ax=[one for axes in grid for one in axes],
            fraction=0.03,
            aspect=25,
            pad=0.02,
            shrink=max(1 / len(groups), 0.4),
        )
        bar.set_label(label)
        bar.outline.set_visible(False)
        say(figure, [*scene.notes(), *only(scenarios, scene.scenarios, "as nothing was measured")])
        return Drawing(finish(figure), [*_caption(groups, scenarios), *scene.notes()])


def _chosen(scene: Scene, scenario: str) -> list[tuple[MethodFacts, str]]:
    """Return the methods that are shown, with the part that each plays."""
    lead = leading(scene.summaries[scenario], scene.answer.scenario(scenario))
    roles = {"naive": "lower bound", "joint": "upper bound"} | ({} if lead is None else {lead[0]: lead[1]})
    order = dict.fromkeys([*([] if lead is None else [lead[0]]), "naive", "joint"])
    return [(facts, roles[facts.method]) for facts in scene.facts(scenario, list(order))]


def _per_row(width: float, most: int, n_tasks: int) -> int:
    """Return how many panels fit side by side."""
    panel = (width - _MARGIN) / most
    fits = panel / n_tasks >= _LEAST_CELL if n_tasks <= _MOST_NUMBERED else panel >= _LEAST_PANEL
    return most if fits else 1


def _height(group: Sequence[tuple[MethodFacts, str]], per_row: int, panel: float) -> float:
    """Return the inches that the panels of a scenario are high, with their titles and names."""
    facts = group[0][0]
    rows = len(_rows(facts)[1])
    own = max(0.19 * rows, 0.5) if rows <= _MOST_NUMBERED + 1 else min(panel, 2.2)
    return rows_of(len(group), per_row) * (own + 0.4) + label_inches(facts.task_names, panel)


def _rows(facts: MethodFacts) -> tuple[Any, list[str]]:
    """Return the rows of the mean of R that were measured, from before training on, and their names."""
    names = ["untrained", *facts.task_names]
    first = 0 if np.isfinite(facts.mean[0]).any() else 1
    return facts.mean[first:], names[first:]


def _draw(axes: Axes, facts: MethodFacts, role: str, panel: float) -> Any:
    values, names = _rows(facts)
    is_fine = facts.n_tasks > 2 * _MOST_NUMBERED
    lines: dict[str, Any] = {"edgecolors": "face" if is_fine else "white", "linewidth": 0.1 if is_fine else 0.3}
    mesh = axes.pcolormesh(np.ma.masked_invalid(values), cmap="cividis", norm=Normalize(0, 1), **lines)
    axes.set_ylim(len(names), 0)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    name_ticks(axes.xaxis, facts.task_names, panel)
    name_ticks(axes.yaxis, names, most=_MOST_NUMBERED + 1)
    where = f"{facts.split}, {counted(len(facts.keys), 'seed')}"
    axes.set_title(f"{shown(facts.method)}\n{role}{'; ' if panel > _LEAST_PANEL else chr(10)}{where}", fontsize=SMALL)
    if facts.n_tasks <= _MOST_NUMBERED:
        size = min(SMALL, 0.85 * panel / facts.n_tasks * 72 / 1.6)  # '.98' is 1.6 times as wide as its size
        for (row, column), value in np.ndenumerate(values):
            if np.isfinite(value):
                ink = "white" if value < 0.5 else "black"
                axes.text(column + 0.5, row + 0.5, cell_text(value), ha="center", va="center", color=ink, fontsize=size)
    return mesh


def cell_text(value: float) -> str:
    """Return a score in a cell: two decimals without the zero before the point."""
    return f"{value:.2f}".removeprefix("0") if value < 0.995 else "1.0"


def _caption(groups: Sequence[Sequence[tuple[MethodFacts, str]]], scenarios: Sequence[str]) -> list[str]:
    parts = [
        f"{visible(scenario)}: "
        + ", ".join(
            f"{visible(facts.method)} ({role}; {facts.split}, {counted(len(facts.keys), 'seed')})"
            for facts, role in group
        )
        for scenario, group in zip(scenarios, groups, strict=True)
    ]
    return [
        "Score on each task (column) after training on each task (row), mean over seeds; white: not measured.",
        "; ".join(parts) + ".",
    ]
