"""Evidence from counts, for tests."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from orchestrator.core.scores import ACCURACY, Score
from orchestrator.gating.evidence import Answers, Cost, ModelEvidence, ModelTask


def task(
    name: str,
    gains: int,
    losses: int,
    n: int,
    is_new: bool = False,
    learned: tuple[float, float] | None = (0.9, 0.9),
) -> ModelTask:
    """Return a task of one class, on which the challenger gains and loses so many of n examples.

    Args:
        name: of the task.
        gains: examples that only the challenger has right.
        losses: examples that only the champion has right.
        n: examples.
        is_new: whether only the challenger learned it.
        learned: accuracy of champion and challenger right after learning.
    """
    champion, challenger = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64)
    champion[:gains] = 1
    challenger[gains : gains + losses] = 1
    first, second = ({"accuracy": value} for value in learned) if learned else ({}, {})
    labels = np.zeros(n, dtype=np.int64)
    return ModelTask(
        name, is_new, labels, ("a", "b"), Answers(champion, learned=first), Answers(challenger, learned=second)
    )


def models(*tasks: ModelTask, score: Score = ACCURACY, costs: Mapping[str, Cost] | None = None) -> ModelEvidence:
    """Return the evidence of two models."""
    return ModelEvidence(score, tasks, costs or {})
