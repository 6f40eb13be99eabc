"""Training on everything seen so far: the upper bound of every comparison."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field

from strategies.contract import Hyperparameters, Strategy, StreamSizes, TaskData
from strategies.lazy import torch
from strategies.settings import Added


class JointHyperparameters(Hyperparameters):
    """When it trains."""

    trained: Annotated[Literal["after_each", "final"], Added()] = Field(
        "after_each", description="whether after each task, on all so far, or once, when the last task has come"
    )


@dataclass
class JointState:
    """The sizes of past tasks; their data are read again from the stream."""

    n_examples: list[int] = field(default_factory=list)
    bytes_per_example: int = 0


class Joint(Strategy):
    """At task k, train from scratch on the data of tasks 0 … k, for as many epochs as any other method.

    Its budget grows with the task: at task k it sees k + 1 times the examples of a naive run. With `trained: final` it
    stays untrained until the last task, which costs as much as a naive run; only the last row of R says something.
    """

    name = "joint"
    summary = "trains from scratch on all tasks so far, with the same epochs; the ceiling"
    hyperparameter_class = JointHyperparameters
    state_class = JointState
    is_reference = True
    starts_anew = True
    knows_kept_bytes = True
    alone = "it forgets nothing, since it trains on all tasks again"

    def begin_task(self, task: TaskData) -> None:
        """Start again from the first weights."""
        self.learner.start_from_scratch()
        self.state.n_examples.append(len(task))
        self.state.bytes_per_example = task.inputs[0].nbytes + task.labels[0].nbytes

    def training_data(self, task: TaskData) -> TaskData:
        """Return the examples of all tasks up to this one, each with its own task; none before the final one."""
        if self.hyperparameters.trained == "final" and task.index < self.learner.n_tasks - 1:
            return TaskData(task.index, task.inputs[:0], task.labels[:0], task.index)
        tasks = [self.learner.past_task(index) for index in range(task.index)] + [task]
        ids = [data.ids for data in tasks]
        return TaskData(
            task.index,
            torch.cat([data.inputs for data in tasks]),
            torch.cat([data.labels for data in tasks]),
            torch.cat(ids) if len(tasks) > 1 else task.task_ids,
        )

    def bytes_to_keep(self, sizes: StreamSizes) -> int:
        """Return the bytes of all tasks but the last: inputs and label."""
        return sum(sizes.n_examples[:-1]) * (sizes.example_bytes + 8)

    @property
    def plans_ahead(self) -> str:
        """Return that it waits for the last task, if it does."""
        return "it trains once, on all of them" if self.hyperparameters.trained == "final" else ""

    def kept_bytes(self) -> int:
        """Return the bytes of the training data of all past tasks, which must stay available."""
        return int(sum(self.state.n_examples[:-1]) * self.state.bytes_per_example)
