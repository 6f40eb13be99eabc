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
from orchestrator.streams.sources.image_files import SUFFIXES
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


def corners(data: Dataset) -> set[tuple[int, ...]]:
    """Return the first pixel of every image in colour."""
    inputs = np.concatenate([data.train_inputs, data.test_inputs])
    return {tuple(image[:, 0, 0].tolist()) for image in inputs}


def test_palettes_are_rgb(tmp_path: Path) -> None:
    write_classes(tmp_path, {"a": 2, "b": 2})
    Image.new("RGB", (4, 4), (50, 60, 70)).quantize(4).save(tmp_path / "a" / "1.png")
    assert corners(load(tmp_path)) >= {(50, 60, 70)}


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
    write_image(tmp_path / "more" / "a" / "0.png")
    assert "holds 'more' beside train and test; move it away" in faults(tmp_path)[0]


# Folders that are a split, or hold all the others, are neither tasks nor classes.


def write_split(root: Path, *folders: str, classes: tuple[str, ...] = ("a", "b")) -> Path:
    """Write two images of each class under each folder; no two images are equal."""
    for number, folder in enumerate(folders):
        for index, name in enumerate(classes):
            for image in (0, 1):
                write_image(root / folder / name / f"{image}.png", 40 * number + 10 * index + image)
    return root


SPLITS: dict[str, tuple[tuple[str, ...], list[int], list[int]]] = {
    # name: (folders, tens of the training images, tens of the test images)
    "train and test": (("train", "test"), [0], [1]),
    "in title case": (("Train", "Test"), [0], [1]),
    "in upper case": (("TRAIN", "TEST"), [0], [1]),
    "long words": (("Training", "Testing"), [0], [1]),
    "a long word and a short one": (("training", "test"), [0], [1]),
    "validation is the test": (("train", "val"), [0], [1]),
    "valid is the test": (("train", "valid"), [0], [1]),
    "long validation is the test": (("Train", "Validation"), [0], [1]),
    "dev is the test": (("train", "dev"), [0], [1]),
    "eval is the test": (("train", "eval"), [0], [1]),
    "validation is trained on": (("train", "val", "test"), [0, 1], [2]),
    "valid is trained on": (("train", "valid", "test"), [0, 1], [2]),
    "validation first": (("VALIDATION", "Train", "Test"), [1, 0], [2]),
    "dev and eval": (("train", "dev", "eval"), [0, 1], [2]),
    "eval is trained on": (("train", "eval", "test"), [0, 1], [2]),
    "sets": (("training_set", "test_set"), [0], [1]),
    "one word": (("trainset", "testset"), [0], [1]),
    "camel case": (("TrainingSet", "TestSet"), [0], [1]),
    "a common prefix": (("seg_train", "seg_test"), [0], [1]),
    "a year": (("train2017", "val2017"), [0], [1]),
    "repeated": (("seg_train/seg_train", "seg_test/seg_test"), [0], [1]),
    "in a folder": (("archive/animals/train", "archive/animals/val"), [0], [1]),
    "around a folder": (("train/images", "test/images"), [0], [1]),
}


@pytest.mark.parametrize("kind", SPLITS)
def test_a_split_is_no_task(tmp_path: Path, kind: str) -> None:
    folders, train, test = SPLITS[kind]
    data = load(write_split(tmp_path, *folders))
    assert (data.facts.class_names, data.facts.task_names) == (("a", "b"), ())
    assert values(data.train_inputs) == [40 * n + pixel for n in train for pixel in (0, 1, 10, 11)]
    assert values(data.test_inputs) == [40 * n + pixel for n in test for pixel in (0, 1, 10, 11)]
    assert any("the training split" in note for note in data.notes)


def test_notes_say_what_became_of_the_validation_folder(tmp_path: Path) -> None:
    where = "streams.photos.folder: "
    (only,) = load(write_split(tmp_path / "1", "train", "val")).notes
    assert (
        only == f"{where}'train' is the training split and 'val' is used as the test split, because there is no other"
    )
    split, added = load(write_split(tmp_path / "2", "train", "val", "test")).notes
    assert split == f"{where}'train' is the training split and 'test' the test split"
    assert added == (
        f"{where}'val' is added to the training split, from which the search draws its own validation split"
    )


