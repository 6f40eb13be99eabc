"""The Python API: run a spec, plan it, open a run, run one trial. The command line is thin over this."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from orchestrator.changes import changes_since
from orchestrator.compaction import Compacted, is_worth_it
from orchestrator.compaction import compact as compact_tables
from orchestrator.datacheck import load_datasets
from orchestrator.errors import DataError, RunFolderError, SpecError, StorageError
from orchestrator.models import MODELS, model_faults
from orchestrator.planning import CellPlan, plan_sweep
from orchestrator.provenance import Placement
from orchestrator.recorded import recorded_spec
from orchestrator.run import Run
from orchestrator.search import SweepSearch
from orchestrator.session import Listener, Session, fingerprints, software_now
from orchestrator.spec import SweepSpec, nearest, parse_spec, read_spec
from orchestrator.storage import DEFAULT_ROOT, unheard
from orchestrator.streams import STREAMS, StreamSettings, dataset_of, load_stream
from orchestrator.trial import Report, TrialResult, run_trial
from orchestrator.trialspec import PROTOCOL_VERSION, TrialSpec
from orchestrator.uris import join
from strategies import STRATEGIES, MethodError, find_method

if TYPE_CHECKING:
    from orchestrator.progress import ProgressDisplay

DEFAULT_DATA_DIR = Path("~/.cache/continual-sweep")
PRESETS = Path(__file__).parent / "presets"


def preset_names() -> list[str]:
    """Return the names of the presets that come with the package."""
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def load_spec(
    source: str | Path | None = None,
    preset: str | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> SweepSpec:
    """Return a validated spec.

    Args:
        source: a YAML file.
        preset: a preset's name, where no file is given; `quickstart` by default.
        overrides: field path with dots, such as `search.suggestions` -> value.

    Raises:
        SpecError: with every fault.
    """
    if source is not None and preset is not None:
        raise SpecError([f"--preset: expected a file or a preset, got '{source}' and '{preset}'; drop one"])
    if source is not None:
        content = read_spec(Path(source))
    else:
        name = preset or "quickstart"
        if name not in preset_names():
            raise SpecError([f"--preset: expected a known preset, got '{name}'; {nearest(name, preset_names())}"])
        content = read_spec(PRESETS / f"{name}.yaml")
    for path, value in (overrides or {}).items():
        _override(content, path, value)
    methods = content.get("methods")
    load_plugins([name for name in methods if isinstance(name, str)] if isinstance(methods, list | tuple) else [])
    spec = parse_spec(content)
    faults = model_faults(spec.model)
    if faults:
        raise SpecError(faults)
    return spec


def load_plugins(names: Iterable[str]) -> None:
    """Import the methods that are written `module:Class` among `names`, because the user wrote them.

    Whatever else reads a spec or a run folder knows such names only after this, and never imports them.

    Raises:
        SpecError: where one of them cannot be imported or is no strategy.
    """
    faults = []
    for name in names:
        try:
            STRATEGIES.load_plugin(name)
        except MethodError as error:
            faults.append(f"methods.{name}: {error}")
    if faults:
        raise SpecError(faults)


def run_sweep(
    spec: SweepSpec,
    run: str | Path | None = None,
    data_dir: str | Path = DEFAULT_DATA_DIR,
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
    with folder.locked(display.say if display else unheard):
        listeners: tuple[Listener, ...] = (display.trial_ended,) if display else ()
        session = Session(spec, Run(folder.storage), Path(data_dir), mirror, listeners, accept_changes)
        opened = Run.create(folder.storage, spec)  # after the data are read: a mistake in them leaves no run folder
        try:
            if not session.search.is_finished:
                from orchestrator.launch import launch

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


@dataclass(frozen=True)
class Plan:
    """What a sweep would do.

    Args:
        run: its run folder, as it is shown.
        cells: the plan of each cell.
        changes: what differs between the software and devices of its trials and those of here, a line each.
    """

    run: str | Path
    cells: tuple[CellPlan, ...]
    changes: tuple[str, ...] = ()


def plan(
    spec: SweepSpec,
    run: str | Path | None = None,
    data_dir: str | Path = DEFAULT_DATA_DIR,
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


def run_one(
    spec: TrialSpec,
    data_dir: str | Path = DEFAULT_DATA_DIR,
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


def single_trial(
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


def _override(content: dict[str, Any], path: str, value: Any) -> None:
    """Set the field at `path`, making mappings on the way."""
    *parents, last = path.split(".")
    for parent in parents:
        inner = content.get(parent)
        content[parent] = dict(inner) if isinstance(inner, Mapping) else {}
        content = content[parent]
    content[last] = value
