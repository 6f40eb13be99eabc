"""Tells by their names whether folders are a split: `train` and `test`, `Training` and `Validation`, `seg_train` …"""

from __future__ import annotations

import re
from pathlib import Path

from orchestrator.core.errors import DataError

_ROLES = {
    **dict.fromkeys(("train", "training", "trn"), "train"),
    **dict.fromkeys(("test", "testing", "tst", "holdout"), "test"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev", "development"), "val"),
    **dict.fromkeys(("eval", "evaluation"), "eval"),
}
_NO_MEANING = {"set", "data", "dataset", "images", "image", "imgs", "img", "split", "samples", "folder", "the"}
_TOKEN = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[^\W\d_]+?(?=[A-Z]|[\W\d_]|$)|\d+")


def role_of(name: str) -> tuple[str, str] | None:
    """Return what split a folder's name means, train, test, val or eval, and the rest of the name; or None."""
    tokens = [re.sub(r"(?<=.)(set|data)$", "", token.casefold()) for token in _TOKEN.findall(name)]
    roles = [_ROLES[token] for token in tokens if token in _ROLES]
    if len(roles) != 1:
        return None
    return roles[0], " ".join(token for token in tokens if token not in _ROLES and token not in _NO_MEANING)


def is_split(where: str, root: Path, names: list[str], found: dict[str, tuple[str, str]], are_last: bool) -> bool:
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
        if not are_last and "" in rests and "train" not in roles:
            raise DataError(
                f"{where}: '{root}' holds '{names[0]}' and no folder 'train'; add the training images, or rename the "
                "folder if it is a task"
            )
        return len(names) > 1 and "" in rests and _ambiguous(where, root, names, names[0])
    if len(found) == len(names) and len(roles) > 1:
        return _ambiguous(where, root, names[1:], names[0])
    for rest in sorted(rests):
        split = {name: role for name, (role, own) in found.items() if own == rest}
        if "train" in split.values() and len(set(split.values())) > 1:
            beside = " and ".join(sorted(split, key=lambda name: ("train", "val", "eval", "test").index(split[name])))
            other = next(name for name in names if name not in split)
            raise DataError(f"{where}: '{root}' holds '{other}' beside {beside}; move it away")
    if exact and not are_last:
        return _ambiguous(where, root, [name for name in names if name not in exact], exact[0])
    return False


def _ambiguous(where: str, root: Path, others: list[str], name: str) -> bool:
    raise DataError(
        f"{where}: '{name}' in '{root}' has the name of a split, and lies beside '{others[-1]}'; use the folders train "
        "and test, or rename it if it is a task"
    )


def roles_of(where: str, root: Path, meant: dict[str, str]) -> tuple[dict[str, str], list[str]]:
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
