"""The network between the nodes of a cluster fails for a while, and comes back, while a sweep runs on it.

The second node is a host of its own: a network namespace, joined to the first by a pair of virtual interfaces. Its
disk is the first one's, so a node that is cut off goes on writing its checkpoints.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

import orchestrator.execution.cluster  # noqa: F401 (first: it sets what Ray reads on import)

import ray  # isort: skip
from ray.cluster_utils import Cluster as OneNode

from orchestrator.execution.cluster import NAMESPACE, connected
from tests.faults.inflight import strike_sweeps, workers
from tests.faults.world import LONGER, Tally, World

N_CUTS, N_SPLITS = 4, 6
N_CUTS_QUICK, N_SPLITS_QUICK = 0, 1

HEALTH_CHECKS = {
    "health_check_initial_delay_ms": 1000,
    "health_check_period_ms": 1000,
    "health_check_timeout_ms": 1000,
    "health_check_failure_threshold": 6,
}
"""Ray declares a node dead after 6 to 12 seconds without an answer; by default after 15 to 65."""

SECONDS_OF_A_CUT = 1.5
"""Too short for Ray to notice: what was sent is sent again, at the latest 3 seconds after it was sent first (TCP
doubles its waits, from 0.2 seconds), and nothing is lost."""

SECONDS_AFTER_A_SPLIT = 1.5
"""How long a node that was declared dead goes on, while its trial is tried again elsewhere."""

SECONDS_AT_MOST = 60.0

SLOWER = LONGER | {
    "methods": ["naive", "replay"],
    "seeds": {"search": 1, "confirm": 1},
    "search": {"suggestions": 3, "batch": 2},
    "training": {"epochs": 100, "batch_size": 32},
}
"""6 trials of some seconds, so that one on a node that is cut off lives longer than Ray's patience."""


def run(folder: Path, seed: int, quick: bool) -> Tally:
    tally = Tally("networks")
    try:
        with Link() as link:
            world = World(folder / "networks", SLOWER, seed)
            assert world.undisturbed.is_dir()  # before this process has threads: it is made in a fork
            n_cuts, n_splits = (N_CUTS_QUICK, N_SPLITS_QUICK) if quick else (N_CUTS, N_SPLITS)
            with two_hosts(link) as hosts, connected(None) as cluster:
                strike_sweeps(world, tally, cluster, hosts.strike, ["cut"] * n_cuts, harmless=True)
                strike_sweeps(world, tally, cluster, hosts.strike, ["split"] * n_splits)
            if not quick and not tally.n_resumed:
                tally.wrong("no trial went on from the checkpoint of a node that was cut off")
    except NoNetworks as error:
        tally.notes.append(f"skipped: {error}")
    return tally


class NoNetworks(Exception):
    """This machine or user cannot make networks."""


class Link:
    """A network namespace and the pair of interfaces that joins it to this one. Needs root and `ip` of iproute2."""

    _PREFIX = "faults-"

    def __init__(self) -> None:
        process = os.getpid()
        self.name = f"{self._PREFIX}{process}"
        self._interface, self._other = f"f{process}a", f"f{process}b"
        network = f"10.{200 + process // 64 // 256 % 50}.{process // 64 % 256}"  # four addresses for each process
        first = process % 64 * 4
        self.here, self.there = f"{network}.{first + 1}", f"{network}.{first + 2}"

    def __enter__(self) -> Link:
        if shutil.which("ip") is None:
            raise NoNetworks("there is no 'ip'")
        try:
            self._remove_those_of_the_dead()
            self._ip("netns", "add", self.name)
            self._ip("link", "add", self._interface, "type", "veth", "peer", "name", self._other, "netns", self.name)
            self._ip("addr", "add", f"{self.here}/30", "dev", self._interface)
            self._ip("-n", self.name, "addr", "add", f"{self.there}/30", "dev", self._other)
            self._ip("-n", self.name, "link", "set", self._other, "up")
            self._ip("-n", self.name, "link", "set", "lo", "up")
            self.up()
        except subprocess.CalledProcessError as error:
            self.__exit__()
            raise NoNetworks(error.stderr.strip()) from error
        return self

    def __exit__(self, *exception: object) -> None:
        self._remove(self.name)

    def _remove_those_of_the_dead(self) -> None:
        for name in self._ip("netns", "list").split():
            number = name.removeprefix(self._PREFIX)
            if name.startswith(self._PREFIX) and number.isdigit() and not psutil.pid_exists(int(number)):
                self._remove(name)

    def _remove(self, name: str) -> None:
        with contextlib.suppress(subprocess.CalledProcessError):
            for process in self._ip("netns", "pids", name).split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(process), signal.SIGKILL)
            self._ip("netns", "del", name)  # and the interfaces with it

    def processes(self) -> list[int]:
        """Return the processes on the other side."""
        return [int(process) for process in self._ip("netns", "pids", self.name).split()]

    def up(self) -> None:
        """Join the two."""
        self._ip("link", "set", self._interface, "up")

    def down(self) -> None:
        """Lose all that is sent from one to the other."""
        self._ip("link", "set", self._interface, "down")

    @staticmethod
    def _ip(*words: str) -> str:
        return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


