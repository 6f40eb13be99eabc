"""What a user says of a stream, and what can be known of it before its data are read.

Five families cut a data set that comes with torchvision or scikit-learn; `folder` and `table` are a user's own data.
`split` gives each task its own classes. `permuted` (Goodfellow et al. 2013, arXiv 1312.6211), `rotated` (Lopez-Paz &
Ranzato 2017, arXiv 1706.08840), `noisy` and `clean-rotated-noisy` give every task all classes and change the pixels;
the first task is left as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import PurePath
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from orchestrator.streams.facts import DATASETS, DatasetFacts
from strategies import IncrementalType

Family = Literal["split", "permuted", "rotated", "noisy", "clean-rotated-noisy", "folder", "table"]

INCREMENTAL_TYPES: tuple[IncrementalType, ...] = get_args(IncrementalType)
MOST_TASKS = 1000
LARGEST_SIDE = 4096
TABLE_SUFFIXES = (".parquet", ".pq", ".csv", ".csv.gz", ".tsv")


class StreamSettings(BaseModel):
    """How a data set is cut into tasks, and where a user's own data are; part of a trial's identity, less the paths.

    Fields of other families than the stream's own must be left at their defaults.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_tasks: int | None = Field(
        None, ge=1, le=MOST_TASKS, description="number of tasks; by default as many as the classes give, or 5"
    )
    classes_per_task: int = Field(2, ge=1, description="split: classes of each task")
    class_order: Literal["fixed", "shuffled"] | tuple[int, ...] = Field(
        "fixed", description="split: fixed (ascending), shuffled by the trial's seed, or a list of classes"
    )
    permutation_seed: int = Field(0, ge=0, description="permuted: which permutations")
    max_rotation: float = Field(180.0, gt=0, le=360, description="rotated: tasks are spread over this many degrees")
    rotation_seed: int | None = Field(None, ge=0, description="rotated: angles at random instead of evenly spread")
    max_noise: float = Field(
        0.5, gt=0, le=1, description="noisy: deviation of the last task's noise, for pixels in [0, 1]"
    )
    noise_seed: int = Field(0, ge=0, description="noisy: which noise")
    rotation: float = Field(45.0, gt=0, lt=360, description="clean-rotated-noisy: degrees of its second task")
    folder: str | None = Field(None, description="own images: FOLDER/CLASS/*.png, or FOLDER/TASK/CLASS/*.png")
    image_size: int | tuple[int, int] | None = Field(
        None, description="folder: images are resized to this side, or [height, width]"
    )
    table: str | None = Field(None, description="own table: a Parquet or CSV file, a row an example")
    label: str | None = Field(None, description="table: column of the classes")
    task: str | None = Field(None, description="table: column of the tasks; n_tasks cuts one of numbers or times")
    categorical: tuple[str, ...] = Field((), description="table: columns of kinds, beside those of text and booleans")
    drop: tuple[str, ...] = Field((), description="table: columns that are left out")
    test_table: str | None = Field(None, description="table: a second file with the test rows")
    test_share: float = Field(0.2, gt=0, lt=1, description="own data: share of each task and class kept for the test")
    normalisation: Literal["unit", "standard"] = Field(
        "unit", description="pixels or numbers in [0, 1], or with the training data's mean 0 and deviation 1"
    )
    padding: int = Field(0, ge=0, le=32, description="pixels of background added on each side")

    def without_paths(self) -> StreamSettings:
        """Return these settings as they identify a trial: where own data lie does not matter, their hash does."""
        blank = {name: "" for name in ("folder", "table", "test_table") if getattr(self, name) is not None}
        return self.model_copy(update=blank)


