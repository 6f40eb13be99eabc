from __future__ import annotations

import pytest

from search_spaces import Constraint, SpaceError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("worst_forgetting <= 0.05", Constraint("worst_forgetting", "<=", 0.05, 0.005)),
        ("average_accuracy >= 0.9", Constraint("average_accuracy", ">=", 0.9, 0.09)),
        ("  forgetting<=.05  ", Constraint("forgetting", "<=", 0.05, 0.005)),
        ("backward_transfer >= -0.02", Constraint("backward_transfer", ">=", -0.02, 0.002)),
        ("forgetting <= 0", Constraint("forgetting", "<=", 0.0, 0.01)),
        ("forgetting <= 0.001", Constraint("forgetting", "<=", 0.001, 0.001)),
        ("kept_bytes <= 1e6", Constraint("kept_bytes", "<=", 1e6, 1e5)),
        ("forgetting <= 0.05 (tolerance 0.01)", Constraint("forgetting", "<=", 0.05, 0.01)),
        ("forgetting <= 0 ( tolerance 1e-3 )", Constraint("forgetting", "<=", 0.0, 1e-3)),
    ],
)
def test_a_limit_is_read_from_its_text(text: str, expected: Constraint) -> None:
    found = Constraint.parse(text)

    assert (found.metric, found.operator, found.limit) == (expected.metric, expected.operator, expected.limit)
    assert found.tolerance == pytest.approx(expected.tolerance)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "forgetting",
        "forgetting < 0.05",
        "forgetting == 0.05",
        "<= 0.05",
        "forgetting <= five",
        "forgetting <= 1.2.3",
        "forgetting <= nan",
        "forgetting <= inf",
        "forgetting <= 1e999",
        "0.05 >= forgetting <= 1",
        "forgetting <= 0.05 (tolerance 0)",
        "forgetting <= 0.05 (tolerance -0.01)",
        "forgetting <= 0.05 (tolerance 1e999)",
        "forgetting <= 0.05 (tolerance)",
        "forgetting <= 0.05 tolerance 0.01",
    ],
)
def test_other_forms_are_refused_with_an_example(text: str) -> None:
    with pytest.raises(SpaceError) as error:
        Constraint.parse(text)
    assert str(error.value) == (
        f"expected 'METRIC <= NUMBER' or 'METRIC >= NUMBER', got '{text}'; for example worst_forgetting <= 0.05"
    )


@pytest.mark.parametrize(
    ("text", "value", "margin", "violation"),
    [
        ("forgetting <= 0.05 (tolerance 0.01)", 0.03, 0.02, -2.0),
        ("forgetting <= 0.05 (tolerance 0.01)", 0.08, -0.03, 3.0),
        ("average_accuracy >= 0.9 (tolerance 0.1)", 0.95, 0.05, -0.5),
        ("average_accuracy >= 0.9 (tolerance 0.1)", 0.7, -0.2, 2.0),
    ],
)
def test_margin_and_violation(text: str, value: float, margin: float, violation: float) -> None:
    constraint = Constraint.parse(text)

    assert constraint.margin(value) == pytest.approx(margin)
    assert constraint.violation(value) == pytest.approx(violation)


@pytest.mark.parametrize("operator", ["<=", ">="])
def test_a_value_at_the_limit_meets_it(operator: str) -> None:
    constraint = Constraint.parse(f"forgetting {operator} 0.1")

    assert constraint.margin(0.1) == 0
    assert constraint.violation(0.1) <= 0


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("forgetting <= 0.050 (tolerance 0.01)", "forgetting <= 0.05"),
        ("backward_transfer >= -1e-3", "backward_transfer >= -0.001"),
        ("kept_bytes <= 1234567", "kept_bytes <= 1234567"),
    ],
)
def test_the_name_is_the_limit_without_its_tolerance(text: str, name: str) -> None:
    assert Constraint.parse(text).name == name
