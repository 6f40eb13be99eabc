"""Reads the files of a user's own table into one frame."""

from __future__ import annotations

import re
from dataclasses import replace
from io import BytesIO
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pandas.api import types

from orchestrator.core.errors import DataError
from orchestrator.streams.settings import StreamSettings, shown_paths
from orchestrator.streams.sources.order import quoted
from orchestrator.streams.sources.tables.column import is_empty
from orchestrator.streams.sources.tables.delimited import read_csv
from orchestrator.streams.sources.tables.files import TableFile, check_memory, find_files
from orchestrator.streams.sources.tables.frames import Table, named, plain_name, split_vectors

_NAMELESS = re.compile(r"Unnamed: \d+(_level_\d+)?")
_NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"


def with_plain_names(settings: StreamSettings) -> StreamSettings:
    """Return settings whose columns are named as `plain_name` does."""
    update: dict[str, Any] = {}
    for name in ("label", "task", "order", "categorical", "drop", "frequency", "hash", "dates", "missing"):
        value = getattr(settings, name)
        if isinstance(value, str) and name != "missing":
            update[name] = plain_name(value)
        elif isinstance(value, tuple) and name != "order":
            update[name] = tuple(map(plain_name, value))
        elif isinstance(value, dict):
            update[name] = {plain_name(key): one for key, one in value.items()}
    if (asked := settings.boundaries) is not None and asked.column is not None:
        update["boundaries"] = asked.model_copy(update={"column": plain_name(asked.column)})
    return settings.model_copy(update=update)


def read_table(where: str, place: str, settings: StreamSettings) -> Table:
    """Return the table that the setting `place` names, its columns named by text, with at least one row.

    Raises:
        DataError: if a file cannot be read, or two do not have the same columns; with every fault.
    """
    where = f"{where}.{place}"
    files, skipped = find_files(where, getattr(settings, place))
    available = check_memory(where, files)
    repeated = _repeated(settings) if len(files) == 1 else ()
    parts: list[Table] = []
    faults: list[str] = []
    for file in files:
        try:
            if file.is_parquet:
                part = _read_parquet(where, file, repeated)
                whole = settings.not_learned
                part = replace(part, frame=split_vectors(where, file.name, part.frame, whole))
            else:
                part = read_csv(where, file, settings, available)
            parts.append(_checked(where, file, _with_partitions(part, file), settings))
        except DataError as error:
            faults += error.faults
        except Exception as error:  # whatever a reader raises for bytes that it does not understand
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            faults.append(f"{where}: the table '{file.name}' cannot be read ({reason}); save it again")
    if faults:
        raise DataError(*faults)
    first = parts[0]
    if faults := [fault for part in parts[1:] for fault in _unlike(where, first, part)]:
        raise DataError(*faults)
    name = shown_paths(getattr(settings, place))
    frame = first.frame
    if len(parts) > 1:
        frame = pd.concat(
            [part.frame[list(first.frame.columns)] for part in parts if len(part.frame)], ignore_index=True
        )
    if not len(frame):
        raise DataError(f"{where}: the table '{name}' has no rows; add some")
    texts = frozenset[str]().union(*(part.texts for part in parts))
    zeros = {column: value for part in reversed(parts) for column, value in part.zeros.items()}
    left_out = [*skipped, *dict.fromkeys(line for part in parts for line in part.left_out)]
    notes = tuple(dict.fromkeys(line for part in parts for line in part.notes))
    return Table(place, name, frame, texts, zeros, len(parts), tuple(left_out), notes)


def _unlike(where: str, first: Table, other: Table) -> list[str]:
    """Return in which columns two files of a table differ."""
    faults = [
        f"{where}: '{one.name}' has the column {quoted(column)} and '{two.name}' has not; give both the same columns"
        for one, two in ((first, other), (other, first))
        for column in one.frame.columns
        if column not in two.frame.columns
    ]
    for column in first.frame.columns if not faults else []:
        mine, its = _family(first.frame[column]), _family(other.frame[column])
        if mine != its and "nothing" not in (mine, its):
            faults.append(
                f"{where}: the column {quoted(column)} holds {mine} in '{first.name}' and {its} in '{other.name}'; "
                "write it alike in both, or list it in drop"
            )
    return faults


def _family(column: pd.Series[Any]) -> str:
    """Return what a column of a file holds, in words."""
    if is_empty(column):
        return "nothing"
    if types.is_bool_dtype(column):
        return "true and false"
    if types.is_numeric_dtype(column):
        return "numbers"
    if isinstance(column.dtype, pd.CategoricalDtype):
        return _family(pd.Series(column.cat.categories))
    inferred = types.infer_dtype(column, skipna=True)
    return {"string": "text", "boolean": "true and false", "decimal": "numbers", "integer": "numbers"}.get(
        inferred, inferred
    )


def _with_partitions(part: Table, file: TableFile) -> Table:
    frame, texts = part.frame, part.texts
    for column, value in file.partitions:
        if (name := plain_name(column)) not in frame.columns:
            frame = frame.assign(**{name: None if value == _NULL_PARTITION else value})
            texts = texts | {name}
    return replace(part, frame=frame, texts=texts)


def _checked(where: str, file: TableFile, part: Table, settings: StreamSettings) -> Table:
    """Return a table without nameless columns that are empty.

    Raises:
        DataError: if a column has no name and is used.
    """
    used = settings.not_learned
    left_out, faults, frame = list(part.left_out), [], part.frame
    for index, name in enumerate(frame.columns):
        if name in used or not (_NAMELESS.fullmatch(name) or not name):
            continue
        column = frame[name]
        if index and is_empty(column):
            left_out.append(f"column {index + 1} of '{file.name}' has neither a name nor a value and is left out")
            frame = frame.drop(columns=name)
            continue
        counts = not index and np.array_equal(column.to_numpy(), np.arange(len(column)))
        what = "counts the rows, as an index that pandas saved" if counts else "is learned from as if it had a name"
        faults.append(
            f"{where}: column {index + 1} of '{file.name}' has no name and {what}; set drop: [\"{name}\"], or name it "
            "in the file"
        )
    if faults:
        raise DataError(*faults)
    return replace(part, frame=frame, left_out=tuple(left_out))


def _repeated(settings: StreamSettings) -> tuple[str | None, ...]:
    """Return the columns whose few values are needed, so that text need not be made for each row."""
    is_cut = settings.n_tasks is not None or settings.task in settings.dates
    return (settings.label,) if is_cut else (settings.label, settings.task)


def _read_parquet(where: str, file: TableFile, repeated: tuple[str | None, ...]) -> Table:
    source: Any = file.place if not hasattr(file.place, "uri") else BytesIO(file.content())
    schema = pq.read_schema(source)
    named(where, file.name, [str(name) for name in schema.names])
    if isinstance(source, BytesIO):
        source.seek(0)
    texts = [f.name for f in schema if f.type in (pa.string(), pa.large_string()) and plain_name(f.name) in repeated]
    frame = pd.read_parquet(source, partitioning=None, read_dictionary=texts)
    left_out = []
    if levels := [name for name in frame.index.names if name is not None]:
        frame = frame.reset_index(level=levels)
    if not isinstance(frame.index, pd.RangeIndex):
        left_out.append(f"the index of '{file.name}' has no name and is left out")
    frame = frame.reset_index(drop=True)
    frame.columns = pd.Index(named(where, file.name, [str(name) for name in frame.columns]))
    return Table("", file.name, frame, left_out=tuple(left_out))
