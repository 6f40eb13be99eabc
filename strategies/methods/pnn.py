"""Progressive neural networks: every task adds a column that reads the frozen columns before it.

Source: Rusu et al. 2016, arXiv 1606.04671, section 2, Eq. 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from strategies.contract import Strategy, StreamSizes, TaskData
from strategies.parts.layers import train_only

if TYPE_CHECKING:
    from torch import Tensor

    from strategies.layout import IncrementalType
    from strategies.learner import Learner

LONG_RUN = 20
"""Number of tasks for which the size of the columns is foretold."""


@dataclass
class PnnState:
    """The number of columns; their parameters belong to the network.

    Args:
        n_columns: one per task that began, and at least 1.
    """

    n_columns: int = 1


class Pnn(Strategy):
    """Add a column per task, which learns beside the frozen columns of earlier tasks and reads their hidden layers.

    Inference on task k uses column k and those before it, so its logits never change again. Differs: laterals are
    linear, as in Eq. 1, without the adapters of Eq. 2, and do not reach heads: the output of task k reads column k.
    """

    name = "pnn"
    summary = "adds a column of layers for each task, which reads the frozen ones before it; never forgets"
    paper = "Rusu et al. 2016, arXiv 1606.04671"
    state_class = PnnState
    knows_kept_bytes = True
    never_forgets = True
    alone = "it adds a column of parameters for each task, and no other part may move those before"
    needs_whole_tasks = "each task trains a column of its own on all examples that come with it"
    unsupported: ClassVar[Mapping[IncrementalType, str]] = {
        "domain": "it must know the task at inference to choose its column, and a single head would change under it",
        "class": "it must know the task at inference to choose its column",
    }
    unsupported_models: ClassVar[Mapping[str, str]] = {
        "resnet18": "its columns are plain chains of layers, without shortcuts or norms"
    }

    def __init__(self, learner: Learner, hyperparameters: Any) -> None:
        super().__init__(learner, hyperparameters)
        from strategies.parts.columns import Progressive

        self._columns = Progressive(learner.network.backbone, learner.generators.fresh, learner.network.init)
        learner.network.backbone = self._columns

    def bytes_to_keep(self, sizes: StreamSizes) -> int:
        """Return 0: the columns are part of the network."""
        return 0

    def begin_task(self, task: TaskData) -> None:
        """Add the task's column; the first task uses the network as built."""
        self._grow_to(task.index + 1)

    def prepare(self, task: TaskData) -> None:
        """Let steps change only the task's column and head."""
        self._columns.train_column(task.index)
        train_only(self.learner.network.heads, task.index)

    def logits(self, inputs: Tensor, task: int) -> Tensor | None:
        """Return the logits (B, C) of `task` from its own column."""
        columns = self._columns
        in_place, columns.active = columns.active, min(task, self.state.n_columns - 1)
        try:
            return self.learner.network(inputs, task, max(self.learner.n_seen, 1))  # type: ignore[no-any-return]
        finally:
            columns.active = in_place

    def report(self) -> dict[str, Any]:
        """Return the capacity report: the number of parameters of each column with its laterals, without its head."""
        sizes = [sum(p.numel() for p in column.parameters()) for column in self._columns.columns]
        return {"n_parameters": {str(task): size for task, size in enumerate(sizes)}}

    def diagnose(self) -> dict[tuple[str, str], float]:
        """Return the bytes of all columns, float32, now and after `LONG_RUN` tasks, without heads.

        Each column has the layers of the first and, for each column before it, a lateral into every layer but the
        first: n columns have n c + u n (n - 1) / 2 parameters, c of a column and u of its laterals from another.
        """
        first = self._columns.columns[0]
        own = sum(p.numel() for p in first.parameters())
        laterals = sum(layer.weight.numel() for layer in list(first.layers)[1:])  # type: ignore[arg-type]

        def n_bytes(n: int) -> float:
            return 4.0 * (n * own + laterals * n * (n - 1) // 2)

        return {("column_bytes", ""): n_bytes(self.state.n_columns), ("column_bytes_long_run", ""): n_bytes(LONG_RUN)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Replace the state, and add its columns to the network."""
        n_columns = state["n_columns"]
        self._grow_to(n_columns)
        super().load_state_dict(state)

    def _grow_to(self, n_columns: int) -> None:
        while len(self._columns.columns) < n_columns:
            self._columns.grow()
        self.state.n_columns = n_columns
