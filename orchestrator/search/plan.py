"""A dry run: how many trials are done, how many are left and why, and about how long they take."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import torch

from orchestrator.search.sweep_search import SweepSearch
from orchestrator.spec.cells import Cell
from orchestrator.spec.sweep_spec import SweepSpec
from orchestrator.streams.datasets import Dataset
from orchestrator.streams.settings import dataset_of, number_of_tasks
from orchestrator.trial.setup import set_up
from search_spaces import SearchSpace
from strategies import find_method

_CALIBRATION_SECONDS = 0.1
"""How long steps are timed for each stream, at least."""

_WARM_UP_STEPS = 5
"""Steps that are not timed: the first ones allocate memory and load what PyTorch loads lazily."""


@dataclass(frozen=True)
class CellPlan:
    """What a cell has done and has left to do.

    Args:
        cell: the scenario and method.
        n_done: trials whose rows the search found in the tables.
        n_ready: trials that can run now.
        n_later: trials that depend on results still missing, at most.
        n_again: those of the ready trials that ended in a machine's error before.
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
        """Return the worker time that is left, summed over all slots."""
        to_do = self.n_ready + self.n_later
        return to_do * self.seconds_a_trial if to_do else 0.0

    @property
    def why(self) -> str:
        """Return why trials are left to run."""
        reasons = []
        if self.n_ready - self.n_again:
            reasons.append(f"{self.n_ready - self.n_again} not trained yet")
        if self.n_again:
            reasons.append(f"{self.n_again} ended in an error of the machine")
        if self.n_later:
            reasons.append(f"up to {self.n_later} follow from those")
        return ", ".join(reasons) or "complete"


def plan_sweep(
    spec: SweepSpec, search: SweepSearch, trials: pd.DataFrame, datasets: Mapping[str, Dataset]
) -> list[CellPlan]:
    """Return the plan of every cell.

    Args:
        spec: the sweep.
        search: its search, fed with the outcomes in the tables.
        trials: the trials table.
        datasets: name -> data set.
    """
    ready = Counter(trial.cell.name for trial in search.waiting())
    erred = set(trials.loc[trials["status"] == "error", "key"])
    again = Counter(trial.cell.name for trial in search.waiting() if trial.spec.key in erred)
    timed: dict[str, float] = {}  # stream -> seconds: its incremental types differ in their heads only
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
            dataset = datasets[dataset_of(cell.stream)]
            if cell.stream not in timed:
                timed[cell.stream] = naive_seconds(spec, cell, dataset)
            seconds = timed[cell.stream] * _relative_cost(spec, cell, dataset)
        plans.append(CellPlan(cell, n_done, n_ready, n_later, again[cell.name], seconds, bool(len(measured))))
    return plans


def naive_seconds(spec: SweepSpec, cell: Cell, dataset: Dataset) -> float:
    """Return about how long a naive trial of the cell's scenario takes on one CPU thread, from timing a few steps.

    Other work on the machine is part of the estimate, as it will be part of the trials.
    """
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        naive = replace(cell, method="naive", space=SearchSpace({}, {}, {}))
        short = spec.model_copy(update={"training": spec.training.model_copy(update={"iterations": _WARM_UP_STEPS})})
        trial = short.trial(naive, {}, 0, "confirm", "")
        stream, learner = set_up(trial, dataset.phase("confirm", spec.validation_share), torch.device("cpu"))
        task = stream.train(0)
        learner.learn(task)
        n_steps, clock = 0, time.perf_counter()
        while (seconds := time.perf_counter() - clock) < _CALIBRATION_SECONDS:
            n_more = 10 if n_steps else 1  # large models take long for a single step
            learner.fit(task, 1, n_more)
            n_steps += n_more
    finally:
        torch.set_num_threads(n_threads)
    settings = spec.training
    steps_a_task = settings.iterations or settings.epochs * math.ceil(len(task) / settings.batch_size)
    return 1.1 * seconds / n_steps * steps_a_task * stream.n_tasks  # a tenth for evaluation


def _relative_cost(spec: SweepSpec, cell: Cell, dataset: Dataset) -> float:
    n_tasks = number_of_tasks(cell.stream, spec.stream_settings(cell.stream), dataset.facts)
    return find_method(cell.method).relative_cost(cell.space.fixed, spec.training, n_tasks)


@dataclass(frozen=True)
class Plan:
    """What a sweep would do.

    Args:
        run: its run folder, as it is shown.
        cells: the plan of each cell.
        changes: a line for each difference between the software and devices of its trials and those of this machine.
        notes: what a user should know of the data that were read, a sentence each.
    """

    run: str | Path
    cells: tuple[CellPlan, ...]
    changes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
