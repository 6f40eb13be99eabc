"""Reading the specs that trials left in the trials table: a stranger's may hold anything."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from orchestrator.errors import RunFolderError
from orchestrator.storage import Storage
from orchestrator.streams import StreamSettings
from orchestrator.tables import load_json, read_file, table_files
from orchestrator.trialspec import TrialSpec

_Read = TypeVar("_Read")


def recorded_spec(run: Storage, key: str, text: str) -> TrialSpec:
    """Return the spec in the row of the trial `key`.

    Raises:
        RunFolderError: where it is none, or that of another trial.
    """
    spec = _read(run, key, lambda: TrialSpec.model_validate_json(text))
    if spec.key != key:
        raise _odd_spec(run, key, f"that of trial '{spec.key}'")
    return spec


def recorded_settings(run: Storage, key: str, text: str) -> StreamSettings:
    """Return how the trial `key` cut its stream.

    Raises:
        RunFolderError: where its row does not say.
    """
    return _read(run, key, lambda: StreamSettings.model_validate(load_json(text)["stream_settings"]))


def _read(run: Storage, key: str, read: Callable[[], _Read]) -> _Read:
    try:
        return read()
    except (ValueError, KeyError) as error:
        raise _odd_spec(run, key, f"one with faults ({str(error).splitlines()[0][:120]})") from error


def _odd_spec(run: Storage, key: str, found: str) -> RunFolderError:
    folder = run.folder("trials")
    names = (name for name in table_files(folder) if key in read_file(folder, name, "trials")["key"].to_pylist())
    return RunFolderError(
        f"{folder.describe(next(names, ''))}: expected the spec of trial '{key}' in 'trial_spec', got {found}; delete "
        "the file and run the sweep again: its trials are then repeated"
    )
