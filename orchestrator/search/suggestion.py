"""What a search knows about a suggestion: outcomes by seed, means, and violations of limits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import fmean

from orchestrator.core.metrics import lower_is_better
from orchestrator.spec.sweep_spec import SweepSpec
from orchestrator.streams.facts import Phase
from search_spaces import Constraint, Value


@dataclass(frozen=True)
class Outcome:
    """What the search needs to know of a trial.

    Args:
        status: `completed`, `failed` (a result) or `error` (the next run tries again).
        values: metrics and costs.
    """

    status: str
    values: Mapping[str, float]


@dataclass
class Suggestion:
    """One hyper-parameter assignment of a cell, and its outcomes so far.

    Args:
        number: 0, 1, … in the order in which the study was asked.
        hyperparameters: the suggested values, without fixed values and defaults.
        outcomes: phase -> seed -> outcome.
    """

    number: int
    hyperparameters: dict[str, Value]
    outcomes: dict[Phase, dict[int, Outcome]] = field(default_factory=lambda: {"search": {}, "confirm": {}})

    def values(self, phase: Phase, metric: str) -> list[float]:
        """Return a metric for each seed, in the order of the seeds; NaN if the trial did not complete."""
        outcomes = self.outcomes[phase]
        return [
            outcomes[seed].values.get(metric, math.nan) if outcomes[seed].status == "completed" else math.nan
            for seed in sorted(outcomes)
        ]

    def mean(self, phase: Phase, metric: str) -> float:
        """Return the mean over seeds; NaN if a seed is missing."""
        values = self.values(phase, metric)
        return fmean(values) if values else math.nan

    def violations(self, phase: Phase, spec: SweepSpec) -> list[float]:
        """Return the violation of each limit in tolerances: ≤ 0 if it is met, NaN if a seed is missing."""
        return [_violation(c, self.values(phase, c.metric), spec) for c in spec.constraints]

    def is_feasible(self, phase: Phase, spec: SweepSpec) -> bool:
        """Return whether every limit is met and the objective is known."""
        known = math.isfinite(self.mean(phase, spec.objective))
        return known and all(violation <= 0 for violation in self.violations(phase, spec))

    def total_violation(self, phase: Phase, spec: SweepSpec) -> float:
        """Return the sum of the violations, in tolerances; infinite if a seed is missing."""
        violations = self.violations(phase, spec)
        if not math.isfinite(self.mean(phase, spec.objective)) or not all(map(math.isfinite, violations)):
            return math.inf
        return sum(max(violation, 0.0) for violation in violations)


def _violation(constraint: Constraint, values: list[float], spec: SweepSpec) -> float:
    if not values or not all(map(math.isfinite, values)):
        return math.nan
    if spec.search.limits_hold_for == "every_seed":
        return max(constraint.violation(value) for value in values)
    return constraint.violation(fmean(values))


def rank(metric: str, value: float) -> float:
    """Return a sort key of a metric's value: smaller is better."""
    return value if lower_is_better(metric) else -value
