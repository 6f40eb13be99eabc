"""What the search needs to know of the trials in the tables: the metrics, costs and quantities that a spec names."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from orchestrator.core.accuracy import compute_metrics
from orchestrator.core.metrics import ACCURACY_METRICS, METRICS, METRICS_AND_COSTS, quantity
from orchestrator.core.scores import ACCURACY, Score
from orchestrator.results.rows import matrices_of
from orchestrator.results.tables import Tables
from orchestrator.search.suggestion import Outcome
from orchestrator.spec.sweep_spec import SweepSpec

_NAMES = [*METRICS_AND_COSTS]


def outcomes_of(spec: SweepSpec, tables: Tables) -> dict[str, Outcome]:
    """Return the outcome of every trial in the tables, by key.

    A completed trial is left out if its rows of R are lost, or if they do not tell a score that the spec asks for.
    """
    trials = tables.trials.read()
    cells = tables.accuracy.read()
    measured = set(cells["key"])
    values = dict(zip(trials["key"], trials[_NAMES].to_numpy(dtype=float).tolist(), strict=True))
    found = {
        key: Outcome(status, dict(zip(_NAMES, values[key], strict=True)))
        for key, status in zip(trials["key"], trials["status"], strict=True)
        if status != "completed" or key in measured
    }
    again = _to_compute(spec, trials[trials["key"].isin(measured)])
    if again:
        cells = tables.accuracy.read(with_lists=True)
        found |= _computed(spec, cells[cells["key"].isin(again)], again, found)
        for key in again:
            if found[key].status == "incomplete":
                del found[key]
    return found


def _to_compute(spec: SweepSpec, trials: pd.DataFrame) -> dict[str, str]:
    """Return key -> scenario of the completed trials whose row does not hold all that the spec names."""
    complete = trials[trials["status"] == "completed"]
    needed = [
        name for name in dict.fromkeys([spec.objective, *(c.metric for c in spec.constraints)]) if name in METRICS
    ]
    wanted = complete["scenario"].map({scenario: str(spec.score_of(scenario)) for scenario in spec.scenarios})
    odd = wanted.notna() & (wanted != complete["score"])
    if needed:
        odd |= complete[needed].isna().any(axis=1)
    if spec.quantities or spec.scores:
        odd |= wanted.notna()
    return dict(zip(complete.loc[odd, "key"], complete.loc[odd, "scenario"], strict=True))


def _computed(
    spec: SweepSpec, cells: pd.DataFrame, again: Mapping[str, str], found: Mapping[str, Outcome]
) -> dict[str, Outcome]:
    """Return outcomes computed from rows of R; with status `incomplete` if they do not tell a score."""
    outcomes: dict[str, Outcome] = {}
    for scenario in dict.fromkeys(again.values()):
        keys = [key for key, own in again.items() if own == scenario]
        rows = cells[cells["key"].isin(keys)]
        default = spec.score_of(scenario)
        scores = dict.fromkeys([ACCURACY, *spec.scores_of(scenario)])
        tells = set(rows.loc[rows["n_true"].notna(), "key"])
        names = rows.drop_duplicates(["key", "task"]).sort_values("task").groupby("key")["task_name"].agg(list)
        for key, matrices in matrices_of(rows, scores).items():
            if key not in tells and list(scores) != [ACCURACY]:
                outcomes[key] = Outcome("incomplete", {})
                continue
            try:
                values = _metrics(matrices[default], matrices[ACCURACY])
                values |= _quantities(spec.quantities, matrices, names[key], default)
            except ValueError:  # rows of R are lost
                outcomes[key] = Outcome("incomplete", {})
            else:
                outcomes[key] = Outcome(found[key].status, {**found[key].values, **values})
    return outcomes


def _metrics(scores: NDArray[np.float64], accuracy: NDArray[np.float64]) -> dict[str, float]:
    own = compute_metrics(accuracy)
    return compute_metrics(scores, may_be_undefined=True) | {
        name: own[general] for name, general in ACCURACY_METRICS.items()
    }


def _quantities(
    texts: Iterable[str], matrices: Mapping[Score, NDArray[Any]], task_names: list[str], default: Score
) -> dict[str, float]:
    """Return the value of each text; NaN for a task that this trial does not name, as those of schema 1."""
    found = {}
    for text in texts:
        asked = quantity(text)
        is_known = set(asked.tasks) <= set(task_names)
        found[text] = asked.of(matrices.__getitem__, task_names, default) if is_known else math.nan
    return found
