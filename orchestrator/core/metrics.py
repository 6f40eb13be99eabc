"""The numbers of a trial that a sweep can be judged by: metrics of R, costs, and how a spec names them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from orchestrator.core.scores import ACCURACY, Score
from orchestrator.core.text import nearest

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from orchestrator.core.accuracy import Moments


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
    "anytime_average": _level(
        "mean score over the tasks seen so far, averaged over all evaluations: after each task, and within tasks too "
        "with evaluate_every"
    ),
    "worst_case_average": _level(
        "mean over tasks of the lowest score in any evaluation after the task was learned, of the last task its score "
        "at the end; evaluations as for anytime_average"
    ),
}
"""What is computed from R, whose cells hold the scenario's score, and from what was measured within tasks."""

OVER_TIME = ("anytime_average", "worst_case_average")
"""Metrics that look at what was measured within tasks too."""

ACCURACY_METRICS = {"average_accuracy": "average", "learning_accuracy": "learning_average"}
"""Metrics that are those of accuracy whatever the score is -> the metric of any score."""

COSTS: dict[str, Metric] = {
    "kept_bytes": _cost(
        "bytes that the method keeps besides the network: buffers, importances, masks", is_measured=False
    ),
    "n_parameters": _cost(
        "parameters of the network after the last task; of ridge, slda and ncm, those of their features and answers",
        is_measured=False,
    ),
    "seconds": _cost("wall time of the trial"),
    "train_seconds": _cost("wall time of training"),
    "evaluate_seconds": _cost("wall time of evaluation"),
    "peak_memory_bytes": _cost("peak memory of the trial"),
}
"""What a trial costs."""

KNOWN_BEFORE = ("kept_bytes",)
"""Costs that some methods know before training."""

METRICS_AND_COSTS: dict[str, Metric] = METRICS | COSTS

DERIVED: dict[str, str] = {
    "intransigence": "mean gap to `joint` right after each task; known once joint has ended on the same seed and phase",
    "chance_accuracy": "average accuracy of the best answer that ignores the input",
    "constant_score": "average score of the best answer that ignores the input; empty for a recall, where it is 1",
    "untrained_score": "average score of the untrained model; domain scenarios only",
}
"""Columns beside the metrics, with their meaning. No objective or limit can name them."""

_FORM = re.compile(r"\s*((?P<score>\w+\s*(\(.*\))?)\s*\.\s*)?(?P<metric>\w+)\s*(\[(?P<tasks>.*)\])?\s*", re.DOTALL)


_IN_PARENTHESES = re.compile(r"\s*(\w+)\s*\((.*)\)\s*", re.DOTALL)


@dataclass(frozen=True)
class Quantity:
    """A number of a trial, such as `worst_forgetting`, `auroc.worst_forgetting`, `forgetting[2023Q1]` or `seconds`.

    Args:
        metric: a metric or a cost.
        score: the score that R holds for it; None for that of the scenario.
        tasks: names of the tasks that it looks at; empty for all.
    """

    metric: str
    score: Score | None = None
    tasks: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Quantity:
        """Return the quantity that a text names.

        Raises:
            ValueError: if it names none, with what to do.
        """
        match = _FORM.fullmatch(text)
        if match is None:
            if (found := _IN_PARENTHESES.fullmatch(text)) and found[1] in METRICS:
                raise ValueError(f"'{text}' is no metric; write tasks in brackets: {found[1]}[{found[2]}]")
            raise ValueError(f"expected a metric or a cost, got '{text}'; {_way_out(text, None)}")
        metric = match["metric"]
        if metric not in METRICS_AND_COSTS:
            raise ValueError(f"expected a metric or a cost, got '{metric}'; {_way_out(metric, match['score'])}")
        score = Score.parse(match["score"]) if match["score"] is not None else None
        tasks = _split(match["tasks"]) if match["tasks"] is not None else ()
        if metric not in METRICS and (score is not None or match["tasks"] is not None):
            raise ValueError(f"'{metric}' is a cost, which no score and no task has; write {metric}")
        if metric in ACCURACY_METRICS and score not in (None, ACCURACY):
            raise ValueError(f"'{metric}' is that of accuracy; write {score}.{ACCURACY_METRICS[metric]}")
        if match["tasks"] is not None and not tasks:
            raise ValueError(f"'{text}' names no task between the brackets; write {metric}[TASK], or leave them out")
        if len(set(tasks)) < len(tasks):
            raise ValueError(f"'{text}' names a task twice; name each once")
        return cls(metric, score, tasks)

    @property
    def definition(self) -> Metric:
        """Return what its metric or cost is."""
        return METRICS_AND_COSTS[self.metric]

    @property
    def is_plain(self) -> bool:
        """Return whether it is a column of the trials table."""
        return self.score is None and not self.tasks

    def score_in(self, default: Score) -> Score | None:
        """Return the score that it is computed from, in a scenario whose score is `default`; None for a cost."""
        if self.metric not in METRICS:
            return None
        return ACCURACY if self.metric in ACCURACY_METRICS else self.score or default

    def of(
        self,
        matrix: Callable[[Score], NDArray[Any]],
        task_names: Sequence[str],
        default: Score,
        within: Callable[[Score], Moments | None] | None = None,
    ) -> float:
        """Return the value of a metric; NaN if the trial cannot have it.

        Args:
            matrix: score -> R (T + 1, T).
            task_names: name of each task (T,).
            default: the scenario's score.
            within: score -> what was measured within tasks, None if nothing was.

        Raises:
            ValueError: if a task is not there.
        """
        from orchestrator.core.accuracy import compute_metrics

        score = self.score_in(default)
        if score is None:
            return math.nan
        places = [list(task_names).index(name) for name in self.tasks]
        name = ACCURACY_METRICS.get(self.metric, self.metric)
        moments = within(score) if within is not None and name in OVER_TIME else None
        return compute_metrics(matrix(score), places or None, score != ACCURACY, moments)[name]

    def __str__(self) -> str:
        lead = "" if self.score is None else f"{self.score}."
        return f"{lead}{self.metric}" + (f"[{','.join(self.tasks)}]" if self.tasks else "")


@lru_cache(maxsize=1024)
def quantity(text: str) -> Quantity:
    """Return `Quantity.parse(text)`, kept."""
    return Quantity.parse(text)


def lower_is_better(text: str) -> bool:
    """Return which way an objective goes."""
    return quantity(text).definition.lower_is_better


UNKNOWN = "–"
"""What stands for a number that was not measured."""


def number(metric: str, value: float) -> str:
    """Return a metric or cost as people read it: bytes and seconds with their unit, the rest with 3 decimals."""
    if math.isnan(value):
        return UNKNOWN
    if metric.endswith("_bytes"):
        for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
            if abs(value) >= size:
                return f"{value / size:.3g} {unit}"
        return f"{value:.0f} B"
    if metric.endswith("seconds"):
        return f"{value:.2f} s"
    if metric == "n_parameters":
        return f"{value:,.0f}"
    return f"{value:.3f}"


def _split(text: str) -> tuple[str, ...]:
    return tuple(part for part in (part.strip() for part in text.split(",")) if part)


def _way_out(name: str, score: str | None) -> str:
    if name in DERIVED:
        return "it is known only after the search: read it in the tables"
    try:
        Score.parse(name)
    except ValueError:
        return nearest(name, METRICS_AND_COSTS if score is None else METRICS)
    name = name.strip()
    return f"'{name}' is a score: write {name}.average or {name}.worst_forgetting"
