"""River's drift detectors as functions that take a value and say whether drift begins there."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

from orchestrator.core.errors import MissingExtraError
from orchestrator.streams.boundaries import Boundaries

Detect = Callable[[float], bool]
"""Takes the next value of the signal and returns whether it is drift."""


def detector_of(settings: Boundaries) -> Detect:
    """Return a fresh detector.

    Errors and losses count only if they rise: they fall while the learner learns, which is no drift. A feature counts
    both ways.

    Source: Bifet & Gavalda 2007 (ADWIN), Raab, Heusinger & Schleif 2020, arXiv 2007.05432 (KSWIN), Page 1954
    (Page-Hinkley), as river implements them.
    Differs: all three test both directions; here only a rise counts for errors and losses. The defaults are not
    river's: ADWIN's delta is 0.05, not 0.002, KSWIN compares 60 rows of 200 at 0.0001, not 30 of 100 at 0.005, and
    Page-Hinkley's threshold is 20, not 50. `python -m benchmarks.drift` measures both.

    Args:
        settings: without faults.

    Raises:
        MissingExtraError: if river is not installed.
    """
    drift = _river_drift()
    own, only_rises = settings.parameters(), settings.on != "feature"
    match settings.detector:
        case "adwin":
            return _adwin(drift.ADWIN(**own), only_rises)
        case "kswin":
            return _kswin(drift.KSWIN(**own), own["window_size"], own["stat_size"], only_rises)
        case "page-hinkley":
            return _page_hinkley(drift.PageHinkley(**own, mode="up" if only_rises else "both"))


def _river_drift() -> Any:
    try:
        from river import drift
    except ImportError as error:
        raise MissingExtraError("boundaries", "drift") from error
    return drift


def _adwin(detector: Any, only_rises: bool) -> Detect:
    def detect(value: float) -> bool:
        before = detector.estimation  # the mean of the window, which loses its older part on drift
        detector.update(value)
        return bool(detector.drift_detected and (not only_rises or detector.estimation > before))

    return detect


def _kswin(detector: Any, window_size: int, stat_size: int, only_rises: bool) -> Detect:
    seen: deque[float] = deque(maxlen=window_size)

    def detect(value: float) -> bool:
        seen.append(value)
        detector.update(value)
        if not detector.drift_detected:
            return False
        values = np.array(seen)
        return not only_rises or bool(values[-stat_size:].mean() > values[:-stat_size].mean())

    return detect


def _page_hinkley(detector: Any) -> Detect:
    def detect(value: float) -> bool:
        detector.update(value)
        return bool(detector.drift_detected)

    return detect
