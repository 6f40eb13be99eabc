"""The file of a run's resolved spec; a digest in its first line reveals any damage."""

from __future__ import annotations

import hashlib
import os
import stat
from typing import Any

from orchestrator.core.errors import RunFolderError, SpecError
from orchestrator.spec.loading import parse_spec
from orchestrator.spec.safe_yaml import MOST_BYTES, TooLargeError, load_yaml
from orchestrator.spec.sweep_spec import SweepSpec
from orchestrator.spec.typed_fields import is_text
from orchestrator.storage.base import SPEC_FILE, Storage

_DIGEST_MARK = b"# sha256 of what follows: "

_WAY_OUT = "delete it and run the same sweep again: complete trials are kept"


def encode_spec(spec: SweepSpec) -> bytes:
    """Return the file of a spec: its digest as a comment, then YAML; the same bytes for equal specs.

    Raises:
        SpecError: if it would be too large to be read again.
    """
    body = spec.to_yaml().encode()
    content = _DIGEST_MARK + hashlib.sha256(body).hexdigest().encode() + b"\n" + body
    try:
        load_yaml(content)
    except TooLargeError as error:
        raise SpecError([f"spec: {error}, in its resolved form; shorten its longest lists"]) from error
    return content


def read_run_spec(storage: Storage) -> SweepSpec:
    """Return the spec of a run folder.

    A file without a digest was written by a person or by an older version, and is accepted.

    Raises:
        RunFolderError: if the file is damaged, or is not a spec.
        OSError: if it cannot be read.
    """
    where = storage.describe(SPEC_FILE)
    content = _read(storage, where)
    if content.startswith(_DIGEST_MARK):
        first, _, body = content.partition(b"\n")
        if first[len(_DIGEST_MARK) :] != hashlib.sha256(body).hexdigest().encode():
            raise _damaged(where, "it differs from the digest in its first line")
    try:
        fields = load_yaml(content, is_text)
    except Exception as error:  # PyYAML raises its own errors, and whatever a bad tag raises
        raise _damaged(where, " ".join(str(error).split())) from error
    if not isinstance(fields, dict):
        raise _damaged(where, "it is empty" if fields is None else "it is not a mapping of fields")
    try:
        return parse_spec(_as_before(fields), is_recorded=True)
    except SpecError as error:
        raise RunFolderError(
            f"{where}: expected the spec of a run, got one with faults: {error}\nmend them, or {_WAY_OUT}"
        ) from error


_SEARCH_BEFORE = {"seeds": "all", "stop": "none"}
_SEEDS_BEFORE = {"finals": 0, "confirm_more": 0}


def _as_before(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a recorded spec; one from before a field was there is searched as it was then."""
    search, seeds = fields.get("search"), fields.get("seeds")
    return {
        **fields,
        "validation_split": fields.get("validation_split", "fixed"),
        "search": _SEARCH_BEFORE | search if isinstance(search, dict) else search or _SEARCH_BEFORE,
        "seeds": _SEEDS_BEFORE | seeds if isinstance(seeds, dict) else seeds or _SEEDS_BEFORE,
    }


def as_begun(spec: SweepSpec, recorded: SweepSpec) -> SweepSpec:
    """Return a spec as its run began, if that was before there were finals and validation splits of a seed's own.

    What the user sets stays as it is.

    Args:
        spec: what is to be run.
        recorded: the run's.
    """
    is_set = "validation_split" in spec.model_fields_set or "seeds" in spec.search.model_fields_set
    if is_set or "finals" in spec.seeds.model_fields_set:
        return spec
    if not recorded.is_of_before or recorded.validation_split != "fixed":
        return spec
    search, seeds = spec.search.model_copy(update={"seeds": "all"}), spec.seeds.model_copy(update={"finals": 0})
    return spec.model_copy(update={"validation_split": "fixed", "search": search, "seeds": seeds})


def _read(storage: Storage, where: str) -> bytes:
    """Return the file's content; on a disk, refuses what is not a regular file, and reads at most `MOST_BYTES` + 1."""
    if storage.path is None:
        return storage.read(SPEC_FILE)
    descriptor = os.open(
        storage.path / SPEC_FILE, os.O_RDONLY | os.O_NONBLOCK
    )  # opening a pipe would wait for a writer
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise _damaged(where, "it is not a regular file")
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(MOST_BYTES + 1)
    finally:
        os.close(descriptor)


def _damaged(where: str, reason: str) -> RunFolderError:
    return RunFolderError(
        f"{where}: expected the spec of a run, got one that was changed or damaged ({reason}); {_WAY_OUT}"
    )
