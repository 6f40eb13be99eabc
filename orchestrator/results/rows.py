"""Rows of the two tables: made from what a trial leaves, and turned back into specs, matrices and outcomes."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from orchestrator.core.accuracy import intransigence
from orchestrator.core.canonical import canonical_json
from orchestrator.core.errors import RunFolderError
from orchestrator.results.schema import TRIALS_SCHEMA
from orchestrator.results.tables import Table
from orchestrator.spec.trial_spec import TrialSpec
from orchestrator.trial.result import TrialResult


def trial_row(spec: TrialSpec, suggestion: int, result: TrialResult, provenance: dict[str, Any]) -> dict[str, Any]:
    """Return the row of the trials table.

    Args:
        spec: what ran.
        suggestion: its number in its cell.
        result: how it ended.
        provenance: columns that the driver knows: revision, versions, spec hash, attempts.
    """
    own = dict(result.provenance)
    started = own.pop("started_at", None)
    return {
        **dict.fromkeys(TRIALS_SCHEMA.names),
        **provenance,
        **own,
        **result.costs,
        **result.metrics(),
        "key": spec.key,
        "intransigence": math.nan,
        "chance_accuracy": result.chance_accuracy,
        "scenario": spec.scenario,
        "stream": spec.stream,
        "incremental_type": spec.incremental_type,
        "method": spec.method,
        "phase": spec.phase,
        "suggestion": suggestion,
        "seed": spec.seed,
        "hyperparameters": canonical_json(spec.hyperparameters),
        "status": result.status,
        "reason": result.reason,
        "started_at": pd.Timestamp(started).to_pydatetime() if started else None,
        "details": canonical_json(result.details),
        "trial_spec": canonical_json(spec.model_dump(mode="json")),
    }


def accuracy_rows(spec: TrialSpec, suggestion: int, result: TrialResult) -> list[dict[str, Any]]:
    """Return the rows of the accuracy table, one for each measured cell of R; none if the trial did not complete."""
    head = {
        "key": spec.key,
        "scenario": spec.scenario,
        "method": spec.method,
        "phase": spec.phase,
        "suggestion": suggestion,
        "seed": spec.seed,
    }
    return [
        {
            **head,
            "after_task": after,
            "task": task,
            "accuracy": n_correct / result.n_examples[task],
            "n_correct": n_correct,
            "n_examples": result.n_examples[task],
        }
        for after, row in enumerate(result.n_correct, start=-1)
        for task, n_correct in enumerate(row)
        if n_correct is not None
    ]


def matrix_of(accuracy: pd.DataFrame, key: str) -> pd.DataFrame:
    """Return a trial's R as papers print it: a row a task, a column an 'after', NaN if not measured."""
    cells = accuracy[accuracy["key"] == key]
    return cells.pivot(index="task", columns="after_task", values="accuracy")


def intransigence_of(trials: pd.DataFrame, accuracy: pd.DataFrame) -> NDArray[np.float64]:
    """Return the intransigence of each trial (N,).

    It is NaN unless `joint` completed on the same scenario, phase and seed.

    Args:
        trials: the trials table, N rows.
        accuracy: the accuracy table.
    """
    learned = accuracy[accuracy["after_task"] == accuracy["task"]].sort_values("task")
    diagonals: dict[Any, list[float]] = {key: rows["accuracy"].tolist() for key, rows in learned.groupby("key")}
    joint = trials[(trials["method"] == "joint") & (trials["status"] == "completed")]
    same = ["scenario", "phase", "seed", "key"]
    ceilings = {tuple(place): key for *place, key in joint[same].itertuples(index=False) if key in diagonals}
    values = []
    for *place, key in trials[same].itertuples(index=False):
        ceiling = ceilings.get(tuple(place))
        known = ceiling is not None and len(diagonals.get(key, ())) == len(diagonals[ceiling])
        values.append(intransigence(diagonals[key], diagonals[ceiling]) if known else np.nan)
    return np.array(values, dtype=float)


def recorded_spec(trials: Table, key: str, text: str) -> TrialSpec:
    """Return the spec in the row of the trial `key`; a run folder from elsewhere may hold anything there.

    Raises:
        RunFolderError: if the text is not a trial spec, or is that of another trial.
    """
    try:
        spec = TrialSpec.model_validate_json(text)
    except ValueError as error:
        raise odd_spec(trials, key, f"one with faults ({str(error).splitlines()[0][:120]})") from error
    if spec.key != key:
        raise odd_spec(trials, key, f"that of trial '{spec.key}'")
    return spec


def odd_spec(trials: Table, key: str, found: str) -> RunFolderError:
    """Return the error for a row whose column `trial_spec` holds something else than the spec of the trial `key`."""
    return RunFolderError(
        f"{trials.file_of(key)}: expected the spec of trial '{key}' in 'trial_spec', got {found}; delete the file and "
        "run the sweep again: it repeats the trials of that file"
    )


def load_json(text: Any) -> dict[str, Any]:
    """Return the mapping in a JSON column, empty if there is none."""
    value = json.loads(text) if isinstance(text, str) and text else {}
    return value if isinstance(value, dict) else {}
