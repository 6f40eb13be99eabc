"""Columns that are probably no feature."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from orchestrator.streams.sources.suspicions import suspicions

N = 60
LABELS = np.arange(N) % 3 // 2
TASKS = np.repeat([0, 1, 2], N // 3)
DRAW = np.random.default_rng(0)


def said(column: Any, tasks: Any = TASKS) -> list[str]:
    return list(suspicions(pd.DataFrame({"c": column}), ["c"], LABELS, tasks, has_guessed_dots=True))


@pytest.mark.parametrize(
    ("column", "part"),
    [
        ([7] * N, "is the same in every row"),
        (range(1000, 1000 + N), "another value in every row"),
        ([f"u{n:04}" for n in range(N)], "another value in every row"),
        (np.where(LABELS == 1, "Y", "N"), "tells the class of every row"),
        (LABELS + 4.5, "tells the class of every row"),
        (np.array(["q1", "q2", "q3"])[TASKS], "tells the task of every row"),
        (DRAW.integers(1000, 9999, N) / 1000, "set thousands: '.' if the dot groups digits"),
    ],
)
def test_each_is_said(column: Any, part: str) -> None:
    (note,) = said(column)
    assert note.startswith("column 'c' ")
    assert part in note


@pytest.mark.parametrize(
    "column",
    [
        DRAW.normal(size=N),
        DRAW.normal(30, 5, N).round(2),
        DRAW.integers(0, 5, N),
        np.where(DRAW.random(N) < 0.5, "a", "b"),
        pd.date_range("2024-01-01", periods=N),
    ],
)
def test_features_are_not(column: Any) -> None:
    assert said(column) == []


def test_dots_that_were_not_guessed_are_decimals() -> None:
    column = DRAW.integers(1000, 9999, N) / 1000
    assert list(suspicions(pd.DataFrame({"c": column}), ["c"], LABELS, TASKS)) == []


def test_a_few_rows_prove_nothing() -> None:
    assert list(suspicions(pd.DataFrame({"c": [1, 2, 3]}), ["c"], LABELS[:3], None)) == []
