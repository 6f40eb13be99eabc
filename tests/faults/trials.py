"""Trials that go wrong by themselves: a loss that is NaN, and more memory than there is."""

from __future__ import annotations

import os
import resource
import sys
import time
from pathlib import Path

import psutil

import orchestrator.execution.cluster  # noqa: F401 (first: it sets what Ray reads on import)
from orchestrator.core.placement import Placement
from orchestrator.execution.cluster import Cluster, connected
from orchestrator.execution.session import Session
from orchestrator.execution.tuner import run_on_ray
from orchestrator.execution.worker import TrialFunction
from orchestrator.results.run import Run
from orchestrator.spec.loading import parse_spec
from orchestrator.spec.trial_spec import TrialSpec
from orchestrator.streams.datasets import PhaseData
from orchestrator.trial.protocol import run_trial
from orchestrator.trial.result import TrialResult
from tests.faults.world import SMALL, Tally, World, read

DIVERGES = SMALL | {
    "limits": [],
    # A step of 100 with weight decay multiplies the weights by -99.
    "methods": ["naive", "ewc"],
    "spaces": {"ewc": {"learning_rate": [0.01, 100.0], "weight_decay": 1.0, "penalty_weight": 1.0}},
}
HEADROOM = 5 * 2**30
"""So many bytes may be used beyond those in use when our cluster starts."""

MOST_BYTES = 12 * 2**30
BLOCK = 128 * 2**20


def hoards(spec: TrialSpec, data: PhaseData, placement: Placement, report: None, checkpoint: Path) -> TrialResult:
    """Take memory in one trial until the machine has no more to give and Ray ends the worker."""
    if spec.method == "replay" and spec.phase == "search" and not _is_harmless(checkpoint):
        taken: list[bytearray] = []
        while len(taken) * BLOCK < MOST_BYTES:
            taken.append(bytearray(os.urandom(1)) * BLOCK)
            time.sleep(0.05)
        time.sleep(10)
    return run_trial(spec, data, placement, report, checkpoint)


def refused_memory(
    spec: TrialSpec, data: PhaseData, placement: Placement, report: None, checkpoint: Path
) -> TrialResult:
    """Let the system refuse memory to one trial, which sees a MemoryError or torch's own exception."""
    if spec.method != "replay" or spec.phase != "search" or _is_harmless(checkpoint):
        return run_trial(spec, data, placement, report, checkpoint)
    has_limit = sys.platform != "darwin"  # macOS has no limit on addresses: torch's exception is raised instead
    before = resource.getrlimit(resource.RLIMIT_AS)
    if has_limit:
        resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + 2**20, before[1]))
    import torch

    build = torch.nn.Linear.__init__

    def large(layer: torch.nn.Linear, *sizes: int, **settings: object) -> None:
        build(layer, *sizes, **settings)  # type: ignore[arg-type]
        if not has_limit:
            raise RuntimeError("can't allocate memory: you tried to allocate 1073741824 bytes")
        torch.zeros(2**28)

    torch.nn.Linear.__init__ = large  # type: ignore[method-assign]
    try:
        return run_trial(spec, data, placement, report, checkpoint)
    finally:
        torch.nn.Linear.__init__ = build  # type: ignore[method-assign]
        if has_limit:
            resource.setrlimit(resource.RLIMIT_AS, before)


def _is_harmless(checkpoint: Path) -> bool:
    return (checkpoint.parents[1] / "harmless").exists()


def run(folder: Path, seed: int, quick: bool) -> Tally:
    tally = Tally("trials")
    if quick:
        tally.notes.append("SKIPPED in the quick cut")
        return tally
    memory = psutil.virtual_memory()
    threshold = f"{min((memory.total - memory.available + HEADROOM) / memory.total, 0.95):.3f}"
    os.environ.update({"RAY_memory_usage_threshold": threshold, "RAY_memory_monitor_refresh_ms": "100"})
    world = World(folder / "trials", SMALL, seed)
    assert world.undisturbed.is_dir()
    diverged = World(folder / "diverged", DIVERGES, seed)
    assert diverged.undisturbed.is_dir()
    with connected(None, 2) as cluster:
        diverges(diverged, tally, cluster)
        for name, function in (("out of memory", hoards), ("memory refused", refused_memory)):
            starves(world, tally, cluster, name, function)
    return tally


def diverges(world: World, tally: Tally, cluster: Cluster) -> None:
    """A trial whose loss is NaN is a failed row with its reason, and the sweep is complete."""
    folder, spec = world.new("run"), parse_spec(DIVERGES)
    run_folder = Run.create(folder, spec)
    run_on_ray(Session(spec, run_folder, Path("nowhere")), cluster)
    trials = read(folder, "trials")
    failed = trials[trials["status"] == "failed"]
    tally.faults += len(failed)
    if not len(failed) or not failed["reason"].str.startswith("diverged: ").all():
        tally.wrong(f"NaN: expected failed rows with a reason, got {failed['reason'].tolist()}")
    if run_folder.n_missing(spec):
        tally.wrong("NaN: trials are missing")
    run_folder.fill_intransigence()
    world.check_end(tally, "NaN", folder, {})
    tally.notes.append(f"NaN: {len(failed)} rows, '{failed['reason'].iloc[0]}'")


def starves(world: World, tally: Tally, cluster: Cluster, name: str, function: TrialFunction) -> None:
    """A trial that gets no memory is an error with its reason, the others go on, and the next run ends the sweep."""
    folder = world.new(name.replace(" ", "-"))
    run_folder, spec = Run.create(folder, world.spec), world.spec
    try:
        run_on_ray(Session(spec, run_folder, Path("nowhere")), cluster, function=function)
    except Exception as error:
        tally.wrong(f"{name}: the sweep ended with {error!r} from {error.__cause__!r}")
    trials = read(folder, "trials")
    errors = trials[trials["status"] == "error"]
    tally.faults += int(errors["n_attempts"].sum())
    reasons = errors["reason"].tolist()
    if not reasons or not all("memory" in reason.lower() for reason in reasons):
        tally.wrong(f"{name}: expected error rows whose reason is memory, got {reasons}")
    whole = trials[(trials["method"] != "replay") & (trials["status"] == "completed")]
    if len(whole) != (read(world.undisturbed, "trials")["method"] != "replay").sum():
        tally.wrong(f"{name}: the other methods did not go on")
    kept = world.check_after_fault(tally, name, folder)
    (folder / "harmless").touch()
    run_on_ray(Session(spec, Run(folder), Path("nowhere")), cluster, function=function)
    Run(folder).fill_intransigence()
    world.check_end(tally, name, folder, kept)
    tally.notes.append(f"{name}: {len(errors)} error rows, '{(reasons or [''])[0][:110]}'")
