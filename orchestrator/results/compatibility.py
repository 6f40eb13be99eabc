"""Whether a folder without a spec is a run's all the same, and whether a run's rows are comparable with a spec's.

Rows are where both follow one protocol; a spec says it, and each trial's row does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pandas as pd
from pydantic import BaseModel

from orchestrator.models.settings import ModelSettings
from orchestrator.results.recorded import odd_spec
from orchestrator.results.rows import load_json
from orchestrator.results.tables import SUFFIX
from orchestrator.spec.cells import split_scenario
from orchestrator.spec.sweep_spec import SweepSpec
from orchestrator.storage.base import CHECKPOINTS, TABLES, Storage, is_bookkeeping, is_temporary
from orchestrator.streams.settings import StreamSettings
from strategies import TrainingSettings

Protocol = Mapping[str, Any]
"""Field of a spec -> its value; only fields that rows must share to be comparable."""


_OWN_NAMES = {
    **dict.fromkeys(TABLES, re.compile(rf"[0-9a-z][0-9a-z-]*{re.escape(SUFFIX)}")),
    CHECKPOINTS: re.compile(r"[0-9a-f]{16}\.pt"),
}
"""Folder of a run -> what files in it are called."""


def foreign_files(run: Storage) -> Iterator[str]:
    """Yield what a folder holds beside the tables and checkpoints of a run.

    Raises:
        OSError: where it cannot be listed.
    """
    for name in run.names():
        if name in _OWN_NAMES:
            try:
                files = run.folder(name).names()
            except NotADirectoryError:
                yield name
                continue
            yield from (
                f"{name}/{file}" for file in files if not (is_temporary(file) or _OWN_NAMES[name].fullmatch(file))
            )
        elif not is_bookkeeping(name):
            yield name


def protocol_of(spec: SweepSpec) -> Protocol:
    """Return the protocol that a spec asks for."""
    streams = dict.fromkeys(split_scenario(scenario)[0] for scenario in spec.scenarios)
    return {
        "name": spec.name,
        "model": spec.model,
        "training": spec.training,
        "validation_share": spec.validation_share,
        **{f"streams.{stream}": spec.stream_settings(stream).without_paths() for stream in streams},
    }


def recorded_protocols(trials: pd.DataFrame, run: Storage) -> list[Protocol]:
    """Return each protocol that rows of the trials table say they followed; they do not know the sweep's name.

    Args:
        trials: the rows.
        run: where they are.

    Raises:
        RunFolderError: where a row does not say it in our form.
    """
    found: list[Protocol] = []
    for stream, key, text in trials[["stream", "key", "trial_spec"]].itertuples(index=False):
        try:
            trial = load_json(text)
            protocol = {
                "model": ModelSettings.model_validate(trial["model"]),
                "training": TrainingSettings.model_validate(trial["training"]),
                "validation_share": trial["validation_share"],
                f"streams.{stream}": StreamSettings.model_validate(trial["stream_settings"]),
            }
        except (ValueError, KeyError, RecursionError) as error:
            raise odd_spec(run, key, f"one with faults ({str(error).splitlines()[0][:120]})") from error
        if protocol not in found:
            found.append(protocol)
    return found


def differences(old: Iterable[Protocol], new: Protocol) -> list[str]:
    """Return a line for each field that differs between what was followed and what is asked for."""
    lines = [
        line
        for protocol in old
        for name, before in protocol.items()
        if name in new
        for line in _changes(name, before, new[name])
    ]
    return list(dict.fromkeys(lines))


def _changes(name: str, before: Any, now: Any) -> Iterator[str]:
    """Yield a line for each field that differs; one that a model leaves out is not there."""
    if not isinstance(before, BaseModel):
        if before != now:
            yield f"  {name}: {before} -> {now}"
        return
    old, new = before.model_dump(mode="json"), now.model_dump(mode="json")
    for field in dict.fromkeys([*old, *new]):
        if old.get(field) != new.get(field):
            yield f"  {name}.{field}: {_shown(old, field)} -> {_shown(new, field)}"


def _shown(values: Mapping[str, Any], field: str) -> str:
    return "left out" if values.get(field) is None else str(values[field])
