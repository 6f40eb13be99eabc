"""The answer of a sweep, from its tables and its spec alone: the best method per scenario that meets the limits.

Methods are chosen on the validation split and measured on the test split. The search of this spec is replayed over the
rows; rows that it does not visit, such as those of an earlier budget or space, are ignored.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from orchestrator.core.text import counted
from orchestrator.search.answers.certainty import Spread
from orchestrator.search.cell_search import CellSearch
from orchestrator.search.suggestion import Split, Suggestion, rank
from orchestrator.search.sweep_search import SweepSearch
from orchestrator.spec.cells import Cell
from orchestrator.spec.sweep_spec import SweepSpec
from search_spaces import Constraint

_LEAST_ABOVE_CHANCE = 0.01

_LOOKED_AT = ("key", "status", "score", "chance_accuracy", "constant_score", "untrained_score")
"""Columns of the trials table that an answer needs beside what the search knows."""


@dataclass(frozen=True)
class CellSummary:
    """What is known of one cell.

    Args:
        cell: the scenario and method.
        chosen: the best feasible suggestion on validation, or the only one; None if no suggestion is feasible.
        nearest: the suggestion that violates the limits least on validation; None if none is measured.
        n_failed: trials with status `failed` or `error`.
        is_complete: whether there is a chosen suggestion and no trial of the cell is missing.
        is_finished: whether no trial of the cell is missing.
        constant: average score of the best constant answer; NaN if it tells nothing.
        untrained: average score of the untrained model; NaN if it was not measured.
        is_candidate: whether the chosen suggestion was chosen because it may meet the limits.
        tried: suggestions that were measured on the test split before the chosen one, and broke a limit there.
        is_confirmed: whether the chosen suggestion meets the limits on test, and surely enough.
        certainty: probability that its mean on test meets the limits, by its seeds on both splits; NaN if not known.
        stopped_at: where every trial was stopped by a rule, limited metric -> the best of the values that broke a
            limit, of which the final ones are no better.
    """

    cell: Cell
    chosen: Suggestion | None
    nearest: Suggestion | None
    n_failed: int
    is_complete: bool
    is_finished: bool = True
    constant: float = math.nan
    untrained: float = math.nan
    is_candidate: bool = True
    tried: tuple[Suggestion, ...] = ()
    is_confirmed: bool = True
    certainty: float = math.nan
    stopped_at: Mapping[str, float] = field(default_factory=dict)

    @property
    def is_at_chance(self) -> bool:
        """Return whether it learned nothing: see `level_of`."""
        return bool(self.level_of)

    @property
    def level_of(self) -> str:
        """Return what its average score exceeds by at most two standard errors or 0.01, in words, or nothing."""
        shown = self.chosen or self.nearest
        if shown is None:
            return ""
        for split in ("test", "validation"):
            values = Spread(tuple(shown.values(split, "average")))
            if values.values:
                error = 2 * values.std / math.sqrt(len(values.values)) if math.isfinite(values.std) else 0.0
                beaten = values.mean - max(error, _LEAST_ABOVE_CHANCE)
                if beaten <= self.constant:
                    return f"giving always the same answer, which scores {self.constant:.3f}"
                if beaten <= self.untrained:
                    return f"an untrained network, which scores {self.untrained:.3f}"
                return ""
        return ""

    @property
    def is_reference(self) -> bool:
        """Return whether the method is an upper bound, never recommended."""
        return self.cell.found.is_reference

    def hyperparameters(self, suggestion: Suggestion) -> dict[str, object]:
        """Return the hyper-parameters that the spec searches or fixes, with the suggestion's values."""
        space = self.cell.space
        return {**{name: suggestion.hyperparameters.get(name) for name in space.distributions}, **space.fixed}


@dataclass(frozen=True)
class ScenarioSummary:
    """The answer for one scenario.

    Args:
        scenario: its name.
        cells: all of its cells.
        best: the recommended cell, or None.
        vetoed: cells that did better on validation but violated a limit, or had failed trials, on test.
        nearest_miss: if nothing is feasible, the cell, suggestion and split that violate the limits least.
        meaningless: if nothing can be recommended because nothing was learned, the cell that shows it.
        runners_up: cells that meet the limits on test too, best on validation first.
    """

    scenario: str
    cells: tuple[CellSummary, ...]
    best: CellSummary | None
    vetoed: tuple[CellSummary, ...]
    nearest_miss: tuple[CellSummary, Suggestion, Split] | None = None
    meaningless: CellSummary | None = None
    runners_up: tuple[CellSummary, ...] = ()

    @property
    def is_finished(self) -> bool:
        """Return whether no trial is missing."""
        return all(cell.is_finished for cell in self.cells)

    @property
    def unconfirmed(self) -> tuple[CellSummary, ...]:
        """Return the cells that may still be recommended: chosen on validation, with test trials still missing."""
        return tuple(c for c in self.cells if c.chosen is not None and not c.is_complete and not c.is_reference)


