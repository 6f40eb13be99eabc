"""A model folder on disk: written whole or not at all, and read without running anything that is in it."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from secrets import token_hex
from typing import Any

from orchestrator.champions.card import Card, MemberCard, parse_card
from orchestrator.champions.tensors import from_bytes, to_bytes
from orchestrator.core.errors import RunFolderError, StorageError, UsageError, system_message
from orchestrator.storage.folder_swap import exchange
from strategies import Learner

CARD, README, EVALUATION, FROZEN = "card.json", "README.md", "evaluation.safetensors", "frozen.safetensors"
_LARGEST_CARD = 64 * 2**20


def member_files(member: MemberCard, learner: Learner) -> dict[str, bytes]:
    """Return the files of a network: its weights, and all else that learning on needs."""
    state = learner.state_dict()
    return {member.network_file: to_bytes(state.pop("network")), member.state_file: to_bytes(state)}


def member_state(member: MemberCard, files: Mapping[str, bytes], where: str) -> dict[str, Any]:
    """Return what `Learner.load_state_dict` takes to be a network of a model.

    Args:
        member: its card.
        files: of the folder.
        where: the folder, for messages.

    Raises:
        RunFolderError: if a file is damaged.
    """
    state, network = (from_bytes(files[name], f"{where}/{name}") for name in (member.state_file, member.network_file))
    return {**state, "network": network}


def write_folder(place: str | Path, card: Card, files: Mapping[str, bytes], option: str = "-o") -> Path:
    """Write a model folder at once; one that is there is replaced if it is a model's, and stays if writing fails.

    Args:
        place: where to.
        card: its card, without `files`.
        files: name -> content of the others.
        option: how the user named the place.

    Raises:
        UsageError: if something else is there.
        StorageError: if the system refuses.
    """
    target = check_target(place, option)
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    whole = card.model_copy(update={"files": hashes})
    draft = target.parent / f".{target.name}.{token_hex(6)}.tmp"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        draft.mkdir()
        for name, content in {**files, CARD: whole.to_json().encode()}.items():
            with open(draft / name, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        _put(draft, target)
    except OSError as error:
        raise StorageError(f"{system_message('write to', target, error)} Choose another {option}.") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return target


def _put(draft: Path, target: Path) -> None:
    """Rename a folder to `target`, in one step if the file system can swap two."""
    if not target.exists():
        os.rename(draft, target)
        return
    try:
        exchange(draft, target)
    except StorageError:
        old = draft.with_suffix(".old")
        os.rename(target, old)
        os.rename(draft, target)
        shutil.rmtree(old, ignore_errors=True)


def check_target(place: str | Path, option: str = "-o") -> Path:
    """Return the folder that a model may be written to.

    Raises:
        UsageError: if something else than a model or an empty folder is there.
    """
    if not str(place).strip() or "://" in str(place):
        raise UsageError(f"{option}: expected a folder on this machine, got '{place}'; name one")
    target = Path(os.path.realpath(Path(place).expanduser()))
    if target.exists() and not target.is_dir():
        raise UsageError(f"{option}: expected a folder, got a file, '{place}'; name another")
    if target.is_dir() and any(target.iterdir()) and not (target / CARD).is_file():
        raise UsageError(f"{option}: '{place}' holds something else than a model; name another folder")
    return target


def read_folder(place: str | Path) -> tuple[Card, dict[str, bytes]]:
    """Return the card of a model folder and the content of its other files, all as they were written.

    Raises:
        RunFolderError: if it is none, or a file is missing, damaged or changed, with every such file.
    """
    card = read_card(place)
    folder, files, faults = Path(place).expanduser(), {}, []
    for name, expected in card.files.items():
        if Path(name).name != name or name.startswith("."):
            faults.append(f"'{name}' is no name of a file in it")
            continue
        file = folder / name
        if file.is_symlink() or not file.is_file():
            faults.append(f"{name} is missing")
            continue
        try:
            content = file.read_bytes()
        except OSError as error:
            faults.append(f"{name} cannot be read ({error.strerror})")
            continue
        if hashlib.sha256(content).hexdigest() != expected:
            faults.append(f"{name} is not what was written")
        files[name] = content
    needed = [name for member in card.members for name in (member.network_file, member.state_file)]
    needed += [FROZEN] if card.frozen is not None else []
    faults += [f"{name} is not listed in its card" for name in needed if name not in card.files]
    if faults:
        raise RunFolderError(f"the model '{place}' is damaged: {'; '.join(faults)}; export it again")
    return card, files


def read_card(place: str | Path) -> Card:
    """Return the card of a model folder.

    Raises:
        RunFolderError: if it is no model folder, or its card is damaged.
    """
    file = Path(place).expanduser() / CARD
    try:
        if file.stat().st_size > _LARGEST_CARD:
            raise RunFolderError(
                f"{file}: the card is larger than {_LARGEST_CARD // 2**20} MiB; this is no model of ours"
            )
        content = file.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise RunFolderError(
            f"'{place}' is no model: it has no {CARD}; write one with: python -m orchestrator export RUN -o {place}"
        ) from error
    except OSError as error:
        raise StorageError(system_message("read", file, error)) from error
    return parse_card(content, str(file))


def is_model(place: str | Path) -> bool:
    """Return whether a place is a folder with a card."""
    return "://" not in str(place) and (Path(place).expanduser() / CARD).is_file()
