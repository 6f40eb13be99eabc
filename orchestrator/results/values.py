"""Which values the rows of a table may have; a run folder from elsewhere may hold anything."""

from __future__ import annotations

import json
from typing import Any, get_args

import pyarrow as pa
import pyarrow.compute as pc

from orchestrator.core.errors import RunFolderError
from orchestrator.storage.base import OUTCOMES
from orchestrator.streams.facts import Phase
from orchestrator.trial.result import Status

_KEY_FORM = r"\A[0-9a-f]{16}\z"
"""The form of `TrialSpec.key`. Files are named after keys, so another form could lead out of the run folder."""

_WORDS: dict[str, tuple[str, ...]] = {"phase": get_args(Phase), "status": get_args(Status)}
_MAPPINGS = ("hyperparameters", "details", "trial_spec")


def _refuse_odd_keys(keys: pa.ChunkedArray, where: str) -> None:
    odd = keys.filter(pc.invert(pc.fill_null(pc.match_substring_regex(keys, _KEY_FORM), False)))
    if len(odd):
        raise RunFolderError(
            f"{where}: expected keys of 16 hexadecimal digits, got {str(odd[0].as_py())[:40]!r}; move it out of the "
            "run folder"
        )


def refuse_odd_values(rows: pa.Table, where: str, table: str) -> None:
    """Refuse keys in another form than ours, unknown phases and statuses, texts that are not the JSON of a mapping, and
    bits of more or fewer examples than a row counts.

    Args:
        rows: in today's schema.
        where: their file, as it is shown.
        table: the table that it belongs to.

    Raises:
        RunFolderError: naming one of them.
    """
    _refuse_odd_keys(rows["key"], where)
    for column, words in _WORDS.items():
        for word in rows[column].unique().to_pylist() if column in rows.schema.names else ():
            if word not in words:
                raise _odd_value(where, table, column, f"one of {', '.join(words)}", repr(word[:40]))
    for column in _MAPPINGS:
        for text in rows[column].unique().to_pylist() if column in rows.schema.names else ():
            if not _is_mapping(text, of_values=column == "hyperparameters"):
                raise _odd_value(where, table, column, "the JSON of a mapping", repr(text[:40]))
    if "right" in rows.schema.names:
        _refuse_odd_bits(rows, where, table)


def _refuse_odd_bits(rows: pa.Table, where: str, table: str) -> None:
    lengths, counts = pc.binary_length(rows["right"]).to_pylist(), rows["n_examples"].to_pylist()
    for n_bytes, n_examples in zip(lengths, counts, strict=True):
        if n_examples < 1 or n_bytes != (n_examples + 7) // 8:
            raise _odd_value(where, table, "right", f"a bit for each of {n_examples:,} examples", f"{n_bytes:,} bytes")


def _is_mapping(text: str, of_values: bool) -> bool:
    """Return whether a text is the JSON of a mapping, and with `of_values` of one whose values are scalars."""
    try:
        found: Any = json.loads(text)
        if "\\u" in text:
            json.dumps(found, ensure_ascii=False).encode()  # refuses lone surrogates, which cannot be printed
    except (ValueError, RecursionError):
        return False
    if not isinstance(found, dict):
        return False
    return not of_values or all(value is None or isinstance(value, str | int | float) for value in found.values())


def _odd_value(where: str, table: str, column: str, rule: str, found: str) -> RunFolderError:
    return RunFolderError(f"{where}: expected in '{column}' {rule}, got {found}; {remedy(table)}")


def remedy(table: str) -> str:
    """Return what to do about a damaged file of a table."""
    if table == OUTCOMES:
        return "delete it: the answers to single examples in it are lost, and no trial is run again for them"
    if table == "diagnostics":
        return "delete it: nothing but the diagnostics of its trials is lost"
    return "delete it and run the sweep again: it repeats the trials of that file"