def test_a_split_may_lie_in_tasks_or_classes(tmp_path: Path) -> None:
    tasks = load(write_split(tmp_path / "tasks", *(f"{t}/{s}" for t in ("2023", "2024") for s in ("train", "test"))))
    assert (tasks.facts.task_names, tasks.facts.class_names) == (("2023", "2024"), ("a", "b"))
    assert tasks.test_tasks is not None
    assert tasks.test_tasks.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    inside = load(write_split(tmp_path / "classes", "cat", "dog", classes=("Train", "Test")))
    assert (inside.facts.task_names, inside.facts.class_names) == ((), ("cat", "dog"))
    assert values(inside.test_inputs) == [0, 1, 40, 41] or values(inside.test_inputs) == [10, 11, 50, 51]


def test_names_that_only_resemble_a_split_are_tasks_or_classes(tmp_path: Path) -> None:
    vehicles = load(write_split(tmp_path / "classes", ".", classes=("bus", "train", "contest")))
    assert vehicles.facts.class_names == ("bus", "contest", "train")
    sites = load(write_split(tmp_path / "tasks", "test_site_a", "test_site_b"))
    assert sites.facts.task_names == ("test_site_a", "test_site_b")


@pytest.mark.parametrize(
    ("folders", "said"),
    [
        (("train", "test", "extra"), "holds 'extra' beside train and test; move it away"),
        (("seg_train", "seg_test", "seg_pred"), "holds 'seg_pred' beside seg_train and seg_test; move it away"),
        (("trainA", "trainB", "testA", "testB"), "has the name of a split, and lies beside"),
        (("train", "unlabelled"), "has the name of a split, and lies beside 'unlabelled'"),
        (("train", "val", "extra"), "holds 'extra' beside train and val; move it away"),
        (("train", "training", "test"), "of which 2 would be for training; keep one folder train and one folder test"),
        (("train", "test", "testing"), "of which 2 would be for the test; keep one folder train and one folder test"),
        (("train", "val", "dev"), "of which 2 would be for the test; keep one folder train and one folder test"),
        (("test", "val"), "of which none would be for training; keep one folder train and one folder test"),
        (
            ("test",),
            "holds 'test' and no folder 'train'; add the training images, or rename the folder if it is a task",
        ),
        (("day1", "day2", "test"), "'test' in "),
        (("train", "Train"), "' has the name of a split, and lies beside "),
        (("train1", "test2"), "has the name of a split, and lies beside"),
    ],
)
def test_what_may_or_may_not_be_a_split_is_refused(tmp_path: Path, folders: tuple[str, ...], said: str) -> None:
    (fault,) = faults(write_split(tmp_path, *folders))
    assert said in fault


@pytest.mark.parametrize("folder", ["animals", "archive/animals", "2024", "archive/train"])
def test_a_lone_folder_is_looked_through(tmp_path: Path, folder: str) -> None:
    write_split(tmp_path, folder)
    (tmp_path / "__MACOSX" / "animals" / "a").mkdir(parents=True)
    write_image(tmp_path / "__MACOSX" / "animals" / "a" / "x.png")
    data = load(tmp_path)
    assert (data.facts.class_names, data.facts.task_names) == (("a", "b"), ())
    assert len(data.notes) == len(Path(folder).parts)
    assert "holds all the images of" in data.notes[0]


def test_a_folder_of_images_in_each_class_is_no_class(tmp_path: Path) -> None:
    data = load(write_split(tmp_path, "cat", "dog", classes=("images",)))
    assert (data.facts.class_names, data.facts.task_names) == (("cat", "dog"), ())
    assert "each class has its images in a folder 'images'" in data.notes[0]


def test_a_test_split_without_classes_is_refused(tmp_path: Path) -> None:
    """As in Tiny ImageNet, whose validation labels are in a text file."""
    write_split(tmp_path, "train/cat", "train/dog", classes=("images",))
    write_image(tmp_path / "val" / "images" / "0.png", 200)
    (fault,) = faults(tmp_path)
    assert fault.endswith("/val/images/0.png' is in no class folder; move it into one")


