"""Finds the images of a folder: their classes, their tasks, and which are for training and which for the test."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from orchestrator.core.errors import DataError
from orchestrator.streams.sources.composition import first_of
from orchestrator.streams.sources.image_files import SUFFIXES, is_left_out
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

_ROLES = {
    **dict.fromkeys(("train", "training", "trn"), "train"),
    **dict.fromkeys(("test", "testing", "tst", "holdout"), "test"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev", "development"), "val"),
    **dict.fromkeys(("eval", "evaluation"), "eval"),
}
_NO_MEANING = {"set", "data", "dataset", "images", "image", "imgs", "img", "split", "samples", "folder", "the"}
_TOKEN = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[^\W\d_]+?(?=[A-Z]|[\W\d_]|$)|\d+")


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
        if leaves[0].role is None and (_role(name) or ("train",))[0] != "train":
            break
        notes.append(f"'{name}' holds all the images of '{root}', so it is taken as neither a task nor a class")
        leaves = [replace(leaf, names=leaf.names[1:]) for leaf in leaves]
    return leaves, notes


def _without_carriers(leaves: list[_Leaf]) -> tuple[list[_Leaf], list[str]]:
    """Return the leaves without a folder such as `images` between each class and its files."""
    last = {leaf.names[-1] for leaf in leaves if len(leaf.names) > 1}
    if (
        len(last) != 1
        or any(len(leaf.names) < 2 for leaf in leaves)
        or (name := last.pop()).casefold() not in _CARRIERS
    ):
        return leaves, []
    return [replace(leaf, names=leaf.names[:-1]) for leaf in leaves], [
        f"each class has its images in a folder '{name}', which is taken as no class"
    ]


# The split.


def _role(name: str) -> tuple[str, str] | None:
    """Return what split a folder's name means, train, test, val or eval, and the rest of the name; or None."""
    tokens = [re.sub(r"(?<=.)(set|data)$", "", token.casefold()) for token in _TOKEN.findall(name)]
    roles = [_ROLES[token] for token in tokens if token in _ROLES]
    if len(roles) != 1:
        return None
    return roles[0], " ".join(token for token in tokens if token not in _ROLES and token not in _NO_MEANING)


def _split(where: str, root: Path, leaves: list[_Leaf]) -> tuple[list[_Leaf], list[str]]:
    """Return the leaves with their roles, and notes on them; without notes if the folder is not split.

    The folders of one level are the split if all of them have names of splits.
    """
    deepest = max((len(leaf.names) for leaf in leaves), default=0)
    for level in range(deepest):
        reached = [leaf.names for leaf in leaves if len(leaf.names) > level]
        names = sorted({each[level] for each in reached}, key=natural)
        found = {name: role for name in names if (role := _role(name)) is not None}
        if not _is_split(where, root, names, found, all(len(each) == level + 1 for each in reached)):
            continue
        if len(reached) < len(leaves):
            break
        roles, notes = _roles_of(where, root, {name: role for name, (role, _) in found.items()})
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


def _is_split(where: str, root: Path, names: list[str], found: dict[str, tuple[str, str]], are_last: bool) -> bool:
    """Return whether the folders of a level are a split.

    Args:
        where: the field, as messages name it.
        root: the folder.
        names: of all folders of the level.
        found: those with the name of a split -> what it means, and the rest of the name.
        are_last: whether no folder lies deeper, so that these may be classes.

    Raises:
        DataError: if they may be, and may be tasks or classes as well.
    """
    exact = [name for name in found if not found[name][1]]
    rests = {rest for _, rest in found.values()}
    roles = {role for role, _ in found.values()}
    if len(found) == len(names) and len(rests) == 1:
        if len(roles) > 1:
            return True
        if not are_last and "" in rests and names and "train" not in roles:
            raise DataError(
                f"{where}: '{root}' holds '{names[0]}' and no folder 'train'; add the training images, or rename the "
                "folder if it is a task"
            )
        return len(names) > 1 and "" in rests and _ambiguous(where, root, names, names[0])
    others = [name for name in names if name not in exact]
    if "train" in {found[name][0] for name in exact} and len({found[name][0] for name in exact}) > 1:
        beside = " and ".join(sorted(exact, key=lambda name: ("train", "val", "eval", "test").index(found[name][0])))
        raise DataError(f"{where}: '{root}' holds '{others[0]}' beside {beside}; move it away")
    if exact and not are_last:
        return _ambiguous(where, root, [others[0]], exact[0])
    if len(found) == len(names) and len(roles) > 1:
        return _ambiguous(where, root, names[1:], names[0])
    return False


def _ambiguous(where: str, root: Path, others: list[str], name: str) -> bool:
    raise DataError(
        f"{where}: '{name}' in '{root}' has the name of a split, and lies beside '{others[-1]}'; use the folders train "
        "and test, or rename it if it is a task"
    )


def _roles_of(where: str, root: Path, meant: dict[str, str]) -> tuple[dict[str, str], list[str]]:
    """Return train, test or val for each folder of a split, and notes on the choice.

    `eval` is the test split if nothing else is, and so is a lone validation split.
    """
    roles = dict(meant)
    for least in ("eval", "val"):
        candidates = [name for name, role in roles.items() if role == least]
        if "test" not in roles.values() and len(candidates) == 1:
            roles[candidates[0]] = "test"
    roles = {name: "val" if role == "eval" else role for name, role in roles.items()}
    of = {kind: [name for name, role in roles.items() if role == kind] for kind in ("train", "val", "test")}
    for kind, names in of.items():
        if (kind != "val" and len(names) != 1) or (kind == "val" and names and not of["test"]):
            shown = ", ".join(f"'{name}'" for name in roles)
            raise DataError(
                f"{where}: '{root}' holds {shown}, of which {'none' if not names else len(names)} "
                f"would be for {'the test' if kind != 'train' else 'training'}; keep one folder train and one folder "
                "test"
            )
    train, test, added = of["train"][0], of["test"][0], of["val"]
    notes = [f"'{train}' is the training split and '{test}' the test split"]
    if meant[test] != "test":
        notes = [f"'{train}' is the training split and '{test}' is used as the test split, because there is no other"]
    notes += [
        f"'{name}' is added to the training split, from which the search draws its own validation split"
        for name in added
    ]
    return roles, notes


def _check_split(where: str, root: Path, train: list[Example], test: list[Example]) -> None:
    if train and test and (train[0].task is None) != (test[0].task is None):
        raise DataError(f"{where}: only one of train and test in '{root}' has task folders; use one form in both")
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
