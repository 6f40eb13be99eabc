"""The answer as the terminal shows it: a table for each scenario, and the recommendation in words."""

from __future__ import annotations

import math
from collections.abc import Iterator

from rich.console import Group, RenderableType

from orchestrator.core.metrics import METRICS, quantity
from orchestrator.core.scores import ACCURACY
from orchestrator.core.text import counted
from orchestrator.report.certainty_view import certainty_lines
from orchestrator.report.methods_table import MethodsTable, assigned, shown_of, stopped_words, with_spread
from orchestrator.report.numbers import number
from orchestrator.search.answers.full_answer import Answer
from orchestrator.search.answers.summary import CellSummary, ScenarioSummary, n_met, spread
from orchestrator.search.evidence import RULES
from orchestrator.search.suggestion import Split, Suggestion, rank
from orchestrator.spec.sweep_spec import SweepSpec

_MOST_TRIED = 2
"""Suggestions of a method that failed on test and are shown one by one."""

_GO_ON = "Run the same command again."
_IMBALANCED = 0.7
"""If one answer is right so often, accuracy hides what happens to the other classes."""


def render_answer(spec: SweepSpec, scenarios: list[ScenarioSummary], answer: Answer | None = None) -> RenderableType:
    """Return a table of the methods and the answer in words, for each scenario.

    Args:
        spec: the sweep.
        scenarios: the answer for each.
        answer: the whole answer, for how sure it is.
    """
    parts: list[RenderableType] = []
    for scenario in scenarios:
        parts += [MethodsTable(spec, scenario), *answer_lines(spec, scenario)]
        if answer is not None and scenario.meaningless is None:
            parts += certainty_lines(spec.objective, answer.scenario(scenario.scenario))
        parts.append("")
    if any(cell.is_reference for scenario in scenarios for cell in scenario.cells):
        parts.append("* keeps the data of all tasks: an upper bound to compare with, never recommended")
    return Group(*parts)


def _named(cell: CellSummary, suggestion: Suggestion) -> str:
    """Return a method with its hyper-parameters, as a sentence names it."""
    assignment = assigned(cell, suggestion)
    return cell.cell.method + (f" with {assignment}" if assignment else "")


def answer_lines(spec: SweepSpec, scenario: ScenarioSummary) -> Iterator[str]:
    """Yield the answer for one scenario in words."""
    yield from _bound(spec, scenario)
    if scenario.meaningless is not None:
        yield from _nothing_learned(spec, scenario, scenario.meaningless)
        return
    for cell in scenario.cells:
        tried = () if cell.is_reference else cell.tried
        for one in tried[:_MOST_TRIED]:
            yield f"{cell.cell.method} with {assigned(cell, one)} {_veto(spec, one, math.nan)}."
        if more := len(tried[_MOST_TRIED:]):
            yield f"{cell.cell.method}: {counted(more, 'more suggestion')} of it failed on test."
    for cell in scenario.vetoed:
        assert cell.chosen is not None
        yield f"{cell.cell.method} {_veto(spec, cell.chosen, cell.certainty)}."
    waiting = ", ".join(cell.cell.method for cell in scenario.unconfirmed)
    best = scenario.best
    if best is not None and best.chosen is not None:
        objective = with_spread(spec.objective, best.chosen, "test")
        yield f"Recommended: {_named(best, best.chosen)}: {_objective(spec, scenario)} {objective} on test."
        if spec.seeds.of("search"):
            yield f"  on validation, where it was chosen: {with_spread(spec.objective, best.chosen, 'validation')}"
        yield from _margins(spec, best.chosen, "test")
        yield from _better_on_test(spec, scenario, best)
        if waiting:
            yield f"Not confirmed on test yet, and perhaps better: {waiting}. {_GO_ON}"
    elif waiting:
        yield f"No answer yet. Still to be confirmed on test: {waiting}. {_GO_ON}"
    elif not scenario.is_finished and scenario.nearest_miss is not None:
        cell, suggestion, split = scenario.nearest_miss
        so_far = f"The nearest so far is {_named(cell, suggestion)}, on {split}:"
        yield f"No answer yet: trials are missing. {so_far}"
        yield from _margins(spec, suggestion, split)
        yield _GO_ON
    elif scenario.nearest_miss is not None:
        cell, suggestion, split = scenario.nearest_miss
        if split == "test" and suggestion.is_feasible(split, spec):
            yield f"No method surely meets the limits. The nearest is {_named(cell, suggestion)}, on {split}:"
        else:
            yield f"No method meets the limits. The nearest miss is {_named(cell, suggestion)}, on {split}:"
        yield from _margins(spec, suggestion, split)
    else:
        yield _no_answer(scenario)


def _no_answer(scenario: ScenarioSummary) -> str:
    """Return why no method is recommended and none is near: trials are missing, failed, or only of upper bounds."""
    n_failed = sum(cell.n_failed for cell in scenario.cells)
    failed = f"{counted(n_failed, 'trial')} failed (see show RUN --trials)." if n_failed else ""
    if not all(cell.is_finished for cell in scenario.cells):
        return f"No answer yet: no method has been measured on all of its seeds. {failed and failed + ' '}{_GO_ON}"
    if all(cell.is_reference for cell in scenario.cells):
        return f"No answer: {scenario.cells[0].cell.method} is an upper bound, never recommended. Add other methods."
    if stopped := [f"{cell.cell.method}: {stopped_words(cell)}" for cell in scenario.cells if cell.stopped_at]:
        return f"No method meets the limits. {'; '.join(stopped)}. Relax that limit, or search other values."
    return (
        f"No answer: every trial has ended, and no method completed on all of its seeds. {failed} Check the data and "
        "the training settings; the same command would train nothing."
    )


