"""Gradient episodic memory: no step opposes the gradient of any past task's memory.

Source: Lopez-Paz & Ranzato 2017, arXiv 1706.08840, Eqs. 8 to 11 and Algorithm 1.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from strategies.contract import Batch, Exclusive, Hyperparameters, Strategy, StreamSizes, TaskData
from strategies.lazy import nn, np, torch

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from strategies.learner import Learner

_BLOCK = 256
"""Columns per block that is summed in float32."""


class GemHyperparameters(Hyperparameters):
    """The memories, and the margin of the projection."""

    buffer_size: int = Field(500, ge=1, description="examples kept in all, an equal share for each task of the stream")
    memory_batch_size: int | None = Field(
        64, ge=1, description="examples drawn from each past task's memory a step; null takes all, as in the paper"
    )
    margin: float = Field(0.5, ge=0, description="γ, smallest weight of each past gradient in a projection")


@dataclass
class GemState:
    """The memories, one per past task, in order.

    Args:
        inputs: each (n, *S) float32.
        labels: output indices, each (n,) int64.
        tasks: the task of each memory.
    """

    inputs: list[Tensor] = field(default_factory=list)
    labels: list[Tensor] = field(default_factory=list)
    tasks: list[int] = field(default_factory=list)

    def remembered(self) -> tuple[Tensor, Tensor]:
        """Return output index and task of every remembered example, (n,) int64 each."""
        none = torch.empty(0, dtype=torch.int64)
        ids = [torch.full_like(labels, task) for labels, task in zip(self.labels, self.tasks, strict=True)]
        return torch.cat(self.labels or [none]), torch.cat(ids or [none])


class Gem(Strategy):
    """If a step's gradient opposes that of a past task's memory, use the nearest gradient that opposes none (Eq. 8).

    The margin is the γ that section 3 of the paper adds to the dual, 0.5 in the authors' runs. Differs: a memory is a
    uniform sample of its task (the authors keep its last examples); by default its gradient is that of a random batch,
    so steps stay cheap; the outputs that compete are those of the incremental type (the authors always know the task);
    no 10⁻³ is added to the dual's matrix.
    """

    name = "gem"
    summary = "projects each gradient that would raise the loss on a past task's memory"
    paper = "Lopez-Paz & Ranzato 2017, arXiv 1706.08840"
    hyperparameter_class = GemHyperparameters
    fixed_by_state: ClassVar[frozenset[str]] = frozenset({"buffer_size"})
    state_class = GemState
    owns = Exclusive.GRADIENT_DIRECTION
    knows_kept_bytes = True
    needs_whole_tasks = "it keeps a memory of each task, and may not raise the loss on any"

    def __init__(self, learner: Learner, hyperparameters: Any) -> None:
        super().__init__(learner, hyperparameters)
        self._rows: _GradientRows | None = None

    def bytes_to_keep(self, sizes: StreamSizes) -> int:
        """Return the bytes of each task's share, or of the whole task if that is smaller: inputs and label."""
        n = sum(min(self._share(task), n_own) for task, n_own in enumerate(sizes.n_examples))
        return n * (sizes.example_bytes + 8)

    def prepare(self, task: TaskData) -> None:
        """Let the next step allocate the gradients, since the trained parameters are known only then."""
        self._rows = None

    def adjust_gradients(self) -> None:
        """Project the gradient of all trained parameters; a missing gradient counts as zero."""
        n_past = len(self.state.tasks)
        if n_past == 0:
            return
        assert self.learner.optimizer is not None
        parameters = self.learner.optimizer.param_groups[0]["params"]
        if self._rows is None:
            self._rows = _GradientRows(parameters, n_past + 1)
        self._rows.fill(n_past, [p.grad for p in parameters])
        for row in range(n_past):
            loss = self.learner.cross_entropy(self._memory(row))
            self._rows.fill(row, torch.autograd.grad(loss, parameters, allow_unused=True))
        if project(self._rows.values, self.hyperparameters.margin):
            self._rows.write(n_past, parameters)

    def end_task(self, task: TaskData) -> None:
        """Keep a uniform sample of the task: buffer_size / T examples, rounded up for the first tasks if need be."""
        self._rows = None  # another part may train after this
        n = min(self._share(task.index), len(task))
        if n == 0:
            return
        rows = torch.randperm(len(task), generator=self.learner.generators["gem/memory"])[:n].to(self.learner.device)
        self.state.inputs.append(task.inputs[rows])
        self.state.labels.append(task.labels[rows])
        self.state.tasks.append(task.index)

    @property
    def plans_ahead(self) -> str:
        """Return that the memory is shared out among all tasks."""
        return "its memory is shared out among all tasks"

    def _share(self, task: int) -> int:
        share, rest = divmod(int(self.hyperparameters.buffer_size), self.learner.n_tasks)
        return share + (task < rest)

    def _memory(self, index: int) -> Batch:
        """Return a past task's examples for this step: a draw without replacement, or all."""
        inputs, labels, task = (values[index] for values in (self.state.inputs, self.state.labels, self.state.tasks))
        n = self.hyperparameters.memory_batch_size
        if n is None or n >= len(labels):
            return Batch(inputs, labels, task)
        rows = torch.randperm(len(labels), generator=self.learner.generators["gem"])[:n].to(labels.device)
        return Batch(inputs.index_select(0, rows), labels.index_select(0, rows), task)


