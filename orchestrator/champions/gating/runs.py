"""What a gate looks at, from two run folders: the confirm trials of what each recommends, paired by seed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestrator.champions.gating.models import COSTS, scores_asked
from orchestrator.core.accuracy import from_its_start
from orchestrator.core.errors import UsageError
from orchestrator.core.scores import ACCURACY, Score
from orchestrator.core.text import nearest
from orchestrator.gating.evidence import Answers, Cost, ModelEvidence, ModelTask, RunEvidence, RunTask
from orchestrator.gating.policy import Policy
from orchestrator.results.rows import matrices_of
from orchestrator.results.run import Run


@dataclass(frozen=True)
class _Side:
    """What one run has: its tasks, R by seed and score, costs by seed, and the key of each seed's trial."""

    tasks: list[str]
    matrices: Mapping[int, Mapping[Score, NDArray[np.float64]]]
    costs: Mapping[str, list[float]]
    keys: Mapping[int, str]


def run_evidence(
    champion: Run, challenger: Run, policy: Policy, scenario: str | None = None, method: str | None = None
) -> RunEvidence:
    """Return the scores of what two runs recommend, on the test split, by seed.

    Args:
        champion: the run of the model in use.
        challenger: the other one.
        policy: which scores are looked at.
        scenario: the only one that both have by default.
        method: by default what each recommends.

    Raises:
        UsageError: if they have no scenario in common, or one has nothing to compare.
    """
    name = _scenario(champion, challenger, scenario)
    default = challenger.spec.score_of(name)
    scores = scores_asked(policy, default)
    one, other = (
        _side(champion, "--champion", name, method, scores),
        _side(challenger, "--challenger", name, method, scores),
    )
    tasks = [*other.tasks, *(task for task in one.tasks if task not in other.tasks)]
    by_score = {score: tuple(_task(task, one, other, score) for task in tasks) for score in scores}
    others = {str(score): found for score, found in by_score.items() if score != default}
    costs = {cost: Cost(_largest(one, cost), _largest(other, cost)) for cost in COSTS}
    return RunEvidence(default, by_score[default], others, costs)


def example_evidence(
    champion: Run, challenger: Run, policy: Policy, scenario: str | None = None, method: str | None = None
) -> ModelEvidence:
    """Return which examples of the test split the median trials of two runs answered rightly, as if they were models.

    Raises:
        UsageError: as for `run_evidence`, or if a score but accuracy is asked for: only right and wrong is kept.
    """
    name = _scenario(champion, challenger, scenario)
    scores = scores_asked(policy, challenger.spec.score_of(name))
    if scores != [ACCURACY]:
        shown = ", ".join(str(score) for score in scores)
        raise UsageError(
            f"--by examples: runs keep which answers were right, which tells accuracy, no {shown}; export models"
        )
    sides = [
        _side(run, option, name, method, scores)
        for run, option in ((champion, "--champion"), (challenger, "--challenger"))
    ]
    one, other = (_Median.of(run, side) for run, side in zip((champion, challenger), sides, strict=True))
    tasks = [*sides[1].tasks, *(task for task in sides[0].tasks if task not in sides[1].tasks)]
    costs = {cost: Cost(_largest(sides[0], cost), _largest(sides[1], cost)) for cost in COSTS}
    return ModelEvidence(ACCURACY, tuple(_examples(task, one, other) for task in tasks), costs)


