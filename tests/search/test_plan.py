"""A dry run: what is done, what is to do and why."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from orchestrator.execution.budget import Budget
from orchestrator.report.plan_view import render_plan
from orchestrator.search.plan import CellPlan, Plan, TimedCells, capacity_notes, device_notes, middle, plan_sweep
from orchestrator.search.suggestion import Outcome
from orchestrator.search.sweep_search import SweepSearch
from orchestrator.spec.fields import ResolvedRequest
from orchestrator.spec.loading import parse_spec
from orchestrator.spec.sweep_spec import SweepSpec
from orchestrator.spec.trial_spec import TrialSpec
from orchestrator.streams.datasets import PhaseData
from orchestrator.streams.sources.builtin import load_dataset
from search_spaces import SearchSpace
from search_spaces.space import Choices, FloatRange, IntRange

MakeSpec = Callable[..., SweepSpec]
DIGITS = load_dataset("digits", Path("nowhere"))

FIELDS: dict[str, Any] = {
    "methods": ["naive", "ewc"],
    "seeds": {"search": 2, "confirm": 3},
    "search": {"suggestions": 5, "batch": 2},
}
N_NAIVE, N_EWC = 2 + 3, 5 * 2 + 3
ONE_CPU = ResolvedRequest(1.0, 0.0, 1, "cpu")
GOOD = {"average": 0.9, "worst_forgetting": 0.0}


@pytest.fixture(autouse=True)
def _no_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.trial.estimate.trial_seconds", lambda *_: 2.0)


def run_trials(spec: SweepSpec, n_trials: int, values: Mapping[str, float] = GOOD) -> dict[str, Outcome]:
    """Return the outcomes of the first `n_trials` trials of a sweep, all alike."""
    search = SweepSearch(spec, {"digits": "f00d"}, {})
    outcomes: dict[str, Outcome] = {}
    while len(outcomes) < n_trials and search.n_waiting:
        key = search.hand_out(search.waiting_requests()[0]).spec.key
        outcomes[key] = Outcome("completed", values)
        search.record(key, outcomes[key])
    return outcomes


def plans(spec: SweepSpec, outcomes: Mapping[str, Outcome], seconds: float = 4.0) -> dict[str, CellPlan]:
    everything = run_trials(spec, 10_000)
    search = SweepSearch(spec, {"digits": "f00d"}, {})
    method_of: dict[str, str] = {}
    while search.n_waiting:
        trial = search.hand_out(search.waiting_requests()[0])
        method_of[trial.spec.key] = trial.cell.method
        search.record(trial.spec.key, everything[trial.spec.key])
    rows = [
        {
            "key": key,
            "scenario": "split-digits/task",
            "method": method_of[key],
            "status": outcome.status,
            "seconds": seconds,
        }
        for key, outcome in outcomes.items()
    ]
    trials = pd.DataFrame(rows, columns=["key", "scenario", "method", "status", "seconds"])
    fed = SweepSearch(spec, {"digits": "f00d"}, outcomes)
    return {p.cell.method: p for p in plan_sweep(spec, fed, trials, {"digits": DIGITS})}


def counts(plan: CellPlan) -> tuple[int, int, int, int]:
    return plan.n_done, plan.n_ready, plan.n_later, plan.n_again


def test_a_new_sweep(make_spec: MakeSpec) -> None:
    found = plans(make_spec(**FIELDS), {})
    assert counts(found["naive"]) == (0, N_NAIVE, 0, 0)
    assert counts(found["ewc"]) == (0, 4, N_EWC - 4, 0), "one batch of 2 suggestions on 2 seeds is known"
    assert found["naive"].why == "5 not trained yet"
    assert found["ewc"].why == "4 not trained yet, up to 9 follow from those"
    assert found["naive"].seconds == 2.0 * N_NAIVE
    assert not found["naive"].is_measured


def test_a_sweep_in_the_middle(make_spec: MakeSpec) -> None:
    spec = make_spec(**FIELDS)
    found = plans(spec, run_trials(spec, N_NAIVE + 4 + 1))
    assert counts(found["naive"]) == (N_NAIVE, 0, 0, 0)
    assert found["naive"].why == "complete"
    assert found["naive"].seconds == 0
    assert counts(found["ewc"]) == (5, 3, N_EWC - 8, 0), "3 of the second batch's 4 are left"
    assert (found["ewc"].seconds_a_trial, found["ewc"].is_measured) == (4.0, True)
    assert found["ewc"].seconds == 4.0 * (N_EWC - 5)


def test_a_complete_sweep(make_spec: MakeSpec) -> None:
    spec = make_spec(**FIELDS)
    found = plans(spec, run_trials(spec, 10_000))
    assert counts(found["naive"]) == (N_NAIVE, 0, 0, 0)
    assert counts(found["ewc"]) == (N_EWC, 0, 0, 0)
    assert {p.why for p in found.values()} == {"complete"}


def test_a_cell_with_nothing_feasible_is_complete(make_spec: MakeSpec) -> None:
    spec = make_spec(**FIELDS, limits=["worst_forgetting <= 0.1"])
    outcomes = run_trials(spec, 10_000, GOOD | {"worst_forgetting": 0.5})
    ewc = plans(spec, outcomes)["ewc"]
    assert counts(ewc) == (10, 0, 0, 0)
    assert ewc.why == "complete"


def test_what_ended_in_an_error_is_run_again(make_spec: MakeSpec) -> None:
    spec = make_spec(**FIELDS)
    outcomes = run_trials(spec, N_NAIVE)
    first = next(iter(outcomes))
    outcomes[first] = Outcome("error", {})
    naive = plans(spec, outcomes)["naive"]
    assert counts(naive) == (N_NAIVE - 1, 1, 0, 1)
    assert naive.why == "1 ended in an error of the machine"


def test_what_failed_is_done(make_spec: MakeSpec) -> None:
    spec = make_spec(**FIELDS)
    outcomes = run_trials(spec, N_NAIVE)
    outcomes[next(iter(outcomes))] = Outcome("failed", {})
    assert counts(plans(spec, outcomes)["naive"]) == (N_NAIVE, 0, 0, 0)


def test_more_seeds_keep_what_is_there(make_spec: MakeSpec) -> None:
    outcomes = run_trials(make_spec(**FIELDS), 10_000)
    more = make_spec(**FIELDS | {"seeds": {"search": 2, "confirm": 4}})
    found = plans(more, outcomes)
    assert counts(found["naive"]) == (N_NAIVE, 1, 0, 0)
    assert counts(found["ewc"]) == (N_EWC, 1, 0, 0)


def test_a_larger_budget_keeps_what_is_there(make_spec: MakeSpec) -> None:
    fields = FIELDS | {"search": {"suggestions": 4, "batch": 2}}
    outcomes = run_trials(make_spec(**fields), 10_000)
    found = plans(make_spec(**fields | {"search": {"suggestions": 6, "batch": 2}}), outcomes)
    assert counts(found["ewc"]) == (8, 4, 3, 0), "the confirm trials of the old choice count once it is made again"


def test_a_cell_is_timed_in_the_middle_of_its_space(make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = make_spec(
        scenarios=["split-digits/task", "split-digits/class"],
        methods=["naive", "replay"],
        spaces={"split-digits/class replay": {"buffer_size": 9}},
        resources={"threads": 3},
    )
    timed: list[TrialSpec] = []

    def record(trial: TrialSpec, data: PhaseData, device: str, threads: int) -> float:
        assert (device, threads) == ("cpu", 3)
        timed.append(trial)
        return float(len(timed))

    monkeypatch.setattr("orchestrator.trial.estimate.trial_seconds", record)
    cells = TimedCells(spec, {"digits": DIGITS})
    assert [cells.seconds(cell) for cell in spec.cells] == [1, 2, 3, 4]
    assert [trial.cell for trial in timed] == [cell.name for cell in spec.cells]
    assert [trial.phase for trial in timed] == ["confirm", "search", "confirm", "search"]
    assert timed[1].hyperparameters["replay_ratio"] == pytest.approx(0.5)
    assert [trial.hyperparameters["buffer_size"] for trial in timed[1::2]] == [500, 9]


def test_the_middle_of_what_is_searched() -> None:
    searched = {
        "a": FloatRange(0.1, 10.0, log=True),
        "b": FloatRange(0.0, 1.0, step=0.4),
        "c": IntRange(1, 6),
        "d": IntRange(10, 1000, log=True),
        "e": Choices((1, 2, 3)),
    }
    found = middle(SearchSpace(searched, {}, {}))
    assert found == {"a": pytest.approx(1.0), "b": pytest.approx(0.4), "c": 3, "d": 100, "e": 2}


# What the terminal shows.


def text_of(spec: SweepSpec, cells: dict[str, CellPlan], workers: int | None, prices: Budget | None = None) -> str:
    console = Console(file=StringIO(), width=160)
    console.print(render_plan(spec, Plan(Path("runs/a"), tuple(cells.values())), workers, prices))
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def test_the_totals(make_spec: MakeSpec) -> None:
    spec = make_spec(**FIELDS)
    text = text_of(spec, plans(spec, run_trials(spec, N_NAIVE + 4)), 2)
    assert "9 trials done, at most 9 to do in runs/a, 9 expected" in text
    assert "about 18 s with 2 trials at once, estimated from trials of this run" in text
    assert [line.split()[:5] for line in text.splitlines() if " ewc " in line] == [
        ["split-digits/task", "ewc", "4", "9", "9"]
    ]


def test_hours_and_cost(make_spec: MakeSpec) -> None:
    """13 trials of ewc take 1800 s on 2 CPUs and half a GPU each; 5 of naive take 3600 s on 1 CPU."""
    spec = make_spec(**FIELDS, resources={"methods": {"ewc": {"cpus": 2, "gpus": 0.5}}})
    cells = plans(spec, {})
    cells["naive"] = replace(cells["naive"], seconds_a_trial=3600.0)
    cells["ewc"] = replace(cells["ewc"], seconds_a_trial=1800.0)
    assert "about 18 CPU hours and 3.25 GPU hours\n" in text_of(spec, cells, 1)
    prices = Budget(price_per_hour=0.5, gpu_price_per_hour=2.0)
    assert "about 18 CPU hours and 3.25 GPU hours, which cost about 15.50\n" in text_of(spec, cells, 1, prices)


def test_gpu_trials_that_are_timed_on_the_cpu_are_noted(make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = make_spec(**FIELDS, resources={"methods": {"ewc": {"gpus": 0.5}}})
    for has_gpu, n_notes in ((False, 1), (True, 0)):
        monkeypatch.setattr("torch.cuda.is_available", lambda has_gpu=has_gpu: has_gpu)
        assert len(list(device_notes(plans(spec, {}).values()))) == n_notes
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert list(device_notes(plans(spec, run_trials(spec, 10_000)).values())) == []


def test_what_fails_at_once_is_not_counted(make_spec: MakeSpec) -> None:
    spec = make_spec(**FIELDS)
    cells = plans(spec, {})
    cells["ewc"] = replace(cells["ewc"], seconds_a_trial=math.nan)
    text = text_of(spec, cells, 1)
    assert "about 10 s with 1 trial at once" in text
    assert "not counted, since their trials fail at once: split-digits/task ewc" in text


def test_an_estimate_says_that_it_is_timed_here(make_spec: MakeSpec) -> None:
    spec = make_spec(**FIELDS)
    assert "about 18 s with 2 trials at once, estimated from a few training steps timed here" in text_of(
        spec, plans(spec, {}), 2
    )


def test_trials_at_once_follow_the_requests(make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    one = make_spec(**FIELDS)
    two = make_spec(**FIELDS, resources={"cpus": 2})
    assert "with 8 trials at once" in text_of(one, plans(one, {}), None)
    assert "with 4 trials at once" in text_of(two, plans(two, {}), None)
    huge = make_spec(**FIELDS, resources={"cpus": 64})
    assert "with 1 trial at once" in text_of(huge, plans(huge, {}), None)
    monkeypatch.delattr("os.sched_getaffinity")  # as on macOS
    monkeypatch.setattr("os.cpu_count", lambda: 6)
    assert "with 6 trials at once" in text_of(one, plans(one, {}), None)


def test_a_cell_that_is_complete_has_no_time(make_spec: MakeSpec) -> None:
    spec = make_spec(methods=["naive"])
    cell = parse_spec({"methods": ["naive"]}).cells[0]
    text = text_of(spec, {"naive": CellPlan(cell, 4, 0, 0, 0, 0, math.nan, False, ONE_CPU)}, 1)
    assert "nan" not in text
    assert "about 0 s" in text


# What a plan notes of packnet.


def notes_of_packnet(make_spec: MakeSpec, space: dict[str, Any], **streams: Any) -> list[str]:
    spec = make_spec(methods=["packnet"], spaces={"packnet": space}, streams={"split-digits": streams})
    return list(capacity_notes(spec, {"digits": DIGITS}))


def test_the_rule_of_packnet_is_checked_before_training(make_spec: MakeSpec) -> None:
    """Of 5 tasks the last begins with p^4 of the weights: 1 % at p = 0.3162."""
    assert notes_of_packnet(make_spec, {"pruning_rate": {"low": 0.2, "high": 0.9}}) == [
        "split-digits/task packnet: a pruning_rate p leaves the last of 5 tasks p^4 of the weights, less than 1 % "
        "below 0.316, and it is searched from 0.2 to 0.9; set it to more under spaces.packnet, or set pruning: "
        "equal_share there"
    ]
    assert notes_of_packnet(make_spec, {"pruning_rate": {"low": 0.32, "high": 0.9}}) == []
    assert notes_of_packnet(make_spec, {"pruning_rate": {"low": 0.2, "high": 0.9}}, n_tasks=2) == []
    assert notes_of_packnet(make_spec, {}) == [], "the default range is made for a few tasks"


@pytest.mark.parametrize(("value", "n_notes"), [(0.3, 1), (0.33, 0), ([0.3, 0.8], 1), ([0.5, 0.8], 0)])
def test_fixed_rates_and_choices_are_checked_too(make_spec: MakeSpec, value: Any, n_notes: int) -> None:
    found = notes_of_packnet(make_spec, {"pruning_rate": value})
    assert len(found) == n_notes
    if value == 0.3:
        assert "and it is 0.3;" in found[0]


def test_equal_shares_and_other_methods_have_no_such_rule(make_spec: MakeSpec) -> None:
    assert notes_of_packnet(make_spec, {"pruning": "equal_share", "pruning_rate": 0.1}) == []
    assert list(capacity_notes(make_spec(), {"digits": DIGITS})) == []
