"""Metrics against numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from orchestrator.core.accuracy import AccuracyMatrix, compute_metrics, intransigence
from orchestrator.core.metrics import ACCURACY_METRICS, METRICS

NAN = math.nan

FOUR = np.array(
    [
        [0.1, 0.2, 0.1, 0.2],
        [0.9, 0.3, 0.2, 0.1],
        [0.7, 0.8, 0.4, 0.2],
        [1.0, 0.6, 0.9, 0.3],
        [0.6, 0.7, 0.6, 0.95],
    ]
)
"""Domain-incremental: everything measured. Task 0 peaks after task 2, not when it was learned."""

THREE = np.array(
    [
        [NAN, NAN, NAN],
        [0.5, NAN, NAN],
        [0.6, 0.7, NAN],
        [0.8, 0.75, 1.0],
    ]
)
"""Class-incremental, and every task gets better: forgetting is negative."""


def test_four_tasks_by_hand() -> None:
    assert compute_metrics(FOUR) == pytest.approx(
        {
            "average": (0.6 + 0.7 + 0.6 + 0.95) / 4,
            "learning_average": (0.9 + 0.8 + 0.9 + 0.95) / 4,
            "backward_transfer": (-0.3 - 0.1 - 0.3) / 3,
            "forgetting": (0.4 + 0.1 + 0.3) / 3,
            "worst_forgetting": 0.4,
            "worst_forgetting_ever": 0.4,
            "worst_drop_since_learning": 0.3,
            "worst_score": 0.6,
            "forward_transfer": ((0.3 - 0.2) + (0.4 - 0.1) + (0.3 - 0.2)) / 3,
        }
    )


def test_three_tasks_by_hand_without_baseline() -> None:
    metrics = compute_metrics(THREE)
    assert math.isnan(metrics.pop("forward_transfer"))
    assert metrics == pytest.approx(
        {
            "average": 0.85,
            "learning_average": 2.2 / 3,
            "backward_transfer": (0.3 + 0.05) / 2,
            "forgetting": (-0.2 - 0.05) / 2,
            "worst_forgetting": -0.05,
            "worst_forgetting_ever": -0.05,
            "worst_drop_since_learning": -0.05,
            "worst_score": 0.5,
        }
    )


def test_every_metric_is_declared() -> None:
    """`average_accuracy` and `learning_accuracy` are those of another matrix if the score is not accuracy."""
    assert list(compute_metrics(FOUR)) == [name for name in METRICS if name not in ACCURACY_METRICS]
    assert set(ACCURACY_METRICS.values()) <= set(METRICS)


def test_the_largest_drop_at_any_boundary() -> None:
    """Task 0 falls to 0.2 after task 1 and comes back: no release but the second shows it."""
    recovered = np.array([[NAN] * 3, [0.9, NAN, NAN], [0.2, 0.8, NAN], [0.85, 0.7, 0.9]])
    metrics = compute_metrics(recovered)
    assert metrics["worst_forgetting"] == pytest.approx(0.1)
    assert metrics["worst_forgetting_ever"] == pytest.approx(0.7)
    assert metrics["worst_score"] == 0.2


def test_some_tasks_only() -> None:
    """The last task is not forgotten by anything; `worst` and means are over the named tasks."""
    assert compute_metrics(FOUR, [1, 3])["average"] == pytest.approx((0.7 + 0.95) / 2)
    assert compute_metrics(FOUR, [1, 2])["forgetting"] == pytest.approx((0.1 + 0.3) / 2)
    assert compute_metrics(FOUR, [1, 2])["worst_forgetting"] == pytest.approx(0.3)
    assert compute_metrics(FOUR, [0])["worst_forgetting_ever"] == pytest.approx(0.4)
    assert math.isnan(compute_metrics(FOUR, [3])["forgetting"])
    assert compute_metrics(FOUR, [1])["forward_transfer"] == pytest.approx(0.1)


def test_a_task_without_the_score_is_left_out() -> None:
    without = np.insert(FOUR, 1, NAN, axis=1)
    without = np.insert(without, 2, without[1], axis=0)
    without[2, 1] = NAN
    kept = {"average", "learning_average", "backward_transfer", "forgetting", "worst_forgetting", "worst_score"}
    expected, found = compute_metrics(FOUR), compute_metrics(without, may_be_undefined=True)
    assert {name: found[name] for name in kept} == pytest.approx({name: expected[name] for name in kept})
    assert all(math.isnan(value) for value in compute_metrics(np.full((4, 3), NAN), may_be_undefined=True).values())


def test_the_last_row_is_not_in_the_maximum() -> None:
    """With it, forgetting could never be negative."""
    raised = FOUR.copy()
    raised[4, :3] = 1.0
    assert compute_metrics(raised)["forgetting"] == pytest.approx((0.0 - 0.2 - 0.1) / 3)


def test_backward_transfer_is_often_minus_forgetting() -> None:
    falling = np.array([[NAN] * 3, [0.9, NAN, NAN], [0.8, 0.9, NAN], [0.5, 0.7, 0.9]])
    metrics = compute_metrics(falling)
    assert metrics["backward_transfer"] == pytest.approx(-0.3)
    assert metrics["forgetting"] == pytest.approx(0.3)
    assert metrics["worst_forgetting"] == metrics["worst_drop_since_learning"] == pytest.approx(0.4)


def test_forward_transfer_is_against_the_untrained() -> None:
    lucky = FOUR.copy()
    lucky[0] = 0.5
    assert compute_metrics(lucky)["forward_transfer"] == pytest.approx((0.3 + 0.4 + 0.3) / 3 - 0.5)
    lucky[0, 2] = NAN
    assert math.isnan(compute_metrics(lucky)["forward_transfer"])
    lucky[0, :] = [NAN, 0.5, 0.5, 0.5]
    assert compute_metrics(lucky)["forward_transfer"] == pytest.approx((0.3 + 0.4 + 0.3) / 3 - 0.5)


def test_one_task_has_no_past() -> None:
    metrics = compute_metrics(np.array([[0.1], [0.8]]))
    known = {"average", "learning_average", "worst_score"}
    assert {metrics[name] for name in known} == {0.8}
    assert all(math.isnan(metrics[name]) for name in set(metrics) - known)


@pytest.mark.parametrize("cell", [(1, 0), (3, 1), (4, 0), (4, 3)])
@pytest.mark.parametrize("value", [NAN, -0.1, 1.1, math.inf])
def test_an_incomplete_or_impossible_matrix_raises(cell: tuple[int, int], value: float) -> None:
    broken = FOUR.copy()
    broken[cell] = value
    with pytest.raises(ValueError, match="accuracy matrix: expected"):
        compute_metrics(broken)


@pytest.mark.parametrize("shape", [(3, 3), (5, 3), (0, 3)])
def test_a_matrix_of_another_shape_raises(shape: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="shape"):
        compute_metrics(np.full(shape, 0.5))


def test_accuracies_are_counts_over_examples() -> None:
    matrix = AccuracyMatrix(((None, None), (3, None), (0, 4)), (4, 8))
    np.testing.assert_array_equal(matrix.accuracy, [[NAN, NAN], [0.75, NAN], [0.0, 0.5]])


def test_tasks_weigh_the_same_whatever_their_size() -> None:
    matrix = AccuracyMatrix(((None, None), (2, None), (2, 0)), (2, 1000))
    assert compute_metrics(matrix.accuracy)["average"] == 0.5


def test_intransigence_is_the_mean_gap_to_joint() -> None:
    assert intransigence([0.9, 0.8], [0.95, 0.9]) == pytest.approx(0.075)
    assert intransigence([0.9, 0.8], [0.8, 0.7]) == pytest.approx(-0.1)


@st.composite
def matrices(draw: st.DrawFn) -> NDArray[np.float64]:
    n_tasks = draw(st.integers(2, 6))
    values = draw(st.lists(st.floats(0, 1), min_size=n_tasks * (n_tasks + 1), max_size=n_tasks * (n_tasks + 1)))
    return np.array(values).reshape(n_tasks + 1, n_tasks)


@settings(derandomize=True, deadline=None, database=None)
@given(matrices())
def test_what_holds_for_every_matrix(accuracy: NDArray[np.float64]) -> None:
    metrics = compute_metrics(accuracy)
    slack = 1e-12
    assert metrics["forgetting"] <= metrics["worst_forgetting"] + slack
    assert metrics["forgetting"] >= -metrics["backward_transfer"] - slack
    assert metrics["worst_forgetting"] >= metrics["worst_drop_since_learning"] - slack
    assert metrics["worst_forgetting_ever"] >= metrics["worst_forgetting"] - slack
    assert metrics["worst_score"] <= min(metrics["average"], metrics["learning_average"]) + slack
    unseen = accuracy.copy()
    unseen[0] = NAN
    unseen[1:][np.triu_indices(accuracy.shape[1], 1)] = NAN
    without = compute_metrics(unseen)
    assert math.isnan(without.pop("forward_transfer"))
    assert without == {name: value for name, value in metrics.items() if name != "forward_transfer"}
