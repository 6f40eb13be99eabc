"""Single trials in the terminal: their progress, their result, their accuracy matrix, and the list of all."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from orchestrator.core.metrics import METRICS
from orchestrator.core.text import visible
from orchestrator.report.numbers import UNKNOWN, counted, number, value_text
from orchestrator.results.rows import load_json
from orchestrator.results.run import Run
from orchestrator.trial.protocol import Report
from orchestrator.trial.result import TrialResult


def reporter(console: Console) -> Report:
    """Return a callback for `run_trial` that prints a row of the accuracy matrix after each task."""
    has_head = False

    def report(after: int, row: list[float]) -> None:
        nonlocal has_head
        shown = "  ".join(f"  {UNKNOWN}   " if math.isnan(value) else f"{value:.4f}" for value in row)
        label = "untrained" if after < 0 else f"after task {after}"
        if not all(math.isnan(value) for value in row):
            if not has_head:
                has_head = True
                tasks = "  ".join(f"task {task}".ljust(6) for task in range(len(row)))
                console.print(f"{'accuracy on':14}{tasks}".rstrip())
            console.print(f"{label:13} {shown}")

    return report


def print_result(console: Console, result: TrialResult) -> None:
    """Print the status, metrics and costs of a trial."""
    reason = f" ({result.reason})" if result.reason else ""
    console.print(f"trial {result.key}: {result.status}{reason}")
    for name, value in {**result.metrics(), **result.costs}.items():
        if not math.isnan(value):
            console.print(f"  {name:28}{number(name, value)}")


def compare(console: Console, run: Run, row: dict[str, Any], result: TrialResult) -> bool:
    """Print and return whether a repeated trial's accuracy matrix is identical to the recorded one."""
    if result.status != row["status"]:
        reason = f" ({result.reason})" if result.reason else ""
        console.print(f"different: the status is {result.status} now{reason} and was {row['status']}")
        return False
    if result.status != "completed":
        console.print(f"equal: the status is {result.status} again ({result.reason})")
        return True
    accuracy = run.accuracy()
    recorded = accuracy[accuracy["key"] == result.key]
    columns = ["after_task", "task", "n_correct", "n_examples"]
    then = {(after, task): (count, n) for after, task, count, n in recorded[columns].to_numpy(dtype=int).tolist()}
    now = {
        (after, task): (count, result.n_examples[task])
        for after, counts in enumerate(result.n_correct, start=-1)
        for task, count in enumerate(counts)
        if count is not None
    }
    if then == now:
        console.print("equal: the accuracy matrix is identical to the recorded one")
        return True
    differing = sorted(cell for cell in then.keys() | now.keys() if then.get(cell) != now.get(cell))
    n_cells = f"{len(differing)} of {counted(len(now), 'cell')}"
    console.print(f"different: {n_cells} of the accuracy matrix, at (after task, task) {differing[:10]}")
    threads = counted(row["threads"], "CPU thread")
    console.print(f"recorded on {row['device_name']} with {threads} and torch {row['torch_version']}:")
    console.print(render_matrix(run.matrix(result.key)))
    return False


def render_matrix(matrix: pd.DataFrame) -> Table:
    """Return the accuracy matrix R as papers print it: a row per task, a column per `after`."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("task")
    for after in matrix.columns.astype(int):
        table.add_column("untrained" if after == -1 else f"after {after}", justify="right")
    for task, row in matrix.iterrows():
        table.add_row(str(task), *("" if math.isnan(value) else f"{value:.4f}" for value in row))
    return table


def render_trial(row: dict[str, object], matrix: pd.DataFrame) -> RenderableType:
    """Return one trial: its row, its accuracy matrix, and what its method reports."""
    head = f"{row['scenario']} {row['method']}, {row['phase']} seed {row['seed']}: {row['status']}"
    parts: list[RenderableType] = [Text(visible(f"trial {row['key']}"), style="bold"), head]
    if row["reason"]:
        parts.append(str(row["reason"]))
    parts.append(f"hyper-parameters: {row['hyperparameters']}")
    if len(matrix):
        parts.append(render_matrix(matrix))
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
    metrics = list(dict.fromkeys([objective, *list(METRICS)[:1], "worst_forgetting"]))
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
