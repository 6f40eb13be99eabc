"""What a user writes about a stream, and what follows from it before any data are read.

Five families cut a data set that comes with torchvision or scikit-learn. `split` gives each task its own classes.
`permuted` (Goodfellow et al. 2013, arXiv 1312.6211), `rotated` (Lopez-Paz & Ranzato 2017, arXiv 1706.08840), `noisy`
and `clean-rotated-noisy` give every task all classes and change the pixels of every task but the first. `folder` and
`table` are a user's own data, `model` the next task of a model.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue

from orchestrator.streams.boundaries import Boundaries
from orchestrator.streams.facts import DATASETS, DatasetFacts
from strategies import Added, IncrementalType

Family = Literal["split", "permuted", "rotated", "noisy", "clean-rotated-noisy", "folder", "table", "model"]

Missing = Literal["refuse", "median", "indicator", "drop"]
"""What is done with a gap in a feature: refuse it, fill it with the training rows' median, fill it and add a feature
that says so, or leave the row out."""

INCREMENTAL_TYPES: tuple[IncrementalType, ...] = get_args(IncrementalType)
MOST_TASKS = 1000
LARGEST_SIDE = 4096
MOST_BUCKETS = 4096
ALL = "all"
"""The key of `missing` that stands for the columns that it does not name."""

TABLE_SUFFIXES = (".parquet", ".pq", ".csv", ".csv.gz", ".tsv")
_COLOUR = re.compile(r"#[0-9a-f]{6}")


def _colour(value: Any) -> Any:
    """Return `white`, `black` or `#rrggbb` in lower case.

    Raises:
        ValueError: if it is none of them.
    """
    colour = value.lower() if isinstance(value, str) else value
    if colour in ("white", "black") or (isinstance(colour, str) and _COLOUR.fullmatch(colour)):
        return colour
    raise ValueError("white, black or a colour such as '#ff8800'; put it in quotes, because # begins a comment")


Seed = Annotated[int, Field(ge=0)] | Literal["trial"]
"""A number, or the seed of each trial."""


class NextTask(BaseModel):
    """A new task for a model that has learned others: the update is what is searched."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(examples=["champion"], description="a model folder that export or update wrote")
    data: str = Field(
        examples=["data/2023q3.parquet"],
        description="the examples of the new task: a table, or a folder CLASS/IMAGE",
    )
    task: str = Field(min_length=1, examples=["2023Q3"], description="the name of the new task")
    test_data: str | None = Field(
        None,
        examples=["data/2023q3-test.parquet"],
        description="held-out examples of the new task; by default a share of data, as the model's stream has it",
    )

    def without_paths(self) -> NextTask:
        """Return these settings with blank paths."""
        blank = {"model": "", "data": "", "test_data": None if self.test_data is None else ""}
        return self.model_copy(update=blank)


_CLASS = r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*:[A-Za-z_][A-Za-z0-9_.]*"


class FrozenFeatures(BaseModel):
    """A network whose features take the place of a stream's inputs; no trial trains it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    module: str = Field(
        pattern=f"^{_CLASS}$",
        examples=["torchvision:resnet18"],
        description="torchvision:NAME, timm:NAME, or your own module:Class, built with the shape of an example; "
        "maps examples with values in [0, 1] to (N, features)",
    )
    weights: str | None = Field(
        None,
        examples=["resnet18.safetensors"],
        description="file of its state dict, .safetensors or of torch.save; by default those that a class of yours has",
    )
    options: dict[str, JsonValue] = Field({}, description="keyword arguments of the class, or of the library's model")
    image_size: int | None = Field(
        None, ge=1, le=LARGEST_SIDE, examples=[224], description="images are resized to this side first"
    )

    @property
    def is_own_class(self) -> bool:
        """Return whether the network is a user's own class."""
        return self.module.partition(":")[0] not in ("torchvision", "timm")


