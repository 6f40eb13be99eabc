"""Diagnostics change nothing: R, the checkpoint and what is random are the same with and without."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from orchestrator.spec.trial_spec import TrialSpec
from orchestrator.streams.datasets import Dataset
from orchestrator.trial import protocol as trial_module
from orchestrator.trial.diagnostics import tracker
from orchestrator.trial.diagnostics.quantities import QUANTITIES
from orchestrator.trial.protocol import run_trial
from orchestrator.trial.result import TrialResult
from strategies import STRATEGIES

MakeTrial = Callable[..., TrialSpec]

OWN = """
import torch
from torch import nn

class Noisy(nn.Sequential):
    def __init__(self, input_shape):
        super().__init__(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2))
        self.n_features = 8
"""
MODELS: dict[str, dict[str, Any]] = {
    "cnn": {"name": "cnn", "channels": [3], "hidden": [6]},
    "own": {"name": "my_noisy_model:Noisy"},
}


def run(trial: TrialSpec, digits: Dataset, **options: Any) -> TrialResult:
    return run_trial(trial, digits.phase("confirm", 0.1), **options)


def same(trial: TrialSpec, digits: Dataset) -> TrialResult:
    """Return the result with diagnostics, after comparing it with that without."""
    without, found = run(trial, digits), run(trial, digits, diagnostics=True)
    assert found.status == without.status == "completed", (found.reason, without.reason)
    assert found.measured == without.measured
    assert found.details == without.details, "diagnostics are complete"
    costs = ("n_parameters", "kept_bytes")
    assert {name: found.costs[name] for name in costs} == {name: without.costs[name] for name in costs}
    assert without.diagnostics == []
    assert found.diagnostics
    return found


NO_NETWORK = [name for name, strategy in STRATEGIES.items() if not strategy.trains_network]
ANEW = [name for name, strategy in STRATEGIES.items() if strategy.starts_anew]


@pytest.mark.parametrize("kind", ["task", "domain", "class"])
@pytest.mark.parametrize("method", [*STRATEGIES, "replay+lwf+ewc"])
def test_r_is_the_same_bit_for_bit(make_trial: MakeTrial, digits: Dataset, method: str, kind: str) -> None:
    if method in STRATEGIES and kind in STRATEGIES[method].unsupported:
        pytest.skip("no such cell")
    found = same(make_trial(f"split-digits/{kind}", method, training={"epochs": 1, "batch_size": 64}), digits)
    names = {name for _, name, _, _ in found.diagnostics}
    assert names <= QUANTITIES.keys()
    assert ("plasticity_gap" in names) == (method not in (*ANEW, *NO_NETWORK))
    assert ("fisher_trace" in names) == (method not in ("supsup", *NO_NETWORK)), "which train no weights"
    assert ("examples_summed" in names) == (method in NO_NETWORK)
    places = [(after, name, part) for after, name, part, _ in found.diagnostics]
    assert len(set(places)) == len(places)
    afters = {after for after, _, _ in places}
    assert afters == set(range(5)) or method in ("freeze", "supsup"), "whose backbone is not trained any more"


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("method", ["naive", "ewc", "packnet"])
def test_other_models_are_measured_and_left_alone(
    make_trial: MakeTrial, digits: Dataset, model: str, method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_noisy_model.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_noisy_model", raising=False)
    trial = make_trial(
        "split-digits/task", method, model=MODELS[model], training={"epochs": 1, "batch_size": 100},
        streams={"split-digits": {"n_tasks": 2}},
    )  # fmt: skip
    names = {name for _, name, _, _ in same(trial, digits).diagnostics}
    assert {"fisher_share", "fisher_trace", "dead_units", "feature_rank", "plasticity_gap"} <= names


def test_the_global_generator_is_where_it_is_without(make_trial: MakeTrial, digits: Dataset) -> None:
    trial = make_trial()
    run(trial, digits)
    without = torch.get_rng_state()
    run(trial, digits, diagnostics=True)
    assert torch.equal(torch.get_rng_state(), without)


def test_they_are_the_same_again_and_travel_as_json(make_trial: MakeTrial, digits: Dataset) -> None:
    trial = make_trial("split-digits/class", "ewc")
    one, two = run(trial, digits, diagnostics=True), run(trial, digits, diagnostics=True)
    assert one.diagnostics == two.diagnostics
    assert TrialResult.from_json(one.to_json()) == one
    old = json.loads(one.to_json())
    del old["diagnostics"]
    assert TrialResult.from_json(json.dumps(old)).diagnostics == [], "that of an earlier version"


@pytest.mark.parametrize("n_steps", [3, 130, 145, 150])
def test_a_trial_that_goes_on_has_the_same_diagnostics(
    make_trial: MakeTrial, digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_steps: int
) -> None:
    """Interrupted in the first task, and in the last before, at and after its probe at step 11 of 36."""
    trial = make_trial("split-digits/class", "replay", {"buffer_size": 20}, training={"epochs": 4, "batch_size": 40})
    monkeypatch.setattr(trial_module, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    whole, path, taken = run(trial, digits, diagnostics=True), tmp_path / "c.pt", 0
    save = trial_module._Protocol._save

    def interrupt(self: Any, place: Any) -> None:
        nonlocal taken
        save(self, place)
        taken += 1
        if taken == n_steps:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(trial_module._Protocol, "_save", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(trial, digits, diagnostics=True, checkpoint=path)
    assert path.exists()
    found = run(trial, digits, diagnostics=True, checkpoint=path)
    assert found.measured == whole.measured
    assert found.diagnostics == whole.diagnostics


def test_a_trial_that_was_begun_without_goes_on_without(
    make_trial: MakeTrial, digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial, path = make_trial(), tmp_path / "c.pt"
    monkeypatch.setattr(trial_module, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)

    def stop(after: int, row: Any, stream: Any) -> None:
        if after == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(trial, digits, checkpoint=path, report=stop)
    found = run(trial, digits, checkpoint=path, diagnostics=True)
    assert found.diagnostics == []
    assert found.details["diagnostics"] == "not complete: it was begun without"
    assert found.measured == run(trial, digits).measured


def test_an_error_ends_the_diagnostics_and_not_the_trial(
    make_trial: MakeTrial, digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = make_trial()
    without = run(trial, digits)

    def fail(*arguments: Any) -> None:
        torch.rand(1)
        raise RuntimeError("no rule for this operation")

    monkeypatch.setattr(tracker, "feature_rows", fail)
    found = run(trial, digits, diagnostics=True)
    assert found.measured == without.measured
    assert found.details["diagnostics"] == "not complete: RuntimeError: no rule for this operation"


def test_the_probe_compares_the_same_number_of_steps(
    make_trial: MakeTrial, digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []
    original = tracker.fresh_accuracy

    def count(*arguments: Any) -> Any:
        taken.append(arguments[4])
        return original(*arguments)

    monkeypatch.setattr(tracker, "fresh_accuracy", count)
    found = run(make_trial(training={"iterations": 150}), digits, diagnostics=True)
    assert taken == [30, 30]
    rows = {(after, name): value for after, name, _, value in found.diagnostics}
    gaps = {after: value for (after, name), value in rows.items() if name == "plasticity_gap"}
    assert set(gaps) == {2, 4}
    for after, gap in gaps.items():
        assert gap == pytest.approx(rows[after, "probe_accuracy"] - rows[after, "fresh_accuracy"])


@pytest.mark.parametrize(
    ("n_steps", "probes"),
    [
        ([1000] * 5, {1: 100, 2: 100, 3: 100, 4: 100}),
        ([150] * 5, {2: 30, 4: 30}),
        ([75] * 5, {4: 30}),
        ([20] * 5, {4: 10}),
        ([10, 10], {1: 2}),
        ([500], {}),
        ([100] * 20, {3: 30, 6: 30, 9: 30, 13: 30, 16: 30, 19: 30}),
    ],
)
def test_fresh_networks_take_a_tenth_of_all_steps_at_most(n_steps: list[int], probes: dict[int, int]) -> None:
    found = tracker.choose_probes(n_steps)
    assert found == probes
    assert sum(found.values()) <= 0.1 * sum(n_steps)


def test_a_trial_that_fails_leaves_none(make_trial: MakeTrial, digits: Dataset) -> None:
    trial = make_trial(training={"learning_rate": 100.0, "momentum": 0.99, "epochs": 20}, model={"hidden": [32] * 6})
    found = run(trial, digits, diagnostics=True)
    assert (found.status, found.diagnostics) == ("failed", [])
