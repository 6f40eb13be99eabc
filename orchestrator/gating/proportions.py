"""Paired proportions: how often two models are right on the same examples, and whether one is worse by a limit.

Counts, not shares: of `n` examples, `gains` are right by the challenger alone and `losses` by the champion alone. The
difference is (gains - losses) / n, the challenger less the champion.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import bdtr, bdtrc, betaincinv, gammaln, ndtr, ndtri, xlog1py, xlogy

Array = NDArray[np.float64]

POWER = 0.8
"""With which further examples or seeds shall decide."""

MOST_MORE = 100_000_000
"""Further examples beyond which none are named."""

_N_BISECTIONS = 50
_N_NUISANCE = 60
_OUTSIDE = 1e-6
"""Chance that the share of discordant examples lies outside of what an exact test looks at."""

_TIE = 1e-9
_LARGEST_Z = 37.0
"""The normal tail beyond it is 0 in float64."""


def mcnemar_p(gains: int, losses: int) -> float:
    """Return the two-sided p-value of the exact test that two models are right equally often.

    Source: McNemar 1947; the exact form is the sign test on the discordant examples.
    """
    n_discordant = gains + losses
    return min(1.0, 2.0 * float(bdtr(min(gains, losses), n_discordant, 0.5))) if n_discordant else 1.0


def score_z(gains: ArrayLike, losses: ArrayLike, n: ArrayLike, delta: ArrayLike) -> Array:
    """Return the score statistic of 'the difference is `delta`', standard normal if it is; counts broadcast.

    The share of losses under the hypothesis is the larger root of 2 n q² - B q - losses · delta (1 - delta) = 0, with
    B = gains + losses + delta (gains - losses - 2 n). Without a discordant example at delta = 0 the statistic is 0.

    Args:
        gains: 0 … n.
        losses: 0 … n - gains.
        n: more than 0.
        delta: in [-1, 1].

    Source: Tango 1998, Statistics in Medicine 17:891 (score statistic and its constrained estimate).
    """
    x, y, total, d = (np.asarray(value, dtype=np.float64) for value in (gains, losses, n, delta))
    linear = x + y + d * (x - y - 2 * total)
    root = np.sqrt(np.maximum(linear**2 + 8 * total * y * d * (1 - d), 0))
    q = np.clip((linear + root) / (4 * total), np.maximum(0, -d), (1 - d) / 2)
    variance = np.maximum(total * (2 * q + d * (1 - d)), 0)
    distance = x - y - total * d
    with np.errstate(divide="ignore", invalid="ignore"):
        z: Array = distance / np.sqrt(variance)
    return np.where(np.abs(distance) <= _TIE * total, 0.0, z)


def score_limits(gains: ArrayLike, losses: ArrayLike, n: ArrayLike, z: ArrayLike) -> tuple[Array, Array]:
    """Return the limits between which `score_z` is within ±z; counts broadcast.

    Source: Tango 1998, Statistics in Medicine 17:891. Differs: by bisection, which needs no start.
    """
    x, y, total, bound = np.broadcast_arrays(*(np.asarray(v, dtype=np.float64) for v in (gains, losses, n, z)))
    estimate = (x - y) / total
    found = []
    for end, sign in ((-1.0, 1.0), (1.0, -1.0)):
        outer, inner = np.full_like(estimate, end), estimate.copy()
        for _ in range(_N_BISECTIONS):
            middle = (outer + inner) / 2
            is_outside = sign * score_z(x, y, total, middle) > bound
            outer, inner = np.where(is_outside, middle, outer), np.where(is_outside, inner, middle)
        found.append(outer)
    return found[0], found[1]


def exact_p(gains: int, losses: int, n: int, delta: float) -> tuple[float, float]:
    """Return the p-values of 'the difference is delta or less' and of 'it is delta or more', exact for every n.

    Each is the largest probability, over the shares of discordant examples that the data allow, of a `score_z` as
    extreme as this. The normal approximation of `score_z` would call a challenger at the limit not worse in up to 7 %
    of cases at 50 examples, if few are discordant.

    Args:
        gains: 0 … n.
        losses: 0 … n - gains.
        n: more than 0.
        delta: the difference at the limit; any number.

    Source: Hsueh, Liu & Chen 2001, Biometrics 57:478 (exact unconditional test with the score statistic); Berger &
        Boos 1994, JASA 89:1012 (maximum over a confidence set of the nuisance parameter, whose error is added).
    """
    if delta <= -1:
        return 0.0, 1.0
    if delta >= 1:
        return 1.0, 0.0
    shares = _discordant_shares(gains + losses, n, abs(delta))
    if not len(shares):  # no share of discordant examples fits both the data and this difference
        is_above = (gains - losses) / n > delta
        return (_OUTSIDE, 1.0) if is_above else (1.0, _OUTSIDE)
    observed = float(score_z(gains, losses, n, delta))
    p_gain, p_loss = (shares + delta) / 2, (shares - delta) / 2
    wins = _likely_counts(p_gain, n)
    with np.errstate(divide="ignore", invalid="ignore"):
        left = np.clip(np.where(p_gain < 1, p_loss / (1 - p_gain), 0.0), 0, 1)[:, None]
    log_chance = gammaln(n + 1) - gammaln(wins + 1) - gammaln(n - wins + 1)
    chance = np.exp(log_chance + xlogy(wins, p_gain[:, None]) + xlog1py(n - wins, -p_gain[:, None]))
    others = (n - wins).astype(np.int64)  # SciPy takes whole numbers of trials
    most = _most_losses(wins, n, delta, observed - _TIE)
    above = np.where(most < 0, 0.0, bdtr(np.maximum(most, 0), others, left))
    most = _most_losses(wins, n, delta, observed + _TIE)
    below = np.where(most < 0, 1.0, bdtrc(np.maximum(most, 0), others, left))
    p_above, p_below = (min(1.0, float((chance * part).sum(1).max()) + _OUTSIDE) for part in (above, below))
    return p_above, p_below


def _discordant_shares(n_discordant: int, n: int, least: float) -> Array:
    """Return shares of discordant examples that fit the data and are no less than `least`, close to each other."""
    low = float(betaincinv(n_discordant, n - n_discordant + 1, _OUTSIDE / 2)) if n_discordant else 0.0
    high = float(betaincinv(n_discordant + 1, n - n_discordant, 1 - _OUTSIDE / 2)) if n_discordant < n else 1.0
    low = max(low, least)
    if low > high:
        return np.empty(0)
    shares: Array = np.sin(np.linspace(math.asin(math.sqrt(low)), math.asin(math.sqrt(high)), _N_NUISANCE)) ** 2
    return np.clip(shares, low, high)


def _likely_counts(shares: Array, n: int) -> Array:
    """Return the counts of `n` that have more than about 1e-15 of the probability at any of `shares`."""
    low, high = n * float(shares.min()), n * float(shares.max())
    first = max(0, math.floor(low - 8 * math.sqrt(low) - 10))
    last = min(n, math.ceil(high + 8 * math.sqrt(high) + 20))
    return np.arange(first, last + 1, dtype=np.float64)


def _most_losses(wins: Array, n: int, delta: float, least_z: float) -> Array:
    """Return for each number of gains the most losses at which `score_z` is `least_z` or more; -1 if there is none."""
    low, high = np.full_like(wins, -1), n - wins
    while np.any(low < high):
        middle = np.ceil((low + high) / 2)
        is_enough = score_z(wins, middle, n, delta) >= least_z
        low, high = np.where(is_enough, middle, low), np.where(is_enough, high, middle - 1)
    return low


def mean_limits(
    gains: ArrayLike, losses: ArrayLike, n: ArrayLike, weights: ArrayLike, z: float
) -> tuple[Array, Array, Array]:
    """Return a weighted mean of independent paired differences, and its limits at ±z; shapes (..., strata) -> (...,).

    The distance of the mean to a limit is the root of the summed squares of the weighted distances of each stratum to
    its own score limit. It recovers the variance near the limit, so strata without a discordant example keep a width.

    Source: Zou & Donner 2008, Statistics in Medicine 27:1693 (method of variance estimates recovery); limits of
        a stratum by Tango 1998.
    """
    x, y, total, w = (np.asarray(value, dtype=np.float64) for value in (gains, losses, n, weights))
    each = (x - y) / total
    mean = (w * each).sum(-1)
    low, high = score_limits(x, y, total, z)
    below, above = (np.sqrt(((w * (each - limit)) ** 2).sum(-1)) for limit in (low, high))
    return mean, mean - below, mean + above


def mean_z(gains: ArrayLike, losses: ArrayLike, n: ArrayLike, weights: ArrayLike, delta: float) -> float:
    """Return the z at which a limit of `mean_limits` is `delta`: positive if the mean is above it. Shapes (strata,)."""
    from scipy.optimize import brentq  # a third of a second, which `--help` and most commands need not spend

    counts = (gains, losses, n, weights)
    mean = float(mean_limits(*counts, 0.0)[0])
    if abs(mean - delta) < _TIE:
        return 0.0
    side = 1 if mean > delta else 2

    def gap(z: float) -> float:
        return float(mean_limits(*counts, z)[side]) - delta

    sign = 1.0 if mean > delta else -1.0
    if sign * gap(_LARGEST_Z) > 0:
        return sign * _LARGEST_Z
    return sign * float(brentq(gap, 0.0, _LARGEST_Z, xtol=1e-6))


def p_values(z: float) -> tuple[float, float]:
    """Return the p-values of 'at the limit or below' and 'at the limit or above' of a standard normal statistic."""
    return float(ndtr(-z)), float(ndtr(z))


def n_more_of(z: float, n: int, alpha: float) -> int | None:
    """Return how many more examples decide at level `alpha` with 80 % power, if z grows with the root of their number.

    None if the estimate is at the limit, or it would be more than `MOST_MORE`.
    """
    needed = -float(ndtri(alpha)) + float(ndtri(POWER))
    return None if abs(z) < _TIE else _more(n * (needed / z) ** 2, n)


def n_more_pairs(gains: int, losses: int, n: int, delta: float, alpha: float) -> int | None:
    """Return how many more examples decide on which side of `delta` the difference is, with 80 % power.

    It holds if the shares of gains and losses stay as they are. None if the estimate is at `delta`, or it would be more
    than `MOST_MORE`.

    Source: Nam 1997, Biometrics 53:1422 (sample size of the score test). Differs: never less than an exact test needs
        to tell a change that no example shows from one at the limit.
    """
    p_gain, p_loss = gains / n, losses / n
    distance = p_gain - p_loss - delta
    if abs(distance) < _TIE or abs(delta) >= 1:
        return None
    spread = math.sqrt(max(p_gain + p_loss - (p_gain - p_loss) ** 2, 0.0))
    z = float(score_z(p_gain, p_loss, 1.0, delta))
    spread_at_limit = abs(distance / z) if math.isfinite(z) and z else 0.0
    needed = (-float(ndtri(alpha)) * spread_at_limit + float(ndtri(POWER)) * spread) / distance
    return _more(max(needed**2, n_unseen(abs(distance), alpha)), n)


def n_unseen(share: float, alpha: float) -> float:
    """Return how many examples without an event show that its share is less than `share`, at level `alpha`.

    Source: Hanley & Lippman-Hand 1983, JAMA 249:1743 (the rule of three).
    """
    return math.log(alpha) / math.log1p(-share) if share < 1 else 1.0


def _more(needed: float, n: int) -> int | None:
    return None if needed - n > MOST_MORE else max(1, math.ceil(needed - n))
