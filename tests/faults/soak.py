"""A soak: 2,000 short trials through the whole path; the cost of a trial at the end against the start."""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil

import orchestrator.execution.cluster  # noqa: F401 (first: it sets what Ray reads on import)
from orchestrator.execution.cluster import connected
from orchestrator.execution.session import Session
from orchestrator.execution.tuner import run_on_ray
from orchestrator.results.run import Run
from orchestrator.spec.loading import parse_spec

SPEC: dict[str, Any] = {
    "name": "soak",
    "scenarios": ["split-digits/task", "split-digits/domain"],
    "methods": ["ewc", "replay", "si", "lwf"],
    "limits": [],
    "seeds": {"search": 4, "confirm": 10},
    "search": {"suggestions": 60, "batch": 4},
    "model": {"hidden": [8]},
    "training": {"epochs": 1, "batch_size": 64},
}
"""8 cells of 250 trials: the same mix of methods from the start to the end."""

WARM_UP, WINDOW = 200, 300
MOST = 1.2


def main() -> int:
    """Run it and print both ratios; 1 if one is above its limit or a row is missing."""
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    n_trials = int(os.environ.get("SOAK_TRIALS", "2000"))
    suggestions = max((n_trials // 8 - 10) // 4, 4)
    spec = parse_spec(SPEC | {"search": {"suggestions": suggestions, "batch": 4}})
    process, ends, memory = psutil.Process(), [time.monotonic()], []
    run = Run.create(folder / "run", spec)
    session = Session(spec, run, Path("nowhere"))

    def ended(*_: object) -> None:
        ends.append(time.monotonic())
        memory.append(process.memory_info().rss)

    session.listen(ended)
    with connected(None, 2) as cluster:
        run_on_ray(session, cluster)
        session.close()
    trials = run.trials()
    n_bad = spec_trials(session) - len(trials) + int(trials["key"].duplicated().sum())
    n_bad += int((trials["status"] != "completed").sum())
    seconds = [b - a for a, b in pairwise(ends)]
    window = min(WINDOW, len(seconds) // 4)
    first = slice(min(WARM_UP, window), min(WARM_UP, window) + window)
    # Means: a worker that starts, or a batch that ends, costs one trial much and belongs to what a trial costs.
    time_ratio = statistics.mean(seconds[-window:]) / statistics.mean(seconds[first])
    memory_ratio = statistics.median(memory[-window:]) / statistics.median(memory[first])
    print(
        f"soak: {len(trials)} trials in {ends[-1] - ends[0]:.0f} s, the last {window} against {window} after the first "
        f"{first.start}: driver's memory x {memory_ratio:.2f}, time per trial x {time_ratio:.2f} "
        f"(each at most {MOST}); rows missing, twice or failed: {n_bad}"
    )
    shutil.rmtree(folder, ignore_errors=True)
    return int(bool(n_bad) or time_ratio > MOST or memory_ratio > MOST)


def spec_trials(session: Session) -> int:
    """Return how many trials there are: one that two equal suggestions share counts once."""
    return session.search.n_expected - session.search.n_cached
