"""The card of a model folder: what was trained, on what, how well, and how new data become its inputs. Plain JSON."""

from __future__ import annotations

import json
import math
import platform
from dataclasses import replace
from datetime import UTC, datetime
from importlib import import_module
from typing import Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, ValidationError

from orchestrator.core.errors import RunFolderError
from orchestrator.core.version import __version__
from orchestrator.spec.trial_spec import TrialSpec
from orchestrator.streams.datasets import Statistic
from orchestrator.streams.facts import DatasetFacts
from orchestrator.streams.settings import FrozenFeatures, StreamSettings
from orchestrator.streams.sources.encoding import FittedColumn
from orchestrator.trial.result import TrialResult

FORMAT, VERSION = "continual-sweep model", 1
MOST_MEMBERS, MOST_CLASSES = 100, 100_000


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TaskCard(_Part):
    """A task that the model learned.

    Args:
        name: as its user knows it.
        classes: index in `class_names` of the class behind each of its outputs.
        n_train: its training examples.
        n_evaluation: its held-out examples.
        evaluation: hash of these, as the network takes them; empty if there are none that it was not trained on.
    """

    name: str
    classes: tuple[int, ...]
    n_train: int
    n_evaluation: int
    evaluation: str


class InputCard(_Part):
    """How an example becomes what the network takes.

    Args:
        shape: of an example before padding.
        maximum: the largest pixel value; 1 for a table.
        mean: of the training inputs: one number, one a channel, or one a feature.
        std: their standard deviation, of the same form.
        n_numbers: how many features of a table are numbers.
    """

    shape: tuple[int, ...]
    maximum: int
    mean: float | tuple[float, ...]
    std: float | tuple[float, ...]
    n_numbers: int

    @property
    def statistics(self) -> tuple[Statistic, Statistic]:
        """Return mean and standard deviation as a stream takes them."""
        return self._as_statistic(self.mean), self._as_statistic(self.std)

    def _as_statistic(self, value: float | tuple[float, ...]) -> Statistic:
        if isinstance(value, float):
            return value
        found = np.array(value, dtype=np.float32)
        return found[:, None, None] if len(self.shape) == 3 else found


class FrozenCard(_Part):
    """What a frozen network in front takes; `data.features` has its settings, and a file of the folder its weights.

    Args:
        shape: of an example before padding.
        maximum: the largest pixel value; 1 for a table.
        n_features: how many features it gives; what becomes of these says `inputs`.
    """

    shape: tuple[int, ...]
    maximum: int
    n_features: int


class MemberCard(_Part):
    """A network, trained with one seed.

    Args:
        seed: of its trial.
        key: of its trial in the run that it comes from; empty if the trial was not recorded there.
        equals_recorded: whether its R equals the recorded one exactly; None if there is none to compare with.
        result: R and what else was measured, as `TrialResult` has it; None if it was trained on the test split too.
    """

    seed: int
    key: str = ""
    equals_recorded: bool | None = None
    result: dict[str, Any] | None

    @property
    def network_file(self) -> str:
        """Return the name of the file with its weights."""
        return f"network-{self.seed}.safetensors"

    @property
    def state_file(self) -> str:
        """Return the name of the file with all else that learning on needs."""
        return f"state-{self.seed}.safetensors"

    @property
    def trial_result(self) -> TrialResult | None:
        """Return what was measured of it."""
        return None if self.result is None else TrialResult(**self.result)


class Event(_Part):
    """What happened to the model.

    Args:
        what: `export` or `update`.
        at: when, in UTC, ISO 8601.
        task: the task that was learned, of an update.
        source: the run, or the model that was updated.
        data_hash: hash of the examples of the task, of an update.
    """

    what: Literal["export", "update"]
    at: str
    task: str = ""
    source: str = ""
    data_hash: str = ""


