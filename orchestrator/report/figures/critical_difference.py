"""Methods ranked over scenarios, and which of them are not told apart.

Source: Demšar 2006, 'Statistical Comparisons of Classifiers over Multiple Data Sets', JMLR 7: mean ranks over data
sets, Friedman's test, then a test of pairs; the blocks here are scenarios, whose values are means over test seeds. Of
the two tests of pairs, Wilcoxon's with Holm's correction is used if there are scenarios enough for it to find anything:
its least p-value over N scenarios is 2^(1-N), times the number of pairs. With fewer, it is Nemenyi's. Which of the two
depends on the counts alone, never on the values. Differs: pairs are tested only if Friedman's test finds a difference.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from orchestrator.core.errors import UsageError
from orchestrator.core.metrics import lower_is_better
from orchestrator.core.text import counted, visible
from orchestrator.report.figures.bars import asked_metrics
from orchestrator.report.figures.drawing import SMALL, Drawing, colour, finish, new_figure, say, shown, styled
from orchestrator.report.figures.scene import Scene, some

LEAST_SCENARIOS, LEAST_METHODS = 5, 3
"""Friedman's test and those of pairs tell nothing apart, or nothing reliably, with fewer."""

_MANY_SCENARIOS = 10
"""Demšar's rule of thumb for Friedman's test is more than this."""

ALPHA = 0.05


@dataclass(frozen=True)
class Ranking:
    """Methods ranked over scenarios.

    Args:
        values: a row a scenario, a column a method: its mean on test.
        ranks: mean rank of each method; 1 is best, and equals share a rank.
        p_friedman: that all methods rank alike.
        p_pairs: that two methods rank alike; all 1 if Friedman's test finds no difference.
        test: of the pairs.
        left_out: methods that were not measured in all scenarios.
    """

    values: pd.DataFrame
    ranks: pd.Series[float]
    p_friedman: float
    p_pairs: pd.DataFrame
    test: str
    left_out: tuple[str, ...]


def critical_difference(scene: Scene) -> Drawing:
    """Return the diagram of mean ranks, whose bars join methods that are not told apart."""
    if len(scene.scenarios) < len(scene.answer.scenarios):
        raise UsageError("--scenario: critical-difference ranks methods over all scenarios; drop it")
    metric = scene.spec.objective if scene.metric is None else asked_metrics(scene)[0]
    ranking = rank_methods(scene, metric)
    n_methods = len(ranking.ranks)
    notes = [*scene.notes(), *_power(ranking)]
    with styled():
        figure = new_figure(scene.width, 0.9 + 0.13 * n_methods + 0.12 * len(notes))
        axes = figure.subplots()
        _draw(axes, scene, ranking)
        p = "p < 0.001" if ranking.p_friedman < 0.001 else f"p = {ranking.p_friedman:.3f}"
        axes.set_title(
            f"mean rank by {shown(metric, 40)} over {len(ranking.values)} scenarios\n"
            f"Friedman {p}; bars: not told apart ({ranking.test})",
            fontsize=SMALL,
            pad=15,
        )
        say(figure, notes)
        return Drawing(finish(figure), [*_caption(scene, ranking, metric), *notes])


def rank_methods(scene: Scene, metric: str) -> Ranking:
    """Return the ranks of the methods that were measured on test in all scenarios; upper bounds are left out.

    Raises:
        UsageError: if they are too few, or the scenarios are.
    """
    names = [method for method in scene.spec.methods if not scene.spec.method_of(method).is_reference]
    rows = {}
    for answer in scene.answer.scenarios:
        known = {one.method: one.test.numbers[metric].mean for one in answer.methods if one.test is not None}
        found = {method: value for method, value in known.items() if method in names and math.isfinite(value)}
        if found:
            rows[answer.scenario] = found
    table = pd.DataFrame.from_dict(rows, orient="index", columns=None, dtype=float).reindex(columns=names)
    values = table.dropna(axis="columns")
    n_scenarios, n_methods = (len(values), values.shape[1]) if len(table) else (0, 0)
    if n_scenarios < LEAST_SCENARIOS or n_methods < LEAST_METHODS:
        raise UsageError(
            f"plot critical-difference: expected {LEAST_METHODS} methods or more that are measured on test in each of "
            f"{LEAST_SCENARIOS} scenarios or more, got {counted(n_scenarios, 'scenario')} "
            f"and {counted(n_methods, 'method')} in all of them; with fewer, the tests tell nothing apart; draw bars "
            "instead"
        )
    left_out = tuple(method for method in names if method not in values.columns)
    ranks = values.rank(axis="columns", ascending=lower_is_better(metric)).mean()
    return Ranking(values, ranks, *_tests(values), left_out)


