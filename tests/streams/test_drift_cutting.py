"""Where tasks begin in a signal, against river's detectors and learner run by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray
from pydantic import ValidationError
from river import drift, naive_bayes, preprocessing

from orchestrator.streams.boundaries import Boundaries
from orchestrator.streams.sources.boundaries.cutting import Cut, cut, smoothed
from orchestrator.streams.sources.boundaries.detectors import detector_of
from orchestrator.streams.sources.boundaries.signals import Column, Prequential, log_loss, zero_one

DRAW = np.random.default_rng(7)
RISING = np.concatenate([DRAW.random(1000) < 0.1, DRAW.random(1000) < 0.6]).astype(float)
FALLING = RISING[::-1].copy()

DETECTORS: list[tuple[dict[str, Any], Any]] = [
    ({"detector": "adwin"}, lambda: drift.ADWIN(delta=0.05)),
    ({"detector": "adwin", "delta": 0.002}, lambda: drift.ADWIN(delta=0.002)),
    ({"detector": "adwin", "delta": 0.01, "clock": 7}, lambda: drift.ADWIN(delta=0.01, clock=7)),
    (
        {"detector": "adwin", "grace_period": 1500, "min_window_length": 9},
        lambda: drift.ADWIN(delta=0.05, grace_period=1500, min_window_length=9),
    ),
    ({"detector": "kswin"}, lambda: drift.KSWIN(alpha=0.0001, window_size=200, stat_size=60, seed=0)),
    (
        {"detector": "kswin", "alpha": 0.001, "window_size": 120, "stat_size": 50, "seed": 3},
        lambda: drift.KSWIN(alpha=0.001, window_size=120, stat_size=50, seed=3),
    ),
    ({"detector": "page-hinkley"}, lambda: drift.PageHinkley(threshold=20.0, mode="up")),
    (
        {"detector": "page-hinkley", "delta": 0.05, "alpha": 0.99, "threshold": 18.0, "min_instances": 40},
        lambda: drift.PageHinkley(min_instances=40, delta=0.05, threshold=18.0, alpha=0.99, mode="up"),
    ),
]


def by_hand(detector: Any, values: NDArray[Any]) -> list[int]:
    """Return the rows in which river's detector says drift."""
    found = []
    for row, value in enumerate(values):
        detector.update(value)
        if detector.drift_detected:
            found.append(row)
    return found


def cut_at(values: NDArray[Any], **fields: Any) -> Cut:
    settings = Boundaries.model_validate(fields)
    assert list(settings.faults()) == []
    return cut(Column(values), len(values), detector_of(settings), settings)


@pytest.mark.parametrize(("fields", "detector"), DETECTORS)
def test_a_task_begins_where_the_detector_fires(fields: dict[str, Any], detector: Any) -> None:
    (row,) = by_hand(detector(), RISING)
    assert 1000 < row < 1500 if "grace_period" not in fields else row >= 1500
    made = cut_at(RISING, **fields)
    assert made.starts == (0, row)
    assert made.reasons == ("start", "drift")
    assert made.lengths == (row, 2000 - row)
    assert made.n_passed_over == 0
    np.testing.assert_array_equal(made.signal, RISING)


@pytest.mark.parametrize("detector", ["adwin", "kswin", "page-hinkley"])
def test_a_fall_is_drift_of_a_feature_only(detector: str) -> None:
    river: dict[str, Any] = {
        "adwin": drift.ADWIN(delta=0.05),
        "kswin": drift.KSWIN(alpha=0.0001, window_size=200, stat_size=60, seed=0),
        "page-hinkley": drift.PageHinkley(threshold=20.0, mode="both"),
    }
    rows = by_hand(river[detector], FALLING)
    assert 1000 < rows[0] < 1300
    assert cut_at(FALLING, detector=detector, on="feature", column="x").starts == (0, *rows)
    for on in ("error", "score"):
        assert cut_at(FALLING, detector=detector, on=on).starts == (0,)


def cut_with(rows: list[int], n_rows: int, **fields: Any) -> Cut:
    """Return the cut by a detector that fires in given rows."""
    values = np.zeros(n_rows)
    values[rows] = 1.0
    return cut(Column(values), n_rows, lambda value: value == 1.0, Boundaries.model_validate(fields))


def test_drift_too_close_to_a_boundary_is_passed_over() -> None:
    made = cut_with([19, 30, 49, 60, 91], 110, minimal_length=20)
    assert made.starts == (0, 30, 60)
    assert made.n_passed_over == 3
    assert cut_with([20, 90], 110, minimal_length=20).starts == (0, 20, 90), "at the least length it counts"


