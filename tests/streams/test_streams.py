"""Data sets, what each phase sees of them, and the tasks that they are cut into."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
from torchvision.datasets import mnist as torchvision_mnist
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import rotate

from orchestrator.core.errors import DataError
from orchestrator.spec.loading import parse_spec
from orchestrator.spec.sweep_spec import SweepSpec
from orchestrator.streams.checking import left_over_notes, refused_type, stream_faults
from orchestrator.streams.datasets import Dataset, PhaseData, held_out_rows
from orchestrator.streams.facts import DATASETS, DatasetFacts
from orchestrator.streams.settings import STREAMS, StreamSettings, number_of_tasks
from orchestrator.streams.sources.builtin import load_dataset
from orchestrator.streams.stream import Stream
from strategies import IncrementalType, derive_seed

CPU = torch.device("cpu")
TYPES: tuple[IncrementalType, ...] = ("task", "domain", "class")


@pytest.fixture(autouse=True)
def downloads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replace torchvision's download by one that fails at once; returns the addresses that were tried."""
    tried: list[str] = []

    def refuse(url: str, *args: Any, **kwargs: Any) -> None:
        tried.append(url)
        raise URLError("no route to host")

    monkeypatch.setattr(torchvision_mnist, "download_and_extract_archive", refuse)
    return tried


# Data sets.


def distinct_dataset(n: int = 200) -> Dataset:
    """Return a data set under digits' name in which no two images are equal, with classes of unequal size."""
    generator = np.random.default_rng(1)
    inputs = generator.integers(0, 17, (n + 50, 8, 8), dtype=np.uint8)
    assert len({image.tobytes() for image in inputs}) == n + 50
    labels = np.minimum(generator.geometric(0.25, n + 50) - 1, 9).astype(np.int64)
    labels[:10] = labels[n : n + 10] = np.arange(10)
    return Dataset("digits", inputs[:n], labels[:n], inputs[n:], labels[n:], DATASETS["digits"])


def contents(inputs: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> set[bytes]:
    return {image.tobytes() + label.tobytes() for image, label in zip(inputs, labels, strict=True)}


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5])
def test_validation_split_is_stratified(share: float) -> None:
    dataset = distinct_dataset()
    data = dataset.phase("search", share)
    for label in range(10):
        n = int((dataset.train_labels == label).sum())
        assert int((data.evaluation_labels == label).sum()) == max(round(share * n), 1)
        assert int((data.train_labels == label).sum()) == n - max(round(share * n), 1)


def test_search_phase_sees_no_test_image() -> None:
    dataset = distinct_dataset()
    data = dataset.phase("search", 0.2)
    train = contents(data.train_inputs, data.train_labels)
    held_out = contents(data.evaluation_inputs, data.evaluation_labels)
    test = contents(dataset.test_inputs, dataset.test_labels)
    assert not train & held_out
    assert not (train | held_out) & test
    assert train | held_out == contents(dataset.train_inputs, dataset.train_labels)
    images = {i.tobytes() for part in (data.train_inputs, data.evaluation_inputs) for i in part}
    assert not images & {image.tobytes() for image in dataset.test_inputs}


def test_confirm_phase_sees_all_data() -> None:
    dataset = distinct_dataset()
    data = dataset.phase("confirm", 0.2)
    np.testing.assert_array_equal(data.train_inputs, dataset.train_inputs)
    np.testing.assert_array_equal(data.train_labels, dataset.train_labels)
    np.testing.assert_array_equal(data.evaluation_inputs, dataset.test_inputs)
    np.testing.assert_array_equal(data.evaluation_labels, dataset.test_labels)


def test_validation_split_ignores_global_random_state() -> None:
    labels = distinct_dataset().train_labels
    first = held_out_rows(labels, 0.3)
    np.random.seed(123)  # noqa: NPY002 (the point of the test)
    torch.manual_seed(5)
    np.testing.assert_array_equal(first, held_out_rows(labels, 0.3))
    assert not held_out_rows(labels, 0.0).any()


