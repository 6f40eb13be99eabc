"""A trial that a rule stops at a task boundary: what the rule sees, what is left, and how it goes on."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from orchestrator.core.scores import ACCURACY
from orchestrator.execution.session import outcome_of
from orchestrator.results.rows import accuracy_rows, trial_row
from orchestrator.results.run import Run
from orchestrator.spec.loading import parse_spec
from orchestrator.spec.sweep_spec import SweepSpec
from orchestrator.spec.trial_spec import TrialSpec
from orchestrator.streams.datasets import Dataset
from orchestrator.trial import protocol as trial_module
from orchestrator.trial.protocol import run_trial
from orchestrator.trial.result import TrialResult
from orchestrator.trial.stopping import StopRule, StopTest, at_boundary
from strategies.methods.replay import Replay

MakeTrial = Callable[..., TrialSpec]

# Row 0 is before training; column t is task t.
R = np.array(
    [
        [0.1, 0.2, math.nan, math.nan],
        [0.9, 0.2, math.nan, math.nan],
        [0.5, 0.8, math.nan, math.nan],
        [0.7, 0.6, 0.7, math.nan],
        [0.6, 0.7, 0.3, 0.9],
    ]
)
NAMES = ["a", "b", "c", "d"]


def seen(after: int, *texts: str) -> list[float]:
    return list(at_boundary(texts, after, lambda _: R, NAMES, ACCURACY).values())


def test_a_rule_sees_r_cut_at_the_boundary() -> None:
    assert seen(1, "worst_forgetting", "average") == pytest.approx([0.9 - 0.5, (0.5 + 0.8) / 2])
    assert seen(2, "worst_forgetting", "forgetting") == pytest.approx([0.2, (0.2 + 0.2) / 2])
    assert seen(2, "worst_forgetting_ever", "worst_score") == pytest.approx([0.4, 0.5])
    assert seen(3, "worst_forgetting", "worst_score") == pytest.approx([0.4, 0.3])
    assert np.isnan(seen(0, "worst_forgetting")).all(), "nothing can be forgotten yet"


def test_a_limit_for_some_tasks_waits_until_all_of_them_were_learned() -> None:
    assert seen(1, "forgetting[a]") == pytest.approx([0.4])
    assert np.isnan(seen(1, "forgetting[a,c]")).all()
    assert seen(3, "forgetting[a,c]") == pytest.approx([(0.3 + 0.4) / 2])


RULE = StopRule((StopTest("worst_forgetting <= 0.1", "worst_forgetting", "<=", (0.3,), "calibrated"),))


def test_each_boundary_has_its_bound_and_the_last_holds_on() -> None:
    test = StopTest("average >= 0.6", "average", ">=", (0.5, 0.55), "calibrated")
    assert [test.is_beyond(0.52, after) for after in range(4)] == [False, True, True, True]
    assert not test.is_beyond(math.nan, 1)


def test_a_rule_travels_as_json() -> None:
    assert StopRule.from_json(RULE.to_json()) == RULE
    control = StopRule(RULE.tests, "auroc", is_control=True)
    assert StopRule.from_json(control.to_json()) == control


def test_a_control_is_stopped_by_what_is_proven_alone() -> None:
    proven = StopTest("worst_score >= 0.2", "worst_score", ">=", (0.2,), "proven")
    control = StopRule((*RULE.tests, proven), is_control=True)
    assert control.broken({"worst_forgetting": 0.9, "worst_score": 0.3}, 1) is None
    assert control.broken({"worst_forgetting": 0.9, "worst_score": 0.1}, 1) is proven


@pytest.fixture(scope="module")
def spec() -> SweepSpec:
    return parse_spec(
        {
            "scenarios": ["split-digits/class"],
            "methods": ["replay"],
            "limits": ["worst_forgetting <= 0.1"],
            "search": {"stop": "calibrated"},
            "model": {"hidden": [16]},
            "training": {"epochs": 1, "batch_size": 32},
        }
    )


@pytest.fixture(scope="module")
def trial(spec: SweepSpec, digits: Dataset) -> TrialSpec:
    few = {"buffer_size": 10, "replay_ratio": 0.1}
    return spec.trial(spec.cells[0], few, 0, "search", digits.fingerprint())


def run(trial: TrialSpec, digits: Dataset, stop: StopRule | None, checkpoint: Path | None = None) -> TrialResult:
    torch.set_num_threads(1)
    data = digits.phase(trial.phase, trial.validation_share, trial.validation_seed)
    return run_trial(trial, data, checkpoint=checkpoint, stop=stop)


@pytest.fixture(scope="module")
def whole(trial: TrialSpec, digits: Dataset) -> TrialResult:
    return run(trial, digits, None)


@pytest.fixture(scope="module")
def stopped(trial: TrialSpec, digits: Dataset) -> TrialResult:
    return run(trial, digits, RULE)


def test_a_stopped_trial_leaves_its_part_of_r_the_boundary_and_the_rule(
    whole: TrialResult, stopped: TrialResult
) -> None:
    assert (stopped.status, stopped.stopped_after) == ("stopped", 1)
    assert stopped.n_correct == whole.n_correct[:3]
    assert stopped.stop_rule == RULE.to_json()
    assert stopped.reason.startswith("stopped after 2 of 5 tasks: worst_forgetting is ")
    assert stopped.reason.endswith("no completed trial of its cell recovered from so much (worst_forgetting <= 0.1)")
    assert math.isnan(stopped.metrics()["average"])
    assert 0 < stopped.costs["train_seconds"] < whole.costs["train_seconds"]
    assert TrialResult.from_json(stopped.to_json()) == stopped


def test_a_rule_says_the_same_of_a_trial_that_ran_to_its_end(
    spec: SweepSpec, whole: TrialResult, stopped: TrialResult
) -> None:
    of_whole = outcome_of(whole, spec, ACCURACY).under(RULE)
    of_stopped = outcome_of(stopped, spec, ACCURACY).under(RULE)
    assert of_whole is not None
    assert of_stopped is not None
    assert repr(of_whole) == repr(of_stopped)  # NaN is not equal to itself
    assert of_whole.status == "stopped"


def test_rows_tell_what_the_search_needs(
    spec: SweepSpec, trial: TrialSpec, whole: TrialResult, stopped: TrialResult, tmp_path: Path
) -> None:
    run_folder = Run.create(tmp_path / "run", spec)
    for result in (stopped, whole):
        run_folder.tables.write_trial(trial.key, trial_row(trial, 0, result, {}), accuracy_rows(trial, 0, result))
        (row,) = run_folder.tables.trials.read().to_dict("records")
        assert row["status"] == result.status
        assert row["stopped_after"] == 1 if result is stopped else math.isnan(row["stopped_after"])
        found, told = run_folder.outcomes()[trial.key], outcome_of(result, spec, ACCURACY)
        assert repr(found.under(RULE)) == repr(told.under(RULE))
        assert repr(found.boundaries) == repr(told.boundaries)
        assert (found.under(None) is None) == (result is stopped), "the rest is missing"
    assert len(run_folder.accuracy()) == sum(cell is not None for row in whole.n_correct for cell in row)


@pytest.mark.parametrize("seconds", [0.0, 1000.0])
def test_it_goes_on_where_it_was_stopped(
    trial: TrialSpec,
    digits: Dataset,
    whole: TrialResult,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    seconds: float,
) -> None:
    """From its checkpoint, which a long trial has; a short one begins again."""
    monkeypatch.setattr(trial_module, "SECONDS_BETWEEN_CHECKPOINTS", seconds)
    path = tmp_path / "c.pt"
    first = run(trial, digits, RULE, path)
    assert path.exists() == (seconds == 0)
    again = run(trial, digits, RULE, path)
    assert (again.status, again.n_correct, again.reason) == ("stopped", first.n_correct, first.reason)
    rest = run(trial, digits, None, path)
    assert rest.status == "completed"
    assert rest.n_correct == whole.n_correct
    assert rest.costs["kept_bytes"] == whole.costs["kept_bytes"]
    assert not path.exists()
    if seconds == 0:
        assert rest.costs["seconds"] > first.costs["train_seconds"], "the time before the stop is counted"


# Known before training.


def kept_rule(limit: float) -> StopRule:
    return StopRule((StopTest(f"kept_bytes <= {limit:g}", "kept_bytes", "<=", (limit,), "proven"),))


@pytest.mark.parametrize("buffer", ["reservoir", "class_balanced"])
@pytest.mark.parametrize("size", [10, 100_000])
def test_what_replay_keeps_is_known_before_it_trains(spec: SweepSpec, digits: Dataset, buffer: str, size: int) -> None:
    """A buffer that is never full holds every example."""
    values = {"buffer_size": size, "buffer": buffer}
    trial = spec.trial(spec.cells[0], values, 0, "search", digits.fingerprint())
    n = min(size, len(digits.phase("search", 0.1, 0).train_labels))
    of_one = 64 * 4 + 8 + 8 + (8 if buffer == "class_balanced" else 0)
    assert run(trial, digits, None).costs["kept_bytes"] == n * of_one
    stopped = run(trial, digits, kept_rule(n * of_one - 1))
    assert (stopped.status, stopped.stopped_after, stopped.n_correct) == ("stopped", -1, [])
    assert stopped.costs["kept_bytes"] == n * of_one
    assert stopped.costs["train_seconds"] == 0
    assert stopped.reason.startswith("stopped before training: kept_bytes will be ")
    assert run(trial, digits, kept_rule(n * of_one)).status == "completed"


@pytest.mark.parametrize("method", ["agem", "naive"])
def test_others_that_know_say_what_they_keep(make_trial: MakeTrial, digits: Dataset, method: str) -> None:
    """A trial fails if its method keeps other than it said."""
    result = run(make_trial(method=method), digits, None)
    assert result.status == "completed"
    assert (result.costs["kept_bytes"] > 0) == (method == "agem")


def test_what_is_known_before_counts_for_whole_trials_too(
    spec: SweepSpec, trial: TrialSpec, digits: Dataset, whole: TrialResult, tmp_path: Path
) -> None:
    rule = kept_rule(100)
    stopped = run(trial, digits, rule)
    of_whole, of_stopped = (outcome_of(result, spec, ACCURACY).under(rule) for result in (whole, stopped))
    assert of_whole == of_stopped
    assert of_whole is not None
    assert (of_whole.status, of_whole.boundaries) == ("stopped", ())
    run_folder = Run.create(tmp_path / "run", spec)
    run_folder.tables.write_trial(trial.key, trial_row(trial, 0, stopped, {}), accuracy_rows(trial, 0, stopped))
    assert run_folder.outcomes()[trial.key].under(rule) == of_stopped


def test_a_method_that_keeps_something_else_than_it_said_fails(
    trial: TrialSpec, digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Replay, "bytes_to_keep", lambda *_: 7)
    result = run(trial, digits, None)
    assert (result.status, result.n_correct) == ("failed", [])
    assert "bytes_to_keep said 7, and kept_bytes is 2720; correct it" in result.reason