def _tests(values: pd.DataFrame) -> tuple[float, pd.DataFrame, str]:
    """Return the p-value of Friedman's test, those of the pairs, and the test that these are of."""
    import scikit_posthocs
    from scipy.stats import friedmanchisquare

    n, k = values.shape
    names, columns = list(values.columns), values.to_numpy()
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # of methods that are all equal
        p_friedman = float(friedmanchisquare(*columns.T)[1])
        p_friedman = 1.0 if math.isnan(p_friedman) else p_friedman
        if k * (k - 1) / 2 * 2.0 ** (1 - n) < ALPHA:
            test = "Wilcoxon, Holm"
            found = scikit_posthocs.posthoc_wilcoxon(list(columns.T), p_adjust="holm", zero_method="zsplit")
        else:
            test = "Nemenyi"
            found = scikit_posthocs.posthoc_nemenyi_friedman(columns)
    pairs = pd.DataFrame(np.nan_to_num(found.to_numpy(dtype=float), nan=1.0), names, names)
    if p_friedman >= ALPHA:
        pairs.loc[:, :] = 1.0
    return p_friedman, pairs, test


def _draw(axes: Any, scene: Scene, ranking: Ranking) -> None:
    import scikit_posthocs

    places = {method: scene.place(method) for method in ranking.ranks.index}
    drawn = scikit_posthocs.critical_difference_diagram(
        ranking.ranks,
        ranking.p_pairs,
        ax=axes,
        alpha=ALPHA,
        color_palette={method: colour(place) for method, place in places.items()},
        elbow_props={"linewidth": 0.8, "clip_on": False},
        crossbar_props={"linewidth": 1.8, "clip_on": False, "solid_capstyle": "butt"},
        marker_props={"s": 14, "clip_on": False},
        label_props={"fontsize": SMALL},
        text_h_margin=0.04 * len(ranking.ranks),
    )
    ordered = list(ranking.ranks.sort_values().index)
    n_left = (len(ordered) + 1) // 2
    for is_left, methods, labels in (
        (True, ordered[:n_left], drawn["labels"][:n_left]),
        (False, ordered[n_left:][::-1], drawn["labels"][n_left:]),
    ):
        for method, label in zip(methods, labels, strict=True):
            name, rank = shown(method), f"({ranking.ranks[method]:.2f})"
            label.set_text(f"{name} {rank} " if is_left else f" {rank} {name}")
            label.set_color("black")
    axes.set_xlim(1, len(ordered))
    axes.set_ylim(top=0)
    axes.spines["top"].set_visible(True)
    axes.set_xticks(range(1, len(ordered) + 1, math.ceil(len(ordered) / 10)))


def _power(ranking: Ranking) -> list[str]:
    n = len(ranking.values)
    few = [f"Only {n} scenarios: power is low, so a bar does not say that methods are equal."]
    streams = {name.partition("/")[0] for name in ranking.values.index}
    same = [f"They are of {counted(len(streams), 'stream')}, so they are not independent, as the tests assume."]
    return (few if n <= _MANY_SCENARIOS else []) + (same if len(streams) < n else [])


def _caption(scene: Scene, ranking: Ranking, metric: str) -> list[str]:
    left = f" Left out, as not measured in all: {some(ranking.left_out)}." if ranking.left_out else ""
    bounds = [name for name in scene.spec.methods if scene.spec.method_of(name).is_reference]
    left += f" Upper bounds are not ranked: {some(bounds)}." if bounds else ""
    return [
        f"Mean ranks (1 is best) by {visible(metric)} on test, each scenario a block; whether limits are met does not "
        f"count. Friedman's test: p = {ranking.p_friedman:.3g}. Bars join methods that are not told apart at 5 % "
        f"({ranking.test}).{left}"
    ]
