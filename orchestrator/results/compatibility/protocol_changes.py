"""What differs between the protocol that a run's rows followed and that of a spec.

Rows are comparable if they followed one protocol. A spec states it, and so does the row of each trial.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pandas as pd
from pydantic import BaseModel

from orchestrator.core.errors import RunFolderError
from orchestrator.models.settings import ModelSettings
from orchestrator.results.rows import load_json, odd_spec
from orchestrator.results.tables import Table
from orchestrator.spec.cells import split_scenario
from orchestrator.spec.sweep_spec import SweepSpec
from orchestrator.streams.settings import STREAMS, StreamSettings, dataset_of
from strategies import TrainingSettings

Protocol = Mapping[str, Any]
"""Field of a spec -> its value; only fields that rows must share to be comparable."""


def protocol_of(spec: SweepSpec) -> Protocol:
    """Return the protocol that a spec asks for."""
    streams = dict.fromkeys(split_scenario(scenario)[0] for scenario in spec.scenarios)
    return {
        "name": spec.name,
        "model": spec.model,
        "training": spec.training,
        "validation_share": spec.validation_share,
        "validation_split": spec.validation_split,
        **{f"streams.{stream}": spec.stream_settings(stream).without_paths() for stream in streams},
    }


def recorded_protocols(rows: pd.DataFrame, trials: Table) -> list[Protocol]:
    """Return each protocol that rows of the trials table followed; they do not hold the sweep's name.

    Args:
        rows: the rows.
        trials: the table that they are from.

    Raises:
        RunFolderError: if a row does not hold a trial's spec.
    """
    found: list[Protocol] = []
    for stream, key, text in rows[["stream", "key", "trial_spec"]].itertuples(index=False):
        try:
            trial = load_json(text)
            protocol = {
                "model": ModelSettings.model_validate(trial["model"]),
                "training": TrainingSettings.model_validate(trial["training"]),
                "validation_share": trial["validation_share"],
                f"streams.{stream}": StreamSettings.model_validate(trial["stream_settings"]),
            }
            if trial["phase"] != "confirm":
                protocol["validation_split"] = "fixed" if trial.get("validation_seed") is None else "seed"
        except (ValueError, KeyError, RecursionError) as error:
            raise odd_spec(trials, key, f"one with faults ({str(error).splitlines()[0][:120]})") from error
        if protocol not in found:
            found.append(protocol)
    return found


def protocol_changes(old: Iterable[Protocol], new: Protocol) -> list[str]:
    """Return a line for each field of the new protocol that differs from one of the old."""
    lines = [
        line
        for protocol in old
        for name, before in protocol.items()
        if name in new
        for line in _changes(name, before, new[name])
    ]
    return list(dict.fromkeys(lines))


def _changes(name: str, before: Any, now: Any) -> Iterator[str]:
    """Yield a line for each field that differs, also inside of a model."""
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


def refuse_other_data(trials: pd.DataFrame, where: str, fingerprints: Mapping[str, str]) -> None:
    """Refuse built-in data sets other than those that recorded trials were trained on.

    A user's own data, or the network whose features they are, may change: their trials have other keys, so the old
    rows stay apart.

    Args:
        trials: the trials table.
        where: the run, for messages.
        fingerprints: data set, or stream of features -> hash.

    Raises:
        RunFolderError: naming the data set and both hashes.
    """
    for stream, recorded in set(zip(trials["stream"], trials["data_hash"], strict=True)):
        dataset = dataset_of(stream)
        if stream in STREAMS and stream not in fingerprints and fingerprints.get(dataset, recorded) != recorded:
            raise RunFolderError(
                f"run: expected the {dataset} data of the trials in '{where}' (hash {recorded}), got "
                f"{fingerprints[dataset]}; give the same files with --data-dir, or choose another --run"
            )


def earlier_data(trials: pd.DataFrame, fingerprints: Mapping[str, str]) -> list[str]:
    """Return a sentence for each of a user's data sets whose earlier state some trials were trained on.

    Args:
        trials: the trials table.
        fingerprints: data set -> hash of its present state.
    """
    names = {stream: stream if stream in fingerprints else dataset_of(stream) for stream in set(trials["stream"])}
    old = trials[trials["data_hash"] != trials["stream"].map(names).map(fingerprints)]
    return [
        f"the data of {stream} have changed since {n} of the trials in the tables; these stay there, and the "
        "answer is that of the present data"
        for stream, n in old[old["stream"].map(names).isin(fingerprints)]["stream"].value_counts().items()
    ]


def recorded_data(trials: pd.DataFrame, spec: SweepSpec) -> dict[str, str]:
    """Return data set -> the hash that the newest trial records, as a user's data may have changed in between."""
    newest = trials.sort_values("started_at", kind="stable")
    names = {cell.stream: spec.data_of(cell.stream) for cell in spec.cells}
    known = {
        names.get(stream, dataset_of(stream)): value
        for stream, value in zip(newest["stream"], newest["data_hash"], strict=True)
    }
    return dict.fromkeys(names.values(), "") | known


def refuse_other_protocol(spec: SweepSpec, recorded: SweepSpec | None, table: Table, where: str) -> None:
    """Refuse a spec whose rows would not be comparable with those in the tables.

    Args:
        spec: what is to be run.
        recorded: the run's spec; None if it was lost, and then every row is checked.
        table: the trials table.
        where: the run, for messages.

    Raises:
        RunFolderError: naming each field that differs.
    """
    trials = table.read()
    # With a spec, one row a stream is enough: rows may be of a stream that the last spec left out.
    followed = recorded_protocols(trials if recorded is None else trials.drop_duplicates("stream"), table)
    changes = protocol_changes([*([protocol_of(recorded)] if recorded else []), *followed], protocol_of(spec))
    if changes:
        raise RunFolderError(
            f"run: the spec does not repeat or extend the run in '{where}'\n"
            + "\n".join(changes)
            + "\nits rows could not be compared with those that are there; choose another --run or name"
        )
