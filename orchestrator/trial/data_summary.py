"""What was read of a user's own data, and how finely they can tell: shown before anything trains."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from orchestrator.core.metrics import METRICS, quantity
from orchestrator.core.scores import ACCURACY, Measurement, Score, best_constant
from orchestrator.spec.cells import Cell
from orchestrator.spec.limits import undefined_tasks
from orchestrator.spec.sweep_spec import SweepSpec
from orchestrator.streams.checking import left_over_notes
from orchestrator.streams.datasets import Dataset
from orchestrator.streams.facts import ReadReport
from orchestrator.streams.naming import task_names
from orchestrator.streams.settings import family_of, is_user_data
from orchestrator.streams.stream import class_lists
from orchestrator.trial.preflight import classes_held_out

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class StreamSummary:
    """A user's own stream, as the trials of a sweep will see it.

    Args:
        stream: its name.
        report: what was read of a table; None for images.
        notes: what a user should know of how it was read and cut into tasks.
        source: where it comes from.
        class_names: name of each class (C,).
        task_names: name of each task (T,), in their order.
        train: examples of each class that a trial of the confirm phase trains on (T, C).
        validation: examples of each class in the validation split (T, C).
        test: examples of each class in the test split (T, C).
    """

    stream: str
    report: ReadReport | None
    notes: tuple[str, ...]
    source: str
    class_names: tuple[str, ...]
    task_names: tuple[str, ...]
    train: Counts
    validation: Counts
    test: Counts

    @cached_property
    def class_shares(self) -> list[float]:
        """Return the share of each class among all examples (C,)."""
        whole = (self.train + self.test).sum(axis=0)
        return [float(n) / max(int(whole.sum()), 1) for n in whole]

    @property
    def positive_class(self) -> str | None:
        """Return the class that average precision is for: the rarer of two."""
        if len(self.class_names) != 2:
            return None
        counts = self.train.sum(axis=0)
        return self.class_names[int(counts[0] >= counts[1])]

    def constant(self, score: Score, knows_task: bool) -> float:
        """Return the average score on the test split of the best answer that ignores the input."""
        cells = [(Measurement(row, [0] * len(row), [0] * len(row)), self.class_names) for row in self.test.tolist()]
        return best_constant(cells, score, self.positive_class, knows_task)

    def one_example(self, score: Score, task: int) -> float:
        """Return by how much one example of the validation split moves a score on a task, about; NaN if undefined."""
        counts = self.validation[task]
        if score.class_name is not None:
            n = int(counts[self.class_names.index(score.class_name)]) if score.class_name in self.class_names else 0
        elif score == ACCURACY:
            n = int(counts.sum())
        else:  # each class counts alike, so an example of the rarest moves it most
            present = counts[counts > 0]
            n_shares = 1 if score.is_ranked and len(present) == 2 else len(present)  # both have one AUROC
            n = int(present.min()) * n_shares if len(present) else 0
        return 1 / n if n else float("nan")


def summaries(spec: SweepSpec, datasets: Mapping[str, Dataset]) -> list[StreamSummary]:
    """Return a summary of each of a user's own streams that the sweep uses."""
    found = {}
    for cell in spec.cells:
        if cell.stream not in found and is_user_data(spec.stream_settings(cell.stream)):
            found[cell.stream] = _summary(spec, cell, datasets[spec.data_of(cell.stream)])
    return list(found.values())


def data_notes(spec: SweepSpec, datasets: Mapping[str, Dataset]) -> list[str]:
    """Return what a user should know of their own data before a sweep, a sentence each; `plan` shows more."""
    notes = cut_notes(spec, datasets)
    for summary in summaries(spec, datasets):
        report = summary.report
        notes += [*summary.notes, *((*report.left_out, *report.notes) if report is not None else ())]
        notes += fineness_warnings(spec, summary)
    return list(dict.fromkeys(notes))


