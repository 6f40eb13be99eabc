"""What the terminal shows of single trials."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table

from orchestrator.core.metrics import METRICS
from orchestrator.report.text import number, render_matrix
from orchestrator.results.rows import load_json
from orchestrator.results.run import Run
from orchestrator.search.suggestion import describe
from orchestrator.trial.protocol import Report
from orchestrator.trial.result import TrialResult


def reporter(console: Console) -> Report:
    """Return a report that prints a line a task."""

    has_head = False

    def report(after: int, row: list[float]) -> None:
        nonlocal has_head
        shown = "  ".join("  –   " if math.isnan(value) else f"{value:.4f}" for value in row)
        label = "untrained" if after < 0 else f"after task {after}"
        if not all(math.isnan(value) for value in row):
            if not has_head:
                has_head = True
                tasks = "  ".join(f"task {task}".ljust(6) for task in range(len(row)))
                console.print(f"{'accuracy on':14}{tasks}".rstrip())
            console.print(f"{label:13} {shown}")

    return report


def print_result(console: Console, result: TrialResult) -> None:
    """Print status, metrics and costs of a trial."""
    console.print(f"trial {result.key}: {result.status} {result.reason}".rstrip())
    for name, value in {**result.metrics(), **result.costs}.items():
        if not math.isnan(value):
            console.print(f"  {name:28}{number(name, value)}")


def compare(console: Console, run: Run, row: dict[str, Any], result: TrialResult) -> bool:
    """Say whether a repeated trial's matrix equals the recorded one bit for bit, and return that."""
    if result.status != row["status"]:
        console.print(f"different: {result.status} now, {row['status']} then ({result.reason})")
        return False
    if result.status != "completed":
        console.print(f"equal: {result.status} again ({result.reason})")
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
        console.print("equal: the matrix is bit-equal to the recorded one")
        return True
    differing = sorted(cell for cell in then.keys() | now.keys() if then.get(cell) != now.get(cell))
    console.print(f"different in {len(differing)} of {len(now)} cells (after task, task): {differing[:10]}")
    where = f"{row['device_name']}, {row['threads']} threads, torch {row['torch_version']}"
    console.print(f"recorded on {where}")
    console.print(render_matrix(run.matrix(result.key)))
    return False


def render_trials(frame: pd.DataFrame, objective: str) -> Table:
    """Return every trial of a run, a line each."""
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
    """Return for each method the hyper-parameters that are not the same in all of its trials."""
    varied = {}
    for method, texts in frame.groupby("method")["hyperparameters"]:
        assignments = [load_json(text) for text in texts.unique()]
        names = assignments[0] if len(assignments) > 1 else {}
        varied[str(method)] = [n for n in names if any(a.get(n) != names[n] for a in assignments)]
    return varied


def _differing(row: dict[Any, Any], varied: dict[str, list[str]]) -> str:
    """Return a trial's hyper-parameters: those that vary first."""
    values = load_json(row["hyperparameters"])
    names = [*varied[row["method"]], *(name for name in values if name not in varied[row["method"]])]
    return ", ".join(f"{name} {describe(values[name])}" for name in names if name in values)
