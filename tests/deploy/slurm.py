"""`python -m tests.deploy.slurm`: a sweep through deploy/slurm/sweep.sbatch, preempted twice, on two nodes.

The first start is told to end (SIGUSR1 to the batch shell), the second is killed, the third ends the sweep. The tables
must be those of a sweep that nothing disturbed.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import yaml

from tests.deploy.slurm_nodes import Controller, why_not
from tests.faults.world import LONGER, ROOT, Tally, World, read

SCRIPT = ROOT / "deploy" / "slurm" / "sweep.sbatch"
SECONDS = 180.0
"""A start of two nodes and a few trials take about 30."""

ROWS_AT_NOTICE, ROWS_AT_KILL = 3, 12


def main() -> int:
    if reason := why_not():
        print(f"deploy/slurm: skipped: {reason}")
        return 0
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    tally, started = Tally("slurm"), time.monotonic()
    world = World(folder / "world", LONGER, 0)
    assert world.undisturbed.is_dir()  # before this process has threads: it is made in a fork
    try:
        preempt_twice(world, tally, folder)
    finally:
        if tally.differences or tally.duplicates or not tally.found:
            print((folder / "job.log").read_text(errors="replace")[-6000:])
    print(f"slurm: {tally.line()}, {time.monotonic() - started:.0f} s ({'; '.join(tally.notes)})")
    if tally.differences or tally.duplicates:
        print("\n".join(tally.details))
        return 1
    shutil.rmtree(folder, ignore_errors=True)
    return 0


def preempt_twice(world: World, tally: Tally, folder: Path) -> None:
    """Run the job until its sweep is complete, with a notice and a kill on the way, and count differences."""
    run = world.new("run")
    spec = folder / "sweep.yaml"
    spec.write_text(yaml.safe_dump(world.content), encoding="utf-8")
    env = os.environ | {"CONTINUAL_SWEEP_VENV": sys.prefix, "PYTHONPATH": str(ROOT)}
    controller = Controller(folder)
    try:
        words = [str(spec), "--run", str(run), "--verbose"]

        controller.start(SCRIPT, words, env)
        wait_for_rows(controller, run, ROWS_AT_NOTICE)
        noticed = time.monotonic()
        controller.signal_batch_shell(signal.SIGUSR1)
        job = controller.wait(SECONDS)
        tally.notes.append(f"ended {time.monotonic() - noticed:.0f} s after notice")
        if (job.code, job.is_requeued) != (3, True):
            tally.wrong(f"after notice: exit code {job.code}, requeued: {job.is_requeued}")
        tally.faults += 1
        kept = world.check_after_fault(tally, "notice", run)

        controller.start(SCRIPT, words, env)
        wait_for_rows(controller, run, max(ROWS_AT_KILL, len(kept) + 2))
        controller.kill()
        tally.faults += 1
        kept = world.check_after_fault(tally, "kill", run)

        controller.start(SCRIPT, words, env)
        job = controller.wait(SECONDS)
        if (job.code, job.is_requeued) != (0, False):
            tally.wrong(f"at the end: exit code {job.code}, requeued: {job.is_requeued}")
        world.check_end(tally, "end", run, kept)
        nodes = read(run, "trials")["node_id"].nunique()
        tally.notes.append(f"{nodes} nodes of 3 starts trained")
        if nodes < 4:
            tally.wrong(f"only {nodes} nodes trained: the second of a start did not join")
    finally:
        controller.close()


def wait_for_rows(controller: Controller, run: Path, n_rows: int) -> None:
    """Wait until a running job has so many rows."""
    deadline = time.monotonic() + SECONDS
    while len(read(run, "trials")) < n_rows:
        assert controller.is_running(), f"the job ended before {n_rows} trials"
        assert time.monotonic() < deadline, f"no {n_rows} trials after {SECONDS:.0f} s"
        time.sleep(0.1)


if __name__ == "__main__":
    sys.exit(main())
