"""Races of seeds, finals and confirmations: what is run, what is decided, and that nothing else matters."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from orchestrator.search.cell_search import CellSearch
from orchestrator.search.evidence import RULES
from orchestrator.search.study import CellStudy
from orchestrator.search.suggestion import Outcome
from orchestrator.search.sweep_search import SweepSearch
from orchestrator.spec.loading import parse_spec
from orchestrator.spec.sweep_spec import SweepSpec
from orchestrator.spec.trial_spec import TrialSpec
from strategies import derive_seed

Judge = Callable[[TrialSpec], Outcome]
FIELDS: dict[str, Any] = {"methods": ["replay"], "limits": ["worst_forgetting <= 0.15"], "seeds": {"finals": 6}}


def spec_of(**fields: Any) -> SweepSpec:
    return parse_spec(FIELDS | fields)


def noise(trial: TrialSpec, what: str) -> float:
    return random.Random(derive_seed(trial.key, what)).gauss(0, 1)


def noisy(trial: TrialSpec) -> Outcome:
    """Accuracy wants a low ratio, the limit a high one; a seed adds noise to both."""
    ratio = float(trial.hyperparameters["replay_ratio"])  # type: ignore[arg-type]
    values = {
        "average": 1 - 0.3 * ratio + 0.01 * noise(trial, "average"),
        "worst_forgetting": 0.5 * (1 - ratio) + 0.03 * noise(trial, "forgetting"),
    }
    return Outcome("completed", values)


def run(
    spec: SweepSpec, judge: Judge = noisy, known: dict[str, Outcome] | None = None, at_once: int = 1, order: int = 0
) -> tuple[SweepSearch, dict[str, Outcome]]:
    """Run a sweep with `at_once` trials in flight, which end in a random order; return what was trained too."""
    search = SweepSearch(spec, {"digits": "f00d"}, known or {})
    pick, running, trained = random.Random(order), list[TrialSpec](), dict[str, Outcome]()
    while search.n_waiting or running:
        while search.n_waiting and len(running) < at_once:
            running.append(search.hand_out(search.waiting_requests()[0]).spec)
        ended = running.pop(pick.randrange(len(running)))
        trained[ended.key] = judge(ended)
        search.record(ended.key, trained[ended.key])
    return search, trained


def history(search: SweepSearch) -> list[Any]:
    return [
        (
            [(s.hyperparameters, {p: sorted(found) for p, found in s.outcomes.items()}) for s in cell.suggestions],
            cell.chosen.number if cell.chosen else None,
            [s.number for s in cell.finalists],
            [s.number for s in cell.confirmed],
        )
        for cell in search.cells
    ]


# Determinism.


def test_nothing_depends_on_timing_or_on_how_many_run_at_once() -> None:
    spec = spec_of(methods=["replay", "ewc"], limits=[])
    spec = spec_of(scenarios=["split-digits/task", "split-digits/class"])
    first, trained = run(spec)
    for at_once, order in ((2, 1), (8, 2), (8, 3), (1000, 4)):
        again, also = run(spec, at_once=at_once, order=order)
        assert history(again) == history(first)
        assert also == trained


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_what_is_recorded_is_not_trained_again(share: float) -> None:
    whole, trained = run(spec_of())
    kept = dict(list(trained.items())[: int(share * len(trained))])
    again, rest = run(spec_of(), known=kept, at_once=8)
    assert history(again) == history(whole)
    assert rest.keys() == trained.keys() - kept.keys()


def test_a_larger_budget_goes_on_with_the_same_races() -> None:
    small, trained = run(spec_of(search={"suggestions": 12}))
    large, rest = run(spec_of(search={"suggestions": 24}), known=trained)
    raced = [s.outcomes["search"].keys() for s in small.cells[0].suggestions if s not in small.cells[0].finalists]
    same = [
        large.cells[0].suggestions[s.number].outcomes["search"].keys()
        for s in small.cells[0].suggestions
        if s not in small.cells[0].finalists
    ]
    assert [s.hyperparameters for s in large.cells[0].suggestions[:12]] == [
        s.hyperparameters for s in small.cells[0].suggestions
    ]
    assert all(now >= before for now, before in zip(same, raced, strict=True))
    assert not trained.keys() & rest.keys()


def test_the_log_saves_asking_and_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = spec_of()
    first, trained = run(spec)
    log = {key: list(batch) for key, batch in first.log.items()}
    with monkeypatch.context() as patch:
        patch.setattr(CellStudy, "_sample", lambda *_: pytest.fail("Optuna was asked"))
        again = SweepSearch(spec, {"digits": "f00d"}, trained, log=log)
    assert history(again) == history(first)
    assert again.log == first.log


def test_a_log_of_other_results_is_not_used() -> None:
    spec = spec_of()
    first, _ = run(spec)

    def other(trial: TrialSpec) -> Outcome:
        found = noisy(trial)
        return Outcome("completed", {**found.values, "average": -found.values["average"]})

    fresh, _ = run(spec, other)
    search = SweepSearch(spec, {"digits": "f00d"}, {}, log=dict(first.log))
    while search.n_waiting:
        ended = search.hand_out(search.waiting_requests()[0]).spec
        search.record(ended.key, other(ended))
    assert history(search) == history(fresh)


# The race.


def test_a_race_spends_less_than_all_seeds() -> None:
    raced, _ = run(spec_of())
    counts = [len(s.outcomes["search"]) for s in raced.cells[0].suggestions]
    assert max(counts) == 3
    assert sum(counts) < 0.75 * 3 * len(counts)
    full, _ = run(spec_of(search={"seeds": "all"}))
    assert {len(s.outcomes["search"]) for s in full.cells[0].suggestions} == {3}


def test_the_first_batch_runs_on_two_seeds_because_nothing_tells_the_spread() -> None:
    search = SweepSearch(spec_of(), {"digits": "f00d"}, {})
    seeds = []
    for _ in range(8):
        ended = search.hand_out(search.waiting_requests()[0]).spec
        seeds.append(ended.seed)
        search.record(ended.key, noisy(ended))
    assert seeds == [0] * 4 + [1] * 4


def test_what_surely_violates_a_limit_gets_no_further_seed() -> None:
    raced, _ = run(spec_of())
    for suggestion in raced.cells[0].suggestions[4:]:
        if suggestion.by_seed("validation", "worst_forgetting")[0] > 0.35:
            assert list(suggestion.outcomes["search"]) == [0]


def test_a_diverged_suggestion_is_told_as_a_large_violation() -> None:
    told = []

    def failing(trial: TrialSpec) -> Outcome:
        is_bad = float(trial.hyperparameters["replay_ratio"]) > 0.7  # type: ignore[arg-type]
        return Outcome("failed", {}) if is_bad else noisy(trial)

    spec = spec_of(limits=[])
    search = SweepSearch(spec, {"digits": "f00d"}, {}, lambda cell, trial: told.append(trial))
    while search.n_waiting:
        ended = search.hand_out(search.waiting_requests()[0]).spec
        search.record(ended.key, failing(ended))
    bad = [trial for trial in told if trial.params["replay_ratio"] > 0.7]
    good = [trial for trial in told if trial.params["replay_ratio"] <= 0.7]
    assert bad
    assert {trial.state.name for trial in told} == {"COMPLETE"}
    assert all(trial.constraints["completed"] > 1e5 for trial in bad)
    assert all(trial.constraints["completed"] <= 0 for trial in good)
    assert len(bad) < 6, "the sampler learned to keep away"


# The finals.


def test_finalists_get_their_seeds_one_after_the_other() -> None:
    search, _ = run(spec_of())
    cell: CellSearch = search.cells[0]
    finals = [s for s in cell.suggestions if s.outcomes["finals"]]
    assert finals
    assert all(s in cell.finalists for s in finals)
    assert sum(len(s.outcomes["finals"]) for s in finals) <= 3 * 6
    for suggestion in finals:
        assert len(suggestion.outcomes["search"]) == 3, "first the search seeds that the race spared it"
        assert (
            list(suggestion.outcomes["finals"])
            == list(spec_of().seeds.of("finals"))[: len(suggestion.outcomes["finals"])]
        )


def test_where_nothing_looked_feasible_the_nearest_misses_are_finalists() -> None:
    search, _ = run(spec_of(limits=["worst_forgetting <= -0.2"]))
    cell = search.cells[0]
    assert (cell.chosen, cell.is_finished) == (None, True)
    misses = sorted(cell.suggestions, key=lambda s: s.total_violation("validation", cell.spec))
    assert misses[0] in cell.finalists


def test_a_veto_lets_the_next_finalist_be_confirmed() -> None:
    def unlucky(trial: TrialSpec) -> Outcome:
        found = noisy(trial)
        vetoed = {"worst_forgetting": 0.9} if trial.phase == "confirm" and trial.key[0] in "01234567" else {}
        return Outcome("completed", {**found.values, **vetoed})

    tried = []
    for seed in range(6):
        search, _ = run(spec_of(search={"seed": seed}), unlucky)
        cell = search.cells[0]
        assert cell.is_finished
        assert len(cell.confirmed) <= RULES.n_confirmed
        assert all(not cell.is_confirmed(s) for s in cell.confirmed[:-1])
        assert all(s in cell.finalists for s in cell.confirmed)
        assert cell.n_recorded <= cell.n_expected
        tried.append(len(cell.confirmed))
    assert max(tried) == RULES.n_confirmed
    assert min(tried) < RULES.n_confirmed


def test_others_run_in_the_finals_only_once_the_first_failed_on_test() -> None:
    """So a search whose first choice is good spends no more than before."""
    good, _ = run(spec_of())
    assert len(good.cells[0].confirmed) == 1
    entered = set(map(id, good.cells[0].finalists))

    def vetoed(trial: TrialSpec) -> Outcome:
        found = noisy(trial)
        return Outcome("completed", found.values | ({"worst_forgetting": 0.9} if trial.phase == "confirm" else {}))

    bad, _ = run(spec_of(), vetoed)
    assert len(bad.cells[0].confirmed) > 1
    assert len(bad.cells[0].finalists) > len(entered)


@pytest.mark.parametrize(
    ("on_test", "n_seeds"),
    [
        (0.10, 5),  # far inside
        (0.145, 15),  # inside by too little for its spread, however many seeds
        (0.155, 10),  # not surely outside with 5 seeds, and surely enough with 10
        (0.40, 5),  # surely outside
    ],
)
def test_further_test_seeds_are_for_what_is_not_decided(on_test: float, n_seeds: int) -> None:
    def near(trial: TrialSpec) -> Outcome:
        found = noisy(trial)
        if trial.phase != "confirm":
            return found
        spread = 0.03 * (-1 if trial.seed % 2 else 1)
        return Outcome("completed", found.values | {"worst_forgetting": on_test + spread})

    cell = run(spec_of(), near)[0].cells[0]
    assert len(cell.confirmed[0].on("test")) == n_seeds
    none = run(spec_of(seeds={"finals": 6, "confirm_more": 0}), near)[0].cells[0]
    assert len(none.confirmed[0].on("test")) == 5


def test_no_further_test_seeds_where_another_rule_decides() -> None:
    spec = spec_of(search={"limits_hold_for": "every_seed"})
    assert all(len(s.on("test")) == 5 for s in run(spec)[0].cells[0].confirmed)


def test_where_nothing_is_likely_only_the_nearest_misses_run_on() -> None:
    cell = run(spec_of(limits=["worst_forgetting <= -0.3"]))[0].cells[0]
    assert cell.confirmed == []
    assert len(cell.finalists) == cell.spec.search.finalists


def test_confirm_all_measures_the_best_of_an_infeasible_cell() -> None:
    spec = spec_of(limits=["worst_forgetting <= -0.2"], confirm="all")
    search, _ = run(spec)
    cell = search.cells[0]
    assert cell.chosen is not None
    assert len(cell.chosen.on("test")) == 5
    assert not cell.may_be_chosen(cell.chosen)


# Rules of limits.


@pytest.mark.parametrize("rule", ["every_seed", {"probability": 0.98}])
def test_stricter_rules_choose_what_is_further_inside(rule: Any) -> None:
    mean, _ = run(spec_of(search={"suggestions": 32}))
    strict, _ = run(spec_of(search={"suggestions": 32, "limits_hold_for": rule}))
    chosen = [search.cells[0].chosen for search in (mean, strict)]
    assert chosen[0] is not None
    assert chosen[1] is not None
    inside = [float(s.hyperparameters["replay_ratio"]) for s in chosen if s]
    assert inside[1] > inside[0]


# The defaults.


def test_search_defaults_runs_every_method_once_on_the_test_split() -> None:
    spec = parse_spec({"methods": ["naive", "ewc", "replay"], "search": "defaults"})
    search = SweepSearch(spec, {"digits": "f00d"}, {})
    trials = list(search.waiting())
    assert {t.spec.phase for t in trials} == {"confirm"}
    assert len(trials) == 3 * 5
    assert all(not cell.cell.is_searched for cell in search.cells)
    ewc = next(t.spec for t in trials if t.spec.method == "ewc")
    assert ewc.hyperparameters["penalty_weight"] == 100.0
    with_search = parse_spec({"methods": ["ewc"], "search": "defaults", "seeds": {"search": 2}})
    assert {t.spec.phase for t in SweepSearch(with_search, {"digits": ""}, {}).waiting()} == {"search", "confirm"}


def test_of_a_large_cell_the_sampler_sees_the_newest_and_the_best() -> None:
    """It asks the same again from the log's results alone, and whole numbers stay whole and inside of their range."""
    spec = spec_of(search={"suggestions": 300})
    cell = spec.cells[0]
    study, other, draw = CellStudy(spec, cell, {}), CellStudy(spec, cell, {}), random.Random(0)
    for _ in range(60):
        batch = study.ask(4)
        for values in batch:
            assert isinstance(values["buffer_size"], int)
            assert 50 <= values["buffer_size"] <= 5000
            result = draw.random(), [draw.gauss(0, 1)]
            study.tell(values, *result)
            other.tell(values, *result)
    shown = study._shown()
    assert len(shown) == 125
    assert [trial.number for trial in shown[-100:]] == list(range(140, 240))
    assert other.ask(4) == study.ask(4), "though it has never asked before"


def test_a_log_of_a_search_of_before_is_not_used() -> None:
    """Its whole numbers were asked for otherwise, though nothing was told yet."""
    log: dict[str, list[dict[str, Any]]] = {}
    before = parse_spec(FIELDS | {"search": {"seeds": "all"}, "seeds": {"finals": 0}})
    for spec in (before, spec_of()):
        SweepSearch(spec, {"digits": "f00d"}, {}, log=log)
    assert len(log) == 2


def test_one_search_seed_without_finals_chooses_the_best_that_meets_the_limits() -> None:
    """One seed each tells no spread, so nothing has a probability."""
    spec = spec_of(seeds={"search": 1, "finals": 0, "confirm": 2}, search={"suggestions": 8, "batch": 4})
    (cell,) = run(spec)[0].cells

    feasible = [s for s in cell.suggestions if s.is_feasible("validation", spec)]
    assert 0 < len(feasible) < 8
    assert cell.chosen is max(feasible, key=lambda s: s.mean("validation", "average"))
    assert len(cell.chosen.outcomes["confirm"]) == 2
