"""Worker processes: what runs in them, and keeping them between trials."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import ray
import torch
from ray import tune
from ray.exceptions import ActorUnavailableError, NodeDiedError, RayActorError, RayError, RayTaskError
from ray.tune import PlacementGroupFactory
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler
from ray.tune.utils.object_cache import _ObjectCache

from orchestrator.core.placement import Placement
from orchestrator.spec.trial_spec import TrialSpec
from orchestrator.storage.base import StoredFile
from orchestrator.storage.opening import stored_file
from orchestrator.storage.uris import is_uri
from orchestrator.streams.datasets import PhaseData
from orchestrator.trial.protocol import run_trial, warm_up
from orchestrator.trial.result import TrialResult
from strategies import STRATEGIES

TrialFunction = Callable[[TrialSpec, PhaseData, Placement, None, Any], TrialResult]
"""Its last argument is the checkpoint: a Path, or a StoredFile in an object store."""


class SweepControl(Protocol):
    """What the scheduler asks of the sweep: draining lets trials end that have a worker, stopped ends at once."""

    draining: bool
    stopped: type[BaseException] | None

    def n_workers_wanted(self, cpus: float, gpus: float) -> int:
        """Return how many idle workers with so many CPUs and GPUs are worth keeping."""

    def has_worker(self, config: dict[str, Any]) -> bool:
        """Return whether the trial of a config has had a worker."""


SPOILT = "is_spoilt"
"""Field of a result: its worker's process may have been damaged, as by an error of its GPU, and runs no more trials."""

MOST_LOST_MACHINES = 10
"""So many machines may a trial lose in a run before their loss counts as its own."""

_MACHINE = (NodeDiedError, ActorUnavailableError)
_NODE_DIED = "its node has died"
_MOST_CHARACTERS = 300


class SweepWorker(tune.Trainable):
    """A worker process: imports once, runs many trials, one a step."""

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> PlacementGroupFactory:
        """Return what a trial asks for."""
        return PlacementGroupFactory([{"CPU": config["cpus"], "GPU": config["gpus"]}])

    def setup(
        self,
        config: dict[str, Any],
        data: Mapping[str, ray.ObjectRef[PhaseData]] | None = None,
        function: Any = run_trial,
    ) -> None:
        """Remember where the data is; nothing of a trial is kept from one to the next."""
        self._data = data or {}
        self._function = function
        warm_up()

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Accept another trial: `step` reads everything from the config."""
        return True

    def step(self) -> dict[str, Any]:
        """Run the whole trial and return its result as JSON text."""
        spec = TrialSpec.model_validate_json(self.config["trial"])
        STRATEGIES.load_plugin(spec.method)  # the driver's user named it
        placement = Placement(self.config["device"], self.config["threads"])
        torch.set_num_threads(placement.threads)
        data = ray.get(self._data[f"{spec.dataset}/{spec.phase}"])
        result = self._function(spec, data, placement, None, checkpoint_of(self.config["checkpoint"]))
        result.provenance["node_id"] = ray.get_runtime_context().get_node_id()
        return {"result": result.to_json(), "done": True, SPOILT: result.status == "error"}

    def __repr__(self) -> str:
        return f"SweepWorker({self.config['device']})"


def checkpoint_of(address: str) -> Path | StoredFile | None:
    """Return the file at an address that the driver gave, None where its place cannot be opened: it only saves time."""
    try:
        return stored_file(address) if is_uri(address) else Path(address)
    except Exception:  # of whatever library the store has
        return None


class Losses:
    """What Tune is told of workers that are lost, so that each fails its own trial, with a reason, and not the sweep.

    Tune knows a worker that died, and raises whatever else Ray says of one: that it was ended because its machine ran
    low on memory, or that its node is gone. It counts every loss against the trial, except where an autoscaler said
    beforehand that it takes the machine away. A machine that is lost is never the trial's fault, so up to
    `MOST_LOST_MACHINES` of them are not counted. The hooks are internals of Tune: where a version does not have them,
    such a loss ends the sweep, or counts; complete trials are kept all the same.
    """

    def __init__(self) -> None:
        self._reasons: dict[str, str] = {}
        self._n_machines: Counter[str] = Counter()

    def reason(self, trial_id: str) -> str:
        """Return in a line why the last worker of a trial is gone."""
        return f"worker lost: {self._reasons.get(trial_id, 'no reason given')}"

    def watch(self, controller: Any) -> None:
        """Hear of losses before Tune does."""
        manager = getattr(controller, "_actor_manager", None)
        trials = getattr(controller, "_actor_to_trial", None)
        for name in ("_actor_task_failed", "_actor_start_failed"):
            told = getattr(manager, name, None)
            if told is not None and trials is not None:
                setattr(manager, name, self._before(told, trials, getattr(controller, "_resetting_trials", set())))

    def _before(self, told: Callable[..., None], trials: Mapping[Any, Trial], resetting: set[Trial]) -> Any:
        def hear(*, exception: Exception, **subject: Any) -> None:
            (worker,) = subject.values()  # the worker, or a task of its
            trial = trials.get(getattr(worker, "_tracked_actor", worker))
            if trial is not None:
                exception = self.loss(trial.trial_id, exception)
                if trial in resetting and isinstance(exception, RayActorError):
                    # It died while it was idle. Tune would count that twice, and take the second for the trial's end.
                    resetting.discard(trial)
                    worker._on_error = None
            told(exception=exception, **subject)

        return hear

    def loss(self, trial_id: str, exception: Exception) -> Exception:
        """Remember why the worker of a trial is lost, and return what Tune is to be told of it."""
        if not isinstance(exception, RayError) or isinstance(exception, RayTaskError):
            self._reasons[trial_id] = str(exception).strip().rpartition("\n")[2] or type(exception).__name__
            return exception
        text = str(exception)
        is_machine = getattr(exception, "preempted", False) or isinstance(exception, _MACHINE) or _NODE_DIED in text
        self._n_machines[trial_id] += is_machine
        self._reasons[trial_id] = ("its machine is gone: " if is_machine else "") + _said(text)
        return RayActorError(
            error_msg=text,
            actor_init_failed=getattr(exception, "actor_init_failed", False),
            preempted=is_machine and self._n_machines[trial_id] <= MOST_LOST_MACHINES,
        )


def _said(text: str) -> str:
    """Return what Ray says of a loss in a line: without its heading and the actor's names."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("\t")]
    told = " ".join(lines[1:] if text.startswith("The actor died unexpectedly") and len(lines) > 1 else lines)
    return told if len(told) <= _MOST_CHARACTERS else told[: _MOST_CHARACTERS - 1].rstrip() + "…"


