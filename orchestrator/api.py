"""The Python API: run a spec, plan it, open a run, run one trial. The command line is thin over this.

What a function needs is imported inside of it: torch, pandas and Ray take seconds, and few calls need all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.core.defaults import DATA_DIR
from orchestrator.core.errors import DataError, RunFolderError, SpecError, StorageError
from orchestrator.core.placement import Placement
from orchestrator.storage.base import DEFAULT_ROOT, ignore
from orchestrator.storage.uris import join

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from orchestrator.execution.budget import Budget
    from orchestrator.execution.session import Session
    from orchestrator.report.progress import ProgressDisplay
    from orchestrator.results.compaction import Compacted
    from orchestrator.results.run import Run
    from orchestrator.search.plan import Plan
    from orchestrator.spec.sweep_spec import SweepSpec
    from orchestrator.spec.trial_spec import TrialSpec
    from orchestrator.storage.base import Place
    from orchestrator.streams.settings import StreamSettings
    from orchestrator.trial.protocol import Report
    from orchestrator.trial.result import TrialResult
    from orchestrator.trial.stopping import StopRule


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
) -> Run:
    """Run, finish or extend a sweep and return its run folder.

    Args:
        spec: what to run.
        run: the run folder, a path or a URI of an object store; `runs/NAME` by default. Trials that its tables hold
            are not trained again.
        data_dir: where torchvision's data sets are, or are downloaded to.
        address: address of a running Ray cluster; an embedded one is started by default.
        num_cpus: CPUs of the embedded cluster; all by default.
        mirror: URL of an Optuna storage that studies are copied to.
        display: shows progress.
        storage: path or URI of the folder in which the run folder NAME lies, if `run` is not given.
        accept_changes: train the missing trials even if the recorded ones ran with other software or devices.
        budget: the time, trials or money after which no trial begins; those in flight finish, and the same call goes
            on. `Run.n_missing` tells how many trials are missing then.

    Raises:
        OrchestratorError: for anything that the user can fix; complete trials are kept.
        KeyboardInterrupt: at the second interrupt.
    """
    from orchestrator.execution.budget import Budget, Spending

    spending = Spending(budget or Budget())  # its clock starts before the imports below, which take seconds
    spending.budget.check(spec)
    from orchestrator.execution.launch import run_session
    from orchestrator.execution.session import Session
    from orchestrator.results.run import Run
    from orchestrator.trial.provenance import software_now

    opened = Run(run_place(spec, run, storage)).cached()  # until it is locked: another sweep may add rows
    spec = opened.as_begun(spec)
    opened.check(spec)
    if not accept_changes:
        opened.refuse_changed(spec, software_now(are_workers_here=address is None))
    with opened.locked(display.say if display else ignore):
        listeners = (display.watch(spending),) if display else ()
        session = Session(spec, opened, Path(data_dir), mirror, listeners, accept_changes, spending)
        _say_notes(display, session)
        opened.write_spec(spec)  # after the data were read, so that a mistake in them leaves no run folder
        run_session(session, address, num_cpus, display)
        _round_off(session, display)
    return opened


def _say_notes(display: ProgressDisplay | None, session: Session) -> None:
    """Say what a user should know of their own data."""
    from orchestrator.execution.session import fingerprints
    from orchestrator.trial.data_summary import data_notes

    if display is None:
        return
    earlier = session.run.earlier_data(fingerprints(session.datasets))
    for note in (*data_notes(session.spec, session.datasets), *earlier):
        display.say(f"note: {note}")


def _round_off(session: Session, display: ProgressDisplay | None) -> None:
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
        if display:
            display.say(str(error))


def report(run: str | Path, file: str | Path | None = None) -> str:
    """Write the page of a run and return where it is.

    Args:
        run: the run folder.
        file: where to; `report.html` in the run folder by default.

    Raises:
        MissingExtraError: if the extra `report` is not installed.
        RunFolderError: if there is no such run, or its tables are damaged.
        StorageError: if it cannot be written; a page that is there stays as it is.
    """
    from orchestrator.report.page.writing import write_page
    from orchestrator.results.run import Run

    return write_page(Run.open(run, cached=True), None if file is None else Path(file))


def compact(run: str | Path) -> list[Compacted]:
    """Merge the small files of a run's tables into few; readers see each row once before, during and after.

    Raises:
        RunFolderError: if there is no such run, a sweep uses it, or it lies in an object store.
        StorageError: if the system refuses; no row is lost.
    """
    from orchestrator.results.compaction import compact as compact_tables
    from orchestrator.results.run import Run

    opened = Run.open(run)
    with opened.locked():
        return compact_tables(opened.tables)


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
    from orchestrator.execution.session import fingerprints
    from orchestrator.results.run import Run
    from orchestrator.results.software_changes import software_changes
    from orchestrator.search.plan import Plan, device_notes, plan_sweep, stop_notes
    from orchestrator.trial.data_summary import cut_notes, summaries
    from orchestrator.trial.preflight import load_datasets
    from orchestrator.trial.provenance import software_now

    opened = Run(run_place(spec, run, storage)).cached()
    spec = opened.as_begun(spec)
    opened.check(spec)
    datasets = load_datasets(spec, Path(data_dir))
    hashes = fingerprints(datasets)
    opened.refuse_other_data(hashes)
    search, trials = opened.search(spec, hashes), opened.tables.trials.read()
    changes = software_changes(trials, spec, software_now())
    cells, data = plan_sweep(spec, search, trials, datasets), summaries(spec, datasets)
    notes = (*cut_notes(spec, datasets), *opened.earlier_data(hashes), *device_notes(cells), *stop_notes(spec))
    return Plan(opened.where, tuple(cells), tuple(changes), notes, tuple(data))


def open_run(path: Place, cached: bool = False) -> Run:
    """Return a run folder, whose tables are data frames.

    Args:
        path: the folder, a path or a URI of an object store.
        cached: read each table once and never again, even if a sweep adds rows meanwhile.

    Raises:
        RunFolderError: if there is none.
    """
    from orchestrator.results.run import Run

    return Run.open(path, cached)


def plot(
    run: Run | Place, kind: str, scenario: str | None = None, metric: str | None = None, width: str = "text"
) -> Figure:
    """Return a figure of a run as a Matplotlib `Figure`, which `savefig` writes and a notebook shows.

    Args:
        run: the run, or its folder.
        kind: `matrix`, `curves`, `frontier`, `bars` or `critical-difference`.
        scenario: the one that is drawn; all by default.
        metric: the limit's metric of `frontier`, or the only one of `bars`, or what `critical-difference` ranks by.
        width: `column` (3.5 inches, one of a paper's two) or `text` (7 inches).

    Raises:
        UsageError: if an argument is unknown or does not fit the run.
        RunFolderError: if there is no such run, or it has nothing to draw yet.
        MissingExtraError: if the extra `report` is not installed.
    """
    from orchestrator.report.figures.kinds import draw
    from orchestrator.results.run import Run

    return draw(run if isinstance(run, Run) else Run.open(run, cached=True), kind, scenario, metric, width).figure


def run_single_trial(
    spec: TrialSpec,
    data_dir: str | Path = DATA_DIR,
    placement: Placement = Placement(),  # noqa: B008 (frozen)
    report: Report | None = None,
    streams: Mapping[str, StreamSettings] | None = None,
    stop: StopRule | None = None,
) -> TrialResult:
    """Run one trial in this process, without Ray and without writing anything.

    Args:
        spec: the trial.
        data_dir: where torchvision's data sets are, or are downloaded to.
        placement: where it runs.
        report: called with each row of the accuracy matrix.
        streams: `streams` of the sweep's spec, which has the paths of a user's own data; a trial's spec has not.
        stop: when to stop at a task boundary, as in the column `stop_rule` of its row.

    Raises:
        DataError: if the data set is missing, damaged, or not the one that the spec was made for.
    """
    import torch

    from orchestrator.streams.settings import STREAMS
    from orchestrator.streams.sources.loading import load_stream
    from orchestrator.trial.protocol import run_trial

    settings = (streams or {}).get(spec.stream, spec.stream_settings)
    dataset = load_stream(spec.stream, settings, Path(data_dir))
    if dataset.fingerprint() != spec.data_fingerprint:
        raise DataError(
            f"data: expected the {spec.dataset} that the trial was made for (hash {spec.data_fingerprint}), got "
            f"{dataset.fingerprint()}; give the same files "
            + ("with --data-dir" if spec.stream in STREAMS else f"under streams.{spec.stream}")
        )
    torch.set_num_threads(placement.threads)
    data = dataset.phase(spec.phase, spec.validation_share, spec.validation_seed)
    return run_trial(spec, data, placement, report, stop=stop)


def single_trial_spec(
    spec: SweepSpec, hyperparameters: Mapping[str, Any], seed: int, phase: Any, data_dir: str | Path
) -> TrialSpec:
    """Return the trial of a spec with one cell.

    Args:
        spec: the sweep. Of its spaces, the fixed values count; what it searches takes the method's defaults.
        hyperparameters: name -> value, which wins over the spec's.
        seed: of the trial.
        phase: `search` or `confirm`; `confirm` needs no validation data.
        data_dir: where torchvision's data sets are, or are downloaded to.

    Raises:
        SpecError: if the spec has more than one cell.
    """
    from orchestrator.spec.loading import parse_spec
    from orchestrator.streams.settings import dataset_of
    from orchestrator.trial.preflight import load_datasets
    from strategies import find_method

    if len(spec.cells) != 1:
        raise SpecError([f"trial: expected one scenario and one method, got {len(spec.cells)} cells; name one of each"])
    cell = spec.cells[0]
    defaults = find_method(cell.method).hyperparameter_class().model_dump(mode="json")
    single = {
        "spaces": {cell.method: {**defaults, **cell.space.fixed, **hyperparameters}},
        "limits": [],
        "seeds": {"search": int(phase == "search"), "confirm": 1},
    }
    fixed = parse_spec(spec.model_dump(mode="json") | single)
    cell = fixed.cells[0]
    dataset = load_datasets(fixed, Path(data_dir))[dataset_of(cell.stream)]
    return fixed.trial(cell, {}, seed, phase, dataset.fingerprint())


def recorded_trial(run: Run, key: str, plugins: Iterable[str] = ()) -> tuple[TrialSpec, dict[str, Any]]:
    """Return the spec and the row of a recorded trial.

    Args:
        run: the run.
        key: the trial's key, or a unique beginning of it.
        plugins: each `module:Class` that the user allows to be imported; a model that only the run names is refused.

    Raises:
        RunFolderError: if there is no such trial, or its spec is damaged or made by other versions of the code.
    """
    from orchestrator.models.settings import MODELS
    from orchestrator.results.rows import recorded_spec
    from orchestrator.spec.loading import load_plugins
    from orchestrator.spec.trial_spec import PROTOCOL_VERSION
    from strategies import MethodError, find_method

    trials = run.trials()
    rows = trials[trials["key"].str.startswith(key)]
    if len(rows) != 1:
        raise RunFolderError(
            f"trial: expected the key of one trial of '{run.where}', got '{key}' which fits {len(rows)}; "
            "see the column 'key' of the trials table"
        )
    row: dict[str, Any] = {str(name): value for name, value in rows.iloc[0].items()}
    spec = recorded_spec(run.tables.trials, row["key"], row["trial_spec"])
    load_plugins(name for name in plugins if name != spec.model.name)
    if spec.model.name not in MODELS and spec.model.name not in plugins:
        raise RunFolderError(
            f"trial: expected a model of this package, got '{spec.model.name}', code that the run names; "
            f"to import it, pass --plugin {spec.model.name}"
        )
    try:
        versions = find_method(spec.method).versions
    except MethodError as error:
        raise RunFolderError(f"trial: {error}") from error
    if versions != spec.strategy_versions or spec.protocol_version != PROTOCOL_VERSION:
        raise RunFolderError(
            f"trial: expected strategy versions {versions} and protocol {PROTOCOL_VERSION}, got "
            f"{spec.strategy_versions} and {spec.protocol_version}; check out revision '{row['code_revision']}'"
        )
    return spec, row
