"""The Ray cluster, joined or embedded: its start, its nodes and its dashboard."""

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
from orchestrator.execution.tune_internals import can_add_nodes, silence_dead_workers
from orchestrator.spec.fields import ResolvedRequest

NAMESPACE = "continual-sweep"
_SECONDS_TO_REACH = 10.0


@dataclass(frozen=True)
class Cluster:
    """A connected cluster.

    Args:
        is_embedded: whether it was started here, and ends with this process.
        dashboard: URL of the Ray dashboard, or empty.
    """

    is_embedded: bool
    dashboard: str

    def nodes(self) -> list[NodeResources]:
        """Return the CPUs and GPUs of each living node, busy or not."""
        return [
            NodeResources(node["Resources"].get("CPU", 0.0), node["Resources"].get("GPU", 0.0))
            for node in ray.nodes()  # type: ignore[no-untyped-call]
            if node["Alive"]
        ]

    def check(self, requests: Iterable[ResolvedRequest]) -> None:
        """Refuse requests that no node can ever serve.

        Raises:
            ClusterError: naming each such request, the sizes of the nodes, and what to do.
        """
        nodes = self.nodes()
        if not self.is_embedded and can_add_nodes():
            return
        faults = [
            f"No node of the cluster can run a trial with {request.cpus:g} CPUs and {request.gpus:g} GPUs: the nodes "
            f"have {_listed(nodes)}. Lower the request (--cpus-per-trial, --gpus-per-trial, or resources.methods and "
            "resources.scenarios in the spec), or join a larger cluster with --address."
            for request in dict.fromkeys(requests)
            if not any(node.fits(request) for node in nodes)
        ]
        if faults:
            raise ClusterError("\n".join(faults))


@contextlib.contextmanager
def connected(address: str | None, num_cpus: int | None = None) -> Iterator[Cluster]:
    """Join the cluster at `address`, or start an embedded one, and leave it at the end.

    The embedded cluster's dashboard listens on loopback only, with Ray's token authentication at its default (on).

    Args:
        address: of a running cluster, `auto` for one on this machine, or None for an embedded one.
        num_cpus: CPUs of the embedded cluster; by default those of this machine.

    Raises:
        ClusterError: if there is no cluster at `address`, or none can be started here.
    """
    silence_dead_workers()
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if ray.is_initialized():
        yield Cluster(False, _dashboard(ray.init(ignore_reinit_error=True, **quiet)))
        return
    if address is not None:
        _reach(address)
    logging.getLogger("ray").setLevel(logging.ERROR)
    try:
        with kept_through_start():
            if address is not None:
                context = ray.init(address=address, namespace=NAMESPACE, **quiet)
            else:
                context = ray.init(
                    address="local",  # without it, Ray joins the cluster that was started last on this machine
                    num_cpus=num_cpus,
                    include_dashboard=True,
                    dashboard_host="127.0.0.1",
                    namespace=NAMESPACE,
                    **quiet,
                )
    except Exception as error:  # Ray raises a plain Exception if its dashboard does not start, as on a full disk
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        if address is None:
            raise ClusterError(
                f"Cannot start a Ray cluster on this machine: {reason} Look for space in Ray's folder {_ray_folder()} "
                "(RAY_TMPDIR sets another) and for free memory."
            ) from error
        raise _unreachable(address, reason) from error
    try:
        yield Cluster(address is None, _dashboard(context))
    finally:
        ray.shutdown()


def _ray_folder() -> str:
    """Return the folder of sockets and logs of Ray's processes on this machine."""
    return os.path.join(os.environ.get("RAY_TMPDIR", tempfile.gettempdir()), "ray")


def _reach(address: str) -> None:
    """Refuse an address on which nothing listens; Ray itself would try for minutes without a word."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return  # Ray resolves 'auto' and other words
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_SECONDS_TO_REACH).close()
    except (OSError, OverflowError) as error:
        raise _unreachable(address, str(error)) from error


def _unreachable(address: str, reason: str) -> ClusterError:
    return ClusterError(
        f"Cannot reach a Ray cluster at --address {address}: {reason}. Start one with 'ray start --head', or leave out "
        "--address to start one on this machine."
    )


def _dashboard(context: Any) -> str:
    url = getattr(context, "dashboard_url", None)
    return f"http://{url}" if url else ""


def _listed(nodes: list[NodeResources]) -> str:
    kinds = dict.fromkeys(f"{node.cpus:g} CPUs and {node.gpus:g} GPUs" for node in nodes)
    return ", ".join(kinds) or "nothing"
