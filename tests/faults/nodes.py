"""Workers and nodes of a cluster of three nodes die while a sweep runs on it."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import orchestrator.execution.cluster  # noqa: F401 (first: it sets what Ray reads on import)

import ray  # isort: skip
from ray._private.node import Node
from ray.cluster_utils import Cluster

from orchestrator.execution.cluster import NAMESPACE, connected
from tests.faults.inflight import Strike, strike_sweeps, workers
from tests.faults.world import LONGER, Tally, World

N_WORKERS, N_NODES, N_PREEMPTIONS = 12, 5, 3

QUICK = LONGER | {"seeds": {"search": 1, "confirm": 1}, "search": {"suggestions": 4, "batch": 4}}
"""A third of the trials."""

SECONDS_OF_NOTICE = 1.0
"""Between the notice that a node will be preempted and its end."""


def run(folder: Path, seed: int, quick: bool) -> Tally:
    tally = Tally("nodes")
    world = World(folder / "nodes", QUICK if quick else LONGER, seed)
    assert world.undisturbed.is_dir()  # before this process has threads: it is made in a fork
    kinds = (
        ["node"]  # the tests kill workers
        if quick
        else (["worker"] * N_WORKERS + ["node"] * N_NODES + ["preemption"] * N_PREEMPTIONS)
    )
    world.random.shuffle(kinds)
    with three_nodes() as nodes, connected(None) as cluster:
        strike_sweeps(world, tally, cluster, killing(nodes, world.random), kinds)
    if not quick and not tally.n_resumed:
        tally.wrong("no trial went on from the checkpoint of a dead worker")
    return tally


class ThreeNodes(Cluster):
    """A cluster whose nodes can be replaced from any thread.

    Ray has the processes of a node killed when the thread that started them ends (PR_SET_PDEATHSIG), and the one that
    strikes ends with its sweep: new nodes are started in one that stays.
    """

    def __init__(self) -> None:
        super().__init__()
        self._starting = ThreadPoolExecutor(1)

    def replace(self, node: Node) -> None:
        """Kill a node's processes, and start another."""
        self.remove_node(node, allow_graceful=False)
        self._starting.submit(self.add_node, num_cpus=1).result()

    def shutdown(self) -> None:
        """End all nodes."""
        super().shutdown()
        self._starting.shutdown()


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


def killing(nodes: ThreeNodes, rng: random.Random) -> Strike:
    """Return a function that kills a 'worker', a 'node', or a node after notice ('preemption'), and replaces nodes.

    Args:
        nodes: the cluster; its first node, which the driver is on, stays.
        rng: draws the victims.
    """

    def kill(kind: str) -> bool:
        if kind == "worker":
            return kill_one(workers(), rng)
        assert all(raylet(node).poll() is None for node in nodes.list_all_nodes()), "a node died without a strike"
        training = [node for node in nodes.worker_nodes if workers("train", below=raylet(node).pid)]
        if not training:
            return False
        node = rng.choice(sorted(training, key=lambda node: node.node_id))
        if kind == "preemption":
            announce_preemption(node.node_id, nodes.address)
            time.sleep(SECONDS_OF_NOTICE)
        nodes.replace(node)
        return True

    return kill


def kill_one(processes: list[int], rng: random.Random) -> bool:
    """Kill a process of several, unless there is none or it has just ended."""
    try:
        os.kill(rng.choice(processes), signal.SIGKILL)
    except (IndexError, ProcessLookupError):
        return False
    return True


def raylet(node: Node) -> subprocess.Popen[bytes]:
    """Return a node's process that starts its workers."""
    process: subprocess.Popen[bytes] = node.all_processes["raylet"][0].process
    return process


def announce_preemption(node_id: str, address: str) -> None:
    """Announce, as an autoscaler does, that a spot machine is about to be taken away."""
    from ray._raylet import GcsClient
    from ray.core.generated.autoscaler_pb2 import DrainNodeReason

    deadline = int((time.time() + SECONDS_OF_NOTICE) * 1000)
    reason = DrainNodeReason.DRAIN_NODE_REASON_PREEMPTION
    accepted, why = GcsClient(address=address).drain_node(node_id, reason, "preempted", deadline)
    assert accepted, why
