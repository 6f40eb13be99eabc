"""The search without Ray and without training: outcomes are a pure function of the trial."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from statistics import fmean
from typing import Any

import optuna
import pytest

from orchestrator.search.cell_search import CellSearch
from orchestrator.search.study import direction_of
from orchestrator.search.suggestion import Outcome, PlannedTrial, Suggestion, rank
from orchestrator.search.sweep_search import SweepSearch
from orchestrator.spec.sweep_spec import SweepSpec
from orchestrator.spec.trial_spec import TrialSpec

MakeSpec = Callable[..., SweepSpec]
Judge = Callable[[TrialSpec], Outcome]

FINGERPRINTS = {"digits": "f00d"}


def completed(**values: float) -> Outcome:
    return Outcome("completed", {"forgetting": 0.0, "worst_forgetting": 0.0, "kept_bytes": 0.0, **values})


def judge(trial: TrialSpec) -> Outcome:
    """Return an accuracy that peaks at a ratio of 0.6 and a forgetting that falls with the ratio; seeds differ."""
    ratio = float(trial.hyperparameters.get("replay_ratio", 0.5))  # type: ignore[arg-type]
    size = float(trial.hyperparameters.get("buffer_size", 0))  # type: ignore[arg-type]
    noise = ((trial.seed * 7919) % 13 - 6) / 1000 if trial.phase == "search" else 0.0
    accuracy = 0.9 - (ratio - 0.6) ** 2 + math.log10(size + 1) / 100 + noise
    return completed(average=accuracy, worst_forgetting=0.5 - 0.5 * ratio + noise, kept_bytes=272 * size)


def drive(
    search: SweepSearch, judge: Judge = judge, at_once: int = 1_000_000, order: int | None = 0
) -> dict[str, Outcome]:
    """Run a search with `at_once` slots, trials ending in a random order; return what was trained."""
    generator = random.Random(order)
    trained: dict[str, Outcome] = {}
    while not search.is_finished:
        while len(search.running) < at_once and search.waiting_requests():
            search.hand_out(generator.choice(search.waiting_requests()))
        ended = generator.choice(search.running) if order is not None else search.running[0]
        assert ended.spec.key not in trained, "a trial ran twice"
        trained[ended.spec.key] = judge(ended.spec)
        search.record(ended.spec.key, trained[ended.spec.key])
    return trained


def searched(
    spec: SweepSpec, cached: Mapping[str, Outcome] | None = None, judge: Judge = judge, **options: Any
) -> tuple[SweepSearch, dict[str, Outcome]]:
    search = SweepSearch(spec, FINGERPRINTS, cached or {})
    return search, drive(search, judge, **options)


def history(search: SweepSearch) -> list[Any]:
    """Return everything that a search decided."""
    return [
        (cell.cell.name, [s.hyperparameters for s in cell.suggestions], cell.chosen.number if cell.chosen else None)
        for cell in search.cells
    ]


@pytest.fixture
def replay(make_spec: MakeSpec) -> MakeSpec:
    """Return a function to sweeps of one replay cell with a limit."""

    def make(suggestions: int = 12, batch: int = 4, **fields: Any) -> SweepSpec:
        settings = {"suggestions": suggestions, "batch": batch} | fields.pop("search", {})
        defaults = {"methods": ["replay"], "limits": ["worst_forgetting <= 0.15"]}
        return make_spec(**defaults | fields, search=settings)

    return make


# Determinism.


def test_suggestions_are_independent_of_timing(make_spec: MakeSpec) -> None:
    spec = make_spec(
        scenarios=["split-digits/task", "split-digits/class"],
        methods=["naive", "ewc", "replay"],
        limits=["worst_forgetting <= 0.15"],
        search={"suggestions": 14, "batch": 4},
        resources={"methods": {"ewc": {"cpus": 2}}},
    )
    first, trained = searched(spec, at_once=1, order=None)
    for order, at_once in enumerate([1, 2, 3, 7, 1000, 1000]):
        again, also_trained = searched(spec, at_once=at_once, order=order)
        assert history(again) == history(first)
        assert also_trained == trained
    assert all(cell.is_finished for cell in first.cells)


def test_cells_are_searched_each_with_its_own_seed(make_spec: MakeSpec) -> None:
    spec = make_spec(scenarios=["split-digits/task", "split-digits/class"], methods=["replay"])
    one, other = (h[1] for h in history(searched(spec)[0]))
    assert one[0] == other[0], "the defaults"
    assert one[1:] != other[1:]


def test_another_search_seed_suggests_others(replay: MakeSpec) -> None:
    one, other = (history(searched(replay(search={"seed": seed}))[0])[0][1] for seed in (0, 1))
    assert one[0] == other[0]
    assert one[1] != other[1]


def test_a_cell_does_not_depend_on_the_other_cells(replay: MakeSpec) -> None:
    alone = history(searched(replay())[0])[0]
    assert alone in history(searched(replay(methods=["ewc", "joint", "replay", "packnet"]))[0])


# Replay and extension.


def test_what_is_cached_is_not_trained(replay: MakeSpec) -> None:
    first, trained = searched(replay())
    again, nothing = searched(replay(), trained)
    assert nothing == {}
    assert history(again) == history(first)
    assert again.n_cached == len(trained) == 12 * 2 + 2
    assert again.is_finished


@pytest.mark.parametrize("n_done", [1, 7, 13, 24])
def test_a_search_stopped_anywhere_continues_the_same(replay: MakeSpec, n_done: int) -> None:
    first, trained = searched(replay(), at_once=3)
    cached = dict(list(trained.items())[:n_done])
    again, rest = searched(replay(), cached, at_once=2, order=5)
    assert history(again) == history(first)
    assert cached.keys() | rest.keys() == trained.keys()
    assert not cached.keys() & rest.keys()


@pytest.mark.parametrize(("few", "many"), [(8, 16), (6, 9), (1, 12), (10, 11)])
def test_a_larger_budget_extends_a_search(replay: MakeSpec, few: int, many: int) -> None:
    """Also if the smaller budget ends inside a batch."""
    small, trained = searched(replay(few))
    large, more = searched(replay(many), trained)
    before, after = history(small)[0][1], history(large)[0][1]
    assert after[:few] == before
    assert len(after) == many
    chosen = [search.cells[0].chosen for search in (small, large)]
    numbers = [suggestion.number if suggestion else None for suggestion in chosen]
    n_confirmed_anew = 2 if numbers[1] is not None and numbers[1] != numbers[0] else 0
    assert len(more) == (many - few) * 2 + n_confirmed_anew


def test_more_confirm_seeds_extend(replay: MakeSpec) -> None:
    first, trained = searched(replay())
    again, more = searched(replay(seeds={"search": 2, "confirm": 5}), trained)
    assert history(again) == history(first)
    assert len(more) == 3
    assert first.cells[0].chosen is not None


def test_more_search_seeds_keep_the_first_batch(replay: MakeSpec) -> None:
    first, trained = searched(replay())
    again, more = searched(replay(seeds={"search": 3, "confirm": 2}), trained)
    assert history(again)[0][1][:4] == history(first)[0][1][:4]
    assert again.n_cached >= 4 * 2
    assert len(more) + again.n_cached == 12 * 3 + 2


def test_another_method_trains_only_itself(replay: MakeSpec) -> None:
    _, trained = searched(replay())
    again, more = searched(replay(methods=["replay", "naive"]), trained)
    assert again.n_cached == len(trained)
    assert len(more) == 2 + 2


def test_other_data_are_trained_anew(replay: MakeSpec) -> None:
    _, trained = searched(replay())
    search = SweepSearch(replay(), {"digits": "beef"}, trained)
    assert search.n_cached == 0
    assert len(drive(search)) == len(trained)


# What is asked.


def test_every_searched_method_has_the_same_budget(make_spec: MakeSpec) -> None:
    methods = ["naive", "joint", "ewc", "replay", "packnet"]
    search, trained = searched(make_spec(methods=methods, search={"suggestions": 5, "batch": 2}))
    assert [len(cell.suggestions) for cell in search.cells] == [1, 1, 5, 5, 5]
    assert len(trained) == search.n_expected == 2 * (2 + 2) + 3 * (5 * 2 + 2)


def test_the_first_suggestion_is_the_default(make_spec: MakeSpec) -> None:
    search, _ = searched(make_spec(methods=["ewc", "replay", "packnet"]))
    first = {cell.cell.method: cell.suggestions[0].hyperparameters for cell in search.cells}
    assert first == {
        "ewc": {"penalty_weight": 100.0},
        "replay": {"replay_ratio": 0.5, "buffer_size": 500},
        "packnet": {"pruning_rate": 0.75, "post_prune_epochs": 3},
    }


def test_a_default_out_of_range_is_not_suggested(replay: MakeSpec) -> None:
    spaces = {"replay": {"buffer_size": {"low": 10, "high": 20}, "batch_size": [8, 16]}}
    suggestions = searched(replay(spaces=spaces))[0].cells[0].suggestions
    assert suggestions[0].hyperparameters["replay_ratio"] == 0.5
    assert all(10 <= s.hyperparameters["buffer_size"] <= 20 for s in suggestions)  # type: ignore[operator]
    assert {s.hyperparameters["batch_size"] for s in suggestions} == {8, 16}


def test_fixed_values_reach_every_trial(replay: MakeSpec) -> None:
    spec = replay(spaces={"replay": {"buffer_size": 77, "buffer": "class_balanced"}})
    planned = list(SweepSearch(spec, FINGERPRINTS, {}).waiting())
    assert {(t.spec.hyperparameters["buffer_size"], t.spec.hyperparameters["buffer"]) for t in planned} == {
        (77, "class_balanced")
    }
    assert len({t.spec.hyperparameters["replay_ratio"] for t in planned}) == 4


def test_a_batch_waits_for_all_of_its_seeds(replay: MakeSpec) -> None:
    search = SweepSearch(replay(batch=3), FINGERPRINTS, {})
    (request,) = search.waiting_requests()
    for n_batches in (1, 2):
        for trial in [search.hand_out(request) for _ in range(6)]:
            assert len(search.cells[0].suggestions) == 3 * n_batches
            assert search.waiting_requests() == []
            search.record(trial.spec.key, judge(trial.spec))
    assert search.n_waiting == 6


def test_phases_and_seeds(replay: MakeSpec) -> None:
    spec = replay(4, seeds={"search": [3, 5], "confirm": [8, 9]}, limits=[])
    ran: list[TrialSpec] = []

    def note(trial: TrialSpec) -> Outcome:
        ran.append(trial)
        return judge(trial)

    search, _ = searched(spec, judge=note, order=None)
    assert [t.phase for t in ran] == ["search"] * 8 + ["confirm"] * 2
    assert {t.seed for t in ran if t.phase == "search"} == {3, 5}
    assert {t.seed for t in ran if t.phase == "confirm"} == {8, 9}
    chosen = search.cells[0].chosen
    assert chosen is not None
    assert all(chosen.hyperparameters.items() <= t.hyperparameters.items() for t in ran[-2:])


def test_trials_are_handed_out_by_request(make_spec: MakeSpec) -> None:
    spec = make_spec(methods=["naive", "joint"], resources={"methods": {"joint": {"gpus": 0.5}}})
    search = SweepSearch(spec, FINGERPRINTS, {})
    small, large = search.waiting_requests()
    assert (small.gpus, small.device, large.gpus, large.device) == (0, "cpu", 0.5, "cuda")
    handed = search.hand_out(large)
    assert handed.cell.method == "joint"
    assert (search.n_running(large), search.n_running(small)) == (1, 0)
    assert search.n_waiting == 7


# Duplicates.


@pytest.mark.parametrize("batch", [1, 2, 6])
def test_equal_suggestions_share_their_trials(replay: MakeSpec, batch: int) -> None:
    """In one batch and in different ones."""
    spaces = {"replay": {"replay_ratio": 0.7, "buffer_size": [100, 200]}}
    spec = replay(6, batch, spaces=spaces, limits=[])
    search, trained = searched(spec)
    cell = search.cells[0]
    assert len(cell.suggestions) == 6
    assert len(trained) == 2 * 2 + 2, "two values x two search seeds, and the chosen one's confirm seeds"
    assert cell.n_recorded == cell.n_expected == 6 * 2 + 2
    for suggestion in cell.suggestions:
        expected = [0.9 - 0.01 + math.log10(float(suggestion.hyperparameters["buffer_size"]) + 1) / 100]  # type: ignore[arg-type]
        assert suggestion.mean("validation", "average") == pytest.approx(expected[0], abs=0.01)
    again, nothing = searched(spec, trained)
    assert nothing == {}
    assert history(again) == history(search)


# Failures.


def failing(status: str, when: Callable[[TrialSpec], bool]) -> Judge:
    return lambda trial: Outcome(status, {"average": 2.0}) if when(trial) else judge(trial)


def test_a_suggestion_with_a_failed_seed_is_not_chosen(replay: MakeSpec) -> None:
    spec = replay(16, limits=["worst_forgetting <= 0.3"])
    best = searched(spec)[0].cells[0].chosen
    assert best is not None
    unlucky = best.hyperparameters.items()
    told: dict[int, optuna.trial.FrozenTrial] = {}
    search = SweepSearch(spec, FINGERPRINTS, {}, lambda cell, trial: told.__setitem__(trial.number, trial))
    drive(search, failing("failed", lambda t: t.seed == 1 and unlucky <= t.hyperparameters.items()))
    cell = search.cells[0]
    failed = [s.number for s in cell.suggestions if s.hyperparameters == best.hyperparameters]
    assert best.number in failed
    for number in failed:
        assert told[number].state == optuna.trial.TrialState.FAIL
        assert math.isnan(cell.suggestions[number].mean("validation", "average"))
    assert cell.chosen is not None
    assert cell.chosen.number not in failed
    assert cell.is_finished


def test_if_everything_fails_nothing_is_chosen(replay: MakeSpec) -> None:
    search, trained = searched(replay(), judge=failing("failed", lambda t: True))
    cell = search.cells[0]
    assert cell.is_finished
    assert (cell.chosen, cell.nearest_miss()) == (None, None)
    assert len(trained) == 24


def test_a_metric_that_is_nan_is_not_measured(replay: MakeSpec) -> None:
    def no_limit(trial: TrialSpec) -> Outcome:
        return completed(average=0.9, worst_forgetting=math.nan)

    search, _ = searched(replay(), judge=no_limit)
    assert search.cells[0].chosen is None


def test_a_machine_error_blocks_its_cell_until_a_rerun(replay: MakeSpec) -> None:
    spec = replay(methods=["replay", "naive"])
    whole, _ = searched(spec)
    victim = list(SweepSearch(spec, FINGERPRINTS, {}).waiting())[3].spec.key
    search, trained = searched(spec, judge=failing("error", lambda t: t.key == victim))
    blocked, other = search.cells
    assert (blocked.is_blocked, blocked.is_finished, len(blocked.suggestions)) == (True, False, 4)
    assert other.is_finished
    assert search.is_finished, "nothing is left to run now"
    again, rest = searched(spec, trained)
    assert victim in rest
    assert not (trained.keys() - {victim}) & rest.keys()
    assert history(again) == history(whole)


def test_an_error_while_confirming_blocks_too(replay: MakeSpec) -> None:
    search, trained = searched(replay(), judge=failing("error", lambda t: t.phase == "confirm" and t.seed == 1001))
    assert not search.cells[0].is_finished
    again, rest = searched(replay(), trained)
    assert len(rest) == 1
    assert again.cells[0].is_finished


# Choice under limits.


def test_the_best_feasible_is_chosen(replay: MakeSpec) -> None:
    search, _ = searched(replay(24))
    cell, spec = search.cells[0], replay(24)
    feasible = [s for s in cell.suggestions if s.mean("validation", "worst_forgetting") <= 0.15]
    assert 0 < len(feasible) < 24
    best = max(feasible, key=lambda s: s.mean("validation", "average"))
    assert cell.chosen is best
    top = min(cell.suggestions, key=lambda s: rank(spec.objective, s.mean("validation", spec.objective)))
    assert top not in feasible, "the limit decided"


def test_without_a_feasible_one_nothing_is_confirmed(replay: MakeSpec) -> None:
    search, trained = searched(replay(limits=["worst_forgetting <= -0.5"]))
    cell = search.cells[0]
    assert (cell.chosen, cell.is_finished, cell.n_unknown) == (None, True, 0)
    assert len(trained) == 24
    miss = cell.nearest_miss()
    assert miss is not None
    assert miss.mean("validation", "worst_forgetting") == min(
        s.mean("validation", "worst_forgetting") for s in cell.suggestions
    )


def test_a_cost_as_objective_is_minimized(replay: MakeSpec) -> None:
    search, _ = searched(replay(objective="kept_bytes", limits=["average >= 0.85"]))
    cell = search.cells[0]
    assert direction_of(cell.spec) == "minimize"
    feasible = [s for s in cell.suggestions if s.mean("validation", "average") >= 0.85]
    assert cell.chosen is min(feasible, key=lambda s: s.mean("validation", "kept_bytes"))
    assert cell.chosen.hyperparameters["buffer_size"] < 500  # type: ignore[operator]


def test_limits_hold_for_the_mean_or_for_every_seed(make_spec: MakeSpec) -> None:
    outcomes = {0: completed(average=0.8, forgetting=0.04), 1: completed(average=0.9, forgetting=0.1)}
    suggestion = Suggestion(0, {}, {"search": outcomes, "finals": {}, "confirm": {}})
    for aggregate, violation in (("mean", 0.0), ("every_seed", 3.0)):
        spec = make_spec(limits=["forgetting <= 0.07 (tolerance 0.01)"], search={"limits_hold_for": aggregate})
        assert suggestion.violations("validation", spec) == pytest.approx([violation])
        assert suggestion.is_feasible("validation", spec) == (aggregate == "mean")
        assert suggestion.total_violation("validation", spec) == pytest.approx(violation)
    assert suggestion.mean("validation", "average") == pytest.approx(0.85)
    assert math.isnan(suggestion.mean("test", "average"))
    assert not suggestion.is_feasible("test", make_spec())


def test_only_violated_limits_add_up_in_tolerances(make_spec: MakeSpec) -> None:
    spec = make_spec(limits=["forgetting <= 0.1 (tolerance 0.02)", "kept_bytes <= 1000", "average >= 0.5"])
    outcome = completed(average=0.9, forgetting=0.14, kept_bytes=1250.0)
    suggestion = Suggestion(0, {}, {"search": {0: outcome}, "finals": {}, "confirm": {}})
    assert suggestion.violations("validation", spec) == pytest.approx([2.0, 2.5, -8.0])
    assert suggestion.total_violation("validation", spec) == pytest.approx(4.5)


@pytest.mark.parametrize("hold_for", ["mean", "every_seed"])
def test_optuna_gets_the_limits_and_chooses_the_same(replay: MakeSpec, hold_for: str) -> None:
    spec = replay(
        limits=["worst_forgetting <= 0.15", "kept_bytes <= 4e5"],
        search={"limits_hold_for": hold_for, "suggestions": 20},
    )
    told: list[optuna.trial.FrozenTrial] = []

    def note(cell: CellSearch, trial: optuna.trial.FrozenTrial) -> None:
        told.append(trial)

    search = SweepSearch(spec, FINGERPRINTS, {}, note)
    drive(search)
    cell = search.cells[0]
    assert [trial.number for trial in told] == list(range(20))
    for trial, suggestion in zip(told, cell.suggestions, strict=True):
        assert list(trial.constraints) == ["worst_forgetting <= 0.15", "kept_bytes <= 400000"]
        assert list(trial.constraints.values()) == suggestion.violations("validation", spec)
        assert trial.value == suggestion.mean("validation", "average")
        assert trial.params == suggestion.hyperparameters
    assert cell.chosen is not None
    study = optuna.create_study(direction=direction_of(spec))
    study.add_trials(told)
    assert study.best_trial.number == cell.chosen.number


def conflict(trial: TrialSpec) -> Outcome:
    """Accuracy wants a low ratio, the limit a high one: a fifth of the range is feasible."""
    ratio = float(trial.hyperparameters["replay_ratio"])  # type: ignore[arg-type]
    return completed(average=1 - ratio, worst_forgetting=1 - ratio)


def test_limits_steer_the_sampler(replay: MakeSpec) -> None:
    """Share of feasible suggestions in the later half, with and without the limit, over some sampler seeds."""
    shares: dict[bool, list[float]] = {True: [], False: []}
    for limited in (True, False):
        for seed in range(3):
            spec = replay(32, limits=["worst_forgetting <= 0.26"] if limited else [], search={"seed": seed})
            later = searched(spec, judge=conflict)[0].cells[0].suggestions[16:]
            shares[limited].append(fmean(float(s.hyperparameters["replay_ratio"]) >= 0.74 for s in later))  # type: ignore[arg-type]
    assert fmean(shares[True]) > 0.4
    assert fmean(shares[True]) > fmean(shares[False]) + 0.3


@pytest.mark.parametrize("sampler", ["random", "gp"])
def test_other_samplers_are_repeatable(replay: MakeSpec, sampler: str) -> None:
    spec = replay(9, 2, search={"sampler": sampler})  # the GP suggests the last one: 8 are random
    first, trained = searched(spec, at_once=2)
    assert len({tuple(s.hyperparameters.items()) for s in first.cells[0].suggestions}) == 9
    again, nothing = searched(spec, trained)
    assert nothing == {}
    assert history(again) == history(first)


# Counting.


def test_counts_while_a_search_runs(replay: MakeSpec) -> None:
    search = SweepSearch(replay(4, 2), FINGERPRINTS, {})
    (request,) = search.waiting_requests()
    assert (search.n_expected, search.n_waiting, search.is_finished) == (10, 4, False)
    handed: list[PlannedTrial] = [search.hand_out(request) for _ in range(2)]
    assert (search.n_waiting, len(search.running), search.n_running(request)) == (2, 2, 2)
    assert [t.spec.key for t in search.running] == [t.spec.key for t in handed]
    search.record(handed[0].spec.key, judge(handed[0].spec))
    cell = search.cells[0]
    assert (cell.n_recorded, cell.n_unknown, cell.n_expected) == (1, 9, 10)
    drive(search)
    assert cell.n_unknown == 0
    assert search.is_finished
