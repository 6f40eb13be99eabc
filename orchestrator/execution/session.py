"""One run of the sweep command: data, search, tables and progress. Knows nothing of what executes the trials."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from orchestrator.champions.next_stream import load_any
from orchestrator.core.errors import StorageError
from orchestrator.core.scores import Score
from orchestrator.execution.budget import Budget, Spending
from orchestrator.models.frozen import FOLDER, FeatureStore
from orchestrator.results.compatibility.software_changes import OF_WORKERS
from orchestrator.results.diagnostics.rows import diagnostic_rows
from orchestrator.results.evaluations.rows import evaluation_rows
from orchestrator.results.folder import keep_trial_log
from orchestrator.results.rows import accuracy_rows, outcome_rows, trial_row
from orchestrator.results.run import Run
from orchestrator.search.mirror import StudyMirror
from orchestrator.search.suggestion import Outcome, PlannedTrial
from orchestrator.spec.sweep_spec import SweepSpec
from orchestrator.spec.trial_spec import TrialSpec
from orchestrator.streams.datasets import Dataset, PhaseData, TrainingData
from orchestrator.trial.preflight import load_datasets
from orchestrator.trial.provenance import software_versions
from orchestrator.trial.result import TrialResult


@dataclass
class Progress:
    """Counts and pace of a running sweep, for a display."""

    n_cached: int
    n_done: int = 0
    n_failed: int = 0
    first_end: float | None = None

    def seconds_left(self, n_to_do: int) -> float | None:
        """Return an estimate from the pace since the first trial ended, or None before the second has."""
        if self.first_end is None or self.n_done < 2:
            return None
        return (time.monotonic() - self.first_end) / (self.n_done - 1) * n_to_do


Listener = Callable[["Session", PlannedTrial, TrialResult], None]
"""Called after each trial that ended, once its rows are on disk."""


class Session:
    """Everything between the spec and the tables except the workers.

    Args:
        spec: the sweep.
        run: its run folder.
        data_dir: folder of torchvision's data sets, which are downloaded to it if they are missing.
        mirror: a URL of an Optuna storage that studies are copied to.
        listeners: called after every trial that ended.
        accept_changes: accept workers that have other libraries than those of earlier trials.
        spending: what this run has spent of its budget; without limits by default.
    """

    def __init__(
        self,
        spec: SweepSpec,
        run: Run,
        data_dir: Path,
        mirror: str | None = None,
        listeners: tuple[Listener, ...] = (),
        accept_changes: bool = False,
        spending: Spending | None = None,
    ) -> None:
        self.spending = spending or Spending(Budget())
        self.spec = spec
        self.run = run
        self._features = FeatureStore(run.storage.folder(FOLDER))
        load = partial(load_any, features=self._features)
        self.datasets: dict[str, Dataset] = load_datasets(spec, data_dir, load)
        hashes = fingerprints(self.datasets)
        run.refuse_other_data(hashes)
        self.fault: Exception | None = None
        self._mirror = StudyMirror(mirror, spec) if mirror else None
        self.search = run.search(spec, hashes, self._mirror.add if self._mirror else None)
        self.progress = Progress(self.search.n_cached)
        self._listeners = list(listeners)
        self._spec_hash = spec.content_hash()
        self._accept_changes = accept_changes
        self.count_workers: Callable[[], int] = lambda: 0
        self._known_workers: set[tuple[Any, ...]] = set()

    def begin(self) -> None:
        """Write the spec, and the features that were computed, so that the run computes them once.

        Raises:
            StorageError: if the system refuses.
        """
        self.run.write_spec(self.spec)
        try:
            self._features.write()
        except OSError as error:
            raise StorageError(f"{self.run.where}: cannot keep the features ({error}); free the disk") from error

    def data(self) -> Iterator[tuple[str, TrainingData | PhaseData]]:
        """Yield `DATASET/SPLIT` and the arrays of each: what trials on the validation or on the test split may see."""
        for name, dataset in self.datasets.items():
            if self.spec.seeds.of("search"):
                yield f"{name}/validation", dataset.training()
            yield f"{name}/test", dataset.phase("confirm", self.spec.validation_share)

    def arrays(self, trial: TrialSpec) -> PhaseData:
        """Return the arrays that a trial is handed."""
        return self.datasets[trial.dataset].phase(trial.phase, trial.validation_share, trial.validation_seed)

    def finish(self, result: TrialResult, n_attempts: int = 1, log: str = "") -> None:
        """Write the rows of a running trial that ended, then record it in the search and call the listeners.

        If it raises, the trial is not recorded at all.

        Args:
            result: of the trial.
            n_attempts: how often it was begun.
            log: what its worker said of it, if that is to be kept.

        Raises:
            RunFolderError: if its worker has other libraries than those of earlier trials.
            StorageError: if the rows cannot be written.
        """
        self._check_worker(result.provenance)
        planned = next(t for t in self.search.running if t.spec.key == result.key)
        known = {
            **software_versions(),
            "spec_hash": self._spec_hash,
            "n_attempts": n_attempts,
        }
        score = self.spec.score_of(planned.cell.scenario)
        if log:
            keep_trial_log(self.run.storage, result.key, log)
        spec, number = planned.spec, planned.suggestion
        row, measured = trial_row(spec, number, result, known, score), accuracy_rows(spec, number, result, score)
        inside, within = diagnostic_rows(spec, number, result), evaluation_rows(spec, number, result, score)
        self.run.tables.write_trial(result.key, row, measured, outcome_rows(spec, number, result), inside, within)
        self.search.record(result.key, outcome_of(result, self.spec, score))
        self.spending.end(planned)
        self.progress.first_end = self.progress.first_end or time.monotonic()
        self.progress.n_done += 1
        self.progress.n_failed += result.status not in ("completed", "stopped")
        for listener in self._listeners:
            listener(self, planned, result)

    def _check_worker(self, provenance: Mapping[str, Any]) -> None:
        kind = tuple(provenance.get(name) for name in ("device", *OF_WORKERS))
        if not self._accept_changes and kind not in self._known_workers:
            self.run.refuse_other_worker(provenance)
            self._known_workers.add(kind)

    def listen(self, listener: Listener) -> None:
        """Call `listener` too after every trial that ends from now on."""
        self._listeners.append(listener)

    def close(self) -> None:
        """Write what is known only at the end: intransigence, which compares with `joint`, and the studies' mirror."""
        self.run.fill_intransigence()
        self.run.keep(self.search)
        self.run.delete_used_checkpoints()
        if self._mirror is not None:
            self._mirror.close()

    def abandon(self) -> None:
        """End without the writes of `close`; the next run makes them."""
        if self._mirror is not None:
            self._mirror.abandon()


def outcome_of(result: TrialResult, spec: SweepSpec, score: Score) -> Outcome:
    """Return the status and values of a result, for the search of a spec, in a scenario with this score."""
    named = result.quantities(spec.quantities, score)
    at_each = result.boundaries(spec.stoppable, score)
    return Outcome(result.status, {**result.metrics(score), **named, **result.costs}, at_each)


def fingerprints(datasets: Mapping[str, Dataset]) -> dict[str, str]:
    """Return name of data set -> its hash."""
    return {name: dataset.fingerprint() for name, dataset in datasets.items()}
