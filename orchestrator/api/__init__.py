"""The Python API: run a spec, plan it, open a run, run one trial. The command line is thin over this.

What a function needs is imported inside of it: torch, pandas and Ray take seconds, and few calls need all of them.
"""

from orchestrator.api.models import export_model, gate, load_model, update_model
from orchestrator.api.runs import compact, open_run, plot, report
from orchestrator.api.sweeps import plan, run_place, run_sweep
from orchestrator.api.trials import recorded_trial, run_single_trial, single_trial_spec

__all__ = [
    "compact",
    "export_model",
    "gate",
    "load_model",
    "open_run",
    "plan",
    "plot",
    "recorded_trial",
    "report",
    "run_place",
    "run_single_trial",
    "run_sweep",
    "single_trial_spec",
    "update_model",
]
