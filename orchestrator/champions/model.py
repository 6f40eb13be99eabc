"""A model from a folder: classes and probabilities of new examples, and what it answers to held-out ones."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from orchestrator.champions.card import Card, MemberCard
from orchestrator.champions.folder import FROZEN, member_state, read_folder
from orchestrator.champions.tensors import from_bytes, to_bytes
from orchestrator.core.errors import DataError, OrchestratorError, RunFolderError, UsageError
from orchestrator.core.text import nearest
from orchestrator.models.frozen import example_settings, features_of
from orchestrator.models.frozen_network import ROWS_AT_ONCE, FrozenNetwork, build_frozen
from orchestrator.models.settings import MODELS
from orchestrator.spec.loading import load_plugins
from orchestrator.streams.datasets import Inputs, PhaseData
from orchestrator.streams.settings import StreamSettings
from orchestrator.streams.stream import Stream, padded_shape, to_inputs
from orchestrator.trial.setup import learner_for
from strategies import Learner, MethodError, TaskData, find_method

_ROWS_AT_ONCE = 1024
_SAME = 1e-2
"""How far features of the same network may differ between two machines, as a share of the largest."""
OWN_STREAM = "model"
"""The name of a stream that is made of a model's own tasks; no built-in stream has it, so nothing is transformed."""


class Model:
    """A trained model, or several whose probabilities are averaged.

    Args:
        card: what is known of it.
        members: a learner for each of the card's members, with its trained state.
        files: content of the other files of its folder.
        frozen: the frozen network in front, whose features the networks take; None without one.
    """

    def __init__(
        self, card: Card, members: list[Learner], files: dict[str, bytes], frozen: FrozenNetwork | None = None
    ) -> None:
        self.card = card
        self.members = members
        self.files = files
        self.frozen = frozen

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
        """Return examples as the networks take them (N, *S) float32: of a table's features, or pixels.

        With a frozen network in front, these are its features, and the examples go through it.
        """
        if self.frozen is None:
            return as_examples(self.card, arrays)
        return normalised(self.card, torch.from_numpy(frozen_features(self.card, self.frozen, arrays)))

    def from_examples(self, examples: Tensor) -> Tensor:
        """Return what the networks take, given examples as `as_examples` returns them."""
        if self.frozen is None or not len(examples):
            return examples if self.frozen is None else torch.zeros(0, *self.card.inputs.shape)
        return normalised(self.card, torch.from_numpy(self.frozen.features(torch.split(examples, ROWS_AT_ONCE))))

    def taken(self, task: TaskData) -> TaskData:
        """Return held-out examples as the networks take them, given those that `evaluation_sets` returns."""
        return replace(task, inputs=self.from_examples(task.inputs))

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
    own = list(plugins)
    _check_code(card, place, own)
    frozen = load_frozen(card, files, str(place), own)
    try:
        members = [restored(card, member, files, str(place)) for member in card.members]
    except OrchestratorError:
        raise
    except Exception as error:  # tensors and card of a stranger may not fit each other in any way
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise RunFolderError(f"the model '{place}' is damaged: its parts do not fit each other ({reason})") from error
    return Model(card, members, files, frozen)


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


def as_examples(card: Card, arrays: Inputs) -> Tensor:
    """Return examples as the first network takes them (N, *S) float32: the frozen one in front, if there is one."""
    if card.frozen is None:
        return to_inputs(arrays, card.trial.stream_settings, card.facts, card.inputs.statistics)
    return to_inputs(arrays, example_settings(card.trial.stream_settings), card.example_facts, (0.0, 1.0))


def frozen_features(card: Card, frozen: FrozenNetwork, arrays: Inputs) -> NDArray[np.float32]:
    """Return the features (N, F) float32 of examples, before they are normalised."""
    if not len(arrays):
        return np.zeros((0, *card.inputs.shape), dtype=np.float32)
    return features_of(frozen, arrays, card.trial.stream_settings, card.example_facts)


def normalised(card: Card, features: Tensor) -> Tensor:
    """Return features (N, F) float32 of a frozen network as the networks take them."""
    if card.trial.stream_settings.normalisation == "unit":
        return features
    mean, std = (value if isinstance(value, float) else torch.tensor(value) for value in card.inputs.statistics)
    return (features - mean) / std


def frozen_bytes(frozen: FrozenNetwork, shape: tuple[int, ...]) -> bytes:
    """Return the file of a frozen network: its weights, and its features of two examples that are always the same.

    Args:
        frozen: the network.
        shape: of an example, with its padding.
    """
    probe = torch.from_numpy(frozen.features([_probe(shape)]))
    return to_bytes({"weights": dict(frozen.network.state_dict()), "probe": probe})


def _probe(shape: tuple[int, ...]) -> Tensor:
    return torch.rand((2, *shape), generator=torch.Generator().manual_seed(0))


def load_frozen(
    card: Card, files: Mapping[str, bytes], where: str, plugins: Collection[str] | None = None
) -> FrozenNetwork | None:
    """Return the frozen network in front of a model; None if it has none.

    Args:
        card: of the model.
        files: of its folder.
        where: the folder, for messages.
        plugins: code of one's own that may be imported; None for what the card names.

    Raises:
        RunFolderError: if it cannot be built here, its file is damaged, or it is another network than it was.
    """
    asked = card.data.features
    if asked is None:
        return None
    if plugins is not None and asked.is_own_class:
        refuse_unknown_code(asked.module, plugins, f"the model '{where}'")
    state = from_bytes(files[FROZEN], f"{where}/{FROZEN}")
    weights, probe = state.get("weights"), state.get("probe")
    is_sound = isinstance(weights, dict) and all(isinstance(value, Tensor) for value in weights.values())
    if not is_sound or not isinstance(probe, Tensor):
        raise RunFolderError(f"{where}/{FROZEN}: expected the weights of a network, got something else; export again")
    shape = padded_shape(card.example_shape, card.trial.stream_settings.padding)
    try:
        frozen = build_frozen(asked, shape, f"the model '{where}': features", weights)
        found = torch.from_numpy(frozen.features([_probe(shape)]))
    except DataError as error:
        raise RunFolderError(str(error)) from error
    scale = float(probe.abs().max()) if probe.numel() else 0.0
    if found.shape != probe.shape or float((found - probe).abs().max()) > _SAME * scale:
        raise RunFolderError(
            f"the model '{where}': features.module: {asked.module} gives other features than when it was exported; use "
            f"the code and the versions of then ({', '.join(f'{n} {v}' for n, v in card.versions.items())}), or export "
            "it again"
        )
    return frozen


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
    """Refuse a model whose network or method is unknown, or code of these that the user did not allow.

    Raises:
        RunFolderError: saying which, and what to do.
    """
    load_plugins(plugin for plugin in plugins if plugin not in card.own_networks)
    for name in card.own_networks:
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