def test_statistics_are_the_same_in_both_phases() -> None:
    dataset = distinct_dataset()
    pixels = dataset.train_inputs.astype(np.float64) / 16
    for phase in ("search", "confirm"):
        data = dataset.phase(phase, 0.2)  # type: ignore[arg-type]
        assert data.mean == pytest.approx(pixels.mean(), abs=1e-6)
        assert data.std == pytest.approx(pixels.std(), abs=1e-6)


@pytest.mark.parametrize("part", ["train_inputs", "train_labels", "test_inputs", "test_labels"])
def test_fingerprint_changes_with_any_value(part: str) -> None:
    dataset, changed = distinct_dataset(), distinct_dataset()
    assert dataset.fingerprint() == changed.fingerprint()
    array = getattr(changed, part)
    array[(3,) * array.ndim] ^= 1
    assert dataset.fingerprint() != changed.fingerprint()


def test_digits_are_complete_and_split_by_class(digits: Dataset) -> None:
    assert len(digits.train_labels) + len(digits.test_labels) == 1797
    assert digits.train_inputs.dtype == np.uint8
    assert digits.train_inputs.max() == 16
    whole = np.bincount(np.concatenate([digits.train_labels, digits.test_labels]))
    np.testing.assert_array_equal(np.bincount(digits.test_labels), np.round(whole * 0.2))


# Files in torchvision's layout.


def write_idx(path: Path, array: np.ndarray[Any, Any], kind: int = 8) -> None:
    sizes = b"".join(n.to_bytes(4, "big") for n in array.shape)
    path.write_bytes(bytes([0, 0, kind, array.ndim]) + sizes + array.tobytes())


def write_mnist(root: Path, name: str = "MNIST") -> Path:
    folder = root / name / "raw"
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for prefix, n in (("train", 40), ("t10k", 20)):
        write_idx(folder / f"{prefix}-images-idx3-ubyte", generator.integers(0, 256, (n, 28, 28), dtype=np.uint8))
        write_idx(folder / f"{prefix}-labels-idx1-ubyte", np.arange(n, dtype=np.uint8) % 10)
    return folder


@pytest.mark.parametrize(
    ("name", "folder"), [("mnist", "MNIST"), ("fashion-mnist", "FashionMNIST"), ("kmnist", "KMNIST")]
)
def test_torchvision_files_are_read_as_they_are(tmp_path: Path, downloads: list[str], name: str, folder: str) -> None:
    write_mnist(tmp_path, folder)
    dataset = load_dataset(name, tmp_path)
    assert dataset.train_inputs.shape == (40, 28, 28)
    assert dataset.test_inputs.shape == (20, 28, 28)
    assert dataset.train_labels.tolist() == [i % 10 for i in range(40)]
    assert (dataset.train_inputs.dtype, dataset.train_labels.dtype) == (np.uint8, np.int64)
    assert downloads == []


def edit(folder: Path, name: str, change: Callable[[bytes], bytes]) -> None:
    path = folder / name
    path.write_bytes(change(path.read_bytes()))


IMAGES, LABELS = "train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"

DAMAGE: dict[str, Callable[[Path], None]] = {
    "truncated images": lambda f: edit(f, IMAGES, lambda b: b[:-100]),
    "truncated labels": lambda f: edit(f, LABELS, lambda b: b[:-3]),
    "images cut in the header": lambda f: edit(f, IMAGES, lambda b: b[:7]),
    "empty file": lambda f: edit(f, IMAGES, lambda b: b""),
    "trailing bytes": lambda f: edit(f, IMAGES, lambda b: b + b"more"),
    "wrong magic": lambda f: edit(f, IMAGES, lambda b: b"\xff\xff\xff\xff" + b[4:]),
    "a page of HTML": lambda f: edit(f, IMAGES, lambda b: b"<!DOCTYPE html><html>login</html>"),
    "unknown type of number": lambda f: edit(f, LABELS, lambda b: b"\x00\x00\x0a\x01" + b[4:]),
    "labels are floats": lambda f: edit(f, LABELS, lambda b: b"\x00\x00\x0d\x01" + b[4:]),
    "label out of range": lambda f: edit(f, LABELS, lambda b: b[:-1] + bytes([10])),
    "a class is missing": lambda f: edit(f, LABELS, lambda b: b.replace(bytes([9]), bytes([8]))),
    "fewer labels than images": lambda f: write_idx(f / LABELS, np.arange(10, dtype=np.uint8)),
    "images of another size": lambda f: write_idx(f / IMAGES, np.zeros((40, 14, 14), dtype=np.uint8)),
}


