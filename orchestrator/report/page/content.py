"""Everything that the page says, as typed objects: the template only lays it out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from orchestrator.core.metrics import DERIVED, METRICS_AND_COSTS, quantity
from orchestrator.core.scores import Score
from orchestrator.core.text import counted
from orchestrator.report.answer_view import answer_lines
from orchestrator.report.certainty_view import certainty_lines, parts_of
from orchestrator.report.methods_table import columns, head, stopped_words
from orchestrator.report.numbers import UNKNOWN, number, value_text
from orchestrator.report.page.cautions import cautions
from orchestrator.report.page.facts import MethodFacts, Tables, method_facts, metric_of, suggestion_facts, thinned
from orchestrator.report.page.figure import Colours, Figure
from orchestrator.report.page.frontier import balance_figure, frontier_figure
from orchestrator.report.page.inside import inside_figures
from orchestrator.report.page.matrices import curves_figure, matrix_figure, over_time_figure
from orchestrator.report.page.searching import cost_figure, importance_figure, parallel_figure, search_figure
from orchestrator.search.answers.certainty import Spread
from orchestrator.search.answers.full_answer import Answer, ScenarioAnswer
from orchestrator.search.answers.summary import CellSummary, ScenarioSummary, spread
from orchestrator.search.cell_search import CellSearch
from orchestrator.search.sweep_search import SweepSearch
from orchestrator.spec.sweep_spec import SweepSpec

_MOST_SUGGESTIONS = 1_200
"""Suggestions of a scenario in its figures; a run of 10,000 trials must open quickly."""

_MOST_IN_ALL = 12_000
"""The same of all scenarios together."""

_MOST_IMPORTANCES = 40
"""Searched cells of a sweep up to which importances are shown for all of them: each takes about a second."""


@dataclass(frozen=True)
class TableCell:
    """A cell of the table of methods.

    Args:
        text: what is shown.
        detail: below it, smaller.
        value: to sort by; None comes last.
    """

    text: str
    detail: str = ""
    value: float | str | None = None


@dataclass(frozen=True)
class MethodRow:
    """A method in the table.

    Args:
        method: its name.
        role: `recommended`, `runner-up`, `upper bound` or nothing.
        verdict: whether it meets the limits: `met`, `violated` or unknown.
        cells: its numbers, one for each head of the table.
        limits: a sentence for each limit.
        hyperparameters: name -> value.
        measured_on: split and seeds.
    """

    method: str
    role: str
    verdict: str
    cells: tuple[TableCell, ...]
    limits: tuple[str, ...]
    hyperparameters: dict[str, str]
    measured_on: str


@dataclass(frozen=True)
class ScenarioContent:
    """What the page says of a scenario.

    Args:
        name: of the scenario.
        anchor: its id on the page.
        status: of the answer.
        verdict: the answer in a few words.
        lines: the answer in words; those that begin with a blank belong to the one before.
        warnings: what a reader should know before believing it.
        heads: of the table of methods.
        methods: its rows.
        figures: in the order in which they are shown, by the heading above them.
    """

    name: str
    anchor: str
    status: str
    verdict: str
    lines: tuple[str, ...]
    warnings: tuple[str, ...]
    heads: tuple[str, ...]
    methods: tuple[MethodRow, ...]
    figures: tuple[tuple[str, tuple[Figure, ...]], ...]


@dataclass(frozen=True)
class PageContent:
    """What the page of a run says.

    Args:
        name: of the sweep.
        question: what was asked.
        state: whether trials are missing.
        scenarios: each of them.
        facts: provenance, name -> value.
        data: what was read of the user's own data, as `plan` shows it; empty for data sets that everyone has.
        command: repeats the sweep.
        spec: as YAML.
        glossary: metric -> meaning.
    """

    name: str
    question: str
    state: str
    scenarios: tuple[ScenarioContent, ...]
    facts: dict[str, str]
    data: str
    command: str
    spec: str
    glossary: dict[str, str]

    @property
    def figures(self) -> Iterator[Figure]:
        """Yield all figures."""
        for scenario in self.scenarios:
            for _, figures in scenario.figures:
                yield from figures


def question_of(spec: SweepSpec) -> str:
    """Return what a sweep asks, in a sentence."""
    methods = _listed(list(dict.fromkeys(cell.method for cell in spec.cells)))
    scenarios = _listed(list(dict.fromkeys(cell.scenario for cell in spec.cells)))
    limits = " and ".join(constraint.name for constraint in spec.constraints)
    scores = {spec.score_of(cell.scenario) for cell in spec.cells}
    best = objective_words(spec, scores.pop() if len(scores) == 1 else None)
    asked = f"meets {limits}, and then has the best {best}" if limits else f"has the best {best}"
    return f"Which of {methods} {asked}, on {scenarios}?"


def objective_words(spec: SweepSpec, score: Score | None) -> str:
    """Return the objective in words: an average is that of a score, None for several."""
    return spec.objective if spec.objective != "average" else f"average {'score' if score is None else score}"


def _listed(names: list[str], most: int = 8) -> str:
    if len(names) > most:
        return f"{', '.join(names[:most])} and {len(names) - most} more"
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def scenario_content(
    search: SweepSearch, summary: ScenarioSummary, answer: Answer, tables: Tables, number_of: int
) -> ScenarioContent:
    """Return what the page says of a scenario.

    Args:
        search: of the sweep.
        summary: of the scenario.
        answer: of the run.
        tables: of the run.
        number_of: the scenario's place, for its anchor.
    """
    spec, own = search.spec, answer.scenario(summary.scenario)
    score = spec.score_of(summary.scenario)
    searches = [cell for cell in search.cells if cell.cell.scenario == summary.scenario]
    facts = [
        found
        for cell, one in zip(summary.cells, searches, strict=True)
        if (found := method_facts(spec, cell, one, tables)) is not None
    ]
    certain = certainty_lines(spec.objective, own) if summary.meaningless is None else ()
    heads = tuple(columns(spec, score))
    anchor = f"scenario-{number_of}"
    share = max(_MOST_IN_ALL // len(answer.scenarios), 60)
    return ScenarioContent(
        summary.scenario,
        anchor,
        own.status,
        _verdict(spec, own),
        (*answer_lines(spec, summary), *certain),
        tuple(cautions(spec, summary, facts, tables)),
        tuple(head(metric, score) for metric in heads),
        tuple(_method_row(spec, own, cell, heads) for cell in summary.cells),
        tuple(_figures(anchor, spec, own, searches, facts, tables, min(share, _MOST_SUGGESTIONS))),
    )


def _verdict(spec: SweepSpec, answer: ScenarioAnswer) -> str:
    if answer.recommended is None:
        return answer.status
    test = answer.method(answer.recommended).test
    found = test.numbers[spec.objective] if test is not None else None
    if found is None:
        return answer.recommended
    form = metric_of(spec.objective)
    between = "" if math.isnan(found.low) else f" ({number(form, found.low)} to {number(form, found.high)})"
    objective = objective_words(spec, spec.score_of(answer.scenario))
    return f"{answer.recommended}: {objective} {number(form, found.mean)}{between} on test"


def _method_row(spec: SweepSpec, answer: ScenarioAnswer, cell: CellSummary, heads: Sequence[str]) -> MethodRow:
    one = answer.method(cell.cell.method)
    measured = one.test or one.validation
    suggestion = cell.chosen or cell.nearest
    role = "upper bound" if one.is_reference else ""
    if one.method == answer.recommended:
        role = "recommended"
    elif one.method == answer.runner_up:
        role = "runner-up"
    if measured is None or suggestion is None:
        empty = tuple(TableCell(UNKNOWN) for _ in heads)
        if cell.stopped_at:
            return MethodRow(one.method, role, "violated", empty, (), {}, stopped_words(cell))
        failed = f", {counted(cell.n_failed, 'trial')} failed" if cell.n_failed else ""
        return MethodRow(one.method, role, UNKNOWN, empty, (), {}, f"no result{failed}")
    is_known = all(not math.isnan(check.margin) for check in measured.limits)
    is_met = is_known and all(check.is_met for check in measured.limits)
    return MethodRow(
        one.method,
        role,
        ("met" if is_met else "violated") if is_known and measured.limits else UNKNOWN,
        tuple(_number_cell(metric, spread(suggestion, measured.split, metric)) for metric in heads),
        tuple(_limit_line(check.limit, check.is_met, check.margin) for check in measured.limits),
        {name: value_text(value) for name, value in one.hyperparameters.items()},
        f"{measured.split}, {counted(measured.n_seeds, 'seed')}",
    )


def _number_cell(metric: str, over: Spread) -> TableCell:
    low, high = over.interval
    form = metric_of(metric)
    is_certain = math.isnan(low) or low == high or METRICS_AND_COSTS[form].is_measured
    shown = "" if is_certain else f"{number(form, low)} to {number(form, high)}"
    return TableCell(number(form, over.mean), shown, None if math.isnan(over.mean) else over.mean)


def _limit_line(limit: str, is_met: bool, margin: float) -> str:
    metric = metric_of(parts_of(limit)[0])
    if math.isnan(margin):
        return f"{limit}: not known"
    amount = number(metric, abs(margin))
    if margin < 0:
        return f"{limit}: violated by {amount}"
    return (
        f"{limit}: met with {amount} to spare" if is_met else f"{limit}: violated by the rule, though the mean meets it"
    )


def _figures(
    anchor: str,
    spec: SweepSpec,
    answer: ScenarioAnswer,
    searches: Sequence[CellSearch],
    facts: Sequence[MethodFacts],
    tables: Tables,
    most: int,
) -> Iterator[tuple[str, tuple[Figure, ...]]]:
    score: Score = spec.score_of(answer.scenario)
    colours = Colours(tuple(cell.cell.method for cell in searches))
    measured = [one for one in facts if one.n_tasks]
    beside = _beside(answer, measured)
    if beside:
        figures = [matrix_figure(f"{anchor}-matrix", score, beside)]
        if max(one.n_tasks for one in beside) > 1:
            figures.append(curves_figure(f"{anchor}-curves", score, beside))
        if (over_time := over_time_figure(f"{anchor}-over-time", score, beside, tables)) is not None:
            figures.append(over_time)
        yield "What is remembered", tuple(figures)
    every = list(suggestion_facts(spec, searches))
    shown = thinned(every, most)
    trade = [
        frontier_figure(f"{anchor}-limit-{index}", spec, answer, constraint, shown, colours)
        for index, constraint in enumerate(spec.constraints)
    ]
    balance = balance_figure(f"{anchor}-balance", score, measured, tables, colours) if measured else None
    if present := [figure for figure in (*trade, balance) if figure is not None]:
        yield "What a limit costs", tuple(present)
    searched = [one for one in shown if one.state != "not searched"]
    tried = [search_figure(f"{anchor}-search", spec, searched, len(every) - len(shown), colours)]
    for index, one in enumerate(searches):
        own = [found for found in every if found.method == one.cell.method]
        tried.append(parallel_figure(f"{anchor}-parallel-{index}", spec, one, own))
    few = sum(cell.is_searched for cell in spec.cells) <= _MOST_IMPORTANCES
    looked_at = [one for one in searches if few or one.cell.method == answer.recommended]
    tried.append(importance_figure(f"{anchor}-importance", spec, looked_at))
    if present := [figure for figure in tried if figure is not None]:
        yield "What the search tried", tuple(present)
    if inside := inside_figures(f"{anchor}-inside", measured, tables, colours):
        yield "What goes on inside", inside
    cost = cost_figure(f"{anchor}-costs", searches, tables)
    if cost is not None:
        yield "What it cost", (cost,)


def _beside(answer: ScenarioAnswer, facts: Sequence[MethodFacts]) -> list[MethodFacts]:
    """Return the methods whose R is shown: the recommended, or else the best known, beside naive and joint."""
    by_name = {one.method: one for one in facts}
    compared = [name for name in ("naive", "joint") if name in by_name]
    others = [one for one in facts if one.method not in compared]
    nearest = min(others, key=lambda one: one.suggestion.total_violation(one.split, one.search.spec), default=None)
    first = answer.recommended or (nearest.method if nearest is not None else None)
    names = dict.fromkeys([*([first] if first in by_name else []), *compared])
    return [by_name[name] for name in names if name is not None]


def glossary_of(spec: SweepSpec) -> dict[str, str]:
    """Return metric -> meaning for what the page names."""
    named = [spec.objective, *(constraint.metric for constraint in spec.constraints)]
    known = [quantity(name).metric for name in named]
    shown = (*known, "average", "worst_forgetting", "backward_transfer", "learning_average", "kept_bytes", "seconds")
    found = {name: METRICS_AND_COSTS[name].meaning for name in dict.fromkeys(shown)}
    return found | {"chance_accuracy": DERIVED["chance_accuracy"]}
