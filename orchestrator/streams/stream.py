"""A stream: a data set cut into an ordered list of tasks, as tensors."""

from __future__ import annotations

import hashlib
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from orchestrator.streams.blurry import blurred
from orchestrator.streams.datasets import Inputs, PhaseData, Statistic
from orchestrator.streams.facts import DatasetFacts
from orchestrator.streams.naming import task_names
from orchestrator.streams.settings import Family, StreamSettings, family_of, number_of_tasks
from orchestrator.streams.transforms import Change, Noise, Part, Permutation, Rotation, change_of, rotate
from strategies import IncrementalType, OutputLayout, StreamSizes, TaskData
from strategies.seeds import derive_seed

_ROWS_AT_ONCE = 8192


class Stream:
    """The tasks of one trial, each made on request.

    Args:
        name: the stream, such as `split-mnist`.
        settings: how it is cut.
        incremental_type: decides labels and heads.
        seed: the trial's seed; decides a shuffled class order, and transforms whose seed is `trial`.
        data: the arrays of the trial's phase.
        device: where tasks are placed.
        classes: the classes behind the outputs of each task, if something else than these settings decides them.
    """

    def __init__(
        self,
        name: str,
        settings: StreamSettings,
        incremental_type: IncrementalType,
        seed: int,
        data: PhaseData,
        device: torch.device,
        classes: list[list[int]] | None = None,
    ) -> None:
        self.family = family_of(name, settings)
        self.settings = settings
        self.n_tasks = number_of_tasks(name, settings, data.facts)
        self._data = data
        self._device, self._seed = device, seed
        self.classes = self._class_lists(seed, incremental_type) if classes is None else classes
        self.layout = layout_of(self.classes, incremental_type)
        self.task_names = task_names(name, settings, data.facts)
        self.input_shape = padded_shape(data.facts.shape, settings.padding)

    def train(self, task: int) -> TaskData:
        """Return the training examples of `task`; with blurry boundaries, some are of its neighbours.

        Returns: inputs (N, C, H, W) or (N, F) float32, labels output indices (N,) int64.
        """
        if not self.settings.blurry or self._data.start is not None:
            return self._train(task)
        return blurred(task, self.sizes().n_examples, self.settings.blurry, self._seed, self._train)

    def _train(self, task: int, chosen: NDArray[np.int64] | None = None) -> TaskData:
        """Return the examples that a task is made of, or those at some places among them."""
        data = self._data
        return self._make(task, data.train_inputs, data.train_labels, data.train_tasks, "train", chosen)

    def sizes(self) -> StreamSizes:
        """Return how many training examples there are, without making them."""
        labels, tasks, n_classes = self._data.train_labels, self._data.train_tasks, self._data.facts.n_classes
        if tasks is None:
            counts = np.broadcast_to(np.bincount(labels, minlength=n_classes), (self.n_tasks, n_classes))
        else:
            counts = np.bincount(tasks * n_classes + labels, minlength=self.n_tasks * n_classes).reshape(-1, n_classes)
        by_output = np.zeros(self.layout.n_outputs, dtype=np.int64)
        n_examples: list[int] = []
        for task, classes in enumerate(self.classes):
            own, first = counts[task][classes], self.layout.ranges[task][0]
            by_output[first : first + len(classes)] += own
            n_examples.append(int(own.sum()))
        return StreamSizes(tuple(n_examples), tuple(by_output.tolist()), self.input_shape)

    def evaluation(self, task: int) -> TaskData:
        """Return the held-out examples of `task`, in the form of `train`."""
        data = self._data
        return self._make(task, data.evaluation_inputs, data.evaluation_labels, data.evaluation_tasks, "evaluation")

    def evaluation_hash(self, task: int) -> str:
        """Return a hash of the held-out examples of `task` in their order, 16 hexadecimal digits.

        It is of the data as they were read, with the names of their classes, and of the task's transform. Padding,
        normalisation, outputs and the order of classes are no part of it: two models may differ in them and yet be
        measured on the same examples.
        """
        data = self._data
        rows, _ = self._rows(task, data.evaluation_labels, data.evaluation_tasks)
        change = self._change(task, "evaluation")
        content = self._all_evaluation if rows is None else _content_hash(data, rows)
        return hashlib.sha256(content + (b"" if change is None else change.identity)).hexdigest()[:16]

    @cached_property
    def _all_evaluation(self) -> bytes:
        return _content_hash(self._data, None)

    @cached_property
    def class_names(self) -> list[list[str]]:
        """Return for each task the class behind each output that competes for it, once all tasks are seen."""
        names, width = self._data.facts.class_names, self.layout.n_outputs
        if self.layout.incremental_type == "class":
            return [[names[c] for classes in self.classes for c in classes]] * self.n_tasks
        own = [[names[c] for c in classes] for classes in self.classes]
        if self.layout.incremental_type == "task":
            return own
        return [[*each, *(f"output {n}" for n in range(len(each), width))] for each in own]

    @property
    def output_names(self) -> list[str]:
        """Return the class behind each output, or all of them for one that stands for another class in each task."""
        names = self._data.facts.class_names
        if self.layout.incremental_type != "domain":
            return [names[c] for classes in self.classes for c in classes]
        behind = [dict.fromkeys(names[c] for c in column) for column in zip(*self.classes, strict=False)]
        return ["/".join(each) for each in behind]

    @cached_property
    def positive_class(self) -> str | None:
        """Return the rarer class of a data set with two, the second of equally rare ones; None with more classes."""
        if self._data.start is not None:
            return self._data.start.positive_class
        if self._data.facts.n_classes != 2:
            return None
        counts = np.bincount(self._data.train_labels, minlength=2)
        return self._data.facts.class_names[int(counts[0] >= counts[1])]

    def _class_lists(self, seed: int, incremental_type: IncrementalType) -> list[list[int]]:
        facts = self._data.facts
        if facts.task_names:
            return given_classes(facts, incremental_type)
        return class_lists(self.settings, self.family, facts, self.n_tasks, seed)

    def _make(
        self,
        task: int,
        inputs: Inputs,
        labels: NDArray[np.int64],
        tasks: NDArray[np.int64] | None,
        part: Part,
        chosen: NDArray[np.int64] | None = None,
    ) -> TaskData:
        rows, positions = self._rows(task, labels, tasks)
        is_noisy = isinstance(self._change(task, part), Noise)  # drawn for all rows, so that each has noise of its own
        if chosen is not None and not is_noisy:
            rows = chosen if rows is None else rows[chosen]
        made = self._inputs(task, inputs if rows is None else inputs[rows], part)
        if chosen is not None:
            made, positions = made[chosen] if is_noisy else made, positions[chosen]
        first = self.layout.ranges[task][0]
        return TaskData(task, made.to(self._device), torch.from_numpy(positions + first).to(self._device), task)

    def _rows(
        self, task: int, labels: NDArray[np.int64], tasks: NDArray[np.int64] | None
    ) -> tuple[NDArray[np.int64] | None, NDArray[np.int64]]:
        """Return which examples are those of `task`, None if all are, and the place of each one's class in the task."""
        classes = self.classes[task]
        local = np.full(self._data.facts.n_classes, -1, dtype=np.int64)
        local[classes] = np.arange(len(classes))
        positions = local[labels]
        if tasks is None and len(classes) == len(local):
            return None, positions
        rows = np.flatnonzero(positions >= 0 if tasks is None else tasks == task)
        return rows, positions[rows]

    def _change(self, task: int, part: Part) -> Change | None:
        n_pixels = self.input_shape[-2] * self.input_shape[-1] if len(self.input_shape) == 3 else 0
        return change_of(self.family, self.settings, task, self.n_tasks, part, n_pixels, self._seed)

    def _inputs(self, task: int, inputs: Inputs, part: Part) -> Tensor:
        """Return (N, C, H, W) or (N, F) float32: padded, then transformed for the task, then normalised."""
        change = self._change(task, part)
        return to_inputs(inputs, self.settings, self._data.facts, (self._data.mean, self._data.std), change)