def assert_in_our_form(error: DataError, folder: Path) -> None:
    message = str(error)
    assert message.startswith("data_dir: ")
    assert f"mnist in '{folder}' " in message
    assert "; " in message
    assert len(message.splitlines()) == 1
    assert " ()" not in message
    assert "Traceback" not in message


@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_files_are_reported_not_downloaded(tmp_path: Path, downloads: list[str], kind: str) -> None:
    folder = write_mnist(tmp_path)
    DAMAGE[kind](folder)
    with pytest.raises(DataError) as caught:
        load_dataset("mnist", tmp_path)
    assert_in_our_form(caught.value, folder)
    assert "delete the folder and run again" in str(caught.value)
    assert downloads == []


def make_directory(folder: Path) -> None:
    (folder / IMAGES).unlink()
    (folder / IMAGES).mkdir()


@pytest.mark.parametrize(
    ("damage", "missing"),
    [
        pytest.param(lambda f: [p.unlink() for p in f.iterdir()], "train-images-idx3-ubyte, ", id="all files"),
        pytest.param(lambda f: (f / LABELS).unlink(), f"lacks {LABELS}, and", id="a label file"),
        pytest.param(make_directory, f"lacks {IMAGES}, and", id="directory instead of file"),
    ],
)
def test_missing_files_are_named(
    tmp_path: Path, downloads: list[str], damage: Callable[[Path], None], missing: str
) -> None:
    folder = write_mnist(tmp_path)
    damage(folder)
    with pytest.raises(DataError, match="no route to host") as caught:
        load_dataset("mnist", tmp_path)
    assert_in_our_form(caught.value, folder)
    assert missing in str(caught.value)
    assert "pass --data-dir FOLDER" in str(caught.value)
    assert downloads


def test_a_missing_folder_is_named(tmp_path: Path, downloads: list[str]) -> None:
    with pytest.raises(DataError) as caught:
        load_dataset("mnist", tmp_path / "absent")
    assert_in_our_form(caught.value, tmp_path / "absent" / "MNIST" / "raw")
    assert downloads


def test_a_file_instead_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(DataError) as caught:
        load_dataset("mnist", tmp_path / "file")
    assert_in_our_form(caught.value, tmp_path / "file" / "MNIST" / "raw")


