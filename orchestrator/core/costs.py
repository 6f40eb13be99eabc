"""Costs of a trial, and which way each metric and cost is better."""

from __future__ import annotations

COSTS: dict[str, str] = {
    "kept_bytes": "bytes that the method keeps besides the network: buffers, importances, masks",
    "n_parameters": "parameters of the network after the last task",
    "seconds": "wall time of the trial",
    "train_seconds": "wall time of training",
    "evaluate_seconds": "wall time of evaluation",
    "peak_memory_bytes": "peak memory of the trial",
}
"""Costs of a trial, with their meaning; the last four are measured and differ from run to run."""

MEASURED_COSTS = ("seconds", "train_seconds", "evaluate_seconds", "peak_memory_bytes")
LOWER_IS_BETTER = frozenset({"forgetting", "worst_forgetting", "worst_drop_since_learning", *COSTS})
