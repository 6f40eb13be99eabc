"""What was read of a user's own data, in the terminal."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from io import StringIO

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from orchestrator.core.scores import ACCURACY
from orchestrator.core.text import counted, visible
from orchestrator.report.console import PlainConsole
from orchestrator.report.numbers import UNKNOWN
from orchestrator.spec.sweep_spec import SweepSpec
from orchestrator.streams.boundaries import FoundBoundaries
from orchestrator.streams.facts import ReadReport
from orchestrator.trial.data_summary import StreamSummary, fineness_warnings

_MOST_NAMES = 8
_MOST_CLASSES = 5
_MOST_BOUNDARIES = 40


def render_data(spec: SweepSpec, summary: StreamSummary) -> Iterator[RenderableType]:
    """Yield source, features, classes, what was left out, tasks, and what a constant answer scores."""
    yield Text(visible(f"{summary.stream}: {_size(summary)} from {summary.source}"), style="bold")
    if summary.report is not None:
        yield from (f"  {line}" for line in _features(summary.report))
        yield from (f"  left out: {visible(line)}" for line in summary.report.left_out)
    notes = dict.fromkeys((*summary.notes, *(summary.report.notes if summary.report is not None else ())))
    yield from (f"  note: {visible(line)}" for line in notes)
    if summary.report is not None and summary.report.boundaries is not None:
        yield from _boundaries(summary.report.boundaries)
    yield Text(visible(f"  classes: {_shares(summary)}"))
    yield _tasks(spec, summary)
    yield from (f"  {line}" for line in _constants(spec, summary))
    yield from (f"  warning: {visible(line)}." for line in fineness_warnings(spec, summary))


def data_text(spec: SweepSpec, summaries: Iterable[StreamSummary]) -> str:
    """Return what `plan` shows of a user's own data as plain text; empty for data sets that every run has."""
    text = StringIO()
    console = PlainConsole(file=text, width=120, no_color=True)
    for summary in summaries:
        for part in render_data(spec, summary):
            console.print(part)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines())


def _size(summary: StreamSummary) -> str:
    if summary.report is None:
        return counted(int(summary.train.sum() + summary.test.sum()), "example")
    files = "" if summary.report.n_files == 1 else f" in {summary.report.n_files} files"
    return f"{summary.report.n_rows:,} rows{files}"


def _features(report: ReadReport) -> Iterator[str]:
    groups = {
        "numbers": report.numbers,
        "dates and times": report.dates,
        "kinds": [f"{name} ({n})" for name, n in report.kinds.items()],
        "hashed": [f"{name} ({n} buckets)" for name, n in report.hashed.items()],
        "by frequency": report.frequencies,
        "marked where missing": report.indicators,
        "dropped": report.dropped,
    }
    for kind, names in groups.items():
        if names:
            yield visible(f"{kind}: {_some(list(names))}")


def _some(names: list[str]) -> str:
    more = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")


def _boundaries(found: FoundBoundaries) -> Iterator[RenderableType]:
    """Yield how tasks were found, and a row a task: where it begins, why, and how long it is."""
    n_drifts = sum(task.why == "drift" for task in found.tasks)
    passed = f", {found.n_passed_over:,} passed over" if found.n_passed_over else ""
    of = f"{counted(n_drifts, 'drift')} in {found.n_rows:,} training rows{passed}"
    yield Text(visible(f"  boundaries: {found.words}, {of}"))
    table = Table(box=box.SIMPLE_HEAD)
    place = found.order or "row of the table"
    for column in ("begins at training row", place, "training rows", "because of"):
        table.add_column(Text(visible(column)), justify="left" if column in (place, "because of") else "right")
    for task in found.tasks[:_MOST_BOUNDARIES]:
        table.add_row(f"{task.row + 1:,}", Text(visible(task.value)), f"{task.n_rows:,}", task.why)
    yield table
    if (more := len(found.tasks) - _MOST_BOUNDARIES) > 0:
        yield f"  and {counted(more, 'task')} more"


def _shares(summary: StreamSummary) -> str:
    shown = sorted(zip(summary.class_shares, summary.class_names, strict=True), key=lambda item: -item[0])
    text = ", ".join(f"{name} {100 * share:.3g} %" for share, name in shown[:_MOST_CLASSES])
    more = len(shown) - _MOST_CLASSES
    return text + (f" and {more} more, the rarest {shown[-1][1]} {100 * shown[-1][0]:.3g} %" if more > 0 else "")


def _tasks(spec: SweepSpec, summary: StreamSummary) -> Table:
    """Return a row a task: its name, its examples in each split, and its classes."""
    table = Table(box=box.SIMPLE_HEAD)
    has_search = bool(spec.seeds.of("search"))
    score = next(spec.score_of(cell.scenario) for cell in spec.cells if cell.stream == summary.stream)
    for column in ("task", "train", *(("validation",) if has_search else ()), "test", "classes"):
        table.add_column(column, justify="left" if column in ("task", "classes") else "right")
    if has_search:
        table.add_column("one validation example", justify="right")
    for task, name in enumerate(summary.task_names):
        train, validation, test = (
            int(split[task].sum()) for split in (summary.train, summary.validation, summary.test)
        )
        step = summary.one_example(score, task)
        points = UNKNOWN if math.isnan(step) else visible(f"{100 * step:.2g} points of {score}")
        learned = max(train - validation, 0)  # a model's earlier tasks have no training examples, and some held out
        counts = [f"{learned:,}", *((f"{validation:,}",) if has_search else ()), f"{test:,}"]
        table.add_row(Text(visible(name)), *counts, _classes(summary, task), *((points,) if has_search else ()))
    return table


def _classes(summary: StreamSummary, task: int) -> Text:
    counts = summary.train[task] + summary.test[task]
    shown = [(int(n), name) for n, name in zip(counts, summary.class_names, strict=True) if n]
    shown.sort(reverse=True)
    text = ", ".join(f"{name} {n:,}" for n, name in shown[:_MOST_CLASSES])
    more = len(shown) - _MOST_CLASSES
    return Text(visible(text + (f" and {more} more" if more > 0 else "")))


def _constants(spec: SweepSpec, summary: StreamSummary) -> Iterator[str]:
    """Yield what the best answer that ignores the input scores in each scenario of the stream."""
    for scenario, kind in {
        cell.scenario: cell.incremental_type for cell in spec.cells if cell.stream == summary.stream
    }.items():
        scores = dict.fromkeys([ACCURACY, *spec.scores_of(scenario)])
        found = {str(score): summary.constant(score, kind == "task") for score in scores}
        text = ", ".join(f"{name} {value:.3f}" for name, value in found.items() if not math.isnan(value))
        positive = summary.positive_class
        named = any(score.kind == "average_precision" for score in scores) and positive is not None
        yield visible(f"{scenario}: always the same answer has {text}" + (f" (of '{positive}')" if named else ""))
