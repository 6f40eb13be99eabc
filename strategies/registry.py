"""Methods by name: a strategy, a combination such as `replay+lwf`, or a strategy of another package."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from typing import Any

from pydantic import ValidationError, create_model

from strategies.contract import Exclusive, Hyperparameters, Strategy
from strategies.layout import IncrementalType

ENTRY_POINTS = "continual_sweep.strategies"
"""The entry-point group in which packages register strategies."""

_SEPARATOR = re.compile(r"\+(?=[A-Za-z_])")
_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


class MethodError(ValueError):
    """A method's name cannot be resolved; the message says why and what to do."""


class UnknownMethodError(MethodError):
    """No strategy has this name.

    Args:
        part: the name.
    """

    def __init__(self, part: str) -> None:
        super().__init__(f"expected a known method, got '{part}'")
        self.part = part


@dataclass(frozen=True)
class Method:
    """One strategy, or several whose seams add up.

    Args:
        name: as written in a spec.
        parts: its strategies by name, in the order in which their seams are called.
    """

    name: str
    parts: Mapping[str, type[Strategy]]

    @property
    def is_combination(self) -> bool:
        """Whether it has several parts."""
        return len(self.parts) > 1

    @property
    def summary(self) -> str:
        """What it does, in one line."""
        return "; ".join(part.summary for part in self.parts.values())

    @property
    def paper(self) -> str:
        """Return the sources."""
        return "; ".join(part.paper for part in self.parts.values() if part.paper)

    @property
    def knows_kept_bytes(self) -> bool:
        """Whether it tells before training what it will keep."""
        return all(part.knows_kept_bytes for part in self.parts.values())

    @property
    def trains_network(self) -> bool:
        """Whether it takes gradient steps, to which the training settings apply."""
        return all(part.trains_network for part in self.parts.values())

    @property
    def versions(self) -> dict[str, int]:
        return {name: part.version for name, part in self.parts.items()}

    @property
    def unsupported(self) -> dict[IncrementalType, str]:
        """Return the incremental types that some part does not support, each with the reason."""
        return {kind: reason for part in self.parts.values() for kind, reason in part.unsupported.items()}

    @property
    def needs_whole_tasks(self) -> str:
        """Return why some part cannot learn tasks that hold examples of their neighbours; empty if all can."""
        return next((part.needs_whole_tasks for part in self.parts.values() if part.needs_whole_tasks), "")

    @property
    def unsupported_models(self) -> dict[str, str]:
        """Return the models that some part cannot train, each with the reason."""
        return {model: reason for part in self.parts.values() for model, reason in part.unsupported_models.items()}

    @property
    def notes(self) -> dict[IncrementalType, str]:
        """Return the incremental types on which every part is known to do badly, with the first part's reason."""
        first, *others = self.parts.values()
        return {k: note for k, note in first.notes.items() if all(k in other.notes for other in others)}

    @property
    def is_reference(self) -> bool:
        """Whether it is a bound, which is never recommended."""
        return any(part.is_reference for part in self.parts.values())

    @property
    def starts_anew(self) -> bool:
        """Whether it begins each task with the untrained network, and so is not evaluated within tasks."""
        return any(part.starts_anew for part in self.parts.values())

    @property
    def epochs_as(self) -> str:
        """Return the hyper-parameter in place of `training.epochs`; empty if there is none."""
        own = {part: strategy.epochs_as for part, strategy in self.parts.items()}
        return next((name for name, (part, field) in self.names.items() if field == own[part]), "")

    @cached_property
    def names(self) -> dict[str, tuple[str, str]]:
        """Return every hyper-parameter: its name in a spec -> the part that has it, and its name there.

        If several parts of a combination have a name, it is prefixed with the part: `ewc_penalty_weight`.
        """
        owned = [(part, name) for part, own in self.parts.items() for name in own.hyperparameter_class.model_fields]
        counts = [name for _, name in owned]
        return {(f"{_identifier(p)}_{n}" if counts.count(n) > 1 else n): (p, n) for p, n in owned}

    @cached_property
    def fixed_by_state(self) -> frozenset[str]:
        """Return the hyper-parameters that a trained model cannot change: see `Strategy.fixed_by_state`."""
        return frozenset(name for name, (part, own) in self.names.items() if own in self.parts[part].fixed_by_state)

    @cached_property
    def hyperparameter_class(self) -> type[Hyperparameters]:
        """Return the hyper-parameters of all parts as one class."""
        if not self.is_combination:
            return next(iter(self.parts.values())).hyperparameter_class
        fields: dict[str, Any] = {}
        for name, (part, own) in self.names.items():
            field = self.parts[part].hyperparameter_class.model_fields[own]
            fields[name] = (field.annotation, field)
        return create_model("CombinedHyperparameters", __base__=_Combined, **fields)

    def split(self, values: Mapping[str, Any]) -> list[tuple[type[Strategy], Hyperparameters]]:
        """Return each part's class with its own hyper-parameters, from `values` or else their defaults.

        Raises:
            pydantic.ValidationError: if a value is outside its range.
        """
        own: dict[str, dict[str, Any]] = {part: {} for part in self.parts}
        for name, value in values.items():
            if name in self.names:
                part, field = self.names[name]
                own[part][field] = value
        return [(cls, cls.hyperparameter_class(**own[part])) for part, cls in self.parts.items()]

    def unused(self, values: Mapping[str, Any]) -> frozenset[str]:
        """Return the hyper-parameters that have no effect at `values`."""
        parts = dict(zip(self.parts, (hyperparameters for _, hyperparameters in self.split(values)), strict=True))
        return frozenset(name for name, (part, own) in self.names.items() if own in parts[part].unused())