class _GradientRows:
    """Gradients as rows of one matrix, which is allocated once and filled in every step.

    Args:
        parameters: the trained parameters.
        n_rows: number of gradients.
    """

    def __init__(self, parameters: list[nn.Parameter], n_rows: int) -> None:
        sizes = [p.numel() for p in parameters]
        self.values = torch.zeros(n_rows, sum(sizes), device=parameters[0].device)
        self._parts = [
            [part.view_as(p) for part, p in zip(row.split(sizes), parameters, strict=True)] for row in self.values
        ]
        self._reached = [[False] * len(parameters) for _ in range(n_rows)]

    def fill(self, row: int, gradients: tuple[Tensor | None, ...] | list[Tensor | None]) -> None:
        """Copy one gradient into its row; a missing part is zero."""
        found = [(part, g) for part, g in zip(self._parts[row], gradients, strict=True) if g is not None]
        if found:
            torch._foreach_copy_([part for part, _ in found], [g for _, g in found])
        for part, gradient in zip(self._parts[row], gradients, strict=True):
            if gradient is None:  # an earlier projection may have written here
                part.zero_()
        self._reached[row] = [gradient is not None for gradient in gradients]

    def write(self, row: int, parameters: list[nn.Parameter]) -> None:
        """Set the gradient of every parameter that has one in any row to its part of `row`."""
        for index, parameter in enumerate(parameters):
            if parameter.grad is not None:
                parameter.grad.copy_(self._parts[row][index])
            elif any(reached[index] for reached in self._reached):
                parameter.grad = self._parts[row][index].clone()


def project(gradients: Tensor, margin: float) -> bool:
    """Change the last row g to the nearest gradient that no other row opposes; return whether it changed.

    Args:
        gradients: the rows of G, one per past task, then g, (k + 1, P) float32.
        margin: γ ≥ 0.

    g̃ = g + Gᵀv, v being the solution of the dual (Eq. 11). g does not change if no product in Gg is negative. It does
    not change either if a product is not finite: training has diverged, and the learner reports that. If no solver
    succeeds, g becomes zero, which opposes nothing and skips the step.
    """
    past, gradient = gradients[:-1], gradients[-1]
    if not bool((past @ gradient < 0).any()):
        return False
    products = inner_products(gradients)
    if not np.isfinite(products).all():
        return False
    from strategies.parts.qp import dual_weights  # importing scipy takes half a second of each new worker

    weights = dual_weights(products[:-1, :-1], products[:-1, -1], margin)
    if weights is None:
        gradient.zero_()
    else:
        gradient.addmv_(past.T, torch.from_numpy(weights).to(gradient))
    return True


def inner_products(rows: Tensor) -> NDArray[np.float64]:
    """Return the inner products of all pairs of rows, (n, n), of `rows` (n, P) float32.

    Blocks of columns are summed in float32, and their sums in float64. One float32 product over all columns is wrong by
    1e-5 of the norms for 3e5 parameters, which is more than a constraint may be violated by.
    """
    n_blocks = rows.shape[1] // _BLOCK
    blocks = rows[:, : n_blocks * _BLOCK].view(len(rows), n_blocks, _BLOCK).transpose(0, 1)
    rest = rows[:, n_blocks * _BLOCK :]
    total = (blocks @ blocks.mT).double().sum(0) + (rest @ rest.T).double()
    return total.cpu().numpy()
