"""Reading a large run: CPU seconds of `show`, `plan` and a complete `sweep`, and what a trial costs the driver.

The trials are made up and never trained, but everything else is the sweep's own: the search plans them, and the session
writes their rows. `python -m benchmarks.reading --trials 15000` measures a run of that size.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from orchestrator.execution.session import Session
from orchestrator.results.run import Run
from orchestrator.search.suggestion import PlannedTrial
from orchestrator.spec.loading import parse_spec
from orchestrator.spec.sweep_spec import SweepSpec
from orchestrator.trial.provenance import software_now
from orchestrator.trial.result import TrialResult

_METHODS = ("ewc", "si", "mas", "lwf", "der")
_N_SEEDS = 3
_N_TASKS = 5
_N_EXAMPLES = 29
_LIMITS = {"show": 6.0, "plan": 8.0, "sweep": 12.0}
"""CPU seconds at 15,000 trials. A smaller run may take its share, but at least what a command takes to start."""

_START_SECONDS = 6.0
_LIMIT_TRIALS = 15_000
_LIMIT_KILOBYTES = 10.0
_LIMIT_GROWTH = 1.1


def measure(n_trials: int, sampler: str = "tpe", folder: Path | None = None) -> list[tuple[str, float, float, str]]:
    """Return (what, measured, limit, unit) for a run of about `n_trials` trials.

    Args:
        n_trials: its size; 15 trials are three seeds of a suggestion of each of five methods.
        sampler: of the search; with `random`, only the reading costs anything.
        folder: holds the run and keeps it; a temporary folder by default. A run that is there is measured as it is.
    """
    with tempfile.TemporaryDirectory(prefix="benchmark-") as temporary:
        place = (folder or Path(temporary)) / f"run-{sampler}-{n_trials}"
        rows, name = [], f"reading: {n_trials:,} trials"
        spec_file = place.with_suffix(".yaml")
        if not place.exists():
            spec = _spec(n_trials, sampler)
            spec_file.parent.mkdir(parents=True, exist_ok=True)
            spec_file.write_text(spec.to_yaml(), encoding="utf-8")
            filled = fill(place, spec)
            print(f"{name}: {filled}", flush=True)
            rows += [
                (f"{name}, driver without Ray, memory a trial", filled.kilobytes, _LIMIT_KILOBYTES, "kB"),
                (f"{name}, time a trial at the end, start = 1", filled.growth, _LIMIT_GROWTH, "x"),
            ]
        for command, arguments in {
            "show": [str(place)],
            "plan": [str(spec_file), "--run", str(place)],
            "sweep": [str(spec_file), "--run", str(place)],
        }.items():
            seconds = _cpu_seconds(command, arguments)
            limit = max(_LIMITS[command] * n_trials / _LIMIT_TRIALS, _START_SECONDS)
            print(f"{name}, {command}: {seconds:.1f} CPU s", flush=True)
            rows.append((f"{name}, {command}", seconds, limit, "s"))
    return rows


@dataclass(frozen=True)
class Filled:
    """What it cost to fill a run.

    Args:
        milliseconds: CPU time a trial of each tenth of the trials.
        kilobytes: memory that a trial left in the driver, without the first tenth.
    """

    milliseconds: tuple[float, ...]
    kilobytes: float

    @property
    def growth(self) -> float:
        """Return the time a trial in the last tenth, by that in the second: the first one has the random start."""
        return self.milliseconds[-1] / self.milliseconds[1]

    def __str__(self) -> str:
        tenths = " ".join(f"{value:.1f}" for value in self.milliseconds)
        return f"driver without Ray: {self.kilobytes:.1f} kB a trial; ms a trial by tenths: {tenths}"


def fill(place: Path, spec: SweepSpec) -> Filled:
    """Make a complete run of made-up trials, written by a session, and return what it cost."""
    run = Run(place)
    with run.locked():
        session = Session(spec, run, Path("unused"), accept_changes=True)
        run.write_spec(spec)
        total, ends, memory = session.search.n_unknown, [time.process_time()], [_resident_kilobytes()]
        for number in range(1, total + 1):
            waiting = session.search.waiting_requests()
            if not waiting:
                break
            session.finish(_made_up(session.search.hand_out(waiting[0])))
            if number % (total // 10) == 0:
                ends.append(time.process_time())
                memory.append(_resident_kilobytes())
        session.close()
    tenth = total // 10
    times = tuple(1000 * (end - start) / tenth for start, end in pairwise(ends))
    return Filled(times, (memory[-1] - memory[1]) / (tenth * (len(memory) - 2)))


def _spec(n_trials: int, sampler: str) -> SweepSpec:
    return parse_spec(
        {
            "name": "reading",
            "scenarios": ["split-digits/class"],
            "methods": list(_METHODS),
            "limits": ["worst_forgetting <= 0.3", "kept_bytes <= 2e6"],
            "seeds": {"search": _N_SEEDS, "confirm": 1},
            "search": {"suggestions": max(n_trials // (_N_SEEDS * len(_METHODS)), 4), "sampler": sampler},
        }
    )


def _made_up(planned: PlannedTrial) -> TrialResult:
    """Return the result of a trial that was never trained; it depends on the trial's key alone."""
    draw = random.Random(planned.spec.key)
    quality, loss = draw.uniform(0.6, 0.95), draw.uniform(0.0, 0.15)
    measured, correct = [], []
    for after in range(-1, _N_TASKS):
        cells = [_counts(task, quality - loss * (after - task), draw) if task <= after else None for task in range(5)]
        measured.append(cells)
        correct.append([None if cell is None else sum(cell[2]) for cell in cells])
    names = [str(number) for number in range(2 * _N_TASKS)]
    return TrialResult(
        planned.spec.key,
        "completed",
        n_correct=correct,
        n_examples=[_N_EXAMPLES] * _N_TASKS,
        costs={"seconds": draw.uniform(1, 2), "n_parameters": 85e3, "kept_bytes": draw.uniform(1e6, 3e6)},
        provenance=_provenance(planned),
        details={planned.cell.method: {"share": quality}},
        chance_accuracy=0.1,
        task_names=[f"{2 * task}/{2 * task + 1}" for task in range(_N_TASKS)],
        class_names=[names] * _N_TASKS,
        measured=measured,
        ranked=[[{}] * _N_TASKS for _ in range(_N_TASKS + 1)],
    )


