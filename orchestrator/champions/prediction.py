"""Classes and probabilities of new examples, as a table."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from orchestrator.champions.new_data import NewRows, read_pictures, read_rows
from orchestrator.core.errors import UsageError
from orchestrator.core.text import nearest
from orchestrator.streams.datasets import Inputs
from orchestrator.streams.sources.order import shown

if TYPE_CHECKING:
    from orchestrator.champions.model import Model


def predict(model: Model, data: Any, task: str | None = None) -> pd.DataFrame:
    """Return what `Model.predict` does, with the columns of a table that the model does not read in front.

    Raises:
        DataError, UsageError: as for `Model.predict`.
    """
    return with_notes(model, data, task)[0]


def with_notes(model: Model, data: Any, task: str | None = None) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Return the table of answers, and sentences that its reader should know."""
    if model.card.is_image:
        index = model.task_index(task)
        pixels, names = read_pictures(model.card, data, "predict")
        found = _answers(model, pixels, np.full(len(pixels), index))
        found.insert(0, "image", names)
        return found, ()
    new = read_rows(model.card, data, "predict")
    frame = new.table.frame
    found = _answers(model, new.inputs, _tasks(model, new, task))
    found.index = pd.Index(new.rows)
    found = found.reindex(range(len(frame)))
    read = {column.name for column in model.card.columns}
    others = frame[[name for name in frame.columns if name not in read]]
    others = others.rename(columns={name: f"{name} (given)" for name in found.columns if name in others.columns})
    return pd.concat([others, found], axis=1), new.notes


def _tasks(model: Model, new: NewRows, task: str | None) -> NDArray[np.int64]:
    """Return the task of each row: the named one, that of the table's task column, or the last if none need be known.

    Raises:
        UsageError: if the task is unknown.
    """
    column = model.card.data.task
    if task is not None or not model.needs_task or column is None:
        return np.full(len(new.rows), model.task_index(task))
    if column not in new.table.frame.columns:
        raise UsageError(
            f"predict: the table has no column '{column}', which says the task of each row, and a model for "
            f"'{model.card.trial.incremental_type}' must know it; name the task of all rows with --task "
            f"({', '.join(model.card.task_names)}), or train for domain, which needs none"
        )
    if model.card.data.n_tasks is not None:
        raise UsageError("--task: the tasks were cut from a column of numbers or times; name the task of all rows")
    names = [shown(value) for value in new.table.frame[column].iloc[new.rows]]
    place = {name: index for index, name in enumerate(model.card.task_names)}
    if unknown := next((name for name in names if name not in place), None):
        raise UsageError(
            f"predict: the column '{column}' holds the task '{unknown}', which the model has not learned; "
            f"{nearest(unknown, list(place))}"
        )
    return np.array([place[name] for name in names], dtype=np.int64)


def _answers(model: Model, arrays: Inputs, tasks: NDArray[np.int64]) -> pd.DataFrame:
    """Return the answers to examples, each of its task (N,)."""
    inputs = model.to_inputs(arrays)
    used = [int(task) for task in np.unique(tasks)] or [len(model.card.tasks) - 1]
    names = list(dict.fromkeys(name for task in used for name in model.classes_of(task)))
    place = {name: column for column, name in enumerate(names)}
    answers = np.empty(len(inputs), dtype=object)
    found = np.full((len(inputs), len(names)), np.nan)
    for task in used:
        rows = np.flatnonzero(tasks == task)
        own = model.classes_of(task)
        part = inputs[torch.from_numpy(rows)]
        columns = [place[name] for name in own]
        found[rows[:, None], np.array(columns)] = model.probabilities(part, task)
        answers[rows] = np.array(own, dtype=object)[model.answers(part, task)]
    chosen = np.array([place[name] for name in answers], dtype=np.int64)
    return pd.DataFrame(
        {
            "class": answers,
            "probability": found[np.arange(len(answers)), chosen],
            **{f"p.{name}": found[:, column] for column, name in enumerate(names)},
        }
    )


def table_bytes(frame: pd.DataFrame, place: str) -> bytes:
    """Return a table as Parquet or CSV, by the ending of the name of its file.

    Raises:
        UsageError: if the ending is neither.
    """
    suffix = Path(place.partition("?")[0]).suffix.lower()
    if suffix in (".parquet", ".pq"):
        out = BytesIO()
        frame.to_parquet(out, index=False)
        return out.getvalue()
    if suffix == ".csv":
        return frame.to_csv(index=False).encode()
    raise UsageError(f"-o: expected a file ending in .parquet or .csv, got '{place}'")
