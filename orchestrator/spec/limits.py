"""What can be wrong with the score, the objective and the limits of a sweep."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING

from orchestrator.core.metrics import METRICS, OVER_TIME, Quantity, quantity
from orchestrator.core.scores import Score
from orchestrator.core.text import nearest
from orchestrator.spec.cells import Cell
from search_spaces import Constraint, SpaceError

if TYPE_CHECKING:
    from orchestrator.spec.sweep_spec import SweepSpec


def limit_faults(spec: SweepSpec, is_recorded: bool = False) -> Iterator[str]:
    """Yield what is wrong with the objective and the limits, whatever the scenarios are.

    In a spec that is recorded, a limit that every trial meets is none.
    """
    try:
        quantity(spec.objective)
    except ValueError as error:
        yield f"objective: {error}"
    constraints: list[tuple[int, Constraint]] = []
    for index, text in enumerate(spec.limits):
        try:
            constraint = Constraint.parse(text)
            quantity(constraint.metric)
        except (SpaceError, ValueError) as error:
            yield f"limits.{index}: {error}"
            continue
        constraints.append((index, constraint))
        if _is_violated_by_all(constraint):
            yield f"limits.{index}: '{constraint.name}' can never be met: {_range(constraint)}; {_mend(constraint)}"
        elif _is_met_by_all(constraint) and not is_recorded:
            yield (
                f"limits.{index}: '{constraint.name}' can never be violated: {_range(constraint)}; {_mend(constraint)}"
            )
    for (_, one), (index, other) in combinations(constraints, 2):
        if str(quantity(one.metric)) != str(quantity(other.metric)):
            continue
        if one.operator == other.operator:
            yield f"limits.{index}: '{one.name}' and '{other.name}' limit the same metric twice; keep one"
        elif other.margin(one.limit) < 0 and one.margin(other.limit) < 0:
            yield f"limits.{index}: '{one.name}' and '{other.name}' can never be met together; change one of them"


def asked_within_tasks(spec: SweepSpec) -> list[str]:
    """Return what the objective and the limits name that is evaluated within tasks, without what is at fault."""
    found: dict[str, None] = {}
    for text in (spec.objective, *spec.limits) if spec.training.evaluate_every is not None else ():
        try:
            name = text if text == spec.objective else Constraint.parse(text).metric
            if quantity(name).metric in OVER_TIME:
                found[name] = None
        except (SpaceError, ValueError):
            continue
    return list(found)


def score_faults(spec: SweepSpec) -> Iterator[str]:
    """Yield what is wrong with `score` and `scores`, whatever the data are."""
    asked = {"score": spec.score} if isinstance(spec.score, str) else {f"score.{s}": t for s, t in spec.score.items()}
    asked |= {f"scores.{index}": text for index, text in enumerate(spec.scores)}
    for where, text in asked.items():
        try:
            Score.parse(text)
        except ValueError as error:
            yield f"{where}: {error}"
    for scenario in () if isinstance(spec.score, str) else spec.score:
        if scenario not in spec.scenarios:
            yield f"score.{scenario}: there is no such scenario in this sweep; {nearest(scenario, spec.scenarios)}"


def score_notes(spec: SweepSpec) -> Iterator[str]:
    """Yield what a user should know about a valid spec's scores."""
    limited = {quantity(text) for text in (*(c.metric for c in spec.constraints), spec.objective)}
    for scenario in spec.scenarios:
        score = spec.score_of(scenario)
        others = {q.score_in(score) for q in limited} - {score, None}
        if score.kind == "recall" and not others:
            yield (
                f"{scenario}: a recall of 1 is reached by answering '{score.class_name}' to everything; limit "
                f"precision({score.class_name}).average or average_accuracy too, or use f1({score.class_name})"
            )


def metric_faults(spec: SweepSpec, cell: Cell, task_names: Sequence[str]) -> Iterator[str]:
    """Yield why the objective or a limit does not exist for a scenario with these tasks."""
    for where, asked in _asked(spec).items():
        metric, least = asked.metric, asked.definition.least_tasks
        if metric == "forward_transfer" and cell.incremental_type != "domain":
            yield f"{where}: {cell.scenario} has no {metric}, which needs a domain scenario; drop one of the two"
        elif len(task_names) < least:
            yield f"{where}: {cell.scenario} has no {metric}, which needs {least} tasks or more; drop one of the two"
        elif unknown := [name for name in asked.tasks if name not in task_names]:
            yield f"{where}: {cell.scenario} has no task '{unknown[0]}'; {nearest(unknown[0], task_names)}"
        elif asked.tasks and least > 1 and metric != "forward_transfer" and set(asked.tasks) == {task_names[-1]}:
            what = f"'{task_names[-1]}' is the last task of {cell.scenario}"
            yield f"{where}: {what}: nothing follows that forgets it; name another"
        elif metric == "forward_transfer" and set(asked.tasks) == {task_names[0]}:
            what = f"'{task_names[0]}' is the first task of {cell.scenario}"
            yield f"{where}: {what}: nothing is transferred to it; name another"


