"""Measuring R: how many held-out examples of each task the learner labels correctly."""

from __future__ import annotations

import torch

from orchestrator.streams.stream import Stream
from strategies import IncrementalType, Learner, TaskData

_ROWS_AT_ONCE = 1024
_CACHE_BYTES = 256 * 2**20


class Evaluator:
    """The held-out examples of a stream, and what a learner makes of them.

    The examples stay in memory up to `_CACHE_BYTES`; what does not fit is made again for each measurement.

    Args:
        stream: the trial's stream.
        learner: what is measured.
    """

    def __init__(self, stream: Stream, learner: Learner) -> None:
        self._stream = stream
        self._learner = learner
        self._cache: dict[int, TaskData] = {}
        self._cached_bytes = 0

    def n_examples(self) -> list[int]:
        """Return the number of held-out examples of each task (T,).

        Raises:
            ValueError: if a task has none.
        """
        counts = [len(self._data(task)) for task in range(self._stream.n_tasks)]
        if 0 in counts:
            raise ValueError(f"data: expected held-out examples of every task, got {counts}; raise validation_share")
        return counts

    def n_correct(self, task: int) -> int:
        """Return how many held-out examples of `task` are labelled correctly now."""
        data, learner = self._data(task), self._learner
        learner.network.eval()
        first, _ = self._stream.layout.inference_range(task, max(learner.n_seen, 1))
        correct = torch.zeros((), dtype=torch.int64, device=learner.device)
        for batch in data.batches(_ROWS_AT_ONCE):
            predicted = learner.logits(batch.inputs, task).argmax(1) + first
            correct += (predicted == batch.labels).sum()
        return int(correct)

    def chance_accuracy(self, incremental_type: IncrementalType) -> float:
        """Return the mean over tasks of the accuracy of the best constant answer, in [0, 1].

        In task-incremental learning, which knows the task, each task has a constant answer of its own.
        """
        n_outputs = self._stream.layout.n_outputs
        labels = [self._data(task).labels for task in range(self._stream.n_tasks)]
        shares = torch.stack([torch.bincount(of, minlength=n_outputs) / len(of) for of in labels])
        if incremental_type == "task":
            return float(shares.max(1).values.mean())
        return float(shares.mean(0).max())

    def _data(self, task: int) -> TaskData:
        if task not in self._cache:
            data = self._stream.evaluation(task)
            n_bytes = data.inputs.nbytes
            if self._cached_bytes + n_bytes > _CACHE_BYTES:
                return data
            self._cache[task] = data
            self._cached_bytes += n_bytes
        return self._cache[task]
