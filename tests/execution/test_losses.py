"""How a lost worker is counted, and what its trial's row says."""

from __future__ import annotations

import inspect
from types import SimpleNamespace

import pytest
from ray.exceptions import NodeDiedError, OutOfMemoryError, RayActorError, RayError

from orchestrator.execution.losses import MOST_LOST_MACHINES, Losses
from orchestrator.execution.tune_internals import INTERNALS, watch_losses


class StubTrial:
    """A trial of Tune, as far as it is looked at."""

    trial_id = "7"


def seen_by_tune(losses: Losses, *exceptions: Exception) -> list[Exception]:
    """Return the exceptions that reach Tune if the workers of one trial are lost."""
    seen: list[Exception] = []
    manager = SimpleNamespace(_actor_task_failed=lambda tracked_actor_task, exception: seen.append(exception))
    worker = object()
    controller = SimpleNamespace(
        _actor_manager=manager, _actor_to_trial={worker: StubTrial()}, _resetting_trials=set[object]()
    )
    watch_losses(controller, losses.loss, RayActorError)
    for exception in exceptions:
        manager._actor_task_failed(tracked_actor_task=SimpleNamespace(_tracked_actor=worker), exception=exception)
    return seen


def test_any_loss_fails_its_trial_and_not_the_sweep() -> None:
    """Ray ends a worker that runs out of memory with an exception that Tune does not know."""
    losses = Losses()
    (low,) = seen_by_tune(losses, OutOfMemoryError("low on memory"))
    assert isinstance(low, RayActorError)
    assert "low on memory" in str(low)
    assert not low.preempted
    assert losses.reason("7") == "worker lost: low on memory"
    bug = ValueError("a bug")
    assert seen_by_tune(losses, bug) == [bug]
    assert losses.reason("7") == "worker lost: a bug"
    assert Losses().reason("8") == "worker lost: Ray gave no reason"


def test_the_reason_is_a_line_without_names() -> None:
    text = "The actor died unexpectedly before finishing this task.\n\tclass_name: A\n\tpid: 7\nIts process died.\n"
    losses = Losses()
    seen_by_tune(losses, RayActorError(error_msg=text))
    assert losses.reason("7") == "worker lost: Its process died."
    seen_by_tune(losses, RayActorError(error_msg=text + "very long " * 100))
    assert len(losses.reason("7")) < 320


@pytest.mark.parametrize(
    "loss",
    [
        RayActorError(error_msg="The actor died because its node has died. Node Id: 0"),
        RayActorError(error_msg="taken away", preempted=True),
        NodeDiedError("gone"),
    ],
    ids=["node", "preempted", "unreachable"],
)
def test_ten_lost_machines_do_not_count(loss: RayError) -> None:
    losses = Losses()
    seen = seen_by_tune(losses, *[loss] * (MOST_LOST_MACHINES + 2))
    counted = [not error.preempted for error in seen if isinstance(error, RayActorError)]
    assert counted == [False] * MOST_LOST_MACHINES + [True] * 2
    assert losses.reason("7").startswith("worker lost: its machine is gone: ")


def test_tune_has_what_is_hooked() -> None:
    from ray.air.execution._internal.actor_manager import RayActorManager
    from ray.tune.execution.tune_controller import TuneController

    taken = inspect.signature(RayActorManager._actor_task_failed).parameters
    assert list(taken) == ["self", "tracked_actor_task", "exception"]
    assert list(inspect.signature(RayActorManager._actor_start_failed).parameters)[1:] == ["tracked_actor", "exception"]
    source = inspect.getsource(TuneController)
    of_controller = [name for name, internal in INTERNALS.items() if internal.owner.endswith("TuneController")]
    assert len(of_controller) == 12
    for name in of_controller:
        assert f"self.{name}" in source or f"def {name}(" in source, name
