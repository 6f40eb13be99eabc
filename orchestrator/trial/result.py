"""What a trial leaves: counts, costs and provenance, as plain JSON."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any, Literal

from orchestrator.core.accuracy import AccuracyMatrix, compute_metrics
from orchestrator.core.metrics import METRICS

Status = Literal["completed", "failed", "error"]
"""`failed` is the trial's own doing and is a result; `error` is the machine's, and the next run tries again."""


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

    def __post_init__(self) -> None:
        object.__setattr__(self, "reason", _plain(self.reason))
        object.__setattr__(self, "details", _plain(self.details))

    @property
    def matrix(self) -> AccuracyMatrix:
        return AccuracyMatrix(tuple(tuple(row) for row in self.n_correct), tuple(self.n_examples))

    def metrics(self) -> dict[str, float]:
        """Return every metric; all NaN if the trial did not complete."""
        if self.status != "completed":
            return dict.fromkeys(METRICS, math.nan)
        return compute_metrics(self.matrix.accuracy)

    def to_json(self) -> str:
        """Return this result as the text that `from_json` reads."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> TrialResult:
        """Return the result that `to_json` wrote, equal to the original."""
        return cls(**json.loads(text))


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