class StreamSettings(BaseModel):
    """How a data set is cut into tasks, and where a user's own data are.

    All but the paths is part of a trial's identity. Fields of other families than the stream's must keep their
    defaults.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_tasks: int | None = Field(
        None,
        examples=[5],
        ge=1,
        le=MOST_TASKS,
        description="number of tasks; by default as many as the classes give, or 5",
    )
    classes_per_task: int = Field(2, ge=1, description="split: classes of each task")
    class_order: Literal["fixed", "shuffled"] | tuple[int, ...] = Field(
        "fixed", description="split: fixed (ascending), shuffled by the trial's seed, or a list of classes"
    )
    leftover: Annotated[Literal["refuse", "drop", "last_task"], Added()] = Field(
        "refuse",
        description="split: what to do without n_tasks about classes that classes_per_task leaves over: refuse, drop "
        "them, or add them to the last task",
    )
    permutation_seed: Seed = Field(0, description="permuted: which permutations; trial: others for each trial's seed")
    max_rotation: float = Field(180.0, gt=0, le=360, description="rotated: tasks are spread over this many degrees")
    rotation_seed: Seed | None = Field(
        None,
        examples=[0],
        description="rotated: seed of random angles, or trial: others for each trial's seed; evenly spread without it",
    )
    max_noise: float = Field(
        0.5, gt=0, le=1, description="noisy: deviation of the last task's noise, for pixels in [0, 1]"
    )
    noise_seed: Seed = Field(0, description="noisy: which noise; trial: another for each trial's seed")
    rotation: float = Field(45.0, gt=0, lt=360, description="clean-rotated-noisy: degrees of its second task")
    folder: str | None = Field(
        None, examples=["data/photos"], description="own images: FOLDER/CLASS/*.png, or FOLDER/TASK/CLASS/*.png"
    )
    image_size: int | tuple[int, int] | None = Field(
        None, examples=[32], description="folder: images are resized to this side, or [height, width]"
    )
    background: Annotated[str, BeforeValidator(_colour), Added()] = Field(
        "white", description="folder: colour behind transparent images: white, black or '#rrggbb'"
    )
    table: str | tuple[str, ...] | None = Field(
        None,
        examples=["data/churn.csv"],
        description="own table: Parquet or CSV, a row an example; a file, a list, a pattern, a folder or a URI",
    )
    label: str | None = Field(None, examples=["churned"], description="table: column of the classes")
    task: str | None = Field(
        None,
        examples=["quarter"],
        description="table: column of the tasks; with n_tasks, a column of numbers or times to cut",
    )
    categorical: tuple[str, ...] = Field(
        (), examples=[["plan"]], description="table: columns to one-hot encode, besides those of text and booleans"
    )
    drop: tuple[str, ...] = Field((), examples=[["customer_id"]], description="table: columns that are left out")
    test_table: str | tuple[str, ...] | None = Field(
        None, examples=["data/churn-test.csv"], description="table: a second one with the test rows"
    )
    missing: Annotated[Missing | dict[str, Missing], Added()] = Field(
        "refuse",
        examples=[{"all": "median", "age": "indicator"}],
        description="table: gaps in features: refuse, median, indicator or drop; one word, or one for each column",
    )
    hash: Annotated[int | dict[str, int] | None, Added()] = Field(
        None,
        examples=[64],
        description="table: buckets for text with too many values to one-hot encode, or for each named column",
    )
    frequency: Annotated[tuple[str, ...], Added()] = Field(
        (), examples=[["postcode"]], description="table: columns that become the share of training rows with that value"
    )
    dates: Annotated[dict[str, str], Added()] = Field(
        {}, examples=[{"since": "%d.%m.%Y"}], description="table: format of dates and times, as in strptime, or iso"
    )
    decimal: Annotated[Literal[".", ","] | None, Added()] = Field(
        None, examples=[","], description="table: decimal mark; if given, text that holds numbers is read as numbers"
    )
    thousands: Annotated[Literal[".", ",", " ", "'"] | None, Added()] = Field(
        None, examples=["."], description="table: mark between groups of three digits"
    )
    separator: Annotated[str | None, Added()] = Field(
        None, examples=[";"], description="table: character between the fields of a CSV file; by default a comma"
    )
    order: Annotated[tuple[str | int | float, ...] | str | None, Added()] = Field(
        None,
        examples=[["low", "high"]],
        description="table: the values of the task column, in the order of the tasks; with boundaries, the column of "
        "numbers, dates or times that the rows are sorted by",
    )
    boundaries: Annotated[Boundaries | None, Added()] = Field(
        None, description="table: a detector of drift, which begins a new task where it finds some"
    )
    encoding_from: Annotated[Literal["all_tasks", "first_task"], Added()] = Field(
        "all_tasks",
        description="table: the training rows that decide ranges, medians, categories and shares; first_task is what "
        "one knows who learns later tasks as they come (`update`)",
    )
    from_model: Annotated[NextTask | None, Added()] = Field(
        None, description="the next task of a model: trials begin from the model and learn this task"
    )
    features: Annotated[FrozenFeatures | None, Added()] = Field(
        None, description="split, folder and table: a frozen network whose features take the place of the inputs"
    )
    blurry: Annotated[float, Added()] = Field(
        0.0,
        ge=0,
        lt=1,
        examples=[0.1],
        description="share of a task's training examples that come from the tasks before and after, which get as many "
        "of its own; drawn by the trial's seed",
    )
    test_share: float = Field(0.2, gt=0, lt=1, description="own data: share of each task and class for the test split")
    normalisation: Literal["unit", "standard"] = Field(
        "unit", description="pixels or numbers in [0, 1], or with the training data's mean 0 and deviation 1"
    )
    padding: int = Field(0, ge=0, le=32, description="pixels of background added on each side")

    def without_paths(self) -> StreamSettings:
        """Return these settings with blank paths, as they identify a trial: a hash of the data stands for the paths."""
        blank: dict[str, Any] = {n: "" for n in ("folder", "table", "test_table") if getattr(self, n) is not None}
        if self.from_model is not None:
            blank["from_model"] = self.from_model.without_paths()
        if self.features is not None and self.features.weights is not None:
            blank["features"] = self.features.model_copy(update={"weights": ""})
        return self.model_copy(update=blank)

    @property
    def order_column(self) -> str | None:
        """Return the column that the rows are sorted by before boundaries are looked for."""
        return self.order if isinstance(self.order, str) else None

    @property
    def not_learned(self) -> set[str | None]:
        """Return the columns that are no features: of classes, tasks and their order, and those that are dropped."""
        return {self.label, self.task, self.order_column, *self.drop}

    def missing_in(self, column: str) -> Missing:
        """Return what is done with a gap in a feature column."""
        return (
            self.missing if isinstance(self.missing, str) else self.missing.get(column, self.missing.get(ALL, "refuse"))
        )

    def hashed(self) -> dict[str, int]:
        """Return the buckets of the columns that are hashed by name."""
        return self.hash if isinstance(self.hash, dict) else {}


def as_paths(places: str | tuple[str, ...] | None) -> tuple[str, ...]:
    """Return the paths of a table's setting."""
    return (places,) if isinstance(places, str) else places or ()


