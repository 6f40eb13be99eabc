"""Scores against scikit-learn's, and what is undefined."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn import metrics as sk

from orchestrator.core.scores import SCORES, Measurement, Score, ranked_scores
from orchestrator.trial.evaluation import log_odds

NAMES = ["a", "b", "c", "d"]


def example(seed: int, n_classes: int = 4, n: int = 200) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return labels, predictions and logits; the last class is never the truth and seldom an answer."""
    generator = np.random.default_rng(seed)
    labels = generator.choice(n_classes - 1, n, p=generator.dirichlet(np.ones(n_classes - 1)))
    logits = generator.normal(size=(n, n_classes)).round(1).astype(np.float32)
    logits[np.arange(n), labels] += 1
    return labels, logits.argmax(1), logits


def measured(labels: NDArray[Any], predicted: NDArray[Any], n_classes: int = 4) -> Measurement:
    columns = (labels, predicted, labels[labels == predicted])
    true, answered, right = (np.bincount(each, minlength=n_classes).tolist() for each in columns)
    return Measurement(true, answered, right)


@pytest.mark.parametrize("seed", range(5))
def test_scores_of_counts_equal_scikit_learns(seed: int) -> None:
    labels, predicted, _ = example(seed)
    found = measured(labels, predicted)
    assert found.value(Score("accuracy"), NAMES) == pytest.approx(sk.accuracy_score(labels, predicted))
    with warnings.catch_warnings(action="ignore"):  # a class is answered that is never true
        assert found.value(Score("balanced_accuracy"), NAMES) == pytest.approx(
            sk.balanced_accuracy_score(labels, predicted)
        )
    assert found.value(Score("macro_f1"), NAMES) == pytest.approx(sk.f1_score(labels, predicted, average="macro"))
    for c in np.unique(labels):
        for kind, theirs in (("recall", sk.recall_score), ("precision", sk.precision_score), ("f1", sk.f1_score)):
            expected = theirs(labels == c, predicted == c, zero_division=0)
            assert found.value(Score(kind, NAMES[c]), NAMES) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(5))
def test_ranked_scores_of_two_classes_equal_scikit_learns(seed: int) -> None:
    """With ties; average precision is that of the class that is named."""
    labels, _, logits = example(seed, 3)
    logits = logits[:, :2]
    odds = logits[:, 1] - logits[:, 0]
    for positive in (0, 1):
        sign = odds if positive else -odds
        found = ranked_scores({positive: sign}, labels, ["auroc", "average_precision"])
        assert found["auroc"] == pytest.approx(sk.roc_auc_score(labels, odds), abs=1e-12)
        assert found["average_precision"] == pytest.approx(
            sk.average_precision_score(labels == positive, sign), abs=1e-12
        )


@pytest.mark.parametrize("seed", range(5))
def test_ranked_scores_of_many_classes_equal_scikit_learns(seed: int) -> None:
    """Each class of the task against the rest; a class that is never true does not count."""
    labels, _, logits = example(seed)
    odds = dict(enumerate(log_odds(torch.from_numpy(logits)).T.numpy()))
    found = ranked_scores(odds, labels, ["auroc", "average_precision"])
    shares = torch.from_numpy(logits).double().softmax(1).numpy()
    present = np.unique(labels)
    each = [sk.roc_auc_score(labels == c, shares[:, c]) for c in present]
    assert found["auroc"] == pytest.approx(np.mean(each), abs=1e-9)
    precisions = [sk.average_precision_score(labels == c, shares[:, c]) for c in present]
    assert found["average_precision"] == pytest.approx(np.mean(precisions), abs=1e-9)


def test_probabilities_that_round_to_one_are_still_ranked() -> None:
    """In float32 all three probabilities are 1."""
    logits = torch.tensor([[0.0, 40.0, 0.0], [0.0, 60.0, 0.0], [0.0, 50.0, 0.0]])
    assert len(set(log_odds(logits)[:, 1].tolist())) == 3
    found = ranked_scores({1: log_odds(logits)[:, 1].numpy()}, np.array([0, 1, 1]), ["auroc"])
    assert found["auroc"] == 1.0


def test_what_a_task_cannot_have_is_nan_and_never_0() -> None:
    only_a = Measurement([5, 0], [3, 2], [3, 0], {"auroc": None})
    names = ["a", "b"]
    for text in ("recall(b)", "precision(b)", "f1(b)", "auroc", "average_precision", "recall(unknown)"):
        assert math.isnan(only_a.value(Score.parse(text), names)), text
    assert only_a.value(Score.parse("recall(a)"), names) == 0.6
    never = Measurement([5, 5], [10, 0], [5, 0])
    assert never.value(Score.parse("precision(b)"), names) == never.value(Score.parse("f1(b)"), names) == 0.0
    assert ranked_scores({1: np.ones(4)}, np.zeros(4, dtype=int), ["auroc"]) == {"auroc": None}


@pytest.mark.parametrize(
    ("text", "positive", "expected"),
    [
        ("accuracy", None, 0.9),
        ("balanced_accuracy", None, 0.5),
        ("macro_f1", None, (1.8 / 1.9) / 2),
        ("f1(a)", None, 1.8 / 1.9),
        ("precision(b)", None, 0.1),
        ("auroc", None, 0.5),
        ("average_precision", "b", 0.1),
        ("average_precision", None, 0.5),
    ],
)
def test_the_best_constant_answer(text: str, positive: str | None, expected: float) -> None:
    cell = Measurement([9, 1], [0, 0], [0, 0])
    values = [cell.constant_value(Score.parse(text), ["a", "b"], answer, positive) for answer in (0, 1)]
    assert max(values) == pytest.approx(expected)


@pytest.mark.parametrize("kind", SCORES)
def test_a_score_is_written_as_it_is_read(kind: str) -> None:
    text = f"{kind}(<=50K (net))" if SCORES[kind].of_class else kind
    assert str(Score.parse(f" {text} ")) == text
