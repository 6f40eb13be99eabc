"""The constrained search of one cell, a pure function of the spec and of results.

Suggestions are asked in batches of a fixed size. A batch races: all of it runs on the first search seed, then what can
still matter on the next. Once a batch is complete, the study is told its results in number order. After the last batch,
the few best run on the finals seeds, one after the other, until it is decided which is chosen. That one is measured on
the test split. Every decision is made when all trials of a round have ended, so nothing depends on timing, on how many
workers there are, or on which trial ends first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from statistics import fmean
from typing import Literal

import optuna

from orchestrator.search.evidence import RULES, Evidence, Rules
from orchestrator.search.finals import at_most, entrants, likely, more_seeds, n_confirmable
from orchestrator.search.race import can_matter, chosen_of
from orchestrator.search.stops import Stopping
from orchestrator.search.study import CellStudy, SuggestionLog
from orchestrator.search.suggestion import Outcome, PlannedTrial, Split, Suggestion, rank
from orchestrator.spec.cells import Cell
from orchestrator.spec.sweep_spec import SweepSpec
from orchestrator.streams.facts import Phase
from orchestrator.trial.stopping import StopRule

Stage = Literal["search", "finals", "confirm", "finished"]


class CellSearch:
    """The search of one cell: batches of suggestions, then finals, then the chosen one on the test split.

    A cell with nothing to search runs its one suggestion on the search and the confirm seeds. `keys` holds the key of
    every trial that it has planned so far.

    Args:
        spec: the sweep.
        cell: the scenario and method.
        fingerprint: hash of the cell's data set.
        on_tell: called with this search and the Optuna trial after the study was told a result.
        log: what was asked before, to which what is asked now is added.
        rules: thresholds of the race and the finals.
    """

    def __init__(
        self,
        spec: SweepSpec,
        cell: Cell,
        fingerprint: str,
        on_tell: Callable[[CellSearch, optuna.trial.FrozenTrial], None] | None = None,
        log: SuggestionLog | None = None,
        rules: Rules = RULES,
    ) -> None:
        self.spec = spec
        self.cell = cell
        self.rules = rules
        self.suggestions: list[Suggestion] = []
        self.chosen: Suggestion | None = None
        self.confirmed: list[Suggestion] = []
        self.finalists: list[Suggestion] = []
        self.is_blocked = False
        self.keys: set[str] = set()
        self._stage: Stage = "search"
        self._fingerprint = fingerprint
        self._on_tell = on_tell
        self._batch: list[Suggestion] = []
        self._racing: list[Suggestion] = []
        self._waiting: dict[str, list[tuple[Suggestion, int, Phase]]] = {}
        self.rules_of: dict[str, StopRule | None] = {}
        self._evidence = Evidence(spec, (), rules)
        self._changed: dict[int, Suggestion] = {}
        self.stopping = Stopping(spec, cell, rules)
        self._study = CellStudy(spec, cell, {} if log is None else log) if cell.is_searched else None

    @property
    def is_finished(self) -> bool:
        """Return whether no trial of the cell is missing."""
        return self._stage == "finished"

    @property
    def n_expected(self) -> int:
        """Return how many trials this cell has in total, at most."""
        return at_most(self.spec, self.cell, self.rules)

    @property
    def n_recorded(self) -> int:
        """Return how many outcomes are known; a trial that two suggestions share counts twice."""
        return sum(len(outcomes) for s in self.suggestions for outcomes in s.outcomes.values())

    @property
    def n_unknown(self) -> int:
        """Return how many outcomes are still to come, at most; 0 once the cell is finished."""
        return 0 if self.is_finished else self.n_expected - self.n_recorded

    @property
    def n_likely(self) -> int:
        """Return about how many outcomes are still to come, by the shares that races and finals took elsewhere."""
        if self.is_finished:
            return 0
        return min(max(likely(self.spec, self.cell) - self.n_recorded, len(self._waiting)), self.n_unknown)

    def start(self) -> list[PlannedTrial]:
        """Return the first trials."""
        if self.cell.is_searched:
            return self._ask_batch()
        only = Suggestion(0, {})
        self.suggestions = [only]
        self.chosen = only
        self.confirmed = [only]
        self._stage = "confirm"
        return self._plan(only, "search") + self._plan(only, "confirm")

    def record(self, key: str, outcome: Outcome) -> list[PlannedTrial]:
        """Record the outcome of a trial and return the trials that follow from it, often none."""
        for suggestion, seed, phase in self._waiting.pop(key, []):
            suggestion.outcomes[phase][seed] = outcome
            self._changed[suggestion.number] = suggestion
            if phase != "confirm":
                self.stopping.learn(outcome, self.rules_of.get(key))
            self.is_blocked |= outcome.status == "error"
        if self._waiting or self.is_blocked:
            return []
        match self._stage:
            case "search":
                return self._race_on()
            case "finals":
                return self._finals_on()
            case "confirm":
                return self._confirm_on()
            case "finished":
                return []

    # The race.

    def _ask_batch(self) -> list[PlannedTrial]:
        assert self._study is not None
        settings, first = self.spec.search, len(self.suggestions)
        n = min(settings.batch, settings.suggestions - first)
        self._batch = [Suggestion(first + i, values) for i, values in enumerate(self._study.ask(n))]
        self.suggestions += self._batch
        self._racing = list(self._batch)
        seeds = self.spec.seeds.of("search")
        return self._plan_all(self._racing, "search", seeds[:1] if settings.seeds == "race" else seeds)

    def _race_on(self) -> list[PlannedTrial]:
        """Return the next round of the race, or of what follows the last."""
        seeds, n_run = self.spec.seeds.of("search"), len(self._racing[0].outcomes["search"])
        if n_run < len(seeds):
            evidence = self.evidence
            place = evidence.best()
            best = None if place is None else self.suggestions[place]
            self._racing = [s for s in self._racing if can_matter(s, evidence, best, self.rules)]
            if self._racing:
                return self._plan_all(self._racing, "search", seeds[n_run : n_run + 1])
        self._tell_batch()
        if len(self.suggestions) < self.spec.search.suggestions:
            return self._ask_batch()
        return self._finals_on()

    def _tell_batch(self) -> None:
        """Tell the study the results of the batch in number order."""
        assert self._study is not None
        for suggestion in self._batch:
            objective = suggestion.mean("validation", self.spec.objective)
            violations = self._to_tell(suggestion)
            told = self._study.tell(suggestion.hyperparameters, objective, violations, suggestion.has_stopped())
            if self._on_tell is not None:
                self._on_tell(self, told)

    def _to_tell(self, suggestion: Suggestion) -> list[float]:
        """Return the violation of each limit for the sampler; by the mean where seeds are too few for the rule.

        Of a stopped trial it is that at the boundary, and 0 where nothing is known there.
        """
        if suggestion.has_stopped():
            seen = suggestion.on("validation").values()
            found = [c.violation(fmean(o.values.get(c.metric, math.nan) for o in seen)) for c in self.spec.constraints]
            return [0.0 if math.isnan(one) else one for one in found]
        violations = suggestion.violations("validation", self.spec)
        means = [c.violation(suggestion.mean("validation", c.metric)) for c in self.spec.constraints]
        return [mean if math.isinf(found) else found for found, mean in zip(violations, means, strict=True)]

    # The finals.

    def _finals_on(self) -> list[PlannedTrial]:
        """Return the next round of the finals, or the first trials of the confirm phase."""
        self._stage = "finals"
        if self.spec.seeds.of("finals") and len(self.confirmed) < n_confirmable(self.spec, self.rules):
            entered, tried = {s.number for s in self.finalists}, {s.number for s in self.confirmed}
            found = entrants(self.spec, self.suggestions, entered, tried, self.evidence, self.rules)
            self.finalists += [s for s in found if s.number not in entered]
            if found:
                return [trial for s in found for trial in self._plan_all([s], *s.next_seed(self.spec))]
        return self._confirm_next()

    # The test split.

    def _confirm_on(self) -> list[PlannedTrial]:
        """Return further trials of the suggestion that is measured on the test split, or of what follows it."""
        last = self.confirmed[-1]
        if not self.cell.is_searched or self.is_confirmed(last):
            self._stage = "finished"
            return []
        if more := more_seeds(self.spec, last, self.evidence, self.rules):
            return self._plan(last, "confirm", more)
        return self._finals_on()  # others take its place

    def _confirm_next(self) -> list[PlannedTrial]:
        """Return the trials of the next suggestion that is measured on the test split; finish if there is none."""
        self._stage = "confirm"
        left = [s for s in self._candidates() if s not in self.confirmed]
        if len(self.confirmed) < n_confirmable(self.spec, self.rules) and left:
            self.chosen = left[0]
        elif self.spec.confirm == "all" and not self.confirmed and (nearest := self.nearest_miss()) is not None:
            self.chosen = nearest
        else:
            self._stage = "finished"
            if self.confirmed:  # each violates a limit on test, or failed
                self.chosen = min(self.confirmed, key=lambda s: (s.total_violation("test", self.spec), s.number))
            return []
        self.confirmed.append(self.chosen)
        return self._plan(self.chosen, "confirm")

    def is_confirmed(self, suggestion: Suggestion) -> bool:
        """Return whether a suggestion may be recommended: it meets the limits on test, and surely enough.

        Where limits hold for more than the mean, that rule is a strict one already.
        """
        if not suggestion.is_feasible("test", self.spec):
            return False
        if self.spec.is_of_before or self.spec.search.limits_hold_for != "mean" or not suggestion.on("validation"):
            return True
        return not self.certainty(suggestion) < self.rules.confirmed  # NaN is not

    def certainty(self, suggestion: Suggestion) -> float:
        """Return the probability that the mean on test meets the limits, by all of its seeds; NaN if unknown."""
        return self.evidence.certainty(suggestion)

    def _candidates(self) -> list[Suggestion]:
        """Return the suggestions that may be recommended, best first."""
        if self.spec.is_of_before:
            best = self.best_feasible()
            return [] if best is None else [best]
        return chosen_of(self.spec, self.suggestions, self.evidence, self.rules)

    # What others ask.

    def may_be_chosen(self, suggestion: Suggestion) -> bool:
        """Return whether a suggestion meets the limits on validation, or is not unlikely to."""
        if self.spec.is_of_before or not suggestion.on("validation"):
            return suggestion.is_feasible(self.judged_split, self.spec)
        likely = self.evidence.feasibility(suggestion)
        return likely >= self.rules.least or suggestion.is_feasible("validation", self.spec)

    @property
    def judged_split(self) -> Split:
        """Return the split that suggestions are judged on: `test` if the sweep has no search seeds."""
        return "validation" if self.spec.seeds.of("search") else "test"

    def feasible(self) -> list[Suggestion]:
        """Return the suggestions that were not left behind in the race and meet every limit."""
        split = self.judged_split
        n_seeds = len(self.spec.seeds.of("search" if split == "validation" else "confirm"))
        return [s for s in self.suggestions if len(s.on(split)) >= n_seeds and s.is_feasible(split, self.spec)]

    def best_feasible(self) -> Suggestion | None:
        """Return the feasible suggestion with the best mean objective so far, or None."""
        return self.best_of(self.feasible())

    def best_of(self, suggestions: Iterable[Suggestion]) -> Suggestion | None:
        """Return the suggestion with the best mean objective, the first of equals, or None if there are none."""
        metric, split = self.spec.objective, self.judged_split
        return min(suggestions, key=lambda s: (rank(metric, s.mean(split, metric)), s.number), default=None)

    def nearest_miss(self, split: Split = "validation") -> Suggestion | None:
        """Return the suggestion that violates the limits least, or None if none completed."""
        known = [s for s in self.suggestions if s.total_violation(split, self.spec) < math.inf]
        full = [s for s in known if len(s.on(split)) >= len(self.spec.seeds.of("search"))]  # few seeds flatter
        known = known if self.spec.search.seeds == "race" else []
        return min(full or known, key=lambda s: (s.total_violation(split, self.spec), s.number), default=None)

    def key_of(self, suggestion: Suggestion, phase: Phase, seed: int) -> str:
        """Return the key of a trial of a suggestion."""
        return self.spec.trial(self.cell, suggestion.hyperparameters, seed, phase, self._fingerprint).key

    def keys_on(self, suggestion: Suggestion, split: Split) -> list[str]:
        """Return the keys of the trials of a suggestion on a split that have an outcome."""
        phases: tuple[Phase, ...] = ("confirm",) if split == "test" else ("search", "finals")
        return [self.key_of(suggestion, phase, seed) for phase in phases for seed in suggestion.outcomes[phase]]

    @property
    def evidence(self) -> Evidence:
        """Return what all outcomes so far tell."""
        if self._changed:
            self._evidence.update(self._changed.values())
            self._changed.clear()
        return self._evidence

    def _plan_all(self, suggestions: Iterable[Suggestion], phase: Phase, seeds: Iterable[int]) -> list[PlannedTrial]:
        chosen = tuple(seeds)
        return [trial for suggestion in suggestions for trial in self._plan(suggestion, phase, chosen)]

    def _plan(self, suggestion: Suggestion, phase: Phase, seeds: tuple[int, ...] | None = None) -> list[PlannedTrial]:
        planned = []
        request = self.spec.resources.of(self.cell.scenario, *self.cell.names)
        for seed in self.spec.seeds.of(phase) if seeds is None else seeds:
            trial = self.spec.trial(self.cell, suggestion.hyperparameters, seed, phase, self._fingerprint)
            self.keys.add(trial.key)
            if phase != "confirm" and trial.key not in self.rules_of:
                self.rules_of[trial.key] = self.stopping.rule(suggestion, trial.key, self.evidence)
            waiting = self._waiting.setdefault(trial.key, [])
            if not waiting:
                rule = self.rules_of.get(trial.key)
                planned.append(PlannedTrial(trial, self.cell, suggestion.number, request, rule))
            waiting.append((suggestion, seed, phase))
        return planned