def test_a_fault_is_not_remembered(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        load_dataset("mnist", tmp_path)
    assert not (tmp_path / "MNIST").exists()
    write_mnist(tmp_path)
    assert len(load_dataset("mnist", tmp_path).train_labels) == 40


@pytest.mark.mnist
def test_real_mnist(mnist_dir: Path, downloads: list[str]) -> None:
    dataset = load_dataset("mnist", mnist_dir)
    assert np.bincount(dataset.train_labels).tolist() == [
        5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949,
    ]  # fmt: skip
    data = dataset.phase("search", 0.1)
    assert data.mean == pytest.approx(0.1307, abs=1e-4)
    assert data.std == pytest.approx(0.3081, abs=1e-4)
    assert len(data.train_labels) + len(data.evaluation_labels) == 60_000
    assert downloads == []


# Streams.

FACTS = DatasetFacts(tuple("0123456789"), (1, 8, 8), 255, "images of a test")


def numbered(n: int = 20) -> PhaseData:
    """Return images whose pixel i has the value i (of 255), so that a permutation can be read off; labels 0 … 9."""
    inputs = np.tile(np.arange(64, dtype=np.uint8).reshape(8, 8), (n, 1, 1))
    labels = np.arange(n, dtype=np.int64) % 10
    return PhaseData(inputs, labels, inputs[:10], labels[:10], FACTS, 0.25, 0.5)


def random_images(n: int = 30) -> PhaseData:
    inputs = np.random.default_rng(3).integers(0, 256, (n, 8, 8), dtype=np.uint8)
    labels = np.arange(n, dtype=np.int64) % 10
    return PhaseData(inputs, labels, inputs[:10], labels[:10], FACTS, 0.25, 0.5)


def stream_of(
    name: str, kind: IncrementalType = "domain", data: PhaseData | None = None, seed: int = 0, **settings: Any
) -> Stream:
    return Stream(name, StreamSettings(**settings), kind, seed, data or numbered(), CPU)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("name", ["split-digits", "permuted-digits", "rotated-digits"])
def test_labels_ranges_and_heads_of_each_scenario(name: str, kind: IncrementalType) -> None:
    if refused_type(name, kind):
        assert (name, kind) == ("rotated-digits", "class")
        return
    stream = stream_of(name, kind, n_tasks=3)
    width = 2 if name == "split-digits" else 10
    own = [(0, width)] * 3 if kind == "domain" else [(0, width), (width, 2 * width), (2 * width, 3 * width)]
    assert stream.n_tasks == 3
    assert stream.layout.ranges == tuple(own)
    assert [stream.layout.head_of(t) for t in range(3)] == ([0, 0, 0] if kind == "domain" else [0, 1, 2])
    for task in range(3):
        seen = {(0, own[task][1])} if kind == "class" else {own[task]}
        assert {stream.layout.inference_range(task, task + 1)} == seen
        for data, n_split in ((stream.train(task), 4), (stream.evaluation(task), 2)):
            assert len(data) == (n_split if name == "split-digits" else 5 * n_split)
            assert sorted(set(data.labels.tolist())) == list(range(*own[task]))
            assert (data.index, data.task_ids) == (task, task)
            assert data.inputs.shape == (len(data), 1, 8, 8)
            assert (data.inputs.dtype, data.labels.dtype) == (torch.float32, torch.int64)


@pytest.mark.parametrize(("name", "expected"), [("split-mnist", 5), ("permuted-mnist", 10), ("rotated-digits", 5)])
def test_number_of_tasks_by_default(name: str, expected: int) -> None:
    assert number_of_tasks(name, StreamSettings()) == expected


def task_classes(stream: Stream, data: PhaseData) -> list[list[int]]:
    """Return the classes of each task, in the order of their labels, read off images that hold their class."""
    found = []
    for task in range(stream.n_tasks):
        examples = stream.train(task)
        pairs = zip(examples.labels.tolist(), (examples.inputs[:, 0, 0, 0] * 255).round().int().tolist(), strict=True)
        found.append([value for _, value in sorted(set(pairs))])
    return found


def class_images(n: int = 40) -> PhaseData:
    labels = np.arange(n, dtype=np.int64) % 10
    inputs = np.broadcast_to(labels[:, None, None], (n, 8, 8)).astype(np.uint8)
    return PhaseData(inputs, labels, inputs[:10], labels[:10], FACTS, 0.0, 1.0)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]),
        ({"classes_per_task": 3}, [[0, 1, 2], [3, 4, 5], [6, 7, 8]]),
        ({"classes_per_task": 3, "leftover": "drop"}, [[0, 1, 2], [3, 4, 5], [6, 7, 8]]),
        ({"classes_per_task": 3, "leftover": "last_task"}, [[0, 1, 2], [3, 4, 5], [6, 7, 8, 9]]),
        ({"classes_per_task": 4, "leftover": "last_task"}, [[0, 1, 2, 3], [4, 5, 6, 7, 8, 9]]),
        ({"classes_per_task": 5, "leftover": "last_task"}, [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]),
        ({"n_tasks": 2, "classes_per_task": 4, "leftover": "last_task"}, [[0, 1, 2, 3], [4, 5, 6, 7, 8, 9]]),
        ({"n_tasks": 2}, [[0, 1], [2, 3]]),
        ({"class_order": [9, 3, 1, 0, 5, 7]}, [[9, 3], [1, 0], [5, 7]]),
        ({"class_order": [7, 2, 4], "classes_per_task": 1, "n_tasks": 2}, [[7], [2]]),
    ],
)
def test_classes_of_each_split_task(settings: dict[str, Any], expected: list[list[int]]) -> None:
    data = class_images()
    assert task_classes(stream_of("split-digits", "class", data, **settings), data) == expected


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, None),
        ({"classes_per_task": 5}, None),
        ({"n_tasks": 4}, "2 of 10 classes are in no task ('8', '9')"),
        ({"classes_per_task": 3, "leftover": "drop"}, "1 of 10 classes is in no task ('9')"),
        ({"classes_per_task": 3, "leftover": "last_task"}, "1 of 10 classes joins the last task ('9')"),
        ({"n_tasks": 4, "leftover": "last_task"}, "2 of 10 classes join the last task ('8', '9')"),
        ({"n_tasks": 1, "class_order": [7, 2, 4]}, "1 of 3 classes is in no task ('4')"),
        (
            {"n_tasks": 2, "class_order": "shuffled"},
            "6 of 10 classes are in no task (the trial's seed decides which)",
        ),
    ],
)
def test_notes_name_the_classes_left_over(settings: dict[str, Any], said: str | None) -> None:
    notes = left_over_notes("split-digits", StreamSettings(**settings), FACTS)
    assert notes == ([] if said is None else [f"streams.split-digits: {said}"])
    assert left_over_notes("permuted-digits", StreamSettings(n_tasks=2), FACTS) == []


