"""How well detectors find the known drifts of streams, and how often they see one where there is none.

Each stream comes as one with three abrupt drifts and as a stationary one. The detectors watch it as `boundaries` lets
them watch a table's training rows: features scaled to [0, 1], a task of `minimal_length` rows or more. A boundary is
right if it comes within the tolerance after a true drift; each drift counts once, and every other boundary is wrong.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import rotate
from sklearn.datasets import load_digits

from orchestrator.streams.boundaries import Boundaries
from orchestrator.streams.sources.boundaries.cutting import cut
from orchestrator.streams.sources.boundaries.detectors import detector_of
from orchestrator.streams.sources.boundaries.signals import Column, Prequential, Signal, log_loss, zero_one

TOLERANCE = 500
"""Rows after a true drift within which a boundary is right."""

DETECTORS: dict[str, dict[str, object]] = {
    "adwin": {"detector": "adwin"},
    "adwin, river's defaults": {"detector": "adwin", "delta": 0.002},
    "kswin": {"detector": "kswin"},
    "kswin, river's defaults": {"detector": "kswin", "alpha": 0.005, "window_size": 100, "stat_size": 30},
    "page-hinkley": {"detector": "page-hinkley"},
    "page-hinkley, river's defaults": {"detector": "page-hinkley", "threshold": 50.0},
}
SIGNALS = ("error", "score", "feature")


@dataclass(frozen=True)
class Rows:
    """Rows of a stream.

    Args:
        inputs: in [0, 1], (N, F) float32.
        labels: (N,) int64.
        drifts: the first row of each new concept.
        column: of the feature that is watched.
    """

    inputs: NDArray[np.float32]
    labels: NDArray[np.int64]
    drifts: tuple[int, ...]
    column: int


def digits(seed: int, is_stationary: bool, length: int = 1_500) -> Rows:
    """Return scikit-learn's digits in stages of 0, 30, 60 and 90 degrees; the column is the pixel that varies most."""
    data, draw = load_digits(), np.random.default_rng(seed)
    inputs, labels = [], []
    for degrees in (0, 0, 0, 0) if is_stationary else (0, 30, 60, 90):
        images = rotate(data.images, degrees, axes=(1, 2), reshape=False, order=1)
        rows = draw.permutation(len(images))[:length]
        inputs.append(images[rows].reshape(length, -1) / 16)
        labels.append(data.target[rows])
    column = int(data.images.reshape(len(data.images), -1).var(axis=0).argmax())
    return _rows(inputs, labels, is_stationary, column)


def sea(seed: int, is_stationary: bool, length: int = 3_000) -> Rows:
    """Return river's SEA concepts (Street & Kim 2001) with 10 % noise: 0, 1, 2 and 3; the first column is watched."""
    from river.datasets import synth

    concepts = (0, 0, 0, 0) if is_stationary else (0, 1, 2, 3)
    parts = [synth.SEA(variant=v, noise=0.1, seed=10 * seed + n).take(length) for n, v in enumerate(concepts)]
    return _of_river(parts, is_stationary)


def agrawal(seed: int, is_stationary: bool, length: int = 3_000) -> Rows:
    """Return river's Agrawal functions (Agrawal et al. 1993): 0, 1, 2 and 3; the first column, salary, is watched."""
    from river.datasets import synth

    functions = (0, 0, 0, 0) if is_stationary else (0, 1, 2, 3)
    parts = [synth.Agrawal(classification_function=f, seed=10 * seed + n).take(length) for n, f in enumerate(functions)]
    return _of_river(parts, is_stationary)


STREAMS: dict[str, Callable[[int, bool], Rows]] = {"rotated digits": digits, "SEA": sea, "Agrawal": agrawal}


def _of_river(parts: Sequence[Iterator[tuple[dict[str, float], object]]], is_stationary: bool) -> Rows:
    read = [list(part) for part in parts]
    inputs = [np.array([list(map(float, x.values())) for x, _ in part]) for part in read]
    return _rows(inputs, [np.array([int(y) for _, y in part]) for part in read], is_stationary, 0)


def _rows(inputs: Sequence[NDArray], labels: Sequence[NDArray], is_stationary: bool, column: int) -> Rows:
    whole = np.concatenate(inputs)
    low, high = whole.min(axis=0), whole.max(axis=0)
    scaled = ((whole - low) / np.where(high > low, high - low, 1)).astype(np.float32)
    starts = np.cumsum([len(part) for part in inputs])[:-1].tolist()
    return Rows(scaled, np.concatenate(labels).astype(np.int64), () if is_stationary else tuple(starts), column)


@dataclass(frozen=True)
class Found:
    """What a detector found in one stream with drifts and one without.

    Args:
        f1: of its boundaries.
        delay: mean rows from a drift to its boundary; NaN if none was found.
        alarms: boundaries per 10,000 stationary rows.
    """

    f1: float
    delay: float
    alarms: float


def measure(stream: str, detector: str, on: str, seed: int) -> Found:
    """Return how well a detector does on a signal of a stream."""
    settings = Boundaries.model_validate({**DETECTORS[detector], "on": on, "column": "c" if on == "feature" else None})
    drifting, still = (STREAMS[stream](seed, is_stationary) for is_stationary in (False, True))
    boundaries, alarms = _boundaries(settings, drifting), _boundaries(settings, still)
    delays = [
        min(after)
        for drift in drifting.drifts
        if (after := [b - drift for b in boundaries if 0 <= b - drift < TOLERANCE])
    ]
    n_right = len(delays)
    f1 = 2 * n_right / (len(boundaries) + len(drifting.drifts))
    delay = statistics.mean(delays) if delays else math.nan
    return Found(f1, delay, 10_000 * len(alarms) / len(still.labels))


def _boundaries(settings: Boundaries, rows: Rows) -> list[int]:
    signal: Signal
    if settings.on == "feature":
        signal = Column(rows.inputs[:, rows.column])
    else:
        signal = Prequential(rows.inputs, rows.labels, zero_one if settings.on == "error" else log_loss)
    return list(cut(signal, len(rows.labels), detector_of(settings), settings).starts[1:])


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return statistics.mean(known) if known else math.nan


def main() -> int:
    """Print the table, in Markdown."""
    parser = argparse.ArgumentParser(prog="benchmarks.drift", description=__doc__)
    parser.add_argument("--seeds", type=int, default=5, help="seeds of each stream")
    parser.add_argument("--first-seed", type=int, default=0, help="the first of them")
    parser.add_argument("--workers", type=int, default=1, help="processes")
    options = parser.parse_args()
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    cases = [(s, d, on) for s in STREAMS for on in SIGNALS for d in DETECTORS]
    jobs = [(*case, seed) for case in cases for seed in seeds]
    with ProcessPoolExecutor(options.workers) as pool:
        found = dict(zip(jobs, pool.map(measure, *zip(*jobs, strict=True)), strict=True))
    print(f"Mean of {len(seeds)} seeds; a boundary is right within {TOLERANCE} rows after a drift.\n")
    print("| stream | on | detector | F1 | delay, rows | false alarms in 10,000 rows |\n|---|---|---|---|---|---|")
    for stream, detector, on in cases:
        own = [found[stream, detector, on, seed] for seed in seeds]
        delay = _mean([one.delay for one in own])
        shown = "-" if math.isnan(delay) else f"{delay:.0f}"
        f1, alarms = _mean([one.f1 for one in own]), _mean([one.alarms for one in own])
        print(f"| {stream} | {on} | {detector} | {f1:.2f} | {shown} | {alarms:.1f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
