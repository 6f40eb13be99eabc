"""A sweep as TensorBoard's event files: a folder for each suggestion, with the events of each of its trials."""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from orchestrator.execution.monitoring.trackers.records import EndRecord, SweepRecord, TrialRecord

_OTHER = re.compile(r"[^\w\-.+=]|^\.+$")
_KEY = re.compile(r"\.([0-9a-f]{16})$")


class TensorboardTracker:
    """Writes event files. Those of a trial appear whole, with its key in their names, so that none is written twice.

    Args:
        folder: which TensorBoard is pointed at; the sweep has a folder in it.
    """

    def __init__(self, folder: str) -> None:
        self._root = self._sweep = Path(folder).expanduser()

    def begin(self, sweep: SweepRecord) -> set[str]:
        """Make the folder of the sweep; return the keys of the trials that it has."""
        self._sweep = self._root / f"{_safe(sweep.name)}-{sweep.id[:6]}"
        self._sweep.mkdir(parents=True, exist_ok=True)
        return {found[1] for file in self._sweep.rglob("*tfevents*") if (found := _KEY.search(file.name))}

    def log(self, trial: TrialRecord, means: Mapping[str, float], n_seeds: int) -> None:
        """Add a trial; the step of a value is the number of tasks learned, that of a mean the number of seeds."""
        folder = self._sweep / _safe(trial.cell) / f"{trial.suggestion:03d}-{trial.group[:6]}"
        suffix = "" if trial.status == "error" else f".{trial.key}"  # the next run tries an error again
        with _writing(folder, suffix) as writer:
            for n_learned, values in enumerate(trial.boundaries):
                for name, value in values.items():
                    writer.add_scalar(f"{trial.split}/seed {trial.seed}/{name}", value, n_learned)
            shown = {f"{trial.split}/{name}": value for name, value in means.items()}
            settings = {name: value if isinstance(value, bool | int | float) else str(value)
                        for name, value in trial.hyperparameters.items()}  # fmt: skip
            writer.add_hparams({"method": trial.method, **settings}, shown, run_name=".", global_step=n_seeds)
            said = f"{trial.status} {trial.reason}".strip()
            writer.add_text(f"{trial.split}/seed {trial.seed}/status", said)

    def end(self, end: EndRecord | None) -> None:
        """Add the answer, and the page beside the events."""
        if end is None:
            return
        for name, content in end.files.items():
            (self._sweep / name).write_bytes(content)
        with _writing(self._sweep, "") as writer:
            for scenario, words in end.answers.items():
                writer.add_text(f"answer/{scenario}", words)


@contextmanager
def _writing(folder: Path, suffix: str) -> Iterator[SummaryWriter]:
    """Write events elsewhere, then move them to `folder`, with a suffix to their names."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".") as draft:
        writer = SummaryWriter(draft)
        try:
            yield writer
        finally:
            writer.close()
        for file in sorted(Path(draft).iterdir()):
            os.replace(file, folder / f"events.out.tfevents.{time.time_ns()}{suffix}")  # read in the order of names


def _safe(text: str) -> str:
    return _OTHER.sub("_", text)
