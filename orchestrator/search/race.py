"""Which suggestions can still matter: what a race of seeds, and the finals, decide by."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from orchestrator.search.evidence import Pool, probability_below, probability_of_both, probability_of_one
from orchestrator.search.suggestion import Suggestion, rank
from orchestrator.spec.fields import Chance
from orchestrator.spec.sweep_spec import SweepSpec


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
    n_confirmed: int = 10
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
        self._spec = spec
        self._transfer = rules.transfer
        self._selected = rules.selected
        self._of_each: dict[int, list[Pool]] = {}
        self._limits, self._objective = [Pool() for _ in spec.constraints], Pool()
        self.update(suggestions)

    def update(self, suggestions: Iterable[Suggestion]) -> None:
        """Take in suggestions that have new outcomes; whatever the order, the sums are the same to the last bit."""
        changed = False
        for suggestion in suggestions:
            values = [*self._violations(suggestion), suggestion.values("validation", self._spec.objective)]
            pools = [Pool.of(one) for one in values]
            changed |= self._of_each.get(suggestion.number) != pools
            self._of_each[suggestion.number] = pools
        if changed:
            *self._limits, self._objective = map(Pool.sum, zip(*self._of_each.values(), strict=True))

    def _violations(self, suggestion: Suggestion) -> list[list[float]]:
        return [
            [c.violation(value) for value in suggestion.values("validation", c.metric)] for c in self._spec.constraints
        ]

    def feasibility(self, suggestion: Suggestion) -> float:
        """Return the probability that a suggestion meets every limit, by the spec's rule; NaN if nothing tells.

        Limits are taken as independent. For `every_seed` it is that of all confirm seeds; for a probability p, it is
        how near the predicted probability is to p, as 0.5 · predicted / p up to p and then up to 1.
        """
        if not suggestion.on("validation") or suggestion.has_failed("validation"):
            return 0.0 if suggestion.on("validation") else math.nan
        found = 1.0
        for index, violations in enumerate(self._violations(suggestion)):
            found *= self.of_limit(index, violations)
        return found

    def of_limit(self, index: int, violations: list[float]) -> float:
        """Return the probability that a limit is met by a suggestion with these violations, one a seed."""
        rule, pool = self._spec.search.limits_hold_for, self._limits[index]
        if rule == "mean":
            return probability_below(violations, pool, self._transfer)
        if rule == "every_seed" and max(violations) > 0:
            return 0.0
        one = probability_of_one(violations, pool)
        if isinstance(rule, Chance):
            return _past(one, rule.probability)
        return one ** len(self._spec.seeds.of("confirm"))

    def certainty(self, suggestion: Suggestion) -> float:
        """Return the probability that the mean of a suggestion on test meets the limit that is in most doubt.

        By its seeds on both splits. NaN if nothing tells the spread.
        """
        found = [1.0]
        for pool, constraint in zip(self._limits, self._spec.constraints, strict=True):
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
        doubled = Pool(2 * self._objective.squares, self._objective.n_free)  # of a difference of two
        return probability_below(differences, doubled)


def _past(probability: float, wanted: float) -> float:
    """Return 0.5 where a probability is just what is wanted, 0 for 0 and 1 for 1, and straight lines between."""
    return 0.5 * probability / wanted if probability <= wanted else 1 - 0.5 * (1 - probability) / (1 - wanted)


def can_matter(suggestion: Suggestion, evidence: Evidence, best: Suggestion | None, rules: Rules = RULES) -> bool:
    """Return whether a suggestion should get its next seed in the race.

    Args:
        suggestion: has an outcome on each seed so far.
        evidence: of its cell.
        best: the best suggestion so far that seems to meet the limits.
        rules: thresholds.
    """
    if evidence.feasibility(suggestion) < rules.hopeless:  # NaN is not
        return False
    return best is None or best is suggestion or not evidence.better(suggestion, best) < rules.behind


def best_so_far(spec: SweepSpec, suggestions: Sequence[Suggestion], evidence: Evidence) -> Suggestion | None:
    """Return the best of the suggestions that rather meet the limits than not, the first of equals."""
    ranks = ((rank(spec.objective, s.mean("validation", spec.objective)), s.number, s) for s in suggestions)
    known = sorted((found for found in ranks if math.isfinite(found[0])), key=lambda found: found[:2])
    return next((s for _, _, s in known if evidence.feasibility(s) >= 0.5), None)


def contenders(
    spec: SweepSpec, suggestions: Sequence[Suggestion], evidence: Evidence, rules: Rules = RULES
) -> list[Suggestion]:
    """Return the suggestions in the order of the finals: by probability of meeting the limits × gain, best first.

    The gain is how much better than the worst suggestion the objective is. What surely violates a limit comes last, the
    nearest miss first.
    """
    known = [s for s in suggestions if s.on("validation") and not s.has_failed("validation")]
    if known and max(evidence.feasibility(s) for s in known) < rules.hopeless:  # NaN is not
        return sorted(known, key=lambda s: (s.total_violation("validation", spec), s.number))
    ranks = {s.number: rank(spec.objective, s.mean("validation", spec.objective)) for s in known}
    worst = max(ranks.values(), default=0.0)

    def place(suggestion: Suggestion) -> tuple[float, float, int]:
        likely = evidence.feasibility(suggestion)
        likely = 1.0 if math.isnan(likely) else likely
        promise = likely * (worst - ranks[suggestion.number])
        return -promise, suggestion.total_violation("validation", spec), suggestion.number

    return sorted(known, key=place)


def chosen_of(
    spec: SweepSpec, suggestions: Sequence[Suggestion], evidence: Evidence, rules: Rules = RULES
) -> list[Suggestion]:
    """Return the suggestions that may be recommended, best first.

    The order is that of `contenders`.
    """
    return [
        s
        for s in contenders(spec, suggestions, evidence, rules)
        if len(s.on("validation")) >= len(spec.seeds.of("search")) and evidence.feasibility(s) >= rules.least
    ]
