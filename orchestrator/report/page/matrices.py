"""Figures from R: the accuracy matrix beside its bounds, and the score of each task over time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from orchestrator.core.scores import Score
from orchestrator.report.numbers import number
from orchestrator.report.page.facts import MethodFacts, Tables, or_none
from orchestrator.report.page.figure import COLOURS, Cell, Column, Figure, Slider

_SCORE = "average_accuracy"
"""The form of a score is that of this metric: three decimals."""

_MOST_EVALUATIONS = 200
"""Evaluations of a trial that are drawn, about."""


def matrix_figure(name: str, score: Score, shown: Sequence[MethodFacts]) -> Figure:
    """Return R of some methods side by side, mean over seeds, with a slider over the tasks learned so far.

    Args:
        name: of the figure.
        score: what R holds.
        shown: the methods.
    """
    n_tasks = max(facts.n_tasks for facts in shown)
    rows = [row for facts in shown for row in _matrix_rows(facts)]
    longest = max(shown, key=lambda facts: facts.n_tasks)
    slider = Slider(
        "after",
        "tasks learned",
        0,
        n_tasks - 1,
        n_tasks - 1,
        1,
        tuple((after, _drops(shown, longest.task_names, after)) for after in range(n_tasks)),
    )
    columns = (
        Column("method", "method"),
        Column("after_task", "after"),
        Column("task", "task"),
        Column("score", f"mean {score}", _SCORE),
        Column("drop", "drop since its best", _SCORE),
        Column("n_seeds", "seeds"),
    )
    return Figure(
        name,
        f"Accuracy matrix: {score} of each task after each task",
        "A column is a moment in training, a row is a task, a number the mean over the seeds; what was not measured is "
        "blank. The slider goes back in time and says which task has lost most by then.",
        columns,
        rows,
        [(_titled(facts), _matrix_chart(facts)) for facts in shown],
        slider,
    )


def _titled(facts: MethodFacts) -> str:
    kind = " (upper bound)" if facts.summary.is_reference else ""
    return f"{facts.method}{kind}, {facts.split}"


def _matrix_rows(facts: MethodFacts) -> list[dict[str, Cell]]:
    mean = facts.mean
    n_seeds = np.isfinite(facts.matrices).sum(axis=0)
    return [
        {
            "method": facts.method,
            "after": after,
            "after_task": "untrained" if after < 0 else facts.task_names[after],
            "task": facts.task_names[task],
            "score": float(mean[after + 1, task]),
            "drop": or_none(_drop(facts, task, after)),
            "n_seeds": int(n_seeds[after + 1, task]),
        }
        for after in range(-1, facts.n_tasks)
        for task in range(facts.n_tasks)
        if n_seeds[after + 1, task]
    ]


def _drop(facts: MethodFacts, task: int, after: int) -> float:
    """Return how far the mean of a task lies below its best earlier one; NaN before it was learned again."""
    if after <= task:
        return math.nan
    mean = facts.mean[1:, task]
    earlier = mean[task:after]
    return float(np.nanmax(earlier) - mean[after]) if np.isfinite(earlier).any() else math.nan


def _drops(shown: Sequence[MethodFacts], names: Sequence[str], after: int) -> str:
    """Return in words which task lost most after a task, for each method."""
    parts = []
    for facts in shown:
        drops = {task: _drop(facts, task, after) for task in range(min(after, facts.n_tasks))}
        known = {task: drop for task, drop in drops.items() if not math.isnan(drop)}
        if known:
            worst = max(known, key=lambda task: known[task])
            lost = f"{number(_SCORE, known[worst])} on {facts.task_names[worst]}" if known[worst] > 0 else "nothing"
            parts.append(f"{facts.method} lost {lost}")
    lead = f"After {names[after]}"
    return f"{lead}: {'; '.join(parts)}." if parts else f"{lead}: nothing can be forgotten yet."


def _matrix_chart(facts: MethodFacts) -> dict[str, Any]:
    names = list(facts.task_names)
    afters = ["untrained", *names] if np.isfinite(facts.matrices[:, 0]).any() else names
    shown = {"condition": {"test": "datum.after <= after", "value": 1}, "value": 0.08}
    base = {
        "x": {"field": "after_task", "type": "nominal", "sort": afters, "title": "after", "scale": {"domain": afters}},
        "y": {"field": "task", "type": "nominal", "sort": names, "title": "task", "scale": {"domain": names}},
        "opacity": shown,
    }
    scale = {"domain": [0, 1], "scheme": "cividis"}
    layers: list[dict[str, Any]] = [
        {
            "mark": {"type": "rect", "tooltip": True},
            "encoding": {**base, "color": {"field": "score", "type": "quantitative", "scale": scale, "legend": None}},
        }
    ]
    if facts.n_tasks <= 10:
        ink = {"condition": {"test": "datum.score > 0.6", "value": "#111111"}, "value": "#ffffff"}
        text = {"field": "score", "type": "quantitative", "format": ".2f"}
        layers.append(
            {"mark": {"type": "text", "fontSize": 10, "aria": False}, "encoding": {**base, "text": text, "color": ink}}
        )
    return {
        "transform": [{"filter": {"field": "method", "equal": facts.method}}],
        "params": [{"name": "after", "value": facts.n_tasks - 1}],
        "height": facts.n_tasks * (26 if facts.n_tasks <= 12 else max(320 // facts.n_tasks, 4)),
        "layer": layers,
    }


def curves_figure(name: str, score: Score, shown: Sequence[MethodFacts]) -> Figure:
    """Return the score of each task over time, mean and band over the seeds, a chart a method.

    Args:
        name: of the figure.
        score: what R holds.
        shown: the methods.
    """
    rows = [row for facts in shown for row in _curve_rows(facts)]
    lowest = min((float(row["low"] or 0.0) for row in rows), default=0.0)
    columns = (
        Column("method", "method"),
        Column("task", "task"),
        Column("after_task", "after"),
        Column("mean", f"mean {score}", _SCORE),
        Column("low", "least", _SCORE),
        Column("high", "most", _SCORE),
    )
    return Figure(
        name,
        "How each task is forgotten",
        "A line is a task from the moment it was learned on: its mean over the seeds, and the band from the worst "
        "seed to the best.",
        columns,
        rows,
        [(_titled(facts), _curves_chart(facts, str(score), lowest)) for facts in shown],
    )


def _curve_rows(facts: MethodFacts) -> list[dict[str, Cell]]:
    low, high = np.fmin.reduce(facts.matrices), np.fmax.reduce(facts.matrices)  # without NaN where they can
    return [
        {
            "method": facts.method,
            "task": facts.task_names[task],
            "after": after,
            "after_task": facts.task_names[after],
            "mean": float(facts.mean[after + 1, task]),
            "low": float(low[after + 1, task]),
            "high": float(high[after + 1, task]),
        }
        for task in range(facts.n_tasks)
        for after in range(task, facts.n_tasks)
        if math.isfinite(low[after + 1, task])
    ]


def _task_colour(facts: MethodFacts) -> dict[str, Any]:
    """Return the colours of tasks, with a legend if they are few."""
    names = list(facts.task_names)
    few = facts.n_tasks <= len(COLOURS)
    scale = {"domain": names, "range": list(COLOURS[: facts.n_tasks])} if few else {"scheme": "viridis"}
    kind = {"field": "task", "type": "nominal", "sort": names, "scale": scale, "title": "task"}
    return {**kind, "legend": {"orient": "bottom", "columns": 4} if few else None}


def _banded(x: dict[str, Any], y: dict[str, Any], colour: dict[str, Any], has_points: bool) -> list[dict[str, Any]]:
    """Return a line of means and a band from the least to the most, a colour a task."""
    return [
        {
            "mark": {"type": "area", "opacity": 0.18, "aria": False},
            "encoding": {"x": x, "y": {**y, "field": "low"}, "y2": {"field": "high"}, "color": colour},
        },
        {
            "mark": {"type": "line", "tooltip": True, **({"point": True} if has_points else {})},
            "encoding": {"x": x, "y": {**y, "field": "mean"}, "color": colour},
        },
    ]


def _curves_chart(facts: MethodFacts, score: str, lowest: float) -> dict[str, Any]:
    names, colour = list(facts.task_names), _task_colour(facts)
    x = {"field": "after_task", "type": "ordinal", "sort": names, "title": "after", "scale": {"domain": names}}
    y = {"type": "quantitative", "title": score, "scale": {"domain": [lowest, 1], "zero": False, "nice": True}}
    return {
        "transform": [{"filter": {"field": "method", "equal": facts.method}}],
        "height": 220,
        "layer": _banded(x, y, colour, has_points=True),
    }


def over_time_figure(name: str, score: Score, shown: Sequence[MethodFacts], tables: Tables) -> Figure | None:
    """Return the score of each task in each evaluation, within tasks too; None if no trial was evaluated there.

    Args:
        name: of the figure.
        score: what R holds.
        shown: the methods.
        tables: of the run.
    """
    own = {facts.method: _over_time_rows(facts, tables) for facts in shown}
    rows = [row for found in own.values() for row in found]
    if not rows:
        return None
    lowest = min(float(row["low"] or 0.0) for row in rows)
    columns = (
        Column("method", "method"),
        Column("task", "task"),
        Column("during", "while learning"),
        Column("n_given", "examples given", "n_parameters"),
        Column("mean", f"mean {score}", _SCORE),
        Column("low", "least", _SCORE),
        Column("high", "most", _SCORE),
    )
    return Figure(
        name,
        "How scores went while training",
        "A line is a task, in every evaluation since training on it began: its mean over the seeds, and the band from "
        "the worst seed to the best. Upright lines are the ends of tasks. anytime_average is the mean of all "
        "evaluations, and worst_case_average looks at the lowest of each task after its end.",
        columns,
        rows,
        [(_titled(facts), _over_time_chart(facts, str(score), lowest)) for facts in shown if own[facts.method]],
    )


def _over_time_rows(facts: MethodFacts, tables: Tables) -> list[dict[str, Cell]]:
    """Return a row for each task in each evaluation; of many, each n-th within a task and its last."""
    found = tables.evaluations_of(facts.keys).dropna(subset=["score"])
    if found.empty:
        return []
    last = found.groupby("during_task")["place"].max()
    step = max(math.ceil(int((last + 1).sum()) / _MOST_EVALUATIONS), 1)
    found = found[(found["place"] % step == 0) | (found["place"] == found["during_task"].map(last))]
    means = found.groupby(["during_task", "place", "task"]).agg(
        n_given=("n_given", "mean"), mean=("score", "mean"), low=("score", "min"), high=("score", "max")
    )
    return [
        {
            "method": facts.method,
            "task": facts.task_names[row["task"]],
            "during": facts.task_names[row["during_task"]],
            "ends": int(row["place"] == last[row["during_task"]]),
            "n_given": round(row["n_given"]),
            "mean": row["mean"],
            "low": row["low"],
            "high": row["high"],
        }
        for row in means.reset_index().to_dict("records")
    ]


def _over_time_chart(facts: MethodFacts, score: str, lowest: float) -> dict[str, Any]:
    colour = _task_colour(facts)
    x = {"field": "n_given", "type": "quantitative", "title": "examples given"}
    y = {"type": "quantitative", "title": score, "scale": {"domain": [lowest, 1], "zero": False, "nice": True}}
    return {
        "transform": [{"filter": {"field": "method", "equal": facts.method}}],
        "height": 220,
        "layer": [
            {
                "transform": [{"filter": "datum.ends === 1 && datum.task === datum.during"}],
                "mark": {"type": "rule", "opacity": 0.25, "aria": False},
                "encoding": {"x": x},
            },
            *_banded(x, y, colour, has_points=False),
        ],
    }
