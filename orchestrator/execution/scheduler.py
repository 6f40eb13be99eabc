"""The scheduler: which trial is next, which idle workers are kept, and how a sweep that is to end does."""

from __future__ import annotations

import functools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Protocol

import ray
from ray.exceptions import RayActorError, RayError
from ray.tune import PlacementGroupFactory
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler

from orchestrator.execution import tune_internals
from orchestrator.execution.losses import Losses
from orchestrator.execution.worker import DAMAGED


class SweepControl(Protocol):
    """What the scheduler asks of the sweep.

    While `draining`, trials that have a worker run to their end and no others start. `stopped` ends the sweep at once.
    """

    stopped: type[BaseException] | None

    @property
    def draining(self) -> bool:
        """Return whether no further trial starts."""

    def n_workers_wanted(self, cpus: float, gpus: float) -> int:
        """Return how many idle workers with so many CPUs and GPUs to keep."""

    def has_worker(self, config: dict[str, Any]) -> bool:
        """Return whether the trial of a config has had a worker."""

    def say(self, text: str) -> None:
        """Show a line to the user."""


class KeepWorkers(FIFOScheduler):
    """First in, first out; keeps idle workers for the next batch of suggestions.

    Tune keeps an idle worker only for a trial that is already staged. At the end of each batch it would stop workers
    that the next batch starts again seconds later. It also stops a worker that still starts if an idle one takes over
    its trial.

    Args:
        control: the sweep.
        losses: is shown every lost worker.
    """

    def __init__(self, control: SweepControl, losses: Losses) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._control: SweepControl | None = control
        self.losses = losses
        self._cache: WorkerCache | None = None
        self._starting: tune_internals.StartingWorkers | None = None
        self._controller: Any = None
        self._ended: list[Trial] = []

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """Put our cache in place before the first worker starts."""
        super().on_trial_add(tune_controller, trial)
        if self._control is None or self._cache is not None:
            return
        self._controller = tune_internals.controller_of(tune_controller)
        self._starting = tune_internals.StartingWorkers(self._controller)
        self._cache = WorkerCache(self._control.n_workers_wanted, self._starting.kill)
        tune_internals.replace_cache(self._controller, self._cache)
        tune_internals.watch_losses(self._controller, self.losses.loss, RayActorError)
        tune_internals.check(self._controller)
        if names := tune_internals.missing():
            self._control.say(tune_internals.note_on(names))

    def kill_workers(self) -> None:
        """Kill every worker now: if Tune is stopped, it leaves them, with their CPUs, until the process ends."""
        if self._controller is not None and ray.is_initialized():
            with suppress(RayError):
                tune_internals.kill_workers(self._controller)

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        """Keep no worker whose process may be damaged."""
        self._ended.append(trial)
        if self._cache is not None and result.get(DAMAGED):
            self._cache.damaged.add(tune_internals.worker_of(self._controller, trial))

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """Return the next trial; while the sweep drains, return none and end the trials that wait for a worker.

        Raises:
            Terminated, KeyboardInterrupt: if a signal's handler raised it and C code swallowed it.
        """
        if self._control is None:
            return super().choose_trial_to_run(tune_controller)
        self._ended = [trial for trial in self._ended if not tune_internals.forget_trial(self._controller, trial)]
        if self._control.stopped is not None:
            raise self._control.stopped
        if self._control.draining:
            for trial in tune_controller.get_trials():
                if trial.status == Trial.PENDING and not self._control.has_worker(trial.config):
                    trial.init_local_path()  # Tune makes it as a trial starts, and asks for it as it ends
                    tune_controller.stop_trial(trial)
        chosen: Trial | None = super().choose_trial_to_run(tune_controller)
        if chosen is not None and self._cache is not None and self._starting is not None:
            size: Any = chosen.placement_group_factory
            if self._cache.has_cached_object(size) and self._cache.has_room(size):
                self._starting.keep(chosen, functools.partial(self._cache.cache_object, size))
        return chosen

    def __getstate__(self) -> dict[str, Any]:
        """Pickle without the sweep: Tune saves its scheduler for a resume that we do not use."""
        return self.__dict__ | {
            "_control": None,
            "losses": Losses(),
            "_cache": None,
            "_starting": None,
            "_controller": None,
            "_ended": [],
        }


class WorkerCache:
    """Idle workers, oldest first, by their size: as many as are wanted, and no damaged ones.

    Has the methods that Tune calls of its own cache.

    Args:
        wanted: returns how many idle workers with so many CPUs and GPUs to keep.
        on_flush: called when all are taken at the end.
    """

    def __init__(self, wanted: Callable[[float, float], int], on_flush: Callable[[], None] = lambda: None) -> None:
        self._on_flush = on_flush
        self.damaged: set[Any] = set()
        self._wanted = wanted
        self._idle: defaultdict[PlacementGroupFactory, list[Any]] = defaultdict(list)
        self._n_staged: Counter[PlacementGroupFactory] = Counter()

    @property
    def num_cached_objects(self) -> int:
        """Number of idle workers."""
        return sum(map(len, self._idle.values()))

    @property
    def total_max_objects(self) -> int:
        """Number of staged trials."""
        return self._n_staged.total()

    def increase_max(self, key: PlacementGroupFactory, by: int = 1) -> None:
        """Count trials that Tune stages."""
        self._n_staged[key] += by

    def decrease_max(self, key: PlacementGroupFactory, by: int = 1) -> None:
        """Count trials that are staged no more."""
        self._n_staged[key] -= by

    def has_cached_object(self, key: PlacementGroupFactory) -> bool:
        """Return whether a worker of this size is idle."""
        return bool(self._idle[key])

    def cache_object(self, key: PlacementGroupFactory, obj: Any) -> bool:
        """Keep a worker if fewer than wanted are idle; return whether it is kept."""
        if obj in self.damaged or not self.has_room(key):
            return False
        self._idle[key].append(obj)
        return True

    def has_room(self, key: PlacementGroupFactory) -> bool:
        """Return whether fewer workers of this size are idle than are wanted."""
        return len(self._idle[key]) < self._n_wanted(key)

    def pop_cached_object(self, key: PlacementGroupFactory) -> Any:
        """Take the worker of this size that has been idle longest, None if there is none."""
        return self._idle[key].pop(0) if self._idle[key] else None

    def flush_cached_objects(self, force_all: bool = False) -> Iterator[Any]:
        """Take and yield the workers to stop: those that are wanted no more, or all."""
        for key, workers in self._idle.items():
            n_wanted = 0 if force_all else self._n_wanted(key)
            while len(workers) > n_wanted:
                yield workers.pop(0)
        if force_all:
            self._on_flush()

    def _n_wanted(self, key: PlacementGroupFactory) -> int:
        needed = key.required_resources
        return max(self._wanted(needed.get("CPU", 0.0), needed.get("GPU", 0.0)), 0)
