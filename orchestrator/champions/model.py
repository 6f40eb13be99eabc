"""A model from a folder: classes and probabilities of new examples, and what it answers to held-out ones."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from orchestrator.champions.card import Card, MemberCard
from orchestrator.champions.folder import member_state, read_folder
from orchestrator.core.errors import OrchestratorError, RunFolderError, UsageError
from orchestrator.core.text import nearest
from orchestrator.models.settings import MODELS
from orchestrator.spec.loading import load_plugins
from orchestrator.streams.datasets import Inputs, PhaseData
from orchestrator.streams.settings import StreamSettings
from orchestrator.streams.stream import Stream, to_inputs
from orchestrator.trial.setup import learner_for
from strategies import Learner, MethodError, find_method

_ROWS_AT_ONCE = 1024
OWN_STREAM = "model"
"""The name of a stream that is made of a model's own tasks; no built-in stream has it, so nothing is transformed."""


class Model:
    """A trained model, or several whose probabilities are averaged.

    Args:
        card: what is known of it.
        members: a learner for each of the card's members, with its trained state.
        files: content of the other files of its folder.
    """

    def __init__(self, card: Card, members: list[Learner], files: dict[str, bytes]) -> None:
        self.card = card
        self.members = members
        self.files = files

    @property
    def needs_task(self) -> bool:
        """Return whether an example's task must be known: in `task`, or where an output is another class in each."""
        own = {task.classes for task in self.card.tasks}
        kind = self.card.trial.incremental_type
        return kind == "task" or (kind == "domain" and len(own) > 1)

    def classes_of(self, task: int) -> list[str]:
        """Return the class behind each column of `logits` for a task."""
        if self.card.trial.incremental_type == "class":
            return list(self.card.output_names)
        own = [self.card.class_names[c] for c in self.card.tasks[task].classes]
        width = max(len(one.classes) for one in self.card.tasks)
        if self.card.trial.incremental_type == "task" or len(own) == width:
            return own
        return [*own, *(f"output {n}" for n in range(len(own), width))]

    def task_index(self, name: str | None) -> int:
        """Return the index of a task by name; if no example's task must be known, that of the last task.

        Raises:
            UsageError: if the model has no such task, or the name is missing and needed.
        """
        names = self.card.task_names
        if name is None:
            if self.needs_task:
                raise UsageError(
                    f"--task: this model must know the task of the examples; it learned {', '.join(names)}: name one"
                )
            return len(names) - 1
        if name not in names:
            raise UsageError(f"--task: the model has learned no task '{name}'; {nearest(name, names)}")
        return names.index(name)

    def logits(self, inputs: Tensor, task: int, member: int = 0) -> Tensor:
        """Return the logits (N, C) float32 of a member, for inputs (N, *S) float32 of a task."""
        learner = self.members[member]
        learner.network.eval()
        return torch.cat([learner.logits(part, task) for part in torch.split(inputs, _ROWS_AT_ONCE)])

    def probabilities(self, inputs: Tensor, task: int) -> NDArray[np.float64]:
        """Return the probability of each class (N, C): the softmax of the logits, averaged over the members."""
        if not len(inputs):
            return np.zeros((0, len(self.classes_of(task))))
        each = [torch.softmax(self.logits(inputs, task, n).double(), 1) for n in range(len(self.members))]
        found: NDArray[np.float64] = torch.stack(each).mean(0).numpy()
        return found

    def answers(self, inputs: Tensor, task: int) -> NDArray[np.int64]:
        """Return the column (N,) of the most probable class; of one member, that of the largest logit."""
        if not len(inputs):
            return np.zeros(0, dtype=np.int64)
        if len(self.members) > 1:
            return np.asarray(self.probabilities(inputs, task).argmax(1), dtype=np.int64)
        logits = self.logits(inputs, task)
        answers = (logits[:, 1] > logits[:, 0]).long() if logits.shape[1] == 2 else logits.argmax(1)
        return np.asarray(answers, dtype=np.int64)

    def to_inputs(self, arrays: Inputs) -> Tensor:
        """Return examples as the networks take them (N, *S) float32: of a table's features, or pixels."""
        card = self.card
        return to_inputs(arrays, card.trial.stream_settings, card.facts, card.inputs.statistics)

    def predict(self, data: Any, task: str | None = None) -> Any:
        """Return a data frame with `class`, its `probability`, and `p.CLASS` for each class.

        Args:
            data: a data frame, the path of a table, or a folder or array of images, as the model was trained on.
            task: name of the task of all examples, if the model must know it.

        Raises:
            DataError: if the data do not fit the model, with every fault.
            UsageError: if the task is missing or unknown.
        """
        from orchestrator.champions.prediction import predict

        return predict(self, data, task)