class TwoHosts:
    """A cluster with a CPU on each side of a link."""

    def __init__(self, link: Link, address: str) -> None:
        self._link, self._address = link, address
        self._node: subprocess.Popen[bytes] | None = None

    def join(self) -> None:
        """Start the other side's node, and wait until it has joined."""
        words = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus=1", "--address"]
        self._node = subprocess.Popen(
            ["ip", "netns", "exec", self._link.name, *words, self._address, f"--node-ip-address={self._link.there}"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._wait(is_alive=True)

    def leave(self) -> None:
        """End the other side's node."""
        if self._node is not None:
            self._node.terminate()
            try:
                self._node.wait(SECONDS_AT_MOST)
            except subprocess.TimeoutExpired:
                self._node.kill()

    def strike(self, kind: str) -> bool:
        """Do a 'cut', shorter than Ray's patience, or a 'split', longer, if a trial is on the other side.

        Raises:
            AssertionError: if a node that was declared dead goes on once it is connected again.
        """
        assert self._node is not None
        assert self._node.poll() is None, "the other side's node has ended"
        training = sorted(set(workers("train")) & set(self._link.processes()))
        if not training:
            return False
        self._link.down()
        try:
            if kind == "cut":
                time.sleep(SECONDS_OF_A_CUT)
            else:
                self._outlive(training)
        finally:
            self._link.up()
        if kind == "split":
            self._await_its_end()
            self.join()
        return True

    def _outlive(self, training: list[int]) -> None:
        """Wait until Ray declares the node dead; its trials are paused until then, and go on after."""
        for process in training:
            os.kill(process, signal.SIGSTOP)
        try:
            self._wait(is_alive=False)
        finally:
            for process in training:
                os.kill(process, signal.SIGCONT)
        time.sleep(SECONDS_AFTER_A_SPLIT)

    def _await_its_end(self) -> None:
        """Wait until the node and its workers have ended, as Ray's processes do once they were declared dead."""
        assert self._node is not None
        self._node.wait(SECONDS_AT_MOST)
        deadline = time.monotonic() + SECONDS_AT_MOST
        while self._link.processes():
            assert time.monotonic() < deadline, "a node that was declared dead goes on"
            time.sleep(0.1)

    def _wait(self, is_alive: bool) -> None:
        deadline = time.monotonic() + SECONDS_AT_MOST
        while is_alive != any(n["Alive"] for n in ray.nodes() if n["NodeManagerAddress"] == self._link.there):
            assert time.monotonic() < deadline, f"the node is not {'there' if is_alive else 'declared dead'}"
            time.sleep(0.1)


@contextlib.contextmanager
def two_hosts(link: Link) -> Iterator[TwoHosts]:
    """Start a cluster of a node on each side of a link, and join it."""
    head = OneNode()
    hosts = None
    try:
        head.add_node(num_cpus=1, node_ip_address=link.here, _system_config=HEALTH_CHECKS)
        ray.init(address=head.address, namespace=NAMESPACE, log_to_driver=False, logging_level="ERROR")
        hosts = TwoHosts(link, head.address)
        hosts.join()
        yield hosts
    finally:
        if hosts is not None:
            hosts.leave()
        ray.shutdown()
        head.shutdown()
