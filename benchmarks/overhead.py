"""The overhead of a sweep: trials of 0 s and of 1 s on two slots, beside plain functions on Ray Tune."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import orchestrator.execution.cluster  # noqa: F401 (first: it sets what Ray reads on import)

import ray  # isort: skip
from ray import tune

from orchestrator.core.placement import Placement
from orchestrator.execution.cluster import connected
from orchestrator.execution.session import Session
from orchestrator.execution.tuner import run_on_ray
from orchestrator.results.run import Run
from orchestrator.spec.loading import parse_spec
from orchestrator.spec.trial_spec import TrialSpec
from orchestrator.streams.datasets import PhaseData
from orchestrator.trial.result import TrialResult

_SLOTS = 2
_PLAIN_TRIALS = 20
_LIMIT_MILLISECONDS = 100.0


def nothing(spec: TrialSpec, data: PhaseData, placement: Placement, report: None, checkpoint: Path) -> TrialResult:
    """Take the place of a trial and return at once."""
    return TrialResult(spec.key, "completed", n_correct=[[None], [1]], n_examples=[1])


def one_second(spec: TrialSpec, data: PhaseData, placement: Placement, report: None, checkpoint: Path) -> TrialResult:
    """Take the place of a trial and return after one second."""
    time.sleep(1.0)
    return nothing(spec, data, placement, report, checkpoint)


def measure(n_trials: int) -> list[tuple[str, float, float, str]]:
    """Return (what, milliseconds a trial, limit, unit). The start of workers is counted, that of Ray is not."""
    rows = []
    with connected(None, _SLOTS) as cluster:
        for seconds, function in ((0.0, nothing), (1.0, one_second)):
            ideal = seconds * n_trials / _SLOTS
            session = _session(n_trials)
            clock = time.perf_counter()
            run_on_ray(session, cluster, function=function)
            took = time.perf_counter() - clock
            assert session.progress.n_done == n_trials
            milliseconds = 1000 * (took - ideal) / n_trials
            rows.append((f"sweep: overhead a trial of {seconds:g} s", milliseconds, _LIMIT_MILLISECONDS, "ms"))
            print(f"sweep: {n_trials} trials of {seconds:g} s took {took:.1f} s", flush=True)
            took = _plain_tune_seconds(seconds)
            milliseconds = 1000 * (took - seconds * _PLAIN_TRIALS / _SLOTS) / _PLAIN_TRIALS
            rows.append((f"plain Tune functions: overhead a trial of {seconds:g} s", milliseconds, float("inf"), "ms"))
            print(f"plain Tune functions: {_PLAIN_TRIALS} trials of {seconds:g} s took {took:.1f} s", flush=True)
    return rows


def _session(n_trials: int) -> Session:
    spec = parse_spec({"methods": ["naive"], "seeds": {"search": n_trials - 5, "confirm": 5}})
    folder = Path(tempfile.mkdtemp(prefix="benchmark-")) / "run"
    return Session(spec, Run.create(folder, spec), Path("unused"))


def _plain_tune_seconds(seconds: float) -> float:
    """Return how long trials that are plain functions take, without loggers, as in the sweep."""

    def trial(config: dict[str, float]) -> dict[str, float]:
        import torch  # as any trial does

        time.sleep(seconds)
        return {"value": float(torch.zeros(1))}

    clock = time.perf_counter()
    tuner = tune.Tuner(
        tune.with_resources(trial, {"cpu": 1}),
        param_space={"seed": tune.grid_search(list(range(_PLAIN_TRIALS)))},
        run_config=tune.RunConfig(storage_path=tempfile.mkdtemp(prefix="benchmark-"), verbose=0),
    )
    assert not tuner.fit().errors
    ray.get(ray.put(0))
    return time.perf_counter() - clock