def summarise(search: SweepSearch, trials: pd.DataFrame) -> list[ScenarioSummary]:
    """Return the answer for each scenario of a sweep.

    Args:
        search: the sweep's search, replayed over the tables.
        trials: the trials table.
    """
    known = trials[list(_LOOKED_AT)]
    rows = {str(key): place for place, key in enumerate(known["key"])}
    cells = [
        _cell_summary(cell, known.iloc[sorted(rows[key] for key in cell.keys if key in rows)]) for cell in search.cells
    ]
    return [
        _scenario_summary(search.spec, scenario, tuple(c for c in cells if c.cell.scenario == scenario))
        for scenario in dict.fromkeys(cell.scenario for cell in search.spec.cells)
    ]


def best_on_test(spec: SweepSpec, summary: ScenarioSummary) -> CellSummary | None:
    """Return the cell with the best objective on test among those that are confirmed; None if nothing was learned."""
    if summary.meaningless is not None:
        return None
    found = [
        (rank(spec.objective, cell.chosen.mean("test", spec.objective)), place)
        for place, cell in enumerate(summary.cells)
        if cell.chosen is not None and cell.is_confirmed and not cell.is_reference and cell.chosen.on("test")
    ]
    return summary.cells[min(found)[1]] if found else None


def validation_less_test(spec: SweepSpec, cells: list[CellSearch]) -> dict[str, float]:
    """Return metric -> validation less test, averaged over the suggestions that were measured on both."""
    both = [s for cell in cells for s in cell.suggestions if s.on("test") and s.on("validation")]
    found = {}
    for name in dict.fromkeys([spec.objective, *(constraint.metric for constraint in spec.constraints)]):
        differences = [s.mean("validation", name) - s.mean("test", name) for s in both]
        known = [one for one in differences if math.isfinite(one)]
        if known:
            found[name] = sum(known) / len(known)
    return found


def note_on_others(search: SweepSearch, trials: pd.DataFrame) -> str:
    """Return a line on completed trials that the search does not visit, or an empty text if there are none."""
    visited = set().union(*(cell_search.keys for cell_search in search.cells))
    n = int(((trials["status"] == "completed") & ~trials["key"].isin(visited)).sum())
    if not n:
        return ""
    origin = "other searches (with another budget, space, seeds, methods, data or code)"
    if search.n_unknown:
        origin += " or follow from missing trials"
    return f"Not in this answer: {counted(n, 'completed trial')} in the tables, from {origin}."


def spread(suggestion: Suggestion, split: Split, metric: str) -> Spread:
    """Return a metric of a suggestion over the seeds of a split."""
    return Spread(tuple(suggestion.values(split, metric)))


def n_met(constraint: Constraint, values: Sequence[float]) -> int:
    """Return on how many seeds a limit is met."""
    return sum(constraint.margin(value) >= 0 for value in values)


def _cell_summary(search: CellSearch, rows: pd.DataFrame) -> CellSummary:
    # Until the search has chosen, the best so far stands for the cell.
    chosen = search.chosen or search.best_feasible()
    is_known = chosen is not None and any(chosen.outcomes.values())
    return CellSummary(
        search.cell,
        chosen if is_known else None,
        search.nearest_miss(),
        int((~rows["status"].isin(["completed", "stopped"])).sum()),
        is_known and search.is_finished,
        search.is_finished,
        _mean(rows["constant_score"].where(rows["score"] != "accuracy", rows["chance_accuracy"])),
        _mean(rows["untrained_score"]),
        chosen is not None and search.may_be_chosen(chosen),
        tuple(s for s in search.confirmed if s is not chosen),
        chosen is not None and search.is_confirmed(chosen),
        search.certainty(chosen) if chosen is not None and chosen.on("test") else math.nan,
        _stopped_at(search),
    )


def _stopped_at(search: CellSearch) -> dict[str, float]:
    outcomes = [outcome for s in search.suggestions for outcome in s.on("validation").values()]
    if any(outcome.status != "stopped" for outcome in outcomes):
        return {}
    found = {}
    for constraint in search.spec.constraints:
        values = [one.values[constraint.metric] for one in outcomes if constraint.metric in one.values]
        broken = [value for value in values if constraint.margin(value) < 0]
        if broken:
            found[constraint.metric] = max(broken, key=constraint.margin)
    return found


