"""Workers and nodes of a cluster of three nodes die while a sweep runs on it."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from secrets import token_hex
from typing import Any

import psutil

import orchestrator.cluster  # noqa: F401 (first: it sets what Ray reads on import)

import ray  # isort: skip
from ray.cluster_utils import Cluster as ThreeNodes

from orchestrator import trial as trial_module
from orchestrator.cluster import NAMESPACE, connected
from orchestrator.provenance import Placement
from orchestrator.run import Run
from orchestrator.session import Session
from orchestrator.storage import StoredFile
from orchestrator.streams import PhaseData
from orchestrator.sweep import run_on_ray
from orchestrator.trial import TrialResult, run_trial
from orchestrator.trialspec import TrialSpec
from tests.faults.world import LONGER, Tally, World

N_WORKERS, N_NODES, N_PREEMPTIONS = 12, 5, 3
N_WORKERS_QUICK = 2
MOST_KILLS_A_RUN = 5
MOST_RUNS = 12

SECONDS_OF_NOTICE = 1.0
"""Between an autoscaler's word that a node will be preempted and its end."""

SECONDS_BETWEEN = (0.3, 3.0)
"""Between a kill and the next, once a trial is in flight again."""


def noted(
    spec: TrialSpec, data: PhaseData, placement: Placement, report: None, checkpoint: Path | StoredFile
) -> TrialResult:
    """Run a trial that writes checkpoints often; leave a mark where it goes on from one of a dead worker."""
    trial_module.SECONDS_BETWEEN_CHECKPOINTS = 0.1
    assert isinstance(checkpoint, Path)
    if checkpoint.exists():
        mark = checkpoint.parents[1] / "resumed" / f"{spec.key}.{token_hex(4)}"
        mark.parent.mkdir(exist_ok=True)
        mark.touch()
    return run_trial(spec, data, placement, report, checkpoint)


class Killer(threading.Thread):
    """Kills workers and nodes at random moments while trials are in flight.

    Args:
        session: the sweep.
        nodes: the cluster; the first node, which the driver is on, stays.
        kinds: 'worker', 'node' or 'preemption' for each kill.
        rng: the moments and the victims.
    """

    def __init__(self, session: Session, nodes: ThreeNodes, kinds: list[str], rng: random.Random) -> None:
        super().__init__(daemon=True)
        self.killed: list[str] = []
        self.ended = threading.Event()
        self._session, self._nodes, self._kinds, self._rng = session, nodes, kinds, rng

    def run(self) -> None:
        """Kill one after the other until there are no more kinds or the sweep has ended."""
        for kind in self._kinds:
            seconds = self._rng.uniform(*SECONDS_BETWEEN)
            while not self.ended.is_set() and not (self._session.search.running and workers()):
                time.sleep(0.02)
            if self.ended.wait(seconds):
                return
            if (
                self._kill_worker() if kind == "worker" else self._kill_node(kind == "preemption")
            ) and not self.ended.is_set():
                self.killed.append(kind)

    def _kill_worker(self) -> bool:
        victims = workers()
        if not victims:
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._rng.choice(victims), signal.SIGKILL)
            return True
        return False

    def _kill_node(self, is_announced: bool) -> bool:
        others = [node for node in self._nodes.list_all_nodes() if node is not self._nodes.head_node]
        node = self._rng.choice(others)
        if is_announced:
            announce_preemption(node.node_id, self._nodes.address)
            time.sleep(SECONDS_OF_NOTICE)
        self._nodes.remove_node(node, allow_graceful=False)
        self._nodes.add_node(num_cpus=1)
        return True


def announce_preemption(node_id: str, address: str) -> None:
    """Say what an autoscaler says of a spot machine that is about to be taken away."""
    from ray._raylet import GcsClient
    from ray.core.generated.autoscaler_pb2 import DrainNodeReason

    deadline = int((time.time() + SECONDS_OF_NOTICE) * 1000)
    reason = DrainNodeReason.DRAIN_NODE_REASON_PREEMPTION
    accepted, why = GcsClient(address=address).drain_node(node_id, reason, "taken away by its owner", deadline)
    assert accepted, why


def workers() -> list[int]:
    """Return the processes that run trials, below this one."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if "SweepWorker" in " ".join(process.cmdline()) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
    return sorted(found)


@contextlib.contextmanager
def three_nodes() -> Iterator[ThreeNodes]:
    """Start a cluster of three nodes with a CPU each, and join it."""
    nodes = ThreeNodes()
    ray._private.utils.set_sigterm_handler = lambda handler: None  # only a main thread can; nodes are added in another
    try:
        for _ in range(3):
            nodes.add_node(num_cpus=1)
        nodes.wait_for_nodes()
        ray.init(address=nodes.address, namespace=NAMESPACE, log_to_driver=False, logging_level="ERROR")
        yield nodes
    finally:
        ray.shutdown()
        nodes.shutdown()


def run(folder: Path, seed: int, quick: bool) -> Tally:
    tally = Tally("nodes")
    world = World(folder / "nodes", LONGER, seed)
    assert world.undisturbed.is_dir()  # before this process has threads: it is made in a fork
    left = (
        ["worker"] * N_WORKERS_QUICK
        if quick
        else (["worker"] * N_WORKERS + ["node"] * N_NODES + ["preemption"] * N_PREEMPTIONS)
    )
    world.random.shuffle(left)
    with three_nodes() as nodes, connected(None) as cluster:
        for number in range(MOST_RUNS):
            if not left:
                break
            n_killed = one_sweep(world, tally, nodes, cluster, left[:MOST_KILLS_A_RUN], f"run {number}")
            left = left[n_killed:]
    if not quick and not tally.n_resumed:
        tally.wrong("no trial went on from the checkpoint of a dead worker")
    if left:
        tally.wrong(f"{len(left)} kills found no sweep to hit")
    return tally


def one_sweep(world: World, tally: Tally, nodes: ThreeNodes, cluster: Any, kinds: list[str], what: str) -> int:
    """Run one sweep under kills, and again until nothing is missing; return how many kills hit it."""
    folder = world.new(what.replace(" ", "-"))
    run_folder = Run.create(folder, world.spec)
    session = Session(world.spec, run_folder, Path("nowhere"))
    killer = Killer(session, nodes, kinds, world.random)
    killer.start()
    lost: list[str] = []
    try:
        run_on_ray(session, cluster, function=noted, on_event=lost.append)
    except Exception as error:
        tally.wrong(f"{what}: the sweep ended with {error!r} from {error.__cause__!r} after {killer.killed}")
    finally:
        killer.ended.set()
        killer.join()
    tally.faults += len(killer.killed)
    kept = world.check_after_fault(tally, what, folder)
    trials = run_folder.trials()
    errors = [f"{n} attempts, {why}" for n, why in trials[trials["status"] == "error"][["n_attempts", "reason"]].values]
    n_resumed = len(list(folder.glob("resumed/*")))
    tally.notes.append(
        f"{what}: {len(killer.killed)} kills, {len(lost)} tried again, {n_resumed} from a checkpoint, "
        f"{len(errors)} errors {errors or ''}"
    )
    tally.n_resumed += n_resumed
    if run_folder.n_missing(world.spec):
        again = Session(world.spec, Run(folder), Path("nowhere"))
        run_on_ray(again, cluster, function=noted)
    Run(folder).fill_intransigence()
    Run(folder).delete_used_checkpoints()
    world.check_end(tally, what, folder, kept)
    print(f"  nodes so far: {tally.line()}", file=sys.stderr, flush=True)
    return len(killer.killed)
