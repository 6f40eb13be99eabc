"""How long a trial takes, from a few of its steps: what is taken, what is counted, what follows for the rest."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from orchestrator.spec.trial_spec import TrialSpec
from orchestrator.streams.datasets import Dataset
from orchestrator.trial import estimate
from orchestrator.trial.estimate import SampledLearner, extrapolated, trial_seconds
from orchestrator.trial.setup import set_up
from strategies import TrialDivergedError
from strategies.methods.der import Der
from strategies.methods.gem import Gem

MakeTrial = Callable[..., TrialSpec]


@pytest.fixture
def ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each look at the clock take a tenth of a second, so that what is counted can be told in advance."""
    now = 0.0

    def look() -> float:
        nonlocal now
        now += 0.1
        return now

    monkeypatch.setattr("orchestrator.trial.estimate.time.perf_counter", look)


def test_the_rest_of_the_steps_is_counted(ticks: None, make_trial: MakeTrial, digits: Dataset) -> None:
    """Three steps warm up, two are timed at a look each, and the others of the 100 take as long."""
    taken: list[int] = []

    class Watched(SampledLearner):
        def step(self, batch: Any) -> Any:
            taken.append(len(batch.labels))
            return super().step(batch)

    trial = make_trial(training={"iterations": 100, "batch_size": 8})
    stream, learner = set_up(trial, digits.phase("confirm", 0.0), torch.device("cpu"), Watched)
    learner.learn(stream.train(0))
    assert len(taken) == 3 + 2
    assert learner.n_steps == 100
    assert learner.skipped_seconds == pytest.approx(95 * 0.1)


def test_a_training_of_few_steps_is_run_in_full(make_trial: MakeTrial, digits: Dataset) -> None:
    trial = make_trial(training={"iterations": 4, "batch_size": 8})
    data = digits.phase("confirm", 0.0)
    stream, learner = set_up(trial, data, torch.device("cpu"), SampledLearner)
    learner.learn(stream.train(0))
    assert (learner.n_steps, learner.skipped_seconds) == (4, 0.0)


def test_more_epochs_take_longer(ticks: None, make_trial: MakeTrial, digits: Dataset) -> None:
    data = digits.phase("confirm", 0.0)
    seconds = [trial_seconds(make_trial(training={"epochs": epochs}), data) for epochs in (10, 1000)]
    assert seconds[1] > 50 * seconds[0]


def test_retraining_is_counted(ticks: None, make_trial: MakeTrial, digits: Dataset) -> None:
    data, training = digits.phase("confirm", 0.0), {"epochs": 100}
    costs = [
        trial_seconds(make_trial(method="packnet", hyperparameters={"post_prune_epochs": n}, training=training), data)
        for n in (1, 100)
    ]
    assert costs[1] == pytest.approx(2 * costs[0], rel=0.1)


def test_the_training_of_a_generator_is_counted(ticks: None, make_trial: MakeTrial, digits: Dataset) -> None:
    data, costs = digits.phase("confirm", 0.0), []
    for n in (10, 1000):
        own = {"generator_epochs": n, "hidden_size": 8, "latent_size": 4, "pool_size": 50}
        costs.append(trial_seconds(make_trial(method="generative-replay", hyperparameters=own), data))
    assert costs[1] > 20 * costs[0]


