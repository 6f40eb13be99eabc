"""Figures of the search: what it tried, how hyper-parameters matter, and what it cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.core.text import counted
from orchestrator.report.numbers import value_text
from orchestrator.report.page.facts import SuggestionFacts, Tables, metric_of, or_none, thinned
from orchestrator.report.page.figure import Cell, Colours, Column, Figure, real
from orchestrator.report.page.frontier import places_of
from orchestrator.search.answers.importance import importances
from orchestrator.search.cell_search import CellSearch
from orchestrator.spec.sweep_spec import SweepSpec
from search_spaces import Distribution

_MOST_LINES = 120
"""Suggestions of a method in its parallel coordinates."""


def search_figure(
    name: str, spec: SweepSpec, found: Sequence[SuggestionFacts], n_left_out: int, colours: Colours
) -> Figure | None:
    """Return objective and violation over the suggestions, with what was raced out and stopped; None without any.

    Args:
        name: of the figure.
        spec: the sweep.
        found: the suggestions that are shown.
        n_left_out: how many are not, so that the page stays small.
        colours: of the methods.
    """
    if not found:
        return None
    rows: list[dict[str, Cell]] = [
        {
            "method": one.method,
            "suggestion": one.suggestion.number,
            "n_seeds": one.n_seeds,
            "state": one.state,
            "objective": or_none(one.objective),
            "violation": or_none(one.violation),
            "hyperparameters": ", ".join(f"{k} {value_text(v)}" for k, v in one.suggestion.hyperparameters.items()),
        }
        for one in found
    ]
    columns = (
        Column("method", "method"),
        Column("suggestion", "suggestion"),
        Column("n_seeds", "seeds"),
        Column("state", "state"),
        Column("objective", spec.objective, metric_of(spec.objective)),
        Column("violation", "violation, in tolerances", "average"),
        Column("hyperparameters", "hyper-parameters"),
    )
    left_out = f" {counted(n_left_out, 'suggestion')} more are left out: those farthest from the limits." * (
        n_left_out > 0
    )
    kinds = colours.encodings(rows)
    charts = [("objective", _over_suggestions("objective", spec.objective, kinds))]
    if spec.constraints:
        charts.append(("violation", _over_suggestions("violation", "violation (tolerances)", kinds, is_root=True)))
    return Figure(
        name,
        "What the search tried",
        "Each point is a suggestion in the order in which it was asked. Filled large: chosen; filled: on all search "
        f"seeds; hollow: raced out, stopped early, or did not complete.{left_out}",
        columns,
        rows,
        charts,
    )


def _over_suggestions(field: str, title: str, kinds: dict[str, Any], is_root: bool = False) -> dict[str, Any]:
    y = real(field, title)
    if is_root:
        y["scale"] = {"type": "symlog", "zero": True}
    encoding = {
        "x": real("suggestion", "suggestion", axis={"tickMinStep": 1}),
        "y": y,
        **kinds,
        "size": {"condition": {"test": "datum.state == 'chosen'", "value": 160}, "value": 40},
    }
    ran = {"filter": {"field": "state", "oneOf": ["chosen", "all seeds"]}}
    return {
        "height": 220,
        "layer": [
            {"mark": {"type": "point", "tooltip": True}, "encoding": encoding},
            {
                "transform": [ran],
                "mark": {"type": "point", "filled": True, "opacity": 0.8, "aria": False, "tooltip": True},
                "encoding": encoding,
            },
        ],
    }


def parallel_figure(name: str, spec: SweepSpec, search: CellSearch, found: Sequence[SuggestionFacts]) -> Figure | None:
    """Return parallel coordinates of a method's hyper-parameters; None if it has fewer than two, or few suggestions.

    Args:
        name: of the figure.
        spec: the sweep.
        search: of the cell.
        found: its suggestions.
    """
    space = search.cell.space.distributions
    known = [one for one in found if math.isfinite(one.objective)]
    if len(space) < 2 or len(known) < 4:
        return None
    shown = thinned(known, _MOST_LINES)
    rows = [row for one in shown for row in _places(one, space)]
    columns = (
        Column("suggestion", "suggestion"),
        Column("hyperparameter", "hyper-parameter"),
        Column("value", "value"),
        Column("objective", spec.objective, metric_of(spec.objective)),
        Column("meets", "limits"),
    )
    order = list(space)
    legend = {"orient": "bottom", "title": spec.objective}
    chart = {
        "height": 220,
        "mark": {"type": "line", "tooltip": True, "strokeWidth": 1.5},
        "encoding": {
            "x": {"field": "hyperparameter", "type": "nominal", "sort": order, "title": None,
                  "axis": {"labelAngle": 0, "grid": True}, "scale": {"padding": 0.1}},
            "y": {"field": "place", "type": "quantitative", "title": "place in its range", "scale": {"domain": [0, 1]}},
            "detail": {"field": "suggestion", "type": "nominal"},
            "color": {"field": "objective", "type": "quantitative", "scale": {"scheme": "cividis"}, "legend": legend},
            "opacity": {"condition": {"test": "datum.meets == 'meets the limits'", "value": 0.95}, "value": 0.25},
        },
    }  # fmt: skip
    left_out = f" {len(shown)} of {len(known)} suggestions are shown." if len(shown) < len(known) else ""
    return Figure(
        name,
        f"Hyper-parameters of {search.cell.method}",
        f"A line is a suggestion, from the low to the high end of each range; pale ones violate a limit.{left_out}",
        columns,
        rows,
        [(search.cell.method, chart)],
    )


def _places(one: SuggestionFacts, space: Mapping[str, Distribution]) -> list[dict[str, Cell]]:
    """Return a row for each hyper-parameter of a suggestion."""
    return [
        {
            "suggestion": one.suggestion.number,
            "hyperparameter": name,
            "value": value_text(one.suggestion.hyperparameters[name]),
            "place": place,
            "objective": one.objective,
            "meets": "meets the limits" if one.violation <= 0 else "violates a limit",
        }
        for name, place in places_of(one, space).items()
    ]


def importance_figure(name: str, spec: SweepSpec, searches: Sequence[CellSearch]) -> Figure | None:
    """Return how much of the objective's variance each hyper-parameter explains; None where there is too little.

    Args:
        name: of the figure.
        spec: the sweep.
        searches: of the cells of a scenario.
    """
    rows: list[dict[str, Cell]] = [
        {"method": search.cell.method, "hyperparameter": hyperparameter, "importance": share}
        for search in searches
        for hyperparameter, share in importances(spec, search).items()
    ]
    if not rows:
        return None
    columns = (
        Column("method", "method"),
        Column("hyperparameter", "hyper-parameter"),
        Column("importance", "importance", "average"),
    )
    chart = {
        "height": bars_height(len(rows)),
        "transform": [{"calculate": "datum.method + ' ' + datum.hyperparameter", "as": "name"}],
        "mark": {"type": "bar", "tooltip": True, "color": "#0072b2"},
        "encoding": {
            "x": {"field": "importance", "type": "quantitative", "title": "share", "scale": {"domain": [0, 1]}},
            "y": {"field": "name", "type": "nominal", "sort": None, "title": None},
        },
    }
    return Figure(
        name,
        "Which hyper-parameters matter",
        f"Share of the variance of {spec.objective} that each explains within its method (fANOVA, Hutter et al. 2014), "
        "over the suggestions of the search.",
        columns,
        rows,
        [("", chart)],
    )


def bars_height(n: int) -> int:
    """Return the height of a chart of horizontal bars, in pixels."""
    return 22 * n + 10


def cost_figure(name: str, searches: Sequence[CellSearch], tables: Tables) -> Figure | None:
    """Return where the time of a scenario's trials went, by method and phase; None if nothing ran.

    Args:
        name: of the figure.
        searches: of the cells of a scenario.
        tables: of the run.
    """
    rows: list[dict[str, Cell]] = []
    for search in searches:
        trials = tables.trials_of(list(search.keys))
        for phase, own in trials.groupby("phase", sort=False):
            rows.append(
                {
                    "method": search.cell.method,
                    "phase": str(phase),
                    "n_trials": len(own),
                    "n_stopped": int((own["status"] == "stopped").sum()),
                    "n_failed": int(own["status"].isin(["failed", "error"]).sum()),
                    "seconds": float(own["seconds"].sum()),
                    "train_seconds": float(own["train_seconds"].sum()),
                }
            )
    if not rows:
        return None
    columns = (
        Column("method", "method"),
        Column("phase", "phase"),
        Column("n_trials", "trials"),
        Column("n_stopped", "stopped"),
        Column("n_failed", "failed"),
        Column("seconds", "seconds", "seconds"),
        Column("train_seconds", "of these, training", "seconds"),
    )
    phases = {"domain": ["search", "finals", "confirm"], "range": ["#0072b2", "#e69f00", "#009e73"]}
    methods = list(dict.fromkeys(str(row["method"]) for row in rows))
    chart = {
        "height": bars_height(len(methods)),
        "mark": {"type": "bar", "tooltip": True},
        "encoding": {
            "x": {"field": "seconds", "type": "quantitative", "title": "seconds of all trials", "stack": "zero"},
            "y": {"field": "method", "type": "nominal", "sort": methods, "title": None},
            "color": {"field": "phase", "type": "nominal", "scale": phases, "title": "phase",
                      "legend": {"orient": "bottom"}},
        },
    }  # fmt: skip
    return Figure(
        name,
        "Where the time went",
        "Wall time of all trials of a method, whichever machine they ran on, by phase.",
        columns,
        rows,
        [("", chart)],
    )
