"""New rows or images as a model takes them, checked against its card."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from orchestrator.champions.card import Card
from orchestrator.core.errors import DataError, UsageError
from orchestrator.core.text import nearest
from orchestrator.streams.datasets import Inputs
from orchestrator.streams.settings import StreamSettings
from orchestrator.streams.sources.encoding import FittedColumn, encode_rows, floats
from orchestrator.streams.sources.image_files import SUFFIXES, read_images
from orchestrator.streams.sources.order import natural, quoted, shown
from orchestrator.streams.sources.tables.column import FIRST, Reading, is_empty
from orchestrator.streams.sources.tables.columns import read_column
from orchestrator.streams.sources.tables.frames import Table, named, split_vectors
from orchestrator.streams.sources.tables.reading import read_table, with_plain_names


@dataclass(frozen=True)
class NewRows:
    """New rows of a table.

    Args:
        table: as it was read.
        inputs: features of the rows that can be answered (n, F) float32.
        rows: positions of these rows in the table, ascending (n,) int64.
        notes: sentences on what was left out or is odd.
    """

    table: Table
    inputs: Inputs
    rows: NDArray[np.int64]
    notes: tuple[str, ...]


def read_rows(card: Card, data: Any, where: str) -> NewRows:
    """Return new rows of a table, encoded as the training rows were.

    Args:
        card: of the model.
        data: a data frame, or the path of a table.
        where: the place of faults.

    Raises:
        DataError: if a column is missing or holds something else than it did, with every fault.
    """
    settings = with_plain_names(card.data)
    table = _table(data, settings, where)
    frame = table.frame
    missing = [column.name for column in card.columns if column.name not in frame.columns]
    if missing:
        known = [str(name) for name in frame.columns]
        raise DataError(
            *(
                f"{where}: the model needs the column {quoted(name)}, which is not there; {nearest(name, known)}"
                for name in missing
            )
        )
    readings, faults = [], []
    for column in card.columns:
        reading, fault = _column(table, column, settings)
        readings.append(reading)
        if fault:
            faults.append(f"{where}: {fault}")
    if faults:
        raise DataError(*faults)
    keep = np.ones(len(frame), dtype=bool)
    for column, reading in zip(card.columns, readings, strict=True):
        if column.gaps == "drop":
            keep &= ~reading.values.isna().to_numpy()
    notes = [] if keep.all() else [f"{(~keep).sum()} rows have a gap where such rows are left out, and get no answer"]
    notes += _unknown_kinds(card, readings)
    parts = [reading.values if keep.all() else reading.values[keep] for reading in readings]
    return NewRows(table, encode_rows(where, card.columns, parts), np.flatnonzero(keep), tuple(notes))


def _table(data: Any, settings: StreamSettings, where: str) -> Table:
    if isinstance(data, pd.DataFrame):
        levels = [name for name in data.index.names if name is not None]
        frame = data.reset_index(level=levels) if levels else data
        frame = frame.reset_index(drop=True)
        frame.columns = pd.Index(named(where, "the frame", [str(name) for name in frame.columns]))
        if not len(frame):
            raise DataError(f"{where}: the frame has no rows; add some")
        return Table("table", "the frame", split_vectors(where, "the frame", frame, {*settings.drop}))
    if not isinstance(data, str | Path):
        raise DataError(f"{where}: expected a data frame or the path of a table, got {type(data).__name__}")
    return read_table(where, "table", settings.model_copy(update={"table": str(data)}))


def _column(table: Table, column: FittedColumn, settings: StreamSettings) -> tuple[Reading, str]:
    """Return a column as it was understood, and what is wrong with it, empty if nothing is."""
    values = table.frame[column.name]
    if is_empty(values):
        empty = pd.Series(np.nan, values.index, name=column.name) if column.is_number else values
        reading = Reading(column.holds, empty.astype(object) if not column.is_number else empty, has_gaps=True)
    else:
        reading = _as_trained(table, column, settings)
    if reading.fault:
        return reading, reading.fault
    if reading.holds != column.holds:
        example = quoted(shown(values.dropna().iloc[0]))
        words = {"kinds": "text"}
        return reading, (
            f"column {quoted(column.name)} holds {words.get(str(reading.holds), reading.holds)} such as {example}, and "
            f"the model learned from {words.get(column.holds, column.holds)}; write it as it was"
        )
    if reading.has_gaps and column.gaps == "refuse":
        row = int(np.argmax(reading.values.isna().to_numpy())) + 1
        return reading, (
            f"column {quoted(column.name)} has no value in row {row} {FIRST}, and had one in every row that the model "
            "learned from; fill it in"
        )
    return reading, ""


def _as_trained(table: Table, column: FittedColumn, settings: StreamSettings) -> Reading:
    """Return a column read by the settings of training; numbers and kinds are taken for what they were then."""
    name = column.name
    gaps: Any = {name: column.gaps if column.gaps != "refuse" else "drop"}  # gaps are looked for here, not there
    kinds = (name,) if column.encoding == "one-hot" else ()
    own = settings.model_copy(
        update={
            "missing": gaps,
            "categorical": kinds,
            "hash": {name: column.n_buckets} if column.encoding == "hash" else None,
            "frequency": (name,) if column.encoding == "frequency" else (),
        }
    )
    reading = read_column(table, name, own)
    if column.holds == "numbers" and reading.holds == "numbers":
        return replace(reading, values=pd.Series(floats(reading.values), reading.values.index, name=name))
    return reading


def _unknown_kinds(card: Card, readings: list[Reading]) -> list[str]:
    """Return a sentence for each column with kinds that no training row had."""
    notes = []
    for column, reading in zip(card.columns, readings, strict=True):
        if column.encoding not in ("one-hot", "frequency"):
            continue
        found = {shown(value) for value in reading.values.dropna().unique()}
        unknown = sorted(found - set(column.categories))
        if unknown:
            more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
            notes.append(
                f"column {quoted(column.name)} holds {quoted(unknown[0])}{more}, which no training row had: no category"
            )
    return notes


def _files(root: Path) -> list[Path]:
    """Return the images below a folder, in the order in which a stream reads them."""
    found = [path for path in root.rglob("*") if path.suffix.lower() in SUFFIXES]
    shown = [path for path in found if not any(part.startswith(".") for part in path.relative_to(root).parts)]
    return sorted(shown, key=lambda path: [natural(part) for part in path.relative_to(root).parts])


def read_pictures(card: Card, data: Any, where: str) -> tuple[Inputs, list[str]]:
    """Return new images as pixels, and their names.

    Args:
        card: of the model.
        data: a folder or a file, or an array (N, H, W) or (N, 3, H, W) uint8.
        where: the place of faults.

    Raises:
        DataError: if they do not fit the model.
    """
    channels, height, width = card.example_shape
    if isinstance(data, np.ndarray):
        pixels, names = data, [str(n) for n in range(len(data))]
        if pixels.dtype != np.uint8:
            raise DataError(f"{where}: expected pixels of type uint8, got {pixels.dtype}")
    elif isinstance(data, str | Path):
        root = Path(data).expanduser()
        if not root.exists():
            raise DataError(f"{where}: there is no '{root}'; name a folder of images")
        files = _files(root) if root.is_dir() else [root]
        if not files:
            raise DataError(f"{where}: '{root}' has no images; name a folder that has some")
        size = card.data.image_size if card.data.image_size is not None else (height, width)
        pixels = read_images(where, files, size, card.data.background).pixels
        names = [str(file.relative_to(root)) if root.is_dir() else file.name for file in files]
    else:
        raise UsageError(f"{where}: expected a folder of images or an array, got {type(data).__name__}")
    if channels == 3 and pixels.ndim == 3:
        pixels = np.repeat(pixels[:, None], 3, axis=1)
    expected = (height, width) if channels == 1 else (3, height, width)
    if pixels.shape[1:] != expected:
        got = " × ".join(map(str, pixels.shape[1:]))
        raise DataError(f"{where}: expected images of {' × '.join(map(str, expected))}, got {got}")
    maximum = card.example_facts.maximum
    if maximum != 255:
        pixels = np.round(pixels * (maximum / 255)).astype(np.uint8) if not isinstance(data, np.ndarray) else pixels
    return pixels, names
