"""Trials that are stopped at a task boundary: by which rule, what follows from it, and that nothing else matters."""

from __future__ import annotations

import random
from typing import Any

import pytest

from orchestrator.search.answers.full_answer import answer_of
from orchestrator.search.cell_search import CellSearch
from orchestrator.search.evidence import Evidence
from orchestrator.search.plan import stop_notes
from orchestrator.search.stops import Stopping
from orchestrator.search.suggestion import Outcome, PlannedTrial, Suggestion
from orchestrator.search.sweep_search import SweepSearch
from orchestrator.spec.loading import parse_spec
from orchestrator.spec.sweep_spec import SweepSpec
from orchestrator.spec.trial_spec import TrialSpec
from orchestrator.trial.stopping import StopRule, StopTest
from strategies import derive_seed
from strategies.methods.ewc import Ewc
from tests.search.test_race import history

N_TASKS = 5
CALIBRATED = {"suggestions": 24, "stop": "calibrated"}


def spec_of(**fields: Any) -> SweepSpec:
    return parse_spec(
        {"methods": ["replay"], "limits": ["worst_forgetting <= 0.1"], "seeds": {"finals": 4}, "search": CALIBRATED}
        | fields
    )


def whole(trial: TrialSpec) -> Outcome:
    """Forgetting grows task by task to what the ratio makes of it, and falls a little at the end for every third."""
    draw = random.Random(derive_seed(trial.key, "draw"))
    ratio = float(trial.hyperparameters["replay_ratio"])  # type: ignore[arg-type]
    end = 0.8 * (1 - ratio) + 0.03 * draw.gauss(0, 1)
    back = 0.05 * (draw.random() < 1 / 3)
    levels = [(end + back) * after / (N_TASKS - 1) for after in range(1, N_TASKS - 1)]
    cuts = [{"worst_forgetting": one, "worst_forgetting_ever": one} for one in [float("nan"), *levels]]
    last = {"worst_forgetting": end, "worst_forgetting_ever": max(end, levels[-1])}
    values = last | {"average": 1 - 0.3 * ratio + 0.01 * draw.gauss(0, 1)}
    return Outcome("completed", values, (*cuts, last))


def run(
    spec: SweepSpec, known: dict[str, Outcome] | None = None, at_once: int = 1, order: int = 0
) -> tuple[SweepSearch, dict[str, Outcome]]:
    """Run a sweep whose workers stop trials by the rules that they are handed."""
    search = SweepSearch(spec, {"digits": "f00d"}, known or {})
    pick, running, trained = random.Random(order), list[PlannedTrial](), dict[str, Outcome]()
    while search.n_waiting or running:
        while search.n_waiting and len(running) < at_once:
            running.append(search.hand_out(search.waiting_requests()[0]))
        ended = running.pop(pick.randrange(len(running)))
        trained[ended.spec.key] = whole(ended.spec).under(ended.stop) or pytest.fail("a whole trial is enough")
        search.record(ended.spec.key, trained[ended.spec.key])
    return search, trained


def statuses(search: SweepSearch) -> list[Any]:
    return [
        sorted(
            (phase, seed, o.status, len(o.boundaries))
            for phase, found in s.outcomes.items()
            for seed, o in found.items()
        )
        for s in search.cells[0].suggestions
    ]


def test_hopeless_trials_stop_and_would_not_have_met_the_limit() -> None:
    search, trained = run(spec_of())
    stopped = {key: outcome for key, outcome in trained.items() if outcome.status == "stopped"}
    assert len(stopped) >= 3
    assert all(outcome.boundaries[-1]["worst_forgetting"] > 0.1 for outcome in stopped.values())
    _, all_whole = run(spec_of(search={"suggestions": 24, "stop": "none"}))
    assert {outcome.status for outcome in all_whole.values()} == {"completed"}
    assert stopped.keys() & all_whole.keys()
    assert all(all_whole[key].values["worst_forgetting"] > 0.1 for key in stopped.keys() & all_whole.keys())
    assert search.cells[0].chosen is not None
    assert not search.cells[0].chosen.has_stopped()


