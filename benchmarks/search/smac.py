"""SMAC3 on the recorded cells, beside ours: its own racing of seeds, and limits by a penalty on the objective.

It is no dependency of this project: `pip install smac` makes `python -m benchmarks.search` run it too.
"""

from __future__ import annotations

import importlib
import math
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.search.cells import LIMITED
from benchmarks.search.record import TEST, VALIDATION
from benchmarks.search.replay import Ended, Replay
from search_spaces import Distribution, IntRange
from search_spaces.space import Choices

_PENALTY = 10.0
"""What a violation of 1 costs, in units of the objective."""


class SmacReplay(Replay):
    """One search of a recorded cell by SMAC3, with as many trials as our suggestions have search seeds.

    Its incumbent is measured on the confirm seeds of the test split, and recommended if its mean meets the limit.
    """

    def run(self) -> Ended:
        """Search to the end."""
        smac = importlib.import_module("smac")
        seconds, spent, of_seed = self.recorded.seconds, [0.0], dict[int, int]()
        values = self.recorded.values[VALIDATION]
        rows = [self._row[seed] for seed in self.spec.seeds.of("search")]

        def cost(config: Any, seed: int = 0) -> float:
            place = self._nearest(config)
            row = rows[of_seed.setdefault(seed, len(of_seed)) % len(rows)]
            spent.append(spent[-1] + float(seconds[place]))
            found = _PENALTY * max(values[LIMITED][place, row] - self.limit, 0.0) - values["average"][place, row]
            return float(found) if math.isfinite(found) else _PENALTY  # a trial that did not complete

        n_trials = self.spec.search.suggestions * len(rows)
        with tempfile.TemporaryDirectory() as folder:
            scenario = smac.Scenario(
                self._space(), n_trials=n_trials, seed=self.draw, deterministic=False, output_directory=Path(folder)
            )
            facade = smac.HyperparameterOptimizationFacade
            search = facade(
                scenario, cost, intensifier=facade.get_intensifier(scenario, max_config_calls=len(rows)),
                overwrite=True, logging_level=False,
            )  # fmt: skip
            incumbent = search.optimize()
            history = [(item.config_ids, item.trial) for item in search.intensifier.trajectory]
            chosen = [(t, self._nearest(search.runhistory.get_config(ids[0]))) for ids, t in history if ids]
        near = [trial for trial, place in chosen if self.recorded.is_near(place, self.limit)]
        return self._ended(self._nearest(incumbent), spent, spent[min(near[0], n_trials)] if near else float("inf"))

    def _ended(self, place: int, spent: list[float], reached: float) -> Ended:
        rows = [self._row[seed] for seed in self.spec.seeds.of("confirm")]
        measured = self.recorded.values[TEST][LIMITED][place, rows].mean()
        total = spent[-1] + len(rows) * float(self.recorded.seconds[place])
        met = self.recorded.met(self.limit)
        is_given = bool(measured <= self.limit)
        is_wrong = is_given and not bool(met[place])
        regret = self.recorded.regret(place, self.limit) if is_given and not is_wrong else float("nan")
        full = float(self.recorded.seconds.mean()) * len(self.spec.seeds.of("search"))
        n_trials = len(spent) - 1
        return Ended(
            place if is_given else None, is_wrong, bool(met.any()), regret, total, total / full, reached / full,
            n_trials, 0, 0, 0,
        )  # fmt: skip

    def _nearest(self, config: Any) -> int:
        values = {name: _plain(value) for name, value in dict(config).items()}
        return self.recorded.nearest(self.cell.space.distributions, values)

    def _space(self) -> Any:
        space = importlib.import_module("ConfigSpace")
        found = space.ConfigurationSpace(seed=self.draw)
        for name, one in self.cell.space.distributions.items():
            found.add(_parameter(space, name, one))
        return found


def _parameter(space: Any, name: str, one: Distribution) -> Any:
    if isinstance(one, Choices):
        return space.Categorical(name, list(one.choices))
    kind = space.Integer if isinstance(one, IntRange) else space.Float
    return kind(name, (one.low, one.high), log=one.log)


def _plain(value: Any) -> Any:
    """Return a value of ConfigSpace, which may be one of NumPy's, as Python has it."""
    return value.item() if hasattr(value, "item") else value
