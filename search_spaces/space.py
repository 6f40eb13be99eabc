"""What is searched for a method: ranges, choices and fixed values, checked against its hyper-parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from search_spaces.wording import rule_of
from strategies import Hyperparameters, Method, TrainingSettings

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Value = float | int | str | bool | None
"""A value of a hyper-parameter, as it stands in a spec and in a table."""

TRAINING_KNOBS = ("learning_rate", "optimizer", "momentum", "weight_decay", "batch_size", "epochs", "iterations")
"""Training settings that a spec may search beside a method's own hyper-parameters."""


class Range(BaseModel):
    """A range as a spec states it, both ends included. Whether it holds whole numbers follows from the hyper-parameter.

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


# Optuna takes a quarter of a second to import, so what lists and checks spaces uses the three classes below, and
# `to_optuna` is called by what samples.


@dataclass(frozen=True)
class FloatRange:
    """Numbers from `low` to `high`, both included; `step` is None for all of them."""

    low: float
    high: float
    log: bool = False
    step: float | None = None


@dataclass(frozen=True)
class IntRange:
    """Whole numbers from `low` to `high`, both included."""

    low: int
    high: int
    log: bool = False
    step: int = 1


@dataclass(frozen=True)
class Choices:
    """Values without an order."""

    choices: tuple[Value, ...]


Distribution = FloatRange | IntRange | Choices


def to_optuna(space: Mapping[str, Distribution]) -> dict[str, BaseDistribution]:
    """Return `space` as Optuna's distributions, for `Study.ask`."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    found: dict[str, BaseDistribution] = {}
    for name, searched in space.items():
        match searched:
            case Choices(choices):
                found[name] = CategoricalDistribution(choices)
            case IntRange(low, high, log, step):
                found[name] = IntDistribution(low, high, log=log, step=step)
            case FloatRange(low, high, log, width):
                found[name] = FloatDistribution(low, high, log=log, step=width)
    return found


@dataclass(frozen=True)
class SearchSpace:
    """What is searched and what is fixed for one method.

    Args:
        distributions: hyper-parameter -> what is searched; empty if nothing is.
        fixed: hyper-parameter -> value that the spec fixes (others keep their defaults).
        start: the first suggestion: the defaults that lie in their range.
    """

    distributions: Mapping[str, Distribution]
    fixed: Mapping[str, Value]
    start: Mapping[str, Value]


class SpaceError(ValueError):
    """One entry of `spaces` is wrong; the message says what is wrong and what to do."""


def parse_distributions(hyperparameters: type[Hyperparameters], entries: Mapping[str, Any]) -> dict[str, Distribution]:
    """Return the distributions of a space as a spec states it: name -> a list of choices or {low, high, log}.

    Raises:
        SpaceError: if an entry is wrong.
    """
    found = {}
    for name, entry in entries.items():
        try:
            value = list(entry) if isinstance(entry, list | tuple) else Range.model_validate(entry)
        except ValidationError:
            raise SpaceError(
                f"expected a list of choices or {{low, high, log}} for {name}, got {entry!r}; "
                "correct the method's search_space"
            ) from None
        found[name] = _distribution(_owner(name, hyperparameters), name, value)
    return found


def build_space(
    method: Method,
    defaults: Mapping[str, Distribution],
    overrides: Mapping[str, Any],
    training: TrainingSettings,
) -> SearchSpace:
    """Return the space of a method after the spec's overrides.

    Args:
        method: the method.
        defaults: what is searched unless overridden.
        overrides: name -> a value (fixes it), a list (choices) or a `Range`.
        training: the training settings, for the defaults of training knobs.

    Raises:
        SpaceError: if a name is unknown or the method does not allow a value.
    """
    hyperparameters = method.hyperparameter_class
    distributions = dict(defaults)
    fixed: dict[str, Value] = {}
    for name, override in overrides.items():
        owner = _owner(name, hyperparameters)
        if owner is TrainingSettings and (not method.trains_network or (name == "epochs" and method.epochs_as)):
            continue  # given for all methods, of which this one takes no steps, or has passes of its own
        distributions.pop(name, None)
        if isinstance(override, Range | list):
            distributions[name] = _distribution(owner, name, override)
        else:
            fixed[name] = _checked(owner, name, override)
    own = {name: value for name, value in fixed.items() if name in hyperparameters.model_fields}
    idle = set(method.unused(own))
    if "iterations" in distributions or fixed.get("iterations", training.iterations) is not None:
        idle.add(method.epochs_as)
    for name in idle - overrides.keys():
        distributions.pop(name, None)
    own_defaults = hyperparameters().model_dump() | training.model_dump(include=set(TRAINING_KNOBS))
    start = {
        name: own_defaults[name]
        for name, distribution in distributions.items()
        if _contains(distribution, own_defaults[name])
    }
    return SearchSpace(distributions, fixed, start)


