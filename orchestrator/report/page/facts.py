"""What the page shows of a scenario, taken from the tables once: mean accuracy matrices, and a row a suggestion."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from orchestrator.core.metrics import quantity
from orchestrator.report.methods_table import shown_of
from orchestrator.report.page.figure import Cell
from orchestrator.search.answers.summary import CellSummary
from orchestrator.search.cell_search import CellSearch
from orchestrator.search.suggestion import Split, Suggestion
from orchestrator.spec.sweep_spec import SweepSpec

Reals = NDArray[np.float64]
Places = NDArray[np.intp]


_OF_TRIALS = ("key", "status", "phase", "seconds", "train_seconds", "learning_average", "backward_transfer")
_OF_INSIDE = ("key", "after_task", "name", "part", "value")
_OF_EVALUATIONS = ("key", "during_task", "n_given", "task", "score")
_OF_CELLS = ("key", "after_task", "task", "task_name", "score", "n_examples")


class Tables:
    """The tables of a run, with the rows of each trial at hand.

    Args:
        trials: the trials table.
        accuracy: the accuracy table.
        diagnostics: the diagnostics table; None if it is not shown.
        evaluations: the table of evaluations; None if it is not shown.
    """

    def __init__(
        self,
        trials: pd.DataFrame,
        accuracy: pd.DataFrame,
        diagnostics: pd.DataFrame | None = None,
        evaluations: pd.DataFrame | None = None,
    ) -> None:
        self._trials, self._cells = trials[list(_OF_TRIALS)], accuracy[list(_OF_CELLS)]
        self._rows = {str(key): place for place, key in enumerate(trials["key"])}
        places = self._cells.reset_index(drop=True).groupby("key").indices
        self._places: dict[str, Places] = {str(key): np.asarray(own, np.intp) for key, own in places.items()}
        self._inside = pd.DataFrame(columns=list(_OF_INSIDE)) if diagnostics is None else diagnostics[list(_OF_INSIDE)]
        no_evaluations = pd.DataFrame(columns=list(_OF_EVALUATIONS))
        self._evaluations = no_evaluations if evaluations is None else evaluations[list(_OF_EVALUATIONS)]

    def trials_of(self, keys: Iterable[str]) -> pd.DataFrame:
        """Return what the page needs of the rows of some trials; those that have none are left out."""
        return self._trials.iloc[sorted(self._rows[key] for key in keys if key in self._rows)]

    def accuracy_of(self, keys: Iterable[str]) -> pd.DataFrame:
        """Return what the page needs of the measured cells of R of some trials."""
        found = [self._places[key] for key in keys if key in self._places]
        return self._cells.iloc[np.concatenate(found) if found else []]

    def diagnostics_of(self, keys: Iterable[str]) -> pd.DataFrame:
        """Return what was measured inside of some trials."""
        return self._inside[self._inside["key"].isin(list(keys))]

    def evaluations_of(self, keys: Iterable[str]) -> pd.DataFrame:
        """Return the evaluations of some trials with the same place, so that seeds can be compared.

        Returns: the table's columns and, of an evaluation among those of its task, its `place`, from 0, and the `share`
            of the task's examples that had been given then.
        """
        found = self._evaluations[self._evaluations["key"].isin(list(keys))]
        of_task = found.groupby(["key", "during_task"])["n_given"]
        ends = of_task.max()
        begins = ends.groupby("key").shift(fill_value=0)
        tasks = pd.MultiIndex.from_frame(found[["key", "during_task"]])
        begun, ended = (values.reindex(tasks).to_numpy() for values in (begins, ends))
        share = (found["n_given"].to_numpy() - begun) / np.maximum(ended - begun, 1)
        return found.assign(place=(of_task.rank(method="dense") - 1).astype(int), share=share)


@dataclass(frozen=True)
class MethodFacts:
    """What stands for a method in a scenario.

    Args:
        summary: what is known of the cell.
        search: its search.
        suggestion: the suggestion that stands for it.
        split: where it is shown: on test if it was measured there.
        keys: of its trials there that completed.
        matrices: R of each of these trials (S, T + 1, T); row 0 is before any training; NaN is not measured.
        task_names: T names.
    """

    summary: CellSummary
    search: CellSearch
    suggestion: Suggestion
    split: Split
    keys: tuple[str, ...]
    matrices: Reals
    task_names: tuple[str, ...]

    @property
    def method(self) -> str:
        """Return the name of the method."""
        return self.summary.cell.method

    @property
    def n_tasks(self) -> int:
        """Return how many tasks there are."""
        return int(self.matrices.shape[2])

    @cached_property
    def mean(self) -> Reals:
        """Return the mean of R over the seeds (T + 1, T); NaN where no seed measured it."""
        n = np.isfinite(self.matrices).sum(axis=0)
        total = np.nansum(self.matrices, axis=0)
        found: Reals = np.divide(total, n, out=np.full(total.shape, math.nan), where=n > 0)
        return found


def method_facts(spec: SweepSpec, cell: CellSummary, search: CellSearch, tables: Tables) -> MethodFacts | None:
    """Return what stands for a method, on the split on which the table of methods shows it; None if nothing was run."""
    suggestion, split = shown_of(cell)
    if suggestion is None:
        return None
    trials = tables.trials_of(search.keys_on(suggestion, split))
    keys = tuple(sorted(trials.loc[trials["status"] == "completed", "key"]))
    if not keys:
        return None
    cells = tables.accuracy_of(keys)
    matrices, names = _matrices(cells, keys)
    return MethodFacts(cell, search, suggestion, split, keys, matrices, names)


def _matrices(cells: pd.DataFrame, keys: Sequence[str]) -> tuple[Reals, tuple[str, ...]]:
    n_tasks = int(cells["task"].max()) + 1 if len(cells) else 0
    found = np.full((len(keys), n_tasks + 1, n_tasks), math.nan)
    place = {key: index for index, key in enumerate(keys)}
    afters, tasks = cells["after_task"].to_numpy(dtype=int), cells["task"].to_numpy(dtype=int)
    found[[place[key] for key in cells["key"]], afters + 1, tasks] = cells["score"].to_numpy(dtype=float)
    named = cells.drop_duplicates("task").set_index("task")["task_name"].to_dict()
    names = [named.get(task) for task in range(n_tasks)]
    is_named = all(isinstance(name, str) for name in names) and len(set(names)) == n_tasks
    return found, tuple(str(name) for name in names) if is_named else tuple(map(str, range(n_tasks)))


@dataclass(frozen=True)
class SuggestionFacts:
    """A suggestion as the search saw it, on the validation split.

    Args:
        method: its method.
        suggestion: itself.
        n_seeds: on how many seeds it ran.
        state: `not searched`, `chosen`, `all seeds`, `raced out`, `stopped early` or `did not complete`.
        objective: its mean; NaN if a trial did not complete.
        violation: sum over the limits, in tolerances; 0 if all are met, NaN if it is not known.
    """

    method: str
    suggestion: Suggestion
    n_seeds: int
    state: str
    objective: float
    violation: float


def suggestion_facts(spec: SweepSpec, cells: Sequence[CellSearch]) -> Iterator[SuggestionFacts]:
    """Yield what was seen on validation of each suggestion of the cells of a scenario, searched or not."""
    n_all = len(spec.seeds.of("search"))
    for cell in cells:
        for suggestion in cell.suggestions:
            outcomes = suggestion.on("validation")
            if not outcomes:
                continue
            violation = suggestion.total_violation("validation", spec)
            if not cell.cell.is_searched:
                state = "not searched"
            elif suggestion is cell.chosen:
                state = "chosen"
            elif suggestion.has_stopped():
                state = "stopped early"
            elif suggestion.has_failed("validation"):
                state = "did not complete"
            else:
                state = "all seeds" if len(suggestion.outcomes["search"]) >= n_all else "raced out"
            yield SuggestionFacts(
                cell.cell.method,
                suggestion,
                len(outcomes),
                state,
                suggestion.mean("validation", spec.objective),
                violation if math.isfinite(violation) else math.nan,
            )


def thinned(found: Sequence[SuggestionFacts], most: int) -> list[SuggestionFacts]:
    """Return at most about `most` of the suggestions: those that meet the limits best, the chosen, and every n-th."""
    if len(found) <= most:
        return list(found)

    def distance(one: SuggestionFacts) -> float:
        return math.inf if math.isnan(one.violation) else one.violation

    kept = {id(one) for one in found if one.state == "chosen"}
    kept |= {id(one) for one in sorted(found, key=distance)[: most // 4]}
    kept |= {id(one) for one in found[:: math.ceil(len(found) / (most - len(kept)))]}
    return [one for one in found if id(one) in kept]


def over_seeds(tables: Tables, keys: Sequence[str], metric: str) -> list[float]:
    """Return a plain metric or cost of some trials, NaN where it is not known."""
    return [float(value) for value in tables.trials_of(keys)[metric]]


def metric_of(limit_metric: str) -> str:
    """Return the metric whose form the numbers of a quantity have."""
    return quantity(limit_metric).metric


def or_none(value: float) -> Cell:
    """Return a number, None if it is not known."""
    return None if math.isnan(value) else value
