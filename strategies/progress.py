"""How far a task has got, and the pass of methods that train no network."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from strategies.contract import TaskData, TrialDivergedError

if TYPE_CHECKING:
    from strategies.learner import Learner


@dataclass
class Progress:
    """How far the training of a task has got.

    Args:
        n_steps: optimizer steps taken, or portions absorbed.
        n_examples: examples of the task given in them, each as often as it was given.
        is_whole: whether no step is left.
        loss: sum of the losses up to the last check for finite values.
        order: position of the generator of batches before the present epoch was shuffled, uint8.
    """

    n_steps: int = 0
    n_examples: int = 0
    is_whole: bool = False
    loss: float = 0.0
    order: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.uint8))

    def count(self, n_examples: int, is_last: bool) -> None:
        """Count a step that took so many examples of the task."""
        self.n_steps += 1
        self.n_examples += n_examples
        self.is_whole = is_last


def finite(value: Tensor, what: str) -> float:
    """Return `value` as a number, or raise if it is not finite."""
    number = value.item()
    if not math.isfinite(number):
        raise TrialDivergedError(f"{what} is {number}; lower the learning rate or the method's strength")
    return number


@torch.no_grad()
def take_one_pass(
    learner: Learner, data: TaskData, progress: Progress, between_steps: Callable[[], None] | None
) -> None:
    """Give the examples of a task to the strategies once, in order, `learner.rows_at_once` at a time.

    For methods that train no network. It goes on from `progress`, of which a portion is a step.
    """
    size = learner.rows_at_once
    n_portions = math.ceil(len(data) / size)
    for number in learner.steps(progress.n_steps, n_portions):
        stop = min((number + 1) * size, len(data))
        batch = data.take(torch.arange(number * size, stop, device=data.labels.device))
        for strategy in learner.strategies:
            strategy.absorb(batch)
        progress.count(len(batch.labels), number + 1 == n_portions)
        if between_steps is not None:
            between_steps()
