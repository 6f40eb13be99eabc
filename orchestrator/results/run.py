"""A run folder: the resolved spec, the tables, and whose they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from orchestrator.core.accuracy import intransigence
from orchestrator.core.errors import RunFolderError, StorageError
from orchestrator.core.fault_points import reached
from orchestrator.core.metrics import METRICS_AND_COSTS
from orchestrator.results.compatibility import differences, foreign_files, protocol_of, recorded_protocols
from orchestrator.results.rows import matrix_of
from orchestrator.results.software import changes_since, worker_changes
from orchestrator.results.spec_file import encode_spec, read_run_spec
from orchestrator.results.tables import fill_values, forget_homes, read_once, read_table, write_rows
from orchestrator.search.suggestion import Outcome
from orchestrator.search.sweep_search import SweepSearch
from orchestrator.spec.sweep_spec import SweepSpec
from orchestrator.storage.base import CHECKPOINTS, SPEC_FILE, TABLES, Place, StoredFile, ignore, is_bookkeeping
from orchestrator.storage.opening import open_storage
from orchestrator.streams.settings import STREAMS, dataset_of
from orchestrator.trial.checkpoint import delete_checkpoint


class Run:
    """A run folder that exists.

    Args:
        place: the folder, on a disk or in an object store.
    """

    def __init__(self, place: Place) -> None:
        self.storage = open_storage(place)

    @property
    def where(self) -> str:
        """Return how the folder is shown."""
        return self.storage.where

    @property
    def path(self) -> Path:
        """Return the folder on this machine.

        Raises:
            StorageError: where the run lies in an object store.
        """
        if self.storage.path is None:
            raise StorageError(f"run.path: expected a run on a disk, got '{self.where}'; use trials() and accuracy()")
        return self.storage.path

    @classmethod
    def open(cls, place: Place) -> Run:
        """Return the run in `place`.

        Raises:
            RunFolderError: where the folder is missing or holds no run.
            StorageError: where the storage cannot be reached.
        """
        run = cls(place)
        try:
            names = run.storage.names()
        except NotADirectoryError:
            names = []
        except OSError as error:
            raise _unreachable(run.where, error) from error
        if SPEC_FILE not in names:
            is_lost = any(table in names for table in TABLES)
            raise RunFolderError(
                f"run: expected a run folder with {SPEC_FILE}, got '{run.where}'"
                + (", which lost it and has tables; run the same sweep again: it writes it anew" if is_lost else "")
                + ("" if is_lost else "; give the folder that a sweep printed")
            )
        return run

    @classmethod
    def create(cls, place: Place, spec: SweepSpec) -> Run:
        """Return the run in `place` for `spec`: a new one, or an old one that `spec` repeats or extends.

        Raises:
            RunFolderError: where the folder holds something else, or rows that `spec` would mix with unlike ones.
            SpecError: where `spec` is too large to be kept.
            StorageError: where it cannot be written.
        """
        run = cls(place)
        run.check(spec)
        try:
            run.storage.write(SPEC_FILE, encode_spec(spec), "spec")
        except OSError as error:
            raise _unwritable(run.where, error) from error
        return cls(run.storage)  # afresh: `run` remembers the spec of before

    def check(self, spec: SweepSpec) -> None:
        """Refuse a folder that `spec` cannot be run in, without writing anything.

        Tables that have lost their spec are taken where nothing else is there and their rows are like those of `spec`.

        Raises:
            RunFolderError: where the folder holds something else, or rows that `spec` would mix with unlike ones.
        """
        try:
            entries = [name for name in self.storage.names() if not is_bookkeeping(name)]
            foreign = next(foreign_files(self.storage), None) if SPEC_FILE not in entries else None
        except NotADirectoryError as error:
            raise RunFolderError(
                f"run: expected a folder, got the file '{self.where}'; choose another --run"
            ) from error
        except OSError as error:
            raise _unreachable(self.where, error) from error
        if foreign is not None:
            raise RunFolderError(
                f"run: expected an empty or a run folder, got '{self.where}' with '{foreign}' in it and without "
                f"{SPEC_FILE}; choose another" + (", or move that out" if {*TABLES} & {*entries} else "")
            )
        if entries:
            self._refuse_unlike(spec, has_spec=SPEC_FILE in entries)
            self.trials()  # refuses damaged files and newer schemas before anything is trained

    def refuse_changed(self, spec: SweepSpec, now: Mapping[str, Any]) -> None:
        """Refuse to go on where trials ran with other software, or on another kind of device, than would be used now.

        Args:
            spec: what is to be run; where none of its trials is missing, nothing would be mixed.
            now: column of the trials table -> today's value.

        Raises:
            RunFolderError: naming each change and how many trials it concerns.
        """
        changes = changes_since(self._table("trials"), spec, now)
        self._refuse_changes(changes if changes and self.n_missing(spec) else [])

    def refuse_other_worker(self, provenance: Mapping[str, Any]) -> None:
        """Refuse a trial whose worker has other libraries than those of earlier trials on the same kind of device.

        Args:
            provenance: of the trial that has just ended.

        Raises:
            RunFolderError: naming each change.
        """
        self._refuse_changes(worker_changes(self._table("trials"), provenance))

    def _refuse_changes(self, changes: list[str]) -> None:
        if changes:
            raise RunFolderError(
                f"run: expected the software and devices of the trials in '{self.where}', got others\n"
                + "\n".join(changes)
                + "\nold and new rows would be compared; pass --accept-changes to mix them, or choose another --run"
            )

    def refuse_other_data(self, fingerprints: Mapping[str, str]) -> None:
        """Refuse data sets other than those that the recorded trials were trained on.

        Args:
            fingerprints: data set -> hash.

        Raises:
            RunFolderError: naming the data set and both hashes.
        """
        frame = self._table("trials")
        for stream, recorded in set(zip(frame["stream"], frame["data_hash"], strict=True)):
            dataset = dataset_of(stream)
            if fingerprints.get(dataset, recorded) != recorded:
                place = "with --data-dir" if stream in STREAMS else f"under streams.{stream}"
                raise RunFolderError(
                    f"run: expected the {dataset} data of the trials in '{self.where}' (hash {recorded}), got "
                    f"{fingerprints[dataset]}; give the same files {place}, or choose another --run"
                )

    @cached_property
    def spec(self) -> SweepSpec:
        """Return the resolved spec."""
        try:
            return read_run_spec(self.storage)
        except OSError as error:
            raise _unreachable(self.storage.describe(SPEC_FILE), error) from error

    def trials(self) -> pd.DataFrame:
        """Return the trials table, with `intransigence` where the sweep has `joint` on the same seed and phase."""
        frame = self._table("trials")
        frame["intransigence"] = self._intransigence(frame)
        return frame

    def fill_intransigence(self) -> None:
        """Write the intransigence of every row whose `joint` has ended since the row was written.

        Raises:
            StorageError: where a file cannot be written; it is then filled by the next run.
        """
        frame = self._table("trials")
        if "joint" not in set(frame["method"]):
            return
        values = self._intransigence(frame)
        new = np.isfinite(values) & frame["intransigence"].isna().to_numpy()
        filled = dict(zip(frame.loc[new, "key"], values[new], strict=True))
        fill_values(self.storage.folder("trials"), "trials", "intransigence", filled)

    def accuracy(self) -> pd.DataFrame:
        """Return the accuracy table: a row a measured cell of R."""
        return self._table("accuracy")

    def matrix(self, key: str) -> pd.DataFrame:
        """Return a trial's R: a row a task, a column an 'after' (-1 is before training), NaN where not measured."""
        return matrix_of(self.accuracy(), key)

    def outcomes(self) -> dict[str, Outcome]:
        """Return what the search needs of every trial in the tables, by key.

        A trial that completed and has lost its accuracy rows, with a damaged file that was deleted, is not there: it is
        run again.
        """
        frame, measured = self._table("trials"), set(self._table("accuracy")["key"])
        names = [*METRICS_AND_COSTS]
        values = frame[names].to_numpy(dtype=float)
        return {
            key: Outcome(status, dict(zip(names, row, strict=True)))
            for key, status, row in zip(frame["key"], frame["status"], values.tolist(), strict=True)
            if status != "completed" or key in measured
        }

    def search(self, spec: SweepSpec) -> SweepSearch:
        """Return the search of `spec` as far as the tables go, from the hashes of data that they name."""
        frame = self._table("trials")
        known = {dataset_of(stream): value for stream, value in zip(frame["stream"], frame["data_hash"], strict=True)}
        unknown = {dataset_of(cell.stream): "" for cell in spec.cells}
        return SweepSearch(spec, unknown | known, self.outcomes())

    def n_missing(self, spec: SweepSpec) -> int:
        """Return how many trials of `spec` have no result in the tables, at most, by searching again over them."""
        return self.search(spec).n_unknown

    def write_trial(self, key: str, row: dict[str, Any], accuracy: list[dict[str, Any]]) -> None:
        """Write a trial's rows; the trials row is last and commits it."""
        if accuracy:
            write_rows(self.storage.folder("accuracy"), key, "accuracy", accuracy)
        reached("trial.measured")
        write_rows(self.storage.folder("trials"), key, "trials", [row])
        reached("trial.committed")

    def checkpoint_path(self, key: str) -> str:
        """Return the path or URI where the trial `key` keeps its checkpoint while it runs, on whichever worker."""
        return self.storage.folder(CHECKPOINTS).address(f"{key}.pt")

    def delete_used_checkpoints(self) -> None:
        """Delete checkpoints of trials that have their rows: a worker that was taken for dead may write one late.

        One of a trial that the machine ended stays: the next run goes on from it.
        """
        folder, names = self.storage.folder(CHECKPOINTS), list[str]()
        with suppress(OSError):  # they are in nobody's way
            names = folder.names()
        found = {name.removesuffix(".pt"): name for name in names if name.endswith(".pt")}
        for key, outcome in self.outcomes().items() if found else ():
            if key in found and outcome.status != "error":
                delete_checkpoint(StoredFile(folder, found[key]))

    def _table(self, table: str) -> pd.DataFrame:
        return read_table(self.storage.folder(table), table)

    @contextmanager
    def locked(self, say: Callable[[str], None] = ignore) -> Iterator[None]:
        """Hold the run folder for this process, and remove what dead ones left; a lock of theirs does not block.

        Args:
            say: told, in a line, of a lock that is watched for some time because its process may be dead.

        Raises:
            RunFolderError: where another sweep holds it.
            StorageError: where it cannot be written.
        """
        with ExitStack() as held:
            try:
                held.enter_context(self.storage.locked(say))
                self.storage.tidy()
            except OSError as error:
                raise _unwritable(self.where, error) from error
            forget_homes()
            held.enter_context(read_once(self.storage))
            yield

    def _refuse_unlike(self, spec: SweepSpec, has_spec: bool) -> None:
        """Refuse a spec whose rows could not be compared with those that are there.

        Args:
            spec: what is to be run.
            has_spec: whether the folder still says what its rows follow; else each row is asked.

        Raises:
            RunFolderError: naming each field that differs.
        """
        trials = self._table("trials")
        # With a spec a row of each stream is enough: of one that the last spec had left out there are rows too.
        followed = recorded_protocols(trials.drop_duplicates("stream") if has_spec else trials, self.storage)
        changes = differences([protocol_of(self.spec), *followed] if has_spec else followed, protocol_of(spec))
        if changes:
            raise RunFolderError(
                f"run: expected a spec that repeats or extends the run in '{self.where}', got other\n"
                + "\n".join(changes)
                + "\nits rows could not be compared with those that are there; choose another --run or name"
            )

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
            known = ceiling is not None and len(diagonals.get(key, ())) == len(diagonals[ceiling])
            values.append(intransigence(diagonals[key], diagonals[ceiling]) if known else np.nan)
        return np.array(values, dtype=float)


def _unwritable(where: str, error: OSError) -> StorageError:
    return StorageError(
        f"run: expected a folder that can be written, got '{where}' ({error.strerror}); choose another --run"
    )


def _unreachable(where: str, error: OSError) -> StorageError:
    return StorageError(
        f"run: expected a folder that can be read, got '{where}' ({error.strerror}); mend permissions or the "
        "connection, or choose another --run"
    )
