"""The methods and scenarios that exist, as the terminal lists them. Imports nothing heavy: a list should not wait."""

from __future__ import annotations

from typing import Any

from pydantic.fields import FieldInfo
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from orchestrator.core.errors import UsageError
from orchestrator.core.metrics import DERIVED, METRICS_AND_COSTS
from orchestrator.core.scores import SCORES
from orchestrator.core.text import visible
from orchestrator.report.numbers import value_text
from orchestrator.spec.validation import method_fault
from orchestrator.streams.checking import refused_type
from orchestrator.streams.facts import DATASETS
from orchestrator.streams.settings import INCREMENTAL_TYPES, STREAMS, StreamSettings, number_of_tasks
from search_spaces import Choices, Distribution, default_space
from strategies import STRATEGIES, Strategy, find_method

EXAMPLE = """\
streams:
  photos: {folder: data/photos, image_size: 32, classes_per_task: 2}
  churn: {table: data/churn.csv, label: churned, task: quarter, drop: [customer_id]}
scenarios: [photos/class, churn/domain]
"""
"""The part of a spec that names a user's own data."""


def render_methods(name: str | None = None) -> RenderableType:
    """Return methods with their papers, hyper-parameters, ranges, search space and incremental types.

    Args:
        name: a method, a combination (for its parts), or a `module:Class` that is already imported; by default all.

    Raises:
        UsageError: if there is no such method or the parts do not combine.
    """
    fault = None if name is None else method_fault(name)
    if fault:
        raise UsageError(f"methods: {fault}")
    chosen = STRATEGIES if name is None else find_method(name).parts
    parts: list[RenderableType] = []
    for part, strategy in chosen.items():
        parts.append(Text(visible(f"{part}: {strategy.summary}"), style="bold"))
        if strategy.paper:
            parts.append(f"  {strategy.paper}")
        kinds: dict[str, list[str]] = {}
        for kind in INCREMENTAL_TYPES:
            kinds.setdefault(_ability(strategy, kind), []).append(kind)
        parts += [f"  {', '.join(of)}: {ability}" for ability, of in kinds.items()]
        if strategy.needs_whole_tasks:
            parts.append(f"  blurry tasks: no: {strategy.needs_whole_tasks}")
        if strategy.starts_anew:
            parts.append("  evaluate_every: at the ends of tasks alone: each begins with an untrained network")
        fields = strategy.hyperparameter_class.model_fields
        if fields:
            parts.append(_hyperparameters(fields, default_space(find_method(part))))
        parts.append(Text(""))
    elsewhere = [] if name else [other for other in STRATEGIES.installed if other not in chosen]
    if elsewhere:
        parts.append(f"From other installed packages (methods NAME shows one): {', '.join(elsewhere)}")
    return Group(*parts)


def render_scenarios() -> RenderableType:
    """Return every stream with its incremental types, the settings of streams, metrics and costs."""
    table = Table(box=box.SIMPLE_HEAD)
    for column in ("stream", "tasks", "incremental types", "data set"):
        table.add_column(column, no_wrap=column == "stream")
    for name, (_, dataset) in STREAMS.items():
        kinds = ", ".join(kind for kind in INCREMENTAL_TYPES if refused_type(name, kind) is None)
        n_tasks = str(number_of_tasks(name, StreamSettings()))
        table.add_row(name, n_tasks, kinds, DATASETS[dataset].source)
    abilities = Table(box=box.SIMPLE_HEAD)
    abilities.add_column("method", no_wrap=True)
    for kind in INCREMENTAL_TYPES:
        abilities.add_column(kind)
    for name, strategy in STRATEGIES.items():
        abilities.add_row(name, *(_ability(strategy, kind) for kind in INCREMENTAL_TYPES))
    settings = _facts({name: field.description or "" for name, field in StreamSettings.model_fields.items()})
    return Group(
        Text("A scenario is STREAM/TYPE, such as split-mnist/class.", style="bold"),
        table,
        Text("Rotated and noisy streams have no class type: all of their tasks have the same classes."),
        Text("\nYour own data: name a folder of images or a table, then use that name in scenarios", style="bold"),
        Text(EXAMPLE),
        Text(
            "A folder has the layout FOLDER/TASK/CLASS/IMAGE, or FOLDER/CLASS/IMAGE to be cut into tasks by class. A "
            "table is a Parquet or CSV file with a column of classes (label) and a column of tasks (task); without "
            "task it is cut into tasks by class. If tasks share a class, there is no class type."
        ),
        Text("\nWhich method runs on which incremental type", style="bold"),
        abilities,
        Text("\nSettings of a stream, under streams.NAME in a spec", style="bold"),
        settings,
        Text("\nScores, for score, scores, and in front of a metric (auroc.worst_forgetting)", style="bold"),
        _facts({f"{n}(CLASS)" if kind.of_class else n: kind.meaning for n, kind in SCORES.items()}),
        Text("\nMetrics and costs, for limits and the objective", style="bold"),
        _facts({name: metric.meaning for name, metric in METRICS_AND_COSTS.items()}),
        Text("\nAlso in the tables, but not available for limits", style="bold"),
        _facts(DERIVED),
    )


def _ability(strategy: type[Strategy], kind: Any) -> str:
    if kind in strategy.unsupported:
        return f"no: {strategy.unsupported[kind]}"
    return f"yes, but {strategy.notes[kind]}" if kind in strategy.notes else "yes"


def _hyperparameters(fields: dict[str, FieldInfo], space: dict[str, Distribution]) -> Table:
    """Return a row per hyper-parameter; names and defaults are never cut, even in 80 columns."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("hyper-parameter", no_wrap=True)
    table.add_column("default", no_wrap=True)
    table.add_column("meaning (values allowed; values searched)")
    for name, field in fields.items():
        searched = f"; searched {distribution_text(space[name])}" if name in space else ""
        default = "null" if field.default is None else str(field.default)
        table.add_row(name, default, f"{field.description or ''} ({_allowed(field)}{searched})")
    return table


def _allowed(field: FieldInfo) -> str:
    """Return the values that a hyper-parameter may take."""
    bounds = []
    for rule in field.metadata:
        for attribute, sign in (("gt", ">"), ("ge", "≥"), ("lt", "<"), ("le", "≤")):
            if hasattr(rule, attribute):
                bounds.append(f"{sign} {getattr(rule, attribute):g}")
    if bounds:
        return " and ".join(bounds)
    choices = getattr(field.annotation, "__args__", ())
    return ", ".join(str(choice) for choice in choices if isinstance(choice, str)) or "any"


def distribution_text(distribution: Distribution) -> str:
    """Return what is searched: the choices, or the range and its scale."""
    if isinstance(distribution, Choices):
        return ", ".join(map(str, distribution.choices))
    scale = ", log scale" if distribution.log else ""
    return f"{value_text(float(distribution.low))} … {value_text(float(distribution.high))}{scale}"


def _facts(facts: dict[str, str]) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column()
    for name, meaning in facts.items():
        table.add_row(name, Text(meaning))
    return table
