"""Search spaces: what Optuna searches for each method, and limits."""

from search_spaces.limits import Constraint
from search_spaces.space import (
    TRAINING_KNOBS,
    Range,
    SearchSpace,
    SpaceError,
    Value,
    build_space,
    extremes,
    sample,
)
from search_spaces.table import SPACES, default_space, space_of

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
