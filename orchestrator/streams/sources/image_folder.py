"""Reads a user's own images from FOLDER/CLASS/IMAGE or FOLDER/TASK/CLASS/IMAGE."""

from __future__ import annotations

import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from orchestrator.core.errors import DataError
from orchestrator.streams.datasets import Dataset, held_out_rows, strata
from orchestrator.streams.facts import DatasetFacts
from orchestrator.streams.settings import StreamSettings
from orchestrator.streams.sources.composition import classes_of_tasks, first_of, parts_faults, whole_faults
from orchestrator.streams.sources.order import natural

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"})
_GREY, _EIGHT_BITS = {"1", "L", "LA"}, {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "LAB"}
_ORIENTATION, _TURNED = 0x0112, {5, 6, 7, 8}  # EXIF: how a camera was held; these swap height and width


@dataclass(frozen=True)
class _Example:
    """One image file, with the names of its class and, if the folder has tasks, its task."""

    path: Path
    label: str
    task: str | None


def load_folder(stream: str, settings: StreamSettings) -> Dataset:
    """Return the images under `settings.folder`.

    The folder holds CLASS/IMAGE or TASK/CLASS/IMAGE, or the folders `train` and `test`, which hold one of the two.
    Classes and tasks are in the natural order of their names. All images are RGB if any file is not grey.

    Raises:
        DataError: if anything is wrong, naming each folder or file.
    """
    where, root = f"streams.{stream}.folder", Path(settings.folder or "").expanduser()
    if not root.is_dir():
        raise DataError(
            f"{where}: there is no folder '{root}'; check the path, which is relative to the working directory"
        )
    parts = _parts(where, root, settings)
    has_tasks = parts[0][0].task is not None
    tasks = sorted({example.task or "" for example in parts[0]}, key=natural) if has_tasks else None
    classes = sorted({example.label for part in parts for example in part}, key=natural)
    labels = [_indices(classes, [example.label for example in part]) for part in parts]
    numbers = [None if tasks is None else _indices(tasks, [e.task or "" for e in part]) for part in parts]
    facts = DatasetFacts(tuple(classes), (), 255, f"'{root}'", tuple(tasks or ()))
    place = f"{where} '{root}'"
    if len(parts) == 1:
        faults = whole_faults(place, labels[0], numbers[0], facts)
    else:
        faults = parts_faults(place, (labels[0], numbers[0]), (labels[1], numbers[1]), facts)
    if faults:
        raise DataError(*faults)
    inputs = _images(where, [example.path for part in parts for example in part], settings.image_size)
    shape = (1, *inputs.shape[1:]) if inputs.ndim == 3 else inputs.shape[1:]
    facts = DatasetFacts(
        facts.class_names, shape, 255, facts.source, facts.task_names,
        classes_of_tasks(labels[0], numbers[0], len(facts.task_names)),
    )  # fmt: skip
    if len(parts) == 2:
        n_train = len(labels[0])
        return Dataset(
            stream, inputs[:n_train], labels[0], inputs[n_train:], labels[1], facts, numbers[0], numbers[1]
        )  # fmt: skip
    test = held_out_rows(strata(labels[0], numbers[0]), settings.test_share)
    cut = (None, None) if numbers[0] is None else (numbers[0][~test], numbers[0][test])
    return Dataset(stream, inputs[~test], labels[0][~test], inputs[test], labels[0][test], facts, *cut)


def _indices(names: list[str], found: list[str]) -> NDArray[np.int64]:
    """Return the index (N,) int64 in `names` of each name in `found`."""
    place = {name: index for index, name in enumerate(names)}
    return np.array([place[name] for name in found], dtype=np.int64)


def _parts(where: str, root: Path, settings: StreamSettings) -> list[list[_Example]]:
    """Return the examples of the folder, or those of its `train` and `test` folders."""
    folders = {path.name: path for path in _folders(root)}
    if not {"train", "test"} <= set(folders):
        return [_examples(where, root)]
    others = sorted(set(folders) - {"train", "test"}, key=natural)
    default = StreamSettings.model_fields["test_share"].default
    if others:
        raise DataError(f"{where}: '{root}' holds '{others[0]}' beside train and test; move it away")
    if settings.test_share != default:
        raise DataError(
            f"streams.{where.split('.')[1]}.test_share: has no effect, because '{root}' holds train and test; leave it "
            "out"
        )
    train, test = (_examples(where, folders[name]) for name in ("train", "test"))
    if (train[0].task is None) != (test[0].task is None):
        raise DataError(f"{where}: only one of train and test in '{root}' has task folders; use one form in both")
    unknown = sorted({e.task or "" for e in test} - {e.task or "" for e in train}, key=natural)
    if unknown:
        raise DataError(f"{where}: '{root}/test' has the task '{unknown[0]}', which train has not; move it away")
    return [train, test]