def test_nothing_depends_on_timing_or_on_how_many_run_at_once() -> None:
    first, trained = run(spec_of())
    for at_once, order in ((2, 1), (8, 2), (1000, 3)):
        again, also = run(spec_of(), at_once=at_once, order=order)
        assert history(again) == history(first)
        assert statuses(again) == statuses(first)
        assert {key: o.status for key, o in also.items()} == {key: o.status for key, o in trained.items()}


@pytest.mark.parametrize("share", [0.2, 0.7])
def test_what_is_recorded_is_not_trained_again(share: float) -> None:
    first, trained = run(spec_of())
    kept = dict(list(trained.items())[: int(share * len(trained))])
    again, rest = run(spec_of(), kept, at_once=8)
    assert statuses(again) == statuses(first)
    assert rest.keys() == trained.keys() - kept.keys()


def test_whole_trials_of_another_search_count_as_if_they_had_been_stopped() -> None:
    _, all_whole = run(spec_of(search={"suggestions": 24, "stop": "none"}))
    first, _ = run(spec_of())
    again, _ = run(spec_of(), all_whole)
    assert statuses(again) == statuses(first)
    assert again.cells[0].stopping.shown == first.cells[0].stopping.shown


def test_a_later_search_asks_for_the_rest_of_what_was_stopped() -> None:
    _, trained = run(spec_of())
    stopped = {key for key, outcome in trained.items() if outcome.status == "stopped"}
    none = spec_of(search={"suggestions": 24, "stop": "none"})
    cold, asked = run(none)
    again, rest = run(none, trained)
    assert history(again) == history(cold)
    assert stopped & asked.keys()
    assert rest.keys() & trained.keys() == stopped & asked.keys()


def test_a_larger_budget_goes_on_with_the_same_stops() -> None:
    small, trained = run(spec_of(search={"suggestions": 16, "stop": "calibrated"}, seeds={"finals": 0}))
    large, rest = run(spec_of(seeds={"finals": 0}), trained)
    assert statuses(large)[:16] == statuses(small)
    assert not trained.keys() & rest.keys()


# Calibrated.


def learned(spec: SweepSpec, *recovered: float) -> Stopping:
    stopping = Stopping(spec, spec.cells[0])
    for one in recovered:
        cuts = [{"worst_forgetting": 0.3}, {"worst_forgetting": 0.3}, {"worst_forgetting": 0.3 - one}]
        stopping.learn(Outcome("completed", cuts[-1], tuple(cuts)), None)
    return stopping


def suggestion(*values: float) -> Suggestion:
    found = Suggestion(0, {})
    found.outcomes["search"] = {
        seed: Outcome("completed", {"worst_forgetting": value, "average": 0.5}) for seed, value in enumerate(values)
    }
    return found


def test_the_slack_is_the_most_that_a_completed_trial_recovered() -> None:
    spec = spec_of(search=CALIBRATED | {"limits_hold_for": "every_seed"})
    evidence = Evidence(spec, [suggestion(0.05, 0.07, 0.06)])
    assert learned(spec, *[0.1] * 7).rule(suggestion(), "f" * 16, evidence) is None, "too few"
    rule = learned(spec, *[0.02] * 7, 0.2).rule(suggestion(), "f" * 16, evidence)
    assert rule is not None
    (test,) = rule.tests
    assert (test.kind, test.limit) == ("calibrated", "worst_forgetting <= 0.1")
    # Every seed must meet the limit, so one that ends beyond it is hopeless: limit + most recovered.
    assert test.bounds == pytest.approx((0.3, 0.3), abs=1e-4)


def test_for_the_mean_a_seed_must_end_so_high_that_the_others_cannot_make_up_for_it() -> None:
    spec = spec_of()
    evidence = Evidence(spec, [suggestion(0.05, 0.07, 0.06)])  # spread 0.01
    rule = learned(spec, *[0.0] * 8).rule(suggestion(), "f" * 16, evidence)
    assert rule is not None
    # Student's t with 2 degrees of freedom, 95 %: 2.92 · 0.01 · sqrt(1 + 0.4²) above the limit.
    assert rule.tests[0].bounds[0] == pytest.approx(0.1 + 2.91999 * 0.01 * 1.16**0.5, abs=1e-4)


