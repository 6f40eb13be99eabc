"""Reads the data sets that come with scikit-learn and torchvision."""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.core.errors import DataError
from orchestrator.streams.datasets import Dataset, held_out_rows
from orchestrator.streams.facts import DATASETS

_IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
_CLASSES = {
    "mnist": "MNIST",
    "fashion-mnist": "FashionMNIST",
    "kmnist": "KMNIST",
    "cifar10": "CIFAR10",
    "cifar100": "CIFAR100",
}
"""Data set -> its class in torchvision."""


@cache
def load_dataset(name: str, data_dir: Path) -> Dataset:
    """Return the built-in data set `name`, read from `data_dir` or downloaded into it once.

    Raises:
        DataError: if it is damaged, or missing and cannot be downloaded.
    """
    return _load_digits() if name == "digits" else _load_torchvision(name, data_dir)


def _load_digits() -> Dataset:
    """Return scikit-learn's digits, a fixed fifth of each class as the test split."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    inputs, labels = bunch.images.astype(np.uint8), bunch.target.astype(np.int64)
    test = held_out_rows(labels, 0.2)
    return Dataset("digits", inputs[~test], labels[~test], inputs[test], labels[test], DATASETS["digits"])


def _load_torchvision(name: str, data_dir: Path) -> Dataset:
    from torchvision import datasets

    source = getattr(datasets, _CLASSES[name])
    folder, files = _place(source, data_dir)
    missing = [file for file in files if not (folder / file).is_file()]
    if missing:
        new = [place for place in (folder, *folder.parents) if not place.exists()]
        try:
            source(data_dir, download=True)
        except (OSError, RuntimeError) as error:
            for place in new:  # a mistyped --data-dir leaves no empty folders
                with suppress(OSError):
                    place.rmdir()
            raise DataError(
                f"data_dir: {name} in '{folder}' lacks {', '.join(missing)}, and the download failed "
                f"({_reason(error)}); pass --data-dir FOLDER with torchvision's layout, or connect and run again"
            ) from error
    try:
        splits = [source(data_dir, train=train) for train in (True, False)]
    except Exception as error:
        raise DataError(_damaged(name, folder, _reason(error))) from error
    arrays = [np.asarray(part) for split in splits for part in (split.data, split.targets)]
    arrays[::2] = [_channels_first(inputs) for inputs in arrays[::2]]
    _check_arrays(name, folder, arrays)
    train_inputs, train_labels, test_inputs, test_labels = arrays
    return Dataset(
        name, train_inputs, train_labels.astype(np.int64), test_inputs, test_labels.astype(np.int64), DATASETS[name]
    )


def _place(source: Any, data_dir: Path) -> tuple[Path, list[str]]:
    """Return torchvision's folder of a data set, and the files that it reads there."""
    if not hasattr(source, "base_folder"):
        return data_dir / source.__name__ / "raw", list(_IDX_FILES)
    parts = [name for name, _ in (*source.train_list, *source.test_list)]
    return data_dir / source.base_folder, [*parts, source.meta["filename"]]


def _channels_first(inputs: NDArray[Any]) -> NDArray[Any]:
    """Return colour images (N, H, W, 3) as (N, 3, H, W); grey ones as they are."""
    return np.ascontiguousarray(inputs.transpose(0, 3, 1, 2)) if inputs.ndim == 4 else inputs


def _reason(error: Exception) -> str:
    """Return what an error says in one short line, or its type if it says nothing."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def _damaged(name: str, folder: Path, reason: str) -> str:
    return f"data_dir: the files of {name} in '{folder}' are damaged ({reason}); delete the folder and run again"


def _check_arrays(name: str, folder: Path, arrays: list[NDArray[Any]]) -> None:
    facts = DATASETS[name]
    shape = facts.shape[1:] if facts.shape[0] == 1 else facts.shape
    for inputs, labels in (arrays[:2], arrays[2:]):
        present = np.unique(labels).tolist()
        if inputs.shape != (len(labels), *shape) or present != list(range(facts.n_classes)):
            reason = f"images of shape {inputs.shape}, {len(labels)} labels, classes {present}"
            raise DataError(_damaged(name, folder, reason))