def _mean(values: pd.Series[float]) -> float:
    return float(values.mean()) if values.notna().any() else math.nan


def _scenario_summary(spec: SweepSpec, scenario: str, cells: tuple[CellSummary, ...]) -> ScenarioSummary:
    has_search = bool(spec.seeds.of("search"))
    candidates: list[tuple[float, CellSummary]] = []
    for cell in cells:
        chosen = cell.chosen
        if chosen is None or cell.is_reference or not cell.is_complete:
            continue
        if has_search and not cell.is_candidate:
            continue
        judged: Split = "validation" if has_search else "test"
        value = chosen.mean(judged, spec.objective)
        candidates.append((rank(spec.objective, value) if math.isfinite(value) else math.inf, cell))
    candidates.sort(key=lambda item: item[0])
    ordered = [cell for _, cell in candidates]
    feasible = [cell for cell in ordered if cell.is_confirmed]
    best = feasible[0] if feasible else None
    vetoed = tuple(ordered[: ordered.index(best)] if best else ordered)
    meaningless = _meaningless(cells, best)
    if meaningless is not None:
        return ScenarioSummary(scenario, cells, None, vetoed, None, meaningless)
    return ScenarioSummary(
        scenario, cells, best, vetoed, None if best else _nearest(spec, cells), runners_up=tuple(feasible[1:])
    )


def _meaningless(cells: tuple[CellSummary, ...], best: CellSummary | None) -> CellSummary | None:
    """Return a cell that shows that nothing was learned: the upper bound, or without one the best; else None."""
    bounds = [cell for cell in cells if cell.is_reference and cell.chosen is not None]
    return next((cell for cell in bounds or ([best] if best else []) if cell.is_at_chance), None)


def _nearest(spec: SweepSpec, cells: tuple[CellSummary, ...]) -> tuple[CellSummary, Suggestion, Split] | None:
    """Return what violates the limits least, all compared on validation if there is one.

    What meets them there and violates them on test is nearest, and shown as measured on test.
    """
    has_search = bool(spec.seeds.of("search"))
    found: list[tuple[float, float, int, CellSummary, Suggestion, Split]] = []
    for index, cell in enumerate(cells):
        if cell.is_reference:
            continue
        was_feasible = cell.chosen is not None and (not has_search or cell.is_candidate)
        if cell.chosen is not None and was_feasible:
            if not cell.is_complete:
                continue
            suggestion, is_confirmed = cell.chosen, True
        elif cell.nearest is not None:
            suggestion, is_confirmed = cell.nearest, False
        else:
            continue
        split: Split = "test" if is_confirmed else "validation"
        on_test = suggestion.total_violation("test", spec) if is_confirmed else 0.0
        distance = suggestion.total_violation("validation", spec) if has_search else on_test
        if distance < math.inf and on_test < math.inf:
            found.append((distance, on_test, index, cell, suggestion, split))
    return min(found, key=lambda item: item[:3])[3:] if found else None


def verdicts(search: SweepSearch, trials: pd.DataFrame) -> pd.DataFrame:
    """Return for each trial whether its suggestion is chosen, and whether it meets the limits on the trial's split.

    Args:
        search: replayed over the tables.
        trials: the trials table.

    Returns: columns `is_chosen` and `is_feasible`, nullable booleans; missing where the search does not visit a trial.
    """
    of_cell = {cell.cell.name: cell for cell in search.cells}
    splits: dict[str, Split] = {"search": "validation", "finals": "validation", "confirm": "test"}
    known: dict[tuple[str, int, str], tuple[bool, bool]] = {}
    found: list[tuple[bool | None, bool | None]] = []
    columns = zip(*(trials[name] for name in ("key", "scenario", "method", "suggestion", "phase")), strict=True)
    for key, scenario, method, number, phase in columns:
        cell = of_cell.get(f"{scenario} {method}")
        if cell is None or key not in cell.keys or number >= len(cell.suggestions):
            found.append((None, None))
            continue
        place = cell.cell.name, int(number), splits[phase]
        if place not in known:
            suggestion = cell.suggestions[number]
            known[place] = suggestion is cell.chosen, suggestion.is_feasible(splits[phase], search.spec)
        found.append(known[place])
    return pd.DataFrame(found, trials.index, ["is_chosen", "is_feasible"]).astype("boolean")