def _counts(task: int, share: float, draw: random.Random) -> list[list[int]]:
    """Return true, predicted and right examples of each of ten classes in a cell of R."""
    right = [0] * (2 * _N_TASKS)
    for number in range(_N_EXAMPLES):
        right[2 * task + number % 2] += draw.random() < share
    true = [(_N_EXAMPLES + 1) // 2 * (c // 2 == task) - (c == 2 * task + 1) for c in range(2 * _N_TASKS)]
    predicted = list(right)
    predicted[(2 * task + 2) % len(right)] += _N_EXAMPLES - sum(right)
    return [true, predicted, right]


def _provenance(planned: PlannedTrial) -> dict[str, object]:
    now = software_now()
    return {
        "device": "cpu",
        "device_name": "made up",
        "threads": 1,
        "host": "nowhere",
        "process_id": 1,
        "torch_version": now["torch_version"],
        "python_version": now["python_version"],
        "started_at": "2026-01-02T03:04:05.678901+00:00",
        "data_hash": planned.spec.data_fingerprint,
    }


def _resident_kilobytes() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1000


def _cpu_seconds(command: str, arguments: list[str]) -> float:
    """Return the CPU seconds of a command in a process of its own.

    Raises:
        RuntimeError: if it fails.
    """
    child = os.posix_spawn(
        sys.executable,
        [sys.executable, "-m", "orchestrator", command, *arguments],
        os.environ,
        file_actions=[(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0o666)],
    )
    _, status, used = os.wait4(child, 0)
    if os.waitstatus_to_exitcode(status):
        raise RuntimeError(f"{command}: exit code {os.waitstatus_to_exitcode(status)}")
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="benchmarks.reading", description=__doc__)
    parser.add_argument("--trials", type=int, default=15_000, help="size of the run")
    parser.add_argument("--sampler", default="tpe", choices=("tpe", "random"), help="random shows the reading alone")
    parser.add_argument("--folder", type=Path, help="keep the run there, and measure the one that is there")
    options = parser.parse_args()
    for row in measure(options.trials, options.sampler, options.folder):
        print(*row)
