"""Which rows stand for a trial that is in a table twice: what restoring a backup over a compacted run leaves behind.

No work of ours writes a trial twice, but a copy of an earlier state, laid over a later one, brings back files whose
rows are in merged ones by now. Of rows with one identity, one stays:

- of equal rows, the one in the file with the most rows;
- where they are equal but for `intransigence`, which the end of a sweep fills in, one that has it;
- a result, and not an `error` of the machine, after which the trial was run again.

Whatever else differs is refused: nobody but the user knows which is the right one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from orchestrator.core.errors import RunFolderError

IDENTITY = ("key", "after_task", "task")
"""The columns that name a row, of those that a table has."""


def which_stay(rows: pd.DataFrame, files: Sequence[str]) -> NDArray[np.bool_]:
    """Return for each row whether it is the one of its identity that stays, (N,) bool.

    Args:
        rows: a whole table, N rows.
        files: how the file of each row is shown, (N,).

    Raises:
        RunFolderError: where rows of one identity differ, naming both files.
    """
    stay, names = np.ones(len(rows), dtype=np.bool_), [name for name in IDENTITY if name in rows]
    double = np.flatnonzero(rows.duplicated(names, keep=False))
    places = pd.Series(files).iloc[double]
    found = rows.iloc[double].assign(
        is_error=rows["status"].iloc[double] == "error" if "status" in rows else False,
        is_unfilled=rows["intransigence"].iloc[double].isna() if "intransigence" in rows else False,
        room=-places.map(pd.Series(files).value_counts()).to_numpy(),
        place=places.to_numpy(),
        position=double,
    )
    found = found.sort_values(["is_error", "is_unfilled", "room", "place", "position"], ignore_index=True)
    number = found.groupby(names, sort=False).ngroup().to_numpy()
    best = np.unique(number, return_index=True)[1][number]
    _refuse_other(found, found.iloc[best].reset_index(drop=True), list(rows.columns))
    stay[found["position"].to_numpy()[best != np.arange(len(found))]] = False
    return stay


def _refuse_other(rows: pd.DataFrame, best: pd.DataFrame, columns: list[str]) -> None:
    """Refuse rows that the best of their identity, in the same place of `best`, does not stand for.

    Raises:
        RunFolderError: naming both files of the first.
    """
    equal = (rows[columns] == best[columns]) | (rows[columns].isna() & best[columns].isna())
    if "intransigence" in columns:
        equal["intransigence"] |= rows["is_unfilled"]
    other = np.flatnonzero(~(equal.all(axis=1) | (rows["is_error"] & ~best["is_error"])))
    if len(other):
        key, one, two = rows["key"][other[0]], rows["place"][other[0]], best["place"][other[0]]
        raise RunFolderError(
            f"{one}: expected each trial once, got other values of trial '{key}' than "
            + (f"in '{two}'; delete one of the two files" if one != two else "further on in it; delete it")
            + " and run the sweep again: trials that are then in no file are repeated"
        )
