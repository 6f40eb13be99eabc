"""Whole trials and plans with the models for images and with a user's own class."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.api import plan, run_single_trial
from orchestrator.core.errors import ModelError, SpecError
from orchestrator.spec.sweep_spec import SweepSpec
from orchestrator.spec.trial_spec import TrialSpec
from orchestrator.streams.datasets import Dataset
from orchestrator.trial.estimate import trial_seconds
from orchestrator.trial.protocol import run_trial
from orchestrator.trial.result import TrialResult
from strategies import STRATEGIES

MakeSpec = Callable[..., SweepSpec]
MakeTrial = Callable[..., TrialSpec]

OWN = """
from torch import nn

class Net(nn.Sequential):
    def __init__(self, input_shape, width):
        pixels = input_shape[1] * input_shape[2]
        super().__init__(nn.Conv2d(input_shape[0], 2, 1), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2 * pixels, width))
        self.n_features = width

class Deep(nn.Sequential):
    def __init__(self, input_shape, width):
        pixels = input_shape[1] * input_shape[2]
        super().__init__(nn.Flatten(), nn.Linear(pixels, width), nn.BatchNorm1d(width), nn.ReLU())
        self.n_features = width
"""
PADDED = {"split-digits": {"n_tasks": 2, "padding": 1}}
MODELS: dict[str, dict[str, Any]] = {
    "cnn": {"name": "cnn", "channels": [2, 3], "hidden": [5]},
    "resnet18": {"name": "resnet18", "width": 2},
    "own": {"name": "my_trial_models:Net", "options": {"width": 5}},
}


@pytest.fixture(autouse=True)
def _own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_trial_models.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_trial_models", raising=False)


def run(spec: TrialSpec, digits: Dataset, **options: Any) -> TrialResult:
    return run_trial(spec, digits.phase(spec.phase, spec.validation_share, spec.validation_seed), **options)


CHAINS_ONLY = ("pnn", "supsup", "redo", "cbp")
"""Methods that need layers one after the other without norms. They refuse the residual network and the class above."""

SHOWN_BY_CONFORMANCE = ("mer", "lwf", "mas", "packnet")
"""Methods that tests/conformance trains on the slow network at every change."""


def trainable(model: str, method: str) -> bool:
    if model == "resnet18" and method in SHOWN_BY_CONFORMANCE:
        return False
    return model == "cnn" or method not in CHAINS_ONLY


@pytest.mark.parametrize(
    ("model", "method"), [(model, method) for model in MODELS for method in STRATEGIES if trainable(model, method)]
)
def test_every_method_completes(model: str, method: str, make_trial: MakeTrial, digits: Dataset) -> None:
    kind = "class" if "task" in STRATEGIES[method].unsupported else "task"
    result = run(make_trial(f"split-digits/{kind}", method, model=MODELS[model], streams=PADDED), digits)

    assert (result.status, result.reason) == ("completed", "")
    assert result.n_correct[0] == [None, None]
    if STRATEGIES[method].never_forgets:
        assert result.n_correct[1][0] == result.n_correct[2][0]


@pytest.mark.parametrize("model", MODELS)
def test_a_trial_repeats_bit_for_bit(model: str, make_trial: MakeTrial, digits: Dataset) -> None:
    spec = make_trial(method="replay", model=MODELS[model], streams=PADDED)
    assert run(spec, digits).n_correct == run(spec, digits).n_correct


@pytest.mark.parametrize("method", ["ewc", "packnet"])
def test_a_checkpoint_holds_running_statistics(
    method: str, make_trial: MakeTrial, digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stopped trial continues as if it had not stopped, and frozen statistics stay frozen."""
    monkeypatch.setattr("orchestrator.trial.protocol.SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    streams = {"split-digits": {"n_tasks": 3, "padding": 1}}
    training = {"epochs": 1, "batch_size": 64}
    spec = make_trial(method=method, model=MODELS["own"], streams=streams, training=training)

    def stop(after: int, row: object, stream: object) -> None:
        if after == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(spec, digits, report=stop, checkpoint=tmp_path / "c.pt")
    reported: list[int] = []
    resumed = run(spec, digits, report=lambda after, row, stream: reported.append(after), checkpoint=tmp_path / "c.pt")

    assert reported == [1, 2], "it continues after the checkpoint of task 0"
    assert resumed.n_correct == run(spec, digits).n_correct


def test_too_small_images_are_an_error_and_no_result(make_trial: MakeTrial, digits: Dataset) -> None:
    model = {"name": "resnet18", "width": 2}
    result = run(make_trial(model=model), digits)
    assert result.status == "error"
    assert "model.name: resnet18 needs images of 9x9 pixels or more, and these are 1x8x8" in result.reason
    with pytest.raises(ModelError, match="9x9 pixels or more"):
        trial_seconds(make_trial(model=model), digits.phase("confirm", 0.0))


@pytest.mark.parametrize(
    ("method", "says"), [("pnn", "expected a backbone that is"), ("supsup", "whose parameters are")]
)
def test_an_untrainable_class_is_refused_by_plan(method: str, says: str, make_spec: MakeSpec, tmp_path: Path) -> None:
    spec = make_spec(model=MODELS["own"] | {"name": "my_trial_models:Deep"}, methods=[method])
    with pytest.raises(SpecError, match=f"methods.{method}: {method}: .*{says}.*choose another model or method"):
        plan(spec, tmp_path / "run")


def test_a_class_that_cannot_be_imported_is_an_error(make_trial: MakeTrial, digits: Dataset) -> None:
    result = run(make_trial(model={"name": "no_such_module:Net"}), digits)
    assert result.status == "error"
    assert "cannot import 'no_such_module:Net'" in result.reason


@pytest.mark.parametrize("model", MODELS)
def test_a_plan_times_steps_of_the_model(model: str, make_spec: MakeSpec, tmp_path: Path) -> None:
    spec = make_spec(model=MODELS[model], streams=PADDED)
    (cell,) = plan(spec, tmp_path / "run").cells

    assert cell.seconds_a_trial > 0
    assert not cell.is_measured
    assert not (tmp_path / "run").exists()


def test_one_trial_runs_with_an_own_class(make_trial: MakeTrial) -> None:
    assert run_single_trial(make_trial(model=MODELS["own"], streams=PADDED)).status == "completed"
