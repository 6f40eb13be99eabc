"""The table of the methods of a scenario in the terminal, in the widest form that keeps words whole."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from orchestrator.core.metrics import quantity
from orchestrator.core.scores import ACCURACY, Score
from orchestrator.core.text import counted, visible
from orchestrator.report.numbers import UNKNOWN, number, value_text
from orchestrator.search.answers.summary import CellSummary, ScenarioSummary, spread
from orchestrator.search.suggestion import Split, Suggestion
from orchestrator.spec.sweep_spec import SweepSpec

_HEADS = {
    "average_accuracy": "accuracy",
    "learning_average": "learning",
    "backward_transfer": "BWT",
    "kept_bytes": "memory",
    "peak_memory_bytes": "peak memory",
    "n_parameters": "parameters",
}
Form = Literal["wide", "narrow", "means"]
"""With hyper-parameters beside the numbers, with them below, and without spreads too."""

_WIDEST = 10_000


def with_spread(metric: str, suggestion: Suggestion, split: Split) -> str:
    """Return mean ± standard deviation over the seeds of a split."""
    values = spread(suggestion, split, metric)
    deviation = values.std
    shown = number(metric, values.mean)
    if math.isnan(deviation) or deviation == 0:
        return shown
    around = number(metric, deviation)
    mean, _, unit = shown.partition(" ")
    return f"{mean} ± {around}" if unit and around.endswith(f" {unit}") else f"{shown} ± {around}"


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


@dataclass(frozen=True)
class MethodsTable:
    """The table of the methods of a scenario in the widest form that keeps words whole.

    Where the hyper-parameters do not fit beside the numbers they stand below the table, and where the spreads do not
    fit either they are left out.
    """

    spec: SweepSpec
    scenario: ScenarioSummary

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        wide = _table(self.spec, self.scenario, "wide")
        if Measurement.get(console, options.update(width=_WIDEST), wide).maximum <= options.max_width:
            yield wide
            return
        narrow = _table(self.spec, self.scenario, "narrow")
        if Measurement.get(console, options.update(width=_WIDEST), narrow).maximum > options.max_width:
            narrow = _table(self.spec, self.scenario, "means")
        yield narrow
        for cell in self.scenario.cells:
            suggestion, _ = shown_of(cell)
            if suggestion is not None and (assignment := assigned(cell, suggestion)):
                yield Text(visible(f"  {cell.cell.method}: {assignment}"))
        yield Text("")


def _table(spec: SweepSpec, scenario: ScenarioSummary, form: Form) -> Table:
    """Return the table of the methods; all but the wide form have no hyper-parameters, and `means` has no spreads."""
    score, is_wide = spec.score_of(scenario.scenario), form == "wide"
    title = scenario.scenario + ("" if score == ACCURACY else f", score {score}")
    table = Table(
        title=Text(visible(title)), title_justify="left", box=box.SIMPLE_HEAD, title_style="bold",
        padding=(0, 1) if is_wide else (0, 1, 0, 0),
    )  # fmt: skip
    table.add_column("method", no_wrap=not is_wide)
    if spec.limits:
        table.add_column("limits", no_wrap=not is_wide)
    for metric in columns(spec, score):
        name = head(metric, score)
        table.add_column(Text(name if is_wide else name.replace(" ", "\n")), justify="right", no_wrap=not is_wide)
    table.add_column("measured on" if is_wide else "on", no_wrap=not is_wide)
    if is_wide:
        table.add_column("hyper-parameters", overflow="fold")
    for cell in scenario.cells:
        suggestion, split = shown_of(cell)
        style = "bold green" if cell is scenario.best else ""
        if suggestion is not None and not suggestion.is_feasible(split, spec):
            style = "dim"
        measured_on = _measured_on(spec, cell, suggestion, split)
        table.add_row(
            Text(visible(cell.cell.method + ("*" if cell.is_reference else "")), style=style),
            *([_limits(spec, cell, suggestion, split)] if spec.limits else []),
            *(_number(metric, suggestion, split, form) for metric in columns(spec, score)),
            Text(measured_on if is_wide else measured_on.replace(", ", ",\n")),
            *([assigned(cell, suggestion) if suggestion else ""] if is_wide else []),
        )
    return table


def _number(metric: str, suggestion: Suggestion | None, split: Split, form: Form) -> Text:
    if suggestion is None:
        return Text(UNKNOWN)
    is_bare = form == "means" or (form == "narrow" and metric == "seconds")
    return Text(number(metric, suggestion.mean(split, metric)) if is_bare else with_spread(metric, suggestion, split))


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


def shown_of(cell: CellSummary) -> tuple[Suggestion | None, Split]:
    """Return the suggestion that stands for a cell and the split that it is shown in."""
    if cell.chosen is not None and cell.chosen.on("test"):
        return cell.chosen, "test"
    return cell.chosen or cell.nearest, "validation"


def assigned(cell: CellSummary, suggestion: Suggestion) -> str:
    """Return the hyper-parameters of a suggestion, as a sentence lists them."""
    values = cell.hyperparameters(suggestion)
    return ", ".join(f"{name} {value_text(value)}" for name, value in values.items())
