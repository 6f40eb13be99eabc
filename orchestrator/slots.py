"""How many trials of each kind of request fit on the cluster at once, so that no kind waits behind another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.spec import ResolvedRequest

_ROUNDING = 1e-9


@dataclass(frozen=True)
class NodeResources:
    """What one node of the cluster has in all."""

    cpus: float
    gpus: float

    def fits(self, request: ResolvedRequest) -> bool:
        """Return whether a trial of `request` can ever run here."""
        return request.cpus <= self.cpus + _ROUNDING and request.gpus <= self.gpus + _ROUNDING


def share_slots(nodes: Sequence[NodeResources], requests: Sequence[ResolvedRequest]) -> Mapping[ResolvedRequest, int]:
    """Return how many trials of each request to have running at once.

    Slots are dealt in turn, requests for GPUs first, until nothing more fits; a request without GPUs takes the node
    with the fewest GPUs that has room, so that CPU trials do not take the CPUs that GPU trials need. Every request
    that fits at all while others run is dealt its share.

    Args:
        nodes: what each node has in all.
        requests: the distinct requests that have trials to run.
    """
    free = [[node.cpus, node.gpus] for node in nodes]
    slots = dict.fromkeys(requests, 0)
    open_requests = sorted(requests, key=lambda r: -r.gpus)
    while open_requests:
        for request in list(open_requests):
            room = [
                node for node in free if request.cpus <= node[0] + _ROUNDING and request.gpus <= node[1] + _ROUNDING
            ]
            if not room:
                open_requests.remove(request)
                continue
            node = min(room, key=lambda n: n[1])
            node[0] -= request.cpus
            node[1] -= request.gpus
            slots[request] += 1
    return slots