class KeepWorkers(FIFOScheduler):
    """First in, first out; idle workers are kept for the trials that are to come; an interrupt ends what waits.

    Tune keeps an idle worker only for a trial that is already staged, so at the end of each batch of suggestions it
    ends workers that the next batch starts anew, seconds later. And where an idle worker takes over the trial of one
    that still starts, Tune ends that one: where trials are shorter than a start, no second worker would ever work. What
    decides both is internal to Tune: where a version does not have it, workers are ended and started more often, and
    nothing else changes.

    Args:
        control: the sweep.
        losses: hears of workers that are lost.
    """

    def __init__(self, control: SweepControl, losses: Losses) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._control: SweepControl | None = control
        self.losses = losses
        self._cache: _WorkerCache | None = None
        self._manager: Any = None

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """Put our cache in place before the first worker starts."""
        super().on_trial_add(tune_controller, trial)
        controller = _inner(tune_controller)
        cache = getattr(controller, "_actor_cache", None)
        self._manager = getattr(controller, "_actor_manager", None)
        if self._control is not None and type(cache) is _ObjectCache:
            controller._actor_cache = self._cache = _WorkerCache(self._control.n_workers_wanted, self._manager)
            self.losses.watch(controller)

    def end_workers(self) -> None:
        """Kill every worker now: where Tune is stopped it leaves them, with their CPUs, to the end of the process."""
        cleanup = getattr(self._manager, "cleanup", None)
        if cleanup is not None and ray.is_initialized():
            with suppress(RayError):
                cleanup()

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        """Keep no worker whose process may be damaged."""
        controller = _inner(tune_controller)
        if self._cache is not None and result.get(SPOILT):
            self._cache.spoilt.add(getattr(controller, "_trial_to_actor", {}).get(trial))

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """Return the next trial; once the sweep is to end, none, and end those that wait for a worker.

        Raises:
            Terminated, KeyboardInterrupt: where a signal came and what its handler raised was swallowed on its way.
        """
        if self._control is not None and self._control.stopped is not None:
            raise self._control.stopped
        if self._control is not None and self._control.draining:
            for trial in tune_controller.get_trials():
                if trial.status == Trial.PENDING and not self._control.has_worker(trial.config):
                    trial.init_local_path()  # Tune asks each trial at its end for a folder, which it makes at the start
                    tune_controller.stop_trial(trial)
        chosen: Trial | None = super().choose_trial_to_run(tune_controller)
        if chosen is not None and self._cache is not None:
            self._cache.keep_starting(_inner(tune_controller), chosen)
        return chosen

    def __getstate__(self) -> dict[str, Any]:
        """Pickle without the sweep: Tune saves its scheduler for a resume that we do not use."""
        return self.__dict__ | {"_control": None, "losses": Losses(), "_cache": None, "_manager": None}