def shown_paths(places: str | tuple[str, ...] | None) -> str:
    """Return a table's setting as messages name it."""
    paths = as_paths(places)
    return paths[0] if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more" if paths else ""


_DEFAULT_TASKS = {"permuted": 10, "rotated": 5, "noisy": 5, "clean-rotated-noisy": 3}
_GREY_FAMILIES: tuple[Family, ...] = ("split", "permuted", "rotated", "noisy", "clean-rotated-noisy")

STREAMS: dict[str, tuple[Family, str]] = {
    f"{family}-{dataset}": (family, dataset)
    for dataset, facts in DATASETS.items()
    for family in (_GREY_FAMILIES if facts.shape[0] == 1 else _GREY_FAMILIES[:1])
}
"""Built-in streams by name: family and data set."""


def is_user_data(settings: StreamSettings) -> bool:
    """Return whether settings name a user's own data."""
    return settings.folder is not None or settings.table is not None or settings.from_model is not None


def known_streams(streams: dict[str, StreamSettings]) -> list[str]:
    """Return the streams that a scenario may name: the built-in ones and the user's own."""
    return [*STREAMS, *(name for name, settings in streams.items() if name not in STREAMS and is_user_data(settings))]


def family_of(stream: str, settings: StreamSettings) -> Family:
    """Return the family of a known stream."""
    if stream in STREAMS:
        return STREAMS[stream][0]
    if settings.from_model is not None:
        return "model"
    return "folder" if settings.folder is not None else "table"


def dataset_of(stream: str) -> str:
    """Return the name of a stream's data set, which is the stream's own name for a user's data."""
    return STREAMS[stream][1] if stream in STREAMS else stream


def data_of(stream: str, settings: StreamSettings) -> str:
    """Return the name under which a sweep holds the data of a stream; streams of one built-in data set share them."""
    return stream if settings.features is not None else dataset_of(stream)


def number_of_tasks(stream: str, settings: StreamSettings, facts: DatasetFacts | None = None) -> int:
    """Return the number of tasks of a stream whose settings have no faults.

    Args:
        stream: name of the stream.
        settings: how it is cut.
        facts: facts of its data set; optional for a built-in stream.
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
