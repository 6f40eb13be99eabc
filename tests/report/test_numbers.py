"""Numbers as people read them."""

from __future__ import annotations

import math

import pytest

from orchestrator.core.text import counted
from orchestrator.report.numbers import duration, money, number


@pytest.mark.parametrize(
    ("metric", "value", "shown"),
    [
        ("average_accuracy", 0.12345, "0.123"),
        ("average_accuracy", math.nan, "–"),
        ("kept_bytes", 0, "0 B"),
        ("kept_bytes", 999, "999 B"),
        ("kept_bytes", 1500, "1.5 kB"),
        ("kept_bytes", 2.34e6, "2.34 MB"),
        ("peak_memory_bytes", 7.2e9, "7.2 GB"),
        ("kept_bytes", -1500, "-1.5 kB"),
        ("seconds", 1.234, "1.23 s"),
        ("train_seconds", 0, "0.00 s"),
        ("n_parameters", 85002, "85,002"),
    ],
)
def test_numbers_have_units(metric: str, value: float, shown: str) -> None:
    assert number(metric, value) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.4, "0 s"), (119, "119 s"), (121, "2 min"), (7199, "119 min"), (7260, "2 h 1 min"), (9000, "2 h 30 min")],
)
def test_durations_have_units(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


def test_one_seed_is_singular() -> None:
    assert [counted(n, "seed") for n in (0, 1, 2)] == ["0 seeds", "1 seed", "2 seeds"]


@pytest.mark.parametrize(("amount", "shown"), [(12.345, "12.35"), (0.5, "0.50"), (0.012345, "0.012"), (0.0, "0.00")])
def test_money(amount: float, shown: str) -> None:
    assert money(amount) == shown
