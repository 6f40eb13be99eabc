"""Runs compared by seed: differences of trials that share one, and whether their mean is below a limit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev

from scipy.special import nctdtr, stdtr, stdtrit

from orchestrator.gating.proportions import POWER

MOST_SEEDS = 10_000
"""Further seeds beyond which none are named."""

_EQUAL = 1e-12


def _spread(differences: Sequence[float]) -> float:
    """Return the sample standard deviation, 0 if all are equal but for rounding."""
    found = stdev(differences)
    return found if found > _EQUAL else 0.0


def seed_p(differences: Sequence[float], delta: float) -> tuple[float, float]:
    """Return the p-values of 'the mean difference is delta or less' and of 'it is delta or more'.

    Student's t test on the paired differences. Without a spread the t statistic means nothing, and the sign test
    stands in: its p-value of 2⁻ⁿ needs five seeds at 5 %. One seed decides nothing: both are 1.

    Args:
        differences: one a seed, challenger less champion.
        delta: the difference at the limit.
    """
    n = len(differences)
    if n < 2:
        return 1.0, 1.0
    distance, spread = fmean(differences) - delta, _spread(differences)
    if spread == 0:
        if abs(distance) <= _EQUAL:
            return 1.0, 1.0
        return (0.5**n, 1.0) if distance > 0 else (1.0, 0.5**n)
    t = distance / (spread / math.sqrt(n))
    return float(stdtr(n - 1, -t)), float(stdtr(n - 1, t))


def seed_limits(differences: Sequence[float], alpha: float) -> tuple[float, float]:
    """Return the limits of the mean difference at level 1 - 2 alpha; NaN with fewer than two seeds."""
    n = len(differences)
    if n < 2:
        return math.nan, math.nan
    half = float(stdtrit(n - 1, 1 - alpha)) * _spread(differences) / math.sqrt(n)
    return fmean(differences) - half, fmean(differences) + half


def n_more_seeds(differences: Sequence[float], delta: float, alpha: float) -> int | None:
    """Return how many more seeds decide with 80 % power, if differences go on as these are.

    None if one seed shows no spread, the mean is at the limit, or it would be more than `MOST_SEEDS`.
    """
    n = len(differences)
    if n < 2:
        return None
    distance, spread = abs(fmean(differences) - delta), _spread(differences)
    if distance <= _EQUAL:
        return None
    if spread == 0:
        return max(1, math.ceil(math.log(alpha) / math.log(0.5)) - n)
    effect = distance / spread
    low, high = 2, MOST_SEEDS
    if _power(effect, high, alpha) < POWER:
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if _power(effect, middle, alpha) >= POWER else (middle + 1, high)
    return max(1, low - n)


def _power(effect: float, n: int, alpha: float) -> float:
    """Return the power of a one-sided t test with `n` seeds and an effect in standard deviations."""
    if effect * math.sqrt(n) > 30:  # beyond what the noncentral t distribution computes, and certain
        return 1.0
    return 1.0 - float(nctdtr(n - 1, effect * math.sqrt(n), float(stdtrit(n - 1, 1 - alpha))))
