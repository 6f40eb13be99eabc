"""The driver of a real sweep is killed at random moments, or stopped by a signal; the same command ends the sweep."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import yaml

from tests.faults.world import LONGER, ROOT, Tally, World

N_KILLS, N_KILLS_QUICK = 20, 2
KILLS_A_RUN = 4
"""One run is killed and resumed so often before it may end."""

SECONDS = (2.0, 16.0)
"""From the start of a process to its kill: between the first imports and trials in flight."""


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
                break  # it had ended; its tables are compared below
            tally.faults += 1
            kept = world.check_after_fault(tally, what, place) | kept
        finish(world, tally, f"run {n_runs}", place, kept)
        print(f"  drivers so far: {tally.line()}", file=sys.stderr, flush=True)
    for name, action in [] if quick else SIGNALS:
        signalled(world, tally, name, action)
    if not quick:
        stopped_job(world, tally)
    return tally


def sweep_command(world: World, folder: Path) -> list[str]:
    return [sys.executable, "-m", "orchestrator", "sweep", str(world.folder / "spec.yaml"), "--run", str(folder)]


def start(world: World, folder: Path) -> subprocess.Popen[str]:
    """Start the sweep as a user would, in a process group of its own."""
    return subprocess.Popen(
        [*sweep_command(world, folder), "--num-cpus", "2"],
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
    """Send a signal, and again once the first was handled: the system merges two that are pending."""
    os.kill(process.pid, number)
    assert process.stdout is not None
    while (line := process.stdout.readline()) and not line.startswith("Interrupted:"):
        pass
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


def stopped_job(world: World, tally: Tally) -> None:
    """Submit the sweep as a job of a cluster, stop the job, and submit it again."""
    folder, what = world.new("job"), "ray job stop"
    gcs, dashboard = free_ports(2)
    environment = os.environ | {"RAY_TMPDIR": str(world.folder), "RAY_AUTH_MODE": "disabled", "PYTHONPATH": str(ROOT)}
    address, url = f"127.0.0.1:{gcs}", f"http://127.0.0.1:{dashboard}"
    job = [*sweep_command(world, folder), "--address", address]

    def ray_job(verb: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(Path(sys.executable).parent / "ray"), "job", verb, "--address", url, *arguments]
        merged: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.run(command, **merged, env=environment, cwd=world.folder, timeout=180)

    head = subprocess.Popen(
        [
            *(str(Path(sys.executable).parent / "ray"), "start", "--head", "--block", "--num-cpus", "2"),
            *("--node-ip-address", "127.0.0.1", "--port", str(gcs), "--dashboard-port", str(dashboard)),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment,
        start_new_session=True,
    )
    try:
        assert wait_for(lambda: ray_job("list").returncode == 0, 60), "the cluster never came up"
        submitted = ""

        def is_accepted() -> bool:
            """Submit the job; the dashboard answers before its node's agent is there, and refuses jobs until then."""
            nonlocal submitted
            done = ray_job("submit", "--submission-id", "first", "--no-wait", "--", *job)
            submitted = done.stdout
            return done.returncode == 0

        assert wait_for(is_accepted, 60), f"the cluster never took a job: {submitted[-300:]}"
        if not wait_for(lambda: len(list(folder.glob("trials/*.parquet"))) >= 4, 90):
            tally.wrong(f"{what}: the job never ran: {submitted[-300:]} {ray_job('logs', 'first').stdout[-300:]}")
            return
        ray_job("stop", "first")
        tally.faults += 1
        kept = world.check_after_fault(tally, what, folder)
        log = ray_job("logs", "first").stdout
        if "run the same command again" not in log or "Traceback" in log:
            tally.wrong(f"{what}: a message was expected, got: {log[-300:]}")
        again = ray_job("submit", "--submission-id", "second", "--", *job)
        if again.returncode:
            tally.wrong(f"{what}: the same job again ends with {again.stdout[-300:]}")
        world.check_end(tally, what, folder, kept)
        tally.notes.append(f"{what}: {len(kept)} trials were kept")
    finally:
        for process in [*psutil.Process(head.pid).children(recursive=True), head]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        head.wait()


def free_ports(number: int) -> list[int]:
    """Return free ports of loopback."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(number)]
        return [int(each.getsockname()[1]) for each in sockets]


def wait_for(condition: Callable[[], bool], seconds: float) -> bool:
    """Return whether `condition` became true in time."""
    ends = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > ends:
            return False
        time.sleep(0.1)
    return True