def _objective(spec: SweepSpec, scenario: ScenarioSummary) -> str:
    """Return the objective in words; an average is that of a named score."""
    score = spec.score_of(scenario.scenario)
    return f"average {score}" if spec.objective == "average" else spec.objective


def _better_on_test(spec: SweepSpec, scenario: ScenarioSummary, best: CellSummary) -> Iterator[str]:
    """Yield which methods did better on test than the recommended one, which was best where methods are compared."""
    if best.chosen is None or not spec.seeds.of("search"):
        return
    value = rank(spec.objective, best.chosen.mean("test", spec.objective))
    better = [
        f"{cell.cell.method} ({number(spec.objective, cell.chosen.mean('test', spec.objective))})"
        for cell in scenario.cells
        if cell.chosen is not None and not cell.is_reference and cell.is_complete
        if cell.chosen.is_feasible("test", spec)
        if rank(spec.objective, cell.chosen.mean("test", spec.objective)) < value
    ]
    if better:
        yield (
            f"  {', '.join(better)} did better on test; methods are compared on validation, where "
            f"{best.cell.method} was best"
        )


def _bound(spec: SweepSpec, scenario: ScenarioSummary) -> Iterator[str]:
    """Yield that even a method which keeps all data violates a limit."""
    for cell in scenario.cells:
        suggestion, split = shown_of(cell)
        if not cell.is_reference or suggestion is None or scenario.meaningless is not None:
            continue
        pairs = zip(spec.constraints, suggestion.violations(split, spec), strict=True)
        violated = [c.name for c, violation in pairs if violation > 0 and quantity(c.metric).metric in METRICS]
        if violated:  # a limit on memory or time is no bound on what can be learned
            look = "" if scenario.best else " Look at the limit, the data and the training settings first:"
            yield (
                f"Even {cell.cell.method}, which keeps the data of all tasks, violates {' and '.join(violated)} on "
                f"{split}.{look}"
            )
            yield from () if scenario.best else _margins(spec, suggestion, split)


def _nothing_learned(spec: SweepSpec, scenario: ScenarioSummary, cell: CellSummary) -> Iterator[str]:
    """Yield why nothing is recommended if what should do best learned nothing, and what to look at."""
    even = "even " if cell.is_reference else ""
    score = spec.score_of(scenario.scenario)
    yield (
        f"No recommendation: {even}{cell.cell.method} is no better in {score} than {cell.level_of}. Nothing was "
        "learned here, so this table does not compare methods."
    )
    if score == ACCURACY and cell.constant > _IMBALANCED:
        yield (
            "  One class has most of the examples, so accuracy tells little. Choose another score, such as "
            "balanced_accuracy, auroc or recall(CLASS), and set training.class_weight: balanced."
        )
    elif not cell.is_reference:
        yield "  Add the method joint to see whether anything can be learned here. Check data and training settings."
    else:
        yield "  Check the data (labels, features, order) and the training settings (epochs, learning_rate, model)."


def _veto(spec: SweepSpec, suggestion: Suggestion, certainty: float) -> str:
    """Return why a suggestion cannot be recommended after its trials on the test split."""
    lead = "did better on validation, but " if spec.seeds.of("search") else ""
    violations = zip(spec.constraints, suggestion.violations("test", spec), strict=True)
    violated = ", ".join(constraint.name for constraint, violation in violations if violation > 0)
    if violated:
        place = "at least one test seed" if spec.search.limits_hold_for == "every_seed" else "test"
        return f"{lead}violates {violated} on {place}"
    if suggestion.is_feasible("test", spec):
        shown = f": its seeds on both splits give {certainty:.2f}, and {RULES.confirmed:g} is asked for"
        doubt = "" if math.isnan(certainty) else shown
        return f"meets the limits on test by too little to be sure{doubt}"
    outcomes = suggestion.on("test").values()
    n_failed = sum(outcome.status != "completed" for outcome in outcomes)
    return f"{lead}{n_failed} of its {counted(len(outcomes), 'trial')} on test failed"


def _margins(spec: SweepSpec, suggestion: Suggestion, split: Split) -> Iterator[str]:
    """Yield for each limit what was measured, by how much it is met or violated, and on how many seeds it is met."""
    for constraint, violation in zip(spec.constraints, suggestion.violations(split, spec), strict=True):
        values = spread(suggestion, split, constraint.metric)
        margin = constraint.margin(values.mean)
        shown = number(constraint.metric, abs(margin))
        if margin < 0:
            verdict = f"violated by {shown}"
        elif violation > 0:
            verdict = "violated, as every seed must meet it"
        else:
            verdict = f"met with {shown} to spare"
        on_seeds = f"met on {n_met(constraint, values.values)} of {counted(len(values.values), 'seed')}"
        yield f"  {constraint.name}: {with_spread(constraint.metric, suggestion, split)}, {verdict}; {on_seeds}"
