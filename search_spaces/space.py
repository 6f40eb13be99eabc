"""What a method is searched over: ranges, choices and fixed values, checked against its hyper-parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from strategies import Hyperparameters, Method, TrainingSettings

Value = float | int | str | bool | None
"""A value of a hyper-parameter, as it stands in a spec and in a table."""

TRAINING_KNOBS = ("learning_rate", "momentum", "weight_decay", "batch_size", "epochs", "iterations")
"""Training settings that a spec may search beside a method's own hyper-parameters."""


class Range(BaseModel):
    """A range to search, both ends included.

    Args:
        low: smallest value.
        high: largest value.
        log: whether to search on a log scale.
        step: spacing of the values, from `low`; not with `log`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    low: float = Field(description="smallest value")
    high: float = Field(description="largest value")
    log: bool = Field(False, description="search on a log scale")
    step: float | None = Field(None, gt=0, description="spacing of the values, from low; not with log")


@dataclass(frozen=True)
class SearchSpace:
    """What is searched and what is fixed for one method.

    Args:
        distributions: name -> Optuna distribution; empty where nothing is searched.
        fixed: name -> value that the spec fixes (other hyper-parameters keep their defaults).
        start: the first suggestion: the defaults, where they lie in their range.
    """

    distributions: Mapping[str, BaseDistribution]
    fixed: Mapping[str, Value]
    start: Mapping[str, Value]


class SpaceError(ValueError):
    """One entry of `spaces` is wrong; the message is a rule, the value and a way out."""


def parse_distributions(
    hyperparameters: type[Hyperparameters], entries: Mapping[str, Any]
) -> dict[str, BaseDistribution]:
    """Return the distributions of a space in the form of a spec: name -> a list of choices or {low, high, log}.

    Raises:
        SpaceError: where an entry is wrong.
    """
    found = {}
    for name, entry in entries.items():
        try:
            value = list(entry) if isinstance(entry, list | tuple) else Range.model_validate(entry)
        except ValidationError:
            raise SpaceError(f"expected choices or {{low, high, log}} for {name}, got {entry!r}; mend it") from None
        found[name] = _distribution(_owner(name, hyperparameters), name, value)
    return found


def build_space(
    method: Method,
    defaults: Mapping[str, BaseDistribution],
    overrides: Mapping[str, Any],
    training: TrainingSettings,
) -> SearchSpace:
    """Return the space of a method after the spec's overrides.

    Args:
        method: whose.
        defaults: what is searched unless overridden.
        overrides: name -> a value (fixes it), a list (choices) or a `Range`.
        training: the training settings, for the defaults of training knobs.

    Raises:
        SpaceError: where a name is unknown or a value is outside of what the method allows.
    """
    hyperparameters = method.hyperparameter_class
    distributions = dict(defaults)
    fixed: dict[str, Value] = {}
    for name, override in overrides.items():
        owner = _owner(name, hyperparameters)
        distributions.pop(name, None)
        if isinstance(override, Range | list):
            distributions[name] = _distribution(owner, name, override)
        else:
            fixed[name] = _checked(owner, name, override)
    own = {name: value for name, value in fixed.items() if name in hyperparameters.model_fields}
    for name in method.unused(own) - overrides.keys():
        distributions.pop(name, None)
    own_defaults = hyperparameters().model_dump() | training.model_dump(include=set(TRAINING_KNOBS))
    start = {
        name: own_defaults[name]
        for name, distribution in distributions.items()
        if _contains(distribution, own_defaults[name])
    }
    return SearchSpace(distributions, fixed, start)


def _owner(name: str, hyperparameters: type[Hyperparameters]) -> type[BaseModel]:
    if name in hyperparameters.model_fields:
        return hyperparameters
    if name in TRAINING_KNOBS:
        return TrainingSettings
    known = ", ".join([*hyperparameters.model_fields, *TRAINING_KNOBS])
    raise SpaceError(f"expected a hyper-parameter, got '{name}'; choose from: {known}")


def _distribution(owner: type[BaseModel], name: str, override: Range | list[Any]) -> BaseDistribution:
    field = owner.model_fields[name]
    if isinstance(override, list):
        if not override:
            raise SpaceError("expected at least one choice, got []; list the values to try")
        return CategoricalDistribution([_checked(owner, name, value) for value in override])
    if not _is_number(field):
        raise SpaceError(f"expected a value or a list of choices, got a range; {name} is no number")
    low, high = _checked(owner, name, override.low), _checked(owner, name, override.high)
    assert isinstance(low, int | float)
    assert isinstance(high, int | float)
    if low > high:
        raise SpaceError(f"expected low <= high, got low {low:g} and high {high:g}; swap them")
    if override.log and low <= 0:
        raise SpaceError(f"expected low > 0 on a log scale, got {low:g}; raise low or drop log")
    if override.log and override.step is not None:
        raise SpaceError("expected log or step, got both; drop one of them")
    whole = int in _types(field) and float not in _types(field)
    if override.step is not None:
        if whole and not override.step.is_integer():
            raise SpaceError(f"expected a whole step, got {override.step:g}; {name} counts")
        if not _on_grid(high, low, override.step):
            raise SpaceError(
                f"expected a step that leads from {low:g} to {high:g}, got {override.step:g}; change step or high"
            )
    if whole:
        return IntDistribution(int(low), int(high), log=override.log, step=int(override.step or 1))
    return FloatDistribution(float(low), float(high), log=override.log, step=override.step)


def _checked(owner: type[BaseModel], name: str, value: Any) -> Value:
    """Return `value` as the field's type, or raise with the field's own rule."""
    try:
        if isinstance(value, float) and value.is_integer() and float not in _types(owner.model_fields[name]):
            value = int(value)
        return getattr(owner(**{name: value}), name)  # type: ignore[no-any-return]
    except ValidationError as error:
        rule = error.errors()[0]["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
        raise SpaceError(f"expected {rule}, got {value!r}; {owner.model_fields[name].description}") from error


def _types(field: FieldInfo) -> tuple[Any, ...]:
    return get_args(field.annotation) or (field.annotation,)


def _is_number(field: FieldInfo) -> bool:
    return bool({int, float} & set(_types(field)))


def _contains(distribution: BaseDistribution, value: Value) -> bool:
    if isinstance(distribution, CategoricalDistribution):
        return value in distribution.choices
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    if not isinstance(value, int | float) or not distribution.low <= value <= distribution.high:
        return False
    return distribution.step is None or _on_grid(value, distribution.low, distribution.step)


def _on_grid(value: float, low: float, step: float) -> bool:
    n_steps = (value - low) / step
    return abs(n_steps - round(n_steps)) < 1e-8


def extremes(distribution: BaseDistribution) -> tuple[Value, ...]:
    """Return both ends of a range, or all choices."""
    if isinstance(distribution, IntDistribution | FloatDistribution):
        return distribution.low, distribution.high
    return tuple(distribution.choices) if isinstance(distribution, CategoricalDistribution) else ()


def sample(space: Mapping[str, BaseDistribution], n: int, seed: int) -> list[dict[str, Any]]:
    """Return `n` suggestions drawn at random from `space`."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    return [study.ask(dict(space)).params for _ in range(n)]
