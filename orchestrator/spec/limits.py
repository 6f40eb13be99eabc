"""What can be wrong with the objective and the limits of a sweep."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import combinations
from typing import TYPE_CHECKING

from orchestrator.core.metrics import DERIVED, METRICS, METRICS_AND_COSTS
from orchestrator.core.text import nearest
from orchestrator.spec.cells import Cell
from search_spaces import Constraint, SpaceError

if TYPE_CHECKING:
    from orchestrator.spec.sweep_spec import SweepSpec


def limit_faults(spec: SweepSpec) -> Iterator[str]:
    """Yield what is wrong with the objective and the limits, whatever the scenarios are."""
    if spec.objective not in METRICS_AND_COSTS:
        yield f"objective: expected a metric or a cost, got '{spec.objective}'; {_way_out(spec.objective)}"
    constraints: list[tuple[int, Constraint]] = []
    for index, text in enumerate(spec.limits):
        try:
            constraint = Constraint.parse(text)
        except SpaceError as error:
            yield f"limits.{index}: {error}"
            continue
        if constraint.metric not in METRICS_AND_COSTS:
            name = constraint.metric
            yield f"limits.{index}: expected a metric or a cost, got '{name}'; {_way_out(name)}"
            continue
        constraints.append((index, constraint))
        if _misses(constraint):
            yield f"limits.{index}: '{constraint.name}' can never be met {_range(constraint)}; {_mend(constraint)}"
    for (_, one), (index, other) in combinations(constraints, 2):
        if one.metric != other.metric:
            continue
        if one.operator == other.operator:
            yield f"limits.{index}: '{one.name}' and '{other.name}' limit the same metric twice; keep one"
        elif other.margin(one.limit) < 0 and one.margin(other.limit) < 0:
            yield f"limits.{index}: '{one.name}' and '{other.name}' can never be met together; change one of them"


def limit_notes(spec: SweepSpec) -> Iterator[str]:
    """Yield the limits of a valid spec that no trial can violate."""
    for index, constraint in enumerate(spec.constraints):
        metric = METRICS_AND_COSTS[constraint.metric]
        worst = metric.high if constraint.operator == "<=" else metric.low
        if constraint.margin(worst) >= 0:
            yield f"limits.{index}: '{constraint.name}' can never be violated {_range(constraint)}; {_mend(constraint)}"


def metric_faults(spec: SweepSpec, cell: Cell, n_tasks: int) -> Iterator[str]:
    """Yield why the objective or a limit does not exist for a cell with `n_tasks` tasks."""
    wanted = {"objective": spec.objective} | {
        f"limits.{i}": text.split()[0] for i, text in enumerate(spec.limits) if text.split()
    }
    for where, metric in wanted.items():
        if metric == "forward_transfer" and cell.incremental_type != "domain":
            yield f"{where}: {cell.scenario} has no {metric}, which needs a domain scenario; drop one of the two"
        elif metric in METRICS_AND_COSTS and n_tasks < (least := METRICS_AND_COSTS[metric].least_tasks):
            yield f"{where}: {cell.scenario} has no {metric}, which needs {least} tasks or more; drop one of the two"


def _misses(constraint: Constraint) -> bool:
    """Return whether every possible value violates the limit."""
    metric = METRICS_AND_COSTS[constraint.metric]
    return constraint.margin(metric.low if constraint.operator == "<=" else metric.high) < 0


def _range(constraint: Constraint) -> str:
    metric = METRICS_AND_COSTS[constraint.metric]
    if math.isinf(metric.high):
        return f"({constraint.metric} is at least {metric.low:g})"
    return f"({constraint.metric} lies between {metric.low:g} and {metric.high:g})"


def _mend(constraint: Constraint) -> str:
    """Return the way out; a limit on an accuracy that is larger than 1 was probably meant in points."""
    if constraint.metric in METRICS and 1 < abs(constraint.limit) <= 100:
        return f"for {constraint.limit:g} points write {constraint.limit / 100:g}"
    return "change the number or drop the limit"


def _way_out(name: str) -> str:
    if name in DERIVED:
        return "it is known only after the search: read it in the tables"
    return nearest(name, METRICS_AND_COSTS)
