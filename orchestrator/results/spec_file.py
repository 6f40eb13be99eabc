"""The file in which a run folder keeps its resolved spec, under a digest by which any damage is noticed."""

from __future__ import annotations

import hashlib
import os
import stat

from orchestrator.core.errors import RunFolderError, SpecError
from orchestrator.spec.loading import parse_spec
from orchestrator.spec.safe_yaml import MOST_BYTES, TooLargeError, load_yaml
from orchestrator.spec.sweep_spec import SweepSpec
from orchestrator.storage.base import SPEC_FILE, Storage

_DIGEST_MARK = b"# sha256 of what follows: "

_WAY_OUT = "delete it and run the same sweep again: trials that are complete are kept"


def encode_spec(spec: SweepSpec) -> bytes:
    """Return the file of a spec: its digest as a comment, then YAML; the same bytes for equal specs.

    Raises:
        SpecError: where it would be too large to be read again.
    """
    body = spec.to_yaml().encode()
    content = _DIGEST_MARK + hashlib.sha256(body).hexdigest().encode() + b"\n" + body
    try:
        load_yaml(content)
    except TooLargeError as error:
        raise SpecError([f"spec: {error}, in its resolved form; shorten its longest lists"]) from error
    return content


def read_run_spec(storage: Storage) -> SweepSpec:
    """Return the spec that a run folder keeps.

    A file without a digest was written by a person or an older version, and is read as it is.

    Raises:
        RunFolderError: where the file is damaged, or states no spec.
        OSError: where it cannot be read.
    """
    where = storage.describe(SPEC_FILE)
    content = _read(storage, where)
    if content.startswith(_DIGEST_MARK):
        first, _, body = content.partition(b"\n")
        if first[len(_DIGEST_MARK) :] != hashlib.sha256(body).hexdigest().encode():
            raise _damaged(where, "it differs from the digest in its first line")
    try:
        fields = load_yaml(content)
    except Exception as error:  # beside its own errors, PyYAML lets through whatever a bad tag raises
        raise _damaged(where, " ".join(str(error).split())) from error
    if not isinstance(fields, dict):
        raise _damaged(where, "nothing is in it" if fields is None else "it is no mapping of fields")
    try:
        return parse_spec(fields)
    except SpecError as error:
        raise RunFolderError(
            f"{where}: expected the spec of a run, got one with faults: {error}\nmend them, or {_WAY_OUT}"
        ) from error


def _read(storage: Storage, where: str) -> bytes:
    """Return the file's content; one on a disk that is no plain file, or a large one, is not read to its end."""
    if storage.path is None:
        return storage.read(SPEC_FILE)
    descriptor = os.open(storage.path / SPEC_FILE, os.O_RDONLY | os.O_NONBLOCK)  # else a pipe waits for its writer
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise _damaged(where, "it is no plain file")
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(MOST_BYTES + 1)
    finally:
        os.close(descriptor)


def _damaged(where: str, reason: str) -> RunFolderError:
    return RunFolderError(
        f"{where}: expected the spec of a run, got one that was changed or damaged ({reason}); {_WAY_OUT}"
    )
