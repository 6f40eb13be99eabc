"""A dry run: how many trials are done, how many are left and why, and about how long they take."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from orchestrator.core.metrics import KNOWN_BEFORE, METRICS, quantity
from orchestrator.search.cell_search import CellSearch
from orchestrator.search.stops import proven_bound
from orchestrator.search.sweep_search import SweepSearch
from orchestrator.spec.cells import Cell
from orchestrator.spec.fields import ResolvedRequest
from orchestrator.spec.limits import never_recovers
from orchestrator.spec.sweep_spec import SweepSpec
from orchestrator.streams.datasets import Dataset, PhaseData
from orchestrator.streams.facts import Phase
from orchestrator.streams.settings import number_of_tasks
from orchestrator.trial.data_summary import StreamSummary
from search_spaces import Constraint, SearchSpace, Value
from search_spaces.space import Choices, Distribution, FloatRange, IntRange
from strategies.lazy import torch
from strategies.methods.packnet import LEAST_SHARE, PacknetHyperparameters, share_before


@dataclass(frozen=True)
class CellPlan:
    """What a cell has done and has left to do.

    Args:
        cell: the scenario and method.
        n_done: trials whose rows the search found in the tables.
        n_ready: trials that can run now.
        n_later: trials that depend on results still missing, at most.
        n_again: those of the ready trials that ended in a machine's error before.
        n_expected: trials that are likely left, of the ready and the later ones.
        seconds_a_trial: an estimate, or NaN.
        is_measured: whether the estimate comes from rows of this cell.
        request: what each trial asks of the cluster.
    """

    cell: Cell
    n_done: int
    n_ready: int
    n_later: int
    n_again: int
    n_expected: int
    seconds_a_trial: float
    is_measured: bool
    request: ResolvedRequest

    @property
    def n_at_most(self) -> int:
        """Return how many trials are left, at most."""
        return self.n_ready + self.n_later

    @property
    def seconds(self) -> float:
        """Return the worker time that is expected, summed over all slots."""
        return self.n_expected * self.seconds_a_trial if self.n_expected else 0.0

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
    timed = TimedCells(spec, datasets)
    plans = []
    for cell_search in search.cells:
        cell = cell_search.cell
        n_ready = ready[cell.name]
        n_later = max(cell_search.n_unknown - n_ready, 0)
        rows = trials[(trials["scenario"] == cell.scenario) & (trials["method"] == cell.method)]
        measured = rows.loc[rows["status"] == "completed", "seconds"]
        seconds = float(measured.mean()) if len(measured) else math.nan
        if not len(measured) and n_ready + n_later:
            seconds = timed.seconds(cell)
        plans.append(
            CellPlan(
                cell,
                cell_search.n_recorded,
                n_ready,
                n_later,
                again[cell.name],
                min(expected_trials(cell_search), n_ready + n_later),
                seconds,
                bool(len(measured)),
                spec.resources.of(cell.scenario, *cell.names),
            )
        )
    return plans


def device_notes(plans: Iterable[CellPlan]) -> Iterator[str]:
    """Yield what a user should know of the device that trials were timed on."""
    timed = [plan for plan in plans if plan.n_at_most and not plan.is_measured]
    if any(plan.request.device == "cuda" for plan in timed) and not torch.cuda.is_available():
        yield "trials on GPUs are timed on the CPU, since there is no GPU here; their hours are those of the CPU"


def stop_notes(spec: SweepSpec) -> Iterator[str]:
    """Yield which limits prove nothing at a task boundary, where the user asks for stops."""
    if "stop" not in spec.search.model_fields_set or spec.search.stop == "none":
        return
    for constraint in spec.constraints:
        if proven_bound(spec, constraint) is not None:
            continue
        if never_recovers(constraint):
            why = "the mean over seeds must meet it, and other seeds may make up for one; limits_hold_for: every_seed"
            yield f"no proven stop for {constraint.name}: {why} would prove it"
        elif quantity(constraint.metric).metric in METRICS:
            yield f"no proven stop for {constraint.name}: a later task may mend it"
        elif methods := _do_not_know(spec, constraint):
            yield f"no proven stop for {constraint.name} with {', '.join(methods)}: it is known at the end"


def capacity_notes(spec: SweepSpec, datasets: Mapping[str, Dataset]) -> Iterator[str]:
    """Yield for which pruning rates that are searched packnet leaves the last task next to no weights.

    The rule is that of `share_before`: p^(T - 1) of the weights are free when the last of T tasks begins.
    """
    for cell in spec.cells:
        if cell.names[0] != "packnet" or cell.space.fixed.get("pruning") == "equal_share":
            continue
        facts = datasets[spec.data_of(cell.stream)].facts
        n_tasks = number_of_tasks(cell.stream, spec.stream_settings(cell.stream), facts)
        low, high = _bounds(cell.space, "pruning_rate", PacknetHyperparameters().pruning_rate)
        if n_tasks < 2 or share_before(low, n_tasks - 1) >= LEAST_SHARE:
            continue
        least = LEAST_SHARE ** (1 / (n_tasks - 1))
        asked = f"it is {low:g}" if low == high else f"it is searched from {low:g} to {high:g}"
        yield (
            f"{cell.name}: a pruning_rate p leaves the last of {n_tasks} tasks p^{n_tasks - 1} of the weights, less "
            f"than {100 * LEAST_SHARE:g} % below {least:.3f}, and {asked}; set it to more under spaces.packnet, or set "
            "pruning: equal_share there"
        )


def _bounds(space: SearchSpace, name: str, default: float) -> tuple[float, float]:
    """Return the least and the largest value of a hyper-parameter in a space."""
    found = space.distributions.get(name)
    if found is None:
        value = space.fixed.get(name, default)
        values = [value if isinstance(value, int | float) else default]
    elif isinstance(found, Choices):
        values = [value for value in found.choices if isinstance(value, int | float)] or [default]
    else:
        values = [found.low, found.high]
    return float(min(values)), float(max(values))


def _do_not_know(spec: SweepSpec, constraint: Constraint) -> list[str]:
    """Return the searched methods that do not know a cost before training."""
    searched = {cell.method: cell.found for cell in spec.cells if cell.is_searched}
    knows = constraint.metric in KNOWN_BEFORE and constraint.operator == "<="
    return [name for name, method in searched.items() if not (knows and method.knows_kept_bytes)]


def expected_trials(cell_search: CellSearch) -> int:
    """Return how many trials of a cell are likely left."""
    return cell_search.n_likely


class TimedCells:
    """Estimates of cells without rows, from a few training steps on this machine.

    Args:
        spec: the sweep.
        datasets: name -> data set.
    """

    def __init__(self, spec: SweepSpec, datasets: Mapping[str, Dataset]) -> None:
        self._spec = spec
        self._datasets = datasets
        self._phases: dict[tuple[str, Phase], PhaseData] = {}

    def seconds(self, cell: Cell) -> float:
        """Return about how long a trial of the cell takes, in the middle of what is searched.

        Every scenario of a stream is timed: in `task`, a batch with examples of several tasks passes several heads,
        which doubles the time of small models. What asks for a GPU is timed on the CPU if there is none here.
        """
        from orchestrator.trial.estimate import trial_seconds  # imports PyTorch

        request, seeds = self._spec.resources.of(cell.scenario, *cell.names), self._spec.seeds
        phase: Phase = "search" if seeds.of("search") and cell.is_searched else "confirm"
        trial = self._spec.trial(cell, middle(cell.space), seeds.of(phase)[0], phase, "")
        device = request.device if torch.cuda.is_available() else "cpu"
        return trial_seconds(trial, self._data(self._spec.data_of(cell.stream), phase), device, request.threads)

    def _data(self, name: str, phase: Phase) -> PhaseData:
        if (name, phase) not in self._phases:
            self._phases[name, phase] = self._datasets[name].phase(phase, self._spec.validation_share)
        return self._phases[name, phase]


def middle(space: SearchSpace) -> dict[str, Value]:
    """Return the middle of what is searched: of a range, on its scale; of choices, the middle one."""
    return {name: _middle(searched) for name, searched in space.distributions.items()}


def _middle(searched: Distribution) -> Value:
    match searched:
        case Choices(choices):
            return choices[len(choices) // 2]
        case IntRange(low, high, log, step):
            value = math.sqrt(low * high) if log else (low + high) / 2
            return low + round((value - low) / step) * step
        case FloatRange(low, high, log, width):
            value = math.sqrt(low * high) if log else (low + high) / 2
            return value if width is None else low + round((value - low) / width) * width


@dataclass(frozen=True)
class Plan:
    """What a sweep would do.

    Args:
        run: its run folder, as it is shown.
        cells: the plan of each cell.
        changes: a line for each difference between the software and devices of its trials and those of this machine.
        notes: what a user should know, a sentence each.
        data: what was read of each of the user's own streams.
    """

    run: str | Path
    cells: tuple[CellPlan, ...]
    changes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    data: tuple[StreamSummary, ...] = ()
