"""What is searched for each method, and the limits that a result must meet."""

from search_spaces.limits import Constraint
from search_spaces.space import (
    TRAINING_KNOBS,
    Choices,
    Distribution,
    FloatRange,
    IntRange,
    Range,
    SearchSpace,
    SpaceError,
    Value,
    build_space,
    extremes,
    sample,
    to_optuna,
)
from search_spaces.table import SPACES, default_space, space_of

__all__ = [
    "SPACES",
    "TRAINING_KNOBS",
    "Choices",
    "Constraint",
    "Distribution",
    "FloatRange",
    "IntRange",
    "Range",
    "SearchSpace",
    "SpaceError",
    "Value",
    "build_space",
    "default_space",
    "extremes",
    "sample",
    "space_of",
    "to_optuna",
]