class _Combined(Hyperparameters):
    """Base of the hyper-parameters of a combination."""


class Registry(Mapping[str, type[Strategy]]):
    """All known strategies by name.

    Args:
        strategies: those of this package, in the order of lists and of calls in a combination.
    """

    def __init__(self, strategies: Iterable[type[Strategy]]) -> None:
        self._strategies: dict[str, type[Strategy]] = {strategy.name: strategy for strategy in strategies}
        self._own = tuple(self._strategies)
        self._methods: dict[str, Method] = {}

    def __getitem__(self, name: str) -> type[Strategy]:
        return self._strategies[name]

    def __iter__(self) -> Any:
        return iter(self._strategies)

    def __len__(self) -> int:
        return len(self._strategies)

    @property
    def own(self) -> tuple[str, ...]:
        """Return the names of this package's strategies."""
        return self._own

    def method(self, name: str) -> Method:
        """Return the method called `name`.

        Imports strategies of installed packages (entry points). A `module:Class` is imported by `load_plugin` only, so
        that a name in a file never runs code.

        Raises:
            MethodError: if a part is unknown, or parts cannot be combined.
        """
        if name not in self._methods:
            parts = {part: self._part(part) for part in _SEPARATOR.split(name)}
            if len(parts) > 1 or "+" in name.removesuffix("++"):
                _check_combination(name, parts)
            order = list(self._strategies)
            ordered = {part: parts[part] for part in sorted(parts, key=order.index)}
            self._methods[name] = Method(name, ordered)
        return self._methods[name]

    def load_plugin(self, name: str) -> None:
        """Import every part of `name` of the form `module:Class`. Call it for names that the user gave.

        Raises:
            MethodError: if there is no such module or class, or it is not a strategy.
        """
        for part in _SEPARATOR.split(name):
            if part not in self._strategies and _PATH.fullmatch(part):
                self.add(part, load_class(part))

    @property
    def installed(self) -> tuple[str, ...]:
        """Return the names that installed packages register, without importing their strategies."""
        return tuple(sorted({point.name for point in metadata.entry_points(group=ENTRY_POINTS)}))

    def load_entry_points(self) -> None:
        """Import the strategies of all installed packages.

        Raises:
            MethodError: if one of them cannot be used.
        """
        for point in metadata.entry_points(group=ENTRY_POINTS):
            self._part(point.name)

    def add(self, name: str, strategy: object) -> None:
        """Register `strategy` as `name`.

        Raises:
            MethodError: if `strategy` is not a complete strategy class, or the name is taken.
        """
        faults = strategy_faults(strategy)
        if faults:
            raise MethodError(
                f"expected a strategy, got '{name}' with {'; '.join(faults)}; see docs/your-own-method.md"
            )
        if name in self._strategies and self._strategies[name] is not strategy:
            raise MethodError(f"expected a name that no other strategy has, got '{name}'; rename the strategy")
        assert isinstance(strategy, type)
        self._strategies[name] = strategy

    def _part(self, name: str) -> type[Strategy]:
        if name in self._strategies:
            return self._strategies[name]
        if _PATH.fullmatch(name):
            raise MethodError(f"expected a plugin that was loaded, got '{name}'; pass --plugin {name}")
        points = [p for p in metadata.entry_points(group=ENTRY_POINTS) if p.name == name]
        if not points:
            raise UnknownMethodError(name)
        try:
            loaded = points[0].load()
        except Exception as error:
            raise MethodError(
                f"expected a method that can be imported, got '{name}' from {points[0].value} "
                f"({type(error).__name__}: {error}); fix or uninstall that package"
            ) from error
        self.add(name, loaded)
        return self._strategies[name]