def test_what_is_remembered_is_felt(make_trial: MakeTrial, digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """DER fills its buffer in the last epoch only, and GEM at the end of a task."""
    monkeypatch.setattr(estimate, "MOST_SECONDS", 1e9)
    sizes: dict[str, set[int]] = {"der": set(), "gem": set()}

    def watched(method: type[Any], seam: str) -> None:
        called = getattr(method, seam)

        def watch(self: Any, *arguments: Any) -> Any:
            sizes[method.name].add(self.learner.n_seen if self.learner.n_seen == 1 or _kept(self) else -1)
            return called(self, *arguments)

        monkeypatch.setattr(method, seam, watch)

    watched(Der, "penalty")
    watched(Gem, "adjust_gradients")
    data = digits.phase("confirm", 0.0)
    for method in ("der", "gem"):
        trial_seconds(make_trial(method=method, training={"epochs": 50}), data)
    assert sizes == {"der": {1, 2, 3, 4, 5}, "gem": {1, 2, 3, 4, 5}}


def _kept(strategy: Any) -> bool:
    return len(getattr(strategy.state, "tasks", strategy.state)) > 0


@pytest.mark.parametrize(
    ("seconds", "n_steps", "n_tasks", "expected"),
    [
        ([2.0], [10], 3, [2, 2, 2]),
        ([2.0, 4.0, 5.0], [10, 10, 10], 5, [2, 4, 5, 5, 5]),
        ([1.0, 2.0, 3.0], [10, 20, 30], 5, [1, 2, 3, 4, 5]),
        ([6.0, 4.0], [30, 20], 5, [6, 4, 2, 0, 0]),
        ([0.5, 0.5], [0, 0], 3, [0.5, 0.5, 0.5]),
        ([1.0, 2.0], [10, 10], 2, [1, 2]),
    ],
)
def test_tasks_that_are_not_measured(
    seconds: list[float], n_steps: list[int], n_tasks: int, expected: list[float]
) -> None:
    assert extrapolated(seconds, n_steps, n_tasks) == pytest.approx(expected)


def test_after_a_while_no_further_task_is_begun(
    make_trial: MakeTrial, digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(estimate, "MOST_SECONDS", 0.0)
    tasks: list[int] = []
    learn = SampledLearner.learn

    def count(self: SampledLearner, task: Any, between_steps: Any = None) -> None:
        tasks.append(task.index)
        learn(self, task, between_steps)

    monkeypatch.setattr(SampledLearner, "learn", count)
    assert trial_seconds(make_trial(), digits.phase("confirm", 0.0)) > 0
    assert tasks == [0, 1, 2]


@pytest.mark.parametrize("error", [TrialDivergedError("the loss is nan"), TypeError("a method's own bug")])
def test_a_trial_that_fails_is_estimated_from_before(
    make_trial: MakeTrial, digits: Dataset, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    learn, first_bad = SampledLearner.learn, 0

    def diverge(self: SampledLearner, task: Any, between_steps: Any = None) -> None:
        learn(self, task, between_steps)
        if task.index >= first_bad:
            raise error

    monkeypatch.setattr(SampledLearner, "learn", diverge)
    assert math.isnan(trial_seconds(make_trial(), digits.phase("confirm", 0.0)))
    first_bad = 2
    assert trial_seconds(make_trial(), digits.phase("confirm", 0.0)) > 0


def test_an_estimate_changes_no_state_of_torch(make_trial: MakeTrial, digits: Dataset) -> None:
    before, n_threads = torch.get_rng_state(), torch.get_num_threads()
    trial_seconds(make_trial(method="supsup"), digits.phase("confirm", 0.0), threads=2)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == n_threads


def test_evaluations_within_tasks_are_as_many_as_examples_allow(
    ticks: None, make_trial: MakeTrial, digits: Dataset
) -> None:
    """A look at the clock is a tenth: an evaluation takes one, and each task has as many as whole portions."""
    data = digits.phase("confirm", 0.0)
    seconds = []
    for every in (100, 200):
        trial = make_trial(training={"iterations": 4, "batch_size": 50, "evaluate_every": every})
        seconds.append(trial_seconds(trial, data))
    # Evaluations of 1, 2, 3 tasks are looked at, 0.1 each: (0.1 * 3 / 6) a task seen, for 1 + 2 + 3 + 4 + 5 tasks.
    assert seconds[0] - seconds[1] == pytest.approx(15 * 0.3 / 6, rel=0.2)
