"""Which lines a check has, and what the evidence says on each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Literal, Protocol

from orchestrator.core.scores import Score
from orchestrator.gating.comparing import Comparison, compare_answers, compare_cost, compare_seeds
from orchestrator.gating.evidence import Cost, Evidence, ModelEvidence, ModelTask, RunEvidence, RunTask
from orchestrator.gating.policy import BY_TASK, COST_KINDS, Check

Gap = tuple[Literal["missing", "undefined"], str]
"""Why a task cannot be compared: nobody measured it, or its examples cannot have the score."""


@dataclass(frozen=True)
class Draft:
    """A line before it is decided.

    Args:
        check: the rule.
        task: the task that it is for; None for all together.
        limit: the rule's limit there.
        comparison: what the evidence says; None if there is a gap.
        gap: why there is no comparison.
    """

    check: Check
    task: str | None
    limit: float
    comparison: Comparison | None
    gap: Gap | None = None


class _Source(Protocol):
    """Compares champion and challenger on tasks of one kind of evidence."""

    def tasks(self, score: Score) -> Sequence[Any]:
        """Return every task with a score."""

    def gap(self, task: Any, score: Score, with_learned: bool) -> Gap | None:
        """Return why a task cannot be compared."""

    def compare(self, tasks: Sequence[Any], score: Score, limit: float, with_learned: bool) -> Comparison | None:
        """Return the mean difference over tasks."""


class _Models:
    """Compares two models by their answers."""

    def __init__(self, evidence: ModelEvidence, alpha: float) -> None:
        self._evidence, self._alpha = evidence, alpha

    def tasks(self, score: Score) -> Sequence[ModelTask]:
        """Return every task: any score follows from the answers."""
        return self._evidence.tasks

    def gap(self, task: ModelTask, score: Score, with_learned: bool) -> Gap | None:
        """Return why a task cannot be compared."""
        if len(task.labels) and not task.can_have(score):
            of_class = f"of {score.class_name}" if score.class_name else "of a second class"
            return "undefined", f"no held-out example is {of_class}"
        if task.answers is None:
            return "missing", task.gap
        if score.is_ranked and not all(one.log_odds for one in task.answers):
            return "missing", f"{score} needs the odds of each example, which are not in the evidence"
        if with_learned and not all(str(score) in one.learned for one in task.answers):
            return "missing", "its score right after it was learned is not known for both"
        return None

    def compare(self, tasks: Sequence[ModelTask], score: Score, limit: float, with_learned: bool) -> Comparison | None:
        """Return the mean difference over tasks, or of what happened since each was learned."""
        pairs = [pair for task in tasks if (pair := task.answers) is not None]
        learned = fmean(c.learned[str(score)] - b.learned[str(score)] for b, c in pairs) if with_learned else 0.0
        return compare_answers(tasks, score, limit, self._alpha, -learned)


class _Runs:
    """Compares two runs by seed."""

    def __init__(self, evidence: RunEvidence, alpha: float) -> None:
        self._evidence, self._alpha = evidence, alpha

    def tasks(self, score: Score) -> Sequence[RunTask]:
        """Return every task with a score; none if it was not measured."""
        return self._evidence.tasks_with(score)

    def gap(self, task: RunTask, score: Score, with_learned: bool) -> Gap | None:
        """Return why a task cannot be compared."""
        if not task.can_have_score:
            return "undefined", f"its held-out examples cannot have {score}"
        if not task.seeds:
            return "missing", task.missing or "there is no seed on which both runs measured it"
        if with_learned and not task.seeds_learned:
            return "missing", "its score right after it was learned is not known for both on any seed"
        return None

    def compare(self, tasks: Sequence[RunTask], score: Score, limit: float, with_learned: bool) -> Comparison | None:
        """Return the mean over seeds of the mean difference over tasks; None if no seed has them all."""
        seeds = frozenset.intersection(*(task.seeds_learned if with_learned else task.seeds for task in tasks))
        change = RunTask.transfer_difference if with_learned else RunTask.difference
        differences = [fmean(change(task, seed) for task in tasks) for seed in sorted(seeds)]
        return compare_seeds(differences, limit, self._alpha) if differences else None


def drafts(evidence: Evidence, check: Check, alpha: float) -> list[Draft]:
    """Return the lines of a check, one or more.

    Args:
        evidence: what is known of both.
        check: the rule.
        alpha: level of a one-sided test.
    """
    if check.kind in COST_KINDS:
        cost = evidence.costs.get(check.kind, Cost(None, None))
        found = compare_cost(cost, check.limit)
        return [Draft(check, None, check.limit, found, None if found else ("missing", "it is not known"))]
    score = check.score_or(evidence.score)
    source: _Source = _Models(evidence, alpha) if isinstance(evidence, ModelEvidence) else _Runs(evidence, alpha)
    tasks = source.tasks(score)
    if not tasks:
        return [Draft(check, None, check.limit, None, ("missing", f"nothing was measured with {score}"))]
    if check.kind in BY_TASK:
        tasks = [task for task in tasks if task.is_new == (check.kind == "new_task")]
        return list(_by_task(source, check, score, tasks))
    if check.kind == "backward_transfer":
        tasks = [task for task in tasks if not task.is_new]
    return list(_together(source, check, score, tasks))


def _by_task(source: _Source, check: Check, score: Score, tasks: Sequence[Any]) -> Iterator[Draft]:
    kind = check.kind.replace("_", " ").removesuffix("s")
    for task in tasks:
        limit, gap = check.limit_of(task.name), source.gap(task, score, False)
        found = None if gap else source.compare([task], score, limit, False)
        yield Draft(check, task.name, limit, found, gap)
    for name in sorted(check.tasks.keys() - {task.name for task in tasks}):
        yield Draft(check, name, check.tasks[name], None, ("missing", f"the evidence has no {kind} of this name"))
    if not tasks and not check.tasks:
        yield Draft(check, None, check.limit, None, ("missing", f"the evidence has no {kind}"))


def _together(source: _Source, check: Check, score: Score, tasks: Sequence[Any]) -> Iterator[Draft]:
    """Yield a single line on the mean over tasks, without those that cannot have the score."""
    with_learned = check.kind == "backward_transfer"
    gaps = {task.name: source.gap(task, score, with_learned) for task in tasks}
    missing = [f"{name}: {gap[1]}" for name, gap in gaps.items() if gap and gap[0] == "missing"]
    looked_at = [task for task in tasks if gaps[task.name] is None]
    found, reason = None, "; ".join(missing)
    if not missing and looked_at:
        found, reason = source.compare(looked_at, score, check.limit, with_learned), "no seed has every task"
    elif not missing:
        what = "earlier task" if with_learned else "task"
        reason = f"no {what} can have {score}" if tasks else f"the evidence has no {what}"
    yield Draft(check, None, check.limit, found, None if found else ("missing", reason))
