"""Reads a user's own table: one row per example, a column of classes, and optionally a column of tasks."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.core.errors import DataError
from orchestrator.core.text import nearest
from orchestrator.streams.boundaries import FoundBoundaries
from orchestrator.streams.datasets import Dataset, held_out_rows, strata
from orchestrator.streams.facts import DatasetFacts, ReadReport
from orchestrator.streams.settings import ALL, StreamSettings
from orchestrator.streams.sources.composition import classes_of_tasks, parts_faults, whole_faults
from orchestrator.streams.sources.encoding import encode
from orchestrator.streams.sources.suspicions import suspicions
from orchestrator.streams.sources.tables.features import Feature, read_features
from orchestrator.streams.sources.tables.frames import Table
from orchestrator.streams.sources.tables.reading import read_table, with_plain_names
from orchestrator.streams.sources.tables.tasks import classes, tasks


def load_table(stream: str, settings: StreamSettings) -> Dataset:
    """Return the rows of `settings.table`; `encode` says how columns become features.

    The values of the column `task` are the tasks, in the order of numbers, times, quarters, months or an ordered
    category, else of text. With `n_tasks`, that column must hold numbers or times: the rows are sorted by it and cut
    into stages of about equal size. Stage k begins at the value of row floor(k·N/n_tasks), so rows with equal values
    stay together. With `boundaries`, tasks begin where a detector finds drift in the training rows.

    Raises:
        DataError: if anything is wrong, naming each column or row.
    """
    where, settings = f"streams.{stream}", with_plain_names(settings)
    places = ["table"] if settings.test_table is None else ["table", "test_table"]
    faults: list[str] = []
    read = [_attempt(faults, lambda place=place: [read_table(where, place, settings)]) for place in places]
    if faults or (faults := _column_faults(where, settings, [table for (table,) in read])):
        raise DataError(*faults)
    tables = [table for (table,) in read]
    names = [str(name) for name in tables[0].frame.columns if name not in settings.not_learned]
    with ThreadPoolExecutor(1) as beside:
        reading = beside.submit(_Targets.of, where, settings, tables)
        features, faults, notes = read_features(where, tables, names, settings)
        targets = reading.result()
    whole = tables
    tables, features, left_out = _without_gaps(where, tables, features, faults)
    if tables is not whole:
        targets = _Targets.of(where, settings, tables)
    if faults := faults + targets.faults:
        raise DataError(*faults)
    targets = targets.cut_by_drift(where, settings, tables, features)
    labels, stages = targets.labels, targets.stages
    notes += targets.notes
    facts = DatasetFacts(tuple(targets.classes), (), 1, f"'{tables[0].name}'", tuple(targets.tasks))
    _refuse_few(f"{where}.table '{tables[0].name}'", targets, facts)
    guessed = bool(tables[0].texts) and settings.decimal is None and settings.thousands is None
    notes += suspicions(tables[0].frame, names, labels[0], stages[0], guessed)
    report = _report(settings, tables, left_out, notes, sum(len(table.frame) for (table,) in read))
    report = replace(report, boundaries=targets.found)
    if len(tables) == 1:
        labels, stages = _halves(labels[0], targets.halves), _halves(stages[0], targets.halves)
    by_first = settings.encoding_from == "first_task"
    deciding = _rows_of_first(targets.halves, stages[0]) if by_first and stages[0] is not None else None
    inputs, columns, report = encode(f"{where}.table", features, targets.halves, report, deciding)
    cut = classes_of_tasks(labels[0], stages[0], facts)
    n_numbers = sum(column.is_number for column in columns)
    facts = replace(facts, shape=inputs[0].shape[1:], task_classes=cut, n_numbers=n_numbers)
    return Dataset(
        stream, inputs[0], labels[0], inputs[1], labels[1], facts, stages[0], stages[1],
        report=report, columns=columns, first_task_decides=by_first,
    )  # fmt: skip


def _refuse_few(place: str, targets: _Targets, facts: DatasetFacts) -> None:
    """Refuse classes of tasks with too few examples.

    Raises:
        DataError: if any are.
    """
    if facts.n_classes > 1 and targets.found is not None and targets.halves:
        cut = [_halves(values, targets.halves) for values in (targets.labels[0], targets.stages[0])]
        faults = parts_faults(place, (cut[0][0], cut[1][0]), (cut[0][1], cut[1][1]), facts)
    elif targets.halves:
        faults = whole_faults(place, targets.labels[0], targets.stages[0], facts)
    else:
        train, test = zip(targets.labels, targets.stages, strict=True)
        faults = parts_faults(place, train, test, facts)
    if faults:
        raise DataError(*faults)


def _rows_of_first(halves: Sequence[NDArray[np.int64]], stages: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the rows of the first table that are training rows of the first task, given the tasks of training rows."""
    rows = np.flatnonzero(stages == 0)
    return halves[0][rows] if halves else rows


def _halves(values: Any, rows: Sequence[Any]) -> list[Any]:
    """Return the training rows and the test rows of an array, which may be None."""
    return [None if values is None else values[chosen] for chosen in rows]


def _attempt(faults: list[str], read: Any) -> Any:
    """Return what `read` returns. If it fails, add its faults and return nothing, so that all are reported at once."""
    try:
        return read()
    except DataError as error:
        faults += error.faults
        return []


