"""Recorded trials of cells, from a table of the form of `benchmarks/recorded/README.md`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks.search.record import TEST, VALIDATION
from orchestrator.core.accuracy import compute_metrics
from search_spaces import Choices, Distribution

METRICS = ("average", "worst_forgetting", "worst_forgetting_ever")
LIMITED = "worst_forgetting"


@dataclass(frozen=True)
class Recorded:
    """A recorded cell.

    Args:
        name: `SCENARIO METHOD`.
        configurations: hyper-parameters of each, C of them.
        values: split -> metric -> (C, S) float64, NaN where a trial did not complete.
        seconds: (C,) mean time of a trial.
        boundaries: split -> metric -> (C, S, T) float64, of R cut after each task, NaN where it tells nothing.
    """

    name: str
    configurations: list[dict[str, Any]]
    values: Mapping[str, Mapping[str, NDArray[np.float64]]]
    seconds: NDArray[np.float64]
    boundaries: Mapping[str, Mapping[str, NDArray[np.float64]]]

    def truth(self, metric: str) -> NDArray[np.float64]:
        """Return the mean of a metric over all test seeds (C,)."""
        return self.values[TEST][metric].mean(axis=1)

    def limit(self, share: float) -> float:
        """Return the limit on the largest forgetting that a share of the configurations truly meets."""
        known = np.sort(np.nan_to_num(self.truth(LIMITED), nan=np.inf))
        n_met = max(round(share * len(known)), 1)
        return float((known[n_met - 1] + known[min(n_met, len(known) - 1)]) / 2)

    def met(self, limit: float) -> NDArray[np.bool_]:
        """Return which configurations truly meet a limit on the largest forgetting (C,)."""
        found: NDArray[np.bool_] = self.truth(LIMITED) <= limit
        return found

    def is_near(self, place: int, limit: float) -> bool:
        """Return whether a configuration truly meets a limit and is within 5 % of the best that does."""
        objective, met = self.truth("average"), self.met(limit)
        return bool(met[place]) and bool(objective[place] >= 0.95 * objective[met].max())

    def regret(self, place: int, limit: float) -> float:
        """Return how much worse a configuration that truly meets a limit is than the best that does."""
        objective = self.truth("average")
        return float(objective[self.met(limit)].max() - objective[place])

    def space(self, default: Mapping[str, Distribution]) -> dict[str, Any]:
        """Return what was recorded as a spec states it: the range or the choices of each hyper-parameter."""
        found: dict[str, Any] = {}
        for name, one in default.items():
            values = sorted({values[name] for values in self.configurations if name in values})
            if isinstance(one, Choices) and values:
                found[name] = values
            elif len(values) > 1 and not isinstance(one, Choices):
                found[name] = {"low": values[0], "high": values[-1], "log": one.log}
            elif values:
                found[name] = values[0]
        return found

    def nearest(self, space: Mapping[str, Distribution], hyperparameters: Mapping[str, Any]) -> int:
        """Return the configuration nearest to a suggestion, in the space scaled to a cube."""
        place = _places(space, [hyperparameters])
        return int(np.argmin(((self._cube(space) - place) ** 2).sum(axis=1)))

    def _cube(self, space: Mapping[str, Distribution]) -> NDArray[np.float64]:
        if "cube" not in self.__dict__:
            object.__setattr__(self, "cube", _places(space, self.configurations))
        cube: NDArray[np.float64] = self.__dict__["cube"]
        return cube


def _places(space: Mapping[str, Distribution], all_values: list[Any]) -> NDArray[np.float64]:
    """Return where assignments lie in the space scaled to a cube (N, D); choices have an axis each."""
    rows = []
    for values in all_values:
        row: list[float] = []
        for name, one in space.items():
            if isinstance(one, Choices):
                row += [float(values[name] == choice) for choice in one.choices]
            else:
                scale = math.log if one.log else float
                row.append((scale(values[name]) - scale(one.low)) / (scale(one.high) - scale(one.low)))
        rows.append(row)
    return np.array(rows)


def read_table(path: Path) -> list[Recorded]:
    """Return the cells of a recorded table."""
    frame = pq.read_table(path).to_pandas()
    cells = []
    for (scenario, method), rows in frame.groupby(["scenario", "method"], observed=True):
        first = rows.drop_duplicates("configuration").sort_values("configuration")
        values, boundaries = {}, {}
        for split, part in rows[rows["split"].isin([VALIDATION, TEST])].groupby("split", observed=True):
            part = part.sort_values(["configuration", "seed"])
            n_tasks = int(part["n_tasks"].max())
            found = [
                _metrics(np.asarray(one, dtype=float), n, n_tasks)
                for one, n in zip(part["scores"], part["n_tasks"], strict=True)
            ]
            shape = len(first), -1
            values[str(split)] = {m: np.array([one[-1][m] for one in found]).reshape(shape) for m in METRICS}
            boundaries[str(split)] = {
                m: np.array([[cut[m] for cut in one] for one in found]).reshape(*shape, len(found[0])) for m in METRICS
            }
        seconds = rows.groupby("configuration")["seconds"].mean().to_numpy(dtype=float)
        cells.append(
            Recorded(
                f"{scenario} {method}", [json.loads(t) for t in first["hyperparameters"]], values, seconds, boundaries
            )
        )
    return cells


def _metrics(scores: NDArray[np.float64], n: int, n_tasks: int) -> list[dict[str, float]]:
    """Return the metrics of R cut after each task; the last are those of all; NaN if the trial did not complete."""
    if not n:
        return [dict.fromkeys(METRICS, math.nan)] * n_tasks
    whole = scores.reshape(n + 1, n)
    return [compute_metrics(whole[: after + 2, : after + 1]) for after in range(n)]