def test_controls_run_on_and_show_what_stopping_costs() -> None:
    spec = spec_of()
    bound = StopTest("worst_forgetting <= 0.1", "worst_forgetting", "<=", (0.2,), "calibrated")
    rule, control = StopRule((bound,)), StopRule((bound,), is_control=True)
    cuts = ({"worst_forgetting": 0.0}, {"worst_forgetting": 0.3}, {"worst_forgetting": 0.05})
    recovers = Outcome("completed", cuts[-1], cuts)
    stopped = recovers.under(rule)
    assert stopped == Outcome("stopped", cuts[1], cuts[:2])
    assert recovers.under(control) is recovers
    assert stopped is not None
    assert stopped.under(control) is None
    assert stopped.under(None) is None
    assert stopped.under(rule) == stopped
    stopping = Stopping(spec, spec.cells[0])
    stopping.learn(stopped, rule)
    stopping.learn(recovers, control)
    stopping.learn(Outcome("completed", cuts[1], (cuts[0], cuts[1], cuts[1])), control)
    shown = stopping.shown
    assert (shown.n_stopped, shown.tasks_trained, shown.n_tasks) == (1, 2, 3)
    assert (shown.n_controls, shown.n_recovered) == (2, 1)
    assert shown.trials_saved == pytest.approx(1 / 3)


def test_about_one_in_eight_is_a_control() -> None:
    stopping, evidence = learned(spec_of(), *[0.0] * 8), Evidence(spec_of(), [suggestion(0.05, 0.07)])
    rules = [stopping.rule(suggestion(), f"{n:08x}00000000", evidence) for n in range(800)]
    assert sum(rule is not None and rule.is_control for rule in rules) == 100


# Proven.


def first_rule(**fields: Any) -> StopRule | None:
    spec = spec_of(**fields)
    return CellSearch(spec, spec.cells[0], "f00d").start()[0].stop


@pytest.mark.parametrize(
    ("limit", "rule", "seeds", "bound"),
    [
        ("worst_forgetting_ever <= 0.1", "every_seed", {}, 0.1),
        ("worst_score >= 0.6", "every_seed", {}, 0.6),
        ("worst_forgetting_ever <= 0.1", "mean", {"search": 1, "finals": 0}, 0.1),
        # 0.1 · 2 less the -1 that the other seed may have: more than any value, so nothing is proven.
        ("worst_forgetting_ever <= 0.1", "mean", {"search": 2, "finals": 0}, None),
        # 0.6 · 2 less the 1 that the other seed may have.
        ("worst_score >= 0.6", "mean", {"search": 2, "finals": 0}, 0.2),
        ("worst_forgetting <= 0.1", "every_seed", {}, None),
        ("forgetting <= 0.1", "mean", {"search": 1, "finals": 0}, None),
        ("average >= 0.6", "every_seed", {}, None),
    ],
)
def test_what_is_proven(limit: str, rule: str, seeds: dict[str, int], bound: float | None) -> None:
    found = first_rule(limits=[limit], search={"stop": "proven", "limits_hold_for": rule}, seeds=seeds)
    if bound is None:
        assert found is None
        return
    assert found is not None
    (test,) = found.tests
    assert test.kind == "proven"
    assert test.bounds == pytest.approx((bound,))


def test_plan_says_which_limits_prove_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ewc, "knows_kept_bytes", False)
    limits = ["worst_forgetting_ever <= 0.1", "worst_forgetting <= 0.1", "kept_bytes <= 1000"]
    strict = {"stop": "proven", "limits_hold_for": "every_seed"}
    assert list(stop_notes(spec_of(limits=limits, search=strict, methods=["naive", "replay", "ewc"]))) == [
        "no proven stop for worst_forgetting <= 0.1: a later task may mend it",
        "no proven stop for kept_bytes <= 1000 with ewc: it is known at the end",
    ]
    assert len(list(stop_notes(spec_of(limits=limits, search=strict)))) == 1, "replay knows what it keeps"
    assert list(stop_notes(spec_of(limits=limits[:1], search={"stop": "proven"}))) == [
        "no proven stop for worst_forgetting_ever <= 0.1: the mean over seeds must meet it, and other seeds may make "
        "up for one; limits_hold_for: every_seed would prove it"
    ]
    assert list(stop_notes(spec_of(limits=limits, search={"suggestions": 24}))) == [], "nobody asked"