def test_shuffled_class_order_follows_the_trials_seed() -> None:
    data = class_images()
    orders = [
        task_classes(stream_of("split-digits", "class", data, seed=s, class_order="shuffled"), data) for s in (0, 1, 0)
    ]
    assert orders[0] == orders[2] != orders[1]
    assert sorted(c for classes in orders[0] for c in classes) == list(range(10))


@pytest.mark.parametrize("name", ["split-digits", "permuted-digits", "rotated-digits"])
def test_nothing_else_depends_on_the_trials_seed(name: str) -> None:
    one, other = (stream_of(name, data=random_images(), seed=seed, n_tasks=3) for seed in (0, 77))
    for task in range(3):
        assert torch.equal(one.train(task).inputs, other.train(task).inputs)
        assert torch.equal(one.train(task).labels, other.train(task).labels)


def permutation_read_off(stream: Stream, task: int) -> list[int]:
    return [round(v * 255) for v in stream.train(task).inputs[0].flatten().tolist()]


def test_permutations() -> None:
    stream = stream_of("permuted-digits", n_tasks=4)
    orders = [permutation_read_off(stream, task) for task in range(4)]
    assert orders[0] == list(range(64))
    assert all(sorted(order) == list(range(64)) for order in orders)
    assert len({tuple(order) for order in orders}) == 4
    other = stream_of("permuted-digits", n_tasks=4, permutation_seed=1)
    assert permutation_read_off(other, 0) == orders[0]
    assert all(permutation_read_off(other, task) != orders[task] for task in (1, 2, 3))
    longer = stream_of("permuted-digits", n_tasks=6)
    assert [permutation_read_off(longer, task) for task in range(4)] == orders