def _owner(name: str, hyperparameters: type[Hyperparameters]) -> type[BaseModel]:
    """Return the class that has the field `name`."""
    if name in hyperparameters.model_fields:
        return hyperparameters
    if name in TRAINING_KNOBS:
        return TrainingSettings
    known = ", ".join([*hyperparameters.model_fields, *TRAINING_KNOBS])
    raise SpaceError(f"expected a hyper-parameter, got '{name}'; choose from: {known}")


def _distribution(owner: type[BaseModel], name: str, override: Range | list[Any]) -> Distribution:
    field = owner.model_fields[name]
    if isinstance(override, list):
        if not override:
            raise SpaceError("expected at least one choice, got []; list the values to try")
        choices = tuple(_checked(owner, name, value) for value in override)
        for value in choices:
            if choices.count(value) > 1:
                written = [given for given, kept in zip(override, choices, strict=True) if kept == value]
                shown = " and ".join(_written(given) for given in written)
                raise SpaceError(f"expected different choices, got {shown}, which are equal; list one of them")
        return Choices(choices)
    if not _is_number(field):
        raise SpaceError(f"expected a value or a list of choices, got a range; {name} is not a number")
    low, high = _checked(owner, name, override.low), _checked(owner, name, override.high)
    assert isinstance(low, int | float)
    assert isinstance(high, int | float)
    if low > high:
        raise SpaceError(f"expected low < high, got low {low:g} and high {high:g}; swap them")
    if low == high:
        raise SpaceError(f"expected low < high, got {low:g} for both; write {name}: {low:g} to fix it")
    if override.log and low <= 0:
        raise SpaceError(f"expected low > 0 on a log scale, got {low:g}; raise low or drop log")
    if override.log and override.step is not None:
        raise SpaceError("expected log or step, got both; drop one of them")
    whole = int in _types(field) and float not in _types(field)
    if override.step is not None:
        if whole and not override.step.is_integer():
            raise SpaceError(f"expected a whole step, got {override.step:g}; {name} takes whole numbers only")
        if not _on_grid(high, low, override.step):
            raise SpaceError(
                f"expected steps that lead from {low:g} to {high:g}, got {override.step:g}; change step or high"
            )
    if whole:
        return IntRange(int(low), int(high), override.log, int(override.step or 1))
    return FloatRange(float(low), float(high), override.log, override.step)


def _checked(owner: type[BaseModel], name: str, value: Any) -> Value:
    """Return `value` as the field's type; `true` is the choice 'true' if the field has it.

    Raises:
        SpaceError: if the field does not allow it.
    """
    if isinstance(value, bool) and bool not in _types(owner.model_fields[name]):
        value = str(value).lower()
    try:
        if isinstance(value, float) and value.is_integer() and float not in _types(owner.model_fields[name]):
            value = int(value)
        return getattr(owner(**{name: value}), name)  # type: ignore[no-any-return]
    except ValidationError as error:
        rule, meaning = rule_of(error.errors()[0]), owner.model_fields[name].description
        raise SpaceError(f"expected {rule}, got {_written(value)}; change {name} ({meaning})") from error


def _written(value: Any) -> str:
    """Return a value as a spec has it."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)


def _types(field: FieldInfo) -> tuple[Any, ...]:
    return get_args(field.annotation) or (field.annotation,)


def _is_number(field: FieldInfo) -> bool:
    return bool({int, float} & set(_types(field)))


def _contains(distribution: Distribution, value: Value) -> bool:
    if isinstance(distribution, Choices):
        return value in distribution.choices
    if not isinstance(value, int | float) or not distribution.low <= value <= distribution.high:
        return False
    return distribution.step is None or _on_grid(value, distribution.low, distribution.step)


def _on_grid(value: float, low: float, step: float) -> bool:
    n_steps = (value - low) / step
    return abs(n_steps - round(n_steps)) < 1e-8


def extremes(distribution: Distribution) -> tuple[Value, ...]:
    """Return both ends of a range, or all choices."""
    return distribution.choices if isinstance(distribution, Choices) else (distribution.low, distribution.high)


def sample(space: Mapping[str, Distribution], n: int, seed: int) -> list[dict[str, Any]]:
    """Return `n` suggestions drawn at random from `space`."""
    import optuna

    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    return [study.ask(to_optuna(space)).params for _ in range(n)]