def test_a_proven_stop_has_no_controls_and_never_loses_what_meets_the_limits() -> None:
    spec = spec_of(
        limits=["worst_forgetting_ever <= 0.12"], search={"suggestions": 24, "limits_hold_for": "every_seed"}
    )
    search, trained = run(spec)
    stopped = [key for key, outcome in trained.items() if outcome.status == "stopped"]
    assert stopped
    _, asked = run(spec.model_copy(update={"search": spec.search.model_copy(update={"stop": "none"})}))
    assert all(asked[key].values["worst_forgetting_ever"] > 0.12 for key in stopped if key in asked)
    assert search.cells[0].stopping.shown.n_controls == 0


@pytest.mark.parametrize(
    "fields",
    [
        {"search": {"stop": "none"}},
        {"limits": []},
        {"search": CALIBRATED | {"seeds": "all"}, "seeds": {"finals": 0}},
        {"limits": ["seconds <= 10", "kept_bytes <= 1000"], "search": CALIBRATED},
    ],
)
def test_nothing_is_stopped(fields: dict[str, Any]) -> None:
    assert spec_of(**fields).stoppable == ()


def test_the_answer_says_what_stopping_did() -> None:
    import pandas as pd

    search, _ = run(spec_of())
    shown = search.cells[0].stopping.shown
    assert shown.n_stopped > 0
    columns = ("key", "status", "constant_score", "chance_accuracy", "untrained_score", "score")
    (scenario,) = answer_of(search, pd.DataFrame({name: [] for name in columns})).scenarios
    assert scenario.method("replay").stopped == shown
    assert 0 < shown.trials_saved < shown.n_stopped


# Known before training.


@pytest.mark.parametrize("method", ["replay", "ewc"])
def test_a_limit_on_what_is_kept_is_looked_at_before_training_where_the_method_knows(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Ewc, "knows_kept_bytes", False)
    spec = parse_spec({"methods": [method], "limits": ["kept_bytes <= 5e4"]})
    rule = CellSearch(spec, spec.cells[0], "f00d").start()[0].stop
    if method == "ewc":
        assert rule is None
        return
    assert rule is not None
    (test,) = rule.tests
    assert (test.kind, test.quantity, test.bounds) == ("proven", "kept_bytes", (5e4,))


def test_suggestions_that_keep_too_much_are_told_to_the_sampler_and_never_chosen() -> None:
    spec = parse_spec({"methods": ["replay"], "limits": ["kept_bytes <= 5e4"], "seeds": {"finals": 4}})

    def of(trial: TrialSpec) -> Outcome:
        found = whole(trial)
        size = float(trial.hyperparameters["buffer_size"])  # type: ignore[arg-type]
        return Outcome("completed", {**found.values, "kept_bytes": 272 * size})

    search = SweepSearch(spec, {"digits": "f00d"}, {})
    n_trained = 0
    while search.n_waiting:
        planned = search.hand_out(search.waiting_requests()[0])
        outcome = of(planned.spec).under(planned.stop)
        assert outcome is not None
        n_trained += outcome.status == "completed"
        search.record(planned.spec.key, outcome)
    (cell,) = search.cells
    kept = [272 * float(s.hyperparameters["buffer_size"]) for s in cell.suggestions]  # type: ignore[arg-type]
    assert [s.has_stopped() for s in cell.suggestions] == [one > 5e4 for one in kept]
    assert cell.chosen is not None
    assert 272 * float(cell.chosen.hyperparameters["buffer_size"]) <= 5e4  # type: ignore[arg-type]
    assert sum(one <= 5e4 for one in kept[12:]) > sum(one <= 5e4 for one in kept[:12])
