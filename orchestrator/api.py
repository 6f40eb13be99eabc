"""The Python API: run a spec, plan it, open a run, run one trial. The command line is thin over this."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from orchestrator.core.defaults import DATA_DIR
from orchestrator.core.errors import DataError, RunFolderError, SpecError, StorageError
from orchestrator.core.placement import Placement
from orchestrator.execution.session import Listener, Session, fingerprints
from orchestrator.models.settings import MODELS
from orchestrator.results.compaction import Compacted, is_worth_it
from orchestrator.results.compaction import compact as compact_tables
from orchestrator.results.recorded import recorded_spec
from orchestrator.results.run import Run
from orchestrator.results.software import changes_since
from orchestrator.search.plan import Plan, plan_sweep
from orchestrator.search.sweep_search import SweepSearch
from orchestrator.spec.loading import load_plugins, parse_spec
from orchestrator.spec.sweep_spec import SweepSpec
from orchestrator.spec.trial_spec import PROTOCOL_VERSION, TrialSpec
from orchestrator.storage.base import DEFAULT_ROOT, ignore
from orchestrator.storage.uris import join
from orchestrator.streams.settings import STREAMS, StreamSettings, dataset_of
from orchestrator.streams.sources.loading import load_stream
from orchestrator.trial.preflight import load_datasets
from orchestrator.trial.protocol import Report, run_trial
from orchestrator.trial.provenance import software_now
from orchestrator.trial.result import TrialResult
from strategies import MethodError, find_method

if TYPE_CHECKING:
    from orchestrator.report.progress import ProgressDisplay


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
) -> Run:
    """Run, finish or extend a sweep and return its run folder.

    Args:
        spec: what to run.
        run: the run folder, a path or a URI of an object store; `runs/NAME` by default. What its tables hold already
            is not trained again.
        data_dir: where torchvision's data sets are, or are downloaded to.
        address: of a running Ray cluster; an embedded one by default.
        num_cpus: CPUs of the embedded cluster; all by default.
        mirror: URL of an Optuna storage that studies are copied to.
        display: shows progress.
        storage: the path or URI in which the run folder lies as NAME, where `run` is not given.
        accept_changes: train what is missing although the trials that are there ran with other software or on another
            device.

    Raises:
        OrchestratorError: for whatever the user can mend; complete trials are kept.
        KeyboardInterrupt: at the second interrupt.
    """
    folder = Run(run_place(spec, run, storage))
    folder.check(spec)
    if not accept_changes:
        folder.refuse_changed(spec, software_now(are_workers_here=address is None))
    with folder.locked(display.say if display else ignore):
        listeners: tuple[Listener, ...] = (display.trial_ended,) if display else ()
        session = Session(spec, Run(folder.storage), Path(data_dir), mirror, listeners, accept_changes)
        opened = Run.create(folder.storage, spec)  # after the data are read: a mistake in them leaves no run folder
        try:
            if not session.search.is_finished:
                from orchestrator.execution.launch import launch

                launch(session, address, num_cpus, display)
            session.close()
        except BaseException:
            session.abandon()
            raise
        if is_worth_it(opened.storage):
            try:
                compact_tables(opened.storage)
            except StorageError as error:  # the sweep is complete all the same
                if display:
                    display.say(str(error))
    return opened


def compact(run: str | Path) -> list[Compacted]:
    """Merge the small files of a run's tables into few; readers see each row once before, during and after.

    Raises:
        RunFolderError: where there is no such run, a sweep uses it, or it lies in an object store.
        StorageError: where the system refuses; no row is lost.
    """
    opened = Run.open(run)
    with opened.locked():
        return compact_tables(opened.storage)


def run_place(spec: SweepSpec, run: str | Path | None = None, storage: str | Path | None = None) -> str | Path:
    """Return the run folder of a spec: `run`, or NAME in `storage`, or else in `runs`.

    Raises:
        RunFolderError: where both are given.
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
    folder = Run(run_place(spec, run, storage))
    folder.check(spec)
    datasets = load_datasets(spec, Path(data_dir))
    folder.refuse_other_data(fingerprints(datasets))
    search, trials = SweepSearch(spec, fingerprints(datasets), folder.outcomes()), folder.trials()
    changes = changes_since(trials, spec, software_now())
    return Plan(folder.where, tuple(plan_sweep(spec, search, trials, datasets)), tuple(changes))


def open_run(path: str | Path) -> Run:
    """Return a run folder, for its tables as data frames.

    Raises:
        RunFolderError: where there is none.
    """
    return Run.open(path)


def run_single_trial(
    spec: TrialSpec,
    data_dir: str | Path = DATA_DIR,
    placement: Placement = Placement(),  # noqa: B008 (frozen)
    report: Report | None = None,
    streams: Mapping[str, StreamSettings] | None = None,
) -> TrialResult:
    """Run one trial in this process, without Ray and without writing anything.

    Args:
        spec: the trial.
        data_dir: where torchvision's data sets are, or are downloaded to.
        placement: where it runs.
        report: is told each row of the accuracy matrix.
        streams: those of the sweep's spec, which say where a user's own data are; a trial does not.

    Raises:
        DataError: where the data set is missing, damaged, or not the one that the spec was made for.
    """
    settings = (streams or {}).get(spec.stream, spec.stream_settings)
    dataset = load_stream(spec.stream, settings, Path(data_dir))
    if dataset.fingerprint() != spec.data_fingerprint:
        raise DataError(
            f"data: expected the {spec.dataset} that the trial was made for (hash {spec.data_fingerprint}), got "
            f"{dataset.fingerprint()}; give the same files "
            + ("with --data-dir" if spec.stream in STREAMS else f"under streams.{spec.stream}")
        )
    torch.set_num_threads(placement.threads)
    return run_trial(spec, dataset.phase(spec.phase, spec.validation_share), placement, report)


def single_trial_spec(
    spec: SweepSpec, hyperparameters: Mapping[str, Any], seed: int, phase: Any, data_dir: str | Path
) -> TrialSpec:
    """Return the trial of a spec with one cell, for given hyper-parameters.

    Raises:
        SpecError: where the spec has more cells than one.
    """
    if len(spec.cells) != 1:
        raise SpecError([f"trial: expected one scenario and one method, got {len(spec.cells)} cells; name one of each"])
    fixed = parse_spec(
        spec.model_dump(mode="json") | {"spaces": {spec.cells[0].method: dict(hyperparameters)}, "limits": []}
    )
    cell = fixed.cells[0]
    dataset = load_datasets(fixed, Path(data_dir))[dataset_of(cell.stream)]
    return fixed.trial(cell, {}, seed, phase, dataset.fingerprint())


def recorded_trial(run: Run, key: str, plugins: Iterable[str] = ()) -> tuple[TrialSpec, dict[str, Any]]:
    """Return the spec and the row of a trial in a run; a key may be shortened as long as it is unique.

    Args:
        run: the run.
        key: the trial's key.
        plugins: the `module:Class` that the user allows to be imported; one that only the run names is refused.

    Raises:
        RunFolderError: where there is no such trial, or its spec is none, or of other versions of the code.
    """
    trials = run.trials()
    rows = trials[trials["key"].str.startswith(key)]
    if len(rows) != 1:
        raise RunFolderError(
            f"trial: expected the key of one trial of '{run.where}', got '{key}' which fits {len(rows)}; "
            "see the column 'key' of the trials table"
        )
    row: dict[str, Any] = {str(name): value for name, value in rows.iloc[0].items()}
    spec = recorded_spec(run.storage, row["key"], row["trial_spec"])
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
