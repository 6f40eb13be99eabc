"""Every private name of Ray that the sweep uses, in one table.

No other module touches one (`tests/execution/test_tune_internals.py` holds that). Each is looked up through `look_up`,
which returns None if this version of Ray lacks it: the feature goes, the sweep says so once, and its tables are the
same.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import ray
from ray.tune import Callback


@dataclass(frozen=True)
class Internal:
    """A private name of Ray.

    Args:
        owner: the module or class that has it.
        purpose: what the sweep uses it for.
        without: what is lost if it is missing, as a clause for the user.
    """

    owner: str
    purpose: str
    without: str


_CONTROLLER = "ray.tune.execution.tune_controller.TuneController"
_MANAGER = "ray.air.execution._internal.actor_manager.RayActorManager"
_IDLE_WORKERS = "idle workers are stopped and started again between batches"
_STARTING_WORKERS = "if trials are shorter than the start of a worker, one worker runs them all"
_ENDED_TRIALS = "the driver's memory, and the time that a trial costs it, grow with the number of trials"
_ENDED = Internal(_CONTROLLER, "forget trials that have ended", _ENDED_TRIALS)
_LOST_WORKERS = "a worker that runs out of memory may end the sweep, and a lost node counts against its trial"

INTERNALS = {
    "_tune_controller": Internal(
        "ray.tune.execution.tune_controller.TrialRunnerWrapper",
        "reach the controller behind what Tune hands to schedulers",
        f"{_IDLE_WORKERS}; {_LOST_WORKERS}",
    ),
    "_actor_cache": Internal(_CONTROLLER, "keep idle workers for the next batch of suggestions", _IDLE_WORKERS),
    "_trial_to_actor": Internal(
        _CONTROLLER,
        "stop the worker whose process a trial's error may have damaged; keep workers that still start",
        f"a worker whose GPU failed runs further trials; {_STARTING_WORKERS}",
    ),
    "_started_actors": Internal(_CONTROLLER, "recognise workers that still start", _STARTING_WORKERS),
    "_actor_failed": Internal(_CONTROLLER, "hand a worker back to Tune once it has started", _STARTING_WORKERS),
    "_remove_actor": Internal(
        _CONTROLLER, "stop a worker that is wanted no more once it has started", _STARTING_WORKERS
    ),
    "_actor_manager": Internal(
        _CONTROLLER,
        "see lost workers before Tune does; kill all workers when the sweep stops",
        f"{_LOST_WORKERS}; a stopped sweep's workers keep their CPUs until the process ends",
    ),
    "_actor_to_trial": Internal(_CONTROLLER, "find the trial of a lost worker", _LOST_WORKERS),
    "_resetting_trials": Internal(
        _CONTROLLER,
        "recognise a worker that died while it was idle, whose loss Tune would count twice",
        "a trial given to a dead idle worker fails without another try",
    ),
    "_trials": _ENDED,
    "_stopped_trials": _ENDED,
    "_trials_to_cache": _ENDED,
    "_trial_metadata": _ENDED,
    "_actor_task_failed": Internal(_MANAGER, "see workers that die at work", _LOST_WORKERS),
    "_actor_start_failed": Internal(_MANAGER, "see workers that die as they start", _LOST_WORKERS),
    "_tracked_actor": Internal(
        "ray.air.execution._internal.tracked_actor_task.TrackedActorTask",
        "find the worker of a failed task",
        _LOST_WORKERS,
    ),
    "_on_error": Internal(
        "ray.air.execution._internal.tracked_actor_task.TrackedActorTask",
        "keep Tune from counting the loss of an idle worker twice",
        "a trial given to a dead idle worker fails without another try",
    ),
    "cleanup": Internal(
        _MANAGER,
        "kill all workers when the sweep stops",
        "a stopped sweep's workers keep their CPUs until the process ends",
    ),
    "TrialProgressCallback": Internal(
        "ray.tune.progress_reporter",
        "keep Tune's own progress off the screen",
        "after Ctrl-C Tune prints a line for each trial that had not started",
    ),
    "print_to_stdstream": Internal(
        "ray._private.worker",
        "drop Ray's messages about dead workers, which the sweep reports in one line",
        "Ray prints a paragraph about each dead worker",
    ),
    "setproctitle": Internal(
        "ray._raylet", "show which trial a worker runs", "the dashboard and `ps` show workers without their trials"
    ),
    "get_max_resources_from_cluster_config": Internal(
        "ray._private.state.state",
        "ask whether an autoscaler can add nodes",
        "a request that no node can serve now waits on a joined cluster instead of being refused",
    ),
}
"""Name -> where it is, what for, and what is lost without it."""

_LOGGERS = ("ray.tune.execution.tune_controller", "ray.tune.tune", "ray.tune.execution.experiment_state")
"""Loggers of Tune that print a traceback if a worker dies, or if Tune cannot save its state, which we do not use."""

_DEAD_WORKER = ("A worker died or was killed", "Raylet is terminated", "The node with node id")
"""Beginnings of Ray's messages about dead workers and nodes."""