def _inner(tune_controller: Any) -> Any:
    """Return the controller in what Tune wraps it in for schedulers."""
    return getattr(tune_controller, "_tune_controller", tune_controller)


_OF_THE_CONTROLLER = ("_trial_to_actor", "_actor_to_trial", "_started_actors", "_actor_failed", "_remove_actor")
"""What a worker that starts is taken from its trial with."""


class _WorkerCache(_ObjectCache):
    """Keeps idle workers while their size is wanted, and none that is spoilt; and those whose trial an idle one took.

    Args:
        wanted: how many idle workers with so many CPUs and GPUs to keep.
        manager: Tune's, of the workers.
    """

    def __init__(self, wanted: Callable[[float, float], int], manager: Any) -> None:
        super().__init__(may_keep_one=False)
        self._wanted = wanted
        self._manager = manager
        self._starting: set[Any] = set()
        self.spoilt: set[Any] = set()

    def cache_object(self, key: Any, obj: Any) -> bool:
        """Keep `obj` where fewer than wanted are idle; return whether it is kept."""
        if obj in self.spoilt or len(self._cached_objects[key]) >= self._n_wanted(key):
            return False
        self._cached_objects[key].append(obj)
        self._num_cached_objects += 1
        return True

    def flush_cached_objects(self, force_all: bool = False) -> Generator[Any, None, None]:
        """Yield the workers that are to be ended: those no longer wanted, or all."""
        for key, objects in self._cached_objects.items():
            n_wanted = 0 if force_all else self._n_wanted(key)
            while len(objects) > n_wanted:
                self._num_cached_objects -= 1
                yield objects.pop(0)
        while force_all and self._starting:
            worker = self._starting.pop()
            for unset in (worker.set_on_start, worker.set_on_stop, worker.set_on_error):
                unset(None)
            self._manager.remove_actor(worker, kill=True)  # it has nothing to end in order, and would start first

    def keep_starting(self, controller: Any, trial: Trial) -> None:
        """Take from `trial` the worker that starts for it, where an idle one is there to run it now.

        Args:
            controller: Tune's, which is about to give `trial` the idle one.
            trial: has no worker, or one that starts, or one that runs it soon.
        """
        if not all(hasattr(controller, name) for name in _OF_THE_CONTROLLER):
            return
        size: Any = trial.placement_group_factory
        worker = controller._trial_to_actor.get(trial)
        if worker is None or worker in controller._started_actors or not self._manager.is_actor_started(worker):
            return  # the last is of a worker that waits for room on a node: it is asked for again when it is needed
        if not 0 < len(self._cached_objects[size]) < self._n_wanted(size):
            return
        del controller._trial_to_actor[trial], controller._actor_to_trial[worker]

        def started(worker: Any) -> None:
            self._starting.discard(worker)
            controller._started_actors.add(worker)
            worker.set_on_error(controller._actor_failed)
            if not self.cache_object(size, worker):
                worker.set_on_error(None)
                controller._remove_actor(worker)

        self._starting.add(worker)
        worker.set_on_start(started)
        worker.set_on_error(lambda worker, exception: self._starting.discard(worker))

    def _n_wanted(self, key: PlacementGroupFactory) -> int:
        needed = key.required_resources
        return max(self._wanted(needed.get("CPU", 0.0), needed.get("GPU", 0.0)), 0)