def _examples(where: str, root: Path) -> list[_Example]:
    """Return the examples under `root`, one level deep or two; at least one."""
    if loose := _files(root):
        raise DataError(f"{where}: '{loose[0]}' is in no class folder; move it into one")
    folders = _folders(root)
    if not folders:
        raise DataError(f"{where}: '{root}' has no class folders; put the images of each class into a folder")
    groups: list[tuple[str | None, Path]]
    with_images = [folder for folder in folders if _files(folder)]
    if not with_images and any(_folders(folder) for folder in folders):
        groups = [(folder.name, inner) for folder in folders for inner in _folders(folder)]
        empty = [folder for folder in folders if not _folders(folder)]
    else:
        groups = [(None, folder) for folder in folders]
        empty = []
    empty += [folder for _, folder in groups if not _files(folder)]
    deeper = [inner for _, folder in groups for inner in _folders(folder)]
    faults = first_of(
        f"{where}: there are no images ({', '.join(sorted(SUFFIXES))}) in '{folder}'; add some or delete it"
        for folder in empty
    )
    faults += first_of(
        f"{where}: the folder '{inner}' lies among the images of a class; use FOLDER/CLASS/IMAGE or "
        "FOLDER/TASK/CLASS/IMAGE throughout"
        for inner in deeper
    )
    if faults:
        raise DataError(*faults)
    return [_Example(path, folder.name, task) for task, folder in groups for path in _files(folder)]


def _folders(root: Path) -> list[Path]:
    found = (path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    return sorted(found, key=lambda path: natural(path.name))


def _files(root: Path) -> list[Path]:
    found = (
        path
        for path in root.iterdir()
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
    )
    return sorted(found, key=lambda path: natural(path.name))


def _images(where: str, paths: list[Path], size: int | tuple[int, int] | None) -> NDArray[np.uint8]:
    """Return the images (N, H, W) or (N, 3, H, W) uint8. Each file is decoded once.

    Raises:
        DataError: naming each file that cannot be read, or the first of another size than most.
    """
    faults: list[str] = []
    sizes: list[tuple[int, int]] = []
    grey = True
    for path in paths:
        try:
            mode, found = _header(path)
        except Exception as error:  # whatever a decoder raises for bytes that it does not understand
            faults.append(_unreadable(where, path, error))
            continue
        if mode not in _EIGHT_BITS:
            faults.append(f"{where}: '{path}' is of mode {mode}, not of 8 bits per channel; convert it")
        grey &= mode in _GREY
        sizes.append(found)
    if faults:
        raise DataError(*first_of(iter(faults)))
    height, width = (size, size) if isinstance(size, int) else size or Counter(sizes).most_common(1)[0][0]
    if size is None:
        _refuse_sizes(where, paths, sizes, (height, width))
    out = np.empty((len(paths), height, width) if grey else (len(paths), 3, height, width), dtype=np.uint8)
    for index, path in enumerate(paths):
        try:
            pixels = _pixels(path, "L" if grey else "RGB", (height, width))
        except Exception as error:  # as above
            faults.append(_unreadable(where, path, error))
            continue
        out[index] = pixels if grey else pixels.transpose(2, 0, 1)
    if faults:
        raise DataError(*first_of(iter(faults)))
    return out


def _refuse_sizes(where: str, paths: list[Path], sizes: list[tuple[int, int]], most: tuple[int, int]) -> None:
    other = next(((p, s) for p, s in zip(paths, sizes, strict=True) if s != most), None)
    if other is not None:
        raise DataError(
            f"{where}: images differ in size: '{other[0]}' is {other[1][0]} x {other[1][1]}, others {most[0]} x "
            f"{most[1]}; set image_size: {max(most)}, or [height, width]"
        )


def _header(path: Path) -> tuple[str, tuple[int, int]]:
    """Return mode and (height, width) of an image as it is displayed."""
    with warnings.catch_warnings(action="ignore"), Image.open(path) as image:
        turned = image.getexif().get(_ORIENTATION) in _TURNED
        return image.mode, (image.width, image.height) if turned else (image.height, image.width)


def _pixels(path: Path, mode: str, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return an image (H, W) or (H, W, 3) uint8, rotated by its EXIF orientation, without transparency."""
    with warnings.catch_warnings(action="ignore"), Image.open(path) as opened:
        image = ImageOps.exif_transpose(opened).convert(mode)
        if (image.height, image.width) != size:
            image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
        return np.asarray(image)


def _unreadable(where: str, path: Path, error: Exception) -> str:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return f"{where}: the image '{path}' cannot be read ({reason}); delete or replace it"
