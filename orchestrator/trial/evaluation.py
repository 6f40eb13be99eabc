"""Measuring R: what the learner answers to the held-out examples of each task."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from orchestrator.core.scores import Measurement, ranked_scores
from orchestrator.streams.stream import Stream
from orchestrator.trial.diagnostics.plasticity import evaluated
from orchestrator.trial.packed import pack
from orchestrator.trial.result import counts_of, measurements, ranked_of
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


class WithinTasks:
    """What is measured while tasks are trained: the tasks seen so far, after every so many new examples.

    At the end of a task R is measured anyway, so after its last step nothing is. Methods that begin each task with the
    untrained network are measured at the ends alone: until it is trained, the network of before would answer. Nothing
    else of the trial changes, but that methods which train no network absorb portions of at most `every` examples.

    Args:
        evaluator: which has the held-out examples.
        learner: what is measured.
        every: new examples between two evaluations, each counted as often as it is given. What a method adds to the
            training data of a task, as iCaRL its exemplars, counts as new.

    Attributes:
        seconds: wall time that it took so far in this process.
    """

    def __init__(self, evaluator: Evaluator, learner: Learner, every: int) -> None:
        self._evaluator, self._learner, self._every = evaluator, learner, every
        self._is_due = is_evaluated_within(learner)
        learner.rows_at_once = min(learner.rows_at_once, every)
        self.seconds = 0.0
        self._moments: list[list[int]] = []
        self._cells: list[list[Measurement | None]] = []
        self._n_given: list[int] = []
        self._n_in_task = 0

    def after_step(self, task: int) -> None:
        """Measure what has been seen if it is time; called between two steps of a task."""
        progress = self._learner.progress
        assert progress is not None
        before, self._n_in_task = self._n_in_task, progress.n_examples
        is_time = before // self._every < self._n_in_task // self._every
        if progress.is_whole or not (is_time and self._is_due):
            return
        clock = time.perf_counter()
        with evaluated(self._learner.network):
            self._cells.append([self._evaluator.measure(seen) for seen in range(task + 1)])
        self._moments.append([task, self._n_before + self._n_in_task])
        self.seconds += time.perf_counter() - clock

    def end_task(self) -> None:
        """Count the examples of a task that has ended."""
        self._n_given.append(self._n_before + self._n_in_task)
        self._n_in_task = 0

    @property
    def _n_before(self) -> int:
        return self._n_given[-1] if self._n_given else 0

    def measured(self) -> dict[str, Any]:
        """Return what was measured, as fields of the result, which `load` reads."""
        return {
            "moments": self._moments,
            "measured_within": counts_of(self._cells),
            "ranked_within": ranked_of(self._cells),
            "n_given": self._n_given,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Continue from what `measured` returned; within a task, from the state of the learner too."""
        self._moments, self._n_given = state["moments"], state["n_given"]
        self._cells = measurements(state["measured_within"], state["ranked_within"])
        self._n_in_task = self._learner.progress.n_examples if self._learner.progress is not None else 0


def is_evaluated_within(learner: Learner) -> bool:
    """Return whether a trial with this learner measures anything within tasks."""
    return learner.settings.evaluate_every is not None and not any(s.starts_anew for s in learner.strategies)


def log_odds(logits: Tensor) -> Tensor:
    """Return for each class its logit less the log of the others' summed exponentials, (N, C) float64."""
    wide = logits.double()
    columns = [wide[:, c] - torch.cat([wide[:, :c], wide[:, c + 1 :]], 1).logsumexp(1) for c in range(wide.shape[1])]
    return torch.stack(columns, 1)
