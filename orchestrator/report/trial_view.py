"""Single trials in the terminal: their progress, their result, their accuracy matrix, and the list of all."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar, cast

import pandas as pd
from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from orchestrator.core.metrics import ACCURACY_METRICS
from orchestrator.core.scores import ACCURACY, Measurement, Score
from orchestrator.core.text import counted, visible
from orchestrator.report.inside_view import inside_of, render_inside
from orchestrator.report.numbers import UNKNOWN, number, value_text
from orchestrator.results.evaluations.rows import evaluations_of
from orchestrator.results.rows import load_json
from orchestrator.results.run import Run
from orchestrator.trial.result import TrialResult

if TYPE_CHECKING:
    from orchestrator.streams.stream import Stream
    from orchestrator.trial.protocol import Report

_Where = TypeVar("_Where", bound=tuple[int, ...])


def reporter(console: Console, score: Score = ACCURACY) -> Report:
    """Return a callback for `run_trial` that prints a row of R, which holds `score`, after each task."""
    has_head = False

    def report(after: int, row: list[Measurement | None], stream: Stream) -> None:
        nonlocal has_head
        values = [
            math.nan if cell is None else cell.value(score, names)
            for cell, names in zip(row, stream.class_names, strict=True)
        ]
        names = [visible(name) for name in stream.task_names]
        widths = [max(len(name), 6) for name in names]
        lead = max(len("untrained"), len(f"{score} on"), *(len(f"after {name}") for name in names))
        if not all(math.isnan(value) for value in values):
            if not has_head:
                has_head = True
                tasks = "  ".join(name.rjust(width) for name, width in zip(names, widths, strict=True))
                console.print(f"{f'{score} on':{lead}}  {tasks}".rstrip())
            shown = (f"{UNKNOWN if math.isnan(v) else f'{v:.4f}':>{w}}" for v, w in zip(values, widths, strict=True))
            label = "untrained" if after < 0 else f"after {names[after]}"
            console.print(f"{label:{lead}}  {'  '.join(shown)}")

    return report


def print_result(console: Console, result: TrialResult, score: Score = ACCURACY) -> None:
    """Print the status, metrics and costs of a trial whose R holds `score`, and its diagnostics if it has some."""
    reason = f" ({result.reason})" if result.reason else ""
    console.print(f"trial {result.key}: {result.status}{reason}")
    metrics = result.metrics(score)
    if score == ACCURACY:  # its own names are shown alone
        metrics = {name: value for name, value in metrics.items() if name not in ACCURACY_METRICS.values()}
    lead = "" if score == ACCURACY else f"{score}."
    named = {name if name in ACCURACY_METRICS else lead + name: number(name, value) for name, value in metrics.items()}
    named |= {name: number(name, value) for name, value in result.costs.items()}
    for name, text in named.items():
        if text != UNKNOWN:
            console.print(visible(f"  {name:{28 + len(lead)}}{text}"))
    if result.diagnostics:
        console.print(render_inside(inside_of(result)))


def compare(console: Console, run: Run, row: dict[str, Any], result: TrialResult) -> bool:
    """Print and return whether all that a repeated trial measured is identical to what is recorded."""
    if result.status != row["status"]:
        reason = f" ({result.reason})" if result.reason else ""
        console.print(f"different: the status is {result.status} now{reason} and was {row['status']}")
        return False
    if result.status not in ("completed", "stopped"):
        console.print(f"equal: the status is {result.status} again ({result.reason})")
        return True
    matrix = {
        (after, task): (count, result.n_examples[task])
        for after, counts in enumerate(result.n_correct, start=-1)
        for task, count in enumerate(counts)
        if count is not None
    }
    within = {
        (during, n_given, task): (sum(cell.n_right), sum(cell.n_true))
        for during, n_given, cells in evaluations_of(result)
        for task, cell in enumerate(cells)
        if cell is not None
    }
    of_matrix = _cells_that_differ(run.accuracy(), result.key, ["after_task", "task"], matrix)
    of_within = _cells_that_differ(run.evaluations(), result.key, ["during_task", "n_given", "task"], within)
    if not of_matrix and not of_within:
        also = " and so are all evaluations within tasks" if result.moments else ""
        console.print(f"equal: the accuracy matrix is identical to the recorded one{also}")
        return True
    if of_matrix:
        n_cells = f"{len(of_matrix)} of {counted(len(matrix), 'cell')}"
        console.print(f"different: {n_cells} of the accuracy matrix, at (after task, task) {of_matrix[:10]}")
    if of_within:
        n_cells = f"{len(of_within)} of {counted(len(within), 'evaluation')}"
        console.print(f"different: {n_cells}, at (during task, examples given, task) {of_within[:10]}")
    threads = counted(row["threads"], "CPU thread")
    console.print(f"recorded on {row['device_name']} with {threads} and torch {row['torch_version']}:")
    console.print(render_matrix(run.matrix(result.key)))
    return False


def _cells_that_differ(
    table: pd.DataFrame, key: str, columns: list[str], now: Mapping[_Where, tuple[int, int]]
) -> list[_Where]:
    """Return at which values of `columns` a recorded trial's counts of right answers and examples are not those now."""
    rows = table.loc[table["key"] == key, [*columns, "n_correct", "n_examples"]].to_numpy(dtype=int).tolist()
    then = {cast(_Where, tuple(where)): (count, n) for *where, count, n in rows}
    return sorted(cell for cell in then.keys() | now.keys() if then.get(cell) != now.get(cell))


