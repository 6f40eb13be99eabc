"""How sure the seeds of an answer make us: intervals, what a new run will do, and whether two methods differ."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from scipy.special import betaincinv, nctdtr, stdtr, stdtrit

from orchestrator.gating.multiple_tests import holm

LEVEL = 0.95
"""Of intervals and bounds."""

_POWER = 0.8
_MOST_SEEDS = 10_000


@dataclass(frozen=True)
class Spread:
    """A number over seeds.

    Args:
        values: one a seed.
    """

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Return the mean, NaN if there is no value."""
        return fmean(self.values) if self.values else math.nan

    @property
    def std(self) -> float:
        """Return the sample standard deviation, NaN if there are fewer than two values or one of them is NaN."""
        known = len(self.values) > 1 and all(map(math.isfinite, self.values))
        return stdev(self.values) if known else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Return the 95 % confidence interval of the mean by Student's t; NaN if the spread is not known."""
        n, std = len(self.values), self.std
        if math.isnan(std):
            return math.nan, math.nan
        half = float(stdtrit(n - 1, (1 + LEVEL) / 2)) * std / math.sqrt(n)
        return self.mean - half, self.mean + half


@dataclass(frozen=True)
class Assurance:
    """What the seeds tell about a single new run meeting a limit.

    Args:
        n_met: on how many seeds the limit is met.
        n_seeds: of how many.
        probability: that a new run meets it, if seeds are normal; NaN if the spread is not known.
        at_least: what that probability is at the least, at 95 %, by counting alone (Clopper & Pearson 1934).
        looks_normal: whether the seeds contradict normality (Shapiro & Wilk 1965, p < 0.05); None if they are too few
            or all equal.
    """

    n_met: int
    n_seeds: int
    probability: float
    at_least: float
    looks_normal: bool | None


def assurance(margins: Sequence[float]) -> Assurance:
    """Return what margins tell about a new run.

    Args:
        margins: of each seed, how far inside the limit it is; negative if it violates it.
    """
    n, n_met = len(margins), sum(margin >= 0 for margin in margins)
    over = Spread(tuple(margins))
    if math.isnan(over.std):
        probability = math.nan
    elif over.std == 0:
        probability = float(over.mean >= 0)
    else:
        probability = float(stdtr(n - 1, over.mean / (over.std * math.sqrt(1 + 1 / n))))
    at_least = float(betaincinv(n_met, n - n_met + 1, 1 - LEVEL)) if n_met else 0.0
    is_testable = n >= 3 and not math.isnan(over.std) and over.std > 1e-12 * max(map(abs, margins))
    return Assurance(n_met, n, probability, at_least, _looks_normal(margins) if is_testable else None)


def _looks_normal(values: Sequence[float]) -> bool:
    from scipy.stats import shapiro  # importing it takes half a second, which most commands need not spend

    return bool(shapiro(values).pvalue >= 1 - LEVEL)


@dataclass(frozen=True)
class Comparison:
    """A difference of two methods by seed.

    Args:
        difference: mean of the first less the second, over the seeds that both have.
        interval: its 95 % confidence interval; NaN if the spread is not known.
        n_seeds: how many seeds both have.
        p_value: of Student's paired test; NaN if the spread is not known.
        p_holm: the same after Holm's correction over all methods that were compared.
        n_more_seeds: seeds to add to tell the two apart with 80 % power, if the difference is as measured; None if no
            number of them would, or it is not known; 0 if they are told apart.
    """

    difference: float
    interval: tuple[float, float]
    n_seeds: int
    p_value: float
    p_holm: float
    n_more_seeds: int | None

    @property
    def is_told_apart(self) -> bool:
        """Return whether the two differ, at 5 % over all comparisons."""
        return self.p_holm < 1 - LEVEL


def compare(first: Mapping[int, float], others: Mapping[str, Mapping[int, float]]) -> dict[str, Comparison]:
    """Return name -> how the first method differs from each other one, by the seeds that both have.

    Args:
        first: seed -> value of the first method.
        others: name -> seed -> value.
    """
    differences = {
        name: [first[seed] - values[seed] for seed in first if seed in values] for name, values in others.items()
    }
    tested = {name: _p_value(found) for name, found in differences.items()}
    corrected = holm(tested)
    found = {}
    for name, values in differences.items():
        over, p_holm = Spread(tuple(values)), corrected[name]
        more = 0 if p_holm < 1 - LEVEL else n_more_seeds(values)
        found[name] = Comparison(over.mean, over.interval, len(values), tested[name], p_holm, more)
    return found


def _p_value(differences: Sequence[float]) -> float:
    over = Spread(tuple(differences))
    if math.isnan(over.std):
        return math.nan
    if over.std == 0:
        return 0.0 if over.mean else 1.0
    t = over.mean / (over.std / math.sqrt(len(differences)))
    return 2.0 * float(stdtr(len(differences) - 1, -abs(t)))


def n_more_seeds(differences: Sequence[float]) -> int | None:
    """Return how many seeds more a paired test needs for 80 % power at 5 %, if differences go on as these are.

    None if the differences have no mean or spread, or more than 10,000 seeds would be needed.
    """
    over = Spread(tuple(differences))
    if math.isnan(over.std) or over.std == 0 or over.mean == 0:
        return None
    effect = abs(over.mean) / over.std
    low, high = 2, _MOST_SEEDS
    if _power(effect, high) < _POWER:
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if _power(effect, middle) >= _POWER else (middle + 1, high)
    return max(low - len(differences), 1)


def _power(effect: float, n: int) -> float:
    """Return the power of a two-sided one-sample t test at 5 % with `n` seeds and an effect in standard deviations."""
    bound = float(stdtrit(n - 1, (1 + LEVEL) / 2))
    return 1.0 - float(nctdtr(n - 1, effect * math.sqrt(n), bound))
