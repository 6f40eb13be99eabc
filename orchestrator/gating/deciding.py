"""PASS, FAIL or INCONCLUSIVE: the rule from lines to a verdict.

A line is `met` if a one-sided test at level alpha shows that the challenger is not worse by the limit, `violated` if
one shows that it is worse by more, else `undecided`.

Which way many lines go: PASS needs every critical line to be met. So a wrong PASS needs a wrong `met` on the very line
whose limit is violated, which has a chance of at most alpha however many lines there are, and nothing is corrected
(intersection-union test, Berger 1982, Technometrics 24:295). FAIL needs one violated line out of many, so the chances
of a wrong one add up: their p-values are corrected after Holm 1979 over all lines of one severity, which keeps the
chance of a wrong FAIL at alpha. Both hold exactly for a line on one share of right answers. Lines on means, on other
scores and on seeds are as good as their approximation, which `tests/gating` simulates.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from orchestrator.core.text import counted
from orchestrator.gating.comparing import Comparison
from orchestrator.gating.drafting import Draft, drafts
from orchestrator.gating.evidence import Evidence
from orchestrator.gating.multiple_tests import holm
from orchestrator.gating.policy import Policy, Severity

Outcome = Literal["PASS", "FAIL", "INCONCLUSIVE"]

Verdict = Literal["met", "violated", "undecided", "missing", "undefined"]
"""`missing`: not evaluated. `undefined`: no example of the task can have the score, so the limit does not apply."""


@dataclass(frozen=True)
class Line:
    """A check on one task, or on all together.

    Args:
        name: of the check.
        kind: what is compared.
        severity: what a violation means.
        is_required: whether there is no PASS without it.
        task: the task; None for all together.
        score: what is compared; None for a cost.
        limit: by how much the challenger may be worse; of a cost, its largest value.
        verdict: what the evidence says.
        reason: why, and what would decide.
        estimate: the challenger less the champion; of a cost, the challenger's value. NaN if there is none.
        interval: of the difference, at level 1 - 2 alpha; NaN if there is none.
        p_met: of 'it is worse by the limit or more', not corrected.
        p_violated: of 'it is worse by no more than the limit', after Holm's correction over the lines of a severity.
        p_differs: of 'both are equally good' (McNemar), after Holm's correction over the lines of the check; NaN unless
            one share of right answers is compared.
        n: examples or seeds.
        unit: `example` or `seed`; empty for a cost and without a comparison.
        n_more: how many more would decide with 80 % power, if the estimate stays; None if decided or not known.
    """

    name: str
    kind: str
    severity: Severity
    is_required: bool
    task: str | None
    score: str | None
    limit: float
    verdict: Verdict
    reason: str
    estimate: float = math.nan
    interval: tuple[float, float] = (math.nan, math.nan)
    p_met: float = math.nan
    p_violated: float = math.nan
    p_differs: float = math.nan
    n: int = 0
    unit: str = ""
    n_more: int | None = None


@dataclass(frozen=True)
class GateReport:
    """What a gate says.

    Args:
        outcome: whether the challenger may replace the champion.
        reasons: why it is no PASS; none if it is.
        alpha: the level of the tests.
        lines: every check, in the order of the policy.
    """

    outcome: Outcome
    reasons: tuple[str, ...]
    alpha: float
    lines: tuple[Line, ...]


def decide(evidence: Evidence, policy: Policy) -> GateReport:
    """Return whether a challenger may replace the champion.

    FAIL: a critical line is violated. PASS: every critical line is met, none that is required is missing, and no
    supporting line is violated. INCONCLUSIVE: all else. Informational lines change nothing.

    Args:
        evidence: what is known of both.
        policy: the checks.
    """
    found = [draft for check in policy.checks for draft in drafts(evidence, check, policy.alpha)]
    violated = _corrected(found, "p_violated", [draft.check.severity for draft in found])
    differs = _corrected(found, "p_differs", [draft.check.name for draft in found])
    lines = tuple(
        _line(draft, policy.alpha, draft.check.score or str(evidence.score), p_violated, p_differs)
        for draft, p_violated, p_differs in zip(found, violated, differs, strict=True)
    )
    failures = tuple(_failures(lines))
    if failures:
        return GateReport("FAIL", failures, policy.alpha, lines)
    doubts = tuple(_doubts(lines))
    return GateReport("INCONCLUSIVE" if doubts else "PASS", doubts, policy.alpha, lines)


def _corrected(found: Sequence[Draft], field: str, families: Sequence[str]) -> list[float]:
    """Return a p-value of each draft after Holm's correction over its family; a cost is no test and is not counted."""
    p_values = [
        getattr(draft.comparison, field) if draft.comparison and draft.comparison.n else math.nan for draft in found
    ]
    corrected = [math.nan] * len(found)
    for family in set(families):
        places = [str(place) for place, name in enumerate(families) if name == family]
        for place, p in holm({place: p_values[int(place)] for place in places}).items():
            corrected[int(place)] = p
    return corrected


def _line(draft: Draft, alpha: float, score: str, p_violated: float, p_differs: float) -> Line:
    check, found = draft.check, draft.comparison
    verdict: Verdict
    n_more = None
    if found is None:
        verdict, reason = draft.gap or ("missing", "it was not evaluated")
    elif not found.n:
        is_met = found.p_met == 0
        verdict, reason = ("met", "") if is_met else ("violated", "it is more than the limit")
    elif found.p_met <= alpha:
        verdict, reason = "met", ""
    elif p_violated <= alpha:
        verdict, reason = "violated", "it is worse by more than the limit"
    else:
        n_more = found.n_more(alpha)
        verdict, reason = "undecided", _open_question(found, draft.limit, n_more)
    general = Line(
        check.name, check.kind, check.severity, check.is_required, draft.task, score, draft.limit, verdict, reason
    )
    if found is None:
        return general
    return replace(
        general,
        score=score if found.n else None,
        estimate=found.estimate,
        interval=found.interval,
        p_met=found.p_met if found.n else math.nan,
        p_violated=p_violated,
        p_differs=p_differs,
        n=found.n,
        unit=found.unit,
        n_more=n_more,
    )


def _open_question(found: Comparison, limit: float, n_more: int | None) -> str:
    """Return what would decide, in words."""
    if n_more is not None:
        side = "met" if found.estimate > -limit else "violated"
        return f"about {counted(n_more, f'more {found.unit}')} would show that it is {side}, if the estimate stays"
    if found.unit == "seed" and found.n == 1:
        return "a single seed shows no spread; run more seeds of both"
    return "the estimate is too close to the limit to say how many more would decide"


def _named(line: Line) -> str:
    return line.name if line.task is None else f"{line.name}, {line.task}"


def _failures(lines: Sequence[Line]) -> Iterator[str]:
    for line in lines:
        if line.severity == "critical" and line.verdict == "violated":
            yield f"{_named(line)}: {line.reason}"


def _doubts(lines: Sequence[Line]) -> Iterator[str]:
    """Yield what stands in the way of PASS, if nothing fails."""
    critical = [line for line in lines if line.severity == "critical"]
    for line in lines:
        is_open = line.severity == "critical" and line.verdict == "undecided"
        is_gap = line.is_required and line.verdict == "missing"
        if is_open or is_gap or (line.severity == "supporting" and line.verdict == "violated"):
            yield f"{_named(line)}: {line.reason}"
    for name in dict.fromkeys(line.name for line in lines if line.is_required):
        if all(line.verdict == "undefined" for line in lines if line.name == name):
            yield f"{name}: no task can have the score"
    if not any(line.verdict == "met" for line in critical):
        yield "no critical check was met"
