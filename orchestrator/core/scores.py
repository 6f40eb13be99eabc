"""Scores: what a cell of R holds. Most follow from counts per class; two rank the examples and need their logits.

Each equals scikit-learn's function of that name. Differs: a score that its task cannot have, because no held-out
example is of the class, is NaN and never 0; precision of a class that is never answered is 0, as scikit-learn's
default.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from orchestrator.core.text import nearest

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FORM = re.compile(r"\s*(?P<kind>\w+)\s*(\((?P<class_name>.*)\))?\s*", re.DOTALL)


@dataclass(frozen=True)
class ScoreKind:
    """A kind of score.

    Args:
        meaning: in words, for users.
        of_class: whether it is that of one class, which is named in parentheses.
        is_ranked: whether it compares the logits of examples, so that it is measured only if it is asked for.
    """

    meaning: str
    of_class: bool = False
    is_ranked: bool = False


SCORES: dict[str, ScoreKind] = {
    "accuracy": ScoreKind("share of examples that are labelled correctly"),
    "balanced_accuracy": ScoreKind("mean recall of the classes that a task has"),
    "macro_f1": ScoreKind("mean F1 of the classes that a task has or that are answered"),
    "recall": ScoreKind("share of a class's examples that are found", of_class=True),
    "precision": ScoreKind("share of right answers among those that name a class", of_class=True),
    "f1": ScoreKind("harmonic mean of a class's precision and recall", of_class=True),
    "auroc": ScoreKind(
        "probability that an example of a class is ranked above one of another; with more than two classes, the mean "
        "over the classes of a task, each against the rest",
        is_ranked=True,
    ),
    "average_precision": ScoreKind(
        "area under precision and recall of the rarer of two classes; with more than two, the mean over the classes of "
        "a task, each against the rest",
        is_ranked=True,
    ),
}


@dataclass(frozen=True)
class Score:
    """A score, such as `accuracy` or `recall(fraud)`.

    Args:
        kind: a name in `SCORES`.
        class_name: the class that it is for; None for those of all classes.
    """

    kind: str
    class_name: str | None = None

    @classmethod
    def parse(cls, text: str) -> Score:
        """Return the score of a text such as `auroc` or `recall(fraud)`.

        Raises:
            ValueError: if there is none, with what to do.
        """
        match = _FORM.fullmatch(text)
        kind = match["kind"] if match else text
        if match is None or kind not in SCORES:
            raise ValueError(f"there is no score '{text}'; {nearest(kind, SCORES)}")
        class_name = match["class_name"].strip() if match["class_name"] is not None else None
        if SCORES[kind].of_class and not class_name:
            raise ValueError(f"the score '{text}' is that of one class; write {kind}(CLASS), such as {kind}(fraud)")
        if not SCORES[kind].of_class and class_name is not None:
            raise ValueError(f"the score '{kind}' is that of all classes together; leave '({class_name})' out")
        return cls(kind, class_name)

    @property
    def is_ranked(self) -> bool:
        """Return whether it is measured only if it is asked for."""
        return SCORES[self.kind].is_ranked

    @property
    def constant_tells(self) -> bool:
        """Return whether the best constant answer is a level to beat: it has a recall of 1."""
        return self.kind != "recall"

    def __str__(self) -> str:
        return self.kind if self.class_name is None else f"{self.kind}({self.class_name})"


ACCURACY = Score("accuracy")


@dataclass(frozen=True)
class Measurement:
    """What was measured on one task after one task.

    Args:
        n_true: held-out examples of each class, (C,).
        n_predicted: answers that name each class, (C,).
        n_right: right answers of each class, (C,).
        ranked: score -> its value, NaN or None if the task cannot have it; only what was asked for.
        right: whether each example was answered rightly, packed to a bit each; empty if that was not kept.
    """

    n_true: Sequence[int]
    n_predicted: Sequence[int]
    n_right: Sequence[int]
    ranked: Mapping[str, float | None] = field(default_factory=dict)
    right: bytes = b""

    def value(self, score: Score, classes: Sequence[str]) -> float:
        """Return a score in [0, 1]; NaN if the task cannot have it, or if it was not measured.

        Args:
            score: the score.
            classes: name of each class, (C,) or more.
        """
        true, predicted, right = self.n_true, self.n_predicted, self.n_right
        match score.kind:
            case "accuracy":
                return sum(right) / sum(true)
            case "balanced_accuracy":
                return _mean([r / t for r, t in zip(right, true, strict=True) if t])
            case "macro_f1":
                return _mean([2 * r / (t + p) for r, t, p in zip(right, true, predicted, strict=True) if t + p])
            case "auroc" | "average_precision":
                value = self.ranked.get(score.kind)
                return math.nan if value is None else value
        index = classes.index(score.class_name) if score.class_name in classes else len(true)
        if index >= len(true) or not true[index]:
            return math.nan
        whole = {"recall": true[index], "precision": predicted[index], "f1": (true[index] + predicted[index]) / 2}
        return right[index] / whole[score.kind] if whole[score.kind] else 0.0

    def constant_value(self, score: Score, classes: Sequence[str], answer: int, positive: str | None) -> float:
        """Return the score of a model that answers the class at `answer` whatever it sees.

        Args:
            score: the score.
            classes: name of each class, (C,) or more.
            answer: the column of what it answers.
            positive: the class that average precision is for, if there are two.
        """
        if score.is_ranked:  # equal logits: every pair of examples is a tie
            shares = {name: t / sum(self.n_true) for name, t in zip(classes, self.n_true, strict=False) if t}
            if len(shares) < 2:
                return math.nan
            if score.kind == "auroc":
                return 0.5
            return shares[positive] if positive in shares else _mean(list(shares.values()))
        predicted = [sum(self.n_true) if c == answer else 0 for c in range(len(self.n_true))]
        right = [t if c == answer else 0 for c, t in enumerate(self.n_true)]
        return Measurement(self.n_true, predicted, right).value(score, classes)


def best_constant(
    cells: Sequence[tuple[Measurement, Sequence[str]]], score: Score, positive: str | None, knows_task: bool
) -> float:
    """Return the mean over tasks of the score of the best answer that ignores the input; NaN if it tells nothing.

    Args:
        cells: held-out examples of each task, and the names of its classes.
        score: the score.
        positive: the class that average precision is for, if there are two.
        knows_task: whether each task may have a constant answer of its own.
    """
    if not score.constant_tells:
        return math.nan
    each = [
        [cell.constant_value(score, names, answer, positive) for answer in range(len(cell.n_true))]
        for cell, names in cells
    ]
    defined = [values for values in each if not all(map(math.isnan, values))]
    if knows_task:
        return _mean([max(value for value in values if not math.isnan(value)) for values in defined])
    n_answers = max(map(len, defined), default=0)
    return max((_mean([_at(values, answer) for values in defined]) for answer in range(n_answers)), default=math.nan)


def ranked_scores(
    log_odds: Mapping[int, NDArray[Any]], labels: NDArray[Any], wanted: Sequence[str]
) -> dict[str, float | None]:
    """Return the wanted scores that rank examples, the mean over some classes; None if no class has both kinds.

    Args:
        log_odds: class -> each example's odds of it against the others, (N,) float: they rank examples as probabilities
            do, without the ties that rounding makes of probabilities near 1. Of two classes, one has the AUROC of both.
        labels: the true class, (N,) int64.
        wanted: kinds of scores.
    """
    import numpy as np

    found: dict[str, list[float]] = {kind: [] for kind in wanted}
    for label, odds in log_odds.items():
        own, whole = np.sort(odds[labels == label]), np.sort(odds)
        n_own, n_other = len(own), len(odds) - len(own)
        if not n_own or not n_other:
            continue
        below, own_below = np.searchsorted(whole, own, "left"), np.searchsorted(own, own, "left")
        if "auroc" in found:
            up_to = np.searchsorted(whole, own, "right") - np.searchsorted(own, own, "right")
            others = (below - own_below + up_to).mean()  # a tie counts half
            found["auroc"].append(float(others) / (2 * n_other))
        if "average_precision" in found:
            found["average_precision"].append(float(((n_own - own_below) / (len(odds) - below)).mean()))
    return {kind: _mean(values) if values else None for kind, values in found.items()}


def _at(values: Sequence[float], answer: int) -> float:
    return values[answer] if answer < len(values) and not math.isnan(values[answer]) else 0.0


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan
