"""Budgets: what they allow, when they are reached, and how a sweep ends and goes on. No Ray cluster is started."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.search import Searcher

from orchestrator import api
from orchestrator.core.errors import UsageError
from orchestrator.execution.budget import Budget, Spending, parse_duration, spelled
from orchestrator.execution.capacity import NodeResources
from orchestrator.execution.searcher import TuneSearcher
from orchestrator.execution.session import Session
from orchestrator.results.run import Run
from orchestrator.search.suggestion import PlannedTrial
from orchestrator.search.sweep_search import SweepSearch
from orchestrator.spec.sweep_spec import SweepSpec
from orchestrator.trial.result import TrialResult

MakeSpec = Callable[..., SweepSpec]
MakeResult = Callable[..., TrialResult]


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


# What is refused.


@pytest.mark.parametrize(
    ("fields", "parts"),
    [
        ({"seconds": 0}, ["budget.seconds: expected more than 0, got 0; leave it out for no limit"]),
        ({"trials": -1}, ["budget.trials: expected more than 0, got -1"]),
        ({"cost": float("nan"), "price_per_hour": 1}, ["budget.cost: expected more than 0, got nan"]),
        ({"seconds": float("inf")}, ["budget.seconds: expected more than 0, got inf"]),
        ({"price_per_hour": -1}, ["budget.price_per_hour: expected 0 or more, got -1"]),
        ({"cost": 20}, ["budget.cost: expected a price beside it; add budget.price_per_hour (of one CPU)"]),
        (
            {"seconds": -1, "cost": 0},
            ["budget.seconds: ", "budget.cost: expected more", "budget.cost: expected a price"],
        ),
    ],
)
def test_bad_budgets_are_refused(fields: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(UsageError) as error:
        Budget(**fields)
    assert len(error.value.faults) == len(parts)
    for part in parts:
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("prices", "gpus", "missing"),
    [
        ({"price_per_hour": 1}, 0, None),
        ({"price_per_hour": 1}, 0.5, "budget.gpu_price_per_hour"),
        ({"price_per_hour": 1, "gpu_price_per_hour": 0}, 0.5, None),
        ({"gpu_price_per_hour": 2}, 0.5, None),
        ({"gpu_price_per_hour": 2}, 0, "budget.price_per_hour"),
        ({"price_per_hour": 0}, 0, "budget.price_per_hour"),
    ],
)
def test_a_cost_needs_the_price_of_what_trials_use(
    make_spec: MakeSpec, prices: dict[str, float], gpus: float, missing: str | None
) -> None:
    spec = make_spec(resources={"gpus": gpus})
    Budget(**prices).check(spec)
    budget = Budget(cost=1, **prices)
    if missing is None:
        budget.check(spec)
    else:
        with pytest.raises(UsageError, match=f"some ask for 1 CPUs and {gpus:g} GPUs; add {missing}"):
            budget.check(spec)


def test_what_would_cost_nothing_is_refused_before_anything_starts(tmp_path: Path, make_spec: MakeSpec) -> None:
    with pytest.raises(UsageError, match=r"add budget\.price_per_hour"):
        api.run_sweep(make_spec(), tmp_path / "run", tmp_path, budget=Budget(cost=1, gpu_price_per_hour=1))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("45min", 2700),
        ("45 m", 2700),
        ("2h", 7200),
        ("1h30min", 5400),
        (" 1.5 H ", 5400),
        ("1d 1s", 86401),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds
    assert parse_duration(spelled(seconds)) == seconds


@pytest.mark.parametrize("text", ["", "2", "h", "-2h", "2 hours", "2h2h", "1e3s", "nan", "2h!", "2,5h", "٢h", "1:30"])
def test_nonsense_is_no_duration(text: str) -> None:
    assert parse_duration(text) is None


# What is spent.


def trials_of(spec: SweepSpec) -> list[PlannedTrial]:
    return list(SweepSearch(spec, {"digits": "f00d"}, {}).waiting())


def test_time_counts_from_the_start(clock: Clock, make_spec: MakeSpec) -> None:
    spending, (first, *_) = Spending(Budget(seconds=60), clock), trials_of(make_spec())
    clock.now += 59
    assert spending.allows(first, [])
    assert (spending.reached, spending.left()) == ("", {"seconds": 1})
    clock.now += 1
    assert not spending.allows(first, [])
    assert (spending.reached, spending.left()) == ("the time budget of 1min", {"seconds": 0})


def test_trials_count_once_they_have_a_worker(clock: Clock, make_spec: MakeSpec) -> None:
    spending, (a, b, c, *_) = Spending(Budget(trials=2), clock), trials_of(make_spec())
    assert spending.allows(a, [])
    spending.start(a)
    spending.start(a)
    assert spending.left() == {"trials": 1}, "a second attempt is the same trial"
    assert spending.allows(b, [])
    assert not spending.allows(c, [b])
    assert spending.reached == "", "b has been handed out and waits for its worker"
    spending.start(b)
    spending.end(a)
    assert not spending.allows(c, [])
    assert (spending.reached, spending.left()) == ("the budget of 2 trials", {"trials": 0})


def test_cost_is_time_by_what_a_trial_asks_for(clock: Clock, make_spec: MakeSpec) -> None:
    """2 CPUs at 0.5 and half a GPU at 4 an hour are 3 an hour."""
    a, b, *_ = trials_of(make_spec(resources={"cpus": 2, "gpus": 0.5}))
    spending = Spending(Budget(cost=10, price_per_hour=0.5, gpu_price_per_hour=4), clock)
    spending.start(a)
    clock.now += 3600
    assert (spending.cost, spending.left()) == (3.0, {"cost": 7.0}), "it counts as it goes"
    spending.end(a)
    spending.end(a)
    clock.now += 3600
    assert spending.cost == 3.0
    spending.start(b)
    clock.now += 7 / 3 * 3600 + 1
    assert spending.reached == "the maximal cost of 10"


def test_no_trial_is_begun_whose_expected_cost_passes_the_maximum(clock: Clock, make_spec: MakeSpec) -> None:
    """One CPU at 1 an hour, and trials of an hour: 2 have ended and 1 is in flight when the fifth would be too much."""
    a, b, c, d, *_ = trials_of(make_spec(seeds={"search": 3, "confirm": 2}))
    spending = Spending(Budget(cost=3.9, price_per_hour=1), clock)
    assert spending.allows(a, []), "nothing is known of what it costs"
    assert spending.allows(b, [a])
    spending.start(a)
    spending.start(b)
    clock.now += 3600
    spending.end(a)
    spending.end(b)
    assert spending.allows(c, [])
    assert not spending.allows(d, [c])
    spending.start(c)
    assert spending.cost == 2.0
    assert not spending.allows(d, [])
    assert spending.reached == "the maximal cost of 3.9"
    clock.now += 3600
    spending.end(c)
    assert spending.cost == 3.0


def test_the_expected_cost_is_that_of_the_cell(clock: Clock, make_spec: MakeSpec) -> None:
    trials = trials_of(make_spec(methods=["naive", "joint"], seeds={"search": 1, "confirm": 2}))
    naive, joint = ([t for t in trials if t.cell.method == method] for method in ("naive", "joint"))
    spending = Spending(Budget(cost=10, price_per_hour=1), clock)
    for trial, hours in ((naive[0], 1), (joint[0], 6)):
        spending.start(trial)
        clock.now += hours * 3600
        spending.end(trial)
    assert spending.cost == 7.0
    assert spending.allows(naive[1], [])
    assert not spending.allows(joint[1], [naive[1]])


# How a sweep ends.


class Sweep:
    """A searcher on a cluster of two CPUs, whose trials are begun and ended by hand."""

    def __init__(self, folder: Path, spec: SweepSpec, budget: Budget, clock: Clock, make_result: MakeResult) -> None:
        self.run = Run.create(folder, spec)
        self.session = Session(spec, self.run, folder, spending=Spending(budget, clock))
        self.said: list[str] = []
        cluster: Any = SimpleNamespace(nodes=lambda: [NodeResources(2.0, 0.0)], is_embedded=True)
        self.searcher = TuneSearcher(self.session, cluster, self.said.append)
        self.in_flight: list[str] = []
        self._clock, self._make_result = clock, make_result

    def begin(self) -> Any:
        """Ask for a trial and give it a worker; return its key, or what came in its place."""
        config = self.searcher.suggest("id")
        if not isinstance(config, dict):
            return config
        self.searcher.note_start(config)
        self.in_flight.append(config["key"])
        return config["key"]

    def end(self, seconds: float = 10.0) -> None:
        """End the trial that has been in flight for longest, some seconds later."""
        self._clock.now += seconds
        key = self.in_flight.pop(0)
        trial = next(t for t in self.session.search.running if t.spec.key == key)
        self.session.finish(self._make_result(trial.spec))

    def go(self) -> int:
        """Run to the end with two slots and return how many trials were trained."""
        n = 0
        while (begun := self.begin()) != Searcher.FINISHED or self.in_flight:
            if not isinstance(begun, str) or begun == Searcher.FINISHED:
                self.end()
                n += 1
        return n


@pytest.fixture
def make_sweep(tmp_path: Path, make_spec: MakeSpec, make_result: MakeResult, clock: Clock) -> Callable[[Budget], Sweep]:
    spec = make_spec(methods=["naive", "replay"])
    return lambda budget: Sweep(tmp_path / "run", spec, budget, clock, make_result)


N_TRIALS = 4 + 4 * 2 + 2


@pytest.mark.parametrize(
    ("budget", "n_trained", "name"),
    [
        (Budget(trials=5), 5, "The budget of 5 trials"),
        (Budget(trials=1), 1, "The budget of 1 trial"),
        (Budget(seconds=25), 4, "The time budget of 25s"),
        (Budget(cost=0.035, price_per_hour=3.6), 3, "The maximal cost of 0.035"),
    ],
)
def test_a_budget_ends_a_sweep_in_order(
    make_sweep: Callable[[Budget], Sweep], budget: Budget, n_trained: int, name: str
) -> None:
    sweep = make_sweep(budget)
    assert sweep.go() == n_trained
    assert len(sweep.run.trials()) == n_trained, "those in flight finish and are written"
    (said,) = sweep.said
    assert said.startswith(f"{name} is reached: finishing ")
    assert said.endswith(" in flight. Run the same command again to go on.")
    assert sweep.searcher.draining
    assert sweep.searcher.has_ended
    assert sweep.searcher.n_workers_wanted(1.0, 0.0) == 0
    assert sweep.run.n_missing(sweep.session.spec) == N_TRIALS - n_trained


def test_runs_in_parts_compute_what_one_run_does(
    make_sweep: Callable[[Budget], Sweep], tmp_path: Path, make_result: MakeResult, clock: Clock
) -> None:
    parts = []
    while not (sweep := make_sweep(Budget(trials=4))).session.search.is_finished:
        parts.append(sweep.go())
    assert parts == [4, 4, 4, 2], "a budget is that of one run"
    whole = Sweep(tmp_path / "whole", sweep.session.spec, Budget(), clock, make_result)
    assert whole.go() == N_TRIALS
    assert whole.said == []
    columns = ["key", "suggestion", "seed", "phase", "hyperparameters"]
    one, other = (s.run.trials()[columns].sort_values("key", ignore_index=True) for s in (sweep, whole))
    assert one.equals(other)


def test_a_trial_that_waits_for_a_worker_keeps_its_place(make_sweep: Callable[[Budget], Sweep]) -> None:
    sweep = make_sweep(Budget(trials=2))
    sweep.begin()
    config = sweep.searcher.suggest("id")
    assert sweep.searcher.suggest("id") is None
    assert not sweep.searcher.draining, "the second trial is yet to start"
    sweep.searcher.note_start(config)
    sweep.end()
    assert sweep.searcher.suggest("id") == Searcher.FINISHED
    assert sweep.searcher.draining


def test_an_interrupt_while_a_budget_drains_is_the_first(make_sweep: Callable[[Budget], Sweep]) -> None:
    sweep = make_sweep(Budget(trials=1))
    sweep.begin()
    assert sweep.begin() == Searcher.FINISHED
    assert (sweep.searcher.draining, sweep.searcher.told_to_drain) == (True, False)


def test_a_budget_that_is_spent_before_it_begins_starts_no_cluster(
    tmp_path: Path, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any) -> None:
        raise AssertionError

    monkeypatch.setattr("orchestrator.execution.launch.launch", refuse)
    spec = make_spec()
    run = api.run_sweep(spec, tmp_path / "run", tmp_path, budget=Budget(seconds=1e-9))
    assert run.n_missing(spec) == 4
