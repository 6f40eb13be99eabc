"""GDumb: keep a balanced sample, and train on nothing else.

Source: Prabhu et al. 2020, "GDumb: A Simple Approach that Questions Our Progress in Continual Learning", ECCV 2020,
algorithm 1 and section 3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from strategies.contract import Hyperparameters, Strategy, StreamSizes, TaskData
from strategies.parts.buffers import BufferState, buffer_bytes, offer_class_balanced

if TYPE_CHECKING:
    from strategies.learner import Learner


class GdumbHyperparameters(Hyperparameters):
    """The buffer, and how long it is trained on."""

    buffer_size: int = Field(500, ge=1, description="examples kept, as many of each class")
    passes: int = Field(
        64,
        ge=1,
        le=100_000,
        description="passes over the buffer after each task, in place of training.epochs; replaced by iterations",
    )


class Gdumb(Strategy):
    """Offer each task's examples to a balanced buffer, and train an untrained network on the buffer alone.

    Whatever a method learns from the stream beyond its buffer, it learns beyond this one. Its accuracy says how much of
    the problem the buffer solves. With `training.iterations`, each task takes so many steps instead of `passes`.

    Differs: it is trained after every task, where the paper trains when asked. The learning rate is constant, and there
    is no augmentation; the paper has a cosine schedule with restarts, random crops, CutMix but on MNIST, and networks
    with BatchNorm. Within a class the buffer keeps a uniform sample of the examples, where the paper keeps
    those that came first; the numbers per class are those of its greedy sampler.
    """

    name = "gdumb"
    summary = "trains from scratch after each task, on a balanced buffer alone"
    paper = "Prabhu et al. 2020, GDumb (ECCV)"
    hyperparameter_class = GdumbHyperparameters
    state_class = BufferState
    knows_kept_bytes = True
    starts_anew = True
    epochs_as = "passes"
    fixed_by_state: ClassVar[frozenset[str]] = frozenset({"buffer_size"})
    alone = "it trains on its buffer alone, from an untrained network"

    def __init__(self, learner: Learner, hyperparameters: Hyperparameters) -> None:
        super().__init__(learner, hyperparameters)
        self.epochs = self.hyperparameters.passes

    def bytes_to_keep(self, sizes: StreamSizes) -> int:
        """Return the bytes of a full buffer, or of all examples if there are fewer."""
        n = min(self.hyperparameters.buffer_size, sizes.n_in_all)
        return buffer_bytes(n, sizes.example_bytes, has_priorities=True)

    def begin_task(self, task: TaskData) -> None:
        """Offer each example of the task to the buffer once, and start again from the first weights."""
        offer_class_balanced(self.state, task, self.hyperparameters.buffer_size, self.learner.generators["buffer"])
        self.learner.start_from_scratch()

    def training_data(self, task: TaskData) -> TaskData:
        """Return the buffer, each example with its own task."""
        state = self.state
        return TaskData(task.index, state.inputs, state.labels, state.task_ids)
