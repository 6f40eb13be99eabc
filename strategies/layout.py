"""Which outputs belong to which task, for each incremental type.

An *output* is a row of a head. Tasks own ranges of outputs: in `task` and `class` each task has its own range, in
`domain` all tasks share one. Labels are output indices everywhere, so that losses, buffers and predictions agree.

The three types (van de Ven & Tolias 2019, arXiv 1904.07734) differ only in which outputs compete:

- `task`: the outputs of the example's own task;
- `domain`: all outputs;
- `class`: the outputs of every task seen so far.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

IncrementalType = Literal["task", "domain", "class"]
ActiveOutputs = Literal["seen", "all", "current"]


@dataclass(frozen=True)
class OutputLayout:
    """Which outputs belong to which task.

    Args:
        incremental_type: what is known at inference.
        ranges: for each task its first output and one past its last; equal for all tasks in `domain`.
        is_masked: whether only the outputs of the example's task compete at inference, whatever does in training.
    """

    incremental_type: IncrementalType
    ranges: tuple[tuple[int, int], ...]
    is_masked: bool = False

    @property
    def n_tasks(self) -> int:
        return len(self.ranges)

    @property
    def n_outputs(self) -> int:
        """Return the number of outputs after the last task."""
        return max(stop for _, stop in self.ranges)

    @property
    def n_heads(self) -> int:
        """Return the number of heads after the last task."""
        return 1 if self.incremental_type == "domain" else self.n_tasks

    def head_of(self, task: int) -> int:
        """Return the index of the head with the outputs of `task`."""
        return 0 if self.incremental_type == "domain" else task

    def inference_range(self, task: int, n_seen: int) -> tuple[int, int]:
        """Return the outputs that compete when an example of `task` is classified after `n_seen` tasks."""
        if self.incremental_type == "class" and not self.is_masked:
            return 0, self.ranges[n_seen - 1][1]
        return self.ranges[task]
