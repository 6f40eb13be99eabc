"""Reads a user's own images from FOLDER/CLASS/IMAGE or FOLDER/TASK/CLASS/IMAGE."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from orchestrator.core.errors import DataError
from orchestrator.streams.datasets import Dataset, held_out_rows, strata
from orchestrator.streams.facts import DatasetFacts
from orchestrator.streams.settings import StreamSettings
from orchestrator.streams.sources.composition import classes_of_tasks, first_of, parts_faults, whole_faults
from orchestrator.streams.sources.image_files import Images, read_images
from orchestrator.streams.sources.image_layout import Layout, find_images
from orchestrator.streams.sources.order import natural

MOST_LEFT_OUT, MOST_SHARE_LEFT_OUT = 5, 0.01
"""Files that look like images and are not read: above either, the folder is refused."""

_LEAST_EQUAL = 5
"""A class of fewer images may have them all equal."""


def load_folder(stream: str, settings: StreamSettings) -> Dataset:
    """Return the images under `settings.folder`.

    The folder holds CLASS/IMAGE or TASK/CLASS/IMAGE, with folders such as `train` and `test` at any level if it is
    split. Classes and tasks are in the natural order of their names. All images are RGB if any file is not grey.

    Raises:
        DataError: if anything is wrong, naming each folder or file.
    """
    where, root = f"streams.{stream}.folder", Path(settings.folder or "").expanduser()
    if not root.is_dir():
        raise DataError(
            f"{where}: there is no folder '{root}'; check the path, which is relative to the working directory"
        )
    layout = find_images(where, root)
    parts = layout.parts
    _refuse_share(stream, root, settings, layout)
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
    faults += _left_out_faults(where, layout)
    if faults:
        raise DataError(*faults)
    paths = [example.path for part in parts for example in part]
    images = read_images(where, paths, settings.image_size, settings.background)
    inputs = images.pixels
    _refuse_equal(where, root, inputs, np.concatenate(labels), classes)
    shape = (1, *inputs.shape[1:]) if inputs.ndim == 3 else inputs.shape[1:]
    facts = DatasetFacts(
        facts.class_names, shape, 255, facts.source, facts.task_names,
        classes_of_tasks(labels[0], numbers[0], facts),
    )  # fmt: skip
    notes = (*layout.notes, *_notes(where, settings, layout, images))
    if len(parts) == 2:
        n_train = len(labels[0])
        return Dataset(
            stream, inputs[:n_train], labels[0], inputs[n_train:], labels[1], facts, numbers[0], numbers[1], notes
        )  # fmt: skip
    test = held_out_rows(strata(labels[0], numbers[0]), settings.test_share)
    train_tasks, test_tasks = (None if numbers[0] is None else numbers[0][rows] for rows in (~test, test))
    return Dataset(
        stream, inputs[~test], labels[0][~test], inputs[test], labels[0][test], facts, train_tasks, test_tasks, notes
    )  # fmt: skip


def _indices(names: list[str], found: list[str]) -> NDArray[np.int64]:
    """Return the index (N,) int64 in `names` of each name in `found`."""
    place = {name: index for index, name in enumerate(names)}
    return np.array([place[name] for name in found], dtype=np.int64)


def _refuse_share(stream: str, root: Path, settings: StreamSettings, layout: Layout) -> None:
    default = StreamSettings.model_fields["test_share"].default
    if len(layout.parts) == 2 and settings.test_share != default:
        raise DataError(
            f"streams.{stream}.test_share: has no effect, because '{root}' holds a training and a test split; leave it "
            "out"
        )


def _left_out_faults(where: str, layout: Layout) -> list[str]:
    """Return a fault if more than a few files look like images and are not read."""
    n, n_read = len(layout.left_out), sum(map(len, layout.parts))
    if n <= MOST_LEFT_OUT and n <= MOST_SHARE_LEFT_OUT * (n + n_read):
        return []
    return [
        f"{where}: {_left_out(layout)}, besides {n_read} images that can; convert them to PNG or JPEG, or move them "
        "away"
    ]


def _left_out(layout: Layout) -> str:
    """Return how many files of which kinds are not read, in words."""
    kinds = Counter(path.suffix.lower() or "without a suffix" for path in layout.left_out)
    shown = ", ".join(f"{n} {kind}" for kind, n in kinds.most_common())
    first = layout.left_out[0]
    if len(layout.left_out) == 1:
        return f"1 file looks like an image and cannot be read ({shown}: '{first}')"
    return f"{len(layout.left_out)} files look like images and cannot be read ({shown}; the first is '{first}')"


def _refuse_equal(
    where: str, root: Path, inputs: NDArray[np.uint8], labels: NDArray[np.int64], classes: list[str]
) -> None:
    """Refuse images that are all equal, and classes of 5 images or more that are all equal.

    Raises:
        DataError: naming the classes.
    """
    if len(inputs) > 1 and _are_equal(inputs, np.arange(len(inputs))):
        raise DataError(
            f"{where}: the {len(inputs)} images of '{root}' are all equal, so nothing can be learned; check them"
        )
    of_classes = ((name, np.flatnonzero(labels == index)) for index, name in enumerate(classes))
    faults = first_of(
        f"{where}: the {len(rows)} images of class '{name}' are all equal, so nothing can be learned from them; "
        "replace them or remove the class"
        for name, rows in of_classes
        if len(rows) >= _LEAST_EQUAL and _are_equal(inputs, rows)
    )
    if faults:
        raise DataError(*faults)


def _are_equal(inputs: NDArray[np.uint8], rows: NDArray[np.int64]) -> bool:
    """Return whether the images (N, …) at `rows` are equal; stops at the first that differs."""
    return all(np.array_equal(inputs[row], inputs[rows[0]]) for row in rows[1:])


def _notes(where: str, settings: StreamSettings, layout: Layout, images: Images) -> Iterator[str]:
    """Yield what a user should know of how the files were read."""
    if layout.left_out:
        yield f"{where}: {_left_out(layout)}; left out"
    if n := images.n_transparent:
        yield f"{where}: {n} {_images(n)} transparent in part; laid on {settings.background} (background)"
    if n := images.n_with_frames:
        yield f"{where}: {n} {'image has' if n == 1 else 'images have'} several frames or pages; the first is read"


def _images(n: int) -> str:
    return "image is" if n == 1 else "images are"
