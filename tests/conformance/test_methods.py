"""Every method of the package against the shared suite, in the variants that differ in what they keep."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.conformance import MethodConformance
from strategies import STRATEGIES, find_method

VARIANTS: dict[str, list[dict[str, Any]]] = {
    "naive": [{}],
    "joint": [{}],
    "lwf": [{"temperature": 3.0}, {"new_outputs": "left_out"}],
    "si": [{"penalty_weight": 2.0}],
    "mas": [{"importance_samples": 7}],
    "ewc": [{"fisher_samples": 7}, {"variant": "online", "fisher_decay": 0.5, "penalty_decay": 0.5}],
    "replay": [
        {"buffer_size": 9},
        {"buffer_size": 9, "buffer": "class_balanced", "replay_ratio": 0.3},
        {"buffer_size": 9, "memory_batch_size": 3},
    ],
    "freeze": [{"frozen_layers": 1}, {"frozen_layers": 9}],
    "generative-replay": [{"latent_size": 3, "hidden_size": 8, "pool_size": 30}],
    "icarl": [{"buffer_size": 13, "temperature": 2.0}],
    "der": [{"buffer_size": 9}, {"buffer_size": 9, "new_outputs": "left_out"}],
    "der++": [{"buffer_size": 30, "memory_batch_size": 3}],
    "mer": [{"buffer_size": 9, "reptile_steps": 4}],
    "gem": [{"buffer_size": 9}, {"buffer_size": 30, "memory_batch_size": 4}],
    "agem": [{"buffer_size": 9, "memory_batch_size": 5}],
    "packnet": [{"post_prune_epochs": 1, "pruning_rate": 0.5}, {"post_prune_epochs": 0, "pruning": "equal_share"}],
    "pnn": [{}],
    "supsup": [{"kept_share": 0.4}],
    "replay+lwf+ewc": [{"buffer_size": 9, "temperature": 3.0}],
    "replay+si": [{"buffer_size": 9, "penalty_weight": 2.0}],
    "der+mas+freeze": [{"buffer_size": 9}],
    "generative-replay+lwf": [{"latent_size": 3, "hidden_size": 8, "pool_size": 30}],
    "replay+ewc+agem": [{"replay_buffer_size": 9, "agem_buffer_size": 9}],
}


def _class(method: str, own: dict[str, Any]) -> type:
    return type("TestMethod", (MethodConformance,), {"method": method, "hyperparameters": own})


for _method in [*STRATEGIES.own, *(name for name in VARIANTS if find_method(name).is_combination)]:
    for _number, _own in enumerate(VARIANTS.get(_method, [{}])):
        globals()[f"Test_{_method}_{_number}"] = _class(_method, _own)


def test_every_method_is_tested() -> None:
    found = {value.method for value in globals().values() if hasattr(value, "method")}
    assert found >= set(STRATEGIES.own)


def test_every_variant_names_a_method() -> None:
    assert {part for name in VARIANTS for part in find_method(name).parts} <= set(STRATEGIES.own)
    with pytest.raises(KeyError):
        STRATEGIES["recorder"]
