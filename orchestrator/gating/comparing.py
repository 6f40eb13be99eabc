"""From the evidence on one line of a report to an estimate, an interval and p-values."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean

import numpy as np
from scipy.special import ndtri

from orchestrator.core.scores import Score
from orchestrator.gating.evidence import Answers, Cost, ModelTask
from orchestrator.gating.over_seeds import n_more_seeds, seed_limits, seed_p
from orchestrator.gating.proportions import (
    exact_p,
    mcnemar_p,
    mean_limits,
    mean_z,
    n_more_of,
    n_more_pairs,
    p_values,
    score_limits,
)
from orchestrator.gating.resampling import (
    Resampled,
    bootstrap_limits,
    bootstrap_more,
    bootstrap_p,
    resample_answers,
    resample_ranks,
)

PROPORTIONS = ("accuracy", "recall", "balanced_accuracy")
"""Kinds of scores that are shares of right answers, or means of such; the others are resampled."""

_SEED = 20_260_101
"""Of all resamples: the same evidence gives the same report."""


@dataclass(frozen=True)
class Comparison:
    """The challenger against a limit.

    Args:
        estimate: the challenger less the champion, in score points; of a cost, the challenger's value.
        interval: its interval at level 1 - 2 alpha; NaN if there is none.
        p_met: of 'it is worse by the limit or more'; small if the limit is met.
        p_violated: of 'it is worse by no more than the limit'; small if the limit is violated.
        p_differs: of 'both are equally good', exact and two-sided; NaN unless one share of right answers is compared.
        n: how many examples or seeds there are; 0 for a cost, which is known without a test.
        unit: what is counted.
        n_more: level -> how many more would decide; None if no number is known to.
    """

    estimate: float
    interval: tuple[float, float]
    p_met: float
    p_violated: float
    p_differs: float
    n: int
    unit: str
    n_more: Callable[[float], int | None]


def compare_answers(
    tasks: Sequence[ModelTask], score: Score, limit: float, alpha: float, offset: float = 0.0
) -> Comparison:
    """Return the mean over tasks of the difference of a score between two models.

    A share of right answers is compared by counts: one share exactly, a mean of shares by the limits of each. Balanced
    accuracy is a mean over classes. Any other score is resampled.

    Args:
        tasks: with the answers of both models, and with the score.
        score: the score.
        limit: by how much the challenger may be worse.
        alpha: level of a one-sided test; the interval has the level 1 - 2 alpha.
        offset: what is added to the mean, a fixed number.
    """
    delta = -limit - offset
    pairs = [(task, *answers) for task in tasks if (answers := task.answers) is not None]
    if score.kind not in PROPORTIONS:
        drawn = [
            _resample(*pair, score, _SEED + index) for index, pair in enumerate(pairs)
        ]  # independent of each other
        return _resampled(drawn, delta, alpha, offset)
    strata = [stratum for pair in pairs for stratum in _strata(*pair, score, 1 / len(pairs))]
    gains, losses, n, weights = (list(column) for column in zip(*strata, strict=True))
    if len(strata) == 1:
        return _one_share(gains[0], losses[0], n[0], delta, alpha, offset)
    mean, low, high = (float(v) for v in mean_limits(gains, losses, n, weights, -float(ndtri(alpha))))
    z = mean_z(gains, losses, n, weights, delta)
    p_met, p_violated = p_values(z)
    total = sum(len(task.labels) for task in tasks)
    more = partial(n_more_of, z, total)
    interval = low + offset, high + offset
    return Comparison(mean + offset, interval, p_met, p_violated, math.nan, total, "example", more)


def _one_share(gains: int, losses: int, n: int, delta: float, alpha: float, offset: float) -> Comparison:
    low, high = (float(limit) + offset for limit in score_limits(gains, losses, n, -float(ndtri(alpha))))
    p_met, p_violated = exact_p(gains, losses, n, delta)
    more = partial(n_more_pairs, gains, losses, n, delta)
    estimate = (gains - losses) / n + offset
    return Comparison(estimate, (low, high), p_met, p_violated, mcnemar_p(gains, losses), n, "example", more)


def _strata(
    task: ModelTask, champion: Answers, challenger: Answers, score: Score, weight: float
) -> list[tuple[int, int, int, float]]:
    """Return gains, losses, examples and weight of each share that a task's score is the mean of."""
    labels = task.labels
    if score.kind == "balanced_accuracy":
        masks = [labels == label for label in np.unique(labels)]
    else:
        column = task.column_of(score)
        masks = [np.ones(len(labels), dtype=bool) if column is None else labels == column]
    first, second = champion.predicted == labels, challenger.predicted == labels
    return [
        (int((second & ~first & m).sum()), int((first & ~second & m).sum()), int(m.sum()), weight / len(masks))
        for m in masks
    ]


def _resample(task: ModelTask, champion: Answers, challenger: Answers, score: Score, seed: int) -> Resampled:
    if score.is_ranked:
        return resample_ranks(task.labels, champion.log_odds, challenger.log_odds, score, seed)
    column = task.column_of(score)
    return resample_answers(task.labels, champion.predicted, challenger.predicted, score, column, seed)


def _resampled(tasks: Sequence[Resampled], delta: float, alpha: float, offset: float) -> Comparison:
    estimate = fmean(task.estimate for task in tasks) + offset
    low, high = (limit + offset for limit in bootstrap_limits(tasks, alpha))
    p_met, p_violated = bootstrap_p(tasks, delta)
    n = sum(task.n for task in tasks)
    more = partial(bootstrap_more, tasks, delta)
    return Comparison(estimate, (low, high), p_met, p_violated, math.nan, n, "example", more)


def compare_seeds(differences: Sequence[float], limit: float, alpha: float) -> Comparison:
    """Return the mean over seeds of the difference between two runs.

    Args:
        differences: one a seed, challenger less champion.
        limit: by how much the challenger may be worse.
        alpha: level of a one-sided test; the interval has the level 1 - 2 alpha.
    """
    p_met, p_violated = seed_p(differences, -limit)
    interval, more = seed_limits(differences, alpha), partial(n_more_seeds, differences, -limit)
    n = len(differences)
    return Comparison(fmean(differences), interval, p_met, p_violated, math.nan, n, "seed", more)


def compare_cost(cost: Cost, limit: float) -> Comparison | None:
    """Return a cost of the challenger, which is known or not and has no spread; None if it is not known."""
    value = cost.challenger
    if value is None or math.isnan(value):
        return None
    is_met = value <= limit
    return Comparison(value, (math.nan, math.nan), float(not is_met), float(is_met), math.nan, 0, "", lambda _: None)
