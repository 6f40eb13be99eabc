"""Which suggestions can still matter: what a race of seeds, and the finals, decide by."""

from __future__ import annotations

import math
from collections.abc import Sequence

from orchestrator.search.evidence import RULES, Evidence, Rules
from orchestrator.search.suggestion import Suggestion
from orchestrator.spec.sweep_spec import SweepSpec


def can_matter(suggestion: Suggestion, evidence: Evidence, best: Suggestion | None, rules: Rules = RULES) -> bool:
    """Return whether a suggestion should get its next seed in the race.

    Args:
        suggestion: has an outcome on each seed so far.
        evidence: of its cell.
        best: the best suggestion so far that seems to meet the limits.
        rules: thresholds.
    """
    if evidence.feasibility(suggestion) < rules.hopeless:  # NaN is not
        return False
    return best is None or best is suggestion or not evidence.better(suggestion, best) < rules.behind


def contenders(suggestions: Sequence[Suggestion], evidence: Evidence, rules: Rules = RULES) -> list[Suggestion]:
    """Return the suggestions in the order of the finals: by probability of meeting the limits × gain, best first.

    The gain is how much better than the worst suggestion the objective is. What surely violates a limit comes last, the
    nearest miss first. What failed or was stopped is left out.
    """
    return [suggestions[number] for number in evidence.order(rules.hopeless)]


def chosen_of(
    spec: SweepSpec, suggestions: Sequence[Suggestion], evidence: Evidence, rules: Rules = RULES
) -> list[Suggestion]:
    """Return the suggestions that may be recommended, best first.

    The order is that of `contenders`. Where one seed each tells no spread, what meets the limits may be.
    """
    n_search = len(spec.seeds.of("search"))
    known = [s for s in contenders(suggestions, evidence, rules) if evidence.n_seeds(s) >= n_search]
    return [s for s in known if _may_be_chosen(s, evidence.feasibility(s), spec, rules)]


def _may_be_chosen(suggestion: Suggestion, feasibility: float, spec: SweepSpec, rules: Rules) -> bool:
    return suggestion.is_feasible("validation", spec) if math.isnan(feasibility) else feasibility >= rules.least
