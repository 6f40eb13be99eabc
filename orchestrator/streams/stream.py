"""Streams: a data set cut into an ordered list of tasks.

Three families. `split` gives each task its own classes. `permuted` (Goodfellow et al. 2013, arXiv 1312.6211) and
`rotated` (Lopez-Paz & Ranzato 2017, arXiv 1706.08840) give every task all classes under its own permutation of the
pixels or its own rotation; the first task is left as it is.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn import functional as F

from orchestrator.streams.datasets import DATASETS, PhaseData
from strategies import IncrementalType, OutputLayout, TaskData
from strategies.seeds import derive_seed

Family = Literal["split", "permuted", "rotated"]
_ROWS_AT_ONCE = 8192


class StreamSettings(BaseModel):
    """How a data set is cut into tasks; part of a trial's identity.

    Fields of other families than the stream's own must be left at their defaults.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_tasks: int | None = Field(
        None, ge=1, le=1000, description="number of tasks; by default as many as the classes give, or 5"
    )
    classes_per_task: int = Field(2, ge=1, description="split: classes of each task")
    class_order: Literal["fixed", "shuffled"] | tuple[int, ...] = Field(
        "fixed", description="split: ascending, shuffled by the trial's seed, or a list of classes"
    )
    permutation_seed: int = Field(0, ge=0, description="permuted: which permutations")
    max_rotation: float = Field(180.0, gt=0, le=360, description="rotated: tasks are spread over this many degrees")
    rotation_seed: int | None = Field(None, ge=0, description="rotated: angles at random instead of evenly spread")
    normalisation: Literal["unit", "standard"] = Field(
        "unit", description="pixels in [0, 1], or with the training pixels' mean 0 and deviation 1"
    )
    padding: int = Field(0, ge=0, le=32, description="pixels of background added on each side")


_FAMILY_FIELDS: dict[str, Family] = {
    "classes_per_task": "split",
    "class_order": "split",
    "permutation_seed": "permuted",
    "max_rotation": "rotated",
    "rotation_seed": "rotated",
}
_DEFAULT_TASKS = {"permuted": 10, "rotated": 5}

STREAMS: dict[str, tuple[Family, str]] = {
    f"{family}-{dataset}": (family, dataset) for dataset in DATASETS for family in ("split", "permuted", "rotated")
}
"""Every stream by name: its family and its data set."""


def refused_type(stream: str, incremental_type: IncrementalType) -> str | None:
    """Return why a stream cannot be of an incremental type, or None where it can."""
    if STREAMS[stream][0] == "rotated" and incremental_type == "class":
        return "a rotated image keeps its class, so no task brings new classes; use domain or task"
    return None


def number_of_tasks(stream: str, settings: StreamSettings) -> int:
    """Return the number of tasks of a stream whose settings have no faults."""
    family, dataset = STREAMS[stream]
    if family == "split":
        return settings.n_tasks or _classes(settings, dataset) // settings.classes_per_task
    return settings.n_tasks or _DEFAULT_TASKS[family]


def stream_faults(stream: str, settings: StreamSettings) -> list[str]:
    """Return what is wrong with `settings` for `stream`, one message a fault, without the field's place."""
    family, dataset = STREAMS[stream]
    n_classes = DATASETS[dataset].n_classes
    faults = [
        f"{name}: expected to be left out, got {getattr(settings, name)!r}; it belongs to {owner} streams"
        for name, owner in _FAMILY_FIELDS.items()
        if owner != family and getattr(settings, name) != StreamSettings.model_fields[name].default
    ]
    if family != "split":
        return faults
    order = settings.class_order
    if isinstance(order, tuple) and (len(set(order)) != len(order) or not set(order) <= set(range(n_classes))):
        faults.append(
            f"class_order: expected distinct classes in 0 … {n_classes - 1}, got {list(order)}; list each class once"
        )
    available = _classes(settings, dataset)
    wanted = (settings.n_tasks or 1) * settings.classes_per_task
    if wanted > available:
        n_tasks = settings.n_tasks or 1
        faults.append(
            f"n_tasks: expected n_tasks x classes_per_task <= {available} classes, got {n_tasks} x "
            f"{settings.classes_per_task}; lower one of them"
        )
    return faults


