"""A run folder: the resolved spec, the tables, and which sweep may add to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from orchestrator.core.errors import RunFolderError, StorageError
from orchestrator.core.fault_points import reached
from orchestrator.results.folder import run_entries, unreadable, unwritable
from orchestrator.results.outcomes import outcomes_of
from orchestrator.results.protocol_changes import protocol_changes, protocol_of, recorded_protocols
from orchestrator.results.rows import intransigence_of, matrix_of
from orchestrator.results.software_changes import software_changes, worker_changes
from orchestrator.results.spec_file import encode_spec, read_run_spec
from orchestrator.results.tables import Tables
from orchestrator.search.cell_search import CellSearch
from orchestrator.search.suggestion import Outcome
from orchestrator.search.sweep_search import SweepSearch
from orchestrator.spec.sweep_spec import SweepSpec
from orchestrator.storage.base import CHECKPOINTS, SPEC_FILE, TABLES, Place, StoredFile, ignore
from orchestrator.storage.opening import open_storage
from orchestrator.streams.settings import STREAMS, dataset_of
from orchestrator.trial.checkpoint import delete_checkpoint


class Run:
    """A run folder, whether it exists yet or not.

    Every method reads the files again, so that a notebook sees what a running sweep adds. Inside `locked`, after
    `cached`, and with `open(place, cached=True)`, each table is read once.

    Args:
        place: the folder, on a disk or in an object store.
    """

    def __init__(self, place: Place) -> None:
        self.storage = open_storage(place)
        self.tables = Tables(self.storage)
        self._spec: SweepSpec | None = None
        self._searched: tuple[object, SweepSpec, dict[str, str], SweepSearch] | None = None

    @property
    def where(self) -> str:
        """Return the folder as it may be shown, without secrets."""
        return self.storage.where

    @property
    def path(self) -> Path:
        """Return the folder on this machine.

        Raises:
            StorageError: if the run lies in an object store.
        """
        if self.storage.path is None:
            raise StorageError(f"run.path: expected a run on a disk, got '{self.where}'; use trials() and accuracy()")
        return self.storage.path

    @classmethod
    def open(cls, place: Place, cached: bool = False) -> Run:
        """Return the run in `place`.

        Args:
            place: the folder.
            cached: read each table once, and never again: for commands that end soon.

        Raises:
            RunFolderError: if the folder is missing or holds no run.
            StorageError: if the storage cannot be reached.
        """
        run = cls(place)
        try:
            names = run.storage.names()
        except NotADirectoryError:
            names = []
        except OSError as error:
            raise unreadable(run.where, error) from error
        if SPEC_FILE not in names:
            is_lost = any(table in names for table in TABLES)
            raise RunFolderError(
                f"run: expected a run folder with {SPEC_FILE}, got '{run.where}'"
                + (", which has tables but lost it; run the same sweep again to restore it" if is_lost else "")
                + ("" if is_lost else "; give the folder that a sweep printed")
            )
        return run.cached() if cached else run

    def cached(self) -> Run:
        """Return this run, which from now on reads each table once, and never again until it writes to it itself."""
        self.tables.start_cache()
        return self

    @classmethod
    def create(cls, place: Place, spec: SweepSpec) -> Run:
        """Return the run in `place` for `spec`: a new one, or an existing one that `spec` repeats or extends.

        Raises:
            RunFolderError: as for `check`.
            SpecError: if `spec` is too large to be read again.
            StorageError: if the folder cannot be written to.
        """
        run = cls(place)
        run.write_spec(spec)
        return run

    def write_spec(self, spec: SweepSpec) -> None:
        """Make this the run of `spec`, after the checks of `check`.

        Raises:
            RunFolderError, SpecError, StorageError: as for `create`.
        """
        self.check(spec)
        try:
            self.storage.write(SPEC_FILE, encode_spec(spec), "spec")
        except OSError as error:
            raise unwritable(self.where, error) from error
        self._spec = None

    def check(self, spec: SweepSpec) -> None:
        """Refuse a folder that `spec` cannot be run in, without writing anything.

        Tables that lost their spec are accepted if nothing else is in the folder and their rows followed the protocol
        of `spec`.

        Raises:
            RunFolderError: if the folder holds something else, or rows that are not comparable with those of `spec`.
        """
        entries = run_entries(self.storage)
        if entries:
            self._refuse_other_protocol(spec, has_spec=SPEC_FILE in entries)
            for table in self.tables:
                table.read()  # refuses damaged files and newer schemas before anything is trained

    def refuse_changed(self, spec: SweepSpec, now: Mapping[str, Any]) -> None:
        """Refuse to continue if the recorded trials ran with other software or devices than new ones would.

        Args:
            spec: what is to be run; if none of its trials is missing, nothing would be mixed and nothing is refused.
            now: column of the trials table -> today's value.

        Raises:
            RunFolderError: naming each change and how many trials it concerns.
        """
        changes = software_changes(self.tables.trials.read(), spec, now)
        self._refuse_changes(changes if changes and self.n_missing(spec) else [])

    def refuse_other_worker(self, provenance: Mapping[str, Any]) -> None:
        """Refuse a trial whose worker has other libraries than earlier trials had on the same kind of device.

        Args:
            provenance: of the trial that has just ended.

        Raises:
            RunFolderError: naming each change.
        """
        self._refuse_changes(worker_changes(self.tables.trials.read(), provenance))

    def _refuse_changes(self, changes: list[str]) -> None:
        if changes:
            raise RunFolderError(
                f"run: the trials in '{self.where}' ran with other software or devices\n"
                + "\n".join(changes)
                + "\nold and new rows would be compared; pass --accept-changes to mix them, or choose another --run"
            )

    def refuse_other_data(self, fingerprints: Mapping[str, str]) -> None:
        """Refuse built-in data sets other than those that the recorded trials were trained on.

        A user's own data may grow or be corrected: their trials have other keys, so the old rows stay apart.

        Args:
            fingerprints: data set -> hash.

        Raises:
            RunFolderError: naming the data set and both hashes.
        """
        trials = self.tables.trials.read()
        for stream, recorded in set(zip(trials["stream"], trials["data_hash"], strict=True)):
            dataset = dataset_of(stream)
            if stream in STREAMS and fingerprints.get(dataset, recorded) != recorded:
                raise RunFolderError(
                    f"run: expected the {dataset} data of the trials in '{self.where}' (hash {recorded}), got "
                    f"{fingerprints[dataset]}; give the same files with --data-dir, or choose another --run"
                )

    def earlier_data(self, fingerprints: Mapping[str, str]) -> list[str]:
        """Return a sentence for each of a user's data sets whose earlier state some trials were trained on.

        Args:
            fingerprints: data set -> hash of its present state.
        """
        trials = self.tables.trials.read()
        old = trials[trials["data_hash"] != trials["stream"].map(dataset_of).map(fingerprints)]
        return [
            f"the data of {stream} have changed since {n} of the trials in the tables; these stay there, and the "
            "answer is that of the present data"
            for stream, n in old[old["stream"].map(dataset_of).isin(fingerprints)]["stream"].value_counts().items()
        ]

    @property
    def spec(self) -> SweepSpec:
        """Return the resolved spec, read once."""
        if self._spec is None:
            try:
                self._spec = read_run_spec(self.storage)
            except OSError as error:
                raise unreadable(self.storage.describe(SPEC_FILE), error) from error
        return self._spec

    def trials(self) -> pd.DataFrame:
        """Return the trials table; `intransigence` is filled in if `joint` ran on the same scenario, seed and phase."""
        trials = self.tables.trials.read()
        trials["intransigence"] = intransigence_of(trials, self.tables.accuracy.read())
        return trials

    def fill_intransigence(self) -> None:
        """Write the intransigence of every row whose `joint` ended after the row was written.

        Raises:
            StorageError: if a file cannot be written; the next run fills it.
        """
        trials = self.tables.trials.read()
        if "joint" not in set(trials["method"]):
            return
        values = intransigence_of(trials, self.tables.accuracy.read())
        new = np.isfinite(values) & trials["intransigence"].isna().to_numpy()
        self.tables.trials.fill("intransigence", dict(zip(trials.loc[new, "key"], values[new], strict=True)))

    def accuracy(self) -> pd.DataFrame:
        """Return the accuracy table: a row for each measured cell of R."""
        return self.tables.accuracy.read(with_lists=True)

    def matrix(self, key: str) -> pd.DataFrame:
        """Return a trial's R: a row a task, a column an 'after' (-1 is before training), NaN if not measured."""
        return matrix_of(self.tables.accuracy.read(), key)

    def outcomes(self, spec: SweepSpec | None = None) -> dict[str, Outcome]:
        """Return what the search of `spec`, by default the run's own, needs of every trial in the tables, by key.

        A completed trial is left out if its accuracy rows are lost, as with a damaged file that was deleted, or if they
        do not tell a score that the spec asks for, as with those of earlier versions: it is run again.
        """
        return outcomes_of(self.spec if spec is None else spec, self.tables)

    def search(
        self,
        spec: SweepSpec,
        fingerprints: Mapping[str, str] | None = None,
        on_tell: Callable[[CellSearch, Any], None] | None = None,
    ) -> SweepSearch:
        """Return the search of `spec` as far as the tables go; a complete one is searched once if they are cached.

        Args:
            spec: the sweep.
            fingerprints: data set -> hash; by default those of the newest trials in the tables.
            on_tell: passed on to every `CellSearch`.
        """
        hashes = dict(self._recorded_data(spec) if fingerprints is None else fingerprints)
        state = self.tables.state()
        if on_tell is None and state is not None and self._searched is not None:
            *same, search = self._searched
            if same == [state, spec, hashes]:
                return search
        search = SweepSearch(spec, hashes, self.outcomes(spec), on_tell)
        if search.n_unknown == 0:  # nobody goes on with it
            self._searched = state, spec, hashes, search
        return search

    def _recorded_data(self, spec: SweepSpec) -> dict[str, str]:
        """Return data set -> the hash that the newest trial records, as a user's data may have changed in between."""
        newest = self.tables.trials.read().sort_values("started_at", kind="stable")
        known = {dataset_of(stream): value for stream, value in zip(newest["stream"], newest["data_hash"], strict=True)}
        return {dataset_of(cell.stream): "" for cell in spec.cells} | known

    def as_begun(self, spec: SweepSpec) -> SweepSpec:
        """Return a spec as this run began, if that was before there were finals and splits of a seed's own.

        What the user sets stays as it is.
        """
        if SPEC_FILE not in run_entries(self.storage):
            return spec
        recorded = self.spec
        is_open = not (
            "validation_split" in spec.model_fields_set
            or "seeds" in spec.search.model_fields_set
            or "finals" in spec.seeds.model_fields_set
        )
        if not (is_open and recorded.is_of_before and recorded.validation_split == "fixed"):
            return spec
        search, seeds = spec.search.model_copy(update={"seeds": "all"}), spec.seeds.model_copy(update={"finals": 0})
        return spec.model_copy(update={"validation_split": "fixed", "search": search, "seeds": seeds})

    def n_missing(self, spec: SweepSpec) -> int:
        """Return how many trials of `spec` have no result in the tables, at most, by searching again over them."""
        return self.search(spec).n_unknown

    def write_trial(self, key: str, row: dict[str, Any], accuracy: list[dict[str, Any]]) -> None:
        """Write a trial's rows; the trials row is last and commits it."""
        if accuracy:
            self.tables.accuracy.write(key, accuracy)
        reached("trial.measured")
        self.tables.trials.write(key, [row])
        reached("trial.committed")

    def checkpoint_path(self, key: str) -> str:
        """Return the path or URI at which any worker finds the checkpoint of the running trial `key`."""
        return self.storage.folder(CHECKPOINTS).address(f"{key}.pt")

    def delete_used_checkpoints(self) -> None:
        """Delete checkpoints of trials that have their rows: a worker that was taken for dead may write one late.

        The checkpoint of a trial with status `error` stays: the next run continues from it.
        """
        folder, names = self.storage.folder(CHECKPOINTS), list[str]()
        with suppress(OSError):  # what cannot be listed does no harm
            names = folder.names()
        found = {name.removesuffix(".pt"): name for name in names if name.endswith(".pt")}
        if not found:
            return
        trials, measured = self.tables.trials.read(), set(self.tables.accuracy.read()["key"])
        for key, status in zip(trials["key"], trials["status"], strict=True):
            if key in found and status != "error" and (status != "completed" or key in measured):
                delete_checkpoint(StoredFile(folder, found[key]))

    @contextmanager
    def locked(self, say: Callable[[str], None] = ignore) -> Iterator[None]:
        """Hold the run folder for this process, and remove what dead processes left; their lock does not block.

        Args:
            say: called with a line of text while a lock is watched whose process may be dead.

        Raises:
            RunFolderError: if another sweep holds it.
            StorageError: if it cannot be written to.
        """
        with ExitStack() as held:
            try:
                held.enter_context(self.storage.locked(say))
                self.storage.tidy()
            except OSError as error:
                raise unwritable(self.where, error) from error
            held.enter_context(self.tables.held())
            yield

    def _refuse_other_protocol(self, spec: SweepSpec, has_spec: bool) -> None:
        """Refuse a spec whose rows would not be comparable with those in the tables.

        Args:
            spec: what is to be run.
            has_spec: whether the folder still has its spec; if not, every row is checked.

        Raises:
            RunFolderError: naming each field that differs.
        """
        trials = self.tables.trials.read()
        # With a spec, one row a stream is enough: rows may be of a stream that the last spec left out.
        followed = recorded_protocols(trials.drop_duplicates("stream") if has_spec else trials, self.tables.trials)
        changes = protocol_changes([protocol_of(self.spec), *followed] if has_spec else followed, protocol_of(spec))
        if changes:
            raise RunFolderError(
                f"run: the spec does not repeat or extend the run in '{self.where}'\n"
                + "\n".join(changes)
                + "\nits rows could not be compared with those that are there; choose another --run or name"
            )
