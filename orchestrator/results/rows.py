"""What a trial leaves as rows of the two tables, and reading rows back."""

from __future__ import annotations

import json
import math
from typing import Any

import pandas as pd

from orchestrator.core.canonical import canonical_json
from orchestrator.results.schema import TRIALS_SCHEMA
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
    """Return the rows of the accuracy table, one a measured cell of R; none where the trial did not complete."""
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
    """Return a trial's R as the articles print it: a row a task, a column an 'after', NaN where not measured."""
    cells = accuracy[accuracy["key"] == key]
    return cells.pivot(index="task", columns="after_task", values="accuracy")


def load_json(text: Any) -> dict[str, Any]:
    """Return the mapping in a JSON column."""
    value = json.loads(text) if isinstance(text, str) and text else {}
    return value if isinstance(value, dict) else {}
