"""A run folder: the resolved spec, the tables, and which sweep may add to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from orchestrator.core.errors import StorageError
from orchestrator.results.compatibility import protocol_changes as protocol
from orchestrator.results.compatibility.software_changes import refuse_changes, software_changes, worker_changes
from orchestrator.results.folder import (
    checkpoints,
    read_file,
    refuse_no_run,
    run_entries,
    unreadable,
    unwritable,
    write_file,
)
from orchestrator.results.outcomes import outcomes_of
from orchestrator.results.rows import intransigence_of, matrix_of, right_of, with_hyperparameters
from orchestrator.results.run_tables import Tables
from orchestrator.results.spec_file import as_begun, encode_spec, read_run_spec
from orchestrator.search.answers.full_answer import Answer, answer_of
from orchestrator.search.answers.notebook import run_html
from orchestrator.search.answers.summary import verdicts
from orchestrator.search.cell_search import CellSearch
from orchestrator.search.study import decode_log, encode_log
from orchestrator.search.suggestion import Outcome
from orchestrator.search.sweep_search import SweepSearch
from orchestrator.spec.sweep_spec import SweepSpec
from orchestrator.storage.base import ANSWER_FILE, CHECKPOINTS, SPEC_FILE, SUGGESTIONS_FILE, Place, ignore
from orchestrator.storage.opening import open_storage
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
        refuse_no_run(run.storage)
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

        Tables that lost their spec are accepted if nothing else is there and their rows followed its protocol.

        Raises:
            RunFolderError: if the folder holds something else, or rows that are not comparable with those of `spec`.
        """
        entries = run_entries(self.storage)
        if entries:
            recorded = self.spec if SPEC_FILE in entries else None
            protocol.refuse_other_protocol(spec, recorded, self.tables.trials, self.where)
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
        refuse_changes(changes if changes and self.n_missing(spec) else [], self.where)

    def refuse_other_worker(self, provenance: Mapping[str, Any]) -> None:
        """Refuse a trial whose worker has other libraries than earlier trials had on the same kind of device.

        Args:
            provenance: of the trial that has just ended.

        Raises:
            RunFolderError: naming each change.
        """
        refuse_changes(worker_changes(self.tables.trials.read(), provenance), self.where)

    def refuse_other_data(self, fingerprints: Mapping[str, str]) -> None:
        """Refuse built-in data sets other than those that the recorded trials were trained on.

        A user's own data may grow or be corrected: their trials have other keys, so the old rows stay apart.

        Args:
            fingerprints: data set -> hash.

        Raises:
            RunFolderError: naming the data set and both hashes.
        """
        protocol.refuse_other_data(self.tables.trials.read(), self.where, fingerprints)

    def earlier_data(self, fingerprints: Mapping[str, str]) -> list[str]:
        """Return a sentence for each of a user's data sets whose earlier state some trials were trained on.

        Args:
            fingerprints: data set -> hash of its present state.
        """
        return protocol.earlier_data(self.tables.trials.read(), fingerprints)

    @property
    def spec(self) -> SweepSpec:
        """Return the resolved spec, read once."""
        if self._spec is None:
            try:
                self._spec = read_run_spec(self.storage)
            except OSError as error:
                raise unreadable(self.storage.describe(SPEC_FILE), error) from error
        return self._spec

    def trials(self, hyperparameters: bool = False) -> pd.DataFrame:
        """Return the trials table; `intransigence` is filled in if `joint` ran on the same scenario, seed and phase.

        It has two columns that are not in the files, by the run's own spec: `is_chosen`, whether a trial is of the
        suggestion that stands for its cell, and `is_feasible`, whether that suggestion meets the limits on the split of
        the trial; missing for trials that are no part of the search.

        Args:
            hyperparameters: whether to add a column `hp.NAME` for each hyper-parameter.
        """
        trials = self.tables.trials.read()
        trials["intransigence"] = intransigence_of(trials, self.tables.accuracy.read())
        trials = trials.join(verdicts(self.search(self.spec), trials))
        return with_hyperparameters(trials) if hyperparameters else trials

    def answer(self) -> Answer:
        """Return the answer of this run to its own spec, as far as the tables go."""
        return answer_of(self.search(self.spec), self.tables.trials.read())

    def _repr_html_(self) -> str:
        """Return the run with its answer as notebooks show it."""
        return run_html(self.where, self.answer)

    def keep(self, search: SweepSearch) -> None:
        """Write what reading this run again can use: what the cells were asked; and the answer for machines.

        Raises:
            StorageError: if a file cannot be written; nothing else depends on them.
        """
        write_file(self.storage, SUGGESTIONS_FILE, encode_log(search.log))
        write_file(self.storage, ANSWER_FILE, answer_of(search, self.tables.trials.read()).to_json().encode())

    def fill_intransigence(self) -> None:
        """Write the intransigence of every row whose `joint` ended after the row was written.

        Raises:
            StorageError: if a file cannot be written; the next run fills it.
        """
        self.tables.fill_intransigence()

    def accuracy(self) -> pd.DataFrame:
        """Return the accuracy table: a row for each measured cell of R."""
        return self.tables.accuracy.read(with_lists=True)

    def evaluations(self) -> pd.DataFrame:
        """Return the table of evaluations while trials were trained, empty if none ran with `evaluate_every`."""
        return self.tables.evaluations.read(with_lists=True)

    def diagnostics(self) -> pd.DataFrame:
        """Return the diagnostics table, empty if no trial ran with `diagnostics: true`."""
        return self.tables.diagnostics.read()

    def matrix(self, key: str) -> pd.DataFrame:
        """Return a trial's R: a row a task, a column an 'after' (-1 is before training), NaN if not measured."""
        return matrix_of(self.tables.accuracy.read(), key)

    def example_outcomes(self) -> pd.DataFrame:
        """Return the table of outcomes: a row for the cells of R of which it is known which examples were right.

        They are those of completed trials on the test split: each task right after it was learned, and all tasks after
        the last one. Two rows are of the same examples, in the same order, if their `examples` are equal.
        """
        return self.tables.outcomes.read()

    def right_examples(self, key: str, task: int, after_task: int | None = None) -> NDArray[np.bool_]:
        """Return which examples of the test split a trial answered rightly, (N,) bool, in their order.

        Args:
            key: of the trial.
            task: the task, from 0.
            after_task: the task, from 0, after which it was measured: the last one by default, or `task` itself.

        Raises:
            UsageError: if that was not kept, as with the trials of earlier versions.
        """
        return right_of(self.tables.outcomes.read(), key, task, after_task)

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
        hashes = dict(protocol.recorded_data(self.tables.trials.read(), spec) if fingerprints is None else fingerprints)
        state = self.tables.state()
        if on_tell is None and state is not None and self._searched is not None:
            *same, search = self._searched
            if same == [state, spec, hashes]:
                return search
        log = decode_log(read_file(self.storage, SUGGESTIONS_FILE))
        search = SweepSearch(spec, hashes, self.outcomes(spec), on_tell, log)
        if search.n_unknown == 0:  # nobody goes on with it
            self._searched = state, spec, hashes, search
        return search

    def as_begun(self, spec: SweepSpec) -> SweepSpec:
        """Return a spec as this run began, see `spec_file.as_begun`."""
        return as_begun(spec, self.spec) if SPEC_FILE in run_entries(self.storage) else spec

    def n_missing(self, spec: SweepSpec) -> int:
        """Return how many trials of `spec` have no result in the tables, at most, by searching again over them."""
        return self.search(spec).n_unknown

    def checkpoint_path(self, key: str) -> str:
        """Return the path or URI at which any worker finds the checkpoint of the running trial `key`."""
        return self.storage.folder(CHECKPOINTS).address(f"{key}.pt")

    def delete_used_checkpoints(self) -> None:
        """Delete checkpoints of trials that have their rows: a worker that was taken for dead may write one late.

        The checkpoint of a trial with status `error` or `stopped` stays: a later run may continue from it.
        """
        found = checkpoints(self.storage)
        for key in found.keys() & (self.tables.ended() if found else set()):
            delete_checkpoint(found[key])

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
