"""The values of `--log-to`: which tracker, and where."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from orchestrator.core.errors import MissingExtraError, UsageError

if TYPE_CHECKING:
    from orchestrator.execution.monitoring.trackers.records import Tracker

_FORMS = "mlflow:URI, tensorboard:DIR or wandb"
_PACKAGES = {"mlflow": "mlflow", "tensorboard": "tensorboard", "wandb": "wandb"}


@dataclass(frozen=True)
class Target:
    """A tracker and where it is.

    Args:
        kind: `mlflow`, `tensorboard` or `wandb`.
        place: a URI, a folder, or nothing.
    """

    kind: str
    place: str = ""

    @property
    def shown(self) -> str:
        """Return how messages call it."""
        return f"{self.kind}:{self.shown_place}" if self.place else self.kind

    @property
    def shown_place(self) -> str:
        """Return where it is, without a user and a password."""
        parts = urlsplit(self.place)
        return (
            parts._replace(netloc=f"…@{parts.netloc.rpartition('@')[2]}").geturl()
            if "@" in parts.netloc
            else self.place
        )


def parse_targets(texts: Sequence[str]) -> tuple[Target, ...]:
    """Return the targets that texts name, each once.

    Raises:
        UsageError: if one names none, with every fault.
        MissingExtraError: if the packages that one needs are not installed.
    """
    faults, found = [], []
    for text in texts:
        kind, _, place = text.strip().partition(":")
        if kind == "mlflow" and not place:
            place = os.environ.get("MLFLOW_TRACKING_URI", "")
        if kind not in _PACKAGES:
            faults.append(f"--log-to: expected {_FORMS}, got '{text}'")
        elif kind == "mlflow" and not place:
            faults.append("--log-to: expected mlflow:URI, such as mlflow:http://localhost:5000, got 'mlflow' alone")
        elif kind == "tensorboard" and not place:
            faults.append("--log-to: expected tensorboard:DIR, such as tensorboard:tb, got no folder")
        elif kind == "wandb" and place:
            faults.append(f"--log-to: expected wandb alone, got '{text}'; its folder is that of WANDB_DIR")
        else:
            found.append(Target(kind, place))
    if faults:
        raise UsageError(*faults)
    for target in found:
        if importlib.util.find_spec(_PACKAGES[target.kind]) is None:
            raise MissingExtraError(f"--log-to {target.kind}", target.kind)
    return tuple(dict.fromkeys(found))


def open_tracker(target: Target) -> Tracker:
    """Return the tracker of a target, whose packages are imported now."""
    if target.kind == "mlflow":
        from orchestrator.execution.monitoring.trackers.mlflow_runs import MlflowTracker

        return MlflowTracker(target.place)
    if target.kind == "tensorboard":
        from orchestrator.execution.monitoring.trackers.tensorboard_events import TensorboardTracker

        return TensorboardTracker(target.place)
    from orchestrator.execution.monitoring.trackers.wandb_runs import WandbTracker

    return WandbTracker()
