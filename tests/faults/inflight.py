"""A sweep on a cluster that is struck while trials are in flight, at random moments."""

from __future__ import annotations

import contextlib
import random
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from secrets import token_hex
from typing import Any

import psutil

from orchestrator.core.placement import Placement
from orchestrator.execution.session import Session
from orchestrator.execution.tuner import run_on_ray
from orchestrator.results.run import Run
from orchestrator.spec.trial_spec import TrialSpec
from orchestrator.storage.base import StoredFile
from orchestrator.streams.datasets import PhaseData
from orchestrator.trial import protocol as trial_module
from orchestrator.trial.protocol import run_trial
from orchestrator.trial.result import TrialResult
from tests.faults.world import Tally, World

MOST_STRIKES_A_RUN = 5
MOST_RUNS = 20

SECONDS_BETWEEN = (0.3, 3.0)
"""From a trial in flight to the next strike."""

SECONDS_BETWEEN_LOOKS = 0.05

Strike = Callable[[str], bool]
"""Strikes as its argument names and returns True; returns False if nothing that it may hit runs a trial."""


def noted(
    spec: TrialSpec, data: PhaseData, placement: Placement, report: None, checkpoint: Path | StoredFile
) -> TrialResult:
    """Run a trial that writes checkpoints often; leave a mark if it goes on from one of a dead worker."""
    trial_module.SECONDS_BETWEEN_CHECKPOINTS = 0.1
    assert isinstance(checkpoint, Path)
    if checkpoint.exists():
        mark = checkpoint.parents[1] / "resumed" / f"{spec.key}.{token_hex(4)}"
        mark.parent.mkdir(exist_ok=True)
        mark.touch()
    return run_trial(spec, data, placement, report, checkpoint)


def workers(method: str = "", below: int | None = None) -> list[int]:
    """Return the worker processes below another, none if that one is gone.

    Args:
        method: only those that are in it, which Ray writes into a process's title; Tune's for a trial is `train`.
        below: a process, by default this one; a node's first is its raylet.
    """
    title = f"SweepWorker.{method}" if method else "SweepWorker"
    found: list[int] = []
    try:
        processes = psutil.Process(below).children(recursive=True)
    except psutil.NoSuchProcess:
        return found
    for process in processes:
        with contextlib.suppress(psutil.Error):
            if title in " ".join(process.cmdline()) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
    return sorted(found)


class Striker(threading.Thread):
    """Strikes at random moments while trials are in flight.

    Args:
        session: the sweep.
        strike: strikes once.
        kinds: the argument of each strike.
        rng: draws the moments.
    """

    def __init__(self, session: Session, strike: Strike, kinds: list[str], rng: random.Random) -> None:
        super().__init__(daemon=True)
        self.hits: list[str] = []
        self.fault: Exception | None = None
        self.ended = threading.Event()
        self._session, self._strike, self._kinds, self._rng = session, strike, kinds, rng

    def run(self) -> None:
        """Strike one time after the other until there are no more kinds or the sweep has ended."""
        try:
            for kind in self._kinds:
                seconds = self._rng.uniform(*SECONDS_BETWEEN)
                while not self.ended.is_set() and not (self._session.search.running and workers()):
                    time.sleep(SECONDS_BETWEEN_LOOKS)
                if self.ended.wait(seconds):
                    return
                while not self._strike(kind):
                    if self.ended.wait(SECONDS_BETWEEN_LOOKS):
                        return
                self.hits.append(kind)
        except Exception as error:
            self.fault = error


def strike_sweeps(
    world: World, tally: Tally, cluster: Any, strike: Strike, kinds: list[str], harmless: bool = False
) -> None:
    """Run sweeps until each kind has hit one, and compare the tables after each.

    Args:
        world: the sweep.
        tally: is added to.
        cluster: runs them.
        strike: strikes once.
        kinds: the argument of each strike.
        harmless: whether no trial may be lost, not even to be tried again.
    """
    left = list(kinds)
    for number in range(MOST_RUNS):
        if not left:
            break
        for kind in _one_sweep(
            world, tally, cluster, strike, left[:MOST_STRIKES_A_RUN], f"{left[0]} {number}", harmless
        ):
            left.remove(kind)
    if left:
        tally.wrong(f"{len(left)} faults found no sweep to hit: {left}")


def _one_sweep(
    world: World, tally: Tally, cluster: Any, strike: Strike, kinds: list[str], what: str, harmless: bool
) -> list[str]:
    """Run one sweep under strikes, and again until nothing is missing; return those that hit it."""
    folder = world.new(what.replace(" ", "-"))
    run_folder = Run.create(folder, world.spec)
    session = Session(world.spec, run_folder, Path("nowhere"))
    striker = Striker(session, strike, kinds, world.random)
    striker.start()
    lost: list[str] = []
    try:
        run_on_ray(session, cluster, function=noted, on_event=lost.append)
    except Exception as error:
        tally.wrong(f"{what}: the sweep ended with {error!r} from {error.__cause__!r} after {striker.hits}")
    finally:
        striker.ended.set()
        striker.join()
    if isinstance(striker.fault, AssertionError):
        tally.wrong(f"{what}: {striker.fault!r} after {striker.hits}")
    elif striker.fault is not None:  # another sweep gets it
        tally.notes.append(f"{what}: a strike could not be made: {striker.fault!r}")
    tally.faults += len(striker.hits)
    kept = world.check_after_fault(tally, what, folder)
    trials = run_folder.trials()
    errors = [f"{n} attempts, {why}" for n, why in trials[trials["status"] == "error"][["n_attempts", "reason"]].values]
    n_resumed = len(list(folder.glob("resumed/*")))
    tally.notes.append(
        f"{what}: {len(striker.hits)} hits, {len(lost)} tried again, {n_resumed} from a checkpoint, "
        f"{len(errors)} errors {errors or ''}"
    )
    tally.n_resumed += n_resumed
    if harmless and (lost or errors or run_folder.n_missing(world.spec)):
        tally.wrong(f"{what}: {len(lost)} trials were tried again and {len(errors)} ended with an error")
    next_run = Run(folder)
    with next_run.locked():  # which tidies up what a worker left that was killed while it wrote a checkpoint
        if next_run.n_missing(world.spec):
            run_on_ray(Session(world.spec, next_run, Path("nowhere")), cluster, function=noted)
        next_run.fill_intransigence()
        next_run.delete_used_checkpoints()
    world.check_end(tally, what, folder, kept)
    print(f"  {tally.group} so far: {tally.line()}", file=sys.stderr, flush=True)
    return striker.hits
