"""The answer that the tests of exports share; its numbers are easy to compute by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from orchestrator.search.answers.full_answer import Answer, answer_of
from tests.search.test_answer import POOR, Rows

SCENARIO = "split-digits/task"
T_2 = 4.302653
"""The 0.975 quantile of Student's t with 2 degrees of freedom."""


def answer(rows: Rows) -> Answer:
    rows.run()
    return answer_of(rows.search(), rows.frame())


def five_methods(**fields: Any) -> Rows:
    """Return a sweep with three test seeds: replay is best, si not told apart, ewc is worse, naive forgets.

    replay: 0.90, 0.92, 0.94. si: 0.95, 0.85, 0.90. ewc: 0.80, 0.84, 0.82. naive: 0.70 and a drop of 0.30.
    """
    base = {"methods": ["naive", "joint", "ewc", "replay", "si"], "seeds": {"search": 2, "confirm": 3}}
    rows = Rows(**base | fields)
    rows.add("naive", "search", *[(0.7, 0.3)] * 2).add("naive", "confirm", *[(0.7, 0.3)] * 3)
    rows.add("joint", "search", *[(0.99, 0)] * 2).add("joint", "confirm", *[(0.99, 0)] * 3)
    tests = {"ewc": (0.80, 0.84, 0.82), "replay": (0.90, 0.92, 0.94), "si": (0.95, 0.85, 0.90)}
    for method, validation in (("ewc", 0.82), ("replay", 0.92), ("si", 0.90)):
        rows.add(method, "search", *[(validation, 0.02)] * 2).add(method, "search", *POOR, number=1)
        rows.add(method, "confirm", *[(value, 0.02) for value in tests[method]])
    return rows


def renamed(found: Answer, method: str, scenario: str) -> Answer:
    """Return an answer whose best method and whose scenario have other names."""
    (one,) = found.scenarios
    best = one.recommended
    methods = [replace(each, method=method) if each.method == best else each for each in one.methods]
    named = replace(one, scenario=scenario, methods=methods, recommended=method, best_on_test=method)
    return replace(found, scenarios=[named])
