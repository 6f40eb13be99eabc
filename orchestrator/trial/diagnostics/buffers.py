"""What a buffer holds: how many examples of each task and class, and how fair that is."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from orchestrator.trial.diagnostics.fisher import Found

Names = tuple[Sequence[str], Sequence[str]]
"""The names of the tasks, and of the classes behind the outputs."""


def buffer_rows(labels: Tensor, tasks: Tensor, n_seen: int, n_outputs: int, names: Names) -> Found:
    """Yield the number of remembered examples, by task and by class, and the share of the rarest class.

    The fair share of a class is the size of the buffer divided by the classes seen so far; the rarest class in times of
    it is 1 if all are equal, and 0 if one is missing.

    Args:
        labels: output index of each remembered example, (n,) int64.
        tasks: its task, (n,) int64.
        n_seen: tasks learned so far.
        n_outputs: outputs of these tasks.
        names: of the tasks and of the classes behind the outputs.
    """
    n = len(labels)
    yield "buffer_examples", "", float(n)
    of_task = _by_name(torch.bincount(tasks.cpu(), minlength=n_seen).tolist(), names[0])
    of_class = _by_name(torch.bincount(labels.cpu(), minlength=n_outputs).tolist(), names[1])
    yield from (("buffer_of_task", name, float(count)) for name, count in of_task.items())
    yield from (("buffer_of_class", name, float(count)) for name, count in of_class.items())
    if n:
        yield "buffer_fairness", "", min(of_class.values()) / (n / len(of_class))


def _by_name(counts: Sequence[int], names: Sequence[str]) -> dict[str, int]:
    """Return name -> count; tasks that share a class have an output each for it, and a task's name may come again."""
    found: dict[str, int] = {}
    for count, name in zip(counts, names, strict=False):
        found[name] = found.get(name, 0) + count
    return found