_FAMILY_FIELDS: dict[str, tuple[Family, ...]] = {
    "classes_per_task": ("split", "folder", "table"),
    "class_order": ("split", "folder", "table"),
    "permutation_seed": ("permuted",),
    "max_rotation": ("rotated",),
    "rotation_seed": ("rotated",),
    "max_noise": ("noisy", "clean-rotated-noisy"),
    "noise_seed": ("noisy", "clean-rotated-noisy"),
    "rotation": ("clean-rotated-noisy",),
    "folder": ("folder",),
    "image_size": ("folder",),
    **dict.fromkeys(("table", "label", "task", "categorical", "drop", "test_table"), ("table",)),
    "test_share": ("folder", "table"),
    "padding": ("split", "permuted", "rotated", "noisy", "clean-rotated-noisy", "folder"),
}
_DEFAULT_TASKS = {"permuted": 10, "rotated": 5, "noisy": 5, "clean-rotated-noisy": 3}
_GREY_FAMILIES: tuple[Family, ...] = ("split", "permuted", "rotated", "noisy", "clean-rotated-noisy")
_KEEPS_CLASSES = {
    "rotated": "a rotated image keeps its class",
    "noisy": "a noisy image keeps its class",
    "clean-rotated-noisy": "a rotated or noisy image keeps its class",
}
_OWN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

STREAMS: dict[str, tuple[Family, str]] = {
    f"{family}-{dataset}": (family, dataset)
    for dataset, facts in DATASETS.items()
    for family in (_GREY_FAMILIES if facts.shape[0] == 1 else _GREY_FAMILIES[:1])
}
"""Every stream that needs no data of the user's, by name: its family and its data set."""


def is_user_data(settings: StreamSettings) -> bool:
    """Return whether settings name a user's own data."""
    return settings.folder is not None or settings.table is not None


def known_streams(streams: dict[str, StreamSettings]) -> list[str]:
    """Return the streams that scenarios may name: the built-in ones, and those of the user's own data."""
    return [*STREAMS, *(name for name, settings in streams.items() if name not in STREAMS and is_user_data(settings))]


def family_of(stream: str, settings: StreamSettings) -> Family:
    """Return the family of a known stream."""
    if stream in STREAMS:
        return STREAMS[stream][0]
    return "folder" if settings.folder is not None else "table"


def dataset_of(stream: str) -> str:
    """Return the name of a stream's data set; a user's own data have the stream's name."""
    return STREAMS[stream][1] if stream in STREAMS else stream


def refused_type(stream: str, incremental_type: IncrementalType, settings: StreamSettings | None = None) -> str | None:
    """Return why a stream cannot be of an incremental type, or None where it can as far as its settings tell."""
    family = STREAMS[stream][0] if stream in STREAMS else "folder"
    is_cut = incremental_type != "class" and family in _FAMILY_FIELDS["classes_per_task"]
    if is_cut and settings is not None and settings.classes_per_task == 1:
        return "a head of one class could not miss it; use class, or 2 classes per task or more"
    if family in _KEEPS_CLASSES and incremental_type == "class":
        return f"{_KEEPS_CLASSES[family]}, so no task brings new classes; use domain or task"
    return None


def number_of_tasks(stream: str, settings: StreamSettings, facts: DatasetFacts | None = None) -> int:
    """Return the number of tasks of a stream whose settings have no faults.

    Args:
        stream: its name.
        settings: how it is cut.
        facts: of its data set; may be left out for a built-in stream.
    """
    facts = facts or DATASETS[dataset_of(stream)]
    family = family_of(stream, settings)
    if facts.task_names:
        return len(facts.task_names)
    if family in _DEFAULT_TASKS:
        return settings.n_tasks or _DEFAULT_TASKS[family]
    return settings.n_tasks or n_classes_used(settings, facts) // settings.classes_per_task


def n_classes_used(settings: StreamSettings, facts: DatasetFacts) -> int:
    """Return how many classes a split stream is cut from."""
    order = settings.class_order
    return len(order) if isinstance(order, tuple) else facts.n_classes


