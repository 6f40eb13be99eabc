"""The sweep on Ray Tune: one Tuner, our searcher, reused workers. Decisions are made in `session` and `search`."""

from __future__ import annotations

import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray import tune
from ray.tune import Callback, CheckpointConfig, FailureConfig, RunConfig
from ray.tune.experiment import Trial

from orchestrator.core.errors import OrchestratorError, StorageError, system_message
from orchestrator.core.signals import Terminated, terminate
from orchestrator.execution.cluster import Cluster
from orchestrator.execution.losses import Losses
from orchestrator.execution.scheduler import KeepWorkers
from orchestrator.execution.searcher import TuneSearcher
from orchestrator.execution.session import Session
from orchestrator.execution.tune_internals import silent_progress
from orchestrator.execution.worker import SweepWorker, TrialFunction
from orchestrator.streams.datasets import PhaseData, TrainingData
from orchestrator.trial.protocol import run_trial

MAX_RETRIES = 2
"""How often a trial is tried again in the same run after its worker died; the loss of a machine does not count."""


class SweepCallback(Callback):
    """Passes workers that start and die on to the searcher, with the reason, which Tune does not give to searchers."""

    def __init__(self, searcher: TuneSearcher, losses: Losses) -> None:
        self._searcher = searcher
        self._losses = losses

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Note that the trial has a worker."""
        self._searcher.guard(lambda: self._searcher.note_start(trial.config))

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Count the failed attempt, and show it."""
        self._searcher.guard(lambda: self._searcher.count_attempt(trial.config, self._losses.reason(trial.trial_id)))

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._searcher.guard(lambda: self._searcher.record_error(trial.config, self._losses.reason(trial.trial_id)))


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
        on_drain: called with the number of trials in flight when an interrupt stops new ones.
        function: what a worker runs.
        on_event: shows a line to the user: a trial is tried again because its worker died, trials wait for a node, or
            Ray lacks an internal.

    Raises:
        OrchestratorError: the fault that ended the sweep early, such as a full disk.
        Terminated: on SIGTERM.
        KeyboardInterrupt: on the second interrupt.
    """
    if session.search.is_finished:
        return
    cluster.check(trial.request for trial in session.search.waiting())
    searcher = TuneSearcher(session, cluster, on_event)
    scheduler, scratch = KeepWorkers(searcher, Losses()), None
    session.count_workers = lambda: searcher.n_in_flight
    try:
        scratch = tempfile.mkdtemp(prefix="continual-sweep-")
        tuner = _tuner(session, searcher, scheduler, function, scratch)
        with _interrupts(searcher, on_drain):
            tuner.fit()
    except BaseException as error:
        if not cluster.is_embedded:  # an embedded cluster ends with its workers
            scheduler.kill_workers()
        if searcher.stopped:  # Ray swallows what a signal's handler raises, or raises a SystemExit of its own instead
            raise searcher.stopped from error
        if isinstance(error, Exception) and (session.fault is not None or searcher.has_ended):
            pass  # a consequence of the fault; or the sweep has ended, and only Tune's own folder is full
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
            callbacks=[SweepCallback(searcher, scheduler.losses), *silent_progress()],
        ),
    )


def _no_room_for_ray(error: OSError) -> StorageError:
    return StorageError(
        f"{system_message('write to', tempfile.gettempdir(), error)} Complete trials are kept. Free space, or set "
        "TMPDIR and RAY_TMPDIR to another folder, and run the same command again."
    )


def _raise_fault(fault: Exception | None) -> None:
    """Raise the fault that ended the sweep early; one that is not an OrchestratorError is a bug."""
    if isinstance(fault, OrchestratorError):
        raise fault
    if fault is not None:
        raise RuntimeError("A bug in the orchestrator ended the sweep. Complete trials are kept.") from fault


def _put_data(session: Session) -> dict[str, ray.ObjectRef[TrainingData | PhaseData]]:
    """Put the arrays of each data set into the object store, once; each node fetches what it needs."""
    return {name: ray.put(arrays) for name, arrays in session.data()}


@contextmanager
def _interrupts(searcher: TuneSearcher, on_drain: Callable[[int], None]) -> Iterator[None]:
    """Let the first Ctrl-C finish the trials in flight, and the second, or SIGTERM, stop now."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def on_interrupt(signum: int, frame: object) -> None:
        if searcher.told_to_drain:
            searcher.stopped = KeyboardInterrupt
            raise KeyboardInterrupt
        searcher.told_to_drain = True
        on_drain(searcher.n_in_flight)

    def on_terminate(signum: int, frame: object) -> None:
        searcher.told_to_drain, searcher.stopped = True, Terminated
        terminate(signum, frame)

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, on_interrupt)
    signal.signal(signal.SIGTERM, on_terminate)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
