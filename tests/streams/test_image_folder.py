"""A user's own images: how folders are read, and the faults that are reported."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from orchestrator.core.errors import DataError
from orchestrator.streams.datasets import Dataset
from orchestrator.streams.settings import StreamSettings
from orchestrator.streams.sources.loading import load_stream
from orchestrator.streams.sources.order import natural


def write_image(path: Path, value: int = 0, size: tuple[int, int] = (4, 4), mode: str = "L") -> None:
    """Write an image of `size` (height, width) in which all is `value`; in RGB only the red."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = size if mode == "L" else (*size, len(mode))
    pixels = np.zeros(shape, dtype=np.uint8)
    pixels[..., 0] = value
    if mode == "L":
        pixels[:] = value
    Image.fromarray(pixels, mode).save(path) if mode != "L" else Image.fromarray(pixels).save(path)


def write_classes(root: Path, n_images: dict[str, int], **image: Any) -> Path:
    """Write as many images of each class; the pixels of the n-th are 10 x class + n."""
    for index, (name, n) in enumerate(n_images.items()):
        for number in range(n):
            write_image(root / name / f"{number}.png", 10 * index + number, **image)
    return root


def load(root: Path, **settings: Any) -> Dataset:
    return load_stream("photos", StreamSettings(folder=str(root), **settings), Path("nowhere"))


def faults(root: Path, **settings: Any) -> tuple[str, ...]:
    with pytest.raises(DataError) as caught:
        load(root, **settings)
    assert all(fault.startswith("streams.photos.") and "; " in fault for fault in caught.value.faults)
    return caught.value.faults


def values(inputs: Any) -> list[int]:
    return [int(image.flat[0]) for image in inputs]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["task10", "task", "task2", "Task1"], ["task", "Task1", "task2", "task10"]),
        (["10", "9", "a", "1a", ""], ["", "1a", "9", "10", "a"]),
        (["a1b2", "a1b10", "a1"], ["a1", "a1b2", "a1b10"]),
    ],
)
def test_natural_order(names: list[str], expected: list[str]) -> None:
    assert sorted(names, key=natural) == expected