def test_a_task_ends_at_the_maximal_length() -> None:
    made = cut_with([70], 150, minimal_length=20, maximal_length=50)
    assert made.starts == (0, 50, 70, 120)
    assert made.reasons == ("start", "maximal_length", "drift", "maximal_length")
    assert cut_with([], 119, minimal_length=20, maximal_length=50).lengths == (50, 69), (
        "a rest too short joins the last"
    )
    assert cut_with([], 120, minimal_length=20, maximal_length=50).lengths == (50, 50, 20)


def test_losses_by_hand() -> None:
    assert zero_one({0: 0.4, 1: 0.6}, 1) == 0.0
    assert zero_one({0: 0.4, 1: 0.6}, 0) == 1.0
    assert zero_one({}, 0) == 1.0
    assert log_loss({0: 0.1, 1: 0.9}, 0) == pytest.approx(0.5), "ln 10 / ln 100"
    assert log_loss({0: 0.25, 1: 0.75}, 0) == pytest.approx(0.30103, abs=1e-5), "ln 4 / ln 100"
    assert log_loss({0: 1.0}, 0) == 0.0
    assert log_loss({0: 1.0}, 1) == 1.0, "as at a probability of 0.01"


def stream(n: int = 60) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    draw = np.random.default_rng(1)
    labels = draw.integers(0, 3, n)
    return (draw.normal(size=(n, 2)) + labels[:, None]).astype(np.float32), labels


def test_each_row_is_tested_before_it_is_learned() -> None:
    inputs, labels = stream()
    learner = preprocessing.StandardScaler() | naive_bayes.GaussianNB()
    expected = []
    for row, label in zip(inputs.tolist(), labels.tolist(), strict=True):
        probabilities = learner.predict_proba_one(dict(enumerate(row)))
        expected.append(-np.log(max(probabilities.get(label, 0), 0.01)) / np.log(100))
        learner.learn_one(dict(enumerate(row)), label)
    signal = Prequential(inputs, labels, log_loss)
    assert [signal.value(row) for row in range(len(labels))] == pytest.approx(expected)
    assert expected[0] == pytest.approx(1.0)
    assert np.mean(expected[30:]) < 0.5


def test_the_learner_begins_afresh_with_each_drift() -> None:
    """Also with drift that begins no task: what was learned before it is wrong all the same."""
    inputs, labels = stream()
    fires = iter([row in (25, 30) for row in range(60)])
    settings = Boundaries(minimal_length=20)
    made = cut(Prequential(inputs, labels, log_loss), 60, lambda value: next(fires), settings)
    assert made.starts == (0, 25)
    assert made.n_passed_over == 1
    for begin, end in ((0, 26), (26, 31), (31, 60)):
        fresh = Prequential(inputs[begin:end], labels[begin:end], log_loss)
        assert made.signal[begin:end].tolist() == [fresh.value(row) for row in range(end - begin)]


def test_the_drawn_signal_is_a_mean_of_the_rows_before() -> None:
    width, points = smoothed(np.concatenate([np.zeros(60), np.ones(40)]))
    assert width == 50
    assert points[0] == (0, 0.0)
    assert points[69] == (69, 0.2), "10 of the rows 20 to 69 are 1"
    assert points[-1] == (99, 0.8)
    width, points = smoothed(np.ones(100_000))
    assert width == 1000
    assert len(points) == 400
    assert {value for _, value in points} == {1.0}


def test_on_is_no_truth_value() -> None:
    """PyYAML reads the key `on` as true."""
    assert Boundaries.model_validate(yaml.safe_load("{detector: kswin, on: score}")).on == "score"
    with pytest.raises(ValidationError):
        Boundaries.model_validate({1: "score"})


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"on": "feature"}, "boundaries.column: on: feature needs it; name a column of numbers"),
        ({"column": "x"}, "boundaries.column: has no effect with on: error; drop it, or set on: feature"),
        (
            {"minimal_length": 300, "maximal_length": 200},
            "boundaries.maximal_length: 200 is less than minimal_length (300); raise it, or lower minimal_length",
        ),
        ({"threshold": 9}, "boundaries.threshold: only page-hinkley has it, and the detector is adwin; drop it"),
        (
            {"detector": "kswin", "delta": 0.1},
            "boundaries.delta: only adwin and page-hinkley have it, and the detector is kswin; drop it",
        ),
        ({"delta": 0}, "boundaries.delta: expected more than 0 with adwin, got 0; such as 0.05"),
        (
            {"detector": "kswin", "alpha": 1},
            "boundaries.alpha: expected less than 1 with kswin, got 1; such as 0.0001",
        ),
        (
            {"detector": "kswin", "window_size": 100},
            "boundaries.stat_size: 60 is more than half of window_size (100); lower it, or raise window_size",
        ),
    ],
)
def test_contradictions(fields: dict[str, Any], fault: str) -> None:
    assert list(Boundaries.model_validate(fields).faults()) == [fault]