class Card(_Part):
    """All that is known of a model besides its tensors.

    Args:
        format: always `FORMAT`.
        version: of this form.
        trial: the trial whose configuration it has; members differ from it in their seeds.
        data: the settings of its stream, with the paths of a user's own data.
        score: what R holds.
        objective: what it was chosen by.
        limits: that it was chosen under.
        class_names: name of each class.
        output_names: the class behind each output, or several for an output that stands for another in each task.
        positive_class: the class that average precision is for, if there are two.
        tasks: what it learned, in order.
        planned_tasks: how many tasks it was trained for.
        inputs: how an example becomes what the network takes; with a frozen one in front, how features do.
        frozen: what the frozen network in front takes; None without one.
        columns: how each column of a table becomes features, in the order of the table's.
        split_sizes: how many rows of each task and class were split into training and held-out ones, in this order.
        was_trained_on_test: whether the test split was trained on too.
        members: the networks; several are an ensemble, whose probabilities are averaged.
        versions: of the software that made it.
        history: what happened to it, oldest first.
        files: name -> SHA-256 of each other file of the folder.
    """

    format: Literal["continual-sweep model"] = "continual-sweep model"
    version: Literal[1] = 1
    trial: TrialSpec
    data: StreamSettings
    score: str
    objective: str
    limits: tuple[str, ...]
    class_names: tuple[str, ...]
    output_names: tuple[str, ...]
    positive_class: str | None
    tasks: tuple[TaskCard, ...]
    planned_tasks: int
    inputs: InputCard
    frozen: FrozenCard | None = None
    columns: tuple[FittedColumn, ...]
    split_sizes: tuple[int, ...]
    was_trained_on_test: bool
    members: tuple[MemberCard, ...]
    versions: dict[str, str]
    history: tuple[Event, ...]
    files: dict[str, str]

    @property
    def is_image(self) -> bool:
        """Return whether it takes images, and no rows of a table."""
        return len(self.example_shape) == 3

    @property
    def example_shape(self) -> tuple[int, ...]:
        """Return the shape of an example, before padding and before a frozen network."""
        return self.inputs.shape if self.frozen is None else self.frozen.shape

    @property
    def example_facts(self) -> DatasetFacts:
        """Return what must be known of examples to give them to the first network."""
        if self.frozen is None:
            return self.facts
        return replace(self.facts, shape=self.frozen.shape, maximum=self.frozen.maximum)

    @property
    def own_networks(self) -> tuple[str, ...]:
        """Return each `module:Class` of a user's own that is a network of it: the trained one, and a frozen one."""
        asked = self.data.features
        trained = (self.trial.model.name,) if self.trial.model.is_own_class else ()
        return (*trained, asked.module) if asked is not None and asked.is_own_class else trained

    @property
    def task_names(self) -> list[str]:
        return [task.name for task in self.tasks]

    @property
    def facts(self) -> DatasetFacts:
        """Return what a stream of its tasks needs to know of their data."""
        return DatasetFacts(
            self.class_names,
            self.inputs.shape,
            self.inputs.maximum,
            "the data of a model",
            tuple(self.task_names),
            tuple(task.classes for task in self.tasks),
            self.inputs.n_numbers,
        )

    def task_index(self, name: str | None) -> int:
        """Return the index of a task by name.

        Raises:
            KeyError: if the model has no such task.
        """
        return {task: index for index, task in enumerate(self.task_names)}[name or ""]

    def to_json(self) -> str:
        """Return the text that `parse_card` reads; what is not known is null."""
        return json.dumps(self.model_dump(mode="json"), indent=2, allow_nan=False) + "\n"


def parse_card(content: bytes, where: str) -> Card:
    """Return the card in a file, checked.

    Raises:
        RunFolderError: if it is damaged, foreign, or of a newer version.
    """
    try:
        found = json.loads(content)
        if not isinstance(found, dict) or found.get("format") != FORMAT:
            raise RunFolderError(f"{where}: expected the card of a model of this package, got something else")
        if found.get("version") != VERSION:
            raise RunFolderError(
                f"{where}: expected version {VERSION} of the card, got {found.get('version')!r}; use the version of "
                "continual-sweep that wrote it"
            )
        card = Card.model_validate_json(content)
        _check(card)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise RunFolderError(f"{where}: the card is damaged: {place}: {first['msg'][:120]}") from error
    except (ValueError, TypeError, RecursionError) as error:
        raise RunFolderError(f"{where}: the card is damaged ({str(error).splitlines()[0][:120]})") from error
    return card


def _check(card: Card) -> None:
    """Refuse a card whose parts do not fit each other.

    Raises:
        ValueError: saying which.
    """
    if not 1 <= len(card.members) <= MOST_MEMBERS or len({member.seed for member in card.members}) < len(card.members):
        raise ValueError("members: expected one or more with different seeds")
    if not card.tasks or not card.class_names or len(card.class_names) > MOST_CLASSES:
        raise ValueError("tasks, class_names: expected some")
    for task in card.tasks:
        if not task.classes or not all(0 <= c < len(card.class_names) for c in task.classes):
            raise ValueError(f"tasks: the classes of '{task.name}' are none of class_names")
    width, shape = sum(c.n_columns for c in card.columns) + sum(c.has_flag for c in card.columns), card.example_shape
    if card.columns and (len(shape) != 1 or width != shape[0]):
        raise ValueError(f"columns: they make {width} features, and the shape of an example is {list(shape)}")
    lengths, taken = {len(v) for v in (card.inputs.mean, card.inputs.std) if isinstance(v, tuple)}, card.inputs.shape
    if lengths - {taken[0]} or not all(1 <= side <= 2**20 for side in (*taken, *shape)):
        raise ValueError("inputs: mean, std and shape do not fit each other")
    if (card.frozen is None) != (card.data.features is None):
        raise ValueError("frozen: expected it with data.features, and not without")
    if card.frozen is not None and (len(shape) not in (1, 3) or taken != (card.frozen.n_features,)):
        raise ValueError(f"frozen: it gives {card.frozen.n_features} features, and the networks take {list(taken)}")
    for member in card.members:
        result = member.trial_result
        if result is not None and len(result.n_correct) != len(card.tasks) + 1:
            raise ValueError(f"members: R of seed {member.seed} is not of {len(card.tasks)} tasks")


def plain_statistic(value: Statistic) -> float | tuple[float, ...]:
    """Return a statistic as a card keeps it, exactly."""
    return value if isinstance(value, float) else tuple(np.asarray(value).reshape(-1).tolist())


def mean_of_last_row(result: TrialResult) -> float:
    """Return the average accuracy after the last task; NaN if it was not measured."""
    pairs = list(zip(result.n_correct[-1], result.n_examples, strict=True)) if result.n_correct else []
    values = [math.nan if right is None else right / n for right, n in pairs]
    return float(np.mean(values)) if values else math.nan


def versions(features: FrozenFeatures | None = None) -> dict[str, str]:
    """Return the software that makes a model now, with the library of the frozen network in front."""
    found = {"continual-sweep": __version__, "torch": str(torch.__version__), "python": platform.python_version()}
    if features is not None and not features.is_own_class:
        library = features.module.partition(":")[0]
        found[library] = str(import_module(library).__version__)
    return found


def now() -> str:
    """Return the time, in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")
