"""The numbers of a trial that a sweep can be judged by: metrics of the accuracy matrix, and costs."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """A metric or a cost: one column of the trials table, which an objective or a limit may name.

    Args:
        meaning: in words, for users.
        lower_is_better: which way an objective goes.
        low: smallest possible value.
        high: largest possible value.
        is_measured: whether the machine decides it, so that it differs from run to run.
        least_tasks: it exists for streams of so many tasks or more.
    """

    meaning: str
    lower_is_better: bool
    low: float
    high: float
    is_measured: bool = False
    least_tasks: int = 1


def _level(meaning: str) -> Metric:
    return Metric(meaning, lower_is_better=False, low=0.0, high=1.0)


def _gain(meaning: str) -> Metric:
    return Metric(meaning, lower_is_better=False, low=-1.0, high=1.0, least_tasks=2)


def _drop(meaning: str) -> Metric:
    return Metric(meaning, lower_is_better=True, low=-1.0, high=1.0, least_tasks=2)


def _cost(meaning: str, is_measured: bool = True) -> Metric:
    return Metric(meaning, lower_is_better=True, low=0.0, high=math.inf, is_measured=is_measured)


METRICS: dict[str, Metric] = {
    "average_accuracy": _level("mean accuracy over all tasks after the last one, whatever the score is"),
    "learning_accuracy": _level("mean accuracy on each task right after it was learned, whatever the score is"),
    "average": _level("mean score over all tasks after the last one"),
    "learning_average": _level("mean score on each task right after it was learned"),
    "backward_transfer": _gain("mean change of the score since a task was learned; negative is forgetting"),
    "forgetting": _drop("mean drop from a task's best earlier score"),
    "worst_forgetting": _drop("largest drop from a task's best earlier score"),
    "worst_forgetting_ever": _drop("largest drop from a task's best earlier score after any task, not only the last"),
    "worst_drop_since_learning": _drop("largest drop from a task's score right after it was learned"),
    "worst_score": _level("lowest score of any task after it was learned, after any task"),
    "forward_transfer": _gain("mean gain over the untrained model before a task is trained; domain scenarios only"),
}
"""What is computed from R, whose cells hold the scenario's score."""

ACCURACY_METRICS = {"average_accuracy": "average", "learning_accuracy": "learning_average"}
"""Metrics that are those of accuracy whatever the score is -> the metric of any score."""

COSTS: dict[str, Metric] = {
    "kept_bytes": _cost(
        "bytes that the method keeps besides the network: buffers, importances, masks", is_measured=False
    ),
    "n_parameters": _cost("parameters of the network after the last task", is_measured=False),
    "seconds": _cost("wall time of the trial"),
    "train_seconds": _cost("wall time of training"),
    "evaluate_seconds": _cost("wall time of evaluation"),
    "peak_memory_bytes": _cost("peak memory of the trial"),
}
"""What a trial costs."""

METRICS_AND_COSTS: dict[str, Metric] = METRICS | COSTS

DERIVED: dict[str, str] = {
    "intransigence": "mean gap to `joint` right after each task; known once joint has ended on the same seed and phase",
    "chance_accuracy": "average accuracy of the best answer that ignores the input",
    "constant_score": "average score of the best answer that ignores the input; empty for a recall, where it is 1",
    "untrained_score": "average score of the untrained model; domain scenarios only",
}
"""Columns beside the metrics, with their meaning. No objective or limit can name them."""
