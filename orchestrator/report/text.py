"""What the terminal shows of a run: the answer, a table a scenario, a trial's matrix."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pandas as pd
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from orchestrator.core.text import visible
from orchestrator.report.answer import CellSummary, ScenarioSummary, n_kept, spread
from orchestrator.results.rows import load_json
from orchestrator.search.suggestion import Suggestion, describe
from orchestrator.spec.sweep_spec import SweepSpec
from orchestrator.streams.facts import Phase

_SHORT = {
    "average_accuracy": "accuracy",
    "backward_transfer": "BWT",
    "worst_forgetting": "worst forgetting",
    "kept_bytes": "kept",
}
_SPLIT: dict[Phase, str] = {"search": "validation", "confirm": "test"}


def number(metric: str, value: float, signed: bool = False) -> str:
    """Return a metric or cost as a user reads it: bytes with a unit, seconds with one, the rest with 3 decimals."""
    if math.isnan(value):
        return "–"
    sign = "+" if signed and value > 0 else ""
    if metric.endswith("_bytes"):
        for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
            if abs(value) >= size:
                return f"{sign}{value / size:.3g} {unit}"
        return f"{sign}{value:.0f} B"
    if metric.endswith("seconds"):
        return f"{sign}{value:.2f} s"
    if metric == "n_parameters":
        return f"{sign}{value:,.0f}"
    return f"{sign}{value:.3f}"


def with_spread(metric: str, suggestion: Suggestion, phase: Phase) -> str:
    """Return mean ± standard deviation over the seeds of a phase."""
    values = spread(suggestion, phase, metric)
    deviation = values.std
    shown = number(metric, values.mean)
    return shown if math.isnan(deviation) or deviation == 0 else f"{shown} ± {number(metric, deviation)}"


def render_summary(spec: SweepSpec, scenarios: list[ScenarioSummary]) -> RenderableType:
    """Return the whole summary: for each scenario a table of its methods and the answer in words."""
    parts: list[RenderableType] = []
    for scenario in scenarios:
        parts += [_table(spec, scenario), *answer(spec, scenario), ""]
    if any(cell.is_reference for scenario in scenarios for cell in scenario.cells):
        parts.append("* the ceiling: it keeps all data, so it is shown to compare with and never recommended")
    return Group(*parts)


def columns(spec: SweepSpec) -> list[str]:
    """Return the metrics that the summary shows: the objective, forgetting, and whatever is limited."""
    wanted = [
        spec.objective,
        "worst_forgetting",
        *(c.metric for c in spec.constraints),
        "kept_bytes",
        "seconds",
    ]
    return list(dict.fromkeys(wanted))


def _table(spec: SweepSpec, scenario: ScenarioSummary) -> Table:
    table = Table(title=scenario.scenario, title_justify="left", box=box.SIMPLE_HEAD, title_style="bold")
    table.add_column("method")
    table.add_column("limits")
    for metric in columns(spec):
        table.add_column(_SHORT.get(metric, metric.replace("_", " ")), justify="right")
    table.add_column("measured on")
    table.add_column("hyper-parameters", overflow="fold")
    for cell in scenario.cells:
        suggestion, phase = _shown(cell)
        name = cell.cell.method + ("*" if cell.is_reference else "")
        if suggestion is None:
            table.add_row(name, "no result", *("–" for _ in columns(spec)), f"{cell.n_failed} failed", "")
            continue
        feasible = suggestion.is_feasible(phase, spec)
        state = ("kept" if feasible else "broken") if spec.limits else "none"
        style = "bold green" if cell is scenario.best else ("" if feasible else "dim")
        table.add_row(
            Text(visible(name), style=style),
            Text(state, style="green" if feasible else "red"),
            *(with_spread(metric, suggestion, phase) for metric in columns(spec)),
            _measured_on(spec, suggestion, phase),
            _assignment(cell, suggestion),
        )
    return table


def _measured_on(spec: SweepSpec, suggestion: Suggestion, phase: Phase) -> str:
    n, n_all = len(suggestion.outcomes[phase]), len(spec.seeds.of(phase))
    return f"{_SPLIT[phase]}, " + (counted(n) if n == n_all else f"{n} of {counted(n_all)}")


def counted(n_seeds: int) -> str:
    """Return a number of seeds in words."""
    return "1 seed" if n_seeds == 1 else f"{n_seeds} seeds"


def _shown(cell: CellSummary) -> tuple[Suggestion | None, Phase]:
    """Return the suggestion that stands for a cell and the phase that it is shown in."""
    if cell.chosen is not None and cell.chosen.outcomes["confirm"]:
        return cell.chosen, "confirm"
    return cell.chosen or cell.nearest, "search"


def _assignment(cell: CellSummary, suggestion: Suggestion) -> str:
    values = cell.hyperparameters(suggestion)
    return ", ".join(f"{name} {describe(value)}" for name, value in values.items())


def answer(spec: SweepSpec, scenario: ScenarioSummary) -> Iterator[str]:
    """Yield the answer for one scenario in words."""
    for cell in scenario.cells:
        if cell.is_reference and cell.is_at_chance:
            yield (
                f"Warning: even {cell.cell.method} is at chance (best constant answer: {cell.chance_accuracy:.3f}): "
                "nothing was learned here, so these rows say nothing about methods; check the data and the training."
            )
    best = scenario.best
    if best is not None and best.is_at_chance and not any(cell.is_reference for cell in scenario.cells):
        yield (
            f"Warning: {best.cell.method} is at chance (best constant answer: {best.chance_accuracy:.3f}): add joint "
            "to the methods to see whether anything can be learned here; check the data and the training."
        )
    for cell in scenario.vetoed:
        assert cell.chosen is not None
        lead = "did better on validation, but " if spec.seeds.of("search") else ""
        yield f"{cell.cell.method} {lead}{_veto(spec, cell.chosen)} on test."
    waiting = ", ".join(cell.cell.method for cell in scenario.unconfirmed)
    if best is not None and best.chosen is not None:
        assignment = _assignment(best, best.chosen)
        what = f" with {assignment}" if assignment else ""
        objective = with_spread(spec.objective, best.chosen, "confirm")
        yield f"Best feasible: {best.cell.method}{what}: {spec.objective} {objective} on test."
        if spec.seeds.of("search"):
            yield f"  chosen on validation, where it had {with_spread(spec.objective, best.chosen, 'search')}"
        yield from _margins(spec, best.chosen, "confirm")
        if waiting:
            yield f"Still to be confirmed on test, and perhaps better: {waiting}; run the same command again."
        return
    if waiting:
        yield f"No answer yet: {waiting} is not confirmed on every test seed; run the same command again."
        return
    if scenario.nearest_miss is None:
        n_failed = sum(cell.n_failed for cell in scenario.cells)
        failed = f"{n_failed} trials failed, see show RUN --trials; " if n_failed else ""
        yield f"No method has a complete result yet: {failed}run the same command again for those that are missing."
        return
    cell, suggestion, phase = scenario.nearest_miss
    assignment = _assignment(cell, suggestion)
    what = f" with {assignment}" if assignment else ""
    yield f"Nothing keeps the limits. Nearest miss: {cell.cell.method}{what}, on {_SPLIT[phase]}:"
    yield from _margins(spec, suggestion, phase)


def _veto(spec: SweepSpec, suggestion: Suggestion) -> str:
    """Return why a suggestion cannot be recommended by what it did on the test split."""
    violations = zip(spec.constraints, suggestion.violations("confirm", spec), strict=True)
    broken = ", ".join(constraint.name for constraint, violation in violations if violation > 0)
    if broken:
        return f"does not keep {broken}" + (" on every seed" if spec.search.limits_hold_for == "every_seed" else "")
    outcomes = suggestion.outcomes["confirm"].values()
    return f"{sum(o.status != 'completed' for o in outcomes)} of its {len(outcomes)} trials failed"


def _margins(spec: SweepSpec, suggestion: Suggestion, phase: Phase) -> Iterator[str]:
    for constraint in spec.constraints:
        values = spread(suggestion, phase, constraint.metric)
        margin = constraint.margin(values.mean)
        shown = number(constraint.metric, abs(margin))
        word = f"{shown} inside" if margin >= 0 else f"{shown} outside"
        held = f"holds on {n_kept(constraint, values.values)} of {counted(len(values.values))}"
        yield f"  {constraint.name}: {with_spread(constraint.metric, suggestion, phase)}, {word}; {held}"


def render_matrix(matrix: pd.DataFrame) -> Table:
    """Return R as the articles print it: a row a task, a column an 'after'."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("task")
    for after in matrix.columns.astype(int):
        table.add_column("untrained" if after == -1 else f"after {after}", justify="right")
    for task, row in matrix.iterrows():
        table.add_row(str(task), *("" if math.isnan(value) else f"{value:.4f}" for value in row))
    return table


