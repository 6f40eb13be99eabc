"""Which row stays if a trial is in a table twice, as after restoring a backup over a compacted run.

Our own code never writes a trial twice. But a backup that is copied over a later state brings back files whose rows are
in merged files by now. Of the rows with the same identity, one stays:

- of equal rows, the one in the file with the most rows;
- of rows that differ only in `intransigence`, which the end of a sweep fills in, one that has it;
- a result rather than an `error`, after which the trial was run again.

Any other difference is refused: only the user knows which row is right.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from orchestrator.core.errors import RunFolderError
from orchestrator.results.schema import LISTS

IDENTITY = ("key", "after_task", "n_given", "task", "name", "part")
"""The columns that identify a row; a table has some of them."""


def once(contents: dict[str, pa.Table], describe: Callable[[str], str]) -> dict[str, pa.Table]:
    """Return the rows of each file without the copies; `contents` itself if there are none.

    Args:
        contents: file -> its rows, a whole table.
        describe: returns how a file is shown.

    Raises:
        RunFolderError: if rows of one identity differ, naming both files.
    """
    if not contents:
        return contents
    whole = pa.concat_tables(contents.values())
    names = [name for name in IDENTITY if name in whole.schema.names]
    if whole.group_by(names).aggregate([]).num_rows == whole.num_rows:
        return contents
    sizes = [rows.num_rows for rows in contents.values()]
    frame = whole.to_pandas()
    for name in (name for name in LISTS if name in frame):
        frame[name] = [None if value is None else tuple(value) for value in frame[name]]
    stay = which_stay(frame, np.repeat([describe(name) for name in contents], sizes).tolist())
    parts = np.split(stay, np.cumsum(sizes)[:-1])
    return {name: rows.filter(pa.array(part)) for (name, rows), part in zip(contents.items(), parts, strict=True)}


def in_order(tables: list[pa.Table]) -> pa.Table:
    """Return the rows of tables of one schema, sorted by key and place in R."""
    whole = pa.concat_tables(tables)
    return whole.sort_by([(name, "ascending") for name in IDENTITY if name in whole.schema.names])


def which_stay(rows: pd.DataFrame, files: Sequence[str]) -> NDArray[np.bool_]:
    """Return whether each row stays, (N,) bool; one row of each identity does.

    Args:
        rows: a whole table, N rows.
        files: the file of each row, as it is shown, (N,).

    Raises:
        RunFolderError: if rows of one identity differ, naming both files.
    """
    stay, names = np.ones(len(rows), dtype=np.bool_), [name for name in IDENTITY if name in rows]
    double = np.flatnonzero(rows.duplicated(names, keep=False))
    places = pd.Series(files).iloc[double]
    found = rows.iloc[double].assign(
        lacks=_lacking(rows.iloc[double]),
        is_unfilled=rows["intransigence"].iloc[double].isna() if "intransigence" in rows else False,
        room=-places.map(pd.Series(files).value_counts()).to_numpy(),
        place=places.to_numpy(),
        position=double,
    )
    found = found.sort_values(["lacks", "is_unfilled", "room", "place", "position"], ignore_index=True)
    number = found.groupby(names, sort=False).ngroup().to_numpy()
    best = np.unique(number, return_index=True)[1][number]
    _refuse_other(found, found.iloc[best].reset_index(drop=True), list(rows.columns))
    stay[found["position"].to_numpy()[best != np.arange(len(found))]] = False
    return stay


def _lacking(rows: pd.DataFrame) -> pd.Series[Any]:
    """Return how much each row lacks of a whole trial: nothing, the rest of a stopped one, or all after an error."""
    if "status" not in rows:
        return pd.Series(0.0, rows.index)
    stopped = 1 / (2 + rows["stopped_after"].astype(float).fillna(0))
    kinds = [rows["status"] == "error", rows["status"] == "stopped"]
    return pd.Series(np.select(kinds, [1.0, stopped], 0.0), rows.index)


def _refuse_other(rows: pd.DataFrame, best: pd.DataFrame, columns: list[str]) -> None:
    """Refuse rows that may not give way to the best row of their identity, which is at the same position in `best`.

    Raises:
        RunFolderError: naming both files of the first such row.
    """
    equal = (rows[columns] == best[columns]) | (rows[columns].isna() & best[columns].isna())
    if "intransigence" in columns:
        equal["intransigence"] |= rows["is_unfilled"]
    other = np.flatnonzero(~(equal.all(axis=1) | (rows["lacks"] > best["lacks"])))
    if len(other):
        key, one, two = rows["key"][other[0]], rows["place"][other[0]], best["place"][other[0]]
        raise RunFolderError(
            f"{one}: expected each trial once, got other values of trial '{key}' than "
            + (f"in '{two}'; delete one of the two files" if one != two else "further on in it; delete it")
            + ("" if "right" in columns else " and run the sweep again: it repeats the trials that are then in no file")
        )
