"""Metrics against numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from orchestrator.core.accuracy import AccuracyMatrix, Moments, compute_metrics, intransigence
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
            "anytime_average": (0.9 + (0.7 + 0.8) / 2 + (1.0 + 0.6 + 0.9) / 3 + (0.6 + 0.7 + 0.6 + 0.95) / 4) / 4,
            "worst_case_average": (0.6 + 0.6 + 0.6 + 0.95) / 4,
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
            "anytime_average": (0.5 + 0.65 + 0.85) / 3,
            "worst_case_average": (0.6 + 0.75 + 1.0) / 3,
        }
    )


WITHIN = Moments(
    np.array([0, 1, 1, 2]),
    np.array([[0.3, NAN, NAN], [0.2, 0.1, NAN], [0.4, 0.5, NAN], [0.7, 0.1, 0.9]]),
)
"""What was measured between the rows of `THREE`: once in tasks 0 and 2, twice in task 1."""


def test_what_is_measured_within_tasks_counts_for_metrics_over_time_alone() -> None:
    metrics, without = compute_metrics(THREE, within=WITHIN), compute_metrics(THREE)
    # An evaluation weighs the same wherever it was made. Task 0 is at its lowest within task 1, task 1 within task 2.
    expected = {
        "anytime_average": ((0.3 + 0.15 + 0.45 + 1.7 / 3) + (0.5 + 0.65 + 0.85)) / 7,
        "worst_case_average": (0.2 + 0.1 + 1.0) / 3,
    }
    assert metrics == pytest.approx(without | expected, nan_ok=True)


def test_what_is_measured_within_tasks_of_some_tasks() -> None:
    """Evaluations before a named task say nothing of it; a task's own evaluations are not after it was learned."""
    found = compute_metrics(THREE, [1], within=WITHIN)
    assert found["anytime_average"] == pytest.approx((0.1 + 0.5 + 0.1 + 0.7 + 0.75) / 5)
    assert found["worst_case_average"] == pytest.approx(0.1)
    last = compute_metrics(THREE, [2], within=WITHIN)
    assert last["anytime_average"] == pytest.approx((0.9 + 1.0) / 2)
    assert last["worst_case_average"] == 1.0


def test_metrics_over_time_of_a_trial_that_began_from_a_model_are_of_what_it_measured() -> None:
    """Tasks 0 and 1 were learned by the model: its row is the first, and what it answered then is no later minimum."""
    begun = np.array([[NAN] * 3, [NAN] * 3, [0.4, 0.6, NAN], [0.5, 0.3, 0.9]])
    within = Moments(np.array([2]), np.array([[0.45, 0.7, 0.2]]))
    found = compute_metrics(begun, within=within)
    assert found["anytime_average"] == pytest.approx((0.5 + 1.35 / 3 + 1.7 / 3) / 3)
    assert found["worst_case_average"] == pytest.approx((0.45 + 0.3 + 0.9) / 3)


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
    known = {"average", "learning_average", "worst_score", "anytime_average", "worst_case_average"}
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
