"""The whole answer of a run, as typed objects and as the content of `answer.json`."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from orchestrator.core.canonical import plain
from orchestrator.core.metrics import METRICS_AND_COSTS
from orchestrator.search.answers.certainty import Assurance, Comparison, assurance, compare
from orchestrator.search.answers.notebook import answer_html
from orchestrator.search.answers.summary import (
    CellSummary,
    ScenarioSummary,
    best_on_test,
    spread,
    summarise,
    validation_less_test,
)
from orchestrator.search.answers.what_if import Relaxation, Step, blocking, cheapest_relaxation, curve
from orchestrator.search.cell_search import CellSearch
from orchestrator.search.stops import Shown
from orchestrator.search.suggestion import Split, Suggestion
from orchestrator.search.sweep_search import SweepSearch
from orchestrator.spec.sweep_spec import SweepSpec

ANSWER_VERSION = 1
"""Version of the form of `answer.json`; raised whenever a field changes its meaning or goes."""

_Compared = dict[str, Comparison]
Status = Literal["recommended", "nothing meets the limits", "nothing learned", "incomplete", "no result"]


@dataclass(frozen=True)
class Number:
    """A metric or cost over seeds.

    Args:
        mean: over the seeds.
        std: sample standard deviation, NaN for a single seed.
        low: lower end of the 95 % confidence interval of the mean (Student's t).
        high: upper end.
        values: one a seed, in the order of `Measured.seeds`; NaN if that trial did not complete.
    """

    mean: float
    std: float
    low: float
    high: float
    values: list[float]

    @property
    def half_width(self) -> float:
        """Return half the width of the interval; NaN if the spread is not known."""
        return (self.high - self.low) / 2


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
        numbers: metric or cost -> over the seeds: what objective and limits name, and on test all that is known.
        limits: each limit.
        seeds: the seeds.
    """

    split: Split
    n_seeds: int
    numbers: dict[str, Number]
    limits: list[LimitCheck]
    seeds: list[int]

    @property
    def is_known(self) -> bool:
        """Return whether every trial completed, so that all that the limits name is known."""
        return all(math.isfinite(check.margin) for check in self.limits) and all(
            math.isfinite(number.mean) for number in self.numbers.values()
        )

    @property
    def violated(self) -> list[str]:
        """Return the limits that are violated, by the sweep's rule."""
        return [check.limit for check in self.limits if not check.is_met and math.isfinite(check.margin)]


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
        is_confirmed: whether it meets the limits on test, and surely enough to be recommended.
        against_best: as `against_recommended`, for what is best on test: its objective less this method's own.
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
    is_confirmed: bool
    against_best: Comparison | None


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
        score: what R holds.
        best_on_test: the method with the best objective on test among those that are confirmed. It is not always the
            recommended one, which is chosen on validation. None if there is none, or nothing was learned.
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
    score: str
    best_on_test: str | None

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
        n_ended: trials in the tables that it was made from, but for those that the next run tries again.
    """

    version: int
    name: str
    spec_hash: str
    objective: str
    limits: list[str]
    limits_hold_for: str
    n_missing: int
    scenarios: list[ScenarioAnswer]
    n_ended: int

    def scenario(self, name: str) -> ScenarioAnswer:
        """Return the answer for a scenario.

        Raises:
            KeyError: if the sweep has no such scenario.
        """
        return {one.scenario: one for one in self.scenarios}[name]

    def to_json(self) -> str:
        """Return the content of `answer.json`; numbers that are not known are null."""
        return json.dumps(plain(dataclasses.asdict(self)), indent=2, allow_nan=False) + "\n"

    def _repr_html_(self) -> str:
        """Return the answer as notebooks show it."""
        return answer_html(self)


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
        int((trials["status"] != "error").sum()),
    )


def _scenario(search: SweepSearch, summary: ScenarioSummary) -> ScenarioAnswer:
    spec = search.spec
    cells = [cell for cell in search.cells if cell.cell.scenario == summary.scenario]
    best = summary.best
    first = best_on_test(spec, summary)
    compared = _compared(spec, summary, best), _compared(spec, summary, first)
    after = [c for c in summary.runners_up if c is not best]
    return ScenarioAnswer(
        summary.scenario,
        _status(summary),
        best.cell.method if best else None,
        after[0].cell.method if best and after else None,
        [_method(spec, cell, own, compared) for cell, own in zip(summary.cells, cells, strict=True)],
        blocking(spec, summary),
        cheapest_relaxation(spec, cells) if best is None and summary.is_finished else None,
        {constraint.name: curve(spec, cells, constraint) for constraint in spec.constraints},
        validation_less_test(spec, cells),
        str(spec.score_of(summary.scenario)),
        first.cell.method if first else None,
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


def _compared(spec: SweepSpec, summary: ScenarioSummary, best: CellSummary | None) -> _Compared:
    """Return method -> how the objective of `best` differs from its own, by the test seeds that both have."""
    if best is None or best.chosen is None:
        return {}
    first = best.chosen.by_seed("test", spec.objective)
    others = {
        cell.cell.method: cell.chosen.by_seed("test", spec.objective)
        for cell in summary.cells
        if cell is not best and cell.chosen is not None and not cell.is_reference
        if not cell.chosen.has_failed("test") and cell.chosen.on("test")
    }
    return compare(first, {name: values for name, values in others.items() if values.keys() & first.keys()})


def _method(
    spec: SweepSpec, cell: CellSummary, search: CellSearch, compared: tuple[_Compared, _Compared]
) -> MethodAnswer:
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
        compared[0].get(cell.cell.method),
        n_trials,
        len(search.suggestions) * len(spec.seeds.of("search")),
        search.stopping.shown,
        dict(cell.stopped_at),
        cell.is_confirmed and shown is cell.chosen,
        compared[1].get(cell.cell.method),
    )


def measured(spec: SweepSpec, suggestion: Suggestion, split: Split) -> Measured | None:
    """Return what a suggestion measured on a split; None if it was not."""
    outcomes = suggestion.on(split)
    if not outcomes:
        return None
    asked = dict.fromkeys([spec.objective, *(constraint.metric for constraint in spec.constraints)])
    numbers = {}
    for name in dict.fromkeys([*asked, *(METRICS_AND_COSTS if split == "test" else ())]):
        over = spread(suggestion, split, name)
        if name in asked or math.isfinite(over.mean):
            numbers[name] = Number(over.mean, over.std, *over.interval, list(over.values))
    checks = [
        LimitCheck(
            constraint.name,
            violation <= 0,
            constraint.margin(numbers[constraint.metric].mean),
            assurance([constraint.margin(value) for value in suggestion.values(split, constraint.metric)]),
        )
        for constraint, violation in zip(spec.constraints, suggestion.violations(split, spec), strict=True)
    ]
    return Measured(split, len(outcomes), numbers, checks, list(outcomes))