def render_trial(row: dict[str, object], matrix: pd.DataFrame) -> RenderableType:
    """Return one trial: what it was, how it ended, its matrix, and what the method reports."""
    head = f"{row['scenario']} {row['method']}, {row['phase']} seed {row['seed']}: {row['status']}"
    parts: list[RenderableType] = [Text(visible(f"trial {row['key']}"), style="bold"), head]
    if row["reason"]:
        parts.append(str(row["reason"]))
    parts.append(f"hyper-parameters: {row['hyperparameters']}")
    if len(matrix):
        parts.append(render_matrix(matrix))
    for method, facts in load_json(row["details"]).items():
        first, *rest = _capacity(facts)
        parts += [f"{method}: {first}", *rest]
    return Group(*parts)


def _capacity(facts: Any) -> list[str]:
    """Return what a method reports in words where it is shares of the weights; a user's method may report anything."""
    lines = []
    try:
        for layer, shares in facts.get("capacity", {}).items():
            owners = ", ".join(
                f"{'free' if owner == 'free' else f'task {owner}'} {share:.1%}" for owner, share in shares.items()
            )
            lines.append(f"  {layer}: {owners}")
    except (AttributeError, TypeError, ValueError):
        return [str(facts)]
    return ["share of the weights", *lines] if lines else [str(facts)]
