"""What a reader of the page should know before believing an answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from orchestrator.core.metrics import METRICS, quantity
from orchestrator.core.scores import ACCURACY
from orchestrator.core.text import counted
from orchestrator.report.page.facts import MethodFacts, Tables
from orchestrator.report.page.frontier import edge_warnings
from orchestrator.results.diagnostics.losing import plasticity_warning
from orchestrator.search.answers.summary import ScenarioSummary
from orchestrator.spec.sweep_spec import SweepSpec

_FEW_SEEDS = 3


def cautions(spec: SweepSpec, summary: ScenarioSummary, facts: Sequence[MethodFacts], tables: Tables) -> Iterator[str]:
    """Yield what a reader should know before believing the answer."""
    for cell in summary.cells:
        if cell.level_of:
            yield f"{cell.cell.method} is no better than {cell.level_of}."
        if cell.n_failed:
            yield f"{cell.cell.method}: {counted(cell.n_failed, 'trial')} failed; see show RUN --trials."
    few = [one.method for one in facts if len(one.keys) < _FEW_SEEDS]
    if few:
        yield f"Fewer than {_FEW_SEEDS} seeds, too few to tell chance from skill: {', '.join(few)}."
    yield from _coarse(spec, summary.scenario, facts, tables)
    for one in facts:
        if one.summary.chosen is not None and one.search.cell.is_searched:
            yield from (f"{line}." for line in edge_warnings(one))
    for one in facts:
        if line := plasticity_warning(one.method, tables.diagnostics_of(one.keys)):
            yield f"{line}."


def _coarse(spec: SweepSpec, scenario: str, facts: Sequence[MethodFacts], tables: Tables) -> Iterator[str]:
    """Yield the limits that are finer than one example of the smallest task."""
    if spec.score_of(scenario) != ACCURACY or not facts:
        return
    cells = tables.accuracy_of(facts[0].keys)
    smallest = int(cells["n_examples"].min())
    for constraint in spec.constraints:
        asked = quantity(constraint.metric)
        if asked.metric in METRICS and asked.score in (None, ACCURACY):
            width = constraint.limit if asked.definition.low < 0 else 1 - constraint.limit
            if 1 / smallest > max(width, 0):
                step = f"one of the {smallest} examples of the smallest task is {100 / smallest:.3g} points"
                yield f"{constraint.name} is finer than the data can tell: {step}."
