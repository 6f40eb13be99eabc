"""What is searched for each method, one table: a new method adds its entry here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution

from search_spaces.space import SearchSpace, build_space, parse_distributions
from strategies import Method, TrainingSettings

SPACES: dict[str, dict[str, BaseDistribution]] = {
    "naive": {},
    "joint": {},
    "replay": {
        "replay_ratio": FloatDistribution(0.1, 0.9),
        "buffer_size": IntDistribution(50, 5000, log=True),
    },
    "generative-replay": {
        "replay_ratio": FloatDistribution(0.1, 0.9),
        "latent_size": IntDistribution(10, 200, log=True),
        "generator_learning_rate": FloatDistribution(1e-4, 1e-2, log=True),
    },
    "der": {
        "logit_weight": FloatDistribution(0.05, 2.0, log=True),
        "replay_ratio": FloatDistribution(0.1, 0.9),
        "buffer_size": IntDistribution(50, 5000, log=True),
    },
    "der++": {
        "logit_weight": FloatDistribution(0.05, 2.0, log=True),
        "label_weight": FloatDistribution(0.05, 2.0, log=True),
        "replay_ratio": FloatDistribution(0.1, 0.9),
        "buffer_size": IntDistribution(50, 5000, log=True),
    },
    "mer": {
        "reptile_rate": FloatDistribution(0.03, 1.0, log=True),
        "reptile_steps": IntDistribution(2, 20, log=True),
        "replay_ratio": FloatDistribution(0.1, 0.9),
        "buffer_size": IntDistribution(50, 5000, log=True),
    },
    # At least one exemplar a class is asked for.
    "icarl": {
        "buffer_size": IntDistribution(200, 5000, log=True),
        "temperature": FloatDistribution(1.0, 4.0),
    },
    "lwf": {
        "distillation_weight": FloatDistribution(0.1, 30.0, log=True),
        "temperature": FloatDistribution(1.0, 8.0),
    },
    "si": {
        "penalty_weight": FloatDistribution(1e-2, 1e6, log=True),
        "damping": FloatDistribution(1e-3, 1.0, log=True),
    },
    "mas": {"penalty_weight": FloatDistribution(1e-3, 1e5, log=True)},
    # λ that works spans 0.4 (task) to 1e10 (class) in the literature.
    "ewc": {"penalty_weight": FloatDistribution(0.1, 1e10, log=True)},
    "gem": {
        "margin": FloatDistribution(0.0, 1.0),
        "buffer_size": IntDistribution(50, 5000, log=True),
    },
    "agem": {
        "memory_batch_size": IntDistribution(8, 256, log=True),
        "buffer_size": IntDistribution(50, 5000, log=True),
    },
    "freeze": {"frozen_layers": IntDistribution(1, 4)},
    # p must be large where tasks are many: task k owns (1 - p) p^k of the weights.
    "packnet": {
        "pruning_rate": FloatDistribution(0.4, 0.95),
        "post_prune_epochs": IntDistribution(1, 6),
    },
    "pnn": {},
    "supsup": {"kept_share": FloatDistribution(0.1, 0.9)},
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