def stream_faults(stream: str, settings: StreamSettings) -> list[str]:
    """Return what is wrong with `settings` for a known `stream`, one message a fault, without the field's place.

    What depends on a user's own data is checked when they are read: `orchestrator.datacheck`.
    """
    family = family_of(stream, settings)
    fields = StreamSettings.model_fields
    faults = [
        f"{name}: expected to be left out, got {getattr(settings, name)!r}; it belongs to {_owners(owners)}"
        for name, owners in _FAMILY_FIELDS.items()
        if family not in owners and getattr(settings, name) != fields[name].default
    ]
    if family == "split":
        faults += split_faults(settings, DATASETS[dataset_of(stream)])
    elif family == "clean-rotated-noisy" and settings.n_tasks not in (None, 3):
        faults.append(f"n_tasks: expected 3 or to be left out, got {settings.n_tasks}; drop it")
    elif stream not in STREAMS:
        faults += _own_faults(stream, family, settings)
    return faults


def split_faults(settings: StreamSettings, facts: DatasetFacts) -> list[str]:
    """Return what is wrong with how classes are cut into tasks."""
    faults, order, n_classes = [], settings.class_order, facts.n_classes
    if isinstance(order, tuple) and (len(set(order)) != len(order) or not set(order) <= set(range(n_classes))):
        faults.append(
            f"class_order: expected distinct classes in 0 … {n_classes - 1}, got {list(order)}; list each class once"
        )
    available = n_classes_used(settings, facts)
    n_tasks = settings.n_tasks or 1
    if n_tasks * settings.classes_per_task > available:
        faults.append(
            f"n_tasks: expected n_tasks x classes_per_task <= {available} classes, got {n_tasks} x "
            f"{settings.classes_per_task}; lower one of them"
        )
    return faults


def _owners(families: Iterable[Family]) -> str:
    """Return the families that a field belongs to, in words."""
    shown = list(families)
    if shown in (["folder"], ["table"], ["folder", "table"]):
        return f"streams of one's own {' or '.join(shown)}, which need a name of their own"
    return f"{' and '.join(shown)} streams"


def _own_faults(stream: str, family: Family, settings: StreamSettings) -> Iterator[str]:
    if not _OWN_NAME.fullmatch(stream) or stream in DATASETS:
        yield (
            f"{family}: expected own data under a name of letters, digits, '.', '_' and '-' that no data set has, got "
            f"'{stream}'; choose another name"
        )
    if family == "folder":
        if not settings.folder:
            yield "folder: expected the path of a folder, got ''; write it"
        sides = settings.image_size if isinstance(settings.image_size, tuple) else (settings.image_size or 1,)
        if settings.image_size == 0 or not all(1 <= side <= LARGEST_SIDE for side in sides):
            yield f"image_size: expected 1 … {LARGEST_SIDE} pixels a side, got {settings.image_size}; change it"
        return
    for name in ("table", "test_table"):
        path = getattr(settings, name)
        if path is not None and not PurePath(path).name.lower().endswith(TABLE_SUFFIXES):
            yield f"{name}: expected a file ending in {', '.join(TABLE_SUFFIXES)}, got '{path}'; save it as one of them"
    if settings.label is None:
        yield "label: expected the column of the classes, got nothing; name it"
    if settings.test_table is not None and settings.test_share != StreamSettings.model_fields["test_share"].default:
        yield f"test_share: expected to be left out beside test_table, got {settings.test_share}; drop one of the two"
    if settings.task is not None:
        for name in ("classes_per_task", "class_order"):
            value = getattr(settings, name)
            if value != StreamSettings.model_fields[name].default:
                yield f"{name}: expected to be left out beside task, got {value!r}; drop one of the two"
    uses = [
        *(("label", settings.label), ("task", settings.task)),
        *(("categorical", name) for name in settings.categorical),
        *(("drop", name) for name in settings.drop),
    ]
    named = [column for _, column in uses if column is not None]
    for column in dict.fromkeys(c for c in named if named.count(c) > 1):
        places = " and ".join(dict.fromkeys(field for field, name in uses if name == column))
        yield f"{places}: expected each column once, got '{column}' {named.count(column)} times; keep one"
