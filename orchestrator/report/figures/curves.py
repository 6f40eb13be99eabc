"""The score of each task over time, a panel a method."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from orchestrator.core.text import counted
from orchestrator.report.figures.drawing import (
    MARKERS,
    SMALL,
    Drawing,
    finish,
    label_inches,
    legend_columns,
    name_ticks,
    new_figure,
    panels,
    rows_of,
    say,
    shown,
    styled,
)
from orchestrator.report.figures.scene import Scene, only
from orchestrator.report.page.facts import MethodFacts, Tables

_MOST_NAMED = 8
"""Tasks up to which each has a marker and a name."""

_EVALUATIONS = "evaluations"
_X_LABELS = ("after task", "while learning task")
"""Of a panel with the ends of tasks alone, and of one with all evaluations."""

_LIGHTEST = 0.85
"""Of cividis; what is lighter is hard to see on white."""


def curves(scene: Scene) -> Drawing:
    """Return the mean score of each task after each task, with a band of one standard deviation over seeds."""
    scene.refuse_metric("curves")
    found = {scenario: scene.facts(scenario) for scenario in scene.scenarios}
    scenarios = scene.kept(lambda name: bool(found[name]), "a measured accuracy matrix")
    groups = [found[name] for name in scenarios]
    per_row = min(max(map(len, groups)), (5 if max(map(len, groups)) == 5 else 4) if scene.is_wide else 2)
    n_rows = sum(rows_of(len(group), per_row) for group in groups)
    panel = (scene.width - 0.6) / per_row
    names = sum(label_inches(group[0].task_names, panel, _MOST_NAMED) for group in groups)
    height = n_rows * (1.3 if n_rows <= 5 else 0.9) + names + 0.4
    scene.refuse_tall(height)
    most = max((facts for group in groups for facts in group), key=lambda facts: facts.n_tasks)
    with styled():
        figure = new_figure(scene.width, height)
        grid = panels(figure, [len(group) for group in groups], per_row)
        for scenario, group, axes in zip(scenarios, groups, grid, strict=True):
            lead = f"{shown(scenario, 40 if len(group) > per_row else 22)}\n" if len(scenarios) > 1 else ""
            for place, (one, facts) in enumerate(zip(axes, group, strict=True)):
                if not _draw_evaluations(one, facts, scene.tables, panel):
                    _draw(one, facts, panel)
                is_last = place + per_row >= len(group)
                one.tick_params(labelleft=place % per_row == 0, labelbottom=is_last)
                one.set_xlabel(_X_LABELS[bool(one.get_gid())] if is_last else "")
                if place % per_row == 0:
                    one.set_ylabel(f"{lead}{shown(scene.spec.score_of(scenario))}")
            low, high = _bounds(axes)
            for one in axes:
                one.set_ylim(low, high)
        flat = [one for axes in grid for one in axes]
        _name_tasks(figure, flat, most, {facts.task_names for group in groups for facts in group})
        say(figure, [*scene.notes(), *only(scenarios, scene.scenarios, "as nothing was measured")])
        return Drawing(finish(figure), [*_caption(groups, any(one.get_gid() for one in flat)), *scene.notes()])


def deviation(facts: MethodFacts) -> NDArray[np.float64]:
    """Return the sample standard deviation of R over seeds (T + 1, T); NaN where fewer than two measured it."""
    matrices = facts.matrices
    n = np.isfinite(matrices).sum(axis=0)
    squares = np.nansum((matrices - facts.mean) ** 2, axis=0)
    found: NDArray[np.float64] = np.where(n > 1, np.sqrt(squares / np.maximum(n - 1, 1)), np.nan)
    return found


def _draw(axes: Axes, facts: MethodFacts, panel: float) -> None:
    mean, band = facts.mean[1:], deviation(facts)[1:]
    n_tasks, at = facts.n_tasks, np.arange(facts.n_tasks) + 0.5
    is_named = n_tasks <= _MOST_NAMED
    for task in range(n_tasks):
        ink, values = _colour(task, n_tasks), mean[:, task]
        learned = at >= at[task]
        if task and np.isfinite(values[:task]).any():  # before it was learned
            axes.plot(at[: task + 1], values[: task + 1], color=ink, linestyle=":", linewidth=0.6)
        axes.plot(
            at[learned],
            values[learned],
            color=ink,
            marker=MARKERS[task % len(MARKERS)] if is_named or n_tasks == 1 else "",
            linewidth=1.0 if is_named else 0.6,
        )
        low, high = values - band[:, task], values + band[:, task]
        axes.fill_between(at[learned], low[learned], high[learned], color=ink, alpha=0.15, linewidth=0)
    axes.set_xlim(0, n_tasks)
    name_ticks(axes.xaxis, facts.task_names, panel, _MOST_NAMED)
    axes.yaxis.set_major_locator(MaxNLocator(4))
    _entitle(axes, facts)


def _draw_evaluations(axes: Axes, facts: MethodFacts, tables: Tables, panel: float) -> bool:
    """Draw the score of each task in all evaluations, within tasks too; return whether there are any there."""
    found = tables.evaluations_of(facts.keys)
    if found.empty or not found["place"].any():
        return False
    places = found.groupby(["during_task", "place", "task"])
    means = places.agg(share=("share", "mean"), mean=("score", "mean"), band=("score", "std")).reset_index()
    means["x"] = means["during_task"] + means["share"]
    for task in range(facts.n_tasks):
        own = means[means["task"] == task]
        x, y, band = (own[name].to_numpy(dtype=float) for name in ("x", "mean", "band"))
        ink = _colour(task, facts.n_tasks)
        axes.plot(x, y, color=ink, linewidth=0.8)
        axes.fill_between(x, y - band, y + band, color=ink, alpha=0.15, linewidth=0)
    for end in range(1, facts.n_tasks):
        axes.axvline(end, color="0.85", linewidth=0.5, zorder=0)
    axes.set_xlim(0, facts.n_tasks)
    name_ticks(axes.xaxis, facts.task_names, panel, _MOST_NAMED)
    axes.yaxis.set_major_locator(MaxNLocator(4))
    _entitle(axes, facts)
    axes.set_gid(_EVALUATIONS)
    return True


def _entitle(axes: Axes, facts: MethodFacts) -> None:
    axes.set_title(f"{shown(facts.method)}\n{facts.split}, {counted(len(facts.keys), 'seed')}", fontsize=SMALL)


def _colour(task: int, n_tasks: int) -> str:
    """Return the colour of a task: early ones are dark."""
    return to_hex(matplotlib.colormaps["cividis"](_LIGHTEST * task / max(n_tasks - 1, 1)))


def _bounds(axes: Sequence[Axes]) -> tuple[float, float]:
    """Return the ends of the axis of scores: what is drawn, within 0 and 1."""
    low, high = min(one.dataLim.y0 for one in axes), max(one.dataLim.y1 for one in axes)
    room = 0.06 * max(high - low, 0.1)
    return max(low, 0.0) - room, min(high, 1.0) + room


def _name_tasks(figure: Figure, axes: Sequence[Axes], most: MethodFacts, names: set[tuple[str, ...]]) -> None:
    """Say which line is which task: with a name each, or a scale if there are many."""
    n_tasks = most.n_tasks
    if n_tasks <= _MOST_NAMED:
        labels = most.task_names if len(names) == 1 else [str(task) for task in range(n_tasks)]
        handles = [
            Line2D([], [], color=_colour(task, n_tasks), marker=MARKERS[task % len(MARKERS)]) for task in range(n_tasks)
        ]
        shorter = [shown(name, 12) for name in labels]
        columns = legend_columns(shorter, figure.get_figwidth())
        figure.legend(handles, shorter, title="task", loc="outside upper center", ncols=columns)
        return
    colours = [_colour(task, n_tasks) for task in range(n_tasks)]
    scale = ScalarMappable(Normalize(-0.5, n_tasks - 0.5), matplotlib.colors.ListedColormap(colours))
    bar = figure.colorbar(scale, ax=list(axes), fraction=0.03, aspect=30, pad=0.02, label="task (index)")
    bar.locator = MaxNLocator(5, integer=True)
    bar.outline.set_visible(False)
    bar.update_ticks()


def _caption(groups: Sequence[Sequence[MethodFacts]], has_evaluations: bool) -> list[str]:
    has_band = any(len(facts.keys) > 1 for group in groups for facts in group)
    band = "; bands are one standard deviation over seeds" if has_band else "; one seed, so no bands"
    is_dotted = any(
        np.isfinite(facts.mean[after + 1, after + 1 :]).any()
        for g in groups
        for facts in g
        for after in range(facts.n_tasks)
    )
    dotted = "; dotted before it was learned" if is_dotted else ""
    if has_evaluations:
        where = "the ends of tasks are upright lines, methods that start each task anew are drawn there alone"
        return [f"Score of each task while each task is trained, mean over seeds{band}; {where}."]
    return [f"Score of each task after training on each task, mean over seeds{band}{dotted}."]
