"""The sweep on Ray Tune: one Tuner, our searcher, reused workers. What decides is in `session` and `search`."""

from __future__ import annotations

import shutil
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import ray
from ray import tune
from ray.tune import Callback, CheckpointConfig, FailureConfig, RunConfig
from ray.tune.experiment import Trial
from ray.tune.progress_reporter import TrialProgressCallback
from ray.tune.search import Searcher

from orchestrator.core.errors import OrchestratorError, StorageError
from orchestrator.core.signals import Terminated, terminate
from orchestrator.execution.capacity import GpuPrecedence, share_slots
from orchestrator.execution.cluster import Cluster
from orchestrator.execution.session import Session
from orchestrator.execution.worker import KeepWorkers, Losses, SweepWorker, TrialFunction
from orchestrator.search.cell_search import PlannedTrial
from orchestrator.spec.fields import ResolvedRequest
from orchestrator.spec.trial_spec import TrialSpec
from orchestrator.streams.datasets import PhaseData
from orchestrator.streams.facts import Phase
from orchestrator.trial.protocol import run_trial
from orchestrator.trial.result import TrialResult

MAX_RETRIES = 2
"""How often a trial is tried again in the same run after its worker died; a machine that is lost does not count."""

_SECONDS_BETWEEN_LOOKS = 2.0


class TuneSearcher(Searcher):
    """Hands the session's waiting trials to Tune, no more of a kind than the cluster has room for.

    Args:
        session: the sweep.
        cluster: where it runs.
        on_event: told, in a line, of a trial that is tried again because its worker died, and of trials that wait for
            a node.
    """

    def __init__(self, session: Session, cluster: Cluster, on_event: Callable[[str], None] = lambda text: None) -> None:
        super().__init__(metric=None, mode=None)
        self.session = session
        self.draining = False
        self.stopped: type[BaseException] | None = None
        self._cluster = cluster
        self._on_event = on_event
        self._attempts: Counter[str] = Counter()
        self._started: set[str] = set()
        self._fits: Mapping[ResolvedRequest, int] = {}
        self._precedence = GpuPrecedence()
        self._looked = 0.0
        self._shared_between: list[ResolvedRequest] = []
        self._homeless: set[ResolvedRequest] = set()

    def suggest(self, trial_id: str) -> Any:
        """Return the next trial's config, None for 'not now', or FINISHED."""
        search = self.session.search
        if self.draining or search.is_finished:
            return Searcher.FINISHED
        waiting = sorted(search.waiting_requests(), key=lambda request: -request.gpus)
        self._look_at_cluster(waiting)
        held = self._precedence.holds_cpu_trials(search.running, self._started, self._fits, time.monotonic())
        for request in waiting:
            if held and request.gpus == 0:
                continue
            if search.n_running(request) < self._room(request) or not search.running:
                return self._config(search.hand_out(request))
        return None

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Write and record a trial that ended; failures arrive through `SweepCallback`, which knows the reason."""
        if result is None or error or "result" not in result:
            return
        content = TrialResult.from_json(result["result"])
        self.guard(lambda: self._finish(content))

    def record_error(self, config: dict[str, Any], reason: str) -> None:
        """Record that a trial's worker died more often than is tried again."""
        spec = TrialSpec.model_validate_json(config["trial"])
        provenance = {
            "device": config["device"],
            "threads": config["threads"],
            "data_hash": spec.data_fingerprint,
        }
        self.guard(lambda: self._finish(TrialResult(spec.key, "error", reason, provenance=provenance)))

    def count_attempt(self, config: dict[str, Any], reason: str) -> None:
        """Count a failed attempt that Tune tries again, and say it."""
        self._attempts[TrialSpec.model_validate_json(config["trial"]).key] += 1
        self._on_event(f"tried again: {config['name']}: {reason}")

    def has_worker(self, config: dict[str, Any]) -> bool:
        """Return whether a trial has had a worker."""
        return TrialSpec.model_validate_json(config["trial"]).key in self._started

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
        self._started.add(TrialSpec.model_validate_json(config["trial"]).key)

    def guard(self, action: Callable[[], None]) -> None:
        """Run `action`; a fault ends the sweep in order, for an exception here would corrupt Tune's bookkeeping."""
        try:
            action()
        except Exception as error:
            if self.session.fault is None:
                self.session.fault = error
            self.draining = True

    def save(self, checkpoint_path: str) -> None:
        """Save nothing: the tables are the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Restore nothing: a new run replays the tables."""

    def n_workers_wanted(self, cpus: float, gpus: float) -> int:
        """Return how many workers of a size to keep while they are idle: its slots less those that are busy."""
        if self.draining:
            return 0
        busy = Counter(t.request for t in self.session.search.running if t.spec.key in self._started)
        return sum(n - busy[r] for r, n in self._fits.items() if (r.cpus, r.gpus) == (cpus, gpus))

    def __getstate__(self) -> dict[str, Any]:
        """Pickle as nothing: Tune saves its searcher for a resume that we do not use."""
        return {}

    def _finish(self, result: TrialResult) -> None:
        if any(trial.spec.key == result.key for trial in self.session.search.running):
            self.session.finish(result, 1 + self._attempts[result.key])

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
        """Say of each request, once, that no node can serve it now: nodes were lost, or are yet to be added."""
        for request in homeless - self._homeless:
            self._on_event(
                f"waiting: no node has the {request.cpus:g} CPUs and {request.gpus:g} GPUs of a trial now; "
                "the sweep goes on when one joins"
            )
        self._homeless = homeless

    def _room(self, request: ResolvedRequest) -> int:
        """Return how many trials of a request to have handed out; some wait if that can add nodes."""
        fits = self._fits[request]
        return fits if self._cluster.is_embedded else max(2 * fits, 2)

    def _config(self, planned: PlannedTrial) -> dict[str, Any]:
        return {
            "trial": planned.spec.model_dump_json(),
            "name": f"{planned.spec.cell} #{planned.suggestion} seed {planned.spec.seed} {planned.spec.phase}",
            "cpus": planned.request.cpus,
            "gpus": planned.request.gpus,
            "device": planned.request.device,
            "threads": planned.request.threads,
            "checkpoint": self.session.run.checkpoint_path(planned.spec.key),
        }


