"""The numbers of a paper's table: a metric of a method in a scenario on the test split, with what is marked at it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from orchestrator.core.metrics import number, quantity
from orchestrator.core.text import counted
from orchestrator.search.answers.certainty import Comparison
from orchestrator.search.answers.full_answer import Answer, Measured, MethodAnswer, Number, ScenarioAnswer
from search_spaces import Constraint

Verdict = Literal["met", "not surely", "violated", "unknown"]
"""Of a method's limits on test: `not surely` if its means meet them by too little to be recommended."""

BOUND, TIED, VIOLATED, UNSURE, ABSENT = "*", "†", "‡", "§", "—"
"""Marks: an upper bound; not told apart from the best; a limit violated; met, but not surely; not measured."""


@dataclass(frozen=True)
class Entry:
    """A metric of a method in a scenario, on the test split.

    Args:
        scenario: the scenario.
        method: the method.
        metric: the metric or cost.
        is_bound: whether the method is an upper bound, such as `joint`.
        number: over the seeds; None if it was not measured, or a trial did not complete.
        n_seeds: on how many seeds; 0 if it was not measured.
        reason: why there is no number; else empty.
        verdict: of the method's limits.
        violated: the limits that the method violates.
        is_recommended: whether the answer recommends the method.
        is_best: whether it is the objective of what is best among what meets the limits.
        comparison: the best one's objective less its own, paired by seed; None for other metrics, for upper bounds,
            and where there is nothing to compare with.
        is_marked: whether the marks of the limits stand at it: at the objective, and at what is violated.
    """

    scenario: str
    method: str
    metric: str
    is_bound: bool
    number: Number | None
    n_seeds: int
    reason: str
    verdict: Verdict
    violated: tuple[str, ...]
    is_recommended: bool
    is_best: bool
    comparison: Comparison | None
    is_marked: bool

    @property
    def is_tied(self) -> bool:
        """Return whether it is not told apart from the best."""
        return self.comparison is not None and not self.comparison.is_told_apart

    @property
    def text(self) -> str:
        """Return mean ± half-width of the 95 % interval as people read it, without marks."""
        if self.number is None:
            return ABSENT
        unit, half = quantity(self.metric).metric, self.number.half_width
        mean = number(unit, self.number.mean)
        return mean if math.isnan(half) or half == 0 else f"{mean} ± {number(unit, half)}"

    @property
    def marks(self) -> str:
        """Return the marks that follow the number."""
        if self.number is None:
            return ""
        at_limits = {"violated": VIOLATED, "not surely": UNSURE}.get(self.verdict, "") if self.is_marked else ""
        return (TIED if self.is_tied else "") + at_limits


def limited(answer: Answer) -> list[str]:
    """Return the metrics that an answer's limits name."""
    return [metric_of(limit) for limit in answer.limits]


def metric_of(limit: str) -> str:
    """Return the metric of a limit as it is written."""
    return str(quantity(Constraint.parse(limit).metric))


def known_metrics(answer: Answer) -> list[str]:
    """Return every metric and cost that an answer has numbers of on test, those that it is about first."""
    found = dict.fromkeys([answer.objective, *limited(answer)])
    for scenario in answer.scenarios:
        for method in scenario.methods:
            found |= dict.fromkeys(method.test.numbers if method.test else ())
    return list(found)


def entry_of(answer: Answer, scenario: ScenarioAnswer, name: str, metric: str, shown: Sequence[str]) -> Entry:
    """Return the entry of a method, by name, in a scenario.

    Args:
        answer: of the run.
        scenario: of the answer.
        name: of the method, which the scenario may not have.
        metric: what is shown.
        shown: every metric of the table.
    """
    found = [one for one in scenario.methods if one.method == name]
    if not found:
        reason = "left out, as it does not support this incremental type"
        return Entry(scenario.scenario, name, metric, False, None, 0, reason, "unknown", (), False, False, None, False)
    method, test = found[0], found[0].test
    measured = test.numbers.get(metric) if test is not None else None
    is_known = measured is not None and math.isfinite(measured.mean)
    is_objective = metric == answer.objective
    violated = tuple(test.violated) if test is not None else ()
    is_own = metric in map(metric_of, violated)
    return Entry(
        scenario.scenario,
        name,
        metric,
        method.is_reference,
        measured if is_known else None,
        test.n_seeds if test is not None else 0,
        "" if is_known else _reason(answer, method, metric),
        _verdict(method, test),
        violated,
        name == scenario.recommended,
        is_objective and name == scenario.best_on_test,
        method.against_best if is_objective and is_known else None,
        is_objective or is_own or answer.objective not in shown,
    )


def _verdict(method: MethodAnswer, test: Measured | None) -> Verdict:
    if test is None or not test.is_known:
        return "unknown"
    if test.violated:
        return "violated"
    return "met" if method.is_confirmed or method.is_reference else "not surely"


def _reason(answer: Answer, method: MethodAnswer, metric: str) -> str:
    """Return why there is no number of a metric on test."""
    if method.test is not None:
        values = method.test.numbers[answer.objective].values
        n_failed = sum(map(math.isnan, values))
        return (
            f"{n_failed} of its {counted(len(values), 'trial')} on test did not complete"
            if n_failed
            else f"{metric} does not exist here"
        )
    if method.validation is None:
        return "not measured yet" if answer.n_missing else "no trial completed"
    if method.validation.violated:
        return f"not measured on test, as on validation it violates {' and '.join(method.validation.violated)}"
    return "not confirmed on test yet" if answer.n_missing else "not measured on test"


def bound_methods(entries: Iterable[Entry]) -> Iterator[str]:
    """Yield the upper bounds in a table."""
    yield from dict.fromkeys(entry.method for entry in entries if entry.is_bound)