@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_every_split_has_tasks_or_none_has(tmp_path: Path, part: str) -> None:
    write_split(tmp_path, *(f"{name}/2024" if name == part else name for name in ("train", "val", "test")))
    assert "only some splits in '" in faults(tmp_path)[0]


def test_a_link_back_up_ends(tmp_path: Path) -> None:
    write_classes(tmp_path, {"a": 2, "b": 2})
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    assert any("/a/up/a' lies among the images of a class" in fault for fault in faults(tmp_path))


# Files.


@pytest.mark.parametrize("suffix", ["heic", "HEIF", "svg", "cr2", "nef", "dng", "jxl", "exr", "dcm", "xcf", "psb"])
def test_many_files_that_cannot_be_read_are_refused(tmp_path: Path, suffix: str) -> None:
    write_classes(tmp_path, {"a": 3, "b": 3})
    for number in range(6):
        (tmp_path / "b" / f"x{number}.{suffix}").write_bytes(b"x")
    (fault,) = faults(tmp_path)
    assert "6 files look like images and cannot be read (6 ." + suffix.lower() in fault
    assert fault.endswith("besides 6 images that can; convert them to PNG or JPEG, or move them away")


@pytest.mark.parametrize(("n", "is_refused"), [(1, False), (2, True)])
def test_a_few_files_that_cannot_be_read_are_left_out(tmp_path: Path, n: int, is_refused: bool) -> None:
    write_classes(tmp_path, {"a": 60, "b": 60})
    for number in range(n):
        (tmp_path / "b" / f"{number}.heic").write_bytes(b"x")
    if is_refused:
        assert "2 files look like images and cannot be read (2 .heic" in faults(tmp_path)[0]
        return
    (note,) = load(tmp_path).notes
    assert "1 file looks like an image and cannot be read (1 .heic: '" in note
    assert note.endswith("/b/0.heic'); left out")


def test_a_class_of_unread_files_names_their_kind(tmp_path: Path) -> None:
    write_classes(tmp_path, {"a": 2, "b": 2})
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "0.heic").write_bytes(b"x")
    assert "/c', only files that are not read (.heic); add some or delete it" in faults(tmp_path)[0]


@pytest.mark.parametrize("name", ["9", "9.jpg~", "9.png_large"])
def test_an_image_under_another_suffix_is_reported(tmp_path: Path, name: str) -> None:
    write_classes(tmp_path, {"a": 2, "b": 2})
    (tmp_path / "b" / "0.png").rename(tmp_path / "b" / name)
    write_image(tmp_path / "b" / "0.png", 99)
    assert "1 file looks like an image and cannot be read (1 " in faults(tmp_path)[0]


@pytest.mark.parametrize("suffix", ["jfif", "tga", "jp2", "JPE", "qoi", "ico", "mpo", "pcx", "avif"])
def test_what_pillow_reads_is_read(tmp_path: Path, suffix: str) -> None:
    if f".{suffix.lower()}" not in SUFFIXES:
        pytest.skip("this Pillow does not read it")
    write_classes(tmp_path, {"a": 2, "b": 1}, size=(16, 16), mode="RGB")
    kind = {"jfif": "jpeg", "JPE": "jpeg", "mpo": "jpeg", "jp2": "jpeg2000"}.get(suffix, suffix)
    Image.new("RGB", (16, 16), (200, 200, 200)).save(tmp_path / "b" / f"9.{suffix}", kind)
    assert max(corners(load(tmp_path))) >= (195, 195, 195)


def test_a_damaged_file_is_named_with_its_reason(tmp_path: Path) -> None:
    write_classes(tmp_path, {"a": 2, "b": 2})
    (tmp_path / "a" / "0.png").write_bytes(b"")
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a" / "1.jpg")
    (tmp_path / "a" / "1.jpg").write_bytes((tmp_path / "a" / "1.jpg").read_bytes()[:1500])
    assert "/a/0.png' cannot be read (the file is empty); delete or replace it" in faults(tmp_path)[0]
    (tmp_path / "a" / "0.png").unlink()
    (fault,) = faults(tmp_path, image_size=4)
    assert "/a/1.jpg' cannot be read (" in fault
    assert "truncated" in fault


