"""Colour images: CIFAR's files, and the streams cut from them."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
from torchvision import datasets
from torchvision.datasets import cifar

from orchestrator.core.errors import DataError
from orchestrator.streams.datasets import Dataset
from orchestrator.streams.facts import DatasetFacts
from orchestrator.streams.settings import StreamSettings
from orchestrator.streams.sources.builtin import load_dataset
from orchestrator.streams.stream import Stream

KINDS = {"cifar10": (datasets.CIFAR10, 10, "labels"), "cifar100": (datasets.CIFAR100, 100, "fine_labels")}
N_EACH = 200


@pytest.fixture(autouse=True)
def downloads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replace torchvision's download by one that fails at once; returns the addresses that were tried."""
    tried: list[str] = []

    def refuse(url: str, *args: Any, **kwargs: Any) -> None:
        tried.append(url)
        raise URLError("no route to host")

    monkeypatch.setattr(cifar, "download_and_extract_archive", refuse)
    return tried


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that writes a small data set in CIFAR's format, its checksums known to torchvision."""

    def dump(name: str) -> tuple[Path, np.ndarray[Any, Any]]:
        source, n_classes, key = KINDS[name]
        folder = tmp_path / source.base_folder
        folder.mkdir()
        names = [file for file, _ in (*source.train_list, *source.test_list)]
        pixels = np.random.default_rng(0).integers(0, 256, (len(names), N_EACH, 3072), dtype=np.uint8)
        sums = {}
        for file, part in zip(names, pixels, strict=True):
            content = {"data": part, key: [n % n_classes for n in range(N_EACH)]}
            (folder / file).write_bytes(pickle.dumps(content))
        (folder / source.meta["filename"]).write_bytes(pickle.dumps({source.meta["key"]: [str(c) for c in range(9)]}))
        for file in folder.iterdir():
            sums[file.name] = hashlib.md5(file.read_bytes()).hexdigest()
        for part_list in ("train_list", "test_list"):
            known = [[file, sums[file]] for file, _ in getattr(source, part_list)]
            monkeypatch.setattr(source, part_list, known)
        monkeypatch.setattr(source, "meta", source.meta | {"md5": sums[source.meta["filename"]]})
        return tmp_path, pixels

    return dump


@pytest.mark.parametrize("name", KINDS)
def test_files_are_read_channels_first(write: Any, downloads: list[str], name: str) -> None:
    root, pixels = write(name)
    dataset = load_dataset(name, root)
    n_train = (len(pixels) - 1) * N_EACH
    assert dataset.train_inputs.shape == (n_train, 3, 32, 32)
    assert dataset.test_inputs.shape == (N_EACH, 3, 32, 32)
    assert (dataset.train_inputs.dtype, dataset.train_labels.dtype) == (np.uint8, np.int64)
    np.testing.assert_array_equal(dataset.train_inputs.reshape(n_train, -1), pixels[:-1].reshape(n_train, -1))
    assert dataset.test_labels.tolist() == [n % dataset.facts.n_classes for n in range(N_EACH)]
    assert downloads == []


def test_a_damaged_file_is_reported_not_downloaded(write: Any, downloads: list[str]) -> None:
    root, _ = write("cifar10")
    path = root / "cifar-10-batches-py" / "data_batch_3"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match=r"the files of cifar10 in .* are damaged .*; delete the folder and run again"):
        load_dataset("cifar10", root)
    assert downloads == []


def test_a_mistyped_folder_is_not_left_behind(tmp_path: Path, downloads: list[str]) -> None:
    with pytest.raises(DataError, match="the download failed"):
        load_dataset("cifar10", tmp_path / "mistyped" / "data")
    assert list(tmp_path.iterdir()) == []


def test_what_is_missing_is_named(write: Any, downloads: list[str]) -> None:
    root, _ = write("cifar100")
    (root / "cifar-100-python" / "test").unlink()
    with pytest.raises(DataError, match=r"cifar100 in .* lacks test, and the download failed .*no route to host"):
        load_dataset("cifar100", root)
    assert len(downloads) == 1


@pytest.mark.parametrize("kind", ["task", "domain", "class"])
def test_a_split_of_colour_images(write: Any, kind: str) -> None:
    root, _ = write("cifar100")
    dataset = load_dataset("cifar100", root)
    settings = StreamSettings(classes_per_task=20, padding=1)
    stream = Stream("split-cifar100", settings, kind, 0, dataset.phase("confirm", 0.1), torch.device("cpu"))  # type: ignore[arg-type]
    assert (stream.n_tasks, stream.input_shape) == (5, (3, 34, 34))
    assert stream.layout.n_outputs == (20 if kind == "domain" else 100)
    task = stream.evaluation(4)
    assert task.inputs.shape == (40, 3, 34, 34)
    rows = dataset.test_labels >= 80
    np.testing.assert_allclose(task.inputs[:, :, 1:-1, 1:-1], dataset.test_inputs[rows] / np.float32(255), atol=1e-7)
    assert not task.inputs[:, :, 0].any()


def test_each_channel_has_its_own_mean_and_deviation() -> None:
    """By hand: red 0 and 255 has mean 1/2, deviation 1/2; green 51 and 51 has 1/5 and none; blue is 0 and 51."""
    inputs = np.array([[0, 51, 0], [255, 51, 51]], dtype=np.uint8)[:, :, None, None]
    labels = np.array([0, 1])
    facts = DatasetFacts(("a", "b"), (3, 1, 1), 255, "")
    data = Dataset("photos", inputs, labels, inputs, labels, facts).phase("confirm", 0.1)
    np.testing.assert_allclose(np.squeeze(data.mean), [0.5, 0.2, 0.1], rtol=1e-6)
    np.testing.assert_allclose(np.squeeze(data.std), [0.5, 1.0, 0.1], rtol=1e-6)
    settings = StreamSettings(folder="", normalisation="standard")
    images = Stream("photos", settings, "task", 0, data, torch.device("cpu")).train(0).inputs
    torch.testing.assert_close(images[:, :, 0, 0], torch.tensor([[-1.0, 0.0, -1.0], [1.0, 0.0, 1.0]]))
