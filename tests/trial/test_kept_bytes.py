"""What a method keeps is known before training: whole trials of every method, in settings that keep other things.

A trial whose method keeps something else than it said fails (`test_stopping`), so it is enough that each completes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from orchestrator.spec.trial_spec import TrialSpec
from orchestrator.streams.datasets import Dataset
from orchestrator.streams.settings import INCREMENTAL_TYPES
from orchestrator.trial.protocol import run_trial
from orchestrator.trial.result import TrialResult
from orchestrator.trial.stopping import StopRule, StopTest
from strategies import STRATEGIES, find_method
from strategies.methods.ewc import Ewc

MakeTrial = Callable[..., TrialSpec]

FEW, MANY = {"buffer_size": 21}, {"buffer_size": 100_000}
SETTINGS: dict[str, list[dict[str, Any]]] = {
    "naive": [{}],
    "joint": [{}],
    "replay": [FEW, MANY, MANY | {"buffer": "class_balanced", "replay_ratio": 0.0}],
    "generative-replay": [
        {"latent_size": 3, "hidden_size": 7, "pool_size": 20},
        {"latent_size": 2, "hidden_size": 5, "pool_size": 20, "replay_ratio": 0.0},
    ],
    "der": [FEW, MANY | {"logit_weight": 0.0}, FEW | {"new_outputs": "left_out"}],
    "der++": [FEW, MANY],
    "x-der": [FEW, MANY],
    "mer": [FEW, MANY | {"reptile_rate": 1.0}],
    "er-ace": [FEW, MANY | {"buffer": "class_balanced"}],
    "cls-er": [FEW, MANY],
    "mir": [FEW, MANY],
    "gdumb": [FEW | {"passes": 2}, MANY | {"passes": 1}],
    "wa": [{}],
    "l2": [{}, {"penalty_weight": 0.0}],
    "l2-init": [{}],
    "shrink-and-perturb": [{}],
    "redo": [{}],
    "cbp": [{}],
    "icarl": [FEW, MANY],
    "lwf": [{}, {"distillation_weight": 0.0}],
    "si": [{}, {"penalty_weight": 0.0}],
    "mas": [{"importance_samples": 9}, {"penalty_weight": 0.0, "importance_samples": 3}],
    "ewc": [
        {"fisher_samples": 9},
        {"fisher_samples": 9, "variant": "online", "fisher": "empirical"},
        {"fisher_samples": 9, "variant": "online", "structure": "low_rank", "rank": 2},
        {"fisher_samples": 9, "structure": "low_rank", "rank": 2, "eigenvectors_in": "int8"},
        {"fisher_samples": 3, "penalty_weight": 0.0},
    ],
    "gem": [FEW, MANY],
    "agem": [FEW, MANY],
    "freeze": [{"frozen_layers": 1}, {"frozen_layers": 9}],
    "packnet": [{"post_prune_epochs": 0}, {"post_prune_epochs": 1, "pruning": "equal_share"}],
    "pnn": [{}],
    "supsup": [{}, {"kept_share": 0.1}],
    "ridge": [{"features": 70}, {"features": 0, "regularisation": "auto"}],
    "slda": [{"features": 9, "feature_kind": "relu"}, {"features": 0}],
    "ncm": [{}, {"features": 9}],
    "replay+ewc": [FEW | {"fisher_samples": 9}],
    "freeze+mas": [{"frozen_layers": 9, "importance_samples": 9}],
    "der+si+gem": [{"der_buffer_size": 9, "gem_buffer_size": 8}],
}
CASES = [
    (method, kind, own)
    for method, settings in SETTINGS.items()
    for kind in INCREMENTAL_TYPES
    if kind not in find_method(method).unsupported
    for own in settings
]
TRAININGS = {
    "passes": {"epochs": 1, "batch_size": 64},
    "steps": {"iterations": 2, "batch_size": 16, "active_outputs": "all"},
}


def run(trial: TrialSpec, digits: Dataset, stop: StopRule | None = None) -> TrialResult:
    return run_trial(trial, digits.phase(trial.phase, trial.validation_share, trial.validation_seed), stop=stop)


def test_every_method_is_here_and_knows() -> None:
    assert SETTINGS.keys() >= set(STRATEGIES.own)
    assert all(find_method(method).knows_kept_bytes for method in SETTINGS)


@pytest.mark.parametrize("training", TRAININGS)
@pytest.mark.parametrize(("method", "kind", "own"), CASES)
def test_a_method_keeps_what_it_said(
    method: str, kind: str, own: dict[str, Any], training: str, make_trial: MakeTrial, digits: Dataset
) -> None:
    trial = make_trial(
        f"split-digits/{kind}",
        method,
        own,
        phase="search",
        training=TRAININGS[training],
        streams={"split-digits": {"n_tasks": 3, "classes_per_task": 3, "leftover": "last_task"}},
    )
    whole = run(trial, digits)
    assert (whole.status, whole.reason) == ("completed", "")
    kept = whole.costs["kept_bytes"]
    if kept:
        rule = StopRule((StopTest("kept_bytes <= 1", "kept_bytes", "<=", (kept - 1,), "proven"),))
        stopped = run(trial, digits, rule)
        assert (stopped.status, stopped.stopped_after, stopped.costs["kept_bytes"]) == ("stopped", -1, kept)


def test_one_part_that_cannot_tell_is_not_asked_again(
    make_trial: MakeTrial, digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None is no promise: nothing stops the trial before training, and nothing is compared after it."""
    monkeypatch.setattr(Ewc, "bytes_to_keep", lambda *_: None)
    trial = make_trial(method="replay+ewc", hyperparameters=FEW)
    rule = StopRule((StopTest("kept_bytes <= 1", "kept_bytes", "<=", (1,), "proven"),))
    assert run(trial, digits, rule).status == "completed"
