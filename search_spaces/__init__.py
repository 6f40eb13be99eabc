"""Search spaces: what Optuna searches for each method, and limits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optuna.distributions import BaseDistribution

from search_spaces import ewc, packnet, replay
from search_spaces.base import (
    TRAINING_KNOBS,
    Constraint,
    Range,
    SearchSpace,
    SpaceError,
    Value,
    build_space,
)
from strategies import STRATEGIES, TrainingSettings

SPACES: dict[str, dict[str, BaseDistribution]] = {
    "naive": {},
    "joint": {},
    "ewc": ewc.SPACE,
    "replay": replay.SPACE,
    "packnet": packnet.SPACE,
}
"""Default distributions by method; a method that is missing here searches nothing unless a spec says so."""


def space_of(method: str, overrides: Mapping[str, Any], training: TrainingSettings) -> SearchSpace:
    """Return the search space of `method` after the spec's overrides.

    Raises:
        SpaceError: where an override is wrong.
    """
    return build_space(STRATEGIES[method].hyperparameter_class, SPACES.get(method, {}), overrides, training)


__all__ = [
    "SPACES",
    "TRAINING_KNOBS",
    "Constraint",
    "Range",
    "SearchSpace",
    "SpaceError",
    "Value",
    "build_space",
    "space_of",
]
