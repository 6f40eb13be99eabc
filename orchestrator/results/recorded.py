"""Reading the specs that trials left in the trials table: a stranger's may hold anything."""

from __future__ import annotations

from orchestrator.core.errors import RunFolderError
from orchestrator.results.tables import read_file, table_files
from orchestrator.spec.trial_spec import TrialSpec
from orchestrator.storage.base import Storage


def recorded_spec(run: Storage, key: str, text: str) -> TrialSpec:
    """Return the spec in the row of the trial `key`.

    Raises:
        RunFolderError: where it is none, or that of another trial.
    """
    try:
        spec = TrialSpec.model_validate_json(text)
    except ValueError as error:
        raise odd_spec(run, key, f"one with faults ({str(error).splitlines()[0][:120]})") from error
    if spec.key != key:
        raise odd_spec(run, key, f"that of trial '{spec.key}'")
    return spec


def odd_spec(run: Storage, key: str, found: str) -> RunFolderError:
    """Return what to raise where the row of the trial `key` holds something else than its spec."""
    folder = run.folder("trials")
    names = (name for name in table_files(folder) if key in read_file(folder, name, "trials")["key"].to_pylist())
    return RunFolderError(
        f"{folder.describe(next(names, ''))}: expected the spec of trial '{key}' in 'trial_spec', got {found}; delete "
        "the file and run the sweep again: its trials are then repeated"
    )
