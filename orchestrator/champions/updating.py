"""The next task: a model learns it with the method's kept state, and R gets a row and a column."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from orchestrator.champions.card import Card, Event, MemberCard, TaskCard, now, versions
from orchestrator.champions.evaluation import evaluation_sets, hash_of, kept
from orchestrator.champions.folder import (
    EVALUATION,
    FROZEN,
    README,
    check_target,
    member_files,
    member_state,
    write_folder,
)
from orchestrator.champions.model import OWN_STREAM, Model, as_examples, frozen_features, load_model, own_settings
from orchestrator.champions.model_card import model_card
from orchestrator.champions.next_task import NextTask, read_next
from orchestrator.core.errors import RunFolderError, UsageError
from orchestrator.core.placement import Placement
from orchestrator.core.scores import Measurement, Score
from orchestrator.spec.trial_spec import TrialSpec
from orchestrator.storage.base import ignore
from orchestrator.streams.datasets import PhaseData
from orchestrator.streams.stream import Stream
from orchestrator.trial.evaluation import Evaluator
from orchestrator.trial.result import TrialResult, counts_of, ranked_of
from orchestrator.trial.setup import learner_for, refuse_unplanned
from strategies import Learner, TaskData, TrialDivergedError, find_method


@dataclass(frozen=True)
class Updated:
    """What an update gave.

    Args:
        place: the folder of the new model.
        card: of the new model.
        notes: sentences that its user should know.
    """

    place: Path
    card: Card
    notes: tuple[str, ...]


class LongerStream(Stream):
    """The stream of a model with one task more; the held-out examples of earlier tasks are given.

    Args:
        card: of the model, with the new task.
        seed: of the member.
        new: the examples of the new task.
        earlier: held-out examples of each earlier task.
    """

    def __init__(self, card: Card, seed: int, new: NextTask, earlier: list[TaskData]) -> None:
        own, held_out = (labels * 0 + len(earlier) for labels in (new.train_labels, new.evaluation_labels))
        arrays = (new.train_inputs, new.train_labels, new.evaluation_inputs, new.evaluation_labels)
        data = PhaseData(*arrays, card.facts, *card.inputs.statistics, own, held_out)
        classes = [list(task.classes) for task in card.tasks]
        cpu = torch.device("cpu")
        super().__init__(OWN_STREAM, own_settings(card), card.trial.incremental_type, seed, data, cpu, classes)
        self._earlier, self._positive = earlier, card.positive_class

    @property
    def positive_class(self) -> str | None:
        """Return the class that average precision was for from the start."""
        return self._positive

    def evaluation(self, task: int) -> TaskData:
        """Return the held-out examples of `task`."""
        return self._earlier[task] if task < len(self._earlier) else super().evaluation(task)


def update_model(
    place: str | Path,
    data: Any,
    task: str,
    out: str | Path,
    data_dir: Path,
    test_data: Any = None,
    keep_evaluation: bool = False,
    plugins: Iterable[str] = (),
    placement: Placement = Placement(),  # noqa: B008 (frozen)
    say: Callable[[str], None] = ignore,
    searched: TrialSpec | None = None,
) -> Updated:
    """Learn a new task with a model, measure all tasks, and write the result as a new model folder.

    Args:
        place: the folder of the model.
        data: a table, a data frame or a folder of images with the examples of the new task.
        task: its name.
        out: the folder of the new model.
        data_dir: where torchvision's data sets are, for held-out examples that the model does not keep.
        test_data: held-out examples of the new task; by default a share of `data`, as in the sweep.
        keep_evaluation: keep all held-out examples in the folder; as the model does by default.
        plugins: code of one's own that may be imported.
        placement: threads.
        say: called with a line as it goes on.
        searched: a trial of a sweep over this update, which is learned like; by default as the model was.

    Raises:
        UsageError: if the model cannot learn a task like this.
        DataError: if the data do not fit the model, with every fault.
        RunFolderError: if it is no model, or training breaks off.
    """
    check_target(out)
    torch.set_num_threads(placement.threads)
    model = load_model(place, plugins)
    card = _as_searched(model.card, searched)
    refuse(card, task)
    new = read_next(card, data, task, test_data)
    earlier = evaluation_sets(card, model.files, data_dir, str(place))
    longer = _with_task(card, task, new)
    features, taken, learned = _features(model, new), [model.taken(one) for one in earlier], []
    for member in card.members:
        say(f"learning '{task}' with {card.trial.method}, seed {member.seed}")
        stream = LongerStream(longer, member.seed, features, taken)
        learned.append((*_learn(longer, member, stream, model.files, str(place)), stream))
    longer, last = _updated(longer, learned, _event(task, place, new), card, new)
    files = {README: model_card(longer).encode(), **{name: model.files[name] for name in (FROZEN,) if model.frozen}}
    files |= {name: own for found, learner, _ in learned for name, own in member_files(found, learner).items()}
    notes = list(new.notes)
    if keep_evaluation or EVALUATION in model.files:
        files[EVALUATION] = kept([*earlier, last])
    else:
        notes.append(f"the held-out examples of '{task}' are not kept: the next update needs --keep-evaluation now")
    return Updated(write_folder(out, longer, files), longer, tuple(notes))


def _features(model: Model, new: NextTask) -> NextTask:
    """Return the examples of a new task as the arrays of a stream: with a frozen network in front, its features."""
    if model.frozen is None:
        return new
    train, held_out = (
        frozen_features(model.card, model.frozen, arrays) for arrays in (new.train_inputs, new.evaluation_inputs)
    )
    return dataclasses.replace(new, train_inputs=train, evaluation_inputs=held_out)


def _as_searched(card: Card, searched: TrialSpec | None) -> Card:
    """Return the card with the hyper-parameters and training that a trial of a sweep over the update has."""
    if searched is None:
        return card
    taken = {"hyperparameters": searched.hyperparameters, "training": searched.training}
    return card.model_copy(update={"trial": card.trial.model_copy(update=taken)})


def _updated(
    longer: Card,
    learned: list[tuple[MemberCard, Learner, LongerStream]],
    event: Event,
    card: Card,
    new: NextTask,
) -> tuple[Card, TaskData]:
    """Return the card with what was learned, its new members and the event; and the new held-out examples."""
    stream = learned[0][2]
    held_out = dataclasses.replace(
        stream.evaluation(stream.n_tasks - 1), inputs=as_examples(card, new.evaluation_inputs)
    )
    last = longer.tasks[-1].model_copy(update={"evaluation": hash_of(held_out)})
    whole = longer.model_copy(
        update={
            "members": tuple(member for member, _, _ in learned),
            "tasks": (*longer.tasks[:-1], last),
            "output_names": tuple(stream.output_names),
            "history": (*card.history, event),
            "versions": versions(card.data.features),
        }
    )
    return whole, held_out


def refuse(card: Card, task: str) -> None:
    """Refuse a model that cannot learn a further task, or a task that it knows.

    Raises:
        UsageError: saying why, and what to do.
    """
    if task in card.task_names:
        raise UsageError(f"--task: the model has learned '{task}' already; name the new task otherwise")
    if not task.strip():
        raise UsageError("--task: expected the name of the new task, got nothing; write one")
    method = find_method(card.trial.method)
    if any(part.is_reference for part in method.parts.values()):
        raise UsageError(
            f"update: {card.trial.method} trains on the examples of all earlier tasks, which no model keeps; run the "
            "sweep on the longer data"
        )
    if card.was_trained_on_test:
        raise UsageError("update: this model was trained on its test split, so no drop can be measured; export another")
    if card.trial.incremental_type == "class" and card.trial.resolved_training().active_outputs == "all":
        raise UsageError(
            "update: this model was trained with active_outputs: all, whose outputs are all there from the start; run "
            "the sweep with active_outputs: seen, or on the longer data"
        )


def _with_task(card: Card, task: str, new: NextTask) -> Card:
    """Return the card with the new task, and its new classes."""
    added = TaskCard(
        name=task,
        classes=new.classes,
        n_train=len(new.train_labels),
        n_evaluation=len(new.evaluation_labels),
        evaluation="",
    )
    return card.model_copy(
        update={
            "tasks": (*card.tasks, added),
            "class_names": new.class_names,
            "split_sizes": (*card.split_sizes, *new.split_sizes) if card.split_sizes else (),
        }
    )


def _learn(
    card: Card, member: MemberCard, stream: LongerStream, files: dict[str, bytes], where: str
) -> tuple[MemberCard, Learner]:
    """Return a member that has learned the last task, measured on all, and its learner.

    Raises:
        RunFolderError: if training diverges.
        UsageError: if the method refuses the longer stream.
    """
    spec = card.trial.model_copy(update={"seed": member.seed})
    try:
        learner = learner_for(spec, stream, torch.device("cpu"), planned_tasks=card.planned_tasks)
        refuse_unplanned(spec.method, learner.strategies, card.planned_tasks, stream.n_tasks)
    except ValueError as error:
        raise UsageError(f"update: {error}") from error
    learner.load_state_dict(member_state(member, files, where))
    new, evaluator = stream.n_tasks - 1, Evaluator(stream, learner, spec.ranked_scores)
    before = evaluator.measure(new) if spec.incremental_type == "domain" else None
    try:
        learner.learn(stream.train(new))
    except TrialDivergedError as error:
        raise RunFolderError(f"update: training diverged: {error}") from error
    row = [evaluator.measure(task) for task in range(stream.n_tasks)]
    result = member.trial_result
    assert result is not None  # a model without was refused
    longer = _longer(result, before, row, stream, evaluator)
    kept_bytes = float(sum(strategy.kept_bytes() for strategy in learner.strategies))
    n_parameters = float(learner.n_parameters)
    longer = dataclasses.replace(longer, costs={"kept_bytes": kept_bytes, "n_parameters": n_parameters})
    plain = dataclasses.asdict(longer)
    return member.model_copy(update={"result": plain, "equals_recorded": None}), learner


def _longer(
    result: TrialResult, before: Measurement | None, row: list[Measurement], stream: Stream, evaluator: Evaluator
) -> TrialResult:
    """Return a result with a row for the new task and a column, of which only the last two cells are measured."""
    rows: list[list[Measurement | None]] = [[*cells, None] for cells in result.cells]
    rows[-1][-1] = before
    rows.append(list(row))
    return dataclasses.replace(
        result,
        n_correct=[[None if cell is None else sum(cell.n_right) for cell in cells] for cells in rows],
        n_examples=evaluator.n_examples(),
        task_names=list(stream.task_names),
        class_names=stream.class_names,
        measured=counts_of(rows),
        ranked=ranked_of(rows),
        chance_accuracy=None,
    )


def _event(task: str, place: str | Path, new: NextTask) -> Event:
    digest = hashlib.sha256()
    for array in (new.train_inputs, new.train_labels, new.evaluation_inputs, new.evaluation_labels):
        digest.update(array.tobytes())
    return Event(what="update", at=now(), task=task, source=str(place), data_hash=digest.hexdigest()[:16])


def drops(card: Card) -> dict[str, tuple[float, float]]:
    """Return task -> its score right after it was learned and now, as means over the members that were measured."""
    results = [result for member in card.members if (result := member.trial_result) is not None]
    matrices = [result.scores(Score.parse(card.score)) for result in results]
    if not matrices:
        return {}
    mean = np.mean(matrices, axis=0)
    return {name: (float(mean[i + 1, i]), float(mean[-1, i])) for i, name in enumerate(card.task_names)}