@pytest.mark.parametrize(
    ("name", "field"),
    [("permuted-digits", "permutation_seed"), ("rotated-digits", "rotation_seed"), ("noisy-digits", "noise_seed")],
)
def test_transforms_may_follow_the_seed_of_the_trial(name: str, field: str) -> None:
    """Others for each trial's seed, the same again for the same; with a number they are the same for all."""
    data = random_images()

    def second(seed: int, value: Any) -> torch.Tensor:
        return stream_of(name, data=data, n_tasks=3, seed=seed, **{field: value}).train(1).inputs

    assert torch.equal(second(1, "trial"), second(1, "trial"))
    assert not torch.equal(second(1, "trial"), second(2, "trial"))
    assert torch.equal(second(1, 4), second(2, 4))
    first = stream_of(name, data=data, n_tasks=3, seed=1, **{field: "trial"}).train(0).inputs
    assert torch.equal(first, stream_of(name, data=data, n_tasks=3, seed=2, **{field: "trial"}).train(0).inputs)


def test_permutations_of_this_protocol_version() -> None:
    """Other permutations need a new PROTOCOL_VERSION, or old rows pass for new ones."""
    assert permutation_read_off(stream_of("permuted-digits"), 1)[:8] == [57, 36, 40, 4, 29, 37, 60, 44]


@pytest.mark.parametrize("name", ["permuted-digits", "rotated-digits"])
def test_training_and_evaluation_are_changed_alike(name: str) -> None:
    stream = stream_of(name, data=random_images(), n_tasks=3)
    for task in range(3):
        assert torch.equal(stream.train(task).inputs[:10], stream.evaluation(task).inputs)


def degrees(images: PhaseData, angle: float) -> torch.Tensor:
    pixels = torch.tensor(images.train_inputs)[:, None].float() / 255
    return rotate(pixels, angle, InterpolationMode.BILINEAR)


def test_rotations_are_evenly_spread() -> None:
    data = random_images()
    stream = stream_of("rotated-digits", data=data, n_tasks=4, max_rotation=120.0)
    assert torch.equal(stream.train(0).inputs[:, 0], torch.tensor(data.train_inputs).float() / 255)
    for task in (1, 2, 3):
        torch.testing.assert_close(stream.train(task).inputs, degrees(data, 30.0 * task))


def test_random_rotations_follow_their_seed() -> None:
    data = random_images()
    stream = stream_of("rotated-digits", data=data, n_tasks=3, rotation_seed=5, max_rotation=90.0)
    for task in (1, 2):
        angle = np.random.default_rng(derive_seed(5, "rotation", task)).uniform(0, 90)
        torch.testing.assert_close(stream.train(task).inputs, degrees(data, float(angle)))
    other = stream_of("rotated-digits", data=data, n_tasks=3, rotation_seed=6, max_rotation=90.0)
    assert torch.equal(other.train(0).inputs, stream.train(0).inputs)
    assert not torch.allclose(other.train(1).inputs, stream.train(1).inputs)


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_quarter_turn_equals_numpys(quarters: int) -> None:
    data = random_images()
    turned = stream_of("rotated-digits", data=data, n_tasks=4, max_rotation=360.0).train(quarters).inputs[:, 0]
    expected = np.rot90(data.train_inputs / np.float32(255), quarters, axes=(1, 2))
    np.testing.assert_allclose(turned[:, 1:-1, 1:-1], expected[:, 1:-1, 1:-1], atol=1e-4)


@pytest.mark.parametrize("name", ["split-digits", "permuted-digits", "rotated-digits"])
def test_normalisation(name: str) -> None:
    data = random_images()
    unit = stream_of(name, data=data, n_tasks=2)
    standard = stream_of(name, data=data, n_tasks=2, normalisation="standard")
    for task in (0, 1):
        pixels = unit.train(task).inputs
        assert 0 <= pixels.min() <= pixels.max() <= 1
        torch.testing.assert_close(standard.train(task).inputs, (pixels - data.mean) / data.std)
    rows = slice(None) if name != "split-digits" else data.train_labels < 2
    np.testing.assert_allclose(unit.train(0).inputs[:, 0], data.train_inputs[rows] / np.float32(255), atol=1e-7)