def test_only_the_first_frame_is_read(tmp_path: Path) -> None:
    write_classes(tmp_path, {"a": 2, "b": 2})
    frames = [Image.new("L", (4, 4), value) for value in (70, 80)]
    frames[0].save(tmp_path / "b" / "9.tif", save_all=True, append_images=frames[1:])
    data = load(tmp_path)
    assert 70 in [*values(data.train_inputs), *values(data.test_inputs)]
    assert data.notes == ("streams.photos.folder: 1 image has several frames or pages; the first is read",)


# Transparency.


def transparent(path: Path, mode: str) -> None:
    """Write an image of hidden colour whose first pixel is transparent, and its last opaque."""
    alpha = np.zeros((4, 4), dtype=np.uint8)
    alpha[2:] = 255
    image = Image.new("RGB", (4, 4), (9, 8, 7))
    image.putalpha(Image.fromarray(alpha))
    if mode == "P":
        flat = Image.new("P", (4, 4), 0)
        flat.putpalette([9, 8, 7, 20, 20, 20])
        flat.paste(1, (0, 2, 4, 4))
        flat.save(path, transparency=0)
    else:
        image.convert(mode).save(path)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
@pytest.mark.parametrize(
    ("background", "colour"), [("white", (255,) * 3), ("black", (0, 0, 0)), ("#FF8800", (255, 136, 0))]
)
def test_transparent_images_are_laid_on_a_background(
    tmp_path: Path, mode: str, background: str, colour: tuple[int, ...]
) -> None:
    write_classes(tmp_path, {"a": 2, "b": 1})
    write_image(tmp_path / "b" / "z.png", 200, mode="RGB")
    transparent(tmp_path / "a" / "0.png", mode)
    data = load(tmp_path, background=background)
    assert colour in corners(data)
    assert (9, 8, 7) not in corners(data)
    assert data.notes == (
        f"streams.photos.folder: 1 image is transparent in part; laid on {background.lower()} (background)",
    )


def test_a_coloured_background_makes_grey_images_rgb(tmp_path: Path) -> None:
    write_classes(tmp_path, {"a": 2, "b": 2})
    transparent(tmp_path / "a" / "0.png", "LA")
    assert load(tmp_path).facts.shape == (1, 4, 4)
    assert load(tmp_path, background="#808080").facts.shape == (1, 4, 4)
    assert load(tmp_path, background="#ff0000").facts.shape == (3, 4, 4)


def test_opaque_images_with_an_alpha_channel_are_no_news(tmp_path: Path) -> None:
    write_classes(tmp_path, {"a": 2, "b": 2})
    Image.new("RGBA", (4, 4), (9, 8, 7, 255)).save(tmp_path / "a" / "0.png")
    data = load(tmp_path)
    assert (9, 8, 7) in corners(data)
    assert data.notes == ()


# Equal images.


def test_images_that_are_all_equal_are_refused(tmp_path: Path) -> None:
    for name in ("a/0", "a/1", "b/0", "b/1"):
        write_image(tmp_path / f"{name}.png", 7)
    assert "the 4 images of '" in faults(tmp_path)[0]
    assert "are all equal, so nothing can be learned; check them" in faults(tmp_path)[0]


def test_a_class_of_equal_images_is_refused(tmp_path: Path) -> None:
    write_classes(tmp_path, {"a": 9, "b": 9})
    for number in range(9):
        write_image(tmp_path / "b" / f"{number}.png", 255)
    (fault,) = faults(tmp_path)
    assert "the 9 images of class 'b' are all equal" in fault


def test_notes_are_no_part_of_the_fingerprint(tmp_path: Path) -> None:
    one = load(write_split(tmp_path / "1", "."))
    other = load(write_split(tmp_path / "2", "animals"))
    assert one.notes == ()
    assert other.notes
    assert one.fingerprint() == other.fingerprint()
