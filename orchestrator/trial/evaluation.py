"""Measuring R: what the learner answers to the held-out examples of each task."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from orchestrator.core.scores import Measurement, ranked_scores
from orchestrator.streams.stream import Stream
from orchestrator.trial.packed import pack
from strategies import IncrementalType, Learner, TaskData

_ROWS_AT_ONCE = 1024
_CACHE_BYTES = 256 * 2**20


class Evaluator:
    """The held-out examples of a stream, and what a learner makes of them.

    The examples stay in memory up to `_CACHE_BYTES`; what does not fit is made again for each measurement.

    Args:
        stream: the trial's stream.
        learner: what is measured.
        ranked: kinds of the scores to measure that rank examples.
    """

    def __init__(self, stream: Stream, learner: Learner, ranked: Sequence[str] = ()) -> None:
        self._stream = stream
        self._learner = learner
        self._ranked = tuple(ranked)
        self._cache: dict[int, TaskData] = {}
        self._cached_bytes = 0

    def n_examples(self) -> list[int]:
        """Return the number of held-out examples of each task (T,).

        Raises:
            ValueError: if a task has none.
        """
        counts = [len(self.data(task)) for task in range(self._stream.n_tasks)]
        if 0 in counts:
            raise ValueError(f"data: expected held-out examples of every task, got {counts}; raise validation_share")
        return counts

    def measure(self, task: int, keep_each: bool = False) -> Measurement:
        """Return what the learner answers to the held-out examples of `task` now, by class.

        The classes are those of the outputs that compete for the task, in their order (`Stream.class_names`).

        Args:
            task: the task.
            keep_each: whether to keep which examples were answered rightly.
        """
        data, learner = self.data(task), self._learner
        learner.network.eval()
        first, stop = self._stream.layout.inference_range(task, max(learner.n_seen, 1))
        logits = torch.cat([learner.logits(batch.inputs, task) for batch in data.batches(_ROWS_AT_ONCE)])
        labels = data.labels - first if first else data.labels
        # Of two, a comparison is four times as fast as the same answer by argmax.
        predicted = (logits[:, 1] > logits[:, 0]).long() if logits.shape[1] == 2 else logits.argmax(1)
        ranked = self._rank(task, logits, labels) if self._ranked else {}
        n = stop - first
        table = torch.bincount(labels * n + predicted, minlength=n * n).view(n, n)  # one pass for all three counts
        true, answered, right = (of.tolist() for of in (table.sum(1), table.sum(0), table.diagonal()))
        each = pack((predicted == labels).cpu().numpy()) if keep_each else b""
        return Measurement(true, answered, right, ranked, each)

    def _rank(self, task: int, logits: Tensor, labels: Tensor) -> dict[str, float | None]:
        """Return the scores that rank examples, from logits (N, C) and the column of each true class (N,)."""
        positive, names = self._stream.positive_class, self._stream.class_names[task]
        if positive is not None and logits.shape[1] == 2:
            column = names.index(positive)
            odds = {column: (logits[:, column] - logits[:, 1 - column]).cpu().numpy()}
        else:
            odds = dict(enumerate(log_odds(logits).T.contiguous().cpu().numpy()))
        return ranked_scores(odds, labels.cpu().numpy(), self._ranked)

    def chance_accuracy(self, incremental_type: IncrementalType) -> float:
        """Return the mean over tasks of the accuracy of the best constant answer, in [0, 1].

        In task-incremental learning, which knows the task, each task has a constant answer of its own.
        """
        n_outputs = self._stream.layout.n_outputs
        labels = [self.data(task).labels for task in range(self._stream.n_tasks)]
        shares = torch.stack([torch.bincount(of, minlength=n_outputs) / len(of) for of in labels])
        if incremental_type == "task":
            return float(shares.max(1).values.mean())
        return float(shares.mean(0).max())

    def data(self, task: int) -> TaskData:
        """Return the held-out examples of a task."""
        if task not in self._cache:
            data = self._stream.evaluation(task)
            n_bytes = data.inputs.nbytes
            if self._cached_bytes + n_bytes > _CACHE_BYTES:
                return data
            self._cache[task] = data
            self._cached_bytes += n_bytes
        return self._cache[task]


def log_odds(logits: Tensor) -> Tensor:
    """Return for each class its logit less the log of the others' summed exponentials, (N, C) float64."""
    wide = logits.double()
    columns = [wide[:, c] - torch.cat([wide[:, :c], wide[:, c + 1 :]], 1).logsumexp(1) for c in range(wide.shape[1])]
    return torch.stack(columns, 1)