hide_all = False
"""Set by a test: no private name is found."""

_missing: dict[str, None] = {}


def look_up(owner: Any, name: str) -> Any:
    """Return the attribute `name` of `owner`, or None if this version of Ray lacks it; `missing` then returns it.

    Args:
        owner: an object or module of Ray; None if it is missing itself.
        name: a key of `INTERNALS`.
    """
    return getattr(owner, name) if has(owner, name) else None


def has(owner: Any, name: str) -> bool:
    """Return whether `owner` has the attribute; `missing` returns it if not."""
    assert name in INTERNALS, f"{name} is not in the table"
    found = not hide_all and hasattr(owner, name)
    if not found:
        _missing[name] = None
    return found


def missing() -> list[str]:
    """Return the names that were looked up in this process and not found."""
    return list(_missing)


def note_on(names: Sequence[str]) -> str:
    """Return a line for the user on names that are missing."""
    losses = dict.fromkeys(loss for name in names for loss in INTERNALS[name].without.split("; "))
    return (
        f"note: Ray {ray.__version__} lacks internals that this sweep uses ({', '.join(names)}). The tables are the "
        f"same, but {'; '.join(losses)}. pyproject.toml names the versions that were tested."
    )


def check(controller: Any) -> None:
    """Look up every name that a controller of Tune has, so that one note names all that are missing."""
    for name, internal in INTERNALS.items():
        if internal.owner == _CONTROLLER:
            has(controller, name)


def controller_of(tune_controller: Any) -> Any:
    """Return the controller behind the wrapper that Tune hands to schedulers, or None."""
    return look_up(tune_controller, "_tune_controller")


def replace_cache(controller: Any, cache: object) -> bool:
    """Put `cache` in the place of Tune's cache of idle workers; return whether that was possible.

    It is not if Tune's has a public method or property that `cache` lacks.
    """
    current = look_up(controller, "_actor_cache")
    if current is None or not {name for name in dir(current) if not name.startswith("_")} <= set(dir(cache)):
        _missing["_actor_cache"] = None
        return False
    controller._actor_cache = cache
    return True


class StartingWorkers:
    """Workers that still start after an idle worker has taken over their trial.

    Tune stops such a worker. If trials are shorter than the start of a worker, no second worker would ever run one.

    Args:
        controller: Tune's, or None.
    """

    _NAMES = ("_trial_to_actor", "_actor_to_trial", "_started_actors", "_actor_failed", "_remove_actor")

    def __init__(self, controller: Any) -> None:
        self._controller = controller
        self._manager = look_up(controller, "_actor_manager")
        self._is_possible = all(has(controller, name) for name in self._NAMES) and self._manager is not None
        self._workers: set[Any] = set()

    def keep(self, trial: Any, keep_idle: Callable[[Any], bool]) -> None:
        """Take from `trial` the worker that starts for it, if there is one.

        Args:
            trial: is about to be given an idle worker.
            keep_idle: called with the worker once it has started; returns whether it is kept.
        """
        if not self._is_possible:
            return
        controller = self._controller
        worker = controller._trial_to_actor.get(trial)
        if worker is None or worker in controller._started_actors or not self._manager.is_actor_started(worker):
            return  # the last waits for room on a node, and is asked for again when it is needed
        del controller._trial_to_actor[trial], controller._actor_to_trial[worker]

        def started(worker: Any) -> None:
            self._workers.discard(worker)
            controller._started_actors.add(worker)
            worker.set_on_error(controller._actor_failed)
            if not keep_idle(worker):
                worker.set_on_error(None)
                controller._remove_actor(worker)

        self._workers.add(worker)
        worker.set_on_start(started)
        worker.set_on_error(lambda worker, exception: self._workers.discard(worker))

    def kill(self) -> None:
        """Kill them all; a worker that still starts has nothing to end in order."""
        while self._workers:
            worker = self._workers.pop()
            for unset in (worker.set_on_start, worker.set_on_stop, worker.set_on_error):
                unset(None)
            self._manager.remove_actor(worker, kill=True)


