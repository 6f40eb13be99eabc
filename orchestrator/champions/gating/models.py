"""What a gate looks at, from two model folders: what both answer to the same held-out examples, task by task."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from orchestrator.champions.card import Card
from orchestrator.champions.evaluation import evaluation_sets
from orchestrator.champions.model import Model
from orchestrator.champions.new_data import read_rows
from orchestrator.core.errors import DataError, UsageError
from orchestrator.core.scores import Score
from orchestrator.gating.evidence import Answers, Cost, ModelEvidence, ModelTask
from orchestrator.gating.policy import Policy
from orchestrator.models.frozen import example_settings
from orchestrator.streams.sources.order import quoted, shown
from orchestrator.trial.evaluation import log_odds
from strategies import TaskData

COSTS = ("kept_bytes", "n_parameters")


def scores_asked(policy: Policy, default: Score) -> list[Score]:
    """Return every score that the checks of a policy look at."""
    named = [Score.parse(check.score) for check in policy.checks if check.score is not None]
    return list(dict.fromkeys([default, *named]))


def model_evidence(
    champion: Model,
    challenger: Model,
    policy: Policy,
    data_dir: Path,
    places: tuple[str, str],
    table: str | None = None,
) -> ModelEvidence:
    """Return what two models answer to the same examples.

    These are the challenger's held-out ones. Of a task that both learned, the champion must have been judged by them.

    Args:
        champion: the model in use.
        challenger: the one that would replace it.
        policy: which scores are looked at.
        data_dir: where torchvision's data sets are.
        places: the two folders, for messages.
        table: labelled rows that both answer instead, with a column of tasks if the models' data had one.

    Raises:
        DataError: if the examples are missing or have changed.
        UsageError: if the models do not answer the same question.
    """
    if champion.card.trial.incremental_type != challenger.card.trial.incremental_type:
        kinds = [model.card.trial.incremental_type for model in (champion, challenger)]
        raise UsageError(
            f"gate: the champion is for {kinds[0]} and the challenger for {kinds[1]}; compare like with like"
        )
    default = Score.parse(challenger.card.score)
    scores = scores_asked(policy, default)
    if table is not None:
        tasks = _from_table(champion, challenger, scores, table)
    else:
        tasks = _from_held_out(champion, challenger, scores, data_dir, places[1])
    costs = {name: Cost(_cost(champion, name), _cost(challenger, name)) for name in COSTS}
    return ModelEvidence(default, tuple(tasks), costs)


def _from_held_out(
    champion: Model, challenger: Model, scores: Sequence[Score], data_dir: Path, where: str
) -> list[ModelTask]:
    sets = evaluation_sets(challenger.card, challenger.files, data_dir, where)
    known = {task.name: task for task in champion.card.tasks}
    found = []
    for index, (task, data) in enumerate(zip(challenger.card.tasks, sets, strict=True)):
        before = known.get(task.name)
        reason = ""
        if before is not None and before.evaluation != task.evaluation:
            reason = "the two models were judged by other examples of it; give --data, which both then answer"
        elif before is None and not _read_alike(champion, challenger):
            reason = (
                "the two models encode examples differently; give --data, which each then encodes as it was trained"
            )
        taken = (data, data) if reason else (champion.taken(data), challenger.taken(data))
        found.append(_task(champion, challenger, task.name, taken, index, scores, reason))
    none = np.zeros(0, dtype=np.int64)
    gone = [name for name in known if name not in challenger.card.task_names]
    return [*found, *(ModelTask(name, False, none, (), None, None, "the challenger does not know it") for name in gone)]


def _read_alike(champion: Model, challenger: Model) -> bool:
    """Return whether an example as one model takes it is what the other takes."""
    return _reading(champion.card) == _reading(challenger.card)


def _reading(card: Card) -> tuple[object, ...]:
    """Return how an example becomes what the first network takes, the frozen one in front if there is one."""
    settings, facts = example_settings(card.trial.stream_settings), card.example_facts
    statistics = (card.inputs.mean, card.inputs.std) if settings.normalisation == "standard" else ()
    return facts.shape, facts.maximum, card.columns, settings.padding, statistics


def _from_table(champion: Model, challenger: Model, scores: Sequence[Score], table: str) -> list[ModelTask]:
    if champion.card.is_image or challenger.card.is_image:
        raise UsageError("--data: models of images are compared on the held-out examples that they keep; leave it out")
    new = [read_rows(model.card, table, "--data") for model in (champion, challenger)]
    frame, settings = new[1].table.frame, challenger.card.data
    if settings.label not in frame.columns:
        raise DataError(f"--data: the table has no column {quoted(settings.label)}, which holds the classes")
    rows = np.intersect1d(new[0].rows, new[1].rows)
    names = frame[settings.label].map(shown, na_action="ignore").to_numpy()[rows]
    known = list(challenger.card.class_names)
    if odd := sorted({str(name) for name in names} - set(known)):
        raise DataError(f"--data: holds the class {quoted(odd[0])}, which the challenger does not know; drop its rows")
    has_tasks = settings.task is not None and settings.task in frame.columns and settings.n_tasks is None
    stages = frame[settings.task].map(shown).to_numpy()[rows] if has_tasks else np.full(len(rows), "--data")
    found = []
    for stage in dict.fromkeys(stages):
        here = rows[stages == stage]
        index = _index_of(challenger, str(stage))
        labels = _columns(challenger, index, list(names[stages == stage]))
        data = [
            TaskData(index, model.to_inputs(one.inputs[np.searchsorted(one.rows, here)]), labels, index)
            for model, one in zip((champion, challenger), new, strict=True)
        ]
        found.append(_task(champion, challenger, str(stage), (data[0], data[1]), index, scores, ""))
    return found


def _index_of(model: Model, task: str) -> int:
    names = model.card.task_names
    if task in names:
        return names.index(task)
    if model.needs_task:
        raise UsageError(f"--data: holds the task '{task}', which the challenger has not learned; drop its rows")
    return len(names) - 1


def _columns(model: Model, task: int, names: list[str]) -> Tensor:
    """Return the output index (N,) of each class by name, for a task of a model."""
    place = {name: column for column, name in enumerate(model.classes_of(task))}
    first = _first(model, task)
    if missing := next((name for name in names if name not in place), None):
        raise DataError(f"--data: the task '{model.card.task_names[task]}' has no class {quoted(missing)}")
    return torch.tensor([place[name] + first for name in names], dtype=torch.int64)


def _first(model: Model, task: int) -> int:
    layout = model.members[0].layout
    return layout.inference_range(task, layout.n_tasks)[0]


def _task(
    champion: Model,
    challenger: Model,
    name: str,
    data: tuple[TaskData, TaskData],
    index: int,
    scores: Sequence[Score],
    reason: str,
) -> ModelTask:
    """Return what both answer to the examples of a task, as each of them takes them."""
    is_new = name not in champion.card.task_names
    names = list(challenger.classes_of(index))
    labels = (data[1].labels - _first(challenger, index)).numpy()
    if reason:
        return ModelTask(name, is_new, labels, names, None, None, reason)
    mine = _answers(challenger, data[1].inputs, index, name, names, scores)
    theirs: Answers | None = None
    if not is_new or not champion.needs_task:
        own = champion.card.task_names.index(name) if not is_new else len(champion.card.tasks) - 1
        theirs = _answers(champion, data[0].inputs, own, name, names, scores)
    elif not any(score.is_ranked for score in scores):
        theirs = Answers(
            np.full(len(labels), len(names), dtype=np.int64)
        )  # it has no head for the task: no right answer
        names = [*names, "no answer"]
    if theirs is not None and set(theirs.log_odds) != set(mine.log_odds):
        return ModelTask(name, is_new, labels, names, None, mine, "the champion does not rank all of its classes")
    why = "" if theirs is not None else "the champion has no outputs for it"
    return ModelTask(name, is_new, labels, names, theirs, mine, why)


def _answers(model: Model, inputs: Tensor, task: int, name: str, names: list[str], scores: Sequence[Score]) -> Answers:
    """Return what a model answers, with classes as columns of `names`, to which unknown ones are added."""
    own = model.classes_of(task)
    for one in own:
        if one not in names:
            names.append(one)
    place = np.array([names.index(one) for one in own], dtype=np.int64)
    predicted: NDArray[np.int64] = place[model.answers(inputs, task)]
    odds: dict[int, NDArray[np.float64]] = {}
    if any(score.is_ranked for score in scores):
        odds = {int(place[column]): of for column, of in _odds(model, inputs, task, own).items()}
    return Answers(predicted, odds, _learned(model, name, scores))


def _odds(model: Model, inputs: Tensor, task: int, own: list[str]) -> dict[int, NDArray[np.float64]]:
    """Return column -> the odds of each example, as trials rank them."""
    if len(model.members) == 1:
        logits = model.logits(inputs, task).double()
    else:
        logits = torch.from_numpy(np.log(np.maximum(model.probabilities(inputs, task), 1e-300)))
    positive = model.card.positive_class
    if positive in own and logits.shape[1] == 2:
        column = own.index(positive)
        return {column: (logits[:, column] - logits[:, 1 - column]).numpy()}
    return dict(enumerate(log_odds(logits).T.contiguous().numpy()))


def _learned(model: Model, name: str, scores: Sequence[Score]) -> dict[str, float]:
    """Return score -> its value on a task right after it was learned, the mean over the members."""
    results = [result for member in model.card.members if (result := member.trial_result) is not None]
    if name not in model.card.task_names or not results:
        return {}
    index = model.card.task_names.index(name)
    found = {}
    for score in scores:
        if score.is_ranked and score.kind not in model.card.trial.ranked_scores:
            continue
        values = [float(result.scores(score)[index + 1, index]) for result in results]
        if np.isfinite(values).all():
            found[str(score)] = float(np.mean(values))
    return found


def _cost(model: Model, name: str) -> float | None:
    values = [result.costs.get(name) for member in model.card.members if (result := member.trial_result) is not None]
    known: Iterable[float] = [value for value in values if value is not None]
    return sum(known) if values and None not in values else None
