"""What a gate looks at, from two run folders: the confirm trials of what each recommends, paired by seed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestrator.champions.gating.models import COSTS, scores_asked
from orchestrator.core.errors import UsageError
from orchestrator.core.scores import Score
from orchestrator.core.text import nearest
from orchestrator.gating.evidence import Cost, RunEvidence, RunTask
from orchestrator.gating.policy import Policy
from orchestrator.results.rows import matrices_of
from orchestrator.results.run import Run


@dataclass(frozen=True)
class _Side:
    """What one run has: its tasks, R by seed and score, and costs by seed."""

    tasks: list[str]
    matrices: Mapping[int, Mapping[Score, NDArray[np.float64]]]
    costs: Mapping[str, list[float]]


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
    return _Side(names, matrices, {cost: own[cost].dropna().tolist() for cost in COSTS})


def _task(name: str, champion: _Side, challenger: _Side, score: Score) -> RunTask:
    values: list[dict[int, float]] = []
    for side in (champion, challenger):
        index = side.tasks.index(name) if name in side.tasks else None
        values += [{} if index is None else _by_seed(side, score, index, learned) for learned in (False, True)]
    reason = "" if name in challenger.tasks else "the challenger does not know it"
    return RunTask(name, name not in champion.tasks, values[0], values[2], values[1], values[3], missing=reason)


def _by_seed(side: _Side, score: Score, index: int, learned: bool) -> dict[int, float]:
    cells = {seed: of[score][index + 1 if learned else -1, index] for seed, of in side.matrices.items()}
    return {seed: float(value) for seed, value in cells.items() if math.isfinite(float(value))}


def _largest(side: _Side, cost: str) -> float | None:
    return max(side.costs[cost]) if side.costs[cost] else None
