"""Which suggestions can still matter, and when a trial is stopped: what a race of seeds and the finals decide by."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from orchestrator.core.metrics import quantity
from orchestrator.search.evidence import Pool, probability_below, probability_of_both, probability_of_one
from orchestrator.search.suggestion import Outcome, Suggestion, rank
from orchestrator.spec.cells import Cell
from orchestrator.spec.fields import Chance
from orchestrator.spec.limits import never_recovers
from orchestrator.spec.sweep_spec import SweepSpec
from orchestrator.trial.stopping import StopRule, StopTest
from search_spaces import Constraint


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
    """

    transfer: float = 0.4
    hopeless: float = 0.05
    behind: float = 0.1
    sure: float = 0.95
    lost: float = 0.1
    least: float = 0.2
    n_confirmed: int = 3
    confirmed: float = 0.8


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
            found.append(probability_of_both(test, validation, pool, self._transfer))
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


_FEWEST_COMPLETED = 8
"""Completed trials of a cell from which it is learned how much a trial recovers after a boundary."""

_CONTROLS = 8
"""One in so many trials runs on where its rule would stop it."""

_LARGEST = 1e6
"""A violation in tolerances that no trial has."""


@dataclass
class Shown:
    """What stopping did in a cell, and what the trials showed that ran on to judge it by.

    Args:
        n_stopped: trials that a rule stopped.
        tasks_trained: tasks that these were trained on.
        n_tasks: tasks of the stream; 0 if no trial ran to its end.
        n_controls: trials that a rule would have stopped and that ran on.
        n_recovered: of these, those that met at the end every limit that they would have been stopped for.
    """

    n_stopped: int = 0
    tasks_trained: int = 0
    n_tasks: int = 0
    n_controls: int = 0
    n_recovered: int = 0

    @property
    def trials_saved(self) -> float:
        """Return what was not trained, in whole trials; NaN if it is not known how many tasks there are."""
        return self.n_stopped - self.tasks_trained / self.n_tasks if self.n_tasks else math.nan

    def count(self, outcome: Outcome, rule: StopRule | None, spec: SweepSpec) -> None:
        """Take in a trial that ended."""
        if outcome.status == "stopped":
            self.n_stopped += 1
            self.tasks_trained += len(outcome.boundaries)
        if outcome.status != "completed" or not outcome.boundaries:
            return
        self.n_tasks = len(outcome.boundaries)
        if rule is None or not rule.is_control:
            return
        enforced, (*earlier, last) = replace(rule, is_control=False), outcome.boundaries
        broken = {t.limit for at, values in enumerate(earlier) if (t := enforced.broken(values, at)) is not None}
        if broken:
            self.n_controls += 1
            ended = (c.violation(last[c.metric]) <= 0 for c in spec.constraints if c.name in broken)
            self.n_recovered += all(ended)


class Stopping:
    """Which rule a trial of a cell gets: what is proven, and what the completed trials of the cell have shown.

    Args:
        spec: the sweep.
        cell: the cell; one with nothing to search is never stopped.
        rules: thresholds.
    """

    def __init__(self, spec: SweepSpec, cell: Cell, rules: Rules = RULES) -> None:
        self._spec, self._score, self._rules = spec, str(spec.score_of(cell.scenario)), rules
        stoppable = spec.stoppable if cell.is_searched else ()
        self._limits = [(i, c) for i, c in enumerate(spec.constraints) if c.metric in stoppable]
        self._n_completed = 0
        self._recovered: dict[int, list[float]] = {}
        self.shown = Shown()

    def learn(self, outcome: Outcome, rule: StopRule | None) -> None:
        """Take in a trial that ended: where it was stopped, or how much less it violated each limit then than before.

        Args:
            outcome: how it ended.
            rule: what travelled with it.
        """
        self.shown.count(outcome, rule, self._spec)
        if outcome.status != "completed" or len(outcome.boundaries) < 2:
            return
        self._n_completed += 1
        *earlier, last = outcome.boundaries
        for index, constraint in self._limits:
            end = constraint.violation(last[constraint.metric])
            less = [constraint.violation(values[constraint.metric]) - end for values in earlier]
            most = self._recovered.setdefault(index, [0.0] * len(less))
            self._recovered[index] = [max(a, b) if b == b else a for a, b in zip(most, less, strict=True)]

    def rule(self, suggestion: Suggestion, key: str, evidence: Evidence) -> StopRule | None:
        """Return the rule of the next trial of a suggestion on the validation split, None if nothing may stop it."""
        tests = [test for limit in self._limits for test in self._tests(*limit, suggestion, evidence)]
        return StopRule(tuple(tests), self._score, int(key[:8], 16) % _CONTROLS == 0) if tests else None

    def _tests(
        self, index: int, constraint: Constraint, suggestion: Suggestion, evidence: Evidence
    ) -> Iterator[StopTest]:
        known = suggestion.values("validation", constraint.metric)
        if (bound := proven_bound(self._spec, constraint, known)) is not None:
            yield StopTest(constraint.name, constraint.metric, constraint.operator, (bound,), "proven")
        if self._spec.search.stop != "calibrated" or self._n_completed < _FEWEST_COMPLETED:
            return
        violations = [constraint.violation(value) for value in known]
        end = _smallest(lambda v: evidence.of_limit(index, [*violations, v]) < self._rules.hopeless)
        if math.isfinite(end):
            sign = constraint.tolerance if constraint.operator == "<=" else -constraint.tolerance
            bounds = tuple(constraint.limit + sign * (end + most) for most in self._recovered[index])
            yield StopTest(constraint.name, constraint.metric, constraint.operator, bounds, "calibrated")


def proven_bound(spec: SweepSpec, constraint: Constraint, known: Sequence[float] = ()) -> float | None:
    """Return beyond which value of a seed a limit is broken whatever follows; None if no value proves that.

    Args:
        spec: the sweep.
        constraint: the limit.
        known: values of the suggestion's other seeds on the validation split, so far.
    """
    if not never_recovers(constraint):
        return None
    if spec.search.limits_hold_for == "every_seed":
        return constraint.limit
    n_seeds = len(spec.seeds.of("search")) + len(spec.seeds.of("finals"))
    definition = quantity(constraint.metric).definition
    best, worst = definition.low, definition.high
    if constraint.operator == ">=":
        best, worst = worst, best
    bound = n_seeds * constraint.limit - sum(known) - (n_seeds - len(known) - 1) * best
    return bound if constraint.violation(bound) < constraint.violation(worst) else None


def _smallest(is_true: Callable[[float], bool]) -> float:
    """Return the smallest violation for which something is true, to a thousandth; infinite if it is for none."""
    if not is_true(_LARGEST):
        return math.inf
    low, high = 0.0, 1.0
    while not is_true(high):
        low, high = high, 2 * high
    while high - low > 1e-3 * max(high, 1.0):
        middle = (low + high) / 2
        low, high = (low, middle) if is_true(middle) else (middle, high)
    return high
