"""The conformance matrix: every method in variants and on models, and the cut of it that runs at every change."""

from __future__ import annotations

import math
from typing import Any

from torch import nn

from orchestrator.conformance import Case, checks, family_checks
from orchestrator.conformance.suite import Row, rows_of
from orchestrator.models.settings import ModelSettings
from orchestrator.streams.settings import INCREMENTAL_TYPES
from strategies import STRATEGIES, IncrementalType, find_method

VARIANTS: dict[str, list[dict[str, Any]]] = {
    "naive": [{}],
    "joint": [{}],
    "lwf": [{"temperature": 3.0}, {"new_outputs": "left_out"}],
    "si": [{"penalty_weight": 2.0}],
    "mas": [{"importance_samples": 7}],
    "ewc": [
        {"fisher_samples": 7},
        {"variant": "online", "fisher_decay": 0.5, "penalty_decay": 0.5, "fisher": "exact"},
        {"variant": "online", "structure": "low_rank", "rank": 3, "fisher_samples": 7},
        {"structure": "low_rank", "rank": 3, "eigenvectors_in": "int8", "fisher_decay": 0.5, "fisher_samples": 7},
        {"structure": "kronecker", "fisher_decay": 0.5, "fisher_samples": 7},
    ],
    "replay": [
        {"buffer_size": 9},
        {"buffer_size": 9, "buffer": "class_balanced", "replay_ratio": 0.3},
        {"buffer_size": 9, "memory_batch_size": 3},
        {"buffer_size": 9, "filled": "while_training"},
        {"buffer_size_per_class": 3, "loss_weighting": "by_task"},
    ],
    "freeze": [{"frozen_layers": 1}, {"frozen_layers": 9}],
    "generative-replay": [{"latent_size": 3, "hidden_size": 8, "pool_size": 30}],
    "icarl": [{"buffer_size": 13, "temperature": 2.0}],
    "der": [{"buffer_size": 9}, {"buffer_size": 9, "new_outputs": "left_out"}],
    "der++": [{"buffer_size": 30, "memory_batch_size": 3}],
    "x-der": [{"buffer_size": 9}, {"buffer_size": 30, "memory_batch_size": 3, "constraint_weight": 0.0}],
    "mer": [{"buffer_size": 9, "reptile_steps": 4}],
    "er-ace": [{"buffer_size": 9}, {"buffer_size": 9, "buffer": "class_balanced", "rivals": "task"}],
    "cls-er": [{"buffer_size": 9}, {"buffer_size": 9, "consistency_weight": 0.0, "stable_frequency": 0.5}],
    "mir": [{"buffer_size": 30, "memory_batch_size": 3, "candidate_factor": 3}],
    "gdumb": [{"buffer_size": 9, "passes": 5}],
    "wa": [{}],
    "l2": [{"penalty_weight": 2.0}],
    "l2-init": [{"penalty_weight": 0.5}],
    "shrink-and-perturb": [{"every": 2}],
    "redo": [{"threshold": 0.9, "every": 2}],
    "cbp": [
        {"replacement_rate": 0.1, "maturity": 2},
        {"replacement_rate": 0.1, "maturity": 0, "utility": "contribution"},
    ],
    "replay+cbp": [{"buffer_size": 9, "replacement_rate": 0.1, "maturity": 2}],
    "replay+l2-init": [{"buffer_size": 9}],
    "replay+lwf+wa": [{"buffer_size": 9}],
    "gem": [{"buffer_size": 9}, {"buffer_size": 30, "memory_batch_size": 4}],
    "agem": [{"buffer_size": 9, "memory_batch_size": 5}],
    "packnet": [{"post_prune_epochs": 1, "pruning_rate": 0.5}, {"post_prune_epochs": 0, "pruning": "equal_share"}],
    "pnn": [{}],
    "supsup": [{"kept_share": 0.4}],
    "ridge": [
        {"features": 12, "regularisation": 0.5},
        {"features": 0},
        {"features": 9, "feature_kind": "relu", "regularisation": "auto"},
    ],
    "slda": [{"features": 12, "shrinkage": 0.01}, {"features": 0}],
    "ncm": [{}, {"features": 12}],
    "replay+lwf+ewc": [{"buffer_size": 9, "temperature": 3.0}],
    "replay+si": [{"buffer_size": 9, "penalty_weight": 2.0}],
    "der+mas+freeze": [{"buffer_size": 9}],
    "generative-replay+lwf": [{"latent_size": 3, "hidden_size": 8, "pool_size": 30}],
    "replay+ewc+agem": [{"replay_buffer_size": 9, "agem_buffer_size": 9}],
}
"""Hyper-parameters of each method that differ in what they keep. A method that is missing has its defaults."""

METHODS = [*STRATEGIES.own, *(name for name in VARIANTS if find_method(name).is_combination)]


class Normed(nn.Sequential):
    """A user's own class with norms of vectors, which have no variance in a batch of one example."""

    def __init__(self, input_shape: tuple[int, ...]) -> None:
        layers = [
            nn.Linear(math.prod(input_shape), 6),
            nn.BatchNorm1d(6),
            nn.ReLU(),
            nn.Linear(6, 5),
            nn.BatchNorm1d(5),
        ]
        super().__init__(nn.Flatten(), *layers, nn.ReLU())
        self.n_features = 5


