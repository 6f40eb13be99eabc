"""Search spaces: what Optuna searches for each method, and limits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from search_spaces import (
    agem,
    der,
    ewc,
    freeze,
    gem,
    generative_replay,
    icarl,
    lwf,
    mas,
    mer,
    packnet,
    pnn,
    replay,
    si,
    supsup,
)
from search_spaces.base import (
    TRAINING_KNOBS,
    Constraint,
    Range,
    SearchSpace,
    SpaceError,
    Value,
    build_space,
    parse_distributions,
)
from strategies import Method, TrainingSettings

SPACES: dict[str, dict[str, BaseDistribution]] = {
    "naive": {},
    "joint": {},
    "replay": replay.SPACE,
    "generative-replay": generative_replay.SPACE,
    "der": der.SPACE,
    "der++": der.PLUS_PLUS_SPACE,
    "mer": mer.SPACE,
    "icarl": icarl.SPACE,
    "lwf": lwf.SPACE,
    "si": si.SPACE,
    "mas": mas.SPACE,
    "ewc": ewc.SPACE,
    "gem": gem.SPACE,
    "agem": agem.SPACE,
    "freeze": freeze.SPACE,
    "packnet": packnet.SPACE,
    "pnn": pnn.SPACE,
    "supsup": supsup.SPACE,
}
"""Default distributions by method; a method that is missing here searches nothing unless a spec says so."""


def default_space(method: Method) -> dict[str, BaseDistribution]:
    """Return what is searched for `method` unless a spec says otherwise: the union over its parts.

    Raises:
        SpaceError: where the search space of a strategy from elsewhere is wrong.
    """
    parts = {
        part: SPACES[part] if part in SPACES else parse_distributions(cls.hyperparameter_class, cls.search_space)
        for part, cls in method.parts.items()
    }
    return {name: parts[part][own] for name, (part, own) in method.names.items() if own in parts[part]}


def space_of(method: Method, overrides: Mapping[str, Any], training: TrainingSettings) -> SearchSpace:
    """Return the search space of `method` after the spec's overrides.

    Raises:
        SpaceError: where an override is wrong.
    """
    return build_space(method, default_space(method), overrides, training)


def extremes(distribution: BaseDistribution) -> tuple[Value, ...]:
    """Return both ends of a range, or all choices."""
    if isinstance(distribution, IntDistribution | FloatDistribution):
        return distribution.low, distribution.high
    return tuple(distribution.choices) if isinstance(distribution, CategoricalDistribution) else ()


def sample(space: Mapping[str, BaseDistribution], n: int, seed: int) -> list[dict[str, Any]]:
    """Return `n` suggestions drawn at random from `space`."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    return [study.ask(dict(space)).params for _ in range(n)]


__all__ = [
    "SPACES",
    "TRAINING_KNOBS",
    "Constraint",
    "Range",
    "SearchSpace",
    "SpaceError",
    "Value",
    "build_space",
    "default_space",
    "extremes",
    "sample",
    "space_of",
]
