"""Data sets as arrays, their validation split, and the arrays that a trial of each phase gets."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.streams.facts import DatasetFacts, Phase, ReadReport
from strategies import derive_seed

if TYPE_CHECKING:
    from orchestrator.streams.sources.encoding import FittedColumn

Inputs = NDArray[np.uint8] | NDArray[np.float32]
Statistic = float | NDArray[np.float32]


@dataclass(frozen=True)
class Start:
    """What the trials of a stream begin from: a model that has learned its first tasks, of which no data are left.

    Args:
        n_learned: how many tasks it has learned.
        planned_tasks: how many tasks it was trained for.
        states: of each of its networks, what `Learner.state_dict` returned.
        inputs: held-out examples of these tasks that `search` and `finals` see, (N, …), as in `PhaseData`. They are
            others than `confirm` sees, so that no suggestion is chosen by what it is judged by.
        labels: (N,) int64.
        tasks: (N,) int64.
        positive_class: the class that average precision is for, if there are two.
        made_of: what a trial must share with it: `method`, `incremental_type`, `model`, `hyperparameters`; plain JSON.
        identity: hash of its networks and what they keep.
    """

    n_learned: int
    planned_tasks: int
    states: tuple[Mapping[str, Any], ...]
    inputs: Inputs
    labels: NDArray[np.int64]
    tasks: NDArray[np.int64]
    positive_class: str | None
    made_of: Mapping[str, Any]
    identity: str


@dataclass(frozen=True)
class PhaseData:
    """The arrays of one phase. A trial gets no others.

    Args:
        train_inputs: grey images (N, H, W) uint8, colour images (N, 3, H, W) uint8, or a table's rows (N, F) float32.
        train_labels: classes, (N,) int64.
        evaluation_inputs: (M, …), of the same form; the test split in `confirm`, else a validation split.
        evaluation_labels: (M,) int64.
        facts: what is known of the data set besides its arrays.
        mean: mean of all training inputs divided by the largest pixel value, so the same in both phases: one number
            for grey images, (3, 1, 1) float32 for colour images, (F,) float32 for a table, 0 for one-hot features.
        std: their standard deviation, of the same form; 1 if nothing varies, and for one-hot features.
        train_tasks: task of each training example, (N,) int64; None unless the data come cut into tasks.
        evaluation_tasks: (M,) int64, of the same form.
        start: the model that trials begin from; None for an untrained one.
    """

    train_inputs: Inputs
    train_labels: NDArray[np.int64]
    evaluation_inputs: Inputs
    evaluation_labels: NDArray[np.int64]
    facts: DatasetFacts
    mean: Statistic
    std: Statistic
    train_tasks: NDArray[np.int64] | None = None
    evaluation_tasks: NDArray[np.int64] | None = None
    start: Start | None = None


@dataclass(frozen=True)
class TrainingData:
    """What the phases `search` and `finals` may see of a data set: all of it but the test examples.

    Args:
        inputs: training inputs (N, …), as in `PhaseData`.
        labels: (N,) int64.
        facts: what is known of the data set besides its arrays.
        mean: as in `PhaseData`.
        std: as in `PhaseData`.
        tasks: task of each example, (N,) int64; None unless the data come cut into tasks.
        start: as in `PhaseData`.
    """

    inputs: Inputs
    labels: NDArray[np.int64]
    facts: DatasetFacts
    mean: Statistic
    std: Statistic
    tasks: NDArray[np.int64] | None = None
    start: Start | None = None

    def held_out(self, share: float, seed: int | None = None) -> NDArray[np.bool_]:
        """Return which examples are held out for validation, (N,) bool; as many of each class for every seed.

        Args:
            share: of the examples of each class, or of each class in a task, in [0, 1).
            seed: which split; None for the one that all trials may share.
        """
        number = 0 if seed is None else derive_seed(seed, "validation")
        return held_out_rows(strata(self.labels, self.tasks), share, number)

    def split(self, share: float, seed: int | None = None) -> PhaseData:
        """Return the arrays of a trial that is evaluated on the held-out examples and trained on the others."""
        out = self.held_out(share, seed)
        inputs, labels, start = self.inputs[out], self.labels[out], self.start
        train_tasks, tasks = (None, None) if self.tasks is None else (self.tasks[~out], self.tasks[out])
        if start is not None and tasks is not None:
            inputs, labels = np.concatenate([start.inputs, inputs]), np.concatenate([start.labels, labels])
            tasks = np.concatenate([start.tasks, tasks])
        return PhaseData(
            self.inputs[~out], self.labels[~out], inputs, labels, self.facts, self.mean, self.std, train_tasks, tasks,
            start,
        )  # fmt: skip


@dataclass(frozen=True)
class Dataset:
    """A whole data set. It stays with the driver: a trial gets one phase of it.

    Args:
        name: name of the built-in data set, or of the stream of a user's own data.
        train_inputs: (N, …), as in `PhaseData`.
        train_labels: (N,) int64.
        test_inputs: (M, …), of the same form.
        test_labels: (M,) int64.
        facts: what is known of it besides its arrays.
        train_tasks: task of each training example, (N,) int64; None unless the data come cut into tasks.
        test_tasks: (M,) int64, of the same form.
        notes: what a user should know of how it was read, a sentence each; no part of the fingerprint.
        report: what was read of a user's own table; no part of the fingerprint.
        columns: how each column of a table became features; no part of the fingerprint.
        first_task_decides: whether statistics are those of the first task's training examples.
        start: the model that trials begin from, whose held-out examples the test examples include; its inputs are as
            a network takes them.
        identity: what its fingerprint is made of in place of its arrays: they are features of a frozen network, whose
            last bits depend on the machine.
    """

    name: str
    train_inputs: Inputs
    train_labels: NDArray[np.int64]
    test_inputs: Inputs
    test_labels: NDArray[np.int64]
    facts: DatasetFacts
    train_tasks: NDArray[np.int64] | None = None
    test_tasks: NDArray[np.int64] | None = None
    notes: tuple[str, ...] = ()
    report: ReadReport | None = None
    columns: tuple[FittedColumn, ...] = ()
    first_task_decides: bool = False
    start: Start | None = None
    identity: str = ""

    def fingerprint(self) -> str:
        """Return a hash of every array, or of what they were computed from; 16 hexadecimal digits."""
        if self.identity:
            return self.identity
        digest = hashlib.sha256()
        arrays = (self.train_inputs, self.train_labels, self.test_inputs, self.test_labels)
        held_out = (self.start.inputs, self.start.labels, self.start.tasks) if self.start is not None else ()
        for array in (*arrays, self.train_tasks, self.test_tasks, *held_out):
            if array is not None:
                digest.update(str((array.shape, array.dtype.str)).encode())
                digest.update(np.ascontiguousarray(array).data)
        if self.start is not None:
            digest.update(self.start.identity.encode())
        return digest.hexdigest()[:16]

    def phase(self, phase: Phase, validation_share: float, validation_seed: int | None = None) -> PhaseData:
        """Return the arrays of `phase`.

        `search` and `finals` hold out a validation split of the training examples, stratified by class and task, and
        are evaluated on it. `confirm` trains on all training examples and is evaluated on the test split.

        Args:
            phase: of the trial.
            validation_share: share of the training examples that is held out, in (0, 1).
            validation_seed: which split; None for the one that is held out where all trials share it.
        """
        if phase != "confirm":
            return self.training().split(validation_share, validation_seed)
        return PhaseData(
            self.train_inputs, self.train_labels, self.test_inputs, self.test_labels,
            self.facts, *self._statistics(), self.train_tasks, self.test_tasks, self.start,
        )  # fmt: skip

    def training(self) -> TrainingData:
        """Return what trials may see that are not evaluated on the test split."""
        statistics = self._statistics()
        return TrainingData(self.train_inputs, self.train_labels, self.facts, *statistics, self.train_tasks, self.start)

    def validation_rows(self, share: float) -> NDArray[np.bool_]:
        """Return which training rows a validation split holds out, (N,) bool; each split has as many of a class."""
        return held_out_rows(strata(self.train_labels, self.train_tasks), share)

    def _statistics(self) -> tuple[Statistic, Statistic]:
        """Return mean and deviation of the training inputs, scaled to [0, 1]; 0 and 1 for what a model takes."""
        if self.start is not None:
            return 0.0, 1.0
        inputs, maximum = self.train_inputs, np.float32(self.facts.maximum)
        if self.first_task_decides and self.train_tasks is not None:
            inputs = inputs[self.train_tasks == 0]
        if inputs.ndim == 3:
            pixels = inputs / maximum
            return float(pixels.mean()), float(pixels.std()) or 1.0
        if inputs.ndim == 4:
            channels = [inputs[:, channel] / maximum for channel in range(inputs.shape[1])]
            means, stds = ([getattr(c, name)(dtype=np.float64) for c in channels] for name in ("mean", "std"))
            return _per_channel(means), _per_channel([std if std > 1e-6 else 1 for std in stds])
        is_number = np.arange(inputs.shape[1]) < self.facts.n_numbers
        mean, std = inputs.mean(axis=0, dtype=np.float64), inputs.std(axis=0, dtype=np.float64)
        scaled = is_number & (std > 0)
        return np.where(is_number, mean, 0).astype(np.float32), np.where(scaled, std, 1).astype(np.float32)


def _per_channel(values: list[Any]) -> NDArray[np.float32]:
    return np.array(values, dtype=np.float32)[:, None, None]


def strata(labels: NDArray[np.int64], tasks: NDArray[np.int64] | None) -> NDArray[np.int64]:
    """Return a number for each example that stands for its task and class, (N,) int64."""
    return labels if tasks is None or not len(labels) else tasks * (labels.max() + 1) + labels


def held_out_rows(
    kinds: NDArray[np.int64], share: float, seed: int = 0, before: Sequence[int] = ()
) -> NDArray[np.bool_]:
    """Return which rows are held out, (N,) bool: round(share · n) of the n rows of each kind.

    At least 1 row of a kind is held out if share > 0, but never all of them.

    Args:
        kinds: the class of each row, or its task and class, (N,) int64.
        share: in [0, 1).
        seed: which rows of a kind, 0 or more.
        before: numbers of rows of kinds that come before and are not here, so that these rows are held out as if all
            were one table.
    """
    generator = np.random.default_rng(seed)
    for n_earlier in before:
        generator.permutation(n_earlier)
    chosen = np.zeros(len(kinds), dtype=bool)
    if not len(kinds):
        return chosen
    if kinds.min() >= 0 and kinds.max() <= np.iinfo(np.uint16).max:
        kinds = kinds.astype(np.uint16)  # NumPy sorts these by radix
    order = np.argsort(kinds, kind="stable")
    starts = np.flatnonzero(np.diff(kinds[order])) + 1
    for members in np.split(order, starts):
        rows = generator.permutation(members)
        n_rows = max(round(share * len(rows)), 1 if share > 0 else 0)
        chosen[rows[: min(n_rows, len(rows) - 1)]] = True
    return chosen
