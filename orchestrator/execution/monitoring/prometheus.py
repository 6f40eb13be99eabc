"""Metrics of a running sweep for Prometheus."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ray.util.metrics import Gauge, Histogram

SECONDS_BETWEEN_METRICS = 5.0

_PREFIX = "continual_sweep_"
_SECONDS = [0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 10000.0]


@dataclass(frozen=True)
class CellState:
    """What is exported of a cell.

    Args:
        n_feasible: suggestions that meet every limit on all search seeds.
        n_stopped: suggestions of which a rule stopped a trial.
        best: mean objective of the best feasible one; None if there is none.
        violation: of the suggestion nearest to the limits, in tolerances, 0 if one meets them; None if not known.
    """

    n_feasible: int
    n_stopped: int = 0
    best: float | None = None
    violation: float | None = None


class SweepMetrics:
    """Application metrics that Ray exports to Prometheus; all have the label `run`, the run folder.

    Args:
        run: the run folder, as it may be shown.
    """

    def __init__(self, run: str) -> None:
        self._run = run
        self._trials = self._gauge("trials", "Trials of the running sweep by state", "state")
        self._rows = self._gauge("rows_written", "Rows that this process added to a table", "table")
        self._feasible = self._gauge("feasible_suggestions", "Suggestions that meet every limit", "cell")
        self._stopped = self._gauge("stopped_suggestions", "Suggestions of which a rule stopped a trial", "cell")
        self._best = self._gauge("best_objective", "Objective of the best feasible suggestion", "cell")
        self._violation = self._gauge(
            "nearest_violation", "Violation of the suggestion nearest to the limits, in tolerances", "cell"
        )
        self._workers = self._gauge("workers", "Workers that run a trial", "kind")
        self._seconds = Histogram(
            f"{_PREFIX}trial_seconds", "Wall time of a trial", boundaries=_SECONDS, tag_keys=("run", "cell")
        )
        self._seconds.set_default_tags({"run": run})
        self._values: dict[tuple[Gauge, tuple[str, str]], float] = {}
        self._n_rows: Counter[str] = Counter()

    def _gauge(self, name: str, meaning: str, tag: str) -> Gauge:
        gauge = Gauge(f"{_PREFIX}{name}", meaning, tag_keys=("run", tag))
        gauge.set_default_tags({"run": self._run})
        return gauge

    def trials(self, counts: dict[str, int]) -> None:
        """Set the number of trials by state."""
        for state, count in counts.items():
            self._set(self._trials, "state", state, count)

    def workers(self, n: int) -> None:
        """Set the number of workers that run a trial."""
        self._set(self._workers, "kind", "busy", n)

    def cell(self, cell: str, state: CellState) -> None:
        """Set what is known of a cell."""
        self._set(self._feasible, "cell", cell, state.n_feasible)
        self._set(self._stopped, "cell", cell, state.n_stopped)
        if state.best is not None:
            self._set(self._best, "cell", cell, state.best)
        if state.violation is not None:
            self._set(self._violation, "cell", cell, state.violation)

    def ended(self, cell: str, seconds: float | None, n_measured: int, n_kept: int) -> None:
        """Count a trial that ended, with the rows that it added to the tables.

        Args:
            cell: its cell.
            seconds: its wall time, if it is known.
            n_measured: measured cells of its R.
            n_kept: those of which it is kept which examples were right.
        """
        if seconds is not None:
            self._seconds.observe(seconds, tags={"cell": cell})
        self._n_rows.update(trials=1, accuracy=n_measured, outcomes=n_kept)
        for table, n in self._n_rows.items():
            self._set(self._rows, "table", table, n)

    @contextlib.contextmanager
    def refreshed(self, update: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Set every value again every few seconds: Ray drops one that was not set for some 20 seconds.

        Args:
            update: called before each time, in another thread, to set values that change without an event.
        """
        stop = threading.Event()

        def set_again() -> None:
            while not stop.wait(SECONDS_BETWEEN_METRICS):
                with contextlib.suppress(RuntimeError):  # a set changed while it was counted; the next time will do
                    update()
                for (gauge, (name, of)), value in list(self._values.items()):
                    gauge.set(value, tags={name: of})

        thread = threading.Thread(target=set_again, daemon=True, name="metrics")
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def _set(self, gauge: Gauge, name: str, of: str, value: float) -> None:
        self._values[gauge, (name, of)] = value
        gauge.set(value, tags={name: of})
