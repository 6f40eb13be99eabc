"""Tells trackers of a sweep, in a thread of its own: what they refuse is said, and costs the sweep nothing."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from queue import SimpleQueue
from statistics import fmean

from orchestrator.core.errors import StorageError
from orchestrator.core.text import visible
from orchestrator.execution.monitoring.trackers.records import (
    EndRecord,
    SweepRecord,
    Tracker,
    TrialRecord,
    end_record,
    recorded,
    sweep_record,
    trial_record,
)
from orchestrator.execution.monitoring.trackers.targets import Target, open_tracker
from orchestrator.execution.session import Session
from orchestrator.search.suggestion import PlannedTrial
from orchestrator.trial.result import TrialResult


class TrackerThread:
    """Tells one tracker what it does not know yet: what the tables hold, then each trial that ends.

    Args:
        target: the tracker.
        sweep: the sweep.

    Raises:
        StorageError: if it cannot be reached.
    """

    def __init__(self, target: Target, sweep: SweepRecord) -> None:
        self._target = target
        self._failure = ""
        self._seeds: defaultdict[tuple[str, str], dict[int, TrialRecord]] = defaultdict(dict)
        try:
            self._tracker: Tracker = open_tracker(target)
            self.known = self._tracker.begin(sweep)
        except Exception as error:
            raise StorageError(
                f"--log-to: cannot write to {target.shown} ({self._reason(error)}); correct it, or leave it out"
            ) from None  # its text may hold the password
        self._queue: SimpleQueue[TrialRecord | None] = SimpleQueue()
        self._is_abandoned = False
        self._thread = threading.Thread(target=self._work, name=f"log-to-{target.kind}", daemon=True)
        self._thread.start()

    def add(self, trial: TrialRecord) -> None:
        """Queue a trial; one that the tracker knows only counts for the means of its suggestion."""
        self._queue.put(trial)

    def end(self, end: EndRecord | None) -> str:
        """Wait until everything is told, then say how the sweep ended; return what went wrong, empty if nothing did."""
        self._is_abandoned = end is None
        self._queue.put(None)
        self._thread.join()
        if not self._failure:
            try:
                self._tracker.end(end)
            except Exception as error:
                self._failure = self._reason(error)
        return self._failure and (
            f"--log-to: {self._target.shown} did not take all of the sweep ({self._failure}); the run folder is "
            "complete all the same, and the same command adds what is missing"
        )

    def _work(self) -> None:
        while (trial := self._queue.get()) is not None and not self._is_abandoned and not self._failure:
            trials = self._seeds[trial.group, trial.split]
            if trial.status != "error":
                trials[trial.seed] = trial
            if trial.key in self.known:
                continue
            try:
                self._tracker.log(trial, _means(list(trials.values())), len(trials))
            except Exception as error:
                self._failure = self._reason(error)

    def _reason(self, error: Exception) -> str:
        place, text = self._target.place.rstrip("/"), str(error)
        text = text.replace(place, self._target.shown_place.rstrip("/")) if place else text
        first = next((line.strip() for line in text.splitlines() if line.strip()), "")
        first = first if len(first) <= 200 else f"{first[:200]}…"
        return visible(f"{type(error).__name__}: {first}" if first else type(error).__name__)


@contextmanager
def tracked(targets: Sequence[Target], session: Session, say: Callable[[str], None]) -> Iterator[None]:
    """Tell trackers of a sweep from here to the end of the block.

    Raises:
        StorageError: if one cannot be reached at the beginning.
    """
    if not targets:
        yield
        return
    sweep = sweep_record(session)
    threads = [TrackerThread(target, sweep) for target in targets]
    for trial in recorded(session):
        for thread in threads:
            thread.add(trial)

    def tell(session: Session, planned: PlannedTrial, result: TrialResult) -> None:
        trial = trial_record(session, planned, result)
        for thread in threads:
            thread.add(trial)

    session.listen(tell)
    end: EndRecord | None = None
    try:
        yield
        end = end_record(session.run)
    finally:
        for thread in threads:
            if wrong := thread.end(end):
                say(wrong)


def _means(trials: Sequence[TrialRecord]) -> dict[str, float]:
    """Return the mean of each metric that all trials have."""
    names = [name for name in trials[0].metrics if all(name in trial.metrics for trial in trials)] if trials else []
    return {name: fmean(trial.metrics[name] for trial in trials) for name in names}
