"""A distributed, constrained sweep orchestrator for continual learning.

import orchestrator
spec = orchestrator.load_spec(preset="quickstart")
run = orchestrator.run_sweep(spec)
run.trials(), run.accuracy()  # data frames
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestrator.api import load_spec, open_run, plan, run_one, run_sweep
    from orchestrator.run import Run
    from orchestrator.spec import SweepSpec, parse_spec
    from orchestrator.trialspec import TrialSpec

_EXPORTS = {
    "Run": "run",
    "SweepSpec": "spec",
    "TrialSpec": "trialspec",
    "load_spec": "api",
    "open_run": "api",
    "parse_spec": "spec",
    "plan": "api",
    "run_one": "api",
    "run_sweep": "api",
}

__all__ = [
    "Run",
    "SweepSpec",
    "TrialSpec",
    "load_spec",
    "open_run",
    "parse_spec",
    "plan",
    "run_one",
    "run_sweep",
]


def __getattr__(name: str) -> Any:
    """Import what is asked for on first use, so that `--help` need not wait for torch."""
    if name not in _EXPORTS:
        raise AttributeError(f"module 'orchestrator' has no attribute {name!r}")
    return getattr(import_module(f"orchestrator.{_EXPORTS[name]}"), name)
