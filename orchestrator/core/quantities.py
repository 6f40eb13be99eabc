"""What an objective or a limit may name: a cost, or a metric of a score on all tasks or on some."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from orchestrator.core.metrics import ACCURACY_METRICS, DERIVED, METRICS, METRICS_AND_COSTS, Metric
from orchestrator.core.scores import ACCURACY, Score
from orchestrator.core.text import nearest

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FORM = re.compile(r"\s*((?P<score>\w+\s*(\(.*\))?)\s*\.\s*)?(?P<metric>\w+)\s*(\[(?P<tasks>.*)\])?\s*", re.DOTALL)


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

    def of(self, matrix: Callable[[Score], NDArray[Any]], task_names: Sequence[str], default: Score) -> float:
        """Return the value of a metric; NaN if the trial cannot have it.

        Args:
            matrix: score -> R (T + 1, T).
            task_names: name of each task (T,).
            default: the scenario's score.

        Raises:
            ValueError: if a task is not there.
        """
        from orchestrator.core.accuracy import compute_metrics

        score = self.score_in(default)
        if score is None:
            return math.nan
        places = [list(task_names).index(name) for name in self.tasks]
        name = ACCURACY_METRICS.get(self.metric, self.metric)
        return compute_metrics(matrix(score), places or None, may_be_undefined=score != ACCURACY)[name]

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
