"""Metrics of a running sweep for Prometheus."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

from ray.util.metrics import Gauge

SECONDS_BETWEEN_METRICS = 5.0


class SweepMetrics:
    """Application metrics that Ray exports to Prometheus."""

    def __init__(self, sweep: str) -> None:
        tags = {"sweep": sweep}
        self._trials = Gauge(
            "continual_sweep_trials", "Trials of the running sweep by state", tag_keys=("sweep", "state")
        )
        self._feasible = Gauge(
            "continual_sweep_feasible_suggestions",
            "Suggestions that meet every limit",
            tag_keys=("sweep", "cell"),
        )
        self._best = Gauge(
            "continual_sweep_best_objective",
            "Objective of the best feasible suggestion",
            tag_keys=("sweep", "cell"),
        )
        for gauge in (self._trials, self._feasible, self._best):
            gauge.set_default_tags(tags)
        self._values: dict[tuple[Gauge, tuple[str, str]], float] = {}

    def trials(self, counts: dict[str, int]) -> None:
        """Set the number of trials by state."""
        for state, count in counts.items():
            self._set(self._trials, "state", state, count)

    def cell(self, cell: str, n_feasible: int, best: float | None) -> None:
        """Set a cell's number of feasible suggestions and best objective."""
        self._set(self._feasible, "cell", cell, n_feasible)
        if best is not None:
            self._set(self._best, "cell", cell, best)

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