def worker_of(controller: Any, trial: Any) -> Any:
    """Return Tune's handle of the worker that runs `trial`, or None."""
    return (look_up(controller, "_trial_to_actor") or {}).get(trial)


def forget_trial(controller: Any, trial: Any) -> bool:
    """Drop what Tune keeps of a trial: 25 kB, looked through at every step; return whether it has ended.

    It has if its worker was taken from it too.
    """
    if not trial.is_finished() or worker_of(controller, trial) is not None:
        return False
    for name in ("_trials", "_stopped_trials", "_trials_to_cache"):
        kept = look_up(controller, name)
        if kept is not None and trial in kept:
            kept.remove(trial)
    (look_up(controller, "_trial_metadata") or {}).pop(trial.trial_id, None)
    return True


def watch_losses(controller: Any, loss: Callable[[str, Exception], Exception], died_idle: type[Exception]) -> None:
    """Call `loss` when a worker is lost, before Tune sees the exception, and give Tune what it returns.

    Args:
        controller: Tune's.
        loss: called with the trial's id and the exception.
        died_idle: the exception of a worker that died. If it died while it was idle, Tune would count it for the worker
            and for the reset of its next trial, and take the second for the end of that trial.
    """
    manager, trials = look_up(controller, "_actor_manager"), look_up(controller, "_actor_to_trial")
    resetting = look_up(controller, "_resetting_trials")

    def before(tune_fails: Callable[..., None]) -> Callable[..., None]:
        def fail(*, exception: Exception, **subject: Any) -> None:
            (failed,) = subject.values()  # a worker, or its task
            worker = look_up(failed, "_tracked_actor") if "tracked_actor_task" in subject else failed
            trial = trials.get(worker)
            if trial is not None:
                exception = loss(trial.trial_id, exception)
                if trial in (resetting or ()) and isinstance(exception, died_idle) and has(failed, "_on_error"):
                    resetting.discard(trial)
                    failed._on_error = None
            tune_fails(exception=exception, **subject)

        return fail

    for name in ("_actor_task_failed", "_actor_start_failed"):
        tune_fails = look_up(manager, name)
        if tune_fails is not None and trials is not None:
            setattr(manager, name, before(tune_fails))


def kill_workers(controller: Any) -> None:
    """Kill every worker now: if Tune is stopped, it leaves them, with their CPUs, until the process ends."""
    cleanup = look_up(look_up(controller, "_actor_manager"), "cleanup")
    if cleanup is not None:
        cleanup()


def silent_progress() -> Sequence[Callback]:
    """Return a callback that takes the place of Tune's progress display and prints nothing; none if it is missing."""
    base = look_up(_module("ray.tune.progress_reporter"), "TrialProgressCallback")
    if base is None:
        return ()

    def nothing(*arguments: Any, **info: Any) -> None:
        """Print nothing."""

    hooks = ("on_trial_result", "on_trial_complete", "on_trial_error")
    return (type("Silence", (base,), dict.fromkeys(hooks, nothing))(),)


def can_add_nodes() -> bool:
    """Return whether an autoscaler may add nodes; True, so that nothing is refused, if Ray does not say."""
    state = getattr(_module("ray._private.state"), "state", None)
    ask = look_up(state, "get_max_resources_from_cluster_config")
    return True if ask is None else bool(ask())


def silence_dead_workers() -> None:
    """Keep Ray from printing about dead workers and nodes; its other messages are printed as before."""
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    module = _module("ray._private.worker")
    ray_prints = look_up(module, "print_to_stdstream")
    if ray_prints is None or getattr(ray_prints, "is_ours", False):
        return

    def print_other(data: Any, *arguments: Any, **settings: Any) -> None:
        if not (data.get("pid") == "raylet" and str(data.get("lines", [""])[0]).startswith(_DEAD_WORKER)):
            ray_prints(data, *arguments, **settings)

    print_other.is_ours = True  # type: ignore[attr-defined]
    module.print_to_stdstream = print_other  # type: ignore[union-attr]


def show_as(title: str) -> None:
    """Give this worker's process a title, which the dashboard's list of workers and `ps` show until the task ends."""
    rename = look_up(_module("ray._raylet"), "setproctitle")
    if rename is not None:
        rename(f"ray::{title}")


def _module(name: str) -> ModuleType | None:
    with contextlib.suppress(ImportError):
        return importlib.import_module(name)
    return None