def load_model(place: str | Path, plugins: Iterable[str] = ()) -> Model:
    """Return the model in a folder that `export` or `update` wrote; no code of the folder's runs, no pickle is read.

    Args:
        place: the folder.
        plugins: each `module:Class` that may be imported: a network or method of one's own that the model was made of.

    Raises:
        RunFolderError: if it is no model, damaged, or made of what this version has not.
    """
    card, files = read_folder(place)
    _check_code(card, place, list(plugins))
    try:
        members = [restored(card, member, files, str(place)) for member in card.members]
    except OrchestratorError:
        raise
    except Exception as error:  # tensors and card of a stranger may not fit each other in any way
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise RunFolderError(f"the model '{place}' is damaged: its parts do not fit each other ({reason})") from error
    return Model(card, members, files)


def restored(card: Card, member: MemberCard, files: dict[str, bytes], where: str) -> Learner:
    """Return the learner of a member with its trained state, for the tasks of the card."""
    learner = learner_for(
        card.trial.model_copy(update={"seed": member.seed}),
        empty_stream(card, member.seed),
        torch.device("cpu"),
        planned_tasks=card.planned_tasks,
    )
    learner.load_state_dict(member_state(member, files, where))
    return learner


def empty_stream(card: Card, seed: int) -> Stream:
    """Return a stream of a card's tasks, without examples."""
    shape = card.inputs.shape
    none = np.zeros((0, *(shape[1:] if len(shape) == 3 and shape[0] == 1 else shape)), dtype=np.float32)
    labels = np.zeros(0, dtype=np.int64)
    data = PhaseData(none, labels, none, labels, card.facts, *card.inputs.statistics, labels, labels)
    classes = [list(task.classes) for task in card.tasks]
    return Stream(OWN_STREAM, own_settings(card), card.trial.incremental_type, seed, data, torch.device("cpu"), classes)


def own_settings(card: Card) -> StreamSettings:
    """Return the settings of a stream of the model's own tasks: how examples become inputs, and nothing else."""
    settings = card.trial.stream_settings
    return StreamSettings(normalisation=settings.normalisation, padding=settings.padding)


def refuse_unknown_code(name: str, plugins: Collection[str], who: str) -> None:
    """Refuse a network that is code of somebody's own, unless the user has named it.

    Raises:
        RunFolderError: saying how to allow it.
    """
    if name not in MODELS and name not in plugins:
        raise RunFolderError(
            f"{who} has the network '{name}', code that its folder names; to import it, pass --plugin {name}"
        )


def _check_code(card: Card, place: str | Path, plugins: list[str]) -> None:
    """Refuse a model whose network or method is unknown, or code that the user did not allow.

    Raises:
        RunFolderError: saying which, and what to do.
    """
    name = card.trial.model.name
    load_plugins(plugin for plugin in plugins if plugin != name)
    refuse_unknown_code(name, plugins, f"the model '{place}'")
    try:
        versions = find_method(card.trial.method).versions
    except MethodError as error:
        raise RunFolderError(f"the model '{place}': {error}") from error
    if versions != card.trial.strategy_versions:
        raise RunFolderError(
            f"the model '{place}' was trained by {card.trial.strategy_versions} and this version has {versions}; "
            "export it again"
        )
