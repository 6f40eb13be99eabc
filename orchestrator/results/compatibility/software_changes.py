"""What differs between the software and devices of a run's trials and those that new trials would have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from orchestrator.core.errors import RunFolderError
from orchestrator.spec.sweep_spec import SweepSpec

COMPARED = ("code_revision", "package_version", "torch_version", "optuna_version", "python_version")
"""Columns of a trial's provenance that its result or the search may depend on."""

OF_WORKERS = ("torch_version", "python_version")
"""The compared columns in which a worker on another machine may differ from the sweep's own process."""


def software_changes(trials: pd.DataFrame, spec: SweepSpec, now: Mapping[str, Any]) -> list[str]:
    """Return a line for each difference; empty if new trials of `spec` would have the software and devices of the old.

    Columns that were not recorded are not compared, and neither are rows with status `error`: they are run again.

    Args:
        trials: the rows of a run.
        spec: what is to be run, for the devices that its cells ask for.
        now: column of `COMPARED` -> today's value.
    """
    kept = trials[trials["status"] != "error"]
    return [*_software(kept, now, COMPARED), *_places(kept, spec)]


def worker_changes(trials: pd.DataFrame, provenance: Mapping[str, Any]) -> list[str]:
    """Return a line for each difference between a trial's worker and those of earlier trials on the same device kind.

    Args:
        trials: the rows of a run.
        provenance: of the trial that has just ended.
    """
    alike = trials[(trials["status"] != "error") & (trials["device"] == provenance.get("device"))]
    return list(_software(alike, provenance, OF_WORKERS))


def refuse_changes(changes: Sequence[str], where: str) -> None:
    """Refuse to mix rows of other software or devices.

    Args:
        changes: a line for each difference; nothing is refused if there is none.
        where: the run folder, as it is shown.

    Raises:
        RunFolderError: naming each change.
    """
    if changes:
        raise RunFolderError(
            f"run: the trials in '{where}' ran with other software or devices\n"
            + "\n".join(changes)
            + "\nold and new rows would be compared; pass --accept-changes to mix them, or choose another --run"
        )


def _software(trials: pd.DataFrame, now: Mapping[str, Any], columns: tuple[str, ...]) -> Iterator[str]:
    for column in columns:
        for before, n_trials in trials[column].replace("", None).dropna().value_counts(sort=False).items():
            if now.get(column) and not _is_same(column, str(before), now[column]):
                yield f"  {column}: {before} in {_trials(n_trials)} -> {now[column]}"


def _is_same(column: str, before: str, now: str) -> bool:
    """Return whether two values are equal; for code revisions, whether their hashes of the source are."""
    return before == now or (column == "code_revision" and "." in now and before.endswith(now[now.rindex(".") :]))


def _places(trials: pd.DataFrame, spec: SweepSpec) -> Iterator[str]:
    """Yield differences in where a cell's trials run; the number of threads counts, as it changes how sums round."""
    for cell in spec.cells:
        request = spec.resources.of(cell.scenario, *cell.names)
        here = trials[(trials["scenario"] == cell.scenario) & (trials["method"] == cell.method)]
        for column, now in (("device", request.device), ("threads", request.threads)):
            for before, n_trials in here[column].dropna().value_counts(sort=False).items():
                if before != now:
                    yield f"  {column} of {cell.name}: {before} in {_trials(n_trials)} -> {now}"


def _trials(n: int) -> str:
    return f"{n} trial{'s' if n != 1 else ''}"
