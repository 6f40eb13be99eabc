"""What differs between the software and devices of a run's trials and those of today."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from orchestrator.spec import SweepSpec

COMPARED = ("code_revision", "package_version", "torch_version", "optuna_version", "python_version")
"""Columns of a trial's provenance that its result or the search may depend on."""


def changes_since(trials: pd.DataFrame, spec: SweepSpec, now: Mapping[str, Any]) -> list[str]:
    """Return what differs, a line each; empty where the trials of `spec` would be mixed with their like.

    Args:
        trials: the rows of a run.
        spec: what is to be run, for the devices that its cells ask for.
        now: column of `COMPARED` -> today's value.

    What was not recorded is not compared, and rows that the machine's errors left are not either: they are run again.
    """
    kept = trials[trials["status"] != "error"]
    return [*_software(kept, now), *_devices(kept, spec)]


def _software(trials: pd.DataFrame, now: Mapping[str, Any]) -> Iterator[str]:
    for column in COMPARED:
        for before, n_trials in trials[column].replace("", None).dropna().value_counts(sort=False).items():
            if now.get(column) and before != now[column]:
                yield f"  {column}: {before} in {_trials(n_trials)} -> {now[column]}"


def _devices(trials: pd.DataFrame, spec: SweepSpec) -> Iterator[str]:
    for cell in spec.cells:
        device = spec.resources.of(cell.scenario, cell.method).device
        here = trials[(trials["scenario"] == cell.scenario) & (trials["method"] == cell.method)]
        for before, n_trials in here["device"].dropna().value_counts(sort=False).items():
            if before != device:
                yield f"  device of {cell.name}: {before} in {_trials(n_trials)} -> {device}"


def _trials(n: int) -> str:
    return f"{n} trial{'s' if n != 1 else ''}"
