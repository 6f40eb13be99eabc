"""How sure a few seeds make us: the probability that a limit is met, or that one suggestion beats another.

Seeds of one suggestion are taken as normal around its mean. Few seeds tell little of their spread, so the spread of a
suggestion is estimated together with that of all suggestions of its cell, which counts as `_POOL_WEIGHT` seeds more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

_POOL_WEIGHT = 3.0
"""How many degrees of freedom the pooled spread is worth beside a suggestion's own seeds."""


@dataclass
class Pool:
    """The spread of seeds around their mean, pooled over suggestions.

    Args:
        squares: sum of squared differences from each suggestion's mean.
        n_free: degrees of freedom of the sum.
    """

    squares: float = 0.0
    n_free: int = 0

    @classmethod
    def of(cls, values: Sequence[float]) -> Pool:
        """Return the spread of the seeds of one suggestion; values that are not known are left out."""
        known = [value for value in values if math.isfinite(value)]
        return cls(_squares(known), len(known) - 1) if len(known) > 1 else cls()

    @classmethod
    def sum(cls, pools: Sequence[Pool]) -> Pool:
        """Return pools taken together, the same to the last bit in whatever order they are."""
        return cls(math.fsum(pool.squares for pool in pools), sum(pool.n_free for pool in pools))

    def spreads(self, squares: NDArray[np.float64], n: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
        """Return `spread` of N suggestions with `n` seeds each and these sums of squares, (N,) both; NaN and 0."""
        n_free = n - 1
        if self.n_free:
            weight = min(_POOL_WEIGHT, self.n_free)
            squares, n_free = squares + weight * self.squares / self.n_free, n_free + weight
        return np.where(n_free > 0, np.sqrt(squares / np.maximum(n_free, 1e-300)), math.nan), n_free

    def spread(self, values: Sequence[float]) -> tuple[float, float]:
        """Return the standard deviation of one seed of a suggestion and its degrees of freedom.

        (NaN, 0) if neither the pool nor the suggestion can tell.
        """
        squares, n_free = _squares(values), len(values) - 1.0
        if self.n_free:
            weight = min(_POOL_WEIGHT, self.n_free)
            squares, n_free = squares + weight * self.squares / self.n_free, n_free + weight
        return (math.sqrt(squares / n_free), n_free) if n_free > 0 else (math.nan, 0.0)


def _squares(values: Sequence[float]) -> float:
    mean = fmean(values)
    return sum((value - mean) ** 2 for value in values)


def probability_below(values: Sequence[float], pool: Pool, transfer: float = 0.0) -> float:
    """Return the probability that the mean which a suggestion's seeds are drawn around is 0 or less.

    By Student's t distribution; NaN if the spread is not known, 0 if a value is not known.

    Args:
        values: one a seed, at least one.
        pool: the spread of the cell.
        transfer: how far the mean may lie elsewhere on other data, in standard deviations of one seed.
    """
    if not all(map(math.isfinite, values)):
        return 0.0
    return _below(fmean(values), *pool.spread(values), 1 / len(values) + transfer**2)


def _below(mean: float, spread: float, n_free: float, variance: float) -> float:
    """Return P(x <= 0) of Student's t around a mean, NaN if the spread is not known."""
    if math.isnan(spread):
        return math.nan
    return float(stdtr(n_free, -mean / (spread * math.sqrt(variance)))) if spread else float(mean <= 0)


def probability_of_both(values: Sequence[float], elsewhere: Sequence[float], pool: Pool, transfer: float) -> float:
    """Return the probability that the mean of a suggestion is 0 or less, by its seeds here and on other data.

    The two means are weighted by their precisions. NaN if the spread is not known, 0 if a value is not known.

    Args:
        values: one a seed, on the data that count.
        elsewhere: one a seed, on the other data; none if there are none.
        pool: the spread of the cell.
        transfer: how far the mean may lie elsewhere on other data, in standard deviations of one seed.
    """
    if not elsewhere:
        return probability_below(values, pool)
    if not all(map(math.isfinite, [*values, *elsewhere])):
        return 0.0
    spread, n_free = pool.spread(
        [value - fmean(values) for value in values] + [v - fmean(elsewhere) for v in elsewhere]
    )
    precisions = len(values), 1 / (1 / len(elsewhere) + transfer**2)
    mean = (precisions[0] * fmean(values) + precisions[1] * fmean(elsewhere)) / sum(precisions)
    return _below(mean, spread, n_free - 1, 1 / sum(precisions))


def predictive_bound(values: Sequence[float], probability: float) -> float:
    """Return what a single further seed stays below with a probability, if seeds are normal.

    mean + t · s · √(1 + 1/n), with t the quantile of Student's distribution with n - 1 degrees of freedom; infinite for
    a single seed, which tells nothing of the spread.

    Args:
        values: one a seed, finite, at least one.
        probability: in (0, 1).
    """
    n = len(values)
    if n < 2:
        return math.inf
    spread = math.sqrt(_squares(values) / (n - 1))
    return fmean(values) + float(stdtrit(n - 1, probability)) * spread * math.sqrt(1 + 1 / n)