def render_matrix(matrix: pd.DataFrame) -> Table:
    """Return R as papers print it: a row per task, a column per `after`, both by the tasks' names."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("task")
    names = [visible(str(name)) for name in matrix.index]
    for after in matrix.columns.astype(int):
        named = names[after] if after < len(names) else str(after)
        table.add_column("untrained" if after == -1 else f"after {named}", justify="right")
    for name, (_, row) in zip(names, matrix.iterrows(), strict=True):
        table.add_row(Text(name), *("" if math.isnan(value) else f"{value:.4f}" for value in row))
    return table


def render_trial(row: dict[str, object], matrix: pd.DataFrame) -> RenderableType:
    """Return one trial: its row, its accuracy matrix, and what its method reports."""
    head = f"{row['scenario']} {row['method']}, {row['phase']} seed {row['seed']}: {row['status']}"
    parts: list[RenderableType] = [Text(visible(f"trial {row['key']}"), style="bold"), head]
    if row["reason"]:
        parts.append(str(row["reason"]))
    parts.append(f"hyper-parameters: {row['hyperparameters']}")
    if len(matrix):
        parts += [Text(visible(f"{row['score']} on each task, after each task")), render_matrix(matrix)]
    for method, facts in load_json(row["details"]).items():
        first, *rest = _details(facts)
        parts += [f"{method}: {first}", *rest]
    return Group(*parts)


def _details(facts: Any) -> list[str]:
    """Return what a method reports: shares of the weights in words, anything else as it is."""
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


def render_trials(frame: pd.DataFrame, objective: str) -> Table:
    """Return every trial of a run, one per line."""
    table = Table(box=box.SIMPLE_HEAD)
    metrics = [m for m in dict.fromkeys([objective, "average_accuracy", "worst_forgetting"]) if m in frame.columns]
    metrics = [m for m in metrics if m != "average" or (frame["score"] != "accuracy").any()]
    for column in ("key", "scenario", "method", "phase", "#", "seed", "status", *metrics, "hyper-parameters"):
        table.add_column(column)
    varied = _varied(frame)
    ordered = frame.sort_values(["scenario", "method", "phase", "suggestion", "seed"])
    for row in ordered.to_dict("records"):
        table.add_row(
            row["key"],
            row["scenario"],
            row["method"],
            row["phase"],
            str(row["suggestion"]),
            str(row["seed"]),
            row["status"],
            *(number(metric, row[metric]) for metric in metrics),
            row["reason"] or _differing(row, varied),
        )
    return table


def _varied(frame: pd.DataFrame) -> dict[str, list[str]]:
    """Return for each method the hyper-parameters that differ between its trials."""
    varied = {}
    for method, texts in frame.groupby("method")["hyperparameters"]:
        assignments = [load_json(text) for text in texts.unique()]
        names = assignments[0] if len(assignments) > 1 else {}
        varied[str(method)] = [n for n in names if any(a.get(n) != names[n] for a in assignments)]
    return varied


def _differing(row: dict[Any, Any], varied: dict[str, list[str]]) -> str:
    """Return a trial's hyper-parameters, first those that differ between trials."""
    values = load_json(row["hyperparameters"])
    names = [*varied[row["method"]], *(name for name in values if name not in varied[row["method"]])]
    return ", ".join(f"{name} {value_text(values[name])}" for name in names if name in values)