@dataclass(frozen=True)
class _Median:
    """The median trial of a run's confirm seeds: task -> hash of its examples, which were right, and R's diagonal."""

    tasks: Mapping[str, tuple[str, NDArray[np.bool_], float]]

    @classmethod
    def of(cls, run: Run, side: _Side) -> _Median:
        ranked = sorted(side.matrices, key=lambda seed: (float(np.nanmean(side.matrices[seed][ACCURACY][-1])), seed))
        seed = ranked[(len(ranked) - 1) // 2]
        key, table = side.keys[seed], run.example_outcomes()
        rows = table[(table["key"] == key) & (table["after_task"] == len(side.tasks) - 1)]
        hashes = dict(zip(rows["task"].astype(int), rows["examples"], strict=True))
        matrix = from_its_start(side.matrices[seed][ACCURACY])
        return cls(
            {
                name: (str(hashes[index]), run.right_examples(key, index), float(matrix[index + 1, index]))
                for index, name in enumerate(side.tasks)
                if index in hashes
            }
        )


def _examples(name: str, champion: _Median, challenger: _Median) -> ModelTask:
    """Return a task of two classes, `right` and `wrong`, of which every example is of the first."""
    mine, theirs = challenger.tasks.get(name), champion.tasks.get(name)
    reason = ""
    if mine is None or theirs is None:
        who = "challenger" if mine is None else "champion"
        reason = f"the {who} has kept no outcomes of it"
    elif mine[0] != theirs[0]:
        reason = "the two runs were judged by other examples of it"
    n = len(mine[1]) if mine is not None else 0
    answers = [
        None if reason or one is None else Answers((~one[1]).astype(np.int64), learned={str(ACCURACY): one[2]})
        for one in (theirs, mine)
    ]
    labels = np.zeros(n, dtype=np.int64)
    return ModelTask(name, theirs is None, labels, ("right", "wrong"), answers[0], answers[1], reason)


def _scenario(champion: Run, challenger: Run, scenario: str | None) -> str:
    shared = [name for name in challenger.spec.scenarios if name in champion.spec.scenarios]
    if scenario is None and len(shared) == 1:
        return shared[0]
    if scenario in shared and scenario is not None:
        return scenario
    if not shared:
        raise UsageError("gate: the two runs have no scenario in common; compare runs of the same stream and type")
    if scenario is None:
        raise UsageError(f"--scenario: both runs have {', '.join(shared)}; name one")
    raise UsageError(f"--scenario: the two runs do not both have '{scenario}'; {nearest(scenario, shared)}")


def _side(run: Run, option: str, scenario: str, method: str | None, scores: Sequence[Score]) -> _Side:
    answer = run.answer().scenario(scenario)
    name = method if method is not None else answer.recommended
    if name is None:
        raise UsageError(
            f"{option}: '{run.where}' recommends nothing in {scenario} ({answer.status}); name a method with --method"
        )
    methods = {one.method: one for one in answer.methods}
    if name not in methods:
        raise UsageError(f"--method: '{run.where}' has no method '{name}' in {scenario}; {nearest(name, methods)}")
    trials = run.tables.trials.read()
    own = trials[
        (trials["scenario"] == scenario)
        & (trials["method"] == name)
        & (trials["phase"] == "confirm")
        & (trials["status"] == "completed")
        & (trials["suggestion"] == (methods[name].suggestion if methods[name].suggestion is not None else -1))
    ]
    if own.empty:
        raise UsageError(f"{option}: '{run.where}' has measured nothing of {name} in {scenario} on the test split")
    cells = run.tables.accuracy.read(with_lists=True)
    cells = cells[cells["key"].isin(set(own["key"]))]
    first = cells[cells["key"] == own["key"].iloc[0]].drop_duplicates("task").sort_values("task")
    names = [task if isinstance(task, str) else str(index) for index, task in enumerate(first["task_name"])]
    found = matrices_of(cells, scores)
    seeds = dict(zip(own["key"], own["seed"].astype(int).tolist(), strict=True))
    matrices = {seed: found[key] for key, seed in seeds.items() if key in found}
    keys = {seed: key for key, seed in seeds.items()}
    return _Side(names, matrices, {cost: own[cost].dropna().tolist() for cost in COSTS}, keys)


def _task(name: str, champion: _Side, challenger: _Side, score: Score) -> RunTask:
    values: list[dict[int, float]] = []
    for side in (champion, challenger):
        index = side.tasks.index(name) if name in side.tasks else None
        values += [{} if index is None else _by_seed(side, score, index, learned) for learned in (False, True)]
    reason = "" if name in challenger.tasks else "the challenger does not know it"
    return RunTask(name, name not in champion.tasks, values[0], values[2], values[1], values[3], missing=reason)


def _by_seed(side: _Side, score: Score, index: int, learned: bool) -> dict[int, float]:
    whole = {seed: from_its_start(of[score]) for seed, of in side.matrices.items()}
    cells = {seed: matrix[index + 1 if learned else -1, index] for seed, matrix in whole.items()}
    return {seed: float(value) for seed, value in cells.items() if math.isfinite(float(value))}


def _largest(side: _Side, cost: str) -> float | None:
    return max(side.costs[cost]) if side.costs[cost] else None
