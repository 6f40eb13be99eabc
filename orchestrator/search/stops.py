"""When a trial is stopped at a task boundary: what is proven, and what completed trials of its cell have shown."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from orchestrator.core.metrics import KNOWN_BEFORE, quantity
from orchestrator.search.evidence import RULES, Evidence, Rules
from orchestrator.search.suggestion import Outcome, Suggestion
from orchestrator.spec.cells import Cell
from orchestrator.spec.limits import never_recovers
from orchestrator.spec.sweep_spec import SweepSpec
from orchestrator.trial.stopping import StopRule, StopTest
from search_spaces import Constraint

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
        if not self.tasks_trained:  # all were stopped before training
            return float(self.n_stopped)
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
        calibrated = tuple(test for test in rule.tests if test.kind == "calibrated")
        enforced, (*earlier, last) = StopRule(calibrated, rule.score), outcome.boundaries
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
        may_stop = cell.is_searched and spec.search.stop != "none" and not spec.is_of_before
        knows = may_stop and cell.found.knows_kept_bytes
        self._before = [c for c in spec.constraints if knows and c.metric in KNOWN_BEFORE and c.operator == "<="]
        stoppable = spec.stoppable if may_stop else ()
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
        tests = [StopTest(c.name, c.metric, c.operator, (c.limit,), "proven") for c in self._before]
        tests += [test for limit in self._limits for test in self._tests(*limit, suggestion, evidence)]
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
