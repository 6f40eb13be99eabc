"""A search replayed over recorded trials, with nothing trained, and what it decided and spent."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import optuna

from benchmarks.search.cells import LIMITED, METRICS, Recorded
from benchmarks.search.record import TEST, VALIDATION, spec_of
from orchestrator.search.cell_search import CellSearch
from orchestrator.search.evidence import RULES, Rules
from orchestrator.search.race import chosen_of
from orchestrator.search.suggestion import Outcome, PlannedTrial, Suggestion
from orchestrator.spec.loading import parse_spec
from orchestrator.spec.sweep_spec import SweepSpec

SHARES = {"tight": 0.15, "medium": 0.35, "loose": 0.60}
"""How hard a limit is -> share of the configurations that truly meet it."""

_OF_BEFORE: dict[str, Any] = {"search": {"seeds": "all"}, "seeds": {"finals": 0}}


@dataclass(frozen=True)
class Way:
    """A way to search.

    Args:
        name: in the printed table.
        settings: what it changes of the spec.
        rules: thresholds.
    """

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    rules: Rules = RULES


SMAC = Way("SMAC3", {**_OF_BEFORE})
"""Runs where the package `smac` is installed, which this project does not need."""

WAYS = (
    Way("ours"),
    Way("ours, all seeds", {"search": {"seeds": "all"}}),
    Way("ours, no finals", {"seeds": {"finals": 0}}),
    Way("ours, stops", {"search": {"stop": "calibrated"}}),
    Way("ours, one confirmed", rules=replace(RULES, n_confirmed=1)),
    Way("before", _OF_BEFORE),
    Way("plain TPE", {**_OF_BEFORE, "search": {"seeds": "all", "batch": 1}}),
    SMAC,
    Way("random", {**_OF_BEFORE, "search": {"seeds": "all", "sampler": "random"}}),
)


@dataclass
class Ended:
    """What one replayed search came to.

    Args:
        recommended: configuration, None if nothing is recommended.
        is_wrong: whether the recommended truly violates the limit.
        exists: whether any configuration truly meets it.
        regret: how much worse the recommended is than the best that meets it, as a share of the range that meets it.
        seconds: of all trials.
        n_full: trial-seconds in units of a mean trial on all search seeds.
        n_trials: trials on the validation split.
        n_stopped: of these, those that a rule stopped.
        n_feasible: those of a configuration that truly meets the limit.
        n_lost: and those of these that a rule stopped.
        reached: `n_full` when the choice was first within 5 % of the best and met the limit; infinite if never.
    """

    recommended: int | None
    is_wrong: bool
    exists: bool
    regret: float
    seconds: float
    n_full: float
    reached: float
    n_trials: int
    n_stopped: int
    n_feasible: int
    n_lost: int


class Replay:
    """One search of a recorded cell under a limit.

    Args:
        recorded: the cell.
        way: how it is searched.
        hardness: a key of `SHARES`.
        n_suggestions: budget.
        draw: decides seeds and sampler.
    """

    def __init__(self, recorded: Recorded, way: Way, hardness: str, n_suggestions: int, draw: int) -> None:
        self.recorded, self.way, self.hardness, self.draw = recorded, way, hardness, draw
        self.limit = recorded.limit(SHARES[hardness])
        self.spec = self._spec(n_suggestions)
        self.cell = self.spec.cells[0]
        generator = np.random.default_rng([draw, 1])
        n_validation, n_test = (recorded.values[s][LIMITED].shape[1] for s in (VALIDATION, TEST))
        validation, test = generator.permutation(n_validation), generator.permutation(n_test)
        seeds = [*self.spec.seeds.of("search"), *self.spec.seeds.of("finals")]
        self._row = dict(zip(seeds, validation, strict=False)) | dict(
            zip([*self.spec.seeds.of("confirm"), *self.spec.seeds.more], test, strict=False)
        )
        self._configuration: dict[int, int] = {}
        self._n_tasks = recorded.boundaries[VALIDATION][LIMITED].shape[2]

    def _spec(self, n_suggestions: int) -> SweepSpec:
        base = spec_of(self.recorded.name).model_dump(mode="json", exclude_unset=True)
        method = self.recorded.name.split()[1]
        base["spaces"] = {method: self.recorded.space(spec_of(self.recorded.name).cells[0].space.distributions)}
        own = self.way.settings
        search = {"suggestions": n_suggestions, "seed": self.draw, **own.get("search", {})}
        limits = [f"{LIMITED} <= {self.limit:.6f}"]
        return parse_spec({**base, **own, "search": search, "limits": limits, "objective": "average"})

    def run(self) -> Ended:
        """Search to the end."""
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        search = CellSearch(self.spec, self.cell, "", rules=self.way.rules)
        waiting = search.start()
        met = self.recorded.met(self.limit)
        spent, reached, searched = 0.0, math.inf, list[tuple[bool, bool]]()
        while waiting:
            following: list[PlannedTrial] = []
            for trial in waiting:
                configuration = self._of(search.suggestions[trial.suggestion])
                outcome = self._outcome(configuration, trial)
                share = len(outcome.boundaries) / self._n_tasks if outcome.status == "stopped" else 1.0
                spent += self.recorded.seconds[configuration] * share
                if trial.spec.phase != "confirm":
                    searched.append((outcome.status == "stopped", bool(met[configuration])))
                following += search.record(trial.spec.key, outcome)
            choice = self._choice(search) if math.isinf(reached) else None
            if choice is not None and self.recorded.is_near(self._of(choice), self.limit):
                reached = spent
            waiting = following
        last = search.confirmed[-1] if search.confirmed else None
        recommended = self._of(last) if last is not None and search.is_confirmed(last) else None
        full = float(self.recorded.seconds.mean()) * len(self.spec.seeds.of("search"))
        is_wrong = recommended is not None and not bool(met[recommended])
        regret = math.nan
        if recommended is not None and not is_wrong:
            regret = self.recorded.regret(recommended, self.limit)
        return Ended(
            recommended,
            is_wrong,
            bool(met.any()),
            regret,
            spent,
            spent / full,
            reached / full,
            len(searched),
            sum(is_stopped for is_stopped, _ in searched),
            sum(is_met for _, is_met in searched),
            sum(is_stopped and is_met for is_stopped, is_met in searched),
        )

    def _choice(self, search: CellSearch) -> Suggestion | None:
        """Return what would be chosen if the search ended now."""
        if self.spec.is_of_before:
            return search.best_feasible()
        found = chosen_of(self.spec, search.suggestions, search.evidence, self.way.rules)
        return found[0] if found else None

    def _of(self, suggestion: Suggestion) -> int:
        if suggestion.number not in self._configuration:
            found = self.recorded.nearest(self.cell.space.distributions, suggestion.hyperparameters)
            self._configuration[suggestion.number] = found
        return self._configuration[suggestion.number]

    def _outcome(self, configuration: int, trial: PlannedTrial) -> Outcome:
        split = TEST if trial.spec.phase == "confirm" else VALIDATION
        row = self._row[trial.spec.seed]
        values = {name: float(self.recorded.values[split][name][configuration, row]) for name in METRICS}
        if math.isnan(values["average"]):
            return Outcome("failed", values)
        at_each = self.recorded.boundaries[split]
        columns = [at_each[name][configuration, row] for name in METRICS]
        cuts = tuple(dict(zip(METRICS, cut, strict=True)) for cut in zip(*columns, strict=True))
        return Outcome("completed", values, cuts).under(trial.stop) or Outcome("failed", {})


def replay(job: tuple[Recorded, Way, str, int, int]) -> Ended:
    """Run one search."""
    warnings.simplefilter("ignore")
    if job[1].name == SMAC.name:
        from benchmarks.search.smac import SmacReplay

        return SmacReplay(*job).run()
    return Replay(*job).run()
