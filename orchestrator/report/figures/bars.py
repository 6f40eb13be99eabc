"""The objective and the limited metrics of each method on the test split, with intervals and limits."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.patches import Patch

from orchestrator.core.errors import UsageError
from orchestrator.core.metrics import quantity
from orchestrator.core.text import visible
from orchestrator.report.figures.drawing import (
    SMALL,
    Drawing,
    colour,
    finish,
    limit_text,
    measure,
    new_figure,
    panels,
    rows_of,
    say,
    shown,
    styled,
)
from orchestrator.report.figures.scene import Scene, only
from orchestrator.report.numbers import UNKNOWN
from orchestrator.search.answers.full_answer import MethodAnswer, ScenarioAnswer

_WHITE = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}


def bars(scene: Scene) -> Drawing:
    """Return a bar a method on the test split: a panel for the objective and for each limited metric."""
    metrics = asked_metrics(scene)
    answers = {name: scene.answer.scenario(name) for name in scene.scenarios}
    scenarios = scene.kept(
        lambda name: any(method.test is not None for method in answers[name].methods), "methods measured on test"
    )
    per_row = min(len(metrics), 3 if scene.is_wide else 1)
    heights = [
        (0.14 if len(answers[name].methods) <= 12 else 0.12) * len(answers[name].methods) + 0.62
        for name in scenarios
        for _ in range(rows_of(len(metrics), per_row))
    ]
    height = sum(heights) + 0.3
    scene.refuse_tall(height)
    with styled():
        figure = new_figure(scene.width, height)
        grid = panels(figure, [len(metrics)] * len(scenarios), per_row, height_ratios=heights)
        for scenario, axes in zip(scenarios, grid, strict=True):
            methods = answers[scenario].methods
            for place, (one, metric) in enumerate(zip(axes, metrics, strict=True)):
                _draw(one, scene, methods, metric, is_first=place % per_row == 0)
                one.set_yticks(range(len(methods)), [shown(m.method) for m in methods] if place % per_row == 0 else [])
                one.set_ylim(len(methods) - 0.4, -0.6)
            axes[0].set_title(_title(answers[scenario]), loc="left", fontsize=SMALL)
        hatched = Patch(facecolor="white", edgecolor="black", hatch="//////", linewidth=0.5)
        if any(violates(method) for name in scenarios for method in answers[name].methods):
            figure.legend([hatched], ["violates a limit on test"], loc="outside lower right")
        say(figure, [*scene.notes(), *only(scenarios, scene.scenarios, "as nothing was measured on test")])
        return Drawing(finish(figure), [*_caption(scene), *scene.notes()])


def asked_metrics(scene: Scene) -> list[str]:
    """Return the objective and the limited metrics, or the one that was asked for.

    Raises:
        UsageError: if it is none of them.
    """
    names = [scene.spec.objective, *(constraint.metric for constraint in scene.spec.constraints)]
    known = list({quantity(name): name for name in reversed(names)}.values())[::-1]
    if scene.metric is None:
        return known
    found = [name for name in known if scene.metric in (name, str(quantity(name)))]
    if not found:
        listed = ", ".join(map(visible, known))
        raise UsageError(
            f"--metric: expected the objective or a limited metric, got '{scene.metric}'; choose from: {listed}"
        )
    return found


def violates(method: MethodAnswer) -> bool:
    """Return whether a method violates a limit on test."""
    return method.test is not None and not all(check.is_met for check in method.test.limits)


def _draw(axes: Axes, scene: Scene, methods: Sequence[MethodAnswer], metric: str, is_first: bool) -> None:
    for row, method in enumerate(methods):
        found = method.test.numbers[metric] if method.test is not None else None
        if found is None or math.isnan(found.mean):
            word = ("not on test" if found is None else "a trial failed") if is_first else UNKNOWN
            axes.annotate(
                word,
                (0, row),
                (4, 0),
                textcoords="offset points",
                va="center",
                fontsize=SMALL,
                color="#555555",
                bbox=_WHITE,
                zorder=3,
            )
            continue
        ink = colour(scene.place(method.method))
        is_hatched = violates(method)
        axes.barh(
            row,
            found.mean,
            height=0.7,
            color="white" if is_hatched else ink,
            edgecolor=ink,
            hatch="//////" if is_hatched else "",
            linewidth=0.8,
            gid=f"bar-{row}",
        )
        if math.isfinite(found.low):
            error = [[found.mean - found.low], [found.high - found.mean]]
            axes.errorbar(found.mean, row, xerr=error, color="black", linewidth=0.8, capsize=1.8, capthick=0.8)
    limits = [one for one in scene.spec.constraints if quantity(one.metric) == quantity(metric)]
    for limit in limits:
        axes.axvline(limit.limit, color="black", linestyle="--", linewidth=0.9, gid="limit")
    axes.axvline(0, color="black", linewidth=0.6)
    measure(axes.xaxis, metric, 3)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("\n".join([shown(metric, 30), *(f"limit {limit_text(limit)}" for limit in limits)]))


def _title(answer: ScenarioAnswer) -> str:
    end = f"recommended: {shown(answer.recommended)}" if answer.recommended else answer.status
    return f"{shown(answer.scenario, 40)}; {end}"


def _caption(scene: Scene) -> list[str]:
    n_seeds = sorted(
        {
            method.test.n_seeds
            for name in scene.scenarios
            for method in scene.answer.scenario(name).methods
            if method.test is not None
        }
    )
    seeds = f"{n_seeds[0]}" if len(n_seeds) == 1 else f"{n_seeds[0]} to {n_seeds[-1]}"
    interval = (
        "with 95 % intervals of the mean (Student's t)"
        if n_seeds[-1] > 1
        else "without intervals, which one seed lacks"
    )
    limits = " Dashed: limits; hatched methods violate one." if scene.spec.constraints else ""
    return [f"Means on the test split over {seeds} seed{'s' if n_seeds[-1] > 1 else ''} {interval}.{limits}"]
