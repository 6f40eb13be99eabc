"""Rows of the table `diagnostics`, from what a trial leaves."""

from __future__ import annotations

from typing import Any

from orchestrator.spec.trial_spec import TrialSpec
from orchestrator.trial.result import TrialResult

Rows = list[dict[str, Any]]


def diagnostic_rows(spec: TrialSpec, suggestion: int, result: TrialResult) -> Rows:
    """Return the rows of a trial; none if it ran without diagnostics, or failed."""
    head = {
        "key": spec.key,
        "scenario": spec.scenario,
        "method": spec.shown_method,
        "phase": spec.phase,
        "suggestion": suggestion,
        "seed": spec.seed,
    }
    return [
        {**head, "after_task": after, "name": name, "part": part, "value": float(value)}
        for after, name, part, value in result.diagnostics
    ]
