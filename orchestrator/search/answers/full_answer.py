"""The whole answer of a run, as typed objects and as the content of `answer.json`."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from orchestrator.search.answers.certainty import Assurance, Comparison, assurance, compare
from orchestrator.search.answers.summary import CellSummary, ScenarioSummary, spread, summarise
from orchestrator.search.answers.what_if import Relaxation, Step, blocking, cheapest_relaxation, curve
from orchestrator.search.cell_search import CellSearch
from orchestrator.search.stops import Shown
from orchestrator.search.suggestion import Split, Suggestion
from orchestrator.search.sweep_search import SweepSearch
from orchestrator.spec.sweep_spec import SweepSpec

ANSWER_VERSION = 1
"""Version of the form of `answer.json`; raised whenever a field changes its meaning or goes."""

Status = Literal["recommended", "nothing meets the limits", "nothing learned", "incomplete", "no result"]


@dataclass(frozen=True)
class Number:
    """A metric or cost over seeds.

    Args:
        mean: over the seeds.
        std: sample standard deviation, NaN for a single seed.
        low: lower end of the 95 % confidence interval of the mean (Student's t).
        high: upper end.
    """

    mean: float
    std: float
    low: float
    high: float


@dataclass(frozen=True)
class LimitCheck:
    """A limit and what was measured of it.

    Args:
        limit: as it is written.
        is_met: by the sweep's rule.
        margin: of the mean; negative if it is violated.
        new_run: what the seeds tell about a single new run.
    """

    limit: str
    is_met: bool
    margin: float
    new_run: Assurance


@dataclass(frozen=True)
class Measured:
    """A method with its hyper-parameters on a split.

    Args:
        split: `validation` or `test`.
        n_seeds: on how many seeds it was measured.
        numbers: metric or cost -> over the seeds; those that the objective and the limits name.
        limits: each limit.
    """

    split: Split
    n_seeds: int
    numbers: dict[str, Number]
    limits: list[LimitCheck]


@dataclass(frozen=True)
class MethodAnswer:
    """What is known of a method in a scenario.

    Args:
        method: its name.
        is_reference: whether it is an upper bound, never recommended.
        suggestion: number of the suggestion that stands for it; None if nothing was measured.
        hyperparameters: of that suggestion: what is searched or fixed.
        validation: where it was chosen; None if it was not measured there.
        test: where it was confirmed; None if it was not.
        n_tried_on_test: suggestions of it that were measured on the test split.
        against_recommended: the recommended method's objective less its own, by test seed; None for the recommended
            one, and where they have no test seeds in common.
        n_trials: trials of its search phase.
        n_trials_of_all_seeds: trials if each suggestion had run on all search seeds.
        stopped: what stopping at task boundaries did, and what its controls showed.
        stopped_at: where every trial was stopped, limited metric -> the best of the values that broke a limit.
    """

    method: str
    is_reference: bool
    suggestion: int | None
    hyperparameters: dict[str, Any]
    validation: Measured | None
    test: Measured | None
    n_tried_on_test: int
    against_recommended: Comparison | None
    n_trials: int
    n_trials_of_all_seeds: int
    stopped: Shown
    stopped_at: dict[str, float]


@dataclass(frozen=True)
class ScenarioAnswer:
    """The answer for a scenario.

    Args:
        scenario: its name.
        status: what can be said.
        recommended: method to use, None unless the status is `recommended`.
        runner_up: the next best method that meets the limits on test, None if there is none.
        methods: every method.
        blocking: limit -> by how much it is violated by the nearest miss, if nothing meets the limits.
        relaxation: the cheapest weakening of one limit that would give an answer, if nothing meets the limits.
        what_if: limit -> the curve 'limit → best objective and method', on validation.
        validation_less_test: metric -> mean difference of the two splits, over what was measured on both.
    """

    scenario: str
    status: Status
    recommended: str | None
    runner_up: str | None
    methods: list[MethodAnswer]
    blocking: dict[str, float]
    relaxation: Relaxation | None
    what_if: dict[str, list[Step]]
    validation_less_test: dict[str, float]

    def method(self, name: str) -> MethodAnswer:
        """Return what is known of a method.

        Raises:
            KeyError: if it is no method of this scenario.
        """
        found = {one.method: one for one in self.methods}
        return found[name]


@dataclass(frozen=True)
class Answer:
    """The answer of a run.

    Args:
        version: of this form.
        name: of the sweep.
        spec_hash: of its spec.
        objective: what decides among what meets the limits.
        limits: as written.
        limits_hold_for: the rule by which a limit is met.
        n_missing: trials that are missing, at most.
        scenarios: the answer for each.
    """

    version: int
    name: str
    spec_hash: str
    objective: str
    limits: list[str]
    limits_hold_for: str
    n_missing: int
    scenarios: list[ScenarioAnswer]

    def scenario(self, name: str) -> ScenarioAnswer:
        """Return the answer for a scenario.

        Raises:
            KeyError: if the sweep has no such scenario.
        """
        return {one.scenario: one for one in self.scenarios}[name]

    def to_json(self) -> str:
        """Return the content of `answer.json`; numbers that are not known are null."""
        return json.dumps(_plain(dataclasses.asdict(self)), indent=2, allow_nan=False) + "\n"


def answer_of(search: SweepSearch, trials: pd.DataFrame) -> Answer:
    """Return the answer of a sweep.

    Args:
        search: the sweep's search, replayed over the tables.
        trials: the trials table.
    """
    spec = search.spec
    rule = spec.search.limits_hold_for
    return Answer(
        ANSWER_VERSION,
        spec.name,
        spec.content_hash(),
        spec.objective,
        list(spec.limits),
        rule if isinstance(rule, str) else f"probability {rule.probability:g}",
        search.n_unknown,
        [_scenario(search, summary) for summary in summarise(search, trials)],
    )


def _scenario(search: SweepSearch, summary: ScenarioSummary) -> ScenarioAnswer:
    spec = search.spec
    cells = [cell for cell in search.cells if cell.cell.scenario == summary.scenario]
    best = summary.best
    after = [c for c in summary.runners_up if c is not best]
    return ScenarioAnswer(
        summary.scenario,
        _status(summary),
        best.cell.method if best else None,
        after[0].cell.method if best and after else None,
        _methods(spec, summary, cells),
        blocking(spec, summary),
        cheapest_relaxation(spec, cells) if best is None and summary.is_finished else None,
        {constraint.name: curve(spec, cells, constraint) for constraint in spec.constraints},
        _bias(spec, cells),
    )


def _status(summary: ScenarioSummary) -> Status:
    if summary.best is not None:
        return "recommended"
    if summary.meaningless is not None:
        return "nothing learned"
    if not summary.is_finished:
        return "incomplete"
    is_known = summary.nearest_miss is not None or any(cell.stopped_at for cell in summary.cells)
    return "nothing meets the limits" if is_known else "no result"


def _methods(spec: SweepSpec, summary: ScenarioSummary, cells: list[CellSearch]) -> list[MethodAnswer]:
    best, objective = summary.best, spec.objective
    others = {
        cell.cell.method: cell.chosen.by_seed("test", objective)
        for cell in summary.cells
        if best is not None and cell is not best and cell.chosen is not None and not cell.is_reference
        if not cell.chosen.has_failed("test") and cell.chosen.on("test")
    }
    first = best.chosen.by_seed("test", objective) if best is not None and best.chosen is not None else {}
    compared = compare(first, {name: values for name, values in others.items() if values.keys() & first.keys()})
    return [
        _method(spec, cell, own, compared.get(cell.cell.method)) for cell, own in zip(summary.cells, cells, strict=True)
    ]


def _method(spec: SweepSpec, cell: CellSummary, search: CellSearch, against: Comparison | None) -> MethodAnswer:
    shown = cell.chosen or cell.nearest
    n_trials = sum(len(s.outcomes["search"]) for s in search.suggestions)
    return MethodAnswer(
        cell.cell.method,
        cell.is_reference,
        shown.number if shown else None,
        cell.hyperparameters(shown) if shown else {},
        measured(spec, shown, "validation") if shown else None,
        measured(spec, shown, "test") if shown else None,
        len([s for s in search.suggestions if s.on("test")]),
        against,
        n_trials,
        len(search.suggestions) * len(spec.seeds.of("search")),
        search.stopping.shown,
        dict(cell.stopped_at),
    )


def measured(spec: SweepSpec, suggestion: Suggestion, split: Split) -> Measured | None:
    """Return what a suggestion measured on a split; None if it was not."""
    outcomes = suggestion.on(split)
    if not outcomes:
        return None
    names = dict.fromkeys([spec.objective, *(constraint.metric for constraint in spec.constraints)])
    numbers = {}
    for name in names:
        over = spread(suggestion, split, name)
        numbers[name] = Number(over.mean, over.std, *over.interval)
    checks = [
        LimitCheck(
            constraint.name,
            violation <= 0,
            constraint.margin(numbers[constraint.metric].mean),
            assurance([constraint.margin(value) for value in suggestion.values(split, constraint.metric)]),
        )
        for constraint, violation in zip(spec.constraints, suggestion.violations(split, spec), strict=True)
    ]
    return Measured(split, len(outcomes), numbers, checks)


def _bias(spec: SweepSpec, cells: list[CellSearch]) -> dict[str, float]:
    """Return metric -> validation less test, averaged over the suggestions that were measured on both."""
    both = [s for cell in cells for s in cell.suggestions if s.on("test") and s.on("validation")]
    found = {}
    for name in dict.fromkeys([spec.objective, *(constraint.metric for constraint in spec.constraints)]):
        differences = [s.mean("validation", name) - s.mean("test", name) for s in both]
        known = [one for one in differences if math.isfinite(one)]
        if known:
            found[name] = sum(known) / len(known)
    return found


def _plain(value: Any) -> Any:
    """Return a value as JSON can hold it."""
    if isinstance(value, dict):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
