"""A dry run: how many trials are done and to do, why, and about how long they take."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import torch

from orchestrator.models.building import build_network
from orchestrator.search.sweep_search import SweepSearch
from orchestrator.spec.fields import Cell
from orchestrator.spec.sweep_spec import SweepSpec
from orchestrator.streams.datasets import Dataset
from orchestrator.streams.settings import dataset_of, number_of_tasks
from orchestrator.streams.stream import Stream
from strategies import STRATEGIES, Generators, Learner, NoHyperparameters, find_method

if TYPE_CHECKING:
    pass

_CALIBRATION_SECONDS = 0.4


@dataclass(frozen=True)
class CellPlan:
    """What a cell has done and has to do.

    Args:
        cell: which.
        n_done: trials whose rows the search found in the tables.
        n_ready: trials that are to run now.
        n_later: trials that depend on results that are not there yet, at most.
        n_again: of the ready ones, those that ended in a machine's error before.
        seconds_a_trial: an estimate, or NaN.
        is_measured: whether the estimate comes from rows of this cell.
    """

    cell: Cell
    n_done: int
    n_ready: int
    n_later: int
    n_again: int
    seconds_a_trial: float
    is_measured: bool

    @property
    def seconds(self) -> float:
        """Return the worker time to do, all slots together."""
        to_do = self.n_ready + self.n_later
        return to_do * self.seconds_a_trial if to_do else 0.0

    @property
    def why(self) -> str:
        """Return why trials are to run."""
        reasons = []
        if self.n_ready - self.n_again:
            reasons.append(f"{self.n_ready - self.n_again} have no row under their key")
        if self.n_again:
            reasons.append(f"{self.n_again} ended in an error of the machine")
        if self.n_later:
            reasons.append(f"up to {self.n_later} follow from those")
        return ", ".join(reasons) or "complete"


def plan_sweep(
    spec: SweepSpec, search: SweepSearch, trials: pd.DataFrame, datasets: Mapping[str, Dataset]
) -> list[CellPlan]:
    """Return the plan of every cell of a search that was fed what is in the tables."""
    ready = Counter(trial.cell.name for trial in search.waiting())
    erred = set(trials.loc[trials["status"] == "error", "key"])
    again = Counter(trial.cell.name for trial in search.waiting() if trial.spec.key in erred)
    step_seconds: dict[str, float] = {}
    plans = []
    for cell_search in search.cells:
        cell = cell_search.cell
        n_done = cell_search.n_recorded
        n_ready = ready[cell.name]
        n_later = max(cell_search.n_unknown - n_ready, 0)
        rows = trials[(trials["scenario"] == cell.scenario) & (trials["method"] == cell.method)]
        measured = rows.loc[rows["status"] == "completed", "seconds"]
        seconds = float(measured.mean()) if len(measured) else math.nan
        if not len(measured) and n_ready + n_later:
            if cell.scenario not in step_seconds:
                step_seconds[cell.scenario] = naive_seconds(spec, cell, datasets[dataset_of(cell.stream)])
            relative = _relative_cost(spec, cell, datasets[dataset_of(cell.stream)])
            seconds = step_seconds[cell.scenario] * relative
        plans.append(CellPlan(cell, n_done, n_ready, n_later, again[cell.name], seconds, bool(len(measured))))
    return plans


def naive_seconds(spec: SweepSpec, cell: Cell, dataset: Dataset) -> float:
    """Return about how long a naive trial of the cell's scenario takes on one CPU thread, by timing some steps."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        generators = Generators(0)
        data = dataset.phase("confirm", spec.validation_share)
        stream = Stream(
            cell.stream,
            spec.stream_settings(cell.stream),
            cell.incremental_type,
            0,
            data,
            torch.device("cpu"),
        )
        learner = Learner(
            build=lambda: build_network(
                spec.model, stream.input_shape, stream.layout, generators.fresh("init/backbone")
            ),
            past_task=stream.train,
            methods=[(STRATEGIES["naive"], NoHyperparameters())],
            settings=spec.training.model_copy(update={"iterations": 5}),
            generators=generators,
            device=torch.device("cpu"),
        )
        task = stream.train(0)
        learner.learn(task)
        n_steps, clock = 0, time.perf_counter()
        while time.perf_counter() - clock < _CALIBRATION_SECONDS:
            learner.fit(task, 1, 10)
            n_steps += 10
        seconds_a_step = (time.perf_counter() - clock) / n_steps
    finally:
        torch.set_num_threads(n_threads)
    settings = spec.training
    steps_a_task = settings.iterations or settings.epochs * math.ceil(len(task) / settings.batch_size)
    return 1.1 * seconds_a_step * steps_a_task * stream.n_tasks  # a tenth for evaluation


def _relative_cost(spec: SweepSpec, cell: Cell, dataset: Dataset) -> float:
    n_tasks = number_of_tasks(cell.stream, spec.stream_settings(cell.stream), dataset.facts)
    return find_method(cell.method).relative_cost(cell.space.fixed, spec.training, n_tasks)


@dataclass(frozen=True)
class Plan:
    """What a sweep would do.

    Args:
        run: its run folder, as it is shown.
        cells: the plan of each cell.
        changes: what differs between the software and devices of its trials and those of here, a line each.
    """

    run: str | Path
    cells: tuple[CellPlan, ...]
    changes: tuple[str, ...] = ()
