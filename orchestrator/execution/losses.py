"""Lost workers: each fails its own trial, with a reason, and never the sweep."""

from __future__ import annotations

from collections import Counter

from ray.exceptions import ActorUnavailableError, NodeDiedError, RayActorError, RayError, RayTaskError

MOST_LOST_MACHINES = 10
"""A trial may lose this many machines in a run before their loss counts as its own failure."""

_MACHINE = (NodeDiedError, ActorUnavailableError)
_NODE_DIED = "its node has died"
_MOST_CHARACTERS = 300


class Losses:
    """Translates the exceptions of lost workers for Tune, and remembers the reasons.

    Tune handles a worker that died. It raises any other exception, such as those of a worker that ran out of memory or
    of a lost node, and that would end the sweep. It also counts every loss against the trial, unless an autoscaler
    announced it. A lost machine is never the trial's fault, so up to `MOST_LOST_MACHINES` of them are not counted.
    """

    def __init__(self) -> None:
        self._reasons: dict[str, str] = {}
        self._n_machines: Counter[str] = Counter()

    def reason(self, trial_id: str) -> str:
        """Return in a line why the last worker of a trial was lost."""
        return f"worker lost: {self._reasons.get(trial_id, 'Ray gave no reason')}"

    def loss(self, trial_id: str, exception: Exception) -> Exception:
        """Remember why the worker of a trial was lost, and return the exception that Tune is to handle."""
        if not isinstance(exception, RayError) or isinstance(exception, RayTaskError):
            self._reasons[trial_id] = str(exception).strip().rpartition("\n")[2] or type(exception).__name__
            return exception
        text = str(exception)
        is_machine = getattr(exception, "preempted", False) or isinstance(exception, _MACHINE) or _NODE_DIED in text
        self._n_machines[trial_id] += is_machine
        self._reasons[trial_id] = ("its machine is gone: " if is_machine else "") + in_a_line(text)
        return RayActorError(
            error_msg=text,
            actor_init_failed=getattr(exception, "actor_init_failed", False),
            preempted=is_machine and self._n_machines[trial_id] <= MOST_LOST_MACHINES,
        )


def in_a_line(text: str) -> str:
    """Return Ray's message about a loss in one line, without its heading and the actor's names."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("\t")]
    line = " ".join(lines[1:] if text.startswith("The actor died unexpectedly") and len(lines) > 1 else lines)
    return line if len(line) <= _MOST_CHARACTERS else line[: _MOST_CHARACTERS - 1].rstrip() + "…"
