"""Run a spec, or say what running it would do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.core.defaults import DATA_DIR
from orchestrator.core.errors import RunFolderError, StorageError
from orchestrator.storage.base import DEFAULT_ROOT, ignore
from orchestrator.storage.uris import join

if TYPE_CHECKING:
    from orchestrator.execution.budget import Budget
    from orchestrator.execution.session import Session
    from orchestrator.report.progress import ProgressDisplay
    from orchestrator.results.run import Run
    from orchestrator.search.plan import Plan
    from orchestrator.spec.sweep_spec import SweepSpec


def run_sweep(
    spec: SweepSpec,
    run: str | Path | None = None,
    data_dir: str | Path = DATA_DIR,
    address: str | None = None,
    num_cpus: int | None = None,
    mirror: str | None = None,
    display: ProgressDisplay | None = None,
    storage: str | Path | None = None,
    accept_changes: bool = False,
    budget: Budget | None = None,
    log_to: Sequence[str] = (),
) -> Run:
    """Run, finish or extend a sweep and return its run folder.

    Args:
        spec: what to run.
        run: the run folder, a path or a URI; `runs/NAME` by default. Trials in its tables are not trained again.
        data_dir: where torchvision's data sets are, or are downloaded to.
        address: address of a running Ray cluster; an embedded one is started by default.
        num_cpus: CPUs of the embedded cluster; all by default.
        mirror: URL of an Optuna storage that studies are copied to.
        display: shows progress.
        storage: path or URI of the folder in which the run folder NAME lies, if `run` is not given.
        accept_changes: train the missing trials even if the recorded ones ran with other software or devices.
        budget: after which no trial begins; those in flight finish, and the same call goes on.
        log_to: trackers that are told of the sweep: `mlflow:URI`, `tensorboard:DIR`, `wandb`.

    Raises:
        OrchestratorError: for anything that the user can fix; complete trials are kept.
        KeyboardInterrupt: at the second interrupt.
    """
    from orchestrator.execution.budget import Budget, Spending

    spending = Spending(budget or Budget())  # its clock starts before the imports below, which take seconds
    spending.budget.check(spec)
    from orchestrator.execution.launch import run_session
    from orchestrator.execution.monitoring.trackers.targets import parse_targets
    from orchestrator.execution.monitoring.trackers.tracking import tracked
    from orchestrator.execution.session import Session
    from orchestrator.results.run import Run
    from orchestrator.trial.provenance import software_now

    targets, say = parse_targets(log_to), display.say if display else ignore
    opened = Run(run_place(spec, run, storage)).cached()  # until it is locked: another sweep may add rows
    spec = _fitting(spec, opened, None if accept_changes else software_now(are_workers_here=address is None))
    with opened.locked(say):
        listeners = (display.watch(spending),) if display else ()
        session = Session(spec, opened, Path(data_dir), mirror, listeners, accept_changes, spending)
        _say_notes(display, session)
        session.begin()  # after the data were read, so that a mistake in them leaves no run folder
        with tracked(targets, session, say):
            run_session(session, address, num_cpus, display)
            _round_off(session, say)
    return opened


def _fitting(spec: SweepSpec, run: Run, now: Mapping[str, Any] | None) -> SweepSpec:
    """Return a spec as its run began, after refusing a run that it does not fit, or other software than `now` there."""
    spec = run.as_begun(spec)
    run.check(spec)
    if now is not None:
        run.refuse_changed(spec, now)
    return spec


def _say_notes(display: ProgressDisplay | None, session: Session) -> None:
    """Say what a user should know of their own data."""
    from orchestrator.execution.session import fingerprints
    from orchestrator.trial.data_summary import data_notes

    if display is None:
        return
    earlier = session.run.earlier_data(fingerprints(session.datasets))
    for note in (*data_notes(session.spec, session.datasets), *earlier):
        display.say(f"note: {note}")


def _round_off(session: Session, say: Callable[[str], None]) -> None:
    """Merge small files where it is worth it, and write the page; the sweep is complete without either."""
    from orchestrator.core.errors import MissingExtraError
    from orchestrator.report.page.writing import keep_what_was_read, write_page
    from orchestrator.results.compaction import compact, is_worth_it

    try:
        if is_worth_it(session.run.tables):
            compact(session.run.tables)
        keep_what_was_read(session)
        write_page(session.run)
    except (MissingExtraError, StorageError) as error:
        say(str(error))


def run_place(spec: SweepSpec, run: str | Path | None = None, storage: str | Path | None = None) -> str | Path:
    """Return the run folder of a spec: `run`, or else NAME in `storage`, which is `runs` by default.

    Raises:
        RunFolderError: if both are given.
    """
    if run is not None and storage is not None:
        raise RunFolderError("--storage: expected --run or --storage, got both; drop one")
    return run if run is not None else join(storage if storage is not None else DEFAULT_ROOT, spec.name)


def plan(
    spec: SweepSpec,
    run: str | Path | None = None,
    data_dir: str | Path = DATA_DIR,
    storage: str | Path | None = None,
) -> Plan:
    """Return what `run_sweep` would do, without starting a worker or writing anything."""
    from orchestrator.champions.next_stream import load_any
    from orchestrator.execution.session import fingerprints
    from orchestrator.models.frozen import FOLDER, FeatureStore
    from orchestrator.report.inside_view import lacking
    from orchestrator.results.compatibility.software_changes import software_changes
    from orchestrator.results.run import Run
    from orchestrator.search.plan import Plan, capacity_notes, device_notes, plan_sweep, stop_notes
    from orchestrator.trial.data_summary import cut_notes, summaries
    from orchestrator.trial.preflight import load_datasets
    from orchestrator.trial.provenance import software_now

    opened = Run(run_place(spec, run, storage)).cached()
    spec = opened.as_begun(spec)
    opened.check(spec)
    features = FeatureStore(opened.storage.folder(FOLDER))
    datasets = load_datasets(spec, Path(data_dir), partial(load_any, features=features))
    hashes = fingerprints(datasets)
    opened.refuse_other_data(hashes)
    search, trials = opened.search(spec, hashes), opened.tables.trials.read()
    changes = software_changes(trials, spec, software_now())
    cells, data = plan_sweep(spec, search, trials, datasets), summaries(spec, datasets)
    notes = [*cut_notes(spec, datasets), *opened.earlier_data(hashes), *device_notes(cells), *stop_notes(spec)]
    notes += capacity_notes(spec, datasets)
    if spec.diagnostics and (without := lacking(trials, opened.diagnostics())):
        notes.append(without)
    return Plan(opened.where, tuple(cells), tuple(changes), tuple(notes), tuple(data))
