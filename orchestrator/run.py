"""A run folder: the resolved spec, the tables, and whose they are."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import BaseModel

from orchestrator.errors import OrchestratorError, RunFolderError, StorageError
from orchestrator.metrics import METRICS, intransigence
from orchestrator.search import SweepSearch
from orchestrator.spec import SweepSpec, parse_spec, read_spec
from orchestrator.speccheck import COSTS
from orchestrator.streams import STREAMS, StreamSettings, dataset_of
from orchestrator.suggestion import Outcome
from orchestrator.tables import fill_values, load_json, matrix_of, read_table, replace_file, write_rows

SPEC_FILE = "spec.yaml"
LOCK_FILE = ".lock"
_TEMPORARY_SPEC = f".{SPEC_FILE}.tmp"


class Run:
    """A run folder that exists.

    Args:
        path: the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def open(cls, path: str | Path) -> Run:
        """Return the run in `path`.

        Raises:
            RunFolderError: where the folder is missing or holds no run.
        """
        path = Path(path)
        if not (path / SPEC_FILE).is_file():
            raise RunFolderError(
                f"run: expected a run folder with {SPEC_FILE}, got '{path}'; give the folder that a sweep printed"
            )
        return cls(path)

    @classmethod
    def create(cls, path: Path, spec: SweepSpec) -> Run:
        """Return the run in `path` for `spec`: a new one, or an old one that `spec` repeats or extends.

        Raises:
            RunFolderError: where the folder holds something else, or rows that `spec` would mix with unlike ones.
            StorageError: where it cannot be written.
        """
        cls(path).check(spec)
        try:
            path.mkdir(parents=True, exist_ok=True)
            replace_file(path / SPEC_FILE, path / _TEMPORARY_SPEC, spec.to_yaml().encode())
        except OSError as error:
            raise _unwritable(path, error) from error
        return cls(path)

    def check(self, spec: SweepSpec) -> None:
        """Refuse a folder that `spec` cannot be run in, without writing anything.

        Raises:
            RunFolderError: where the folder holds something else, or rows that `spec` would mix with unlike ones.
        """
        path = self.path
        try:
            if path.exists() and not path.is_dir():
                raise RunFolderError(f"run: expected a folder, got the file '{path}'; choose another --run")
            own = (LOCK_FILE, _TEMPORARY_SPEC)
            entries = [p.name for p in path.iterdir() if p.name not in own] if path.exists() else []
        except OSError as error:
            raise _unwritable(path, error) from error
        if entries and SPEC_FILE not in entries:
            raise RunFolderError(
                f"run: expected an empty or a run folder, got '{path}' with '{entries[0]}' in it; choose another"
            )
        if entries:
            self.refuse_unlike(spec)
            self.trials()  # refuses damaged files and newer schemas before anything is trained

    def refuse_other_data(self, fingerprints: Mapping[str, str]) -> None:
        """Refuse data sets other than those that the recorded trials were trained on.

        Args:
            fingerprints: data set -> hash.

        Raises:
            RunFolderError: naming the data set and both hashes.
        """
        frame = read_table(self.path / "trials", "trials")
        for stream, recorded in set(zip(frame["stream"], frame["data_hash"], strict=True)):
            dataset = dataset_of(stream)
            if fingerprints.get(dataset, recorded) != recorded:
                place = "with --data-dir" if stream in STREAMS else f"under streams.{stream}"
                raise RunFolderError(
                    f"run: expected the {dataset} data of the trials in '{self.path}' (hash {recorded}), got "
                    f"{fingerprints[dataset]}; give the same files {place}, or choose another --run"
                )

    @cached_property
    def spec(self) -> SweepSpec:
        """Return the resolved spec."""
        try:
            return parse_spec(read_spec(self.path / SPEC_FILE))
        except OrchestratorError as error:
            raise RunFolderError(
                f"{self.path / SPEC_FILE}: expected the spec of a run, got one with faults: {error}"
            ) from error

    def trials(self) -> pd.DataFrame:
        """Return the trials table, with `intransigence` where the sweep has `joint` on the same seed and phase."""
        frame = read_table(self.path / "trials", "trials")
        frame["intransigence"] = self._intransigence(frame)
        return frame

    def fill_intransigence(self) -> None:
        """Write the intransigence of every row whose `joint` has ended since the row was written.

        Raises:
            StorageError: where a file cannot be written; it is then filled by the next run.
        """
        frame = read_table(self.path / "trials", "trials")
        values = self._intransigence(frame)
        new = np.isfinite(values) & frame["intransigence"].isna().to_numpy()
        fill_values(
            self.path / "trials", "trials", "intransigence", dict(zip(frame.loc[new, "key"], values[new], strict=True))
        )

    def accuracy(self) -> pd.DataFrame:
        """Return the accuracy table: a row a measured cell of R."""
        return read_table(self.path / "accuracy", "accuracy")

    def matrix(self, key: str) -> pd.DataFrame:
        """Return a trial's R: a row a task, a column an 'after' (-1 is before training), NaN where not measured."""
        return matrix_of(self.accuracy(), key)

    def outcomes(self) -> dict[str, Outcome]:
        """Return what the search needs of every trial in the tables, by key."""
        frame = read_table(self.path / "trials", "trials")
        names = [*METRICS, *COSTS]
        values = frame[names].to_numpy(dtype=float)
        return {
            key: Outcome(status, dict(zip(names, row, strict=True)))
            for key, status, row in zip(frame["key"], frame["status"], values.tolist(), strict=True)
        }

    def n_missing(self, spec: SweepSpec) -> int:
        """Return how many trials of `spec` have no result in the tables, at most, by searching again over them."""
        frame = read_table(self.path / "trials", "trials")
        hashes = dict(zip(frame["stream"], frame["data_hash"], strict=True))
        known = {dataset_of(stream): value for stream, value in hashes.items()}
        fingerprints = {dataset_of(cell.stream): "" for cell in spec.cells} | known
        search = SweepSearch(spec, fingerprints, self.outcomes())
        return sum(cell.n_unknown for cell in search.cells)

    def write_trial(self, key: str, row: dict[str, Any], accuracy: list[dict[str, Any]]) -> None:
        """Write a trial's rows; the trials row is last and commits it."""
        if accuracy:
            write_rows(self.path / "accuracy", key, "accuracy", accuracy)
        write_rows(self.path / "trials", key, "trials", [row])

    def checkpoint_path(self, key: str) -> Path:
        """Return where the trial `key` keeps its checkpoint while it runs."""
        return (self.path / "checkpoints" / f"{key}.pt").absolute()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run folder for this process; a lock of a dead process does not block.

        Raises:
            RunFolderError: where another sweep holds it.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            file = open(self.path / LOCK_FILE, "w")  # noqa: SIM115 (closed below, when the lock ends)
        except OSError as error:
            raise _unwritable(self.path, error) from error
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise RunFolderError(
                    f"run: expected a folder that no other sweep uses, got '{self.path}'; wait for it or choose "
                    "another --run"
                ) from error
            file.write(str(os.getpid()))
            file.flush()
            try:
                yield
            finally:
                self._remove_if_unused()

    def _remove_if_unused(self) -> None:
        """Remove the folder where it holds nothing but the lock: a mistake was found before anything started."""
        with suppress(OSError):
            if [entry.name for entry in self.path.iterdir()] == [LOCK_FILE]:
                (self.path / LOCK_FILE).unlink()
                self.path.rmdir()

    def refuse_unlike(self, spec: SweepSpec) -> None:
        """Refuse a spec whose rows could not be compared with those that are there.

        Raises:
            RunFolderError: naming each field that differs.
        """
        old = self.spec
        fields = ("name", "model", "training", "validation_share")
        differ = {name: (getattr(old, name), getattr(spec, name)) for name in fields}
        cut = {s.partition("/")[0]: old.stream_settings(s.partition("/")[0]).without_paths() for s in old.scenarios}
        cut |= self._recorded_streams()  # rows of streams that the last spec had left out are there too
        streams = cut.keys() & {s.partition("/")[0] for s in spec.scenarios}
        differ |= {f"streams.{s}": (cut[s], spec.stream_settings(s).without_paths()) for s in sorted(streams)}
        changes = [line for name, (before, now) in differ.items() for line in _changes(name, before, now)]
        if changes:
            raise RunFolderError(
                f"run: expected a spec that repeats or extends the run in '{self.path}', got other\n"
                + "\n".join(changes)
                + "\nits rows could not be compared with those that are there; choose another --run or name"
            )

    def _recorded_streams(self) -> dict[str, Any]:
        """Return how each stream that has rows is cut."""
        frame = read_table(self.path / "trials", "trials").drop_duplicates("stream")
        settings = {stream: load_json(text) for stream, text in zip(frame["stream"], frame["trial_spec"], strict=True)}
        return {s: StreamSettings.model_validate(spec["stream_settings"]) for s, spec in settings.items()}

    def _intransigence(self, frame: pd.DataFrame) -> np.ndarray[Any, np.dtype[np.float64]]:
        accuracy = self.accuracy()
        learned = accuracy[accuracy["after_task"] == accuracy["task"]].sort_values("task")
        diagonals: dict[Any, list[float]] = {key: rows["accuracy"].tolist() for key, rows in learned.groupby("key")}
        joint = frame[(frame["method"] == "joint") & (frame["status"] == "completed")]
        same = ["scenario", "phase", "seed", "key"]
        ceilings = {tuple(place): key for *place, key in joint[same].itertuples(index=False) if key in diagonals}
        values = []
        for *place, key in frame[same].itertuples(index=False):
            ceiling = ceilings.get(tuple(place))
            known = ceiling is not None and key in diagonals
            values.append(intransigence(diagonals[key], diagonals[ceiling]) if known else np.nan)
        return np.array(values, dtype=float)


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


def _unwritable(path: Path, error: OSError) -> StorageError:
    return StorageError(
        f"run: expected a folder that can be written, got '{path}' ({error.strerror}); choose another --run"
    )
