"""Task boundaries that a drift detector finds in the rows of a table: what a user writes, and what was found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Detector = Literal["adwin", "kswin", "page-hinkley"]
Watched = Literal["error", "score", "feature"]

PARAMETERS: dict[str, dict[str, float | int]] = {
    "adwin": {"delta": 0.05, "clock": 32, "grace_period": 10, "min_window_length": 5},
    "kswin": {"alpha": 0.0001, "window_size": 200, "stat_size": 60, "seed": 0},
    "page-hinkley": {"delta": 0.005, "alpha": 0.9999, "threshold": 20.0, "min_instances": 30},
}
"""Detector -> its parameters, by river's names, and the values that they have if a user leaves them out."""


class Boundaries(BaseModel):
    """A new task begins where a detector finds drift in the training rows."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    detector: Detector = Field(
        "adwin",
        description="adwin (Bifet & Gavalda 2007) compares means, kswin (Raab et al. 2020) distributions, and "
        "page-hinkley (Page 1954) adds up what exceeds the mean",
    )
    on: Watched = Field(
        "error",
        description="what is watched: error (0 or 1) or score (log loss) of an online Gaussian naive Bayes that is "
        "tested on each row before it learns it, or feature, the values of column",
    )
    column: str | None = Field(
        None, examples=["amount"], description="the column of numbers, dates or times that on: feature watches"
    )
    minimal_length: int = Field(
        200, ge=20, le=10_000_000, description="training rows that a task has at least; drift that comes sooner is "
        "passed over"
    )  # fmt: skip
    maximal_length: int | None = Field(
        None, ge=20, le=10_000_000, examples=[5000],
        description="training rows after which a task ends without drift; none by default",
    )  # fmt: skip
    delta: float | None = Field(
        None, ge=0, lt=1, examples=[0.002],
        description="adwin: chance of a false alarm in a window, above 0, 0.05 by default; page-hinkley: the change "
        "of the mean that is tolerated, 0.005 by default",
    )  # fmt: skip
    clock: int | None = Field(
        None, ge=1, le=1_000_000, examples=[32], description="adwin: rows between two checks, 32 by default"
    )
    grace_period: int | None = Field(
        None, ge=1, le=1_000_000, examples=[10], description="adwin: rows before the first check, 10 by default"
    )
    min_window_length: int | None = Field(
        None, ge=1, le=1_000_000, examples=[5], description="adwin: rows of the shorter window, 5 by default"
    )
    alpha: float | None = Field(
        None, gt=0, le=1, examples=[0.0001],
        description="kswin: chance of a false alarm in a row, below 1, 0.0001 by default; page-hinkley: by what the "
        "sum is multiplied each row, 0.9999 by default",
    )  # fmt: skip
    window_size: int | None = Field(
        None, ge=4, le=100_000, examples=[200], description="kswin: rows that are looked at, 200 by default"
    )
    stat_size: int | None = Field(
        None, ge=2, le=50_000, examples=[60],
        description="kswin: latest rows that are compared with as many earlier ones, 60 by default; at most half of "
        "window_size",
    )  # fmt: skip
    seed: int | None = Field(
        None, ge=0, le=2**63 - 1, examples=[0], description="kswin: seed of the draw of earlier rows, 0 by default"
    )
    threshold: float | None = Field(
        None, gt=0, le=1_000_000, examples=[20],
        description="page-hinkley: sum at which it is drift, 20 by default; the signal is between 0 and 1",
    )  # fmt: skip
    min_instances: int | None = Field(
        None, ge=1, le=1_000_000, examples=[30], description="page-hinkley: rows before the first check, 30 by default"
    )

    @model_validator(mode="before")
    @classmethod
    def _read_on(cls, content: Any) -> Any:
        """Return the fields with the key `on` as text: most readers of YAML take the word for true."""
        if not isinstance(content, Mapping):
            return content
        return {"on" if key is True else key: value for key, value in content.items()}

    def parameters(self) -> dict[str, Any]:
        """Return the detector's parameters by river's names, those that were left out at their defaults."""
        defaults = PARAMETERS[self.detector]
        given = {name: getattr(self, name) for name in defaults}
        return {name: defaults[name] if value is None else value for name, value in given.items()}

    @property
    def words(self) -> str:
        """Return the detector and what it watches, as sentences name them."""
        watched = {"error": "the error of naive Bayes", "score": "the log loss of naive Bayes"}
        return f"{self.detector} on {watched.get(self.on) or f'the column {self.column!r}'}"

    def faults(self) -> Iterator[str]:
        """Yield what contradicts itself, beginning with the field."""
        if self.on == "feature" and self.column is None:
            yield "boundaries.column: on: feature needs it; name a column of numbers"
        if self.on != "feature" and self.column is not None:
            yield f"boundaries.column: has no effect with on: {self.on}; drop it, or set on: feature"
        if self.maximal_length is not None and self.maximal_length < self.minimal_length:
            yield (
                f"boundaries.maximal_length: {self.maximal_length} is less than minimal_length "
                f"({self.minimal_length}); raise it, or lower minimal_length"
            )
        for name in dict.fromkeys(name for own in PARAMETERS.values() for name in own):
            if getattr(self, name) is not None and name not in PARAMETERS[self.detector]:
                owners = [owner for owner, own in PARAMETERS.items() if name in own]
                have = f"{' and '.join(owners)} {'has' if len(owners) == 1 else 'have'}"
                yield f"boundaries.{name}: only {have} it, and the detector is {self.detector}; drop it"
        own = self.parameters()
        if self.detector == "adwin" and own["delta"] == 0:
            yield "boundaries.delta: expected more than 0 with adwin, got 0; such as 0.05"
        if self.detector == "kswin" and own["alpha"] == 1:
            yield "boundaries.alpha: expected less than 1 with kswin, got 1; such as 0.0001"
        if self.detector == "kswin" and 2 * own["stat_size"] > own["window_size"]:
            yield (
                f"boundaries.stat_size: {own['stat_size']} is more than half of window_size ({own['window_size']}); "
                "lower it, or raise window_size"
            )


class FoundTask(BaseModel):
    """A task between two boundaries.

    Args:
        row: its first training row, in their order, from 0.
        value: of the order column in that row; the row of the table, from 1, without such a column.
        n_rows: its training rows.
        why: `start`, `drift` or `maximal_length`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    row: int
    value: str
    n_rows: int
    why: Literal["start", "drift", "maximal_length"]


class FoundBoundaries(BaseModel):
    """What a detector found, for `plan` and the page.

    Args:
        words: the detector and what it watched.
        order: the order column; empty for the order in the file.
        n_rows: training rows that it saw.
        n_passed_over: drifts that came too soon after a boundary, or too close to the end.
        tasks: in their order.
        smoothed_over: rows that a point of the signal is the mean of, the first points of fewer.
        signal: (row, mean of the signal in the rows up to this one), ascending; the signal is in [0, 1].
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    words: str
    order: str
    n_rows: int
    n_passed_over: int
    tasks: tuple[FoundTask, ...]
    smoothed_over: int
    signal: tuple[tuple[int, float], ...]
