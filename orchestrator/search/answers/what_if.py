"""What another limit would give: the curve 'limit → best objective and method', from the trials that are there."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from orchestrator.search.answers.summary import ScenarioSummary
from orchestrator.search.cell_search import CellSearch
from orchestrator.search.suggestion import Suggestion, rank, violation_of
from orchestrator.spec.sweep_spec import SweepSpec
from search_spaces import Constraint


@dataclass(frozen=True)
class Step:
    """A limit from which on another suggestion is best.

    Args:
        limit: the least strict value that this suggestion meets, by its mean on the validation split.
        objective: its mean objective there.
        method: its method.
        suggestion: its number in its cell.
        n_seeds: on how many seeds it was measured.
    """

    limit: float
    objective: float
    method: str
    suggestion: int
    n_seeds: int


def curve(spec: SweepSpec, cells: Iterable[CellSearch], constraint: Constraint) -> list[Step]:
    """Return the best suggestions for a limit, the strictest limit first, if all other limits stay.

    Each meets the limits that stay and is better than all that meet a stricter one. Upper bounds such as `joint` are
    left out, and suggestions that the race measured on fewer seeds than others are taken at their means.

    Args:
        spec: the sweep.
        cells: of one scenario.
        constraint: the limit that is moved.
    """
    found = []
    for place, cell, suggestion in _measured(spec, cells):
        others = (c for c in spec.constraints if c is not constraint)
        if all(violation_of(c, suggestion.values("validation", c.metric), spec) <= 0 for c in others):
            value = suggestion.mean("validation", constraint.metric)
            objective = suggestion.mean("validation", spec.objective)
            strictness = value if constraint.operator == "<=" else -value
            found.append((strictness, rank(spec.objective, objective), place, cell, suggestion, value, objective))
    steps: list[Step] = []
    best = math.inf
    for _, ranked, _, cell, suggestion, value, objective in sorted(found, key=lambda item: (*item[:3], item[4].number)):
        if ranked < best:
            best = ranked
            n_seeds = len(suggestion.on("validation"))
            steps.append(Step(value, objective, cell.cell.method, suggestion.number, n_seeds))
    return steps


def _measured(spec: SweepSpec, cells: Iterable[CellSearch]) -> Iterator[tuple[int, CellSearch, Suggestion]]:
    for place, cell in enumerate(cells):
        if cell.cell.found.is_reference:
            continue
        for suggestion in cell.suggestions:
            values = [suggestion.mean("validation", c.metric) for c in spec.constraints]
            if all(map(math.isfinite, [*values, suggestion.mean("validation", spec.objective)])):
                yield place, cell, suggestion


@dataclass(frozen=True)
class Relaxation:
    """A weaker limit that would give an answer.

    Args:
        limit: the limit as it is.
        value: the value that would do, if the other limits stay.
        by: how much weaker that is, in the metric's unit.
        method: what would then meet it, by its mean on the validation split.
        suggestion: its number in its cell.
    """

    limit: str
    value: float
    by: float
    method: str
    suggestion: int


def cheapest_relaxation(spec: SweepSpec, cells: list[CellSearch]) -> Relaxation | None:
    """Return the single limit whose smallest weakening, in tolerances, lets some suggestion meet all limits.

    None if no single limit does.
    """
    found: list[tuple[float, Relaxation]] = []
    for constraint in spec.constraints:
        steps = [step for step in curve(spec, cells, constraint) if constraint.margin(step.limit) < 0]
        if steps:
            step = min(steps, key=lambda one: -constraint.margin(one.limit))
            by = -constraint.margin(step.limit)
            relaxation = Relaxation(constraint.name, step.limit, by, step.method, step.suggestion)
            found.append((by / constraint.tolerance, relaxation))
    return min(found, key=lambda item: item[0])[1] if found else None


def blocking(spec: SweepSpec, scenario: ScenarioSummary) -> dict[str, float]:
    """Return limit -> by how much, in its metric's unit, it is violated by what misses the limits least.

    Where every trial was stopped, by the best of the values at which one was.
    """
    if scenario.nearest_miss is None:
        ends = {
            (c, cell.stopped_at[c.metric])
            for c in spec.constraints
            for cell in scenario.cells
            if c.metric in cell.stopped_at
        }
        return {c.name: -max(c.margin(value) for other, value in ends if other is c) for c, _ in ends}
    _, suggestion, split = scenario.nearest_miss
    margins = {c.name: c.margin(suggestion.mean(split, c.metric)) for c in spec.constraints}
    return {name: -margin for name, margin in margins.items() if margin < 0}