def class_faults(
    spec: SweepSpec, cell: Cell, task_names: Sequence[str], classes: Mapping[str, Sequence[str]]
) -> Iterator[str]:
    """Yield scores that a scenario cannot have.

    Args:
        spec: the sweep.
        cell: a cell of the scenario.
        task_names: name of each task.
        classes: task -> the classes of its held-out examples.
    """
    known = list(dict.fromkeys(name for names in classes.values() for name in names))
    asked = {"score": Quantity("average", spec.score_of(cell.scenario))}
    asked |= {f"scores.{index}": Quantity("average", Score.parse(text)) for index, text in enumerate(spec.scores)}
    said = set()
    for where, one in (asked | _asked(spec)).items():
        score = one.score_in(spec.score_of(cell.scenario))
        if score is None or (score, one.tasks) in said or not set(one.tasks) <= set(task_names):
            continue
        said.add((score, one.tasks))
        if score.class_name is not None and score.class_name not in known:
            yield f"{where}: {cell.scenario} has no class '{score.class_name}'; {nearest(score.class_name, known)}"
            continue
        looked_at = one.tasks or (task_names[:-1] if one.definition.least_tasks > 1 else task_names)
        if not any(_has(score, classes[task]) for task in looked_at):
            what = f"no example of class '{score.class_name}'" if score.class_name else "examples of one class only"
            yield f"{where}: {score} is undefined on {', '.join(looked_at)}, which has {what}; choose another score"


def undefined_tasks(score: Score, classes: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the tasks that cannot have a score, given the classes of their held-out examples."""
    return [task for task, names in classes.items() if not _has(score, names)]


def _has(score: Score, classes: Sequence[str]) -> bool:
    if score.class_name is not None:
        return score.class_name in classes
    return not score.is_ranked or len(classes) > 1


def _asked(spec: SweepSpec) -> dict[str, Quantity]:
    """Return the place of the objective and of each limit in the spec -> what it names; only what is valid."""
    found = {}
    texts = {"objective": spec.objective}
    for index, text in enumerate(spec.limits):
        try:
            texts[f"limits.{index}"] = Constraint.parse(text).metric
        except SpaceError:
            continue
    for where, text in texts.items():
        try:
            found[where] = quantity(text)
        except ValueError:
            continue
    return found


def _is_violated_by_all(constraint: Constraint) -> bool:
    metric = quantity(constraint.metric).definition
    return constraint.margin(metric.low if constraint.operator == "<=" else metric.high) < 0


def _is_met_by_all(constraint: Constraint) -> bool:
    metric = quantity(constraint.metric).definition
    return constraint.margin(metric.high if constraint.operator == "<=" else metric.low) >= 0


def _range(constraint: Constraint) -> str:
    metric = quantity(constraint.metric).definition
    if math.isinf(metric.high):
        return f"it is at least {metric.low:g}"
    return f"it lies between {metric.low:g} and {metric.high:g}"


def _mend(constraint: Constraint) -> str:
    """Return the way out; a limit on a score that is larger than 1 was probably meant in points."""
    if quantity(constraint.metric).metric in METRICS and 1 < abs(constraint.limit) <= 100:
        points = f"{abs(constraint.limit):g} point" + ("" if abs(constraint.limit) == 1 else "s")
        return f"{points} are {constraint.limit / 100:g}"
    return "change the number or drop the limit"


_ONLY_GROWS = {"worst_forgetting_ever": "<=", "worst_score": ">="}
"""Metrics that a further task can only make worse -> the operator of a limit that this can break for good."""


def never_recovers(constraint: Constraint) -> bool:
    """Return whether a limit that is broken at a boundary is broken at the end."""
    return _ONLY_GROWS.get(quantity(constraint.metric).metric) == constraint.operator


def is_measured_at_boundaries(constraint: Constraint) -> bool:
    """Return whether a limit is on a quantity of R alone that has a meaning after each task."""
    name = quantity(constraint.metric).metric
    return name in METRICS and name not in ("forward_transfer", *OVER_TIME)
