"""A distributed, constrained sweep orchestrator for continual learning.

import orchestrator
spec = orchestrator.load_spec(preset="quickstart")
run = orchestrator.run_sweep(spec)
run.trials(), run.accuracy()  # data frames
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from orchestrator.core.version import __version__ as __version__

if TYPE_CHECKING:
    from orchestrator.api import (
        export_model,
        gate,
        load_model,
        open_run,
        plan,
        plot,
        run_single_trial,
        run_sweep,
        update_model,
    )
    from orchestrator.execution.budget import Budget
    from orchestrator.report.across_runs.comparison import compare_runs
    from orchestrator.report.across_runs.run_list import list_runs
    from orchestrator.report.exports.exporting import export_table
    from orchestrator.results.run import Run
    from orchestrator.spec.loading import load_spec, parse_spec
    from orchestrator.spec.sweep_spec import SweepSpec
    from orchestrator.spec.trial_spec import TrialSpec

_EXPORTS = {
    "Budget": "execution.budget",
    "Run": "results.run",
    "SweepSpec": "spec.sweep_spec",
    "TrialSpec": "spec.trial_spec",
    "compare_runs": "report.across_runs.comparison",
    "export_model": "api",
    "export_table": "report.exports.exporting",
    "gate": "api",
    "list_runs": "report.across_runs.run_list",
    "load_model": "api",
    "load_spec": "spec.loading",
    "open_run": "api",
    "parse_spec": "spec.loading",
    "plan": "api",
    "plot": "api",
    "run_single_trial": "api",
    "run_sweep": "api",
    "update_model": "api",
}

__all__ = [
    "Budget",
    "Run",
    "SweepSpec",
    "TrialSpec",
    "__version__",
    "compare_runs",
    "export_model",
    "export_table",
    "gate",
    "list_runs",
    "load_model",
    "load_spec",
    "open_run",
    "parse_spec",
    "plan",
    "plot",
    "run_single_trial",
    "run_sweep",
    "update_model",
]


def __getattr__(name: str) -> Any:
    """Import a name on first use, so that `--help` does not wait for torch."""
    if name not in _EXPORTS:
        raise AttributeError(f"module 'orchestrator' has no attribute {name!r}")
    return getattr(import_module(f"orchestrator.{_EXPORTS[name]}"), name)
