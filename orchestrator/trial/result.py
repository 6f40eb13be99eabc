"""What a trial leaves: counts, costs and provenance, as plain JSON."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from numbers import Integral, Real
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from orchestrator.core.accuracy import AccuracyMatrix, Moments, compute_metrics
from orchestrator.core.metrics import ACCURACY_METRICS, METRICS, quantity
from orchestrator.core.scores import ACCURACY, Measurement, Score, best_constant
from orchestrator.trial.packed import from_text
from orchestrator.trial.stopping import at_boundary

Status = Literal["completed", "stopped", "failed", "error"]
"""`stopped` by a rule before the last task, `failed` by the trial's own doing: both are results. `error` is the
machine's, and the next run tries again."""


@dataclass(frozen=True)
class TrialResult:
    """What a trial leaves: counts, costs and provenance; plain JSON, so that it travels anywhere.

    `reason` and `details` may come from a user's code: what JSON or UTF-8 cannot hold is replaced in them.

    Args:
        key: the trial's key.
        status: how it ended.
        reason: why it did not complete; else empty.
        n_correct: the accuracy matrix as counts (T + 1, T), None if not measured; empty if the trial did not complete.
        n_examples: held-out examples of each task (T,).
        costs: column of the trials table -> number.
        provenance: column of the trials table -> text, number or None.
        details: what the method reports about itself.
        chance_accuracy: mean over tasks of the accuracy of the best answer that ignores the input, in [0, 1]; None if
            the trial did not complete.
        task_names: name of each task (T,); empty if the trial did not complete, as what follows.
        class_names: for each task, the class behind each output that competes for it (T, C).
        measured: the cells of R as [true, predicted, right] of each class (T + 1, T, 3, C), None if not measured.
        ranked: the same cells as score -> value, for the scores that were asked for, (T + 1, T).
        positive_class: the class that average precision is for, if the data set has two.
        stopped_after: the task after which a rule stopped it, from 0; None if none did.
        stop_rule: the rule that travelled with it, as JSON; empty if it had none.
        right: whether each example was answered rightly, packed to a bit each, as base64 (T + 1, T); None for the cells
            of R in which that was not kept; empty unless a trial of the phase `confirm` completed.
        examples: hash of the held-out examples of each task (T,), see `Stream.evaluation_hash`; empty likewise.
        moments: [task, new examples given so far in the trial] of each evaluation within a task (M, 2), in their order.
        measured_within: what was measured then of each task seen so far, as in `measured` (M, task + 1, 3, C).
        ranked_within: likewise, as in `ranked` (M, task + 1).
        n_given: new examples given until each task's end (T,); empty if nothing was to be evaluated within tasks.
        diagnostics: what was measured inside it, (after_task, name, part, value) each; empty unless it was asked for.
    """

    key: str
    status: Status
    reason: str = ""
    n_correct: list[list[int | None]] = field(default_factory=list)
    n_examples: list[int] = field(default_factory=list)
    costs: dict[str, float] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    chance_accuracy: float | None = None
    task_names: list[str] = field(default_factory=list)
    class_names: list[list[str]] = field(default_factory=list)
    measured: list[list[list[list[int]] | None]] = field(default_factory=list)
    ranked: list[list[dict[str, float | None]]] = field(default_factory=list)
    positive_class: str | None = None
    stopped_after: int | None = None
    stop_rule: str = ""
    right: list[list[str | None]] = field(default_factory=list)
    examples: list[str] = field(default_factory=list)
    moments: list[list[int]] = field(default_factory=list)
    measured_within: list[list[list[list[int]] | None]] = field(default_factory=list)
    ranked_within: list[list[dict[str, float | None]]] = field(default_factory=list)
    n_given: list[int] = field(default_factory=list)
    diagnostics: list[list[Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        object.__setattr__(self, "reason", _plain(self.reason))
        object.__setattr__(self, "details", _plain(self.details))

    @property
    def matrix(self) -> AccuracyMatrix:
        return AccuracyMatrix(tuple(tuple(row) for row in self.n_correct), tuple(self.n_examples))

    @cached_property
    def cells(self) -> list[list[Measurement | None]]:
        """Return what was measured of each cell of R (T + 1, T)."""
        return measurements(self.measured, self.ranked, self.right)

    @cached_property
    def cells_within(self) -> list[list[Measurement | None]]:
        """Return what was measured at each moment within a task (M, task + 1)."""
        return measurements(self.measured_within, self.ranked_within)

    def scores(self, score: Score) -> NDArray[np.float64]:
        """Return R (T + 1, T) of a score, NaN if not measured or undefined."""
        if score == ACCURACY:
            return self.matrix.accuracy
        values = [
            [math.nan if c is None else c.value(score, names) for c, names in zip(row, self.class_names, strict=True)]
            for row in self.cells
        ]
        return np.array(values, dtype=float).reshape(-1, len(self.n_examples))

    def within(self, score: Score) -> Moments | None:
        """Return a score at each moment within a task, None if nothing was measured there."""
        if not self.moments:
            return None
        scores = np.full((len(self.moments), len(self.n_examples)), math.nan)
        for place, row in enumerate(self.cells_within):
            for task, cell in enumerate(row):
                if cell is not None:
                    scores[place, task] = cell.value(score, self.class_names[task])
        return Moments(np.array(self.moments, dtype=np.int64)[:, 0], scores)

    def metrics(self, score: Score = ACCURACY) -> dict[str, float]:
        """Return every metric for a scenario with this score; all NaN if the trial did not complete."""
        if self.status != "completed":
            return dict.fromkeys(METRICS, math.nan)
        found = compute_metrics(self.scores(score), None, score != ACCURACY, self.within(score))
        accuracy = found if score == ACCURACY else compute_metrics(self.matrix.accuracy)
        own = {name: accuracy[general] for name, general in ACCURACY_METRICS.items()}
        return {name: own[name] if name in own else found[name] for name in METRICS}

    def quantities(self, texts: Iterable[str], score: Score) -> Mapping[str, float]:
        """Return what objectives and limits name, each in a scenario with this score; NaN if it did not complete."""
        if self.status != "completed":
            return dict.fromkeys(texts, math.nan)
        return {text: quantity(text).of(self.scores, self.task_names, score, self.within) for text in texts}

    def boundaries(self, texts: Sequence[str], score: Score) -> tuple[dict[str, float], ...]:
        """Return what quantities are after each task that was measured, of R cut there; see `at_boundary`."""
        afters = range(len(self.n_correct) - 1) if texts else ()
        return tuple(at_boundary(texts, after, self.scores, self.task_names, score) for after in afters)

    def constant_score(self, score: Score, knows_task: bool) -> float:
        """Return the mean over tasks of the score of the best answer that ignores the input; NaN if it tells nothing.

        Args:
            score: the score.
            knows_task: whether each task may have a constant answer of its own.
        """
        cells = self.cells[-1] if self.measured else []
        last = [(cell, names) for cell, names in zip(cells, self.class_names, strict=bool(cells)) if cell is not None]
        return best_constant(last, score, self.positive_class, knows_task)

    def to_json(self) -> str:
        """Return this result as the text that `from_json` reads."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> TrialResult:
        """Return the result that `to_json` wrote, equal to the original."""
        return cls(**json.loads(text))


def counts_of(cells: Sequence[Sequence[Measurement | None]]) -> list[list[list[list[int]] | None]]:
    """Return [true, predicted, right] of each class in each cell of R (T + 1, T), as a result keeps them."""
    return [
        [None if c is None else [list(c.n_true), list(c.n_predicted), list(c.n_right)] for c in row] for row in cells
    ]


def ranked_of(cells: Sequence[Sequence[Measurement | None]]) -> list[list[dict[str, float | None]]]:
    """Return the scores that rank examples of each cell of R (T + 1, T), as a result keeps them."""
    return [[{} if cell is None else dict(cell.ranked) for cell in row] for row in cells]


def measurements(
    measured: Sequence[Sequence[Sequence[Sequence[int]] | None]],
    ranked: Sequence[Sequence[Mapping[str, float | None]]],
    right: Sequence[Sequence[str | None]] = (),
) -> list[list[Measurement | None]]:
    """Return the cells of R (T + 1, T) from the fields of a result that hold them; `right` may be empty."""
    packed = right or [[None] * len(row) for row in measured]
    return [
        [
            None if counts is None else Measurement(counts[0], counts[1], counts[2], values, from_text(each))
            for counts, values, each in zip(row, extra, texts, strict=True)
        ]
        for row, extra, texts in zip(measured, ranked, packed, strict=True)
    ]


def _plain(value: Any) -> Any:
    """Return `value` as JSON can hold it: numbers that are not finite become None, unknown types become text."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, dict):
        return {_plain(str(name)): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value).encode("utf-8", "replace").decode()
