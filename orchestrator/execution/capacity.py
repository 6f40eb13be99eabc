"""How many trials of each kind of request fit on the cluster at once, so that no kind waits behind another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.spec.fields import ResolvedRequest

if TYPE_CHECKING:
    from orchestrator.search.suggestion import PlannedTrial

_ROUNDING = 1e-9


@dataclass(frozen=True)
class NodeResources:
    """The CPUs and GPUs of one node, busy or not."""

    cpus: float
    gpus: float

    def fits(self, request: ResolvedRequest) -> bool:
        """Return whether a trial of `request` can ever run here."""
        return request.cpus <= self.cpus + _ROUNDING and request.gpus <= self.gpus + _ROUNDING


def share_slots(nodes: Sequence[NodeResources], requests: Sequence[ResolvedRequest]) -> Mapping[ResolvedRequest, int]:
    """Return how many trials of each request are to run at once.

    Slots are dealt in turn, requests for GPUs first and large ones before small ones, until nothing more fits; a
    request without GPUs takes the node with the fewest GPUs that has room, so that CPU trials do not take the CPUs that
    GPU trials need. Every request that fits beside the others gets its share.

    Args:
        nodes: the CPUs and GPUs of each.
        requests: the distinct requests that have trials to run.
    """
    free = [[node.cpus, node.gpus] for node in nodes]
    slots = dict.fromkeys(requests, 0)
    open_requests = sorted(requests, key=lambda r: (-r.gpus, -r.cpus))
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


class GpuPrecedence:
    """Holds CPU trials back while a GPU trial that has a slot lacks its worker and CPU trials may be in its way.

    Ray may place a CPU trial on a GPU node, and Tune then gives its worker the next one, so that a GPU trial would wait
    for the last of them. Each GPU trial holds CPU trials back until those that run have ended, and only once: if it
    lacks its worker then, someone else has the GPU, or its worker is about to start.
    """

    def __init__(self) -> None:
        self._in_vain: set[str] = set()

    def holds_cpu_trials(
        self, running: Sequence[PlannedTrial], started: Set[str], fits: Mapping[ResolvedRequest, int]
    ) -> bool:
        """Return whether CPU trials are to wait.

        Args:
            running: the trials that are handed out.
            started: keys of trials that have had a worker.
            fits: slots of each request on the nodes that are there.
        """
        placed = Counter(trial.request for trial in running if trial.spec.key in started)
        lacking = {
            trial.spec.key
            for trial in running
            if trial.spec.key not in started
            and trial.request.gpus > 0
            and placed[trial.request] < fits.get(trial.request, 0)
        } - self._in_vain
        if any(trial.request.gpus == 0 for trial in running):
            return bool(lacking)
        self._in_vain |= lacking
        return False
