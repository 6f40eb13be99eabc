"""A stop inside of a task, for tests."""

from __future__ import annotations

from collections.abc import Callable

from tiny_worlds import learn_tasks, make_task, through_a_file

from strategies import Learner


class _StopError(Exception):
    """Thrown between two steps."""


def resumed_inside(fresh: Callable[[], Learner], task: int, n_steps: int) -> tuple[Learner, Learner]:
    """Return a learner of three tasks that never stopped, and one stopped and loaded after `n_steps` of `task`."""
    stopped, left = learn_tasks(fresh(), range(task)), [n_steps]

    def stop() -> None:
        left[0] -= 1
        if left[0] == 0:
            raise _StopError

    try:
        stopped.learn(make_task(task, stopped.layout.incremental_type), between_steps=stop)
    except _StopError:
        state = through_a_file(stopped.state_dict())
    resumed = fresh()
    resumed.load_state_dict(state)
    assert resumed.inside_task
    return learn_tasks(fresh(), range(3)), learn_tasks(resumed, range(task, 3))
