"""Named points between the writes of a run at which a test can make the process die.

With `CONTINUAL_SWEEP_KILL_AT=POINT#N` in the environment, the process kills itself with SIGKILL when it reaches POINT
for the N-th time, like a crash. Without the variable a point costs one comparison.
"""

from __future__ import annotations

import os
import signal

VARIABLE = "CONTINUAL_SWEEP_KILL_AT"

POINTS = (
    *(
        f"{purpose}.{step}"
        for purpose in ("spec", "row", "merged", "checkpoint", "suggestions", "answer", "report")
        for step in ("opened", "written", "replaced", "done")
    ),
    "trial.measured",
    "trial.committed",
    "delete.next",
    "delete.done",
    "tidy.next",
    "compact.made",
    "compact.kept",
    "compact.merged",
    "compact.checked",
    "compact.swapped",
    "compact.synced",
    "compact.removed",
)
"""All points: of each kind of write (temporary file opened, content on disk, name replaced, folder synced), of a trial
(accuracy written, row written), of deleting, of tidying up, and of compaction in its order."""


def _wanted() -> tuple[str, int] | None:
    text = os.environ.get(VARIABLE, "")
    if not text:
        return None
    point, _, number = text.partition("#")
    if point not in POINTS or not (number or "1").isdigit():
        raise ValueError(f"{VARIABLE}: expected POINT#N with a point of {', '.join(POINTS)}, got '{text}'; correct it")
    return point, int(number or 1)


_KILL_AT = _wanted()
_passed = 0


def reached(point: str) -> None:
    """Count a pass through `point`, and die here if the environment asks for it."""
    global _passed
    if _KILL_AT is None or _KILL_AT[0] != point:
        return
    _passed += 1
    if _passed == _KILL_AT[1]:
        os.kill(os.getpid(), signal.SIGKILL)
