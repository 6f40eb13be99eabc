"""When a trial is stopped at a task boundary: a rule that travels with the trial, so that no worker asks the driver.

A rule looks at quantities of R cut after the last trained task, as if the stream ended there. What it says of a trial
depends on nothing else, so the same rule says the same of a trial that runs and of one whose R is in the tables.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from orchestrator.core.metrics import quantity
from orchestrator.core.scores import ACCURACY, Score

Kind = Literal["proven", "calibrated"]


@dataclass(frozen=True)
class StopTest:
    """What one limit says at a boundary.

    Args:
        limit: the limit, as the spec states it.
        quantity: what is compared.
        operator: that of the limit.
        bounds: for each boundary, after task 0 first, or a single one for what is known before training; the trial
            stops where the quantity lies beyond, for `<=` above. The last one holds for all later boundaries.
        kind: `proven` if nothing can mend it, `calibrated` if no completed trial has.
    """

    limit: str
    quantity: str
    operator: str
    bounds: tuple[float, ...]
    kind: Kind

    def is_beyond(self, value: float, after: int) -> bool:
        """Return whether a value after a task lies beyond the bound; NaN does not."""
        bound = self.bounds[min(after, len(self.bounds) - 1)]
        return value > bound if self.operator == "<=" else value < bound


@dataclass(frozen=True)
class StopRule:
    """When a trial is stopped.

    Args:
        tests: it is stopped at the first boundary at which one of them finds it beyond.
        score: what R holds in the trial's scenario.
        is_control: calibrated tests do not stop it, to show what stopping costs.
    """

    tests: tuple[StopTest, ...]
    score: str = "accuracy"
    is_control: bool = False

    def broken(self, values: Mapping[str, float], after: int) -> StopTest | None:
        """Return the first test that stops a trial after a task."""
        tests = (t for t in self.tests if t.kind == "proven" or not self.is_control)
        return next((t for t in tests if t.is_beyond(values.get(t.quantity, math.nan), after)), None)

    def first_broken(self, boundaries: Sequence[Mapping[str, float]], known: Mapping[str, float]) -> int | None:
        """Return the first boundary at which a trial is stopped, None if there is none.

        Args:
            boundaries: what the rule looks at, after each task.
            known: what is known before training; the boundary before it is -1.
        """
        if self.broken(known, -1) is not None:
            return -1
        return next((after for after, values in enumerate(boundaries) if self.broken(values, after)), None)

    @property
    def quantities(self) -> tuple[str, ...]:
        """Return what it looks at."""
        return tuple(dict.fromkeys(test.quantity for test in self.tests))

    def to_json(self) -> str:
        """Return the text that `from_json` reads."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> StopRule:
        """Return the rule that `to_json` wrote, equal to the original."""
        found: dict[str, Any] = json.loads(text)
        tests = (StopTest(**test | {"bounds": tuple(test["bounds"])}) for test in found["tests"])
        return cls(tuple(tests), found["score"], found["is_control"])


def at_boundary(
    texts: Sequence[str],
    after: int,
    matrix: Callable[[Score], NDArray[Any]],
    task_names: Sequence[str],
    default: Score,
) -> dict[str, float]:
    """Return what quantities are of R cut after a task, NaN where they are not known yet.

    Args:
        texts: the quantities.
        after: the last task that is looked at, from 0.
        matrix: score -> R, (n + 1, T) with n > `after` rows after training.
        task_names: name of each task (T,).
        default: the scenario's score.
    """
    if texts and np.isnan(matrix(ACCURACY)[: after + 2]).all():
        return dict.fromkeys(texts, math.nan)  # before the model that the trial began from
    names = list(task_names[: after + 1])
    found = {}
    for text in texts:
        one = quantity(text)
        seen = tuple(name for name in one.tasks if name in names)
        if one.tasks and len(seen) < len(one.tasks):
            found[text] = math.nan  # a task that the limit is for is yet to come
            continue
        found[text] = one.of(lambda score: matrix(score)[: after + 2, : after + 1], names, default)
    return found


def reason_of(test: StopTest, value: float, after: int, n_tasks: int) -> str:
    """Return why a trial was stopped, in a sentence."""
    if after < 0:
        return f"stopped before training: {test.quantity} will be {value:.4g} ({test.limit})"
    why = "nothing can mend that" if test.kind == "proven" else "no completed trial of its cell recovered from so much"
    return (
        f"stopped after {after + 1} of {n_tasks} tasks: {test.quantity} is {value:.4g} there, and {why} ({test.limit})"
    )
