"""The bootstrap, against the scores' own definitions and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from orchestrator.core.scores import Measurement, Score, ranked_scores
from orchestrator.gating import resampling
from orchestrator.gating.resampling import (
    Resampled,
    bootstrap_limits,
    bootstrap_more,
    bootstrap_p,
    resample_answers,
    resample_ranks,
)

Labels = NDArray[np.int64]
NAMES = ("a", "b", "c")


def answers(n: int, seed: int, shares: tuple[float, ...] = (0.5, 0.3, 0.2)) -> tuple[Labels, Labels, Labels]:
    """Return labels, and answers of a champion and of a slightly worse challenger that mostly errs with it."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(3, size=n, p=shares)
    level, other = rng.random(n), (labels + rng.integers(1, 3, n)) % 3
    level_of_challenger = np.where(rng.random(n) < 0.7, level, rng.random(n))
    return labels, np.where(level < 0.85, labels, other), np.where(level_of_challenger < 0.8, labels, other)


def value(labels: Labels, predicted: Labels, score: Score) -> float:
    counts = (np.bincount(of, minlength=3).tolist() for of in (labels, predicted, labels[labels == predicted]))
    return Measurement(*counts).value(score, NAMES)


@pytest.mark.parametrize("name", ["macro_f1", "precision(b)", "f1(b)"])
def test_the_difference_is_that_of_the_scores(name: str) -> None:
    score, data = Score.parse(name), answers(300, 0)
    found = resample_answers(*data, score, None if name == "macro_f1" else 1, 0)
    assert found.estimate == pytest.approx(value(data[0], data[2], score) - value(data[0], data[1], score))
    assert len(found.draws) == resampling.N_RESAMPLES
    assert float(found.draws.mean()) == pytest.approx(found.estimate, abs=0.01)


def test_a_resample_is_a_score_of_resampled_examples() -> None:
    """The spread of the draws against that of examples drawn one by one."""
    score, data = Score.parse("macro_f1"), answers(200, 3)
    found = resample_answers(*data, score, None, 0)
    rng, slow = np.random.default_rng(9), []
    for _ in range(400):
        rows = rng.integers(0, 200, 200)
        labels, first, second = (of[rows] for of in data)
        slow.append(value(labels, second, score) - value(labels, first, score))
    assert float(np.std(slow)) == pytest.approx(float(found.draws.std()), rel=0.15)


@pytest.mark.parametrize("kind", ["auroc", "average_precision"])
def test_ranked_differences_are_those_of_the_scores(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resampling, "N_RESAMPLES", 300)
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, 200)
    odds = [{c: np.round(rng.normal(size=200) + (labels == c), 1) for c in range(3)} for _ in range(2)]  # with ties
    found = resample_ranks(labels, *odds, Score(kind), 0)
    first, second = (ranked_scores(of, labels, [kind])[kind] for of in odds)
    assert first is not None
    assert second is not None
    assert found.estimate == pytest.approx(second - first)
    rows = rng.integers(0, 200, 200)
    redrawn = [{c: of[c][rows] for c in of} for of in odds]
    times = np.bincount(rows, minlength=200)[None].astype(float)
    for of, expected in zip(odds, redrawn, strict=True):
        ranks = [resampling._Ranks.of(of[c], labels == c) for c in of]
        weighted = np.mean([rank.value(times, kind)[0] for rank in ranks])
        assert weighted == pytest.approx(ranked_scores(expected, labels[rows], [kind])[kind])


def test_no_resample_shows_what_no_example_shows() -> None:
    """Twenty frauds that both models find: a recall that is 0.05 less misses none of them with chance 0.95^20."""
    labels = np.array([1] * 20 + [0] * 2_000)
    found = resample_answers(labels, labels, labels, Score.parse("f1(b)"), 1, 0)
    assert set(found.draws.tolist()) == {0.0}
    assert bootstrap_p([found], -0.05)[0] == pytest.approx(0.95**20)
    assert bootstrap_more([found], -0.05, 0.05) == math.ceil(2_020 * (math.log(0.05) / math.log(0.95) / 20 - 1))


def test_a_class_that_is_never_named_is_not_decided() -> None:
    labels = np.array([1] * 500 + [0] * 500)
    never = np.zeros(1_000, dtype=np.int64)
    found = resample_answers(labels, never, never, Score.parse("precision(b)"), 1, 0)
    assert bootstrap_p([found], -0.05)[0] == 1.0
    assert bootstrap_more([found], -0.05, 0.05) is None


def test_a_score_that_does_not_exist_is_not_decided() -> None:
    nothing = Resampled(math.nan, np.full(10, math.nan), 10, 0, 1)
    assert bootstrap_p([nothing], -0.05) == (1.0, 1.0)
    assert all(map(math.isnan, bootstrap_limits([nothing], 0.05)))
    assert bootstrap_more([nothing], -0.05, 0.05) is None


@pytest.mark.parametrize(("n", "shares"), [(200, (0.6, 0.3, 0.1)), (400, (0.5, 0.3, 0.2)), (1_000, (0.9, 0.05, 0.05))])
@pytest.mark.parametrize("name", ["macro_f1", "f1(b)"])
def test_a_wrong_pass_of_a_resampled_score_is_rare(
    name: str, n: int, shares: tuple[float, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the limit, which is the true difference: that of a million examples."""
    score, column = Score.parse(name), None if name == "macro_f1" else 1
    labels, first, second = answers(1_000_000, 99, shares)
    true = value(labels, second, score) - value(labels, first, score)
    monkeypatch.setattr(resampling, "N_RESAMPLES", 400)
    found = [
        bootstrap_p([resample_answers(*answers(n, seed, shares), score, column, 10_000 + seed)], true)[0] <= 0.05
        for seed in range(1_000)
    ]
    assert np.mean(found) <= 0.05 + math.sqrt(0.05 * 0.95 / 1_000)