MODELS = {
    "cnn": ModelSettings(name="cnn", channels=(4,), hidden=(6,)),
    "resnet18": ModelSettings(name="resnet18", width=2),
    "own": ModelSettings(name=f"{__name__}:Normed"),
}
SMALL: dict[str, dict[str, Any]] = {
    "ewc": {"fisher_samples": 7},
    "mas": {"importance_samples": 7},
    "replay": {"buffer_size": 9},
    "generative-replay": {"hidden_size": 6, "latent_size": 3, "pool_size": 20},
    "der": {"buffer_size": 9},
    "der++": {"buffer_size": 9},
    "x-der": {"buffer_size": 9},
    "mer": {"buffer_size": 9, "reptile_steps": 2},
    "er-ace": {"buffer_size": 9},
    "cls-er": {"buffer_size": 9},
    "mir": {"buffer_size": 9, "memory_batch_size": 2, "candidate_factor": 3},
    "gdumb": {"buffer_size": 9, "passes": 5},
    "icarl": {"buffer_size": 12},
    "packnet": {"post_prune_epochs": 1, "pruning_rate": 0.5},
    "redo": {"threshold": 0.9, "every": 2},
    "cbp": {"replacement_rate": 0.1, "maturity": 2},
    "ridge": {"features": 20},
    "slda": {"features": 20},
}
"""Hyper-parameters on `MODELS`."""

NO_RUNNING_STATISTICS = ("pnn", "supsup", "redo", "cbp")
"""Methods that refuse a network with running statistics when it is built."""

ONE_LEFT = {"batch_size": 7}
"""With tasks of 20, 21 and 22 examples the last batches have 6, 7 and 1."""

_ONLY_ON_OWN = {
    checks.is_repeatable,
    checks.is_not_naive,
    checks.its_state_is_plain,
    checks.it_keeps_what_it_said,
}
"""On `own` in every type, on `cnn` in one, on `resnet18` not at all: it is slow, and its stops show the same."""

_ON_MODELS = _ONLY_ON_OWN | {
    checks.strength_zero_is_naive,
    checks.a_stop_between_tasks_changes_nothing,
    checks.a_stop_inside_a_task_changes_nothing,
    checks.an_evaluation_inside_a_task_changes_nothing,
    checks.the_start_of_a_task_changes_no_answer,
    family_checks.old_logits_never_change,
    family_checks.its_importance_is_that_of_single_examples,
}

_LEFT_TO_A_RELEASE = {
    *_ONLY_ON_OWN,
    checks.a_stop_between_tasks_changes_nothing,
    checks.an_evaluation_inside_a_task_changes_nothing,
    checks.the_start_of_a_task_changes_no_answer,
}
"""Checks on models for images whose rows on the small network and on `own` show nearly the same."""

_IN_EVERY_TYPE = {
    checks.strength_zero_is_naive,
    checks.is_not_naive,
    checks.it_keeps_what_it_said,
    *(value for name, value in vars(family_checks).items() if name.startswith(("its_", "it_", "old_", "an_old_"))),
}
"""Checks that take little time."""

_LAYER_BY_LAYER = ("ewc", "mas", "generative-replay", "packnet", "pnn", "supsup", "redo", "cbp")
"""Methods that treat a convolution in their own way."""

_WITH_NORMS = ("mer", "lwf", "mas", "packnet")
"""Methods that move, copy, measure or freeze norms of images in their own way."""


def types_of(method: str) -> list[IncrementalType]:
    """Return the incremental types that a method can do. The last shows most: classes compete, or a head is shared."""
    return [kind for kind in INCREMENTAL_TYPES if kind not in find_method(method).unsupported]


def method_rows(method: str, variant: int) -> list[Row]:
    """Return the rows of one variant of a method on the small network."""
    return list(rows_of(Case(method, hyperparameters=VARIANTS.get(method, [{}])[variant])))


def model_rows() -> list[Row]:
    """Return the rows of every method on every model that it can train, in the type that shows most."""
    return [
        row
        for model, settings in MODELS.items()
        for method in STRATEGIES.own
        if not (model == "own" and method in NO_RUNNING_STATISTICS)
        and model not in find_method(method).unsupported_models
        for row in rows_of(Case(method, hyperparameters=SMALL.get(method, {}), training=ONE_LEFT, model=settings))
        if _is_a_model_row(model, row)
    ]


def _is_a_model_row(model: str, row: Row) -> bool:
    check = row.check.function
    if check not in _ON_MODELS or (model == "resnet18" and check in _ONLY_ON_OWN):
        return False
    if row.training != ("adam-kept" if "adam-kept" in row.check.trainings else "sgd"):
        return False
    return row.case.kind == types_of(row.case.method)[-1] or (model == "own" and check in _ONLY_ON_OWN)


def in_the_cut(row: Row) -> bool:
    """Return whether a row runs at every change. `docs/conformance.md` lists what does not."""
    check, method, types = row.check.function, row.case.method, types_of(row.case.method)
    match row.case.model.name:
        case "mlp":
            if row.training != "sgd":
                return row.case.kind == types[0]
            return row.case.kind == types[-1] or check in _IN_EVERY_TYPE
        case "cnn":
            return method in _LAYER_BY_LAYER and check not in _LEFT_TO_A_RELEASE
        case "resnet18":
            return method in _WITH_NORMS and check not in {*_LEFT_TO_A_RELEASE, checks.strength_zero_is_naive}
    return check in (checks.strength_zero_is_naive, checks.a_stop_inside_a_task_changes_nothing)
