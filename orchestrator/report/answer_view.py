"""The answer as the terminal shows it: a table for each scenario, and the recommendation in words."""

from __future__ import annotations

import math
from collections.abc import Iterator

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from orchestrator.core.metrics import METRICS, quantity
from orchestrator.core.scores import ACCURACY, Score
from orchestrator.core.text import counted, visible
from orchestrator.report.certainty_view import certainty_lines
from orchestrator.report.numbers import UNKNOWN, number, value_text
from orchestrator.search.answers.full_answer import Answer
from orchestrator.search.answers.summary import CellSummary, ScenarioSummary, n_met, spread
from orchestrator.search.evidence import RULES
from orchestrator.search.suggestion import Split, Suggestion, rank
from orchestrator.spec.sweep_spec import SweepSpec

_HEADS = {
    "average_accuracy": "accuracy",
    "learning_average": "learning",
    "backward_transfer": "BWT",
    "kept_bytes": "memory",
    "peak_memory_bytes": "peak memory",
    "n_parameters": "parameters",
}
_MOST_TRIED = 2
"""Suggestions of a method that failed on test and are shown one by one."""

_GO_ON = "Run the same command again."
_IMBALANCED = 0.7
"""If one answer is right so often, accuracy hides what happens to the other classes."""


def with_spread(metric: str, suggestion: Suggestion, split: Split) -> str:
    """Return mean ± standard deviation over the seeds of a split."""
    values = spread(suggestion, split, metric)
    deviation = values.std
    shown = number(metric, values.mean)
    return shown if math.isnan(deviation) or deviation == 0 else f"{shown} ± {number(metric, deviation)}"


def render_answer(spec: SweepSpec, scenarios: list[ScenarioSummary], answer: Answer | None = None) -> RenderableType:
    """Return a table of the methods and the answer in words, for each scenario.

    Args:
        spec: the sweep.
        scenarios: the answer for each.
        answer: the whole answer, for how sure it is.
    """
    parts: list[RenderableType] = []
    for scenario in scenarios:
        parts += [_table(spec, scenario), *answer_lines(spec, scenario)]
        if answer is not None and scenario.meaningless is None:
            parts += certainty_lines(spec.objective, answer.scenario(scenario.scenario))
        parts.append("")
    if any(cell.is_reference for scenario in scenarios for cell in scenario.cells):
        parts.append("* keeps the data of all tasks: an upper bound to compare with, never recommended")
    return Group(*parts)


def columns(spec: SweepSpec, score: Score = ACCURACY) -> list[str]:
    """Return the metrics in the table: the objective, accuracy, forgetting, whatever is limited, memory and time."""
    limited = (constraint.metric for constraint in spec.constraints)
    own = [spec.objective] if score == ACCURACY else [spec.objective, "average", "average_accuracy"]
    return list(dict.fromkeys([*own, "worst_forgetting", *limited, "kept_bytes", "seconds"]))


def head(metric: str, score: Score) -> str:
    """Return a metric as the head of a column; an average is named by its score alone."""
    asked = quantity(metric)
    if asked.metric == "average" and not asked.tasks:
        return str(asked.score or score)
    text = _HEADS.get(metric, metric)
    return visible(text.replace("_", " ") if asked.score is None and not asked.tasks else text)


def _table(spec: SweepSpec, scenario: ScenarioSummary) -> Table:
    score = spec.score_of(scenario.scenario)
    title = scenario.scenario + ("" if score == ACCURACY else f", score {score}")
    table = Table(title=Text(visible(title)), title_justify="left", box=box.SIMPLE_HEAD, title_style="bold")
    table.add_column("method")
    if spec.limits:
        table.add_column("limits")
    for metric in columns(spec, score):
        table.add_column(Text(head(metric, score)), justify="right")
    table.add_column("measured on")
    table.add_column("hyper-parameters", overflow="fold")
    for cell in scenario.cells:
        suggestion, split = _shown(cell)
        style = "bold green" if cell is scenario.best else ""
        if suggestion is not None and not suggestion.is_feasible(split, spec):
            style = "dim"
        table.add_row(
            Text(visible(cell.cell.method + ("*" if cell.is_reference else "")), style=style),
            *([_limits(spec, cell, suggestion, split)] if spec.limits else []),
            *(with_spread(metric, suggestion, split) if suggestion else UNKNOWN for metric in columns(spec, score)),
            _measured_on(spec, cell, suggestion, split),
            _assignment(cell, suggestion) if suggestion else "",
        )
    return table


def _limits(spec: SweepSpec, cell: CellSummary, suggestion: Suggestion | None, split: Split) -> Text:
    if suggestion is None and cell.stopped_at:
        return Text("violated", style="red")
    if suggestion is None or not math.isfinite(suggestion.total_violation(split, spec)):
        return Text(UNKNOWN)  # a trial failed, so its metrics are not known
    is_met = suggestion.is_feasible(split, spec)
    return Text("met", style="green") if is_met else Text("violated", style="red")


def _measured_on(spec: SweepSpec, cell: CellSummary, suggestion: Suggestion | None, split: Split) -> str:
    if suggestion is None and cell.stopped_at:
        return stopped_words(cell)
    if suggestion is None:
        return "no result" + (f", {counted(cell.n_failed, 'trial')} failed" if cell.n_failed else "")
    n = len(suggestion.on(split))
    n_all = max(n, len(spec.seeds.of("confirm" if split == "test" else "search")))
    return f"{split}, " + ("" if n == n_all else f"{n} of ") + counted(n_all, "seed")


def stopped_words(cell: CellSummary) -> str:
    """Return what is known of a method whose every trial was stopped because it broke a limit for good."""
    values = ", ".join(
        f"{metric} {number(quantity(metric).metric, value)}" for metric, value in cell.stopped_at.items()
    )
    return f"every trial was stopped, at best with {values}"


def _shown(cell: CellSummary) -> tuple[Suggestion | None, Split]:
    """Return the suggestion that stands for a cell and the split that it is shown in."""
    if cell.chosen is not None and cell.chosen.on("test"):
        return cell.chosen, "test"
    return cell.chosen or cell.nearest, "validation"


def _assignment(cell: CellSummary, suggestion: Suggestion) -> str:
    values = cell.hyperparameters(suggestion)
    return ", ".join(f"{name} {value_text(value)}" for name, value in values.items())


def _named(cell: CellSummary, suggestion: Suggestion) -> str:
    """Return a method with its hyper-parameters, as a sentence names it."""
    assignment = _assignment(cell, suggestion)
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
            yield f"{cell.cell.method} with {_assignment(cell, one)} {_veto(spec, one, math.nan)}."
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
        suggestion, split = _shown(cell)
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
