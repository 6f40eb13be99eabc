"""What the seeds of a cell tell: how likely each suggestion meets the limits, and which may be the best.

It is kept as arrays with a row a suggestion and brought up to date where outcomes are new, so that a round of a race
among a thousand suggestions costs little.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from orchestrator.search.probability import Pool, probability_below, probability_of_both
from orchestrator.search.suggestion import Suggestion, known_values, rank
from orchestrator.spec.fields import MOST_CONFIRMED, Chance
from orchestrator.spec.sweep_spec import SweepSpec

Reals = NDArray[np.float64]


@dataclass(frozen=True)
class Rules:
    """Thresholds of the race and the finals; chosen on half of the recorded cells of `benchmarks/search.py`.

    Args:
        transfer: how far the mean on test may lie from that on validation, in standard deviations of one seed.
        hopeless: a suggestion that meets the limits with less than this probability gets no further seed in the race.
        behind: nor does one that is better than the best so far with less than this probability.
        sure: in the finals, a suggestion that meets the limits with this probability or more is decided.
        lost: and one with less than this.
        least: probability of meeting the limits that the chosen suggestion must have.
        n_confirmed: suggestions of a cell that may be measured on test, each after the one before it broke a limit.
        confirmed: probability of meeting each limit, by its seeds on both splits, that a recommended one must have.
        unlikely: a suggestion with less than this on the test split gets no further seed there.
        more: further test seeds at a time.
        selected: as `transfer`, of a suggestion that was chosen among many for its seeds on validation.
    """

    transfer: float = 0.4
    hopeless: float = 0.05
    behind: float = 0.1
    sure: float = 0.95
    lost: float = 0.1
    least: float = 0.2
    n_confirmed: int = MOST_CONFIRMED
    confirmed: float = 0.85
    unlikely: float = 0.2
    more: int = 5
    selected: float = 2.0


RULES = Rules()


class Evidence:
    """How likely each suggestion of a cell meets the limits, by its seeds on the validation split.

    Args:
        spec: the sweep.
        suggestions: those that have outcomes, from which the spread of seeds is pooled.
        rules: thresholds.
    """

    def __init__(self, spec: SweepSpec, suggestions: Iterable[Suggestion], rules: Rules = RULES) -> None:
        size, n_limits = spec.search.suggestions, len(spec.constraints)
        self._spec = spec
        self._transfer = rules.transfer
        self._selected = rules.selected
        self._n = np.zeros(size)
        self._has_failed = np.zeros(size, dtype=bool)
        self._ranks = np.full(size, math.nan)  # of the mean objective, smaller is better
        self._means, self._worst = np.zeros((n_limits, size)), np.zeros((n_limits, size))  # violations of limits
        self._squares, self._n_free = np.zeros((n_limits + 1, size)), np.zeros((n_limits + 1, size), dtype=int)
        self._pools = [Pool() for _ in range(n_limits + 1)]  # of each limit, and of the objective
        self._known: Reals | None = None
        self._n_rows = 0
        self.update(suggestions)

    def update(self, suggestions: Iterable[Suggestion]) -> None:
        """Take in suggestions that have new outcomes; whatever the order, the sums are the same to the last bit."""
        for suggestion in suggestions:
            row, outcomes = suggestion.number, suggestion.on("validation")
            if not outcomes:
                continue
            objective = known_values(outcomes, self._spec.objective)
            self._n[row] = len(outcomes)
            self._has_failed[row] = any(outcome.status != "completed" for outcome in outcomes.values())
            self._n_rows = max(self._n_rows, row + 1)
            self._ranks[row] = rank(self._spec.objective, fmean(objective))
            for index, constraint in enumerate([*self._spec.constraints, None]):
                values = objective
                if constraint is not None:
                    values = [constraint.violation(one) for one in known_values(outcomes, constraint.metric)]
                    self._means[index, row], self._worst[index, row] = fmean(values), max(values)
                pool = Pool.of(values)
                self._squares[index, row], self._n_free[index, row] = pool.squares, pool.n_free
            self._known = None

    def _now(self) -> Reals:
        """Return `feasibility` of every suggestion so far, (S,)."""
        if self._known is None:
            rows = slice(self._n_rows)
            sums = zip(self._squares[:, rows].tolist(), self._n_free.sum(axis=1).tolist(), strict=True)
            self._pools = [Pool(math.fsum(squares), n_free) for squares, n_free in sums]
            found = np.where(self._n > 0, 1.0, math.nan)
            with np.errstate(invalid="ignore", divide="ignore"):
                for index in range(len(self._spec.constraints)):
                    of_limit = (self._means, self._squares, self._worst)
                    found[rows] *= self._meeting(index, self._n[rows], *(one[index, rows] for one in of_limit))
            found[self._has_failed] = 0.0
            self._known = found
        return self._known

    def feasibility(self, suggestion: Suggestion) -> float:
        """Return the probability that a suggestion meets every limit, by the spec's rule; NaN if nothing tells.

        Limits are taken as independent. For `every_seed` it is that of all confirm seeds; for a probability p, it is
        how near the predicted probability is to p, as 0.5 · predicted / p up to p and then up to 1. It is 0 for what
        failed or was stopped.
        """
        return float(self._now()[suggestion.number])

    def _meeting(self, index: int, n: Reals, means: Reals, squares: Reals, worst: Reals) -> Reals:
        """Return the probability (R,) that each of R suggestions meets a limit.

        Args:
            index: the limit.
            n: on how many seeds each was measured, (R,).
            means: mean violation, (R,).
            squares: sum of squared differences from it, (R,).
            worst: largest violation, (R,).
        """
        rule = self._spec.search.limits_hold_for
        spread, n_free = self._pools[index].spreads(squares, n)
        variance = 1 / n + (self._transfer**2 if rule == "mean" else 1.0)
        below = stdtr(n_free, -means / (spread * np.sqrt(variance)))
        below = np.where(spread == 0, (means <= 0).astype(float), below)
        below = np.where(n_free > 0, below, math.nan)
        below = np.where(np.isfinite(means), below, 0.0)
        if rule == "mean":
            return below
        if isinstance(rule, Chance):
            wanted = rule.probability
            return np.where(below <= wanted, 0.5 * below / wanted, 1 - 0.5 * (1 - below) / (1 - wanted))
        return np.where(worst > 0, 0.0, below ** len(self._spec.seeds.of("confirm")))

    def of_limit(self, index: int, violations: list[float]) -> float:
        """Return the probability that a limit is met by a suggestion with these violations, one a seed."""
        self._now()
        facts = len(violations), fmean(violations), Pool.of(violations).squares, max(violations)
        with np.errstate(invalid="ignore", divide="ignore"):
            return float(self._meeting(index, *(np.array([fact], dtype=float) for fact in facts))[0])

    def best(self) -> int | None:
        """Return the number of the best of what rather meets the limits than not, the first of equals."""
        ranks = np.where(self._now() >= 0.5, self._ranks, math.inf)
        ranks = np.where(np.isfinite(ranks), ranks, math.inf)
        place = int(ranks.argmin())
        return place if math.isfinite(ranks[place]) else None

    def is_hopeless(self, hopeless: float) -> bool:
        """Return whether nothing that did not fail meets the limits with this probability or more; NaN may."""
        known = self._now()[(self._n > 0) & ~self._has_failed]
        return bool((known < hopeless).all())

    def order(self, hopeless: float) -> list[int]:
        """Return the numbers of what did not fail by probability of meeting the limits × gain, best first.

        By violation, the least first, if none meets the limits with the probability `hopeless` or more.
        """
        numbers = np.flatnonzero((self._n > 0) & ~self._has_failed)
        ranks, likely = self._ranks[numbers], self._now()[numbers]
        violations = np.where(np.isfinite(ranks), self._violations()[numbers], math.inf)
        promise = np.zeros(len(numbers))
        if not self.is_hopeless(hopeless):
            worst = ranks[np.isfinite(ranks)].max(initial=-math.inf)
            promise = np.where(np.isnan(likely), 1.0, likely) * (worst - ranks)
        order: list[int] = numbers[np.lexsort((numbers, violations, -promise))].tolist()
        return order

    def n_seeds(self, suggestion: Suggestion) -> int:
        """Return on how many seeds of the validation split a suggestion was measured."""
        return int(self._n[suggestion.number])

    def _violations(self) -> Reals:
        """Return the sum (S,) of the violations of all limits, in tolerances, by the spec's rule."""
        rule, total = self._spec.search.limits_hold_for, np.zeros(len(self._n))
        for index in range(len(self._spec.constraints)):
            found = self._worst[index] if rule == "every_seed" else self._means[index]
            if isinstance(rule, Chance):
                free = np.maximum(self._n - 1, 1)
                spread = np.sqrt(self._squares[index] / free) * np.sqrt(1 + 1 / np.maximum(self._n, 1))
                found = np.where(self._n > 1, found + stdtrit(free, rule.probability) * spread, math.inf)
            total += np.maximum(found, 0.0)
        return np.where(np.isnan(total), math.inf, total)

    def certainty(self, suggestion: Suggestion) -> float:
        """Return the probability that the mean of a suggestion on test meets the limit that is in most doubt.

        By its seeds on both splits. NaN if nothing tells the spread.
        """
        self._now()
        found = [1.0]
        for pool, constraint in zip(self._pools, self._spec.constraints, strict=False):
            test, validation = (
                [constraint.violation(value) for value in suggestion.values(split, constraint.metric)]
                for split in ("test", "validation")
            )
            found.append(probability_of_both(test, validation, pool, self._selected))
        return min(found) if all(map(math.isfinite, found)) else math.nan

    def better(self, suggestion: Suggestion, best: Suggestion) -> float:
        """Return the probability that a suggestion's objective is better than another's, by differences on equal seeds.

        NaN if nothing tells.
        """
        metric = self._spec.objective
        own, other = (s.by_seed("validation", metric) for s in (suggestion, best))
        shared = [seed for seed in own if seed in other]
        differences = [rank(metric, own[seed]) - rank(metric, other[seed]) for seed in shared]
        if not differences:
            return math.nan
        self._now()
        doubled = Pool(2 * self._pools[-1].squares, self._pools[-1].n_free)  # of a difference of two
        return probability_below(differences, doubled)