class SweepCallback(Callback):
    """Tells the searcher of workers that start and die, with the reason that Tune does not hand to searchers."""

    def __init__(self, searcher: TuneSearcher, losses: Losses) -> None:
        self._searcher = searcher
        self._losses = losses

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Note that the trial has a worker."""
        self._searcher.guard(lambda: self._searcher.note_start(trial.config))

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Count the failed attempt, and say it."""
        self._searcher.guard(lambda: self._searcher.count_attempt(trial.config, self._losses.reason(trial.trial_id)))

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Record the error."""
        self._searcher.guard(lambda: self._searcher.record_error(trial.config, self._losses.reason(trial.trial_id)))


class _Silence(TrialProgressCallback):
    """Stands where Tune would put its own, which prints a line for each trial that an interrupt takes back."""

    def on_trial_result(self, *arguments: Any, **info: Any) -> None:
        """Print nothing."""

    def on_trial_complete(self, *arguments: Any, **info: Any) -> None:
        """Print nothing."""

    def on_trial_error(self, *arguments: Any, **info: Any) -> None:
        """Print nothing."""


def run_on_ray(
    session: Session,
    cluster: Cluster,
    on_drain: Callable[[int], None] = lambda n: None,
    function: TrialFunction = run_trial,
    on_event: Callable[[str], None] = lambda text: None,
) -> None:
    """Run every trial that the session's search asks for; returns when none is left.

    Args:
        session: the sweep.
        cluster: where it runs.
        on_drain: told the number of trials in flight when an interrupt stops new ones.
        function: what a worker runs.
        on_event: told, in a line, of a trial that is tried again because its worker died, and of trials that wait for
            a node.

    Raises:
        OrchestratorError: the fault that ended the sweep early, such as a full disk.
        Terminated: at SIGTERM.
        KeyboardInterrupt: at the second interrupt.
    """
    if session.search.is_finished:
        return
    cluster.check(trial.request for trial in session.search.waiting())
    searcher = TuneSearcher(session, cluster, on_event)
    scheduler, scratch = KeepWorkers(searcher, Losses()), None
    try:
        scratch = tempfile.mkdtemp(prefix="continual-sweep-")
        tuner = _tuner(session, searcher, scheduler, function, scratch)
        with _interrupts(searcher, on_drain):
            tuner.fit()
    except BaseException as error:
        if not cluster.is_embedded:  # else they end with it
            scheduler.end_workers()
        if searcher.stopped:  # Ray turns what a signal's handler raises into a SystemExit of its own, or swallows it
            raise searcher.stopped from error
        if isinstance(error, Exception) and (session.fault is not None or searcher.has_ended):
            pass  # what Tune says after a fault, or cannot keep of a run that has ended, where its folder is full
        elif isinstance(error, OSError) and not isinstance(error, ConnectionError | TimeoutError):
            raise _no_room_for_ray(error) from error
        else:
            raise
    finally:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)
    if searcher.stopped:
        raise searcher.stopped
    _raise_fault(session.fault)


def _tuner(
    session: Session, searcher: TuneSearcher, scheduler: KeepWorkers, function: TrialFunction, scratch: str
) -> tune.Tuner:
    """Return Tune, set up to do nothing but hand trials to workers: search, tables and display are ours."""
    worker = tune.with_parameters(SweepWorker, data=_put_data(session), function=function)
    worker.__qualname__ = SweepWorker.__qualname__  # the name that the dashboard shows
    return tune.Tuner(
        worker,
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=scheduler,
            num_samples=session.search.n_expected,
            reuse_actors=True,
            trial_name_creator=lambda trial: trial.config["name"],
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=RunConfig(
            name="tune",
            storage_path=scratch,
            verbose=0,
            failure_config=FailureConfig(max_failures=MAX_RETRIES),
            checkpoint_config=CheckpointConfig(checkpoint_at_end=False),
            callbacks=[SweepCallback(searcher, scheduler.losses), _Silence()],
        ),
    )


def _no_room_for_ray(error: OSError) -> StorageError:
    return StorageError(
        f"temporary folder: expected one that Ray can write to, got '{tempfile.gettempdir()}' ({error}); complete "
        "trials are kept: free space, or set TMPDIR and RAY_TMPDIR, and run the same command again"
    )


def _raise_fault(fault: Exception | None) -> None:
    """Raise what ended the sweep early; what is not the user's to mend is a bug."""
    if isinstance(fault, OrchestratorError):
        raise fault
    if fault is not None:
        raise RuntimeError("a bug in the orchestrator ended the sweep; complete trials are kept") from fault


def _put_data(session: Session) -> dict[str, ray.ObjectRef[PhaseData]]:
    """Put the arrays of each data set and phase into the object store, once; each node fetches what it needs."""
    phases: list[Phase] = ["search", "confirm"] if session.spec.seeds.of("search") else ["confirm"]
    return {
        f"{name}/{phase}": ray.put(session.phase_data(name, phase)) for name in session.datasets for phase in phases
    }


@contextmanager
def _interrupts(searcher: TuneSearcher, on_drain: Callable[[int], None]) -> Iterator[None]:
    """Let the first Ctrl-C finish the trials in flight, and the second, or SIGTERM, stop now."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def on_interrupt(signum: int, frame: object) -> None:
        if searcher.draining:
            searcher.stopped = KeyboardInterrupt
            raise KeyboardInterrupt
        searcher.draining = True
        on_drain(searcher.n_in_flight)

    def on_terminate(signum: int, frame: object) -> None:
        searcher.draining, searcher.stopped = True, Terminated
        terminate(signum, frame)

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, on_interrupt)
    signal.signal(signal.SIGTERM, on_terminate)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
