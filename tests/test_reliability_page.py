"""The page on reliability: what holds each promise is there, and its counts are those of a suite that passed."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from tests.faults import groups as suite

TESTS = Path(__file__).parent
PAGE = (TESTS.parent / "docs" / "reliability.md").read_text()
PROMISES, _, REST = PAGE.partition("## What is not promised")


def rows(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("|---")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_every_promise_names_a_group_or_a_test_that_is_there() -> None:
    known: dict[str, set[str]] = {}
    for path in TESTS.rglob("test_*.py"):
        functions = [node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)]
        known.setdefault(path.name, set()).update(functions)
    promises = [row for row in rows(PROMISES) if row[0] != "what happens"]
    assert len(promises) > 25
    for what, _, held_by in promises:
        groups = re.findall(r"`([a-z]+)`", held_by)
        tests = re.findall(r"`(test_\w+\.py)::(test_\w+)`", held_by)
        assert groups or tests, what
        assert set(groups) <= set(suite.GROUPS), what
        assert [(file, name) for file, name in tests if name not in known.get(file, set())] == [], what


def test_the_measured_counts_are_of_every_group_and_without_a_fault() -> None:
    measured = {row[0].strip("`"): list(map(int, row[1:6])) for row in rows(REST) if len(row) == 6 and row[1].isdigit()}
    total = measured.pop("all")
    assert set(measured) == set(suite.GROUPS)
    assert [sum(column) for column in zip(*measured.values(), strict=True)] == total
    for tried, expected, found, duplicates, differences in measured.values():
        assert tried > 0
        assert expected == found
        assert (duplicates, differences) == (0, 0)
