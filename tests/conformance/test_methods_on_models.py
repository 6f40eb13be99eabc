"""Every method against the shared checks on networks with convolutions and norms, and on a class of one's own."""

from __future__ import annotations

import math
import sys
from typing import Any

import pytest
from torch import nn

from orchestrator.conformance import Case, checks
from orchestrator.conformance.world import N_TASKS
from orchestrator.models.settings import ModelSettings
from orchestrator.streams.settings import INCREMENTAL_TYPES
from strategies import STRATEGIES, find_method


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
    "mer": {"buffer_size": 9, "reptile_steps": 2},
    "icarl": {"buffer_size": 12},
    "packnet": {"post_prune_epochs": 1, "pruning_rate": 0.5},
}
NORMS_MOVE = {"pnn", "supsup"}
"""Methods that refuse a network with running statistics, as it is built."""
ONE_LEFT = {"batch_size": 7}
"""Of tasks of 20, 21 and 22 examples the last batches have 6, 7 and 1."""


def _types(method: str) -> list[Any]:
    return [kind for kind in INCREMENTAL_TYPES if kind not in find_method(method).unsupported]


def _cases(every_type: bool = False, models: tuple[str, ...] = tuple(MODELS)) -> list[Any]:
    """Return a case for each method and model that it can train, on the last of its types or on each."""
    found = []
    for model in models:
        for method in STRATEGIES.own:
            if (model == "own" and method in NORMS_MOVE) or model in find_method(method).unsupported_models:
                continue
            for kind in _types(method)[0 if every_type else -1 :]:
                case = Case(method, kind, SMALL.get(method, {}), ONE_LEFT, MODELS[model])
                found.append(pytest.param(case, id=f"{model}-{method}-{kind}"))
    return found


@pytest.mark.parametrize("case", _cases(every_type=True, models=("own",)) + _cases(models=("cnn",)))
def test_a_method_holds_on_every_model(case: Case) -> None:
    checks.is_repeatable(case)
    checks.is_not_naive(case)
    checks.its_state_is_plain(case)


@pytest.mark.parametrize(
    "case", [c for c in _cases() if find_method(c.values[0].method).parts[c.values[0].method].naive_at]
)
def test_strength_zero_is_naive_on_any_model(case: Case) -> None:
    checks.strength_zero_is_naive(case)


@pytest.mark.parametrize("case", _cases())
def test_a_stop_changes_nothing_on_any_model(case: Case) -> None:
    """Running statistics included: they are in the state that is compared. The slow network stops once."""
    changed = case.with_(training={"keep_optimizer": True, "optimizer": "adam"})
    if case.model.name == "resnet18":
        checks.a_stop_inside_a_task_changes_nothing(changed, [(1, 4)])
        return
    checks.a_stop_between_tasks_changes_nothing(changed)
    checks.a_stop_inside_a_task_changes_nothing(changed, [(0, 2), (2, 4)])


@pytest.mark.parametrize(
    "case", [c for c in _cases() if any(p.never_forgets for p in find_method(c.values[0].method).parts.values())]
)
def test_old_logits_never_change_on_any_model(case: Case) -> None:
    checks.old_logits_never_change(case)


@pytest.mark.parametrize("case", [c for c in _cases() if c.values[0].method in ("ewc", "mas")])
def test_importance_is_that_of_single_examples_on_any_model(case: Case) -> None:
    checks.its_importance_is_that_of_single_examples(case)


@pytest.mark.parametrize("method", STRATEGIES.own)
def test_a_method_trains_on_one_example_at_a_time(method: str) -> None:
    """With norms of vectors, which then have nothing to measure: their running statistics stay as they began."""
    own = {"post_prune_epochs": 0} if method == "packnet" else SMALL.get(method, {})
    for kind in _types(method) if method not in NORMS_MOVE else ():
        learner = Case(method, kind, own, {"batch_size": 1}, MODELS["own"]).learned([0])
        first = learner.network.backbone[2]
        assert isinstance(first, nn.BatchNorm1d)
        assert first.num_batches_tracked == 0


@pytest.mark.parametrize("method", sorted(NORMS_MOVE))
def test_a_method_that_cannot_hold_running_statistics_still_says_so(method: str) -> None:
    assert "resnet18" in find_method(method).unsupported_models
    with pytest.raises(ValueError, match=f"{method}: expected a backbone .*; choose another model or method"):
        Case(method, "task", model=MODELS["own"]).learner()


def test_the_cases_leave_one_example_for_the_last_batch() -> None:
    case = Case("naive", training=ONE_LEFT, model=MODELS["own"])
    assert [len(case.task(index)) % 7 for index in range(N_TASKS)] == [6, 0, 1]
    assert sys.modules[__name__].Normed is Normed