def cut_notes(spec: SweepSpec, datasets: Mapping[str, Dataset]) -> list[str]:
    """Return which tasks lack a score, what must be known of an example, and which built-in classes no task has.

    A summary says the latter of one's own data.
    """
    notes = []
    for cell in {cell.scenario: cell for cell in spec.cells}.values():
        classes = classes_held_out(spec, cell, datasets[spec.data_of(cell.stream)])
        notes += [
            f"{cell.scenario}: {score} is undefined on {_listed(lacking)}, which it leaves out"
            for score in spec.scores_of(cell.scenario)
            if (lacking := undefined_tasks(score, classes))
        ]
    for stream in dict.fromkeys(cell.stream for cell in spec.cells):
        settings = spec.stream_settings(stream)
        kinds = {cell.incremental_type for cell in spec.cells if cell.stream == stream}
        if settings.task is not None and "task" in kinds:
            notes.append(
                f"{stream}/task: whoever uses the model must know each example's '{settings.task}'; if it is not known "
                "then, use domain"
            )
        if settings.boundaries is not None and "task" in kinds:
            notes.append(
                f"{stream}/task: whoever uses the model must know between which boundaries an example falls; if it is "
                "not known then, use domain"
            )
        if not is_user_data(settings):
            notes += left_over_notes(stream, settings, datasets[spec.data_of(stream)].facts)
    return notes


def _summary(spec: SweepSpec, cell: Cell, dataset: Dataset) -> StreamSummary:
    settings, facts = spec.stream_settings(cell.stream), dataset.facts
    names = task_names(cell.stream, settings, facts)
    share = spec.validation_share if spec.seeds.of("search") else 0.0
    held_out = dataset.validation_rows(share)
    place = _places(spec, cell, dataset, len(names))

    def counts(labels: Counts, tasks: Counts | None, rows: NDArray[np.bool_] | None = None) -> Counts:
        if rows is not None:
            labels, tasks = labels[rows], None if tasks is None else tasks[rows]
        own = place[labels] if tasks is None else tasks
        used = own >= 0
        flat = np.bincount(own[used] * facts.n_classes + labels[used], minlength=len(names) * facts.n_classes)
        return flat.reshape(len(names), facts.n_classes)

    validation = counts(dataset.train_labels, dataset.train_tasks, held_out)
    if dataset.start is not None:
        validation += counts(dataset.start.labels, dataset.start.tasks)
    return StreamSummary(
        cell.stream,
        dataset.report,
        (*dataset.notes, *left_over_notes(cell.stream, settings, facts)),
        facts.source,
        facts.class_names,
        names,
        counts(dataset.train_labels, dataset.train_tasks),
        validation,
        counts(dataset.test_labels, dataset.test_tasks),
    )


def _places(spec: SweepSpec, cell: Cell, dataset: Dataset, n_tasks: int) -> Counts:
    """Return the task of each class (C,) in data that are cut into tasks by class; -1 for one that is left out."""
    settings, facts = spec.stream_settings(cell.stream), dataset.facts
    place = np.full(facts.n_classes, -1, dtype=np.int64)
    if not facts.task_names:
        for task, classes in enumerate(class_lists(settings, family_of(cell.stream, settings), facts, n_tasks, 0)):
            place[classes] = task
    return place


def fineness_warnings(spec: SweepSpec, summary: StreamSummary) -> Iterator[str]:
    """Yield where the data cannot tell what a limit asks."""
    if not spec.seeds.of("search"):
        return
    scenarios = {cell.scenario: None for cell in spec.cells if cell.stream == summary.stream}
    for scenario in scenarios:
        default = spec.score_of(scenario)
        for constraint in spec.constraints:
            asked = quantity(constraint.metric)
            limited = asked.score_in(default)
            if limited is None or asked.metric not in METRICS:
                continue
            width = constraint.limit if asked.definition.low < 0 else 1 - constraint.limit
            n_past = len(summary.task_names) - (asked.definition.least_tasks > 1)
            coarse = {
                name: step
                for task, name in enumerate(summary.task_names[:n_past])
                if (not asked.tasks or name in asked.tasks)
                and (step := summary.one_example(limited, task)) > max(width, 0)
            }
            if coarse:
                name, step = max(coarse.items(), key=lambda item: item[1])
                yield (
                    f"{scenario}: '{constraint.name}' is finer than the data can tell on {_listed(list(coarse))}: one "
                    f"validation example of {name} is {100 * step:.3g} points of {limited}. Add examples, raise "
                    "validation_share, or make fewer, larger tasks"
                )


def _listed(names: list[str], most: int = 6) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
