"""Two runs side by side: what their specs, data and software differ in, and their answers cell by cell."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean
from typing import Any, Literal

import pandas as pd
from scipy.special import stdtr, stdtrit

from orchestrator.core.canonical import plain
from orchestrator.gating.multiple_tests import holm
from orchestrator.report.exports.entries import limited
from orchestrator.results.run import Run
from orchestrator.search.answers.certainty import LEVEL, Comparison, Spread, compare
from orchestrator.search.answers.full_answer import Answer, Measured, MethodAnswer

COMPARISON_VERSION = 1
"""Version of the form of the JSON; raised whenever a field changes its meaning or goes."""

Test = Literal["paired", "Welch", "none"]

PROVENANCE = (
    "code_revision", "package_version", "torch_version", "python_version", "ray_version", "optuna_version", "device",
    "device_name", "threads",
)  # fmt: skip
"""Columns of the trials table that say with what the trials ran."""


@dataclass(frozen=True)
class Change:
    """Something that differs between two runs.

    Args:
        what: a field of the spec, a column of the trials table, or the data of a stream.
        first: its value in the first run; 'left out' if it has none.
        second: in the second.
    """

    what: str
    first: str
    second: str


@dataclass(frozen=True)
class Difference:
    """A metric of a cell in both runs, on test.

    Args:
        metric: the metric or cost.
        first: its mean in the first run; NaN if it was not measured.
        second: in the second.
        difference: second less first; of a paired test over the seeds that both have.
        interval: its 95 % confidence interval; NaN if it is not known.
        test: `paired` by seed, `Welch` if fewer than two seeds are shared, `none` if neither is possible.
        n_seeds: seeds of the first and of the second run that were used; of a paired test, the shared ones twice.
        p_value: of the test; NaN if there is none.
        p_holm: the same after Holm's correction over the cells, for each metric.
    """

    metric: str
    first: float
    second: float
    difference: float
    interval: tuple[float, float]
    test: Test
    n_seeds: tuple[int, int]
    p_value: float
    p_holm: float

    @property
    def is_told_apart(self) -> bool:
        """Return whether the two differ, at 5 % over all cells."""
        return self.p_holm < 1 - LEVEL


@dataclass(frozen=True)
class ComparedCell:
    """A cell that both runs have.

    Args:
        scenario: its scenario.
        method: its method.
        notes: why its numbers may not be comparable.
        first: hyper-parameters of what stands for it in the first run.
        second: in the second.
        differences: each metric that an objective or a limit of either run names.
    """

    scenario: str
    method: str
    notes: list[str]
    first: dict[str, Any]
    second: dict[str, Any]
    differences: list[Difference]


@dataclass(frozen=True)
class RunComparison:
    """Two runs side by side.

    Args:
        version: of this form.
        first: the first run as it may be shown.
        second: the second.
        objectives: of both.
        n_missing: trials that each misses, at most.
        spec: what differs in the spec.
        data: data sets whose fingerprints differ.
        software: what differs in code, versions and devices.
        cells: those that both have.
        only_first: cells of the first alone.
        only_second: of the second alone.
    """

    version: int
    first: str
    second: str
    objectives: tuple[str, str]
    n_missing: tuple[int, int]
    spec: list[Change]
    data: list[Change]
    software: list[Change]
    cells: list[ComparedCell]
    only_first: list[str]
    only_second: list[str]

    def to_plain(self) -> dict[str, Any]:
        """Return it as JSON can hold it: numbers that are not known are null."""
        found: dict[str, Any] = plain(asdict(self))
        return found


def compare_runs(first: Run, second: Run) -> RunComparison:
    """Return two runs side by side; differences are second less first.

    Raises:
        RunFolderError, StorageError: if one cannot be read.
    """
    answers = first.answer(), second.answer()
    tables = first.tables.trials.read(), second.tables.trials.read()
    mine, theirs = _methods(answers[0]), _methods(answers[1])
    data = [*_data(*tables)]
    return RunComparison(
        COMPARISON_VERSION,
        first.where,
        second.where,
        (answers[0].objective, answers[1].objective),
        (answers[0].n_missing, answers[1].n_missing),
        [*spec_changes(first.spec.model_dump(mode="json"), second.spec.model_dump(mode="json"))],
        data,
        [*_software(*tables)],
        _cells(answers, {change.what for change in data}),
        [" ".join(cell) for cell in mine if cell not in theirs],
        [" ".join(cell) for cell in theirs if cell not in mine],
    )


def _methods(answer: Answer) -> dict[tuple[str, str], MethodAnswer]:
    return {(one.scenario, method.method): method for one in answer.scenarios for method in one.methods}


# What is not the same.


def spec_changes(first: Any, second: Any, place: str = "") -> Iterator[Change]:
    """Yield each field in which two specs, as plain values, differ; a list is one value."""
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        for name in dict.fromkeys([*first, *second]):
            yield from spec_changes(first.get(name), second.get(name), f"{place}.{name}" if place else str(name))
    elif first != second:
        yield Change(place, _shown(first), _shown(second))


def _shown(value: Any) -> str:
    return "left out" if value is None else str(value)


def _data(first: pd.DataFrame, second: pd.DataFrame) -> Iterator[Change]:
    for stream in dict.fromkeys([*first["stream"], *second["stream"]]):
        hashes = [_values(trials[trials["stream"] == stream], "data_hash") for trials in (first, second)]
        if hashes[0] and hashes[1] and hashes[0] != hashes[1]:
            yield Change(stream, *map(", ".join, hashes))


def _software(first: pd.DataFrame, second: pd.DataFrame) -> Iterator[Change]:
    for column in PROVENANCE:
        values = _values(first, column), _values(second, column)
        if values[0] and values[1] and values[0] != values[1]:
            yield Change(column, *map(", ".join, values))


def _values(trials: pd.DataFrame, column: str) -> list[str]:
    """Return what the trials that count have in a column, sorted; what was not recorded is left out."""
    kept = trials.loc[trials["status"] != "error", column].dropna()
    return sorted({str(int(value)) if isinstance(value, float) else str(value) for value in kept} - {""})


# What came out.


def _cells(answers: tuple[Answer, Answer], other_data: set[str]) -> list[ComparedCell]:
    mine, theirs = _methods(answers[0]), _methods(answers[1])
    scores = [{one.scenario: one.score for one in answer.scenarios} for answer in answers]
    names = dict.fromkeys(name for a in answers for name in (a.objective, *limited(a)))
    shared = [cell for cell in mine if cell in theirs]
    differences = [[difference(name, mine[cell].test, theirs[cell].test) for name in names] for cell in shared]
    for place in range(len(names)):
        corrected = holm({str(n): found[place].p_value for n, found in enumerate(differences)})
        for n, found in enumerate(differences):
            found[place] = replace(found[place], p_holm=corrected[str(n)])
    cells = []
    for (scenario, method), found in zip(shared, differences, strict=True):
        notes = []
        if scores[0][scenario] != scores[1][scenario]:
            notes.append(f"the score is {scores[0][scenario]} in the first run and {scores[1][scenario]} in the second")
        if scenario.partition("/")[0] in other_data:
            notes.append("the data differ")
        given = mine[scenario, method].hyperparameters, theirs[scenario, method].hyperparameters
        cells.append(ComparedCell(scenario, method, notes, *given, found))
    return cells


def difference(metric: str, first: Measured | None, second: Measured | None) -> Difference:
    """Return how a metric differs between two measurements on test, the second less the first.

    Paired by seed (Student 1908) if two seeds or more are shared, else by the two samples (Welch 1947).
    """
    mine, theirs = _by_seed(metric, first), _by_seed(metric, second)
    means = _mean(mine.values()), _mean(theirs.values())
    shared = [seed for seed in mine if seed in theirs]
    if len(shared) >= 2:
        paired: Comparison = compare(theirs, {"": mine})[""]
        n = (paired.n_seeds, paired.n_seeds)
        return Difference(metric, *means, paired.difference, paired.interval, "paired", n, paired.p_value, math.nan)
    interval, p_value = welch([*mine.values()], [*theirs.values()])
    test: Test = "none" if math.isnan(p_value) else "Welch"
    return Difference(metric, *means, means[1] - means[0], interval, test, (len(mine), len(theirs)), p_value, math.nan)


def _by_seed(metric: str, measured: Measured | None) -> dict[int, float]:
    if measured is None or metric not in measured.numbers:
        return {}
    return dict(zip(measured.seeds, measured.numbers[metric].values, strict=True))


def _mean(values: Any) -> float:
    found = list(values)
    return fmean(found) if found else math.nan


def welch(first: Sequence[float], second: Sequence[float]) -> tuple[tuple[float, float], float]:
    """Return the 95 % confidence interval of the second mean less the first, and the p-value (Welch 1947).

    NaN if one of them has fewer than two values, or a value is not known.
    """
    spreads = Spread(tuple(first)), Spread(tuple(second))
    if any(math.isnan(one.std) for one in spreads):
        return (math.nan, math.nan), math.nan
    between = spreads[1].mean - spreads[0].mean
    errors = [one.std**2 / len(one.values) for one in spreads]
    if sum(errors) == 0:
        return (between, between), 1.0 if between == 0 else 0.0
    freedom = sum(errors) ** 2 / sum(e**2 / (len(one.values) - 1) for e, one in zip(errors, spreads, strict=True))
    half = float(stdtrit(freedom, (1 + LEVEL) / 2)) * math.sqrt(sum(errors))
    return (between - half, between + half), 2.0 * float(stdtr(freedom, -abs(between) / math.sqrt(sum(errors))))
