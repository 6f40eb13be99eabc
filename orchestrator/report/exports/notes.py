"""What stands below a table of a paper: what the marks mean, on how many seeds, and what is not there, in sentences."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence

from orchestrator.core.text import counted
from orchestrator.report.exports.entries import (
    ABSENT,
    BOUND,
    TIED,
    UNSURE,
    VIOLATED,
    Entry,
    bound_methods,
)
from orchestrator.search.answers.full_answer import Answer, ScenarioAnswer

_RULES = {"mean": "the mean over seeds meets it", "every_seed": "every seed meets it"}


def notes_of(answer: Answer, metrics: Sequence[str], entries: Collection[Entry]) -> Iterator[str]:
    """Yield the notes of a table.

    Args:
        answer: what the table is made from.
        metrics: what it shows.
        entries: its entries.
    """
    if answer.n_missing:
        at_most = counted(answer.n_missing, "trial")
        yield f"Not final: {at_most} of this sweep {'is' if answer.n_missing == 1 else 'are'} missing, at most."
    yield from _seeds(entries)
    yield _limits(answer)
    yield from _marks(answer, entries)
    for scenario in answer.scenarios:
        yield from _scenario(answer, scenario)
    yield from _absent(entries)


def _seeds(entries: Collection[Entry]) -> Iterator[str]:
    """Yield on how many seeds the numbers are, and what the sign ± means."""
    known = [entry for entry in entries if entry.number is not None]
    counts = sorted({entry.n_seeds for entry in known})
    if not counts:
        yield "Nothing was measured on the test split."
        return
    if counts[-1] == 1:
        yield "Measured on the test split with 1 seed, so there is no interval and nothing can be told apart."
        return
    over = counted(counts[0], "seed") if len(counts) == 1 else f"{counts[0]} to {counts[-1]} seeds"
    yield f"Mean ± half-width of its 95 % confidence interval (Student's t) over {over}, on the test split."
    if alone := list(dict.fromkeys(f"{e.method} on {e.scenario}" for e in known if e.n_seeds == 1)):
        yield f"One seed, so no interval: {', '.join(alone)}."
    if any(entry.number is not None and entry.number.half_width == 0 for entry in known):
        yield "Without ±: the same on every seed."


def _limits(answer: Answer) -> str:
    if not answer.limits:
        return "There are no limits."
    rule = answer.limits_hold_for
    met = _RULES.get(rule, f"a single new run meets it with {rule}")
    return f"Limits: {', '.join(answer.limits)}; a limit is met if {met}."


def _marks(answer: Answer, entries: Collection[Entry]) -> Iterator[str]:
    """Yield what each mark means that is in the table."""
    objective = _objective(answer)
    if any(entry.is_best for entry in entries):
        among = "among the methods that meet the limits" if answer.limits else "of all methods"
        yield f"Bold: the best {objective} {among}."
    if any(entry.is_tied for entry in entries):
        unknown = any(entry.is_tied and math.isnan(entry.comparison.p_holm) for entry in entries if entry.comparison)
        more = "; it needs two seeds in common to be tested" if unknown else ""
        yield (
            f"{TIED} {objective} not told apart from the best: Student's paired test by seed, p ≥ 0.05 after Holm's "
            f"correction over the methods of a scenario{more}."
        )
    shown = "".join(entry.marks for entry in entries)
    if VIOLATED in shown:
        yield f"{VIOLATED} Violates a limit."
    if UNSURE in shown:
        yield f"{UNSURE} Meets the limits on test by too little to be sure of it, so it is not recommended."
    if bounds := list(bound_methods(entries)):
        yield f"{BOUND} Keeps the data of all tasks: an upper bound, never best nor recommended ({', '.join(bounds)})."


def _objective(answer: Answer) -> str:
    """Return the objective in words; an average is that of a named score."""
    scores = {scenario.score for scenario in answer.scenarios}
    return f"average {scores.pop()}" if answer.objective == "average" and len(scores) == 1 else answer.objective


def _scenario(answer: Answer, scenario: ScenarioAnswer) -> Iterator[str]:
    """Yield what the answer for a scenario says that the marks do not."""
    best = scenario.best_on_test
    if scenario.recommended is not None and best is not None and best != scenario.recommended:
        yield (
            f"{scenario.scenario}: {scenario.recommended} is recommended, because methods are chosen on validation; "
            f"{best} is best on test."
        )
    said = {
        "nothing learned": "nothing was learned, so methods cannot be compared",
        "nothing meets the limits": "no method surely meets the limits"
        if answer.limits
        else "no method is recommended",
        "no result": "no method completed on all of its seeds",
        "incomplete": "there is no answer yet",
    }.get(scenario.status)
    if said is not None:
        yield f"{scenario.scenario}: {said}."


def _absent(entries: Collection[Entry]) -> Iterator[str]:
    """Yield why numbers are missing, once a method and scenario if none of its numbers is there."""
    reasons: dict[str, list[str]] = {}
    for entry in entries:
        if entry.number is None:
            places = reasons.setdefault(entry.reason, [])
            if (place := f"{entry.method} on {entry.scenario}") not in places:
                places.append(place)
    for reason, places in reasons.items():
        yield f"{ABSENT} {', '.join(places)}: {reason}."
