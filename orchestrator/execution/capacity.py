"""How many trials of each kind of request fit on the cluster at once, so that no kind waits behind another."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.spec.fields import ResolvedRequest

if TYPE_CHECKING:
    from orchestrator.search.cell_search import PlannedTrial

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

    Slots are dealt in turn, requests for GPUs first and large ones before small ones, until nothing more fits; a
    request without GPUs takes the node with the fewest GPUs that has room, so that CPU trials do not take the CPUs that
    GPU trials need. Every request that fits at all while others run is dealt its share.

    Args:
        nodes: what each node has in all.
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
    """Holds CPU trials back while a GPU trial that has a slot still lacks its worker.

    Ray may place a CPU trial on a GPU node, and Tune then reuses its worker for the next one, so a GPU trial would wait
    for the last of them. Where holding all CPU trials does not help, somebody else has the GPU, and they go on.
    """

    _PATIENCE_SECONDS = 5.0
    _SECONDS_BEFORE_NEXT_TRY = 60.0

    def __init__(self) -> None:
        self._idle_since: float | None = None
        self._gave_up = -math.inf

    def holds_cpu_trials(
        self, running: Sequence[PlannedTrial], started: Set[str], fits: Mapping[ResolvedRequest, int], now: float
    ) -> bool:
        """Return whether CPU trials are to wait.

        Args:
            running: the trials that are handed out.
            started: keys of trials that have had a worker.
            fits: slots of each request on the nodes that are there.
            now: seconds of a monotonic clock.
        """
        placed = Counter(trial.request for trial in running if trial.spec.key in started)
        unplaced = {trial.request for trial in running if trial.spec.key not in started}
        lacking = any(r.gpus > 0 and placed[r] < fits.get(r, 0) for r in unplaced)
        if not lacking or now - self._gave_up < self._SECONDS_BEFORE_NEXT_TRY:
            self._idle_since = None
            return False
        if any(trial.request.gpus == 0 for trial in running):
            self._idle_since = None
        else:
            self._idle_since = self._idle_since or now
            if now - self._idle_since > self._PATIENCE_SECONDS:
                self._gave_up = now
                return False
        return True
