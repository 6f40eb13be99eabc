"""The identity of a trial: everything that its result depends on, and the key that is its hash."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, cached_property
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict

from orchestrator.core.canonical import short_hash
from orchestrator.models.settings import ModelSettings
from orchestrator.streams.facts import Phase
from orchestrator.streams.settings import StreamSettings, data_of
from search_spaces import TRAINING_KNOBS, Value
from strategies import Added, Hyperparameters, IncrementalType, Strategy, TrainingSettings, find_method

PROTOCOL_VERSION = 1
"""Raised whenever results of the protocol change: streams, models, training step, evaluation."""


class TrialSpec(BaseModel):
    """One suggestion × one seed × one phase, fully resolved.

    Trials with equal specs have equal results on one kind of device with one number of threads. Where and when a trial
    runs (device, worker, position in the search) is not part of its spec.

    Args:
        stream: name of the stream.
        incremental_type: what is known at inference.
        stream_settings: how the data set is cut; paths of a user's own data are blank.
        method: name of the method.
        hyperparameters: the suggestion: every hyper-parameter of the method, and the training settings it overrides.
        model: which model is trained.
        training: how each task is trained, before the suggestion's overrides.
        seed: decides initial weights, batches, buffers and a shuffled class order.
        phase: which arrays it sees.
        validation_share: share of the training examples held out in the phases `search` and `finals`.
        data_fingerprint: hash of the data set.
        strategy_versions: strategy -> version.
        protocol_version: version of the protocol.
        ranked_scores: kinds of the scores to measure that rank examples; all other scores are always measured.
        validation_seed: which validation split; None for the one that all trials share, and in `confirm`.
        variant: the name of the method in its sweep, if that is another.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    stream: str
    incremental_type: IncrementalType
    stream_settings: StreamSettings
    method: str
    hyperparameters: dict[str, Value]
    model: ModelSettings
    training: TrainingSettings
    seed: int
    phase: Phase
    validation_share: float
    data_fingerprint: str
    strategy_versions: dict[str, int]
    protocol_version: int = PROTOCOL_VERSION
    ranked_scores: Annotated[tuple[str, ...], Added()] = ()
    validation_seed: Annotated[int | None, Added()] = None
    variant: Annotated[str, Added()] = ""

    @cached_property
    def key(self) -> str:
        """Return a hash of this spec, 16 hexadecimal digits."""
        added = dict(_added(type(self)))
        content = {
            name: _identity_of_part(value) if isinstance(value, BaseModel) else value
            for name, value in self
            if name not in added or value != added[name]
        }
        return short_hash(content)

    @property
    def scenario(self) -> str:
        """Return `STREAM/TYPE`."""
        return f"{self.stream}/{self.incremental_type}"

    @property
    def cell(self) -> str:
        """Return `STREAM/TYPE METHOD`."""
        return f"{self.scenario} {self.shown_method}"

    @property
    def shown_method(self) -> str:
        """Return the method as the sweep and its tables name it."""
        return self.variant or self.method

    @property
    def dataset(self) -> str:
        """Return the name of the data set."""
        return data_of(self.stream, self.stream_settings)

    def methods(self) -> list[tuple[type[Strategy], Hyperparameters]]:
        """Return the strategy classes with this trial's hyper-parameters."""
        return find_method(self.method).split(self.hyperparameters)

    def resolved_training(self) -> TrainingSettings:
        """Return the training settings with the suggestion's overrides applied."""
        knobs = {n: v for n, v in self.hyperparameters.items() if n in TRAINING_KNOBS}
        return TrainingSettings.model_validate(self.training.model_dump() | knobs)


def identity_of(model: BaseModel) -> dict[str, Any]:
    """Return a model as plain JSON without the fields that were added later and are at their default."""
    content: dict[str, Any] = model.model_dump(mode="json")
    _leave_out(model, content)
    return content


_PARTS: dict[int, tuple[BaseModel, dict[str, Any]]] = {}
_MOST_PARTS = 1_000


def _identity_of_part(part: BaseModel) -> dict[str, Any]:
    """Return `identity_of` a part of a trial's spec; thousands of trials share a few, which never change."""
    found = _PARTS.get(id(part))
    if found is None or found[0] is not part:
        if len(_PARTS) >= _MOST_PARTS:
            _PARTS.clear()
        found = _PARTS[id(part)] = part, identity_of(part)  # holds the part, so that its id stays its own
    return found[1]


def _leave_out(model: BaseModel, content: dict[str, Any]) -> None:
    """Delete what was added later and is at its default from the JSON of a model, and of the models in it."""
    for name, default in _added(type(model)):
        if getattr(model, name) == default:
            del content[name]
    for name, value in model:
        if isinstance(value, BaseModel):
            _leave_out(value, content[name])


def without_added(kind: type[BaseModel], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values without the fields of a model that were added later and are at their default."""
    added = dict(_added(kind))
    return {name: value for name, value in values.items() if name not in added or value != added[name]}


@cache
def _added(kind: type[BaseModel]) -> tuple[tuple[str, Any], ...]:
    """Return name and default of each field of a model that was added later."""
    marked = (item for item in kind.model_fields.items() if any(isinstance(m, Added) for m in item[1].metadata))
    return tuple((name, field.default) for name, field in marked)
