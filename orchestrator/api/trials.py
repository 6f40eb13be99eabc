"""Run one trial in this process, of a spec or of a run folder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.core.defaults import DATA_DIR
from orchestrator.core.errors import DataError, RunFolderError, SpecError
from orchestrator.core.placement import Placement

if TYPE_CHECKING:
    from orchestrator.results.run import Run
    from orchestrator.spec.sweep_spec import SweepSpec
    from orchestrator.spec.trial_spec import TrialSpec
    from orchestrator.streams.settings import StreamSettings
    from orchestrator.trial.protocol import Report
    from orchestrator.trial.result import TrialResult
    from orchestrator.trial.stopping import StopRule


def run_single_trial(
    spec: TrialSpec,
    data_dir: str | Path = DATA_DIR,
    placement: Placement = Placement(),  # noqa: B008 (frozen)
    report: Report | None = None,
    streams: Mapping[str, StreamSettings] | None = None,
    stop: StopRule | None = None,
    diagnostics: bool = False,
) -> TrialResult:
    """Run one trial in this process, without Ray and without writing anything.

    Args:
        spec: the trial.
        data_dir: where torchvision's data sets are, or are downloaded to.
        placement: where it runs.
        report: called with each row of the accuracy matrix.
        streams: `streams` of the sweep's spec, which has the paths of a user's own data; a trial's spec has not.
        stop: when to stop at a task boundary, as in the column `stop_rule` of its row.
        diagnostics: whether to measure what goes on inside too.

    Raises:
        DataError: if the data set is missing, damaged, or not the one that the spec was made for.
    """
    import torch

    from orchestrator.champions.next_stream import load_any
    from orchestrator.streams.settings import STREAMS
    from orchestrator.trial.protocol import run_trial

    settings = (streams or {}).get(spec.stream, spec.stream_settings)
    dataset = load_any(spec.stream, settings, Path(data_dir))
    if dataset.fingerprint() != spec.data_fingerprint:
        raise DataError(
            f"data: expected the {spec.dataset} that the trial was made for (hash {spec.data_fingerprint}), got "
            f"{dataset.fingerprint()}; give the same files "
            + ("with --data-dir" if spec.stream in STREAMS else f"under streams.{spec.stream}")
        )
    torch.set_num_threads(placement.threads)
    data = dataset.phase(spec.phase, spec.validation_share, spec.validation_seed)
    return run_trial(spec, data, placement, report, stop=stop, diagnostics=diagnostics)


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
    from orchestrator.champions.next_stream import load_any
    from orchestrator.spec.loading import parse_spec
    from orchestrator.trial.preflight import load_datasets

    if len(spec.cells) != 1:
        raise SpecError([f"trial: expected one scenario and one method, got {len(spec.cells)} cells; name one of each"])
    cell = spec.cells[0]
    values = cell.found.hyperparameter_class().model_dump(mode="json")
    defaults = {name: value for name, value in values.items() if name in cell.space.distributions}
    single = {
        "spaces": {cell.method: {**defaults, **cell.space.fixed, **hyperparameters}},
        "limits": [],
        "seeds": {"search": int(phase == "search"), "confirm": 1},
    }
    fixed = parse_spec(spec.model_dump(mode="json") | single)
    cell = fixed.cells[0]
    dataset = load_datasets(fixed, Path(data_dir), load_any)[fixed.data_of(cell.stream)]
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
    frozen = spec.stream_settings.features
    networks = [spec.model.name] if spec.model.name not in MODELS else []
    networks += [frozen.module] if frozen is not None and frozen.is_own_class else []
    load_plugins(name for name in plugins if name not in networks)
    for name in networks:
        if name not in plugins:
            raise RunFolderError(
                f"trial: expected a model of this package, got '{name}', code that the run names; "
                f"to import it, pass --plugin {name}"
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
