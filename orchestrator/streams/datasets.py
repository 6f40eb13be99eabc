"""Data sets as arrays: loading, the validation split, and what a trial of each phase is handed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from orchestrator.errors import DataError

Phase = Literal["search", "confirm"]


@dataclass(frozen=True)
class DatasetFacts:
    """What is known about a data set without reading it.

    Args:
        n_classes: number of classes.
        shape: (height, width) of an image.
        maximum: largest pixel value.
        source: what it is and where it comes from, for users.
    """

    n_classes: int
    shape: tuple[int, int]
    maximum: int
    source: str


_TORCHVISION_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)

DATASETS: dict[str, DatasetFacts] = {
    "digits": DatasetFacts(10, (8, 8), 16, "1,797 handwritten digits, bundled with scikit-learn"),
    "mnist": DatasetFacts(10, (28, 28), 255, "70,000 handwritten digits, torchvision"),
    "fashion-mnist": DatasetFacts(10, (28, 28), 255, "70,000 articles of clothing, torchvision"),
}


@dataclass(frozen=True)
class PhaseData:
    """The arrays that trials of one phase are handed, and no others.

    Args:
        train_inputs: (N, H, W) uint8.
        train_labels: classes, (N,) int64.
        evaluation_inputs: (M, H, W) uint8; the validation split in `search`, the test split in `confirm`.
        evaluation_labels: (M,) int64.
        maximum: largest pixel value.
        mean: mean of the training pixels divided by `maximum`; the same for both phases.
        std: their standard deviation.
    """

    train_inputs: NDArray[np.uint8]
    train_labels: NDArray[np.int64]
    evaluation_inputs: NDArray[np.uint8]
    evaluation_labels: NDArray[np.int64]
    maximum: int
    mean: float
    std: float


@dataclass(frozen=True)
class Dataset:
    """A whole data set; stays with the driver.

    Args:
        name: its name in scenarios.
        train_inputs: (N, H, W) uint8.
        train_labels: (N,) int64.
        test_inputs: (M, H, W) uint8.
        test_labels: (M,) int64.
    """

    name: str
    train_inputs: NDArray[np.uint8]
    train_labels: NDArray[np.int64]
    test_inputs: NDArray[np.uint8]
    test_labels: NDArray[np.int64]

    def fingerprint(self) -> str:
        """Return a hash of every array, 16 hexadecimal digits."""
        digest = hashlib.sha256()
        for array in (self.train_inputs, self.train_labels, self.test_inputs, self.test_labels):
            digest.update(str((array.shape, array.dtype.str)).encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()[:16]

    def phase(self, phase: Phase, validation_share: float) -> PhaseData:
        """Return what trials of `phase` see.

        `search` trains on the training examples less a stratified validation split, the same for every trial, and is
        evaluated on that split; `confirm` trains on all training examples and is evaluated on the test split.
        """
        facts = DATASETS[self.name]
        pixels = self.train_inputs / np.float32(facts.maximum)
        train, labels = self.train_inputs, self.train_labels
        held_out, held_out_labels = self.test_inputs, self.test_labels
        if phase == "search":
            chosen = validation_rows(self.train_labels, validation_share)
            held_out, held_out_labels = train[chosen], labels[chosen]
            train, labels = train[~chosen], labels[~chosen]
        mean, std = float(pixels.mean()), float(pixels.std())
        return PhaseData(train, labels, held_out, held_out_labels, facts.maximum, mean, std)


def validation_rows(labels: NDArray[np.int64], share: float) -> NDArray[np.bool_]:
    """Return which rows (N,) are held out: round(share · n) of each class, at least 1 where share > 0."""
    generator = np.random.default_rng(0)
    chosen = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        rows = generator.permutation(np.flatnonzero(labels == label))
        chosen[rows[: max(round(share * len(rows)), 1 if share > 0 else 0)]] = True
    return chosen


@cache
def load_dataset(name: str, data_dir: Path) -> Dataset:
    """Return the data set `name`, read from `data_dir` or downloaded into it once.

    Raises:
        DataError: where it is missing and cannot be downloaded, or damaged.
    """
    if name == "digits":
        return _load_digits()
    from torchvision import datasets

    return _load_torchvision(name, data_dir, {"mnist": datasets.MNIST, "fashion-mnist": datasets.FashionMNIST}[name])


def _load_digits() -> Dataset:
    """Return scikit-learn's digits with a fixed stratified fifth of each class as the test split."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    inputs, labels = bunch.images.astype(np.uint8), bunch.target.astype(np.int64)
    test = validation_rows(labels, 0.2)
    return Dataset("digits", inputs[~test], labels[~test], inputs[test], labels[test])


def _load_torchvision(name: str, data_dir: Path, source: Callable[..., Any]) -> Dataset:
    folder = data_dir / source.__name__ / "raw"
    where = f"data_dir: expected the files of {name} in '{folder}'"
    missing = [file for file in _TORCHVISION_FILES if not (folder / file).is_file()]
    if missing:
        try:
            source(data_dir, download=True)
        except (OSError, RuntimeError) as error:
            raise DataError(
                f"{where}, got no {', '.join(missing)} and the download failed ({_reason(error)}); "
                "pass --data-dir FOLDER with torchvision's layout, or connect and run again"
            ) from error
    try:
        splits = [source(data_dir, train=train) for train in (True, False)]
    except Exception as error:
        raise DataError(f"{where}, got a damaged file ({_reason(error)}); delete the folder and run again") from error
    arrays = [np.asarray(part) for split in splits for part in (split.data, split.targets)]
    _check_arrays(name, where, arrays)
    train_inputs, train_labels, test_inputs, test_labels = arrays
    return Dataset(name, train_inputs, train_labels.astype(np.int64), test_inputs, test_labels.astype(np.int64))


def _reason(error: Exception) -> str:
    """Return what an error says in one short line; its kind where it says nothing."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def _check_arrays(name: str, where: str, arrays: list[NDArray[Any]]) -> None:
    facts = DATASETS[name]
    for inputs, labels in (arrays[:2], arrays[2:]):
        present = np.unique(labels).tolist()
        if inputs.shape != (len(labels), *facts.shape) or present != list(range(facts.n_classes)):
            raise DataError(
                f"{where}, got images of shape {inputs.shape}, {len(labels)} labels and classes {present}; "
                "the files are damaged: delete the folder and run again"
            )
