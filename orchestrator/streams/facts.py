"""What is known about a data set besides its arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from orchestrator.streams.boundaries import FoundBoundaries

Phase = Literal["search", "finals", "confirm"]
PHASES: tuple[Phase, ...] = get_args(Phase)
"""Which arrays a trial sees: `search` is evaluated on a validation split, `confirm` on the test split."""

_TEN = tuple("0123456789")


@dataclass(frozen=True)
class DatasetFacts:
    """What streams need to know of a data set besides its arrays. A user's own data tell it once they are read.

    Args:
        class_names: name of each class, in the order of the labels 0 … n_classes - 1.
        shape: of one example: (channels, height, width) of an image, (features,) of a table's row.
        maximum: largest pixel value; 1 for a table, whose numbers are scaled to [0, 1] when it is read.
        source: what it is and where it comes from, for users.
        task_names: name of each task, in order; empty unless the data come cut into tasks.
        task_classes: classes of each of these tasks, ascending.
        n_numbers: how many features of a table are numbers; they come first, and the others are one-hot.
    """

    class_names: tuple[str, ...]
    shape: tuple[int, ...]
    maximum: int
    source: str
    task_names: tuple[str, ...] = ()
    task_classes: tuple[tuple[int, ...], ...] = ()
    n_numbers: int = 0

    @property
    def n_classes(self) -> int:
        return len(self.class_names)

    @property
    def tasks_share_no_class(self) -> bool:
        """Return whether every class belongs to one task only."""
        return sum(map(len, self.task_classes)) == len({c for classes in self.task_classes for c in classes})


@dataclass(frozen=True)
class ReadReport:
    """What was read of a user's own table, and what was not.

    Args:
        source: the setting `table`, as messages name it.
        n_files: how many files it is, those of `test_table` included.
        n_rows: how many rows these have, those left out included.
        numbers: features that are numbers.
        dates: features that are dates or times, in seconds.
        kinds: one-hot features -> how many kinds each has.
        hashed: hashed features -> how many buckets each has.
        frequencies: features that are the share of training rows with the same value.
        indicators: features with a further one that says 'was missing'.
        dropped: columns in `drop`.
        left_out: sentences on rows, columns and files that were left out, and why.
        notes: other sentences that a reader of the results should know.
        boundaries: the boundaries of tasks that a detector found; None without one.
    """

    source: str
    n_files: int
    n_rows: int
    numbers: tuple[str, ...] = ()
    dates: tuple[str, ...] = ()
    kinds: Mapping[str, int] = field(default_factory=dict)
    hashed: Mapping[str, int] = field(default_factory=dict)
    frequencies: tuple[str, ...] = ()
    indicators: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    boundaries: FoundBoundaries | None = None


DATASETS: dict[str, DatasetFacts] = {
    "digits": DatasetFacts(_TEN, (1, 8, 8), 16, "1,797 handwritten digits, bundled with scikit-learn"),
    "mnist": DatasetFacts(_TEN, (1, 28, 28), 255, "70,000 handwritten digits, torchvision"),
    "fashion-mnist": DatasetFacts(_TEN, (1, 28, 28), 255, "70,000 articles of clothing, torchvision"),
    "kmnist": DatasetFacts(_TEN, (1, 28, 28), 255, "70,000 handwritten Japanese characters, torchvision"),
    "cifar10": DatasetFacts(_TEN, (3, 32, 32), 255, "60,000 colour photographs of 10 classes, torchvision"),
    "cifar100": DatasetFacts(
        tuple(map(str, range(100))), (3, 32, 32), 255, "60,000 colour photographs of 100 classes, torchvision"
    ),
}
"""The built-in data sets by name."""
