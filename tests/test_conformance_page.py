"""The page on conformance: its table has every published number, and what is outside is explained."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pandas as pd
import pytest

from benchmarks.published import EXPLAINED, PUBLISHED, row_of

PAGE = (Path(__file__).parents[1] / "docs" / "conformance.md").read_text()
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.splitlines()
    if line.startswith(("| a |", "| b |", "| c |", "| d |", "| e |"))
]


def test_each_published_number_is_in_the_table_once() -> None:
    expected = [[p.table, p.scenario, p.method, p.metric, f"{p.value:.4f}", f"{p.tolerance:.4f}"] for p in PUBLISHED]
    assert [[*row[:5], row[8]] for row in ROWS] == expected
    assert [row[5].split(" ± ")[1] for row in ROWS] == [f"{p.spread:.4f}" for p in PUBLISHED]


def test_the_verdicts_follow_from_the_numbers() -> None:
    for row in ROWS:
        ours, published, difference = float(row[5].split(" ")[0]), float(row[4]), float(row[7])
        assert abs(ours - published - difference) < 1.5e-4, row
        within = abs(difference) <= float(row[8])
        explained = tuple(row[:4]) in EXPLAINED
        assert row[9] == ("within" if within else "outside, explained"), row
        assert within or explained, row


def test_each_table_has_its_number_of_seeds() -> None:
    n_seeds = {"a": "5", "b": "10", "c": "20", "d": "5", "e": "10"}
    assert all(row[6] == n_seeds[row[0]] for row in ROWS)


@pytest.mark.parametrize(
    ("found", "tolerance", "verdict"),
    [
        ([0.985] * 4, "0.0190", "within"),  # 0.010 and three standard errors of four seeds with a spread of 0.006
        ([0.985] * 5, "0.0100", "**outside**"),
        ([0.95] * 4, "0.0190", "**outside**"),
        ([0.975] * 5, "0.0100", "within"),
    ],
)
def test_fewer_seeds_have_wider_tolerances(found: list[float], tolerance: str, verdict: str) -> None:
    published = dataclasses.replace(PUBLISHED[0], value=0.97, spread=0.006)
    trials = pd.DataFrame({"scenario": published.scenario, "method": published.method, "average_accuracy": found})
    row = row_of(published, trials.assign(phase="confirm"), n_seeds=5)
    assert [cell.strip() for cell in row.split("|")[9:11]] == [tolerance, verdict]
