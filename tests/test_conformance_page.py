"""The page on conformance: its table is of the numbers that are published, and what is outside is explained."""

from __future__ import annotations

from pathlib import Path

from benchmarks.published import EXPLAINED, PUBLISHED

PAGE = (Path(__file__).parents[1] / "docs" / "conformance.md").read_text()
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.splitlines()
    if line.startswith(("| a |", "| b |", "| c |"))
]


def test_every_published_number_is_in_the_table_once_with_its_tolerance() -> None:
    expected = [[p.table, p.scenario, p.method, p.metric, f"{p.value:.4f}", f"{p.tolerance:.4f}"] for p in PUBLISHED]
    assert [[*row[:5], row[8]] for row in ROWS] == expected


def test_the_verdicts_follow_from_the_numbers() -> None:
    for row in ROWS:
        ours, published, difference = float(row[5].split(" ")[0]), float(row[4]), float(row[7])
        assert abs(ours - published - difference) < 1.5e-4, row
        within = abs(difference) <= float(row[8])
        explained = tuple(row[:4]) in EXPLAINED
        assert row[9] == ("within" if within else "outside, explained"), row
        assert within or explained, row


def test_the_tables_have_the_seeds_that_they_promise() -> None:
    n_seeds = {"a": "5", "b": "10", "c": "20"}
    assert all(row[6] == n_seeds[row[0]] for row in ROWS)
