"""Every method of the package against the shared suite, in the variants that differ in what they keep."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.conformance import MethodConformance
from strategies import STRATEGIES

VARIANTS: dict[str, list[dict[str, Any]]] = {
    "ewc": [
        {"fisher_samples": 7},
        {"variant": "online", "fisher_decay": 0.5, "penalty_decay": 0.5, "fisher": "empirical"},
    ],
    "replay": [{"buffer_size": 9}, {"buffer_size": 9, "buffer": "class_balanced", "replay_ratio": 0.3}],
    "packnet": [{"post_prune_epochs": 1, "pruning_rate": 0.5}, {"post_prune_epochs": 0, "pruning": "equal_share"}],
    "replay+ewc": [{"buffer_size": 9}],
}


def _class(method: str, own: dict[str, Any]) -> type:
    return type("TestMethod", (MethodConformance,), {"method": method, "hyperparameters": own})


for _method in [*STRATEGIES.own, *(name for name in VARIANTS if "+" in name)]:
    for _number, _own in enumerate(VARIANTS.get(_method, [{}])):
        globals()[f"Test_{_method}_{_number}"] = _class(_method, _own)


def test_every_method_is_tested() -> None:
    found = {value.method for value in globals().values() if hasattr(value, "method")}
    assert found >= set(STRATEGIES.own)


def test_every_variant_names_a_method() -> None:
    assert {part for name in VARIANTS for part in name.split("+")} <= set(STRATEGIES.own)
    with pytest.raises(KeyError):
        STRATEGIES["recorder"]