def test_class_folders_in_natural_order(tmp_path: Path) -> None:
    data = load(write_classes(tmp_path, {"c10": 5, "c2": 5}))
    assert data.facts.class_names == ("c2", "c10")
    assert (data.facts.shape, data.facts.task_names) == ((1, 4, 4), ())
    assert data.train_inputs.shape == (8, 4, 4)
    assert data.train_inputs.dtype == np.uint8
    assert data.train_tasks is None
    for part in ((data.train_inputs, data.train_labels), (data.test_inputs, data.test_labels)):
        assert [label == (value < 10) for value, label in zip(values(part[0]), part[1], strict=True)]
        assert [1 - value // 10 for value in values(part[0])] == part[1].tolist()
    assert sorted([*values(data.train_inputs), *values(data.test_inputs)]) == [*range(5), *range(10, 15)]
    assert data.test_labels.tolist() == [0, 1]


@pytest.mark.parametrize(("share", "n_test"), [(0.2, 2), (0.5, 5), (0.99, 9), (0.01, 1)])
def test_the_test_split_is_a_share_of_each_class(tmp_path: Path, share: float, n_test: int) -> None:
    data = load(write_classes(tmp_path, {"a": 10, "b": 10}), test_share=share)
    assert np.bincount(data.test_labels).tolist() == [n_test, n_test]


def test_a_folder_a_task_with_classes_of_its_own(tmp_path: Path) -> None:
    write_classes(tmp_path / "task10", {"a": 4, "b": 3})
    write_classes(tmp_path / "task2", {"b": 6, "c": 2})
    data = load(tmp_path)
    assert data.facts.task_names == ("task2", "task10")
    assert data.facts.class_names == ("a", "b", "c")
    assert data.facts.task_classes == ((1, 2), (0, 1))
    assert data.train_tasks is not None
    assert data.test_tasks is not None
    trained = np.bincount(data.train_tasks * 3 + data.train_labels, minlength=6).tolist()
    tested = np.bincount(data.test_tasks * 3 + data.test_labels, minlength=6).tolist()
    assert (trained, tested) == ([0, 5, 1, 3, 2, 0], [0, 1, 1, 1, 1, 0])


def test_train_and_test_folders_are_taken_as_they_are(tmp_path: Path) -> None:
    write_classes(tmp_path / "train", {"a": 2, "b": 3})
    write_classes(tmp_path / "test", {"a": 1, "b": 2})
    data = load(tmp_path)
    assert values(data.train_inputs) == [0, 1, 10, 11, 12]
    assert values(data.test_inputs) == [0, 10, 11]


def test_train_and_test_may_hold_tasks(tmp_path: Path) -> None:
    for part in ("train", "test"):
        for task in ("1", "2"):
            write_classes(tmp_path / part / task, {"a": 1, "b": 1})
    data = load(tmp_path)
    assert data.test_tasks is not None
    assert data.test_tasks.tolist() == [0, 0, 1, 1]
    assert data.facts.task_classes == ((0, 1), (0, 1))


def test_one_image_in_colour_makes_all_of_them_rgb(tmp_path: Path) -> None:
    write_classes(tmp_path, {"a": 2, "b": 1})
    write_image(tmp_path / "b" / "z.png", 200, mode="RGB")
    data = load(tmp_path)
    assert data.facts.shape == (3, 4, 4)
    inputs = np.concatenate([data.train_inputs, data.test_inputs])
    assert sorted(image[:, 0, 0].tolist() for image in inputs) == [[0, 0, 0], [1, 1, 1], [10, 10, 10], [200, 0, 0]]


def test_transparency_is_dropped_and_palettes_are_rgb(tmp_path: Path) -> None:
    write_classes(tmp_path, {"a": 2, "b": 2})
    Image.new("RGBA", (4, 4), (9, 8, 7, 0)).save(tmp_path / "a" / "0.png")
    Image.new("RGB", (4, 4), (50, 60, 70)).quantize(4).save(tmp_path / "a" / "1.png")
    data = load(tmp_path)
    inputs = np.concatenate([data.train_inputs, data.test_inputs])
    assert {tuple(image[:, 0, 0].tolist()) for image in inputs} >= {(9, 8, 7), (50, 60, 70)}


def test_images_are_resized(tmp_path: Path) -> None:
    write_classes(tmp_path, {"a": 2}, size=(4, 6))
    write_classes(tmp_path, {"a": 0, "b": 2}, size=(8, 2))
    assert load(tmp_path, image_size=5).facts.shape == (1, 5, 5)
    data = load(tmp_path, image_size=[3, 7])
    assert data.facts.shape == (1, 3, 7)
    assert sorted([*values(data.train_inputs), *values(data.test_inputs)]) == [0, 1, 10, 11]


def test_a_photograph_is_turned_as_the_camera_was_held(tmp_path: Path) -> None:
    write_classes(tmp_path, {"a": 2, "b": 1}, size=(6, 4))
    wide = Image.new("L", (6, 4))
    wide.paste(255, (0, 0, 3, 4))  # left half white
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter, clockwise: left becomes top
    wide.save(tmp_path / "b" / "1.png", exif=exif)
    data = load(tmp_path)
    bright = next(i for i in [*data.train_inputs, *data.test_inputs] if i.max() == 255)
    assert bright.shape == (6, 4)
    assert (bright[:3] == 255).all()
    assert (bright[3:] == 0).all()


def test_other_files_and_hidden_ones_are_passed_over(tmp_path: Path) -> None:
    write_classes(tmp_path, {"a": 2, "b": 2})
    (tmp_path / "notes.txt").write_text("of mine")
    (tmp_path / "a" / "labels.csv").write_text("x")
    (tmp_path / "a" / "._0.png").write_bytes(b"\0")
    (tmp_path / ".cache").mkdir()
    assert load(tmp_path).facts.class_names == ("a", "b")


def test_changed_files_are_read_again(tmp_path: Path) -> None:
    write_classes(tmp_path, {"a": 2, "b": 2})
    before = load(tmp_path)
    assert load(tmp_path) is before
    write_image(tmp_path / "a" / "7.png", 77)
    assert load(tmp_path).fingerprint() != before.fingerprint()


# Faults.


def loose(root: Path) -> None:
    write_image(root / "0.png")


def deeper(root: Path) -> None:
    write_image(root / "a" / "more" / "0.png")


def empty_class(root: Path) -> None:
    (root / "z").mkdir()


def other_size(root: Path) -> None:
    write_image(root / "b" / "9.png", size=(4, 5))


def no_image(root: Path) -> None:
    (root / "b" / "9.png").write_bytes(b"<html>")


def truncated(root: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (4, 4), dtype=np.uint8)
    Image.fromarray(noise).save(root / "b" / "9.png")
    content = (root / "b" / "9.png").read_bytes()
    (root / "b" / "9.png").write_bytes(content[: len(content) // 2])


def sixteen_bits(root: Path) -> None:
    Image.fromarray(np.full((4, 4), 40_000, dtype=np.uint16)).save(root / "b" / "9.png")


def one_example(root: Path) -> None:
    write_image(root / "lonely" / "0.png")


WRONG: dict[str, tuple[Callable[[Path], None], str]] = {
    "images outside of classes": (loose, "0.png' is in no class folder; move it into one"),
    "a folder among images": (deeper, "/a/more' lies among the images of a class; use"),
    "a class without images": (empty_class, "/z'; add some or delete it"),
    "another size": (other_size, "/b/9.png' is 4 x 5, others 4 x 4; set image_size: 4"),
    "no image": (no_image, "/b/9.png' cannot be read"),
    "half an image": (truncated, "/b/9.png' cannot be read"),
    "16 bits a channel": (sixteen_bits, "/b/9.png' is of mode I;16"),
    "one example": (one_example, "got 1 of class 'lonely'; add examples"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_each_fault_names_the_file(tmp_path: Path, kind: str) -> None:
    damage, said = WRONG[kind]
    damage(write_classes(tmp_path, {"a": 3, "b": 3}))
    (fault,) = faults(tmp_path)
    assert fault.startswith("streams.photos.folder")
    assert said in fault


def test_folders_without_two_classes_are_refused(tmp_path: Path) -> None:
    assert "there is no folder" in faults(tmp_path / "absent")[0]
    assert "has no class folders; put" in faults(tmp_path)[0]
    assert "expected 2 classes or more, got 'a'" in faults(write_classes(tmp_path, {"a": 3}))[0]


def test_ten_unreadable_images_are_named(tmp_path: Path) -> None:
    write_classes(tmp_path, {"a": 3, "b": 3})
    for number in range(13):
        (tmp_path / "a" / f"x{number}.jpg").write_bytes(b"")
    with pytest.raises(DataError) as caught:
        load(tmp_path)
    assert len(caught.value.faults) == 11
    assert "x0.jpg" in caught.value.faults[0]
    assert caught.value.faults[-1] == "and 3 more like the last"
    assert str(caught.value).startswith("the data have 11 faults:\n  streams.photos.folder: ")


def test_one_example_of_a_class_in_a_task_names_both(tmp_path: Path) -> None:
    write_classes(tmp_path / "2023", {"a": 2, "b": 1})
    write_classes(tmp_path / "2024", {"a": 2, "b": 2})
    (fault,) = faults(tmp_path)
    assert "got 1 of class 'b' in task '2023'; " in fault


def test_train_and_test_must_fit_each_other(tmp_path: Path) -> None:
    write_classes(tmp_path / "train", {"a": 2, "b": 2})
    write_classes(tmp_path / "test", {"a": 2, "c": 2})
    found = faults(tmp_path)
    assert "class 'c' has test examples but no training examples; add some" in found[0]
    assert "class 'b' has no test examples; add some" in found[1]
    assert "test_share: has no effect, because" in faults(tmp_path, test_share=0.5)[0]
    write_image(tmp_path / "val" / "a" / "0.png")
    assert "holds 'val' beside train and test; move it away" in faults(tmp_path)[0]
