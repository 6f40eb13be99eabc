"""The finals and the test split: which suggestions run on further seeds, until it is decided which one is recommended.

A few finalists at a time run on validation seeds, then the best of them on the test split. Where it fails there, its
place is taken by the next, and so on.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from orchestrator.search.evidence import Evidence, Rules
from orchestrator.search.race import contenders
from orchestrator.search.suggestion import Suggestion
from orchestrator.spec.cells import Cell
from orchestrator.spec.sweep_spec import SweepSpec

_RACED, _RUN_IN_FINALS, _CONFIRMED = 0.83, 0.88, 3.4
"""Shares of the search and finals trials of a cell that were run, and suggestions measured on all confirm seeds, on the
recorded cells of `benchmarks/search.py`."""


def n_confirmable(spec: SweepSpec, rules: Rules) -> int:
    """Return how many suggestions of a cell may be measured on the test split, one after the other."""
    return rules.n_confirmed if spec.seeds.of("finals") else 1


def at_most(spec: SweepSpec, cell: Cell, rules: Rules) -> int:
    """Return how many trials a cell has in total, at most."""
    n_search, n_finals, n_confirm = (len(spec.seeds.of(phase)) for phase in ("search", "finals", "confirm"))
    if not cell.is_searched:
        return n_search + n_confirm
    n_tried = n_confirmable(spec, rules)
    n_more = len(spec.seeds.more) if asks_for_more(spec) else 0
    return spec.search.suggestions * n_search + n_tried * (n_finals + n_confirm + n_more)


def likely(spec: SweepSpec, cell: Cell) -> int:
    """Return about how many trials a cell has in total, by what races and finals took elsewhere."""
    n_search, n_finals, n_confirm = (len(spec.seeds.of(phase)) for phase in ("search", "finals", "confirm"))
    if not cell.is_searched:
        return n_search + n_confirm
    raced = _RACED if spec.search.seeds == "race" else 1.0
    total = spec.search.suggestions * n_search * raced + _RUN_IN_FINALS * spec.search.finalists * n_finals
    return round(total + n_confirm * (_CONFIRMED if n_finals else 1.0))


def entrants(
    spec: SweepSpec,
    suggestions: Sequence[Suggestion],
    finalists: Collection[int],
    confirmed: Collection[int],
    evidence: Evidence,
    rules: Rules,
) -> list[Suggestion]:
    """Return the finalists that run on another seed: those that are not decided, and others for those that lost.

    Where nothing looks feasible, the nearest misses run, and nothing takes their places.

    Args:
        spec: the sweep.
        suggestions: of the cell.
        finalists: numbers of those that have entered the finals.
        confirmed: numbers of those that were measured on the test split.
        evidence: of the cell.
        rules: thresholds.
    """
    n_run = sum(len(suggestion.outcomes["finals"]) for suggestion in suggestions)
    budget = n_confirmable(spec, rules) * len(spec.seeds.of("finals")) - n_run
    found: list[Suggestion] = []
    n_places = 0
    is_hopeless = evidence.is_hopeless(rules.hopeless)
    for suggestion in contenders(suggestions, evidence, rules):
        if n_places == spec.search.finalists or len(found) == budget:
            break
        if suggestion.number in confirmed:
            continue  # not good enough on test
        probability = evidence.feasibility(suggestion)
        is_entered = suggestion.number in finalists
        if is_hopeless and not is_entered and len(finalists) >= spec.search.finalists:
            continue
        if is_entered and probability < rules.lost and not is_hopeless:
            continue  # decided: it leaves its place to the next
        n_places += 1
        is_decided = is_entered and (probability >= rules.sure or probability < rules.lost)
        if not is_decided and suggestion.next_seed(spec)[1]:
            found.append(suggestion)
    return found


def asks_for_more(spec: SweepSpec) -> bool:
    """Return whether a suggestion may get further test seeds: where its mean decides, and the search is today's."""
    return spec.search.limits_hold_for == "mean" and not spec.is_of_before


def more_seeds(spec: SweepSpec, suggestion: Suggestion, evidence: Evidence, rules: Rules) -> tuple[int, ...]:
    """Return further test seeds of a suggestion that neither meets the limits surely enough nor surely does not."""
    if not asks_for_more(spec) or suggestion.has_failed("test") or evidence.certainty(suggestion) < rules.unlikely:
        return ()
    left = [seed for seed in spec.seeds.more if seed not in suggestion.outcomes["confirm"]]
    return tuple(left[: rules.more])
