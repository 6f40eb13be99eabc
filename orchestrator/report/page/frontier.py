"""Figures of a trade-off: the objective against each limit, and learning against forgetting."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.core.scores import Score
from orchestrator.core.text import counted
from orchestrator.report.numbers import number, value_text
from orchestrator.report.page.facts import MethodFacts, SuggestionFacts, Tables, metric_of, or_none, over_seeds
from orchestrator.report.page.figure import Cell, Colours, Column, Figure, Slider, real
from orchestrator.search.answers.certainty import Spread
from orchestrator.search.answers.full_answer import ScenarioAnswer
from orchestrator.search.answers.what_if import Step
from orchestrator.spec.sweep_spec import SweepSpec
from search_spaces import Choices, Constraint, Distribution


def frontier_figure(
    name: str,
    spec: SweepSpec,
    answer: ScenarioAnswer,
    constraint: Constraint,
    found: Sequence[SuggestionFacts],
    colours: Colours,
) -> Figure | None:
    """Return the objective against a limited metric, with the limit as a line that can be moved; None without data.

    Args:
        name: of the figure.
        spec: the sweep.
        answer: for the scenario; its curve says what is best at each limit.
        constraint: the limit.
        found: the suggestions.
        colours: of the methods.
    """
    steps = answer.what_if.get(constraint.name, [])
    best = {(step.method, step.suggestion) for step in steps}
    rows: list[dict[str, Cell]] = []
    for one in found:
        value = one.suggestion.mean("validation", constraint.metric)
        if math.isfinite(value) and math.isfinite(one.objective):
            rows.append(
                {
                    "method": one.method,
                    "suggestion": one.suggestion.number,
                    "n_seeds": one.n_seeds,
                    "value": value,
                    "objective": one.objective,
                    "is_best": "best at its limit" if (one.method, one.suggestion.number) in best else "",
                }
            )
    if not rows:
        return None
    ends = _ends(constraint, [float(row["value"] or 0.0) for row in rows])
    columns = (
        Column("method", "method"),
        Column("suggestion", "suggestion"),
        Column("n_seeds", "seeds"),
        Column("value", constraint.metric, metric_of(constraint.metric)),
        Column("objective", spec.objective, metric_of(spec.objective)),
        Column("is_best", "frontier"),
    )
    return Figure(
        name,
        f"{spec.objective} against {constraint.metric}",
        f"Each point is a suggestion, its mean over the validation seeds; the line is the limit, {constraint.name}. "
        "Move it to see what would be best at another limit if all other limits stay, by the recorded trials.",
        columns,
        rows,
        [("", _frontier_chart(spec, constraint, ends, colours.encodings(rows)))],
        _limit_slider(spec, constraint, steps, ends),
    )


def _ends(constraint: Constraint, values: Sequence[float]) -> tuple[float, float]:
    """Return the ends of the axis of a limited metric: all values and the limit."""
    low, high = min(*values, constraint.limit), max(*values, constraint.limit)
    return (low, high) if low < high else (low - abs(low) / 2 - 0.01, high + abs(high) / 2 + 0.01)


def _frontier_chart(
    spec: SweepSpec, constraint: Constraint, ends: tuple[float, float], kinds: dict[str, Any]
) -> dict[str, Any]:
    scale = {"domain": list(ends), "nice": True, "zero": False}
    form = {"axis": {"format": "~s"}} if metric_of(constraint.metric).endswith("_bytes") else {}
    x = {"type": "quantitative", "title": constraint.metric, "scale": scale, **form}
    points = {
        "x": {**x, "field": "value"},
        "y": real("objective", spec.objective),
        **kinds,
        "opacity": {"condition": {"test": f"datum.value {constraint.operator} limit", "value": 0.9}, "value": 0.2},
        "size": {"condition": {"test": "datum.is_best != ''", "value": 110}, "value": 40},
    }
    rule = {
        "data": {"values": [{"limit": constraint.limit}]},
        "transform": [{"calculate": "limit", "as": "at"}],
        "mark": {"type": "rule", "strokeDash": [6, 4], "strokeWidth": 2, "color": "#888888", "aria": False},
        "encoding": {"x": {**x, "field": "at"}},
    }
    return {
        "height": 300,
        "params": [{"name": "limit", "value": constraint.limit}],
        "layer": [{"mark": {"type": "point", "filled": True, "tooltip": True}, "encoding": points}, rule],
    }


def _limit_slider(spec: SweepSpec, constraint: Constraint, steps: Sequence[Step], ends: tuple[float, float]) -> Slider:
    low, high = ends
    is_falling = constraint.operator == ">="
    nothing = high if is_falling else low
    says = [(nothing, "Nothing that was tried meets this limit and the others.")]
    says += [(step.limit, _best_at(spec, step)) for step in steps]
    label = f"{constraint.metric} {constraint.operator}"
    return Slider("limit", label, low, high, constraint.limit, 0, tuple(says), is_falling)


def _best_at(spec: SweepSpec, step: Step) -> str:
    objective = number(metric_of(spec.objective), step.objective)
    return (
        f"Best: {step.method}, {spec.objective} {objective} on validation (suggestion {step.suggestion}, "
        f"{counted(step.n_seeds, 'seed')})."
    )


def balance_figure(
    name: str, score: Score, shown: Sequence[MethodFacts], tables: Tables, colours: Colours
) -> Figure | None:
    """Return what each method learned of new tasks against what it kept of old ones; None for streams of one task.

    Args:
        name: of the figure.
        score: what R holds.
        shown: the methods.
        tables: of the run.
        colours: of the methods.
    """
    found = (_balance_row(facts, tables) for facts in shown)
    rows = [row for row in found if row["learning"] is not None and row["kept"] is not None]
    if not rows:
        return None
    columns = (
        Column("method", "method"),
        Column("split", "split"),
        Column("n_seeds", "seeds"),
        Column("learning", "learning average", "average"),
        Column("kept", "backward transfer", "backward_transfer"),
    )
    return Figure(
        name,
        "Learning against forgetting",
        "To the right: learns new tasks well (plasticity). Upwards: keeps old ones (stability); 0 is nothing lost. "
        "Bars are one standard deviation over the seeds.",
        columns,
        rows,
        [("", _balance_chart(f"mean {score} right after learning (plasticity)", colours.encodings(rows)))],
    )


def _balance_row(facts: MethodFacts, tables: Tables) -> dict[str, Cell]:
    row: dict[str, Cell] = {"method": facts.method, "split": facts.split, "n_seeds": len(facts.keys)}
    for name, metric in (("learning", "learning_average"), ("kept", "backward_transfer")):
        over = Spread(tuple(over_seeds(tables, facts.keys, metric)))
        half = 0.0 if math.isnan(over.std) else over.std
        row[name] = or_none(over.mean)
        row[f"{name}_low"], row[f"{name}_high"] = or_none(over.mean - half), or_none(over.mean + half)
    return row


def _balance_chart(title: str, kinds: dict[str, Any]) -> dict[str, Any]:
    x, y, colour = real("learning", title), real("kept", "backward transfer"), {"color": kinds["color"]}
    bar = {"type": "rule", "opacity": 0.5, "aria": False}
    across = {"x": {**x, "field": "learning_low"}, "x2": {"field": "learning_high"}, "y": y, **colour}
    upright = {"x": x, "y": {**y, "field": "kept_low"}, "y2": {"field": "kept_high"}, **colour}
    points = {"type": "point", "filled": True, "size": 90, "tooltip": True}
    return {
        "height": 280,
        "layer": [
            {"mark": bar, "encoding": across},
            {"mark": bar, "encoding": upright},
            {"mark": points, "encoding": {"x": x, "y": y, **kinds}},
        ],
    }


def edge_warnings(facts: MethodFacts) -> list[str]:
    """Return a sentence for each hyper-parameter of a method whose chosen value lies at the end of its range."""
    found = []
    for name, one in facts.summary.cell.space.distributions.items():
        value = facts.suggestion.hyperparameters.get(name)
        if isinstance(one, Choices) or not isinstance(value, int | float) or one.low >= one.high:
            continue
        place = _place(float(value), float(one.low), float(one.high), one.log)
        end = "low" if place < _EDGE else "high" if place > 1 - _EDGE else ""
        if end:
            bound = value_text(one.low if end == "low" else one.high)
            found.append(
                f"{facts.method}: {name} {value_text(value)} lies at the {end} end of its range ({bound}); widen it "
                f"under spaces.{facts.method}"
            )
    return found


_EDGE = 0.03
"""Share of a range, on its own scale, that counts as its end."""


def _place(value: float, low: float, high: float, log: bool) -> float:
    """Return where a value lies in its range, 0 to 1, on the range's own scale."""
    if log:
        value, low, high = math.log(value), math.log(low), math.log(high)
    return min(max((value - low) / (high - low), 0.0), 1.0)


def places_of(one: SuggestionFacts, distributions: Mapping[str, Distribution]) -> dict[str, float]:
    """Return where each value of a suggestion lies in its range, 0 to 1; choices are spread evenly."""
    found = {}
    for name, space in distributions.items():
        value = one.suggestion.hyperparameters.get(name)
        if value is None:
            continue
        if isinstance(space, Choices):
            options = list(space.choices)
            found[name] = options.index(value) / max(len(options) - 1, 1) if value in options else 0.0
        elif isinstance(value, int | float):
            found[name] = _place(float(value), float(space.low), float(space.high), space.log)
    return found
