"""Finds the images of a folder: their classes, their tasks, and which are for training and which for the test."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from orchestrator.core.errors import DataError
from orchestrator.streams.sources.composition import first_of
from orchestrator.streams.sources.image_files import SUFFIXES, is_left_out
from orchestrator.streams.sources.image_split import is_split, role_of, roles_of
from orchestrator.streams.sources.order import natural

_DEEPEST = 6
_FORMS = "use FOLDER/CLASS/IMAGE or FOLDER/TASK/CLASS/IMAGE throughout"
_JUNK = {"__macosx", "__pycache__", "@eadir", "$recycle.bin", "system volume information", "lost+found"}
_CARRIERS = {
    "images",
    "image",
    "imgs",
    "img",
    "pictures",
    "photos",
    "jpegimages",
    "jpg",
    "jpeg",
    "png",
    "data",
    "files",
}
"""Names of a folder between a class and its images that says nothing."""


@dataclass(frozen=True)
class Example:
    """One image file, with the names of its class and, if the folder has tasks, its task."""

    path: Path
    label: str
    task: str | None


@dataclass(frozen=True)
class Layout:
    """What a folder holds.

    Args:
        parts: the examples of the whole folder; or those for training and those for the test, if it is split.
        notes: how the folder was understood, if there was a choice.
        left_out: files that look like images and are of a kind that is not read.
    """

    parts: tuple[list[Example], ...]
    notes: tuple[str, ...] = ()
    left_out: tuple[Path, ...] = ()


@dataclass(frozen=True)
class _Leaf:
    """A folder with its images, if it has any, or without folders in it.

    Args:
        path: the folder.
        names: the names of the folders that lead to it and still mean something, itself last.
        files: its images.
        role: train, test or val, if it lies under a folder of that meaning.
    """

    path: Path
    names: tuple[str, ...]
    files: tuple[Path, ...]
    role: str | None = None


@dataclass
class _Found:
    leaves: list[_Leaf] = field(default_factory=list)
    left_out: list[Path] = field(default_factory=list)


def find_images(where: str, root: Path) -> Layout:
    """Return the examples under `root`, in the natural order of folders and files.

    Args:
        where: the field, as messages name it.
        root: the folder.

    Raises:
        DataError: if the folder can be understood in no way, or in more than one.
    """
    found = _Found()
    _walk(root, (), found)
    leaves, notes = _without_wrappers(root, found.leaves)
    leaves, split_notes = _split(where, root, leaves)
    if split_notes:
        leaves, more = _without_wrappers(root, leaves)
        notes += [*split_notes, *more]
    leaves, carrier_notes = _without_carriers(leaves)
    notes += carrier_notes
    _check_depth(where, root, leaves, found.left_out)
    parts = [
        [_example(leaf, file) for role in roles for leaf in leaves if leaf.role == role for file in leaf.files]
        for roles in ([("train", "val"), ("test",)] if split_notes else [(None,)])
    ]
    if len(parts) == 2:
        _check_split(where, root, *parts)
    return Layout(tuple(parts), tuple(f"{where}: {note}" for note in notes), tuple(found.left_out))


def _example(leaf: _Leaf, file: Path) -> Example:
    return Example(file, leaf.names[-1], leaf.names[0] if len(leaf.names) == 2 else None)


def _walk(folder: Path, names: tuple[str, ...], found: _Found) -> None:
    """Add `folder`, if it has images or no folders, and every folder under it."""
    entries = sorted(
        (path for path in folder.iterdir() if not path.name.startswith(".")), key=lambda path: natural(path.name)
    )
    folders = [path for path in entries if path.is_dir() and path.name.casefold() not in _JUNK]
    folders = folders if len(names) < _DEEPEST else []  # a link may lead back up
    files = [path for path in entries if path.is_file()]
    images = tuple(path for path in files if path.suffix.lower() in SUFFIXES)
    found.left_out += [path for path in files if path.suffix.lower() not in SUFFIXES and is_left_out(path)]
    if images or (names and not folders):
        found.leaves.append(_Leaf(folder, names, images))
    for inner in folders:
        _walk(inner, (*names, inner.name), found)


def _without_wrappers(root: Path, leaves: list[_Leaf]) -> tuple[list[_Leaf], list[str]]:
    """Return the leaves without a folder that holds all the others, and a note on each that is passed over."""
    notes = []
    while leaves and all(len(leaf.names) > 1 for leaf in leaves) and len({leaf.names[0] for leaf in leaves}) == 1:
        name = leaves[0].names[0]
        if leaves[0].role is None and (role_of(name) or ("train",))[0] != "train":
            break
        notes.append(f"'{name}' holds all the images of '{root}', so it is taken as neither a task nor a class")
        leaves = [replace(leaf, names=leaf.names[1:]) for leaf in leaves]
    return leaves, notes


def _without_carriers(leaves: list[_Leaf]) -> tuple[list[_Leaf], list[str]]:
    """Return the leaves without a folder such as `images` between each class and its files, and notes on them.

    Training and test are looked at by themselves; one that is a lone such folder has no classes.
    """
    kept, names = list(leaves), []
    for role in {leaf.role for leaf in leaves}:
        own = [index for index, leaf in enumerate(leaves) if leaf.role == role]
        last = {leaves[index].names[-1] if leaves[index].names else "" for index in own}
        depths = {len(leaves[index].names) for index in own}
        name = last.pop()
        if last or name.casefold() not in _CARRIERS or (1 in depths and role is None) or 0 in depths:
            continue
        names.append(name)
        for index in own:
            kept[index] = replace(leaves[index], names=leaves[index].names[:-1])
    return kept, [f"each class has its images in a folder '{name}', which is taken as no class" for name in set(names)]


# The split.


def _split(where: str, root: Path, leaves: list[_Leaf]) -> tuple[list[_Leaf], list[str]]:
    """Return the leaves with their roles, and notes on them; without notes if the folder is not split.

    The folders of one level are the split if all of them have names of splits.
    """
    deepest = max((len(leaf.names) for leaf in leaves), default=0)
    for level in range(deepest):
        reached = [leaf.names for leaf in leaves if len(leaf.names) > level]
        names = sorted({each[level] for each in reached}, key=natural)
        found = {name: role for name in names if (role := role_of(name)) is not None}
        if not is_split(where, root, names, found, all(len(each) == level + 1 for each in reached)):
            continue
        if len(reached) < len(leaves):
            break
        roles, notes = roles_of(where, root, {name: role for name, (role, _) in found.items()})
        return [
            replace(leaf, names=_without(leaf.names, level), role=roles[leaf.names[level]]) for leaf in leaves
        ], notes
    return leaves, []


def _without(names: tuple[str, ...], level: int) -> tuple[str, ...]:
    """Return `names` without the one at `level`, nor a repetition of it below, as in `train/train`."""
    end = level + 1
    while end < len(names) - 1 and names[end] == names[level]:
        end += 1
    return names[:level] + names[end:]


def _check_split(where: str, root: Path, train: list[Example], test: list[Example]) -> None:
    if len({example.task is None for example in (*train, *test)}) > 1:
        raise DataError(f"{where}: only some splits in '{root}' have task folders; use one form in all of them")
    unknown = sorted({e.task or "" for e in test} - {e.task or "" for e in train}, key=natural)
    if unknown:
        raise DataError(
            f"{where}: the test split of '{root}' has the task '{unknown[0]}', which the training split has not; move "
            "it away"
        )


# Depth.


def _check_depth(where: str, root: Path, leaves: list[_Leaf], left_out: list[Path]) -> None:
    """Refuse images outside of a class, folders without images, and folders of different depth.

    Raises:
        DataError: with every fault, the first ten of a kind.
    """
    loose = next((leaf for leaf in leaves if not leaf.names), None)
    if loose is not None and loose.files:
        raise DataError(f"{where}: '{loose.files[0]}' is in no class folder; move it into one")
    if not [leaf for leaf in leaves if leaf.names]:
        raise DataError(f"{where}: '{root}' has no class folders; put the images of each class into a folder")
    suffixes = ".png, .jpg, .webp, .tif and others"
    kinds = {path.parent: path.suffix.lower() or "no suffix" for path in left_out}
    faults = first_of(
        f"{where}: there are no images ({suffixes}) in '{leaf.path}'"
        + (f", only files that are not read ({kinds[leaf.path]})" if leaf.path in kinds else "")
        + "; add some or delete it"
        for leaf in leaves
        if not leaf.files
    )
    faults += first_of(_uneven(where, [leaf for leaf in leaves if leaf.files]))
    if faults:
        raise DataError(*faults)


def _uneven(where: str, leaves: list[_Leaf]) -> Iterator[str]:
    """Yield each folder that does not lie one or two folders deep, as the others do."""
    paths = {leaf.path for leaf in leaves}
    inner = [leaf for leaf in leaves if not paths.isdisjoint(leaf.path.parents)]
    for leaf in inner:
        yield f"{where}: the folder '{leaf.path}' lies among the images of a class; {_FORMS}"
    depths = {role: Counter[int]() for role in {leaf.role for leaf in leaves}}
    outer = [leaf for leaf in leaves if leaf not in inner]
    for leaf in outer:
        depths[leaf.role][len(leaf.names)] += 1
    for leaf in outer:
        usual = min(depths[leaf.role].most_common(1)[0][0], 2)
        if len(leaf.names) != usual:
            yield f"{where}: '{leaf.path}' lies {len(leaf.names)} folders deep, not {usual}; {_FORMS}"
