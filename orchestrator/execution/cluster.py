"""The Ray cluster: joined, or embedded and started here; its nodes, its dashboard and the metrics shown there."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import ray

from orchestrator.core.errors import ClusterError
from orchestrator.core.signals import kept_through_start
from orchestrator.execution.capacity import NodeResources
from orchestrator.spec.fields import ResolvedRequest

NAMESPACE = "continual-sweep"
_SECONDS_TO_REACH = 10.0
_TRACEBACKS = ("ray.tune.execution.tune_controller", "ray.tune.tune", "ray.tune.execution.experiment_state")
"""Loggers of Ray that print a traceback where a worker dies, which we say in a line and in the trial's row, or where
what Tune keeps for a resume of its own cannot be saved, which we do not use."""

_OF_THE_DEAD = ("A worker died or was killed", "Raylet is terminated", "The node with node id")
"""How messages of Ray about the same begin, of some lines of its logs."""


@dataclass(frozen=True)
class Cluster:
    """A connected cluster.

    Args:
        is_embedded: whether it was started here and ends with this process.
        dashboard: URL of the Ray dashboard, or empty.
    """

    is_embedded: bool
    dashboard: str

    def nodes(self) -> list[NodeResources]:
        """Return what each living node has in all."""
        return [
            NodeResources(node["Resources"].get("CPU", 0.0), node["Resources"].get("GPU", 0.0))
            for node in ray.nodes()  # type: ignore[no-untyped-call]
            if node["Alive"]
        ]

    def check(self, requests: Iterable[ResolvedRequest]) -> None:
        """Refuse requests that no node can ever serve.

        Raises:
            ClusterError: naming each request, what the largest node has, and the way out.
        """
        nodes = self.nodes()
        if self._scales():
            return
        faults = [
            f"resources: expected a request that some node can serve, got {request.cpus:g} CPUs and {request.gpus:g} "
            f"GPUs a trial; the nodes have {_listed(nodes)}: lower it (--cpus-per-trial, --gpus-per-trial, or "
            "resources.methods and resources.scenarios in the spec), or join a larger cluster with --address"
            for request in dict.fromkeys(requests)
            if not any(node.fits(request) for node in nodes)
        ]
        if faults:
            raise ClusterError("\n".join(faults))

    def _scales(self) -> bool:
        """Return whether an autoscaler may add other nodes than those that are there."""
        from ray._private.state import state

        return not self.is_embedded and bool(state.get_max_resources_from_cluster_config())


@contextlib.contextmanager
def connected(address: str | None, num_cpus: int | None = None) -> Iterator[Cluster]:
    """Join the cluster at `address`, or start an embedded one, and leave it at the end.

    The embedded cluster's dashboard listens on loopback only, with Ray's token authentication at its default (on).

    Args:
        address: of a running cluster, `auto` to find one here, or None for an embedded one.
        num_cpus: CPUs of the embedded cluster; by default those of this machine.

    Raises:
        ClusterError: where there is no cluster at `address`.
    """
    _say_nothing_of_dead_workers()
    if ray.is_initialized():
        yield Cluster(False, _dashboard())
        return
    if address is not None:
        _reach(address)
    logging.getLogger("ray").setLevel(logging.ERROR)
    common: dict[str, Any] = {"namespace": NAMESPACE, "logging_level": logging.ERROR, "log_to_driver": False}
    try:
        with kept_through_start():
            if address is not None:
                ray.init(address=address, **common)
            else:
                ray.init(
                    address="local",  # left out, Ray would join whatever cluster was started last on this machine
                    num_cpus=num_cpus,
                    include_dashboard=True,
                    dashboard_host="127.0.0.1",
                    **common,
                )
    except Exception as error:  # Ray raises nothing more special where its dashboard does not start, as on a full disk
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        if address is None:
            raise ClusterError(
                f"cluster: expected to start one on this machine, got '{reason}'; look for space in Ray's folder "
                f"({_ray_folder()}; RAY_TMPDIR sets another) and for free memory"
            ) from error
        raise ClusterError(
            f"--address: expected to reach the cluster at '{address}', got '{reason}'; start one with "
            "'ray start --head', or leave it out"
        ) from error
    try:
        yield Cluster(address is None, _dashboard())
    finally:
        ray.shutdown()


def _ray_folder() -> str:
    """Return where Ray keeps what belongs to its processes on this machine."""
    return os.path.join(os.environ.get("RAY_TMPDIR", tempfile.gettempdir()), "ray")


def _say_nothing_of_dead_workers() -> None:
    """Keep Ray from printing what it knows of a dead worker; other messages of its nodes are printed as before.

    The printing function is an internal of Ray: where a version does not have it, a long line more is printed.
    """
    for name in _TRACEBACKS:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    from ray._private import worker as internal

    printing = getattr(internal, "print_to_stdstream", None)
    if printing is None or getattr(printing, "is_ours", False):
        return

    def print_other(data: Any, *arguments: Any, **settings: Any) -> None:
        if not (data.get("pid") == "raylet" and str(data.get("lines", [""])[0]).startswith(_OF_THE_DEAD)):
            printing(data, *arguments, **settings)

    print_other.is_ours = True  # type: ignore[attr-defined]
    internal.print_to_stdstream = print_other


def _reach(address: str) -> None:
    """Refuse an address where nobody listens; Ray itself would try for minutes and say nothing."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return  # 'auto' and other words are Ray's to resolve
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_SECONDS_TO_REACH).close()
    except (OSError, OverflowError) as error:
        raise ClusterError(
            f"--address: expected a running Ray cluster, got '{address}' ({error}); start one with "
            "'ray start --head', or leave it out"
        ) from error


def _dashboard() -> str:
    url = ray.get_runtime_context().worker.node.webui_url if _has_node() else ""
    return f"http://{url}" if url else ""


def _has_node() -> bool:
    return getattr(ray.get_runtime_context().worker, "node", None) is not None


def _listed(nodes: list[NodeResources]) -> str:
    kinds = dict.fromkeys(f"{node.cpus:g} CPUs and {node.gpus:g} GPUs" for node in nodes)
    return ", ".join(kinds) or "nothing"
