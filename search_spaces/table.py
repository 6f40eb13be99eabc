"""What is searched for each method by default. A new method adds its entry here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from search_spaces.space import (
    Choices,
    Distribution,
    FloatRange,
    IntRange,
    SearchSpace,
    build_space,
    parse_distributions,
)
from strategies import Method, TrainingSettings

SPACES: dict[str, dict[str, Distribution]] = {
    "naive": {},
    "joint": {},
    "replay": {
        "replay_ratio": FloatRange(0.1, 0.9),
        "buffer_size": IntRange(50, 5000, log=True),
    },
    "generative-replay": {
        "replay_ratio": FloatRange(0.1, 0.9),
        "latent_size": IntRange(10, 200, log=True),
        "generator_learning_rate": FloatRange(1e-4, 1e-2, log=True),
    },
    "der": {
        "logit_weight": FloatRange(0.05, 2.0, log=True),
        "replay_ratio": FloatRange(0.1, 0.9),
        "buffer_size": IntRange(50, 5000, log=True),
    },
    "der++": {
        "logit_weight": FloatRange(0.05, 2.0, log=True),
        "label_weight": FloatRange(0.05, 2.0, log=True),
        "replay_ratio": FloatRange(0.1, 0.9),
        "buffer_size": IntRange(50, 5000, log=True),
    },
    "x-der": {
        "logit_weight": FloatRange(0.05, 2.0, log=True),
        "label_weight": FloatRange(0.05, 2.0, log=True),
        "constraint_weight": FloatRange(0.003, 0.5, log=True),
        "replay_ratio": FloatRange(0.1, 0.9),
        "buffer_size": IntRange(50, 5000, log=True),
    },
    "mer": {
        "reptile_rate": FloatRange(0.03, 1.0, log=True),
        "reptile_steps": IntRange(2, 20, log=True),
        "replay_ratio": FloatRange(0.1, 0.9),
        "buffer_size": IntRange(50, 5000, log=True),
    },
    "er-ace": {
        "replay_ratio": FloatRange(0.1, 0.9),
        "buffer_size": IntRange(50, 5000, log=True),
    },
    "cls-er": {
        "consistency_weight": FloatRange(0.05, 5.0, log=True),
        "stable_decay": FloatRange(0.9, 0.9999),
        "replay_ratio": FloatRange(0.1, 0.9),
        "buffer_size": IntRange(50, 5000, log=True),
    },
    "mir": {
        "candidate_factor": IntRange(2, 10),
        "replay_ratio": FloatRange(0.1, 0.9),
        "buffer_size": IntRange(50, 5000, log=True),
    },
    "gdumb": {
        "passes": IntRange(8, 128, log=True),
        "buffer_size": IntRange(50, 5000, log=True),
    },
    # iCaRL needs at least one exemplar for each class.
    "icarl": {
        "buffer_size": IntRange(200, 5000, log=True),
        "temperature": FloatRange(1.0, 4.0),
    },
    "lwf": {
        "distillation_weight": FloatRange(0.1, 30.0, log=True),
        "temperature": FloatRange(1.0, 8.0),
    },
    "wa": {"strength": FloatRange(0.0, 1.0)},
    "si": {
        "penalty_weight": FloatRange(1e-2, 1e6, log=True),
        "damping": FloatRange(1e-3, 1.0, log=True),
    },
    "mas": {"penalty_weight": FloatRange(1e-3, 1e5, log=True)},
    # In the literature, the best λ lies between 0.4 (task) and 1e10 (class).
    "ewc": {"penalty_weight": FloatRange(0.1, 1e10, log=True)},
    "l2": {"penalty_weight": FloatRange(1e-3, 1e4, log=True)},
    "l2-init": {"penalty_weight": FloatRange(1e-5, 1.0, log=True)},
    "shrink-and-perturb": {
        "shrinkage": FloatRange(1e-5, 1e-2, log=True),
        "noise": FloatRange(1e-5, 1e-2, log=True),
    },
    "redo": {
        "threshold": FloatRange(0.01, 0.3, log=True),
        "every": IntRange(50, 2000, log=True),
    },
    # The papers' best lie between 1e-6 (a million steps) and 1e-3; short streams need more.
    "cbp": {
        "replacement_rate": FloatRange(1e-6, 1e-2, log=True),
        "maturity": IntRange(20, 2000, log=True),
    },
    "gem": {
        "margin": FloatRange(0.0, 1.0),
        "buffer_size": IntRange(50, 5000, log=True),
    },
    "agem": {
        "memory_batch_size": IntRange(8, 256, log=True),
        "buffer_size": IntRange(50, 5000, log=True),
    },
    "freeze": {"frozen_layers": IntRange(1, 4)},
    # p must be large if there are many tasks: task k owns (1 - p) p^k of the weights.
    "packnet": {
        "pruning_rate": FloatRange(0.4, 0.95),
        "post_prune_epochs": IntRange(1, 6),
    },
    "pnn": {},
    "supsup": {"kept_share": FloatRange(0.1, 0.9)},
    # The Gram matrix takes 2 F² bytes for F features.
    "ridge": {
        "features": IntRange(100, 3000, log=True),
        "feature_scale": FloatRange(0.3, 3.0, log=True),
        "regularisation": FloatRange(1e-2, 1e3, log=True),
    },
    "slda": {
        "features": IntRange(100, 3000, log=True),
        "feature_scale": FloatRange(0.3, 3.0, log=True),
        "shrinkage": FloatRange(1e-6, 0.5, log=True),
    },
    "ncm": {"features": Choices((0, 500, 2000))},
}
"""Default distributions by method. Nothing is searched for a method that is missing here, unless a spec says so."""


def default_space(method: Method) -> dict[str, Distribution]:
    """Return what is searched for `method` unless a spec says otherwise: the union over its parts.

    Raises:
        SpaceError: if the search space of a strategy from another package is wrong.
    """
    parts = {
        part: SPACES[part] if part in SPACES else parse_distributions(cls.hyperparameter_class, cls.search_space)
        for part, cls in method.parts.items()
    }
    return {name: parts[part][own] for name, (part, own) in method.names.items() if own in parts[part]}


def space_of(method: Method, overrides: Mapping[str, Any], training: TrainingSettings) -> SearchSpace:
    """Return the search space of `method` after the spec's overrides.

    Raises:
        SpaceError: if an override is wrong.
    """
    return build_space(method, default_space(method), overrides, training)
