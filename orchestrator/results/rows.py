"""Rows of the tables: made from what a trial leaves, and turned back into specs, matrices and outcomes."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from orchestrator.core.accuracy import intransigence
from orchestrator.core.canonical import canonical_json
from orchestrator.core.errors import RunFolderError, UsageError
from orchestrator.core.scores import ACCURACY, SCORES, Measurement, Score
from orchestrator.results.schema import TRIALS_SCHEMA
from orchestrator.results.tables import Table
from orchestrator.spec.trial_spec import TrialSpec
from orchestrator.trial.packed import from_text, unpack
from orchestrator.trial.result import TrialResult
from orchestrator.trial.stopping import StopRule

COLUMNS = tuple(name for name, kind in SCORES.items() if not kind.of_class)
"""Scores that are columns of the accuracy table; the others follow from its counts."""


def trial_row(
    spec: TrialSpec, suggestion: int, result: TrialResult, provenance: dict[str, Any], score: Score = ACCURACY
) -> dict[str, Any]:
    """Return the row of the trials table.

    Args:
        spec: what ran.
        suggestion: its number in its cell.
        result: how it ended.
        provenance: columns that the driver knows: revision, versions, spec hash, attempts.
        score: what R holds in its scenario.
    """
    own = dict(result.provenance)
    started = own.pop("started_at", None)
    return {
        **dict.fromkeys(TRIALS_SCHEMA.names),
        **provenance,
        **own,
        **result.costs,
        **result.metrics(score),
        "score": str(score),
        "constant_score": result.constant_score(score, spec.incremental_type == "task"),
        "untrained_score": untrained_score(result, score),
        "key": spec.key,
        "intransigence": math.nan,
        "chance_accuracy": result.chance_accuracy,
        "scenario": spec.scenario,
        "stream": spec.stream,
        "incremental_type": spec.incremental_type,
        "method": spec.shown_method,
        "phase": spec.phase,
        "suggestion": suggestion,
        "seed": spec.seed,
        "hyperparameters": canonical_json(spec.hyperparameters),
        "status": result.status,
        "reason": result.reason,
        "stopped_after": result.stopped_after,
        "stop_rule": result.stop_rule or None,
        "started_at": pd.Timestamp(started).to_pydatetime() if started else None,
        "details": canonical_json(result.details),
        "trial_spec": canonical_json(spec.model_dump(mode="json")),
    }


def untrained_score(result: TrialResult, score: Score) -> float:
    """Return the mean score of the untrained model over the tasks; NaN if any was not measured before training."""
    if result.status != "completed":
        return math.nan
    scores = result.scores(score)
    known = np.isfinite(np.diag(scores[1:]))
    return float(scores[0, known].mean()) if known.any() else math.nan


def accuracy_rows(
    spec: TrialSpec, suggestion: int, result: TrialResult, score: Score = ACCURACY
) -> list[dict[str, Any]]:
    """Return the rows of the accuracy table, one for each measured cell of R; none if the trial failed."""
    return [
        {
            **head_of(spec, suggestion),
            "after_task": after,
            "task": task,
            "accuracy": n_correct / result.n_examples[task],
            "n_correct": n_correct,
            "n_examples": result.n_examples[task],
            **_measured(result, after, task, score),
        }
        for after, row in enumerate(result.n_correct, start=-1)
        for task, n_correct in enumerate(row)
        if n_correct is not None
    ]


def outcome_rows(spec: TrialSpec, suggestion: int, result: TrialResult) -> list[dict[str, Any]]:
    """Return the rows of the table of outcomes; none unless a trial on the test split completed."""
    return [
        {
            **head_of(spec, suggestion),
            "after_task": after,
            "task": task,
            "task_name": result.task_names[task],
            "n_examples": result.n_examples[task],
            "right": from_text(text),
            "examples": result.examples[task],
        }
        for after, row in enumerate(result.right, start=-1)
        for task, text in enumerate(row)
        if text is not None
    ]


def right_of(outcomes: pd.DataFrame, key: str, task: int, after_task: int | None = None) -> NDArray[np.bool_]:
    """Return which held-out examples of a task a trial answered rightly, (N,) bool, in their order.

    Args:
        outcomes: the table of outcomes.
        key: of the trial.
        task: the task, from 0.
        after_task: the task, from 0, after which it was measured: the last one by default, or `task` itself.

    Raises:
        UsageError: if that was not kept.
    """
    rows = outcomes[(outcomes["key"] == key) & (outcomes["task"] == task)]
    found = rows[rows["after_task"] == (rows["after_task"].max() if after_task is None else after_task)]
    if found.empty:
        place = "" if after_task is None else f" after task {after_task}"
        raise UsageError(
            f"outcomes: trial '{key}' has none of task {task}{place}; they are kept of completed trials of the phase "
            "confirm, of each task right after it was learned and after the last task"
        )
    return unpack(found["right"].iloc[0], int(found["n_examples"].iloc[0]))


def head_of(spec: TrialSpec, suggestion: int) -> dict[str, Any]:
    """Return the columns that tell whose row it is, in each table but `trials`."""
    return {
        "key": spec.key,
        "scenario": spec.scenario,
        "method": spec.shown_method,
        "phase": spec.phase,
        "suggestion": suggestion,
        "seed": spec.seed,
    }


def _measured(result: TrialResult, after: int, task: int, score: Score) -> dict[str, Any]:
    """Return the columns of a cell of R that name its task and count its classes; none if they were not measured."""
    cell = result.cells[after + 1][task] if result.measured else None
    if cell is None:
        return {"score": _or_none(float(result.scores(score)[after + 1, task]))} if score == ACCURACY else {}
    return measured_columns(cell, result.class_names[task], result.task_names[task], score)


def measured_columns(cell: Measurement, classes: list[str], task_name: str, score: Score) -> dict[str, Any]:
    """Return the columns that name a task, and count and score what was measured on it.

    Args:
        cell: what was measured.
        classes: the class behind each output that competes once all tasks are seen, (C,) or more.
        task_name: name of the task.
        score: what R holds.
    """
    names = classes[: len(cell.n_true)]
    found = {kind: _or_none(cell.value(Score(kind), names)) for kind in COLUMNS}
    return found | {
        "task_name": task_name,
        "score": _or_none(cell.value(score, names)),
        "classes": names,
        "n_true": list(cell.n_true),
        "n_predicted": list(cell.n_predicted),
        "n_right": list(cell.n_right),
    }


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value


def scores_of(cells: pd.DataFrame, score: Score) -> NDArray[np.float64]:
    """Return a score (N,) of each row of `accuracy` or `evaluations`; NaN if undefined, or if it is not known any more.

    Args:
        cells: rows with the columns of lists.
        score: the score.
    """
    if score.kind in cells.columns:
        return cells[score.kind].to_numpy(dtype=float)
    columns = zip(cells["n_true"], cells["n_predicted"], cells["n_right"], cells["classes"], strict=True)
    return np.array(
        [
            math.nan if true is None else Measurement(true, predicted, right).value(score, list(names))
            for true, predicted, right, names in columns
        ],
        dtype=float,
    )


def matrices_of(cells: pd.DataFrame, scores: Iterable[Score]) -> dict[str, dict[Score, NDArray[np.float64]]]:
    """Return key -> score -> R (T + 1, T) from rows of the accuracy table with the columns of lists."""
    found: dict[str, dict[Score, NDArray[np.float64]]] = {}
    values = {score: scores_of(cells, score) for score in scores}
    afters, tasks = (cells[name].to_numpy(dtype=int) for name in ("after_task", "task"))
    for key, rows in cells.reset_index(drop=True).groupby("key").indices.items():
        n_tasks = int(tasks[rows].max()) + 1
        for score, column in values.items():
            matrix = np.full((n_tasks + 1, n_tasks), math.nan)
            matrix[afters[rows] + 1, tasks[rows]] = column[rows]
            found.setdefault(str(key), {})[score] = matrix
    return found


def matrix_of(accuracy: pd.DataFrame, key: str) -> pd.DataFrame:
    """Return a trial's R as papers print it: a row a task, a column an 'after', NaN if not measured.

    The index holds the tasks' names, or their numbers for a trial of before names were kept.
    """
    cells = accuracy[accuracy["key"] == key]
    matrix = cells.pivot(index="task", columns="after_task", values="score")
    names = cells.drop_duplicates("task").set_index("task")["task_name"]
    if names.notna().all() and names.is_unique:
        matrix.index = pd.Index([names[task] for task in matrix.index], name="task")
    return matrix


def intransigence_of(trials: pd.DataFrame, accuracy: pd.DataFrame) -> NDArray[np.float64]:
    """Return the intransigence of each trial (N,).

    It is NaN unless `joint` completed on the same scenario, phase and seed.

    Args:
        trials: the trials table, N rows.
        accuracy: the accuracy table.
    """
    values = np.full(len(trials), np.nan)
    joint = trials[(trials["method"] == "joint") & (trials["status"] == "completed")]
    same = ["scenario", "phase", "seed"]
    if joint.empty:
        return values
    learned = accuracy[accuracy["after_task"] == accuracy["task"]].sort_values("task", kind="stable")
    scores, rows = learned["score"].to_numpy(dtype=float), learned.groupby("key", sort=False).indices
    diagonals = {key: scores[own] for key, own in rows.items()}
    joint = joint[joint["key"].isin(diagonals.keys())]
    ceilings = dict(zip(joint[same].itertuples(index=False, name=None), joint["key"], strict=True))
    for index, (*place, key) in enumerate(trials[[*same, "key"]].itertuples(index=False, name=None)):
        ceiling, own = diagonals.get(ceilings.get(tuple(place), "")), diagonals.get(key)
        if ceiling is not None and own is not None and len(own) == len(ceiling):
            values[index] = intransigence(own, ceiling)
    return values


def with_hyperparameters(trials: pd.DataFrame) -> pd.DataFrame:
    """Return the trials table with a column `hp.NAME` for each hyper-parameter; empty where a method has none such."""
    values = pd.DataFrame([load_json(text) for text in trials["hyperparameters"]], trials.index)
    return trials.join(values.add_prefix("hp."))


def recorded_spec(trials: Table, key: str, text: str) -> TrialSpec:
    """Return the spec in the row of the trial `key`; a run folder from elsewhere may hold anything there.

    Raises:
        RunFolderError: if the text is not a trial spec, or is that of another trial.
    """
    try:
        spec = TrialSpec.model_validate_json(text)
    except ValueError as error:
        raise odd_spec(trials, key, f"one with faults ({str(error).splitlines()[0][:120]})") from error
    if spec.key != key:
        raise odd_spec(trials, key, f"that of trial '{spec.key}'")
    return spec


def recorded_rule(trials: Table, row: Mapping[str, Any]) -> StopRule | None:
    """Return the rule that travelled with a trial, None if it had none.

    Raises:
        RunFolderError: if its row holds something else.
    """
    text = row["stop_rule"]
    if not isinstance(text, str):
        return None
    try:
        return StopRule.from_json(text)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise RunFolderError(
            f"{trials.file_of(row['key'])}: expected a rule in 'stop_rule', got one with faults "
            f"({str(error).splitlines()[0][:120]}); delete the file and run the sweep again: it repeats the trials of "
            "that file"
        ) from error


def odd_spec(trials: Table, key: str, found: str) -> RunFolderError:
    """Return the error for a row whose column `trial_spec` holds something else than the spec of the trial `key`."""
    return RunFolderError(
        f"{trials.file_of(key)}: expected the spec of trial '{key}' in 'trial_spec', got {found}; delete the file and "
        "run the sweep again: it repeats the trials of that file"
    )


def load_json(text: Any) -> dict[str, Any]:
    """Return the mapping in a JSON column, empty if there is none."""
    value = json.loads(text) if isinstance(text, str) and text else {}
    return value if isinstance(value, dict) else {}
