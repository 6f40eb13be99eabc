"""What a detector watches: the error or the loss of an online learner, or a column."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from orchestrator.core.errors import MissingExtraError

LEAST_PROBABILITY = 0.01
"""A probability below it counts as much, so that one row weighs no more than ln(100)."""


class Signal(Protocol):
    """Values in [0, 1], one a row, asked for in order."""

    def value(self, row: int) -> float:
        """Return the value of a row."""

    def forget(self) -> None:
        """Forget what was learned, because drift was found."""


class Column:
    """The values of a column.

    Args:
        values: in order, in [0, 1], (N,).
    """

    def __init__(self, values: NDArray[Any]) -> None:
        self._values = values

    def value(self, row: int) -> float:
        """Return the value of a row."""
        return float(self._values[row])

    def forget(self) -> None:
        """Do nothing: a column has learned nothing."""


class Prequential:
    """An online learner that is tested on each row and then learns it (Gama et al. 2013).

    The learner is river's Gaussian naive Bayes behind a standard scaler: unlike logistic regression it has no learning
    rate, learns more than linear boundaries, and has seen all of a task after one pass. It begins afresh with each
    drift, because it forgets nothing by itself.

    Args:
        inputs: rows in order (N, F) float32.
        labels: their classes (N,) int64.
        loss: `zero_one` or `log_loss`.

    Raises:
        MissingExtraError: if river is not installed.
    """

    def __init__(self, inputs: NDArray[Any], labels: NDArray[np.int64], loss: Callable[[Any, int], float]) -> None:
        self._inputs, self._labels, self._loss = inputs, labels, loss
        self._learner = _fresh_learner()

    def value(self, row: int) -> float:
        """Return the loss on a row of what has learned the rows before, and learn it."""
        features = dict(enumerate(self._inputs[row].tolist()))
        label = int(self._labels[row])
        loss = self._loss(self._learner.predict_proba_one(features), label)
        self._learner.learn_one(features, label)
        return loss

    def forget(self) -> None:
        """Begin with a fresh learner."""
        self._learner = _fresh_learner()


def zero_one(probabilities: dict[int, float], label: int) -> float:
    """Return 0.0 for a right answer and 1.0 for a wrong one, or for none.

    Args:
        probabilities: of each class that was seen.
        label: the class.
    """
    return float(not probabilities or max(probabilities, key=probabilities.__getitem__) != label)


def log_loss(probabilities: dict[int, float], label: int) -> float:
    """Return -ln(p) / ln(100), in [0, 1] as detectors assume, for the probability p >= 0.01 of the class.

    Args:
        probabilities: of each class that was seen.
        label: the class.
    """
    p = max(probabilities.get(label, 0.0), LEAST_PROBABILITY)
    return max(math.log(p) / math.log(LEAST_PROBABILITY), 0.0)


def _fresh_learner() -> Any:
    try:
        from river import naive_bayes, preprocessing
    except ImportError as error:
        raise MissingExtraError("boundaries", "drift") from error
    return preprocessing.StandardScaler() | naive_bayes.GaussianNB()