@dataclass(frozen=True)
class _Targets:
    """Classes and tasks of each table, with faults and notes; of one table also its training and its test rows."""

    labels: list[NDArray[np.int64]]
    classes: list[str]
    stages: list[NDArray[np.int64] | None]
    tasks: list[str]
    faults: list[str]
    notes: list[str]
    halves: tuple[NDArray[np.int64], ...] = ()
    found: FoundBoundaries | None = None

    def cut_by_drift(
        self, where: str, settings: StreamSettings, tables: list[Table], features: list[Feature]
    ) -> _Targets:
        """Return them with the tasks that a detector of drift finds, if settings ask for one."""
        if settings.boundaries is None or len(self.classes) < 2:
            return self
        from orchestrator.streams.sources.boundaries.stages import find_stages

        cut = find_stages(where, settings, tables, features, self.labels, self.halves)
        notes = [*self.notes, *cut.notes]
        return replace(self, stages=list(cut.stages), tasks=cut.names, notes=notes, halves=cut.halves, found=cut.found)

    @classmethod
    def of(cls, where: str, settings: StreamSettings, tables: list[Table]) -> _Targets:
        """Return those of the columns `label` and `task`, which are read at once."""
        said: list[tuple[list[str], list[str]]] = [([], []), ([], [])]

        def read(place: int) -> Any:
            own, of = said[place], (classes, tasks)[place]
            return _attempt(own[0], lambda: of(where, settings, tables, own[1])) or ([], [])

        with ThreadPoolExecutor(2) as threads:
            (labels, class_names), (stages, task_names) = threads.map(read, range(2))
        faults, notes = ([*one, *other] for one, other in zip(*said, strict=True))
        halves: tuple[NDArray[np.int64], ...] = ()
        if len(tables) == 1 and not faults:
            test = held_out_rows(strata(labels[0], stages[0]), settings.test_share)
            halves = np.flatnonzero(~test), np.flatnonzero(test)
        return cls(labels, class_names, stages, task_names, faults, notes, halves)


def _without_gaps(
    where: str, tables: list[Table], features: list[Feature], faults: list[str]
) -> tuple[list[Table], list[Feature], list[str]]:
    """Return tables and features without the rows that have a gap where settings say `drop`, and sentences on them."""
    dropping = [feature for feature in features if feature.gaps == "drop"]
    if not dropping:
        return tables, features, []
    sentences, kept, keeps = [], [], []
    for index, table in enumerate(tables):
        gaps = {feature.name: feature.parts[index].isna().to_numpy() for feature in dropping}
        keep = ~np.logical_or.reduce(list(gaps.values()))
        counts = ", ".join(f"'{name}' ({gap.sum()})" for name, gap in gaps.items() if gap.any())
        if counts:
            sentences.append(
                f"{(~keep).sum()} of {len(keep)} rows of '{table.name}' are left out: they have no value in {counts}"
            )
        if not keep.any():
            faults.append(
                f"{where}.{table.setting}: no row has a value in {counts}; set missing to another word, or drop one"
            )
        kept.append(replace(table, frame=table.frame[keep]))
        keeps.append(keep)
    if faults:
        return tables, features, []
    shorter = [tuple(part[keep] for part, keep in zip(feature.parts, keeps, strict=True)) for feature in features]
    left = [replace(feature, parts=parts, ends=None) for feature, parts in zip(features, shorter, strict=True)]
    return kept, left, sentences


def _report(
    settings: StreamSettings, tables: Sequence[Table], left_out: list[str], notes: list[str], n_rows: int
) -> ReadReport:
    skipped = [line for table in tables for line in table.left_out]
    said = [*(line for table in tables for line in table.notes), *notes]
    return ReadReport(
        tables[0].name,
        sum(table.n_files for table in tables),
        n_rows,
        dropped=settings.drop,
        left_out=tuple(dict.fromkeys([*skipped, *left_out])),
        notes=tuple(dict.fromkeys(said)),
    )


def _column_faults(where: str, settings: StreamSettings, tables: Sequence[Table]) -> list[str]:
    """Return which columns are missing."""
    faults = []
    named = [("label", settings.label), ("task", settings.task), ("order", settings.order_column)]
    if settings.boundaries is not None:
        named.append(("boundaries.column", settings.boundaries.column))
    for place in ("categorical", "drop", "frequency", "dates"):
        named += [(place, name) for name in getattr(settings, place)]
    named += [("hash", name) for name in settings.hashed()]
    if isinstance(settings.missing, dict):
        named += [("missing", name) for name in settings.missing if name != ALL]
    for table in tables:
        columns = list(table.frame.columns)
        faults += [
            f"{where}.{field}: '{table.name}' has no column '{name}'; {nearest(name, columns)}"
            for field, name in named
            if name is not None and name not in columns
        ]
    if len(tables) == 2 and not faults:
        missing = [name for name in tables[0].frame.columns if name not in {*tables[1].frame.columns, *settings.drop}]
        faults += [
            f"{where}.test_table: '{tables[1].name}' lacks the column '{name}' of '{tables[0].name}'; add it, or list "
            "it in drop"
            for name in missing
        ]
    if not faults and not set(tables[0].frame.columns) - settings.not_learned:
        faults.append(f"{where}.table: '{tables[0].name}' has no column left to learn from; drop fewer")
    return faults