def load_class(path: str) -> object:
    """Import the module of `module:Class` and return the class.

    Raises:
        MethodError: if the module cannot be imported or has no such name.
    """
    module_name, _, class_name = path.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise MethodError(
            f"expected a module that can be imported, got '{module_name}' ({type(error).__name__}: {error}); "
            "run from its folder, install it, or add its folder to PYTHONPATH"
        ) from error
    if not hasattr(module, class_name):
        raise MethodError(f"expected a class of '{module_name}', got '{class_name}'; check its spelling")
    return getattr(module, class_name)


def strategy_faults(strategy: object) -> list[str]:
    """Return the reasons why `strategy` cannot be used as a method."""
    if not (inspect.isclass(strategy) and issubclass(strategy, Strategy)):
        return ["a type that is not a subclass of strategies.Strategy"]
    faults = [f"no {name}" for name in ("name", "summary") if not getattr(strategy, name, "")]
    own = strategy.hyperparameter_class
    if not (inspect.isclass(own) and issubclass(own, Hyperparameters)):
        return [*faults, "a hyperparameter_class that is not a subclass of strategies.Hyperparameters"]
    try:
        own()
    except ValidationError:
        faults.append("a hyper-parameter without a default")
    if not isinstance(strategy.owns, Exclusive | None):
        faults.append("an `owns` that is not a member of strategies.Exclusive")
    if not strategy.trains_network:
        own_seams = ("absorb", "logits", "n_parameters")
        faults += [f"no {seam}" for seam in own_seams if getattr(strategy, seam) is getattr(Strategy, seam)]
        faults += [] if strategy.alone else ["no `alone`: others need a network that is trained"]
    unknown = [name for name in strategy.search_space if name not in own.model_fields]
    return faults + [f"a search space for '{name}', which is not a hyper-parameter" for name in unknown]


def _check_combination(name: str, parts: Mapping[str, type[Strategy]]) -> None:
    """Check that the parts of a combination can work together.

    Raises:
        MethodError: if a part is repeated, cannot be combined, or sets what another part sets.
    """
    if len(parts) < len(_SEPARATOR.split(name)) or len(parts) == 1:
        raise MethodError(f"expected each part once, got '{name}'; drop the repeats")
    for part, strategy in parts.items():
        if strategy.alone:
            raise MethodError(
                f"expected parts that can be combined, got '{part}' in '{name}': {strategy.alone}; drop it"
            )
    owners: dict[Exclusive, str] = {}
    for part, strategy in parts.items():
        if strategy.owns is None:
            continue
        if strategy.owns in owners:
            raise MethodError(
                f"expected at most one part that sets {strategy.owns.value}, got '{owners[strategy.owns]}' and "
                f"'{part}' in '{name}'; drop one of the two"
            )
        owners[strategy.owns] = part


def _identifier(part: str) -> str:
    return re.sub(r"\W", "_", part.replace("++", "_plus_plus"))
