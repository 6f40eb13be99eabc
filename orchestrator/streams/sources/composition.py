"""Checks that a user's own data have enough examples of every class in every task."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from orchestrator.streams.facts import DatasetFacts

Labels = NDArray[np.int64]
_MOST_SHOWN = 10


def counts(labels: Labels, tasks: Labels | None, facts: DatasetFacts) -> NDArray[np.int64]:
    """Return how many examples each task has of each class, (T, C); one row if the data have no tasks."""
    n_tasks = max(len(facts.task_names), 1)
    places = labels if tasks is None else tasks * facts.n_classes + labels
    return np.bincount(places, minlength=n_tasks * facts.n_classes).reshape(n_tasks, facts.n_classes)


def classes_of_tasks(labels: Labels, tasks: Labels | None, facts: DatasetFacts) -> tuple[tuple[int, ...], ...]:
    """Return the classes of each task, ascending; empty if the data have no tasks."""
    if tasks is None:
        return ()
    return tuple(tuple(np.flatnonzero(found).tolist()) for found in counts(labels, tasks, facts))


def whole_faults(where: str, labels: Labels, tasks: Labels | None, facts: DatasetFacts) -> list[str]:
    """Return what is wrong with examples that are yet to be split into training and test."""
    if facts.n_classes < 2:
        return [_one_class(where, facts)]
    found = counts(labels, tasks, facts)
    return first_of(
        f"{where}: training and test need 2 examples or more of each class in a task, got 1 of "
        f"{_place(task, label, facts)}; add examples or remove this one"
        for task, label in np.argwhere(found == 1).tolist()
    )


def parts_faults(
    where: str, train: tuple[Labels, Labels | None], test: tuple[Labels, Labels | None], facts: DatasetFacts
) -> list[str]:
    """Return what is wrong with training and test examples that the user has split."""
    if facts.n_classes < 2:
        return [_one_class(where, facts)]
    trained, tested = counts(*train, facts), counts(*test, facts)
    faults = first_of(
        f"{where}: {_place(task, label, facts)} has test examples but no training examples; add some, or remove its "
        "test examples"
        for task, label in np.argwhere((trained == 0) & (tested > 0)).tolist()
    )
    if facts.task_names:
        faults += first_of(
            f"{where}: task '{facts.task_names[task]}' has no test examples; add some"
            for task in np.flatnonzero(tested.sum(axis=1) == 0)
        )
    else:
        faults += first_of(
            f"{where}: class '{facts.class_names[label]}' has no test examples; add some"
            for label in np.flatnonzero(tested[0] == 0)
        )
    return faults


def first_of(faults: Iterator[str]) -> list[str]:
    """Return the first 10 faults of a kind, and how many more there are."""
    found = list(faults)
    more = len(found) - _MOST_SHOWN
    return found if more <= 0 else [*found[:_MOST_SHOWN], f"and {more} more like the last"]


def _one_class(where: str, facts: DatasetFacts) -> str:
    names: Sequence[str] = facts.class_names
    return f"{where}: expected 2 classes or more, got {', '.join(map(repr, names)) or 'none'}; add examples of another"


def _place(task: int, label: int, facts: DatasetFacts) -> str:
    name = f"class '{facts.class_names[label]}'"
    return f"{name} in task '{facts.task_names[task]}'" if facts.task_names else name
