"""The driver of a real sweep dies at random moments, or is told to stop; the same command then ends the sweep."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from tests.faults.world import LONGER, ROOT, Tally, World

N_KILLS, N_KILLS_QUICK = 20, 2
KILLS_A_RUN = 4
"""So many times one run is killed and gone on with before it is left to end."""

SECONDS = (2.0, 16.0)
"""When a kill comes after the start of its process: from the first imports to trials in flight."""


def run(folder: Path, seed: int, quick: bool) -> Tally:
    tally = Tally("drivers")
    world = World(folder / "drivers", LONGER, seed)
    (world.folder / "spec.yaml").write_text(yaml.safe_dump(LONGER))
    n_kills, n_runs = N_KILLS_QUICK if quick else N_KILLS, 0
    while tally.faults < n_kills:
        n_runs += 1
        place = world.new(f"killed-{n_runs}")
        kept: dict[str, Any] = {}
        for _ in range(min(KILLS_A_RUN, n_kills - tally.faults)):
            seconds = world.random.uniform(*SECONDS)
            what = f"run {n_runs}, SIGKILL after {seconds:.2f} s"
            if not killed(world, place, seconds):
                break  # it was done before; whatever is there is compared below
            tally.faults += 1
            kept = world.check_after_fault(tally, what, place) | kept
        finish(world, tally, f"run {n_runs}", place, kept)
        print(f"  drivers so far: {tally.line()}", file=sys.stderr, flush=True)
    for name, action in [] if quick else SIGNALS:
        signalled(world, tally, name, action)
    return tally


def start(world: World, folder: Path) -> subprocess.Popen[str]:
    """Start the sweep as a user would, in a process group of its own."""
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "orchestrator", "sweep", str(world.folder / "spec.yaml")),
            *("--run", str(folder), "--num-cpus", "2"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        cwd=world.folder,
        start_new_session=True,
    )


def killed(world: World, folder: Path, seconds: float) -> bool:
    """Kill the driver and its group after so many seconds; return whether it was still running then."""
    process = start(world, folder)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    return process.returncode == -signal.SIGKILL


def finish(world: World, tally: Tally, what: str, folder: Path, kept: dict[str, Any]) -> None:
    """Let the same command end the sweep, and compare."""
    process = start(world, folder)
    output = process.communicate(timeout=300)[0]
    if process.returncode != 0:
        tally.wrong(f"{what}: the same command again exits with {process.returncode}: {output[-300:]}")
    if "Traceback" in output:
        tally.wrong(f"{what}: a traceback was printed")
    world.check_end(tally, what, folder, kept)


def once(process: subprocess.Popen[str], number: int) -> None:
    os.kill(process.pid, number)


def twice(process: subprocess.Popen[str], number: int) -> None:
    os.kill(process.pid, number)
    time.sleep(0.1)
    os.kill(process.pid, number)


def by_term(process: subprocess.Popen[str]) -> int:
    once(process, signal.SIGTERM)
    return 143


def by_interrupt(process: subprocess.Popen[str]) -> int:
    once(process, signal.SIGINT)
    return 3


def by_two_interrupts(process: subprocess.Popen[str]) -> int:
    twice(process, signal.SIGINT)
    return 130


SIGNALS: list[tuple[str, Callable[[subprocess.Popen[str]], int]]] = [
    ("SIGTERM", by_term),
    ("SIGINT", by_interrupt),
    ("SIGINT twice", by_two_interrupts),
]


def signalled(world: World, tally: Tally, name: str, action: Callable[[subprocess.Popen[str]], int]) -> None:
    """Send signals once some trials are done: the exit code, the message, no traceback, complete trials kept."""
    folder = world.new(name.replace(" ", "-"))
    process = start(world, folder)
    while process.poll() is None and len(list(folder.glob("trials/*.parquet"))) < 4:
        time.sleep(0.02)
    if process.poll() is not None:
        tally.wrong(f"{name}: the sweep ended before: {process.communicate()[0][-300:]}")
        return
    expected, sent = action(process), time.monotonic()
    output = process.communicate(timeout=120)[0]
    tally.faults += 1
    if process.returncode != expected:
        tally.wrong(f"{name}: expected exit code {expected}, got {process.returncode}: {output[-300:]}")
    if "run the same command again" not in output or "Traceback" in output:
        tally.wrong(f"{name}: a message was expected, got: {output[-300:]}")
    tally.notes.append(f"{name} ended in {time.monotonic() - sent:.1f} s with {process.returncode}")
    finish(world, tally, name, folder, world.check_after_fault(tally, name, folder))