def to_inputs(
    inputs: Inputs,
    settings: StreamSettings,
    facts: DatasetFacts,
    statistics: tuple[Statistic, Statistic],
    change: Change | None = None,
) -> Tensor:
    """Return examples as a network takes them, (N, C, H, W) or (N, F) float32.

    Args:
        inputs: as in `PhaseData`.
        settings: padding and normalisation.
        facts: shape of an example and the largest pixel value.
        statistics: mean and standard deviation of the training inputs, for normalisation.
        change: the transform of a task.
    """
    shape = padded_shape(facts.shape, settings.padding)
    out = torch.empty(len(inputs), *shape)
    for start in range(0, len(inputs), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        values = torch.tensor(inputs[rows])
        if values.ndim == 3:
            values = values[:, None]
        if settings.padding and values.ndim > 2:  # features of a frozen network are padded no more
            values = F.pad(values, [settings.padding] * 4)
        if isinstance(change, Permutation):
            values = values.flatten(1)[:, change.order].view_as(values)
        values = values.float().div_(facts.maximum)
        if isinstance(change, Rotation):
            values = rotate(values, change.degrees)
        elif isinstance(change, Noise):
            values = change.add(values)
        out[rows] = values
    if settings.normalisation == "standard":
        mean, std = (v if isinstance(v, float) else torch.tensor(v) for v in statistics)
        out.sub_(mean).div_(std)
    return out


def _content_hash(data: PhaseData, rows: NDArray[np.int64] | None) -> bytes:
    """Return a hash of held-out examples in their order: their inputs, and their classes by name.

    Args:
        data: the arrays of a phase.
        rows: which of its held-out examples; None for all.
    """
    inputs, labels = data.evaluation_inputs, data.evaluation_labels
    if rows is not None:
        inputs, labels = inputs[rows], labels[rows]
    present, numbers = np.unique(labels, return_inverse=True)
    names = [data.facts.class_names[label] for label in present]
    order = sorted(range(len(names)), key=names.__getitem__)
    by_name = np.argsort(np.array(order, dtype=np.int64))  # a further class may shift the labels, but not this
    digest = hashlib.sha256(str((inputs.shape, inputs.dtype.str, [names[i] for i in order])).encode())
    digest.update(by_name[numbers].astype(np.int64).tobytes())
    digest.update(np.ascontiguousarray(inputs).data)
    return digest.digest()


def class_lists(
    settings: StreamSettings, family: Family, facts: DatasetFacts, n_tasks: int, seed: int
) -> list[list[int]]:
    """Return the classes of each task, for data that do not come cut into tasks."""
    if family not in ("split", "folder", "table"):
        return [list(range(facts.n_classes))] * n_tasks
    order = settings.class_order
    if order == "shuffled":
        classes = np.random.default_rng(derive_seed(seed, "class order")).permutation(facts.n_classes).tolist()
    else:
        classes = list(range(facts.n_classes)) if order == "fixed" else [int(c) for c in order]
    size = settings.classes_per_task
    lists = [classes[task * size : (task + 1) * size] for task in range(n_tasks)]
    if settings.leftover == "last_task":
        lists[-1] = classes[(n_tasks - 1) * size :]
    return lists


def given_classes(facts: DatasetFacts, incremental_type: IncrementalType) -> list[list[int]]:
    """Return the classes behind the outputs of each task, for data that come cut into tasks.

    Each task has outputs for its own classes. The exception is `domain` if tasks share classes or differ in their
    number of classes: then each task has outputs for all classes.
    """
    own = [list(classes) for classes in facts.task_classes]
    one_size = len({len(classes) for classes in own}) == 1
    if incremental_type == "domain" and not (facts.tasks_share_no_class and one_size):
        return [list(range(facts.n_classes))] * len(own)
    return own


def layout_of(classes: list[list[int]], incremental_type: IncrementalType) -> OutputLayout:
    """Return which outputs belong to which task, given the classes of each."""
    widths = [len(each) for each in classes]
    if incremental_type == "domain":
        return OutputLayout("domain", tuple((0, max(widths)) for _ in widths))
    stops = np.cumsum(widths).tolist()
    return OutputLayout(
        incremental_type, tuple((stop - width, stop) for stop, width in zip(stops, widths, strict=True))
    )


def padded_shape(shape: tuple[int, ...], padding: int) -> tuple[int, ...]:
    """Return the shape of an example with `padding` pixels on each side of an image."""
    if len(shape) == 1:
        return shape
    channels, height, width = shape
    return (channels, height + 2 * padding, width + 2 * padding)
