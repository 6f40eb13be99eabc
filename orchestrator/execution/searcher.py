"""Hands the session's waiting trials to Ray Tune, and records those that end."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from ray.tune.search import Searcher

from orchestrator.execution.capacity import GpuPrecedence, share_slots
from orchestrator.execution.cluster import Cluster
from orchestrator.execution.session import Session
from orchestrator.search.suggestion import PlannedTrial
from orchestrator.spec.fields import ResolvedRequest
from orchestrator.trial.result import TrialResult

_SECONDS_BETWEEN_LOOKS = 2.0


class TuneSearcher(Searcher):
    """Hands out no more trials of a kind than the cluster has room for.

    Args:
        session: the sweep.
        cluster: where it runs.
        on_event: shows a line to the user: a trial is tried again because its worker died, or trials wait for a node.
    """

    def __init__(self, session: Session, cluster: Cluster, on_event: Callable[[str], None] = lambda text: None) -> None:
        super().__init__(metric=None, mode=None)
        self.session = session
        self.told_to_drain = False
        self.stopped: type[BaseException] | None = None
        self._cluster = cluster
        self.say = on_event
        self._attempts: Counter[str] = Counter()
        self._started: set[str] = set()
        self._fits: Mapping[ResolvedRequest, int] = {}
        self._precedence = GpuPrecedence()
        self._holds_cpu_trials = False
        self._looked = 0.0
        self._shared_between: list[ResolvedRequest] = []
        self._homeless: set[ResolvedRequest] = set()
        self._has_said_budget = False

    @property
    def draining(self) -> bool:
        """Return whether trials that have a worker run to their end and no others start: an interrupt or a budget."""
        return self.told_to_drain or bool(self.session.spending.reached)

    def suggest(self, trial_id: str) -> Any:
        """Return the next trial's config, None for 'not now', or FINISHED."""
        search = self.session.search
        if search.is_finished or self._ends():
            return Searcher.FINISHED
        waiting = sorted(search.waiting_requests(), key=lambda request: -request.gpus)
        self._look_at_cluster(waiting)
        self._holds_cpu_trials = self._precedence.holds_cpu_trials(search.running, self._started, self._fits)
        for request in waiting:
            if self._holds_cpu_trials and request.gpus == 0:
                continue
            if search.n_running(request) < self._room(request) or not search.running:
                if not self._is_affordable(request):
                    return Searcher.FINISHED if self._ends() else None
                return self._config(search.hand_out(request))
        return None

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Write and record a trial that ended; failures arrive through `SweepCallback`, which knows the reason."""
        if result is None or error or "result" not in result:
            return
        content = TrialResult.from_json(result["result"])
        self.guard(lambda: self._finish(content, result.get("log", "")))

    def record_error(self, config: dict[str, Any], reason: str) -> None:
        """Record a trial that was lost in all its attempts."""
        provenance = {name: config[name] for name in ("device", "threads", "data_hash")}
        self.guard(lambda: self._finish(TrialResult(config["key"], "error", reason, provenance=provenance)))

    def count_attempt(self, config: dict[str, Any], reason: str) -> None:
        """Count a failed attempt that Tune tries again, and show it."""
        self._attempts[config["key"]] += 1
        self.say(f"tried again: {config['name']}: {reason}")

    def has_worker(self, config: dict[str, Any]) -> bool:
        """Return whether a trial has had a worker."""
        return config["key"] in self._started

    @property
    def n_in_flight(self) -> int:
        """Return how many trials have a worker."""
        return sum(trial.spec.key in self._started for trial in self.session.search.running)

    @property
    def has_ended(self) -> bool:
        """Return whether all that was to be run is recorded."""
        return self.session.search.is_finished or (self.draining and self.n_in_flight == 0)

    def note_start(self, config: dict[str, Any]) -> None:
        """Remember that a trial has its worker."""
        self._started.add(config["key"])
        for trial in self.session.search.running:
            if trial.spec.key == config["key"]:
                self.session.spending.start(trial)

    def guard(self, action: Callable[[], None]) -> None:
        """Run `action`; if it raises, end the sweep in order: an exception in a hook would corrupt Tune's state."""
        try:
            action()
        except Exception as error:
            if self.session.fault is None:
                self.session.fault = error
            self.told_to_drain = True

    def save(self, checkpoint_path: str) -> None:
        """Save nothing: the tables are the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Restore nothing: a new run replays the tables."""

    def n_workers_wanted(self, cpus: float, gpus: float) -> int:
        """Return how many idle workers of a size to keep: its slots less the busy ones, none while its trials wait."""
        if self.draining or (self._holds_cpu_trials and gpus == 0):
            return 0
        busy = Counter(t.request for t in self.session.search.running if t.spec.key in self._started)
        return sum(n - busy[r] for r, n in self._fits.items() if (r.cpus, r.gpus) == (cpus, gpus))

    def __getstate__(self) -> dict[str, Any]:
        """Pickle as nothing: Tune saves its searcher for a resume that we do not use."""
        return {}

    def _finish(self, result: TrialResult, log: str = "") -> None:
        if any(trial.spec.key == result.key for trial in self.session.search.running):
            self.session.finish(result, 1 + self._attempts[result.key], log)

    def _is_affordable(self, request: ResolvedRequest) -> bool:
        """Return whether the budget allows the next trial of a request."""
        search = self.session.search
        trial = next(trial for trial in search.waiting() if trial.request == request)
        return self.session.spending.allows(trial, [t for t in search.running if t.spec.key not in self._started])

    def _ends(self) -> bool:
        """Return whether the sweep drains; say once which budget ended it."""
        reached = self.session.spending.reached
        if reached and not self._has_said_budget:
            self._has_said_budget = True
            n = self.n_in_flight
            self.say(
                f"{reached[0].upper()}{reached[1:]} is reached: finishing {n} {'trial' if n == 1 else 'trials'} in "
                "flight. Run the same command again to go on."
            )
        return self.draining

    def _look_at_cluster(self, waiting: list[ResolvedRequest]) -> None:
        """Share the nodes between the requests, every few seconds and when the requests change."""
        active = list(dict.fromkeys([*waiting, *(trial.request for trial in self.session.search.running)]))
        now = time.monotonic()
        if now - self._looked > _SECONDS_BETWEEN_LOOKS or active != self._shared_between:
            self._looked, self._shared_between = now, active
            nodes = self._cluster.nodes()
            self._fits = share_slots(nodes, active)
            self._say_what_waits({request for request in active if not any(node.fits(request) for node in nodes)})

    def _say_what_waits(self, homeless: set[ResolvedRequest]) -> None:
        """Show each request, once, that no node can serve now: nodes were lost, or are yet to be added."""
        for request in homeless - self._homeless:
            self.say(
                f"waiting: no node has the {request.cpus:g} CPUs and {request.gpus:g} GPUs of a trial now; "
                "the sweep goes on when one joins"
            )
        self._homeless = homeless

    def _room(self, request: ResolvedRequest) -> int:
        """Return how many trials of a request may be handed out; on a joined cluster some wait, to make it grow."""
        fits = self._fits[request]
        return fits if self._cluster.is_embedded else max(2 * fits, 2)

    def _config(self, planned: PlannedTrial) -> dict[str, Any]:
        return {
            "key": planned.spec.key,
            "data_hash": planned.spec.data_fingerprint,
            "trial": planned.spec.model_dump_json(),
            "name": f"{planned.spec.cell} #{planned.suggestion} seed {planned.spec.seed} {planned.spec.phase}",
            "cpus": planned.request.cpus,
            "gpus": planned.request.gpus,
            "device": planned.request.device,
            "threads": planned.request.threads,
            "stop": planned.stop.to_json() if planned.stop is not None else "",
            "diagnostics": self.session.spec.diagnostics,
            "checkpoint": self.session.run.checkpoint_path(planned.spec.key),
        }
