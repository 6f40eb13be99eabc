"""What a search knows about a suggestion: outcomes by seed, means, and violations of limits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import fmean
from typing import Literal

from orchestrator.core.metrics import KNOWN_BEFORE, lower_is_better
from orchestrator.search.probability import predictive_bound
from orchestrator.spec.cells import Cell
from orchestrator.spec.fields import Chance, ResolvedRequest
from orchestrator.spec.sweep_spec import SweepSpec
from orchestrator.spec.trial_spec import TrialSpec
from orchestrator.streams.facts import PHASES, Phase
from orchestrator.trial.stopping import StopRule
from search_spaces import Constraint, Value

Split = Literal["validation", "test"]
"""What a trial was measured on: the phases `search` and `finals` on validation, `confirm` on test."""


@dataclass(frozen=True)
class Outcome:
    """What the search needs to know of a trial.

    Args:
        status: `completed`, `stopped` by a rule, `failed` (a result) or `error` (the next run tries again).
        values: metrics and costs; of a stopped trial those at the boundary that are looked at there.
        boundaries: what limits look at, after each task that was measured; empty where nothing may be stopped.
    """

    status: str
    values: Mapping[str, float]
    boundaries: tuple[Mapping[str, float], ...] = ()

    def under(self, rule: StopRule | None) -> Outcome | None:
        """Return the outcome of this trial under a rule, whatever rule it ran under; None if the rest of it is missing.

        So a search is the same whether its trials were stopped or ran to the end for another search.
        """
        known = {name: self.values[name] for name in KNOWN_BEFORE if name in self.values}
        stopped = None if rule is None else rule.first_broken(self._before_the_end, known)
        if stopped == -1:
            return Outcome("stopped", known)
        if stopped is not None:
            return Outcome("stopped", self.boundaries[stopped], self.boundaries[: stopped + 1])
        return None if self.status == "stopped" else self

    @property
    def _before_the_end(self) -> tuple[Mapping[str, float], ...]:
        return self.boundaries[:-1] if self.status == "completed" else self.boundaries


@dataclass(frozen=True)
class PlannedTrial:
    """A trial to run, with its place in the search.

    Args:
        spec: the trial.
        cell: its cell.
        suggestion: the number of its suggestion in that cell.
        request: what it asks of the cluster.
        stop: when it is stopped at a task boundary; None for never.
    """

    spec: TrialSpec
    cell: Cell
    suggestion: int
    request: ResolvedRequest
    stop: StopRule | None = None


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
    outcomes: dict[Phase, dict[int, Outcome]] = field(default_factory=lambda: {phase: {} for phase in PHASES})

    def on(self, split: Split) -> dict[int, Outcome]:
        """Return seed -> outcome of its trials on a split, in the order of the seeds within each phase."""
        phases: tuple[Phase, ...] = ("confirm",) if split == "test" else ("search", "finals")
        return {seed: self.outcomes[phase][seed] for phase in phases for seed in sorted(self.outcomes[phase])}

    def values(self, split: Split, metric: str) -> list[float]:
        """Return a metric for each seed; NaN if the trial did not complete."""
        return known_values(self.on(split), metric)

    def by_seed(self, split: Split, metric: str) -> dict[int, float]:
        """Return a metric by seed; NaN if the trial did not complete."""
        outcomes = self.on(split)
        return dict(zip(outcomes, known_values(outcomes, metric), strict=True))

    def mean(self, split: Split, metric: str) -> float:
        """Return the mean over seeds; NaN if there is none, or one did not complete."""
        values = self.values(split, metric)
        return fmean(values) if values else math.nan

    def violations(self, split: Split, spec: SweepSpec) -> list[float]:
        """Return the violation of each limit in tolerances: ≤ 0 if it is met, NaN if it is not known."""
        return [violation_of(c, self.values(split, c.metric), spec) for c in spec.constraints]

    def is_feasible(self, split: Split, spec: SweepSpec) -> bool:
        """Return whether every limit is met and the objective is known."""
        known = math.isfinite(self.mean(split, spec.objective))
        return known and all(violation <= 0 for violation in self.violations(split, spec))

    def total_violation(self, split: Split, spec: SweepSpec) -> float:
        """Return the sum of the violations, in tolerances; infinite if one is not known."""
        violations = self.violations(split, spec)
        if not math.isfinite(self.mean(split, spec.objective)) or not all(map(math.isfinite, violations)):
            return math.inf
        return sum(max(violation, 0.0) for violation in violations)

    def next_seed(self, spec: SweepSpec) -> tuple[Phase, tuple[int, ...]]:
        """Return the phase and the next seed of a finalist: first the search seeds that the race spared it."""
        phases: tuple[Phase, Phase] = ("search", "finals")
        for phase in phases:
            if left := [seed for seed in spec.seeds.of(phase) if seed not in self.outcomes[phase]]:
                return phase, (left[0],)
        return "finals", ()

    def has_stopped(self) -> bool:
        """Return whether a rule stopped one of its trials, and none failed."""
        statuses = {outcome.status for outcome in self.on("validation").values()}
        return "stopped" in statuses and statuses <= {"stopped", "completed"}

    def has_failed(self, split: Split) -> bool:
        """Return whether a trial on a split ended without completing."""
        return any(outcome.status != "completed" for outcome in self.on(split).values())


def known_values(outcomes: Mapping[int, Outcome], metric: str) -> list[float]:
    """Return a metric of each outcome; NaN if the trial did not complete."""
    return [one.values.get(metric, math.nan) if one.status == "completed" else math.nan for one in outcomes.values()]


def violation_of(constraint: Constraint, values: list[float], spec: SweepSpec) -> float:
    """Return the violation of a limit in tolerances by the values of some seeds, by the spec's rule; NaN if unknown."""
    if not values or not all(map(math.isfinite, values)):
        return math.nan
    rule = spec.search.limits_hold_for
    violations = [constraint.violation(value) for value in values]
    if rule == "every_seed":
        return max(violations)
    if isinstance(rule, Chance):
        return predictive_bound(violations, rule.probability)
    return constraint.violation(fmean(values))


def rank(metric: str, value: float) -> float:
    """Return a sort key of a metric's value: smaller is better."""
    return value if lower_is_better(metric) else -value
