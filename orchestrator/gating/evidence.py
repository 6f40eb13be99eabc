"""What a gate looks at: what two models answered to the same examples, or what two runs scored on the same seeds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from orchestrator.core.scores import Score

Array = NDArray[np.float64]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Cost:
    """A cost of both; None if it is not known."""

    champion: float | None
    challenger: float | None


@dataclass(frozen=True)
class Answers:
    """What one model answered to the held-out examples of a task.

    Args:
        predicted: index of the class that it named, (N,).
        log_odds: class -> its odds of each example, (N,), as `ranked_scores` takes them; only if a score ranks.
        learned: score -> its value on the task right after it was learned, in [0, 1]. Taken as a fixed number.
    """

    predicted: Labels
    log_odds: Mapping[int, Array] = field(default_factory=dict)
    learned: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelTask:
    """The held-out examples of a task, and what both models answered to them.

    Args:
        name: the task, as the user knows it.
        is_new: whether the challenger learned it and the champion did not.
        labels: index of the true class, (N,).
        class_names: name of each class, (C,).
        champion: its answers; None if there are none.
        challenger: its answers; None if there are none.
        missing: why one of them has none, for the reader.

    Raises:
        ValueError: if the answers are not one for each example.
    """

    name: str
    is_new: bool
    labels: Labels
    class_names: Sequence[str]
    champion: Answers | None
    challenger: Answers | None
    missing: str = ""

    def __post_init__(self) -> None:
        n = len(self.labels)
        for model in (self.champion, self.challenger):
            if model is None:
                continue
            if any(np.shape(of) != (n,) for of in (model.predicted, *model.log_odds.values())):
                raise ValueError(f"task '{self.name}': expected one answer for each of {n} examples")
            _check_scores(self.name, model.learned.values())
        if self.champion and self.challenger and set(self.champion.log_odds) != set(self.challenger.log_odds):
            raise ValueError(f"task '{self.name}': expected the odds of the same classes from both models")

    @property
    def answers(self) -> tuple[Answers, Answers] | None:
        """Return the answers of champion and challenger; None if one of them has none, or there are no examples."""
        if self.champion is None or self.challenger is None or not len(self.labels):
            return None
        return self.champion, self.challenger

    @property
    def gap(self) -> str:
        """Return why the two cannot be compared on it."""
        if self.missing:
            return self.missing
        who = [name for name, one in (("champion", self.champion), ("challenger", self.challenger)) if one is None]
        return f"the {' and the '.join(who)} did not answer" if who else "it has no held-out examples"

    def column_of(self, score: Score) -> int | None:
        """Return the index of the class that a score is for; -1 if the task does not know it, None for all classes."""
        if score.class_name is None:
            return None
        return list(self.class_names).index(score.class_name) if score.class_name in self.class_names else -1

    def can_have(self, score: Score) -> bool:
        """Return whether its examples can have the score: those of a class need an example of it."""
        column = self.column_of(score)
        if column is not None:
            return bool((self.labels == column).any())
        return not score.is_ranked or len(np.unique(self.labels)) > 1


@dataclass(frozen=True)
class ModelEvidence:
    """Two models.

    Args:
        score: the score that a check means if it names none.
        tasks: every task that either model knows, those that were not evaluated too.
        costs: `kept_bytes` and `n_parameters`, as far as they are known.
    """

    score: Score
    tasks: tuple[ModelTask, ...]
    costs: Mapping[str, Cost] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_names([task.name for task in self.tasks])


@dataclass(frozen=True)
class RunTask:
    """What two runs scored on the held-out examples of a task.

    Args:
        name: the task, as the user knows it.
        is_new: whether the challenger learned it and the champion did not.
        champion: seed -> score after the last task, in [0, 1]; a seed without one is left out.
        challenger: the same of the challenger.
        champion_learned: seed -> score on the task right after it was learned.
        challenger_learned: the same of the challenger.
        can_have_score: False if its examples cannot have the score, since none is of the class.
        missing: why there is nothing to compare, for the reader.
    """

    name: str
    is_new: bool
    champion: Mapping[int, float]
    challenger: Mapping[int, float]
    champion_learned: Mapping[int, float] = field(default_factory=dict)
    challenger_learned: Mapping[int, float] = field(default_factory=dict)
    can_have_score: bool = True
    missing: str = ""

    def __post_init__(self) -> None:
        for values in (self.champion, self.challenger, self.champion_learned, self.challenger_learned):
            _check_scores(self.name, values.values())

    @property
    def seeds(self) -> frozenset[int]:
        """Return the seeds that both have."""
        return frozenset(self.champion) & frozenset(self.challenger)

    @property
    def seeds_learned(self) -> frozenset[int]:
        """Return the seeds of `seeds` on which both know the score right after learning."""
        return self.seeds & frozenset(self.champion_learned) & frozenset(self.challenger_learned)

    def difference(self, seed: int) -> float:
        """Return the challenger's score less the champion's."""
        return self.challenger[seed] - self.champion[seed]

    def transfer_difference(self, seed: int) -> float:
        """Return the challenger's change since learning less the champion's."""
        return self.difference(seed) - (self.challenger_learned[seed] - self.champion_learned[seed])


@dataclass(frozen=True)
class RunEvidence:
    """Two runs.

    Args:
        score: the score that a check means if it names none.
        tasks: every task of the runs, with that score.
        others: further scores -> the same tasks with that score.
        costs: `kept_bytes` and `n_parameters`: the largest over seeds, as far as they are known.
    """

    score: Score
    tasks: tuple[RunTask, ...]
    others: Mapping[str, tuple[RunTask, ...]] = field(default_factory=dict)
    costs: Mapping[str, Cost] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for tasks in (self.tasks, *self.others.values()):
            _check_names([task.name for task in tasks])

    def tasks_with(self, score: Score) -> tuple[RunTask, ...]:
        """Return the tasks with a score; none if it was not measured."""
        return self.tasks if score == self.score else tuple(self.others.get(str(score), ()))


Evidence = ModelEvidence | RunEvidence


def _check_names(names: Sequence[str]) -> None:
    if len(set(names)) < len(names):
        raise ValueError(f"evidence: expected different names of tasks, got {list(names)}")


def _check_scores(task: str, values: Iterable[float]) -> None:
    for value in values:
        if not (math.isfinite(value) and 0 <= value <= 1):
            raise ValueError(f"task '{task}': expected scores in [0, 1], got {value}; leave out what was not measured")
