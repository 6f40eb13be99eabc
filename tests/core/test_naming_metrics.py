"""What objectives and limits may name."""

from __future__ import annotations

import numpy as np
import pytest

from orchestrator.core.metrics import Quantity, lower_is_better, quantity
from orchestrator.core.scores import ACCURACY, Score

NAN = np.nan
R = {
    ACCURACY: np.array([[NAN, NAN, NAN], [0.9, NAN, NAN], [0.8, 0.9, NAN], [0.5, 0.7, 0.9]]),
    Score("auroc"): np.array([[NAN, NAN, NAN], [1.0, NAN, NAN], [1.0, 0.9, NAN], [0.6, 0.9, 0.8]]),
}
TASKS = ["2023Q1", "2023Q2", "a b"]


@pytest.mark.parametrize(
    ("text", "written", "expected"),
    [
        ("worst_forgetting", "worst_forgetting", 0.4),
        ("accuracy.worst_forgetting", "accuracy.worst_forgetting", 0.4),
        ("auroc . average", "auroc.average", 2.3 / 3),
        ("average", "average", 2.1 / 3),
        ("average_accuracy", "average_accuracy", 2.1 / 3),
        ("forgetting[2023Q1]", "forgetting[2023Q1]", 0.4),
        ("forgetting[2023Q1, 2023Q2]", "forgetting[2023Q1,2023Q2]", 0.3),
        ("auroc.average[a b]", "auroc.average[a b]", 0.8),
    ],
)
def test_values_by_hand(text: str, written: str, expected: float) -> None:
    found = Quantity.parse(text)
    assert str(found) == written
    assert found.of(R.__getitem__, TASKS, ACCURACY) == pytest.approx(expected)


def test_the_score_of_the_scenario_is_meant_if_none_is_named() -> None:
    auroc = Score("auroc")
    assert quantity("worst_forgetting").of(R.__getitem__, TASKS, auroc) == pytest.approx(0.4)
    assert quantity("average").of(R.__getitem__, TASKS, auroc) == pytest.approx(2.3 / 3)
    assert quantity("average_accuracy").of(R.__getitem__, TASKS, auroc) == pytest.approx(2.1 / 3)


def test_a_class_may_be_called_anything() -> None:
    found = Quantity.parse("recall(<=50K, (net)).worst_score[a b]")
    assert (found.score, found.metric, found.tasks) == (Score("recall", "<=50K, (net)"), "worst_score", ("a b",))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("forgeting", "did you mean 'forgetting'?"),
        ("auroc", "'auroc' is a score: write auroc.average"),
        ("recall(fraud)", "'recall(fraud)' is a score: write recall(fraud).average"),
        ("auroc.seconds", "'seconds' is a cost"),
        ("kept_bytes[2023Q1]", "'kept_bytes' is a cost"),
        ("auroc.average_accuracy", "write auroc.average"),
        ("forgetting[]", "names no task"),
        ("forgetting(2023Q1)", "write tasks in brackets: forgetting[2023Q1]"),
        ("forgetting[a,a]", "names a task twice"),
        ("intransigence", "known only after the search"),
    ],
)
def test_anything_else_is_refused_with_a_way_out(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        Quantity.parse(text)
    assert said in str(caught.value)


def test_directions() -> None:
    assert lower_is_better("auroc.worst_forgetting[2023Q1]")
    assert lower_is_better("seconds")
    assert not lower_is_better("recall(fraud).worst_score")
