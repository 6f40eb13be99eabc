"""What the search needs to know of the trials in the tables: the metrics, costs and quantities that a spec names."""

from __future__ import annotations

from collections.abc import Mapping, Set
from contextlib import suppress

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from orchestrator.core.accuracy import Moments, compute_metrics
from orchestrator.core.metrics import ACCURACY_METRICS, METRICS, METRICS_AND_COSTS, quantity
from orchestrator.core.scores import ACCURACY, Score
from orchestrator.results.evaluations.rows import moments_of
from orchestrator.results.rows import matrices_of
from orchestrator.results.run_tables import Tables
from orchestrator.search.suggestion import Outcome
from orchestrator.spec.sweep_spec import SweepSpec
from orchestrator.trial.stopping import at_boundary

_NAMES = [*METRICS_AND_COSTS]
_Computed = tuple[dict[str, float], tuple[dict[str, float], ...]]


def outcomes_of(spec: SweepSpec, tables: Tables) -> dict[str, Outcome]:
    """Return the outcome of every trial in the tables, by key.

    A trial that ended is left out if its rows of R are lost, or those of what was measured within tasks, or if they do
    not tell what the spec asks for.
    """
    trials, cells = tables.trials.read(), tables.accuracy.read()
    values = trials[_NAMES].to_numpy(dtype=float).tolist()
    rows = zip(trials["key"], trials["status"], values, strict=True)
    found = {key: Outcome(status, dict(zip(_NAMES, row, strict=True))) for key, status, row in rows}
    is_measured = trials["status"].isin(["completed", "stopped"]) & ~(trials["stopped_after"] < 0)
    complete = trials[is_measured]
    lost = set(complete["key"]) - set(cells["key"])
    if spec.training.evaluate_every is not None:
        lost |= set(complete["key"]) - set(tables.evaluations.read()["key"])
    # Rows of schema 1 hold accuracy alone, of tasks without names.
    asks_more = any(spec.scores_of(s) != (ACCURACY,) for s in spec.scenarios) or any(
        quantity(name).tasks for name in spec.quantities
    )
    if asks_more:
        lost |= set(cells.loc[cells["task_name"].isna(), "key"]) & set(complete["key"])
    again = _to_compute(spec, complete[~complete["key"].isin(lost)])
    if again:
        cells = tables.accuracy.read(with_lists=True)
        stopped = set(trials.loc[trials["status"] == "stopped", "key"])
        within = tables.evaluations.read(with_lists=True)
        computed = _computed(spec, cells[cells["key"].isin(again)], within[within["key"].isin(again)], again, stopped)
        found |= {
            key: Outcome(found[key].status, {**found[key].values, **own}, at_each)
            for key, (own, at_each) in computed.items()
        }
        lost |= again.keys() - computed.keys()
    return {key: outcome for key, outcome in found.items() if key not in lost}


def _to_compute(spec: SweepSpec, complete: pd.DataFrame) -> dict[str, str]:
    """Return key -> scenario of the completed trials whose row does not hold all that the spec names."""
    needed = [
        name for name in dict.fromkeys([spec.objective, *(c.metric for c in spec.constraints)]) if name in METRICS
    ]
    wanted = complete["scenario"].map({scenario: str(spec.score_of(scenario)) for scenario in spec.scenarios})
    odd = complete[needed].isna().any(axis=1) | (wanted != complete["score"]) | bool(spec.quantities or spec.stoppable)
    chosen = complete[odd & wanted.notna()]
    return dict(zip(chosen["key"], chosen["scenario"], strict=True))


def _computed(
    spec: SweepSpec, cells: pd.DataFrame, within: pd.DataFrame, again: Mapping[str, str], stopped: Set[str]
) -> dict[str, _Computed]:
    """Return key -> metrics and quantities at the end, which a stopped trial has none of, and at each boundary.

    From the rows of R and of the table `evaluations`; without trials some of whose rows are lost.
    """
    computed: dict[str, _Computed] = {}
    scenarios, own = cells["key"].map(again), {text: quantity(text) for text in spec.quantities}
    for scenario in dict.fromkeys(again.values()):
        rows = cells[scenarios == scenario]
        default = spec.score_of(scenario)
        scores = dict.fromkeys([ACCURACY, *spec.scores_of(scenario)])
        names = rows.drop_duplicates(["key", "task"]).sort_values("task").groupby("key")["task_name"].agg(list)
        moments = moments_of(within[within["key"].map(again) == scenario], scores)
        for key, matrices in matrices_of(rows, scores).items():
            with suppress(ValueError):  # a gap in R, or a task that this trial does not have
                found: dict[str, float] = {}
                if key not in stopped:
                    of_score = moments.get(key, {}).get
                    found = _metrics(matrices[default], matrices[ACCURACY], of_score(default))
                    found |= {
                        text: one.of(matrices.__getitem__, names[key], default, of_score) for text, one in own.items()
                    }
                computed[key] = found, _boundaries(spec, matrices, names[key], default)
    return computed


def _boundaries(
    spec: SweepSpec, matrices: Mapping[Score, NDArray[np.float64]], names: list[str], default: Score
) -> tuple[dict[str, float], ...]:
    """Return what may stop a trial, after each task that was measured."""
    last = int(np.flatnonzero(np.isfinite(matrices[ACCURACY]).any(axis=1)).max())  # row 0 is before training
    return tuple(
        at_boundary(spec.stoppable, after, matrices.__getitem__, names, default)
        for after in range(last if spec.stoppable else 0)
    )


def _metrics(scores: NDArray[np.float64], accuracy: NDArray[np.float64], within: Moments | None) -> dict[str, float]:
    own = compute_metrics(accuracy)
    found = compute_metrics(scores, may_be_undefined=True, within=within)
    return found | {name: own[general] for name, general in ACCURACY_METRICS.items()}
