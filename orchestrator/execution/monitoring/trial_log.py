"""What a worker says of its trials: in Ray's log of the worker, and kept with a trial that fails."""

from __future__ import annotations

import logging
import os
import time
from types import TracebackType
from typing import Self

from orchestrator.core.scores import ACCURACY, Measurement
from orchestrator.spec.trial_spec import TrialSpec
from orchestrator.streams.stream import Stream
from orchestrator.trial.result import TrialResult

LEVEL_VARIABLE = "CONTINUAL_SWEEP_LOG_LEVEL"
"""Environment variable with the least level that workers write to their logs: INFO by default."""

_LOGGER = logging.getLogger("continual_sweep")
_MOST_LINES = 400


class TrialLog(logging.Handler):
    """Logs a trial as it starts, after each task and as it ends, and keeps the newest lines.

    Args:
        spec: the trial.
    """

    def __init__(self, spec: TrialSpec) -> None:
        super().__init__(logging.DEBUG)
        self.setFormatter(_format())
        self._spec = spec
        self._lines: list[str] = []

    def __enter__(self) -> Self:
        _write_to_worker_log()
        _LOGGER.addHandler(self)
        spec = self._spec
        _LOGGER.info("trial %s begins: %s seed %s %s", spec.key, spec.cell, spec.seed, spec.phase)
        self._began = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _LOGGER.removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line."""
        self._lines = [*self._lines[-_MOST_LINES:], self.format(record)]

    def report(self, after: int, row: list[Measurement | None], stream: Stream) -> None:
        """Log a row of R at level DEBUG."""
        cells = zip(row, stream.class_names, strict=True)
        shown = " ".join("–" if cell is None else f"{cell.value(ACCURACY, names):.4f}" for cell, names in cells)
        name = "untrained" if after < 0 else f"after {stream.task_names[after]}"
        _LOGGER.debug("trial %s %s: accuracy %s", self._spec.key, name, shown)

    def end(self, result: TrialResult) -> str:
        """Log how the trial ended, and return the lines that are kept, empty unless it failed."""
        seconds = time.perf_counter() - self._began
        reason = f": {result.reason}" if result.reason else ""
        _LOGGER.info("trial %s ends: %s after %.1f s%s", result.key, result.status, seconds, reason)
        return "" if result.status in ("completed", "stopped") else "\n".join(self._lines) + "\n"


def _write_to_worker_log() -> None:
    """Let the lines of this process appear in Ray's log of the worker."""
    if not any(isinstance(handler, logging.StreamHandler) for handler in _LOGGER.handlers):
        shown = logging.StreamHandler()
        shown.setFormatter(_format())
        level = logging.getLevelNamesMapping().get(os.environ.get(LEVEL_VARIABLE, "INFO").upper(), logging.INFO)
        shown.setLevel(level)
        _LOGGER.addHandler(shown)
        _LOGGER.setLevel(logging.DEBUG)
        _LOGGER.propagate = False


def _format() -> logging.Formatter:
    formatter = logging.Formatter("%(asctime)sZ %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    return formatter
