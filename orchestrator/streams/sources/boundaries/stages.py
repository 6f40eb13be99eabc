"""The tasks of a table whose boundaries a detector finds: training rows are watched in order, test rows fall in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestrator.core.errors import DataError
from orchestrator.core.text import counted
from orchestrator.streams.boundaries import Boundaries, FoundBoundaries, FoundTask
from orchestrator.streams.facts import ReadReport
from orchestrator.streams.settings import MOST_TASKS, StreamSettings
from orchestrator.streams.sources.boundaries.cutting import Cut, cut, smoothed
from orchestrator.streams.sources.boundaries.detectors import detector_of
from orchestrator.streams.sources.boundaries.signals import Column, Prequential, Signal, log_loss, zero_one
from orchestrator.streams.sources.encoding import encode
from orchestrator.streams.sources.order import quoted
from orchestrator.streams.sources.tables.features import Feature
from orchestrator.streams.sources.tables.frames import Table
from orchestrator.streams.sources.tables.tasks import Ordered, in_order

Rows = NDArray[np.int64]

_MORE_DRIFT = {"adwin": "raise delta", "kswin": "raise alpha", "page-hinkley": "lower threshold"}
_LESS_DRIFT = {"adwin": "lower delta", "kswin": "lower alpha", "page-hinkley": "raise threshold"}


@dataclass(frozen=True)
class Stages:
    """The tasks of each row.

    Args:
        stages: of each table, the task of each row (N,) int64.
        names: of the tasks, by what they begin with.
        halves: of one table, the training rows and the test rows, ascending (N,) int64; else empty.
        notes: a sentence on rows that changed halves.
        found: what `plan` and the page show.
    """

    stages: tuple[Rows, ...]
    names: list[str]
    halves: tuple[Rows, ...]
    notes: list[str]
    found: FoundBoundaries


def find_stages(
    where: str,
    settings: StreamSettings,
    tables: Sequence[Table],
    features: Sequence[Feature],
    labels: Sequence[Rows],
    halves: tuple[Rows, ...],
) -> Stages:
    """Return the tasks that the detector of `settings.boundaries` finds in the training rows.

    A test row belongs to the task in whose range it falls: by its place in the order of all rows, or in a second table
    by its value in the order column.

    Args:
        where: the place of faults.
        settings: with boundaries.
        tables: one, or one for training and one for the test.
        features: of these tables.
        labels: of each table, the class of each row (N,) int64.
        halves: of one table, the training rows and the test rows, ascending (N,) int64; else empty.

    Raises:
        DataError: if the rows cannot be ordered or watched, or make one task, or too many.
        MissingExtraError: if river is not installed.
    """
    asked = settings.boundaries
    assert asked is not None  # by the caller
    moments = _moments(where, settings, tables)
    trained = halves[0] if halves else np.arange(len(labels[0]))
    keys = moments[0].keys if moments else np.arange(len(labels[0]))
    order = np.argsort(keys[trained], kind="stable")
    signal = _signal(where, asked, features, labels[0], trained, order)
    made = cut(signal, len(trained), detector_of(asked), asked)
    _refuse(where, asked, made)
    rows = trained[order]
    starts = rows[list(made.starts)]
    stages = [_by_place(keys, starts)]
    if len(tables) == 2:
        stages.append(_by_value(keys[starts], moments[1].keys))
    halves, notes = _with_their_class(labels[0], stages[0], halves)
    frame = tables[0].frame
    values = [moments[0].text(row) if moments else str(int(frame.index[row]) + 1) for row in starts]
    return Stages(
        tuple(stages),
        _names(values, [int(frame.index[row]) + 1 for row in starts], is_row=not moments),
        halves,
        notes,
        _found(settings, asked, made, values),
    )


def _moments(where: str, settings: StreamSettings, tables: Sequence[Table]) -> list[Ordered]:
    """Return the order column of each table; none if the rows are in order as they are."""
    name = settings.order_column
    if name is None:
        return []
    found = in_order(f"{where}.order", name, settings, tables)
    if isinstance(found, str):
        raise DataError(
            f"{where}.order: column '{name}' holds text ({quoted(found)}), which has no order in time; set dates: "
            f"{{{name}: FORMAT}}, or save the column as numbers or ISO 8601 times"
        )
    return found


def _signal(
    where: str, asked: Boundaries, features: Sequence[Feature], labels: Rows, trained: Rows, order: Rows
) -> Signal:
    """Return what is watched, its rows in order."""
    watched = list(features)
    if asked.on == "feature":
        watched = [feature for feature in features if feature.name == asked.column]
        if not watched or watched[0].encoding not in ("number", "date"):
            raise DataError(
                f"{where}.boundaries.column: column '{asked.column}' holds neither numbers nor dates or times; name "
                "one that does, or set on: error"
            )
    (inputs, *_), _, _ = encode(f"{where}.table", watched, (trained,), ReadReport("", 1, 0))
    if asked.on == "feature":
        return Column(inputs[order, 0])
    return Prequential(inputs[order], labels[trained][order], zero_one if asked.on == "error" else log_loss)


def _refuse(where: str, asked: Boundaries, made: Cut) -> None:
    """Refuse what makes no stream of tasks.

    Raises:
        DataError: if there is one task, or there are too many.
    """
    n_rows, n_tasks = len(made.signal), len(made.starts)
    if n_tasks == 1 and n_rows < 2 * asked.minimal_length:
        raise DataError(
            f"{where}.boundaries.minimal_length: {n_rows} training rows make no two tasks of {asked.minimal_length} "
            "rows; lower it or add rows"
        )
    if n_tasks == 1:
        seen = "no drift"
        if made.n_passed_over:
            seen = f"{counted(made.n_passed_over, 'drift')}, but none {asked.minimal_length} rows (minimal_length) or "
            seen += "more from the start and the end"
        raise DataError(
            f"{where}.boundaries: {asked.words} found {seen} in {n_rows:,} training rows, so there is one task; "
            f"{_MORE_DRIFT[asked.detector]}, lower minimal_length, watch something else (on), or set maximal_length"
        )
    if n_tasks > MOST_TASKS:
        raise DataError(
            f"{where}.boundaries: {asked.words} makes {n_tasks:,} tasks, and a stream has {MOST_TASKS:,} at most; "
            f"raise minimal_length or {_LESS_DRIFT[asked.detector]}"
        )


def _by_place(keys: NDArray[np.generic], starts: Rows) -> Rows:
    """Return the task of each row by its place in the order of all rows; rows before the first start are of task 0.

    Args:
        keys: what the rows are sorted by (N,); equal ones stay in the order of the table.
        starts: the row that each task begins with (T,), in the order of the tasks.
    """
    place = np.empty(len(keys), dtype=np.int64)
    place[np.argsort(keys, kind="stable")] = np.arange(len(keys))
    return np.maximum(np.searchsorted(place[starts], place, side="right") - 1, 0)


def _by_value(starts: NDArray[np.generic], keys: NDArray[np.generic]) -> Rows:
    """Return the task of each row by its value: the last one that begins at it or before, else task 0."""
    return np.maximum(np.searchsorted(starts, keys, side="right") - 1, 0).astype(np.int64)


def _with_their_class(labels: Rows, stages: Rows, halves: tuple[Rows, ...]) -> tuple[tuple[Rows, ...], list[str]]:
    """Return halves in which no test row is of a class that its task has no training row of: such rows are trained on.

    Rows are held out before tasks are known, so a rare class of a task could be asked for and never be learned.
    """
    if not halves:
        return halves, []
    train, test = halves
    kinds = stages * (labels.max() + 1) + labels
    lone = ~np.isin(kinds[test], kinds[train])
    if not lone.any():
        return halves, []
    what = "held-out row is" if lone.sum() == 1 else "held-out rows are"
    note = f"{lone.sum()} {what} trained on, because no training row of the task is of the class"
    return (np.sort(np.concatenate([train, test[lone]])), test[~lone]), [note]


def _names(values: Sequence[str], rows: Sequence[int], is_row: bool) -> list[str]:
    """Return the names of tasks by what they begin with, with the row of the table if two begin with the same."""
    if is_row:
        return [f"from row {value}" for value in values]
    if len(set(values)) == len(values):
        return [f"from {value}" for value in values]
    return [f"from {value} (row {row})" for value, row in zip(values, rows, strict=True)]


def _found(settings: StreamSettings, asked: Boundaries, made: Cut, values: Sequence[str]) -> FoundBoundaries:
    """Return what was found, as it is shown."""
    smoothed_over, points = smoothed(made.signal)
    tasks = zip(made.starts, values, made.lengths, made.reasons, strict=True)
    return FoundBoundaries(
        words=asked.words,
        order=settings.order_column or "",
        n_rows=len(made.signal),
        n_passed_over=made.n_passed_over,
        tasks=tuple(FoundTask(row=row, value=value, n_rows=n, why=why) for row, value, n, why in tasks),
        smoothed_over=smoothed_over,
        signal=points,
    )