class Stream:
    """The tasks of one trial, made when they are asked for.

    Args:
        name: the stream, such as `split-mnist`.
        settings: how it is cut.
        incremental_type: decides labels and heads.
        seed: the trial's seed; decides a shuffled class order and nothing else.
        data: the arrays of the trial's phase.
        device: where tasks are placed.
    """

    def __init__(
        self,
        name: str,
        settings: StreamSettings,
        incremental_type: IncrementalType,
        seed: int,
        data: PhaseData,
        device: torch.device,
    ) -> None:
        self.family, self.dataset = STREAMS[name]
        self.settings = settings
        self.n_tasks = number_of_tasks(name, settings)
        self._data = data
        self._device = device
        self._classes = self._class_lists(seed)
        self.layout = self._layout(incremental_type)
        height, width = DATASETS[self.dataset].shape
        self.input_shape = (1, height + 2 * settings.padding, width + 2 * settings.padding)

    def train(self, task: int) -> TaskData:
        """Return the training examples of `task`: inputs (N, 1, H, W) float32, labels output indices (N,) int64."""
        return self._make(task, self._data.train_inputs, self._data.train_labels)

    def evaluation(self, task: int) -> TaskData:
        """Return the held-out examples of `task`, likewise."""
        return self._make(task, self._data.evaluation_inputs, self._data.evaluation_labels)

    def _class_lists(self, seed: int) -> list[list[int]]:
        n_classes = DATASETS[self.dataset].n_classes
        if self.family != "split":
            return [list(range(n_classes))] * self.n_tasks
        order = self.settings.class_order
        if order == "shuffled":
            classes = np.random.default_rng(derive_seed(seed, "class order")).permutation(n_classes).tolist()
        else:
            classes = list(range(n_classes)) if order == "fixed" else [int(c) for c in order]
        size = self.settings.classes_per_task
        return [classes[t * size : (t + 1) * size] for t in range(self.n_tasks)]

    def _layout(self, incremental_type: IncrementalType) -> OutputLayout:
        widths = [len(classes) for classes in self._classes]
        if incremental_type == "domain":
            return OutputLayout("domain", tuple((0, max(widths)) for _ in widths))
        stops = np.cumsum(widths).tolist()
        return OutputLayout(
            incremental_type, tuple((stop - width, stop) for stop, width in zip(stops, widths, strict=True))
        )

    def _make(self, task: int, inputs: NDArray[np.uint8], labels: NDArray[np.int64]) -> TaskData:
        classes = self._classes[task]
        local = np.full(DATASETS[self.dataset].n_classes, -1, dtype=np.int64)
        local[classes] = np.arange(len(classes))
        positions = local[labels]
        if self.family == "split":
            rows = np.flatnonzero(positions >= 0)
            inputs, positions = inputs[rows], positions[rows]
        first = self.layout.ranges[task][0]
        return TaskData(
            task,
            self._images(task, inputs).to(self._device),
            torch.from_numpy(positions + first).to(self._device),
            task,
        )

    def _images(self, task: int, inputs: NDArray[np.uint8]) -> Tensor:
        """Return (N, 1, H, W) float32: padded, permuted or rotated, then normalised."""
        change = self._change(task)
        out = torch.empty(len(inputs), *self.input_shape)
        for start in range(0, len(inputs), _ROWS_AT_ONCE):
            rows = slice(start, start + _ROWS_AT_ONCE)
            pixels = torch.tensor(inputs[rows])[:, None]
            if self.settings.padding:
                pixels = F.pad(pixels, [self.settings.padding] * 4)
            if isinstance(change, Tensor):
                pixels = pixels.flatten(1)[:, change].view_as(pixels)
            images = pixels.float().div_(self._data.maximum)
            if isinstance(change, float):
                images = _rotate(images, change)
            out[rows] = images
        if self.settings.normalisation == "standard":
            out.sub_(self._data.mean).div_(self._data.std)
        return out

    def _change(self, task: int) -> Tensor | float | None:
        """Return the permutation of pixels (P,) int64 or the angle in degrees of `task`; None leaves images alone."""
        if task == 0 or self.family == "split":
            return None
        settings = self.settings
        if self.family == "permuted":
            n_pixels = self.input_shape[1] * self.input_shape[2]
            generator = np.random.default_rng(derive_seed(settings.permutation_seed, "permutation", task))
            return torch.from_numpy(generator.permutation(n_pixels))
        if settings.rotation_seed is None:
            return settings.max_rotation * task / self.n_tasks
        generator = np.random.default_rng(derive_seed(settings.rotation_seed, "rotation", task))
        return float(generator.uniform(0, settings.max_rotation))


def _classes(settings: StreamSettings, dataset: str) -> int:
    order = settings.class_order
    return len(order) if isinstance(order, tuple) else DATASETS[dataset].n_classes


def _rotate(images: Tensor, degrees: float) -> Tensor:
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.functional import rotate

    return rotate(images, degrees, InterpolationMode.BILINEAR)  # type: ignore[no-any-return]