def test_padding_adds_background_on_each_side() -> None:
    data = random_images()
    stream = stream_of("rotated-digits", data=data, n_tasks=2, padding=2, normalisation="standard")
    assert stream.input_shape == (1, 12, 12)
    images = stream.train(0).inputs
    inner = images[:, :, 2:-2, 2:-2]
    torch.testing.assert_close(inner, stream_of("rotated-digits", data=data, normalisation="standard").train(0).inputs)
    background = torch.ones(12, 12, dtype=torch.bool)
    background[2:-2, 2:-2] = False
    assert torch.all(images[:, 0, background] == -data.mean / data.std)


def test_padding_comes_before_the_permutation() -> None:
    stream = stream_of("permuted-digits", n_tasks=2, padding=2)
    plain, permuted = (stream.train(task).inputs[0].flatten() for task in (0, 1))
    order = np.random.default_rng(derive_seed(0, "permutation", 1)).permutation(144)
    assert torch.equal(permuted, plain[torch.from_numpy(order)])
    border = torch.ones(12, 12, dtype=torch.bool)
    border[2:-2, 2:-2] = False
    assert permuted[border.flatten()].count_nonzero() > 0, "the background stayed where it was"


def test_many_rows_are_made_as_few_are() -> None:
    """The stream makes 8,192 rows at a time; here are more."""
    few = random_images(30)
    many = PhaseData(
        np.tile(few.train_inputs, (300, 1, 1)), np.tile(few.train_labels, 300), few.evaluation_inputs,
        few.evaluation_labels, FACTS, 0.25, 0.5,
    )  # fmt: skip
    expected = stream_of("permuted-digits", data=few, n_tasks=2).train(1).inputs
    images = stream_of("permuted-digits", data=many, n_tasks=2).train(1).inputs
    assert torch.equal(images, expected.repeat(300, 1, 1, 1))


def test_read_only_arrays_are_left_as_they_are() -> None:
    """Arrays from Ray's object store are read-only."""
    data = random_images()
    for array in (data.train_inputs, data.train_labels):
        array.setflags(write=False)
    before = data.train_inputs.copy()
    for name in ("split-digits", "permuted-digits", "rotated-digits"):
        stream_of(name, data=data, n_tasks=2, normalisation="standard").train(1)
    np.testing.assert_array_equal(data.train_inputs, before)


# Settings.


@pytest.mark.parametrize(
    ("stream", "settings", "place"),
    [
        (
            "split-digits",
            {"permutation_seed": 1},
            "permutation_seed: only permuted streams have this field; leave it out",
        ),
        ("split-digits", {"rotation_seed": 1}, "rotation_seed: only rotated streams have"),
        ("permuted-digits", {"class_order": "shuffled"}, "class_order: only split and folder and table streams have"),
        ("rotated-digits", {"classes_per_task": 5}, "classes_per_task: only split and folder"),
        ("split-digits", {"class_order": [0, 0, 1]}, "class_order: expected different classes from 0 to 9"),
        ("split-digits", {"class_order": [0, 10]}, "class_order: expected different classes from 0 to 9"),
        ("split-digits", {"n_tasks": 6}, "n_tasks: 6 x 2 (n_tasks x classes_per_task) is more than the 10 classes"),
        ("split-digits", {"classes_per_task": 11}, "n_tasks: 1 x 11 (n_tasks x"),
        (
            "split-digits",
            {"n_tasks": 2, "class_order": [1, 2, 3]},
            "n_tasks: 2 x 2 (n_tasks x classes_per_task) is more than the 3 classes",
        ),
    ],
)
def test_faults_of_settings(stream: str, settings: dict[str, Any], place: str) -> None:
    (fault,) = stream_faults(stream, StreamSettings(**settings))
    assert fault.startswith(place)
    assert "; " in fault


@pytest.mark.parametrize("name", STREAMS)
def test_a_resolved_spec_is_read_back(name: str) -> None:
    content = {"scenarios": [f"{name}/domain"], "methods": ["naive"], "streams": {name: {"n_tasks": 3}}}
    spec = parse_spec(content)
    assert isinstance(spec, SweepSpec)
    assert parse_spec(spec.model_dump(mode="json")) == spec
