"""Worker processes: what runs in them, and keeping them between trials."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any

import orchestrator.cluster  # noqa: F401 (first: it sets what Ray reads on import)

import ray  # isort: skip
import torch
from ray import tune
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.tune import PlacementGroupFactory
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler
from ray.tune.utils.object_cache import _ObjectCache

from orchestrator.provenance import Placement
from orchestrator.storage import StoredFile, is_uri, stored_file
from orchestrator.streams import PhaseData
from orchestrator.trial import TrialResult, run_trial, warm_up
from orchestrator.trialspec import TrialSpec
from strategies import STRATEGIES

TrialFunction = Callable[[TrialSpec, PhaseData, Placement, None, Any], TrialResult]
"""Its last argument is the checkpoint: a Path, or a StoredFile in an object store."""

WorkersWanted = Callable[[float, float], int]
"""Returns how many idle workers with so many CPUs and GPUs are worth keeping."""


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
        return {"result": json.dumps(result.to_json()), "done": True}

    def __repr__(self) -> str:
        return f"SweepWorker({self.config['device']})"


def checkpoint_of(address: str) -> Path | StoredFile:
    """Return the file at an address that the driver gave."""
    return stored_file(address) if is_uri(address) else Path(address)


class KeepWorkers(FIFOScheduler):
    """First in, first out; and idle workers are kept for the trials that are to come.

    Tune keeps an idle worker only for a trial that is already staged, so at the end of each batch of suggestions it
    ends workers that the next batch starts anew, seconds later. The cache that decides this is an internal of Tune:
    where a version does not have it, workers are ended and started more often, and nothing else changes.

    Args:
        wanted: how many idle workers of a size to keep.
    """

    def __init__(self, wanted: WorkersWanted) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._wanted: WorkersWanted | None = wanted

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """Put our cache in place before the first worker starts."""
        super().on_trial_add(tune_controller, trial)
        controller = getattr(tune_controller, "_tune_controller", tune_controller)
        cache = getattr(controller, "_actor_cache", None)
        if self._wanted is not None and type(cache) is _ObjectCache:
            controller._actor_cache = _WorkerCache(self._wanted)
            _survive_lost_workers(getattr(controller, "_actor_manager", None))

    def __getstate__(self) -> dict[str, Any]:
        """Pickle without the sweep: Tune saves its scheduler for a resume that we do not use."""
        return self.__dict__ | {"_wanted": None}


def _survive_lost_workers(manager: Any) -> None:
    """Let a worker that is lost in any way fail its trial, which is tried again, and not the sweep.

    Tune's manager of workers knows a worker that died, and raises whatever else Ray says of one: that it was ended
    because its machine ran low on memory, or that its result went with its node. It is an internal of Tune: where a
    version does not have it, such a loss ends the sweep; complete trials are kept all the same.
    """
    failed = getattr(manager, "_actor_task_failed", None)
    if failed is None:
        return

    def fail_trial(tracked_actor_task: Any, exception: Exception) -> None:
        if isinstance(exception, RayError) and not isinstance(exception, RayActorError | RayTaskError):
            exception = RayActorError(error_msg=str(exception))
        failed(tracked_actor_task, exception)

    manager._actor_task_failed = fail_trial


class _WorkerCache(_ObjectCache):
    """Keeps idle workers while their size is wanted."""

    def __init__(self, wanted: WorkersWanted) -> None:
        super().__init__(may_keep_one=False)
        self._wanted = wanted

    def cache_object(self, key: Any, obj: Any) -> bool:
        """Keep `obj` where fewer than wanted are idle; return whether it is kept."""
        if len(self._cached_objects[key]) >= self._n_wanted(key):
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

    def _n_wanted(self, key: PlacementGroupFactory) -> int:
        needed = key.required_resources
        return max(self._wanted(needed.get("CPU", 0.0), needed.get("GPU", 0.0)), 0)
