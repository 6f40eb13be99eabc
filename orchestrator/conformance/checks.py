"""Checks that every method must pass. Each raises AssertionError with what the method broke.

Comparisons are exact, bit for bit, unless a tolerance is given.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from pathlib import Path

from orchestrator.conformance import world
from orchestrator.conformance.world import (
    N_TASKS,
    Case,
    Stop,
    difference,
    equal,
    logits_of,
    outcome_of,
    through_a_file,
)
from orchestrator.core.errors import SpecError
from orchestrator.core.placement import Placement
from orchestrator.spec.loading import parse_spec
from orchestrator.streams.datasets import Dataset
from orchestrator.streams.settings import INCREMENTAL_TYPES
from orchestrator.streams.sources.builtin import load_dataset
from orchestrator.trial.protocol import run_trial
from orchestrator.trial.result import TrialResult
from search_spaces import default_space, sample
from strategies import Learner, Method, TaskData, TrialDivergedError, find_method

STOPS_INSIDE = ((0, 2), (1, 1), (1, 4), (2, 3), (2, 6))
"""(task, steps taken): inside a pass, after a first step, in a second pass, between two passes, before `end_task`."""

STOPS_IN_ONE_PASS = ((0, 2), (1, 1), (2, 3))
"""The same for methods that train no network, whose tasks are three portions: the last stop is before `end_task`."""


def declares_itself(case: Case) -> None:
    """A method says what it is, which paper it comes from, and what each hyper-parameter means."""
    method = find_method(case.method)
    for part in method.parts.values():
        assert part.summary, "a summary is missing"
        has_source = part.paper or part.is_reference or not part.hyperparameter_class.model_fields
        assert has_source, "`paper` is missing: hyper-parameters need one"
        assert part.version >= 1, "the version must be 1 or more"
    for name, field in method.hyperparameter_class.model_fields.items():
        assert field.description, f"{name} has no description"
    assert not method.unsupported.keys() & method.notes.keys(), "a type is both unsupported and noted"
    assert set(method.unsupported) | set(method.notes) <= set(INCREMENTAL_TYPES), (
        "`unsupported` or `notes` name an unknown type"
    )


def what_is_searched_can_be_trained_with(case: Case) -> None:
    """Every suggestion of the default search space is a valid assignment."""
    method = find_method(case.method)
    for suggestion in sample(default_space(method), 20, seed=0):
        method.split(suggestion)


def unsupported_types_are_refused_with_the_reason(case: Case) -> None:
    """A spec with a type that the method cannot do is refused, and the refusal gives the method's reason."""
    for kind, reason in find_method(case.method).unsupported.items():
        faults: tuple[str, ...] = ()
        try:
            parse_spec({"scenarios": [f"split-digits/{kind}"], "methods": [case.method]})
        except SpecError as error:
            faults = error.faults
        assert any(reason in fault for fault in faults), f"the refusal of {kind} does not say: {reason}"


def blurry_tasks_are_refused_with_the_reason(case: Case) -> None:
    """A spec with blurry tasks is refused if the method needs whole ones, and the refusal gives its reason."""
    method = find_method(case.method)
    kind = next(kind for kind in INCREMENTAL_TYPES if kind not in method.unsupported)
    faults: tuple[str, ...] = ()
    try:
        parse_spec(
            {
                "scenarios": [f"split-digits/{kind}"],
                "methods": [case.method],
                "streams": {"split-digits": {"blurry": 0.1}},
            }
        )
    except SpecError as error:
        faults = error.faults
    reason = method.needs_whole_tasks
    assert any(reason in fault for fault in faults), f"the refusal of blurry tasks does not say: {reason}"


def it_learns_blurry_tasks(case: Case) -> None:
    """Tasks with examples of their neighbours are learned, whose next outputs compete from then on.

    Answers are numbers, a stop inside a task changes nothing, and what is kept is what it said.
    """
    blurry = replace(case, is_blurry=True)
    learner = blurry.learner()
    said = _bytes_to_keep(learner, blurry) if find_method(case.method).knows_kept_bytes else None
    for index in range(N_TASKS):
        learner.learn(blurry.task(index))
        seen = min(index + 2, N_TASKS)
        assert learner.n_seen == seen, f"{learner.n_seen} tasks are seen after task {index}, expected {seen}"
        for task, logits in enumerate(logits_of(learner, blurry, range(index + 1))):
            assert not bool(logits.isnan().any()), f"answers NaN on task {task} after task {index}"
    kept = [strategy.kept_bytes() for strategy in learner.strategies]
    assert said is None or said == kept, f"keeps {kept} bytes and said {said}"
    _assert_stops_change_nothing(blurry, [(1, 1), (2, 2)])


def is_repeatable(case: Case) -> None:
    """The same seed gives the same outcome, also after other runs in the process. Another seed gives another."""
    first = case.outcome
    other = outcome_of(case.learned(seed=1), case)
    _assert_equal(outcome_of(case.learned(), case), first, "two runs with one seed differ")
    assert not equal(other.state["network"], first.state["network"]), "two seeds give the same network"


def a_stop_between_tasks_changes_nothing(case: Case) -> None:
    """Stop after each task and go on in a fresh learner: the outcome is that of a run without stops."""
    _assert_stops_change_nothing(case, [(task, 0) for task in range(1, N_TASKS)])


def a_stop_inside_a_task_changes_nothing(case: Case, stops: Iterable[tuple[int, int]] = ()) -> None:
    """Stop between steps and go on in a fresh learner: the outcome is that of a run without stops.

    Args:
        case: what to train.
        stops: (task, steps of this task taken before the stop); by default some of every kind.
    """
    usual = STOPS_INSIDE if find_method(case.method).trains_network else STOPS_IN_ONE_PASS
    _assert_stops_change_nothing(case, list(stops or usual))


def an_evaluation_inside_a_task_changes_nothing(case: Case) -> None:
    """Ask for answers on all tasks seen between all steps: the outcome is that of a run that is not asked."""
    _assert_equal(outcome_of(case.learned_with_looks(), case), case.outcome, "evaluations within tasks change the run")


def _assert_stops_change_nothing(case: Case, stops: list[tuple[int, int]]) -> None:
    """Make one run with all stops. Only if it differs, make one for each, to say which stop it was."""
    if equal(outcome_of(case.learned_with_stops(stops), case), case.outcome):
        return
    for task, n_steps in stops:
        alone = outcome_of(case.learned_with_stops([(task, n_steps)]), case)
        _assert_equal(alone, case.outcome, f"a stop after {n_steps} steps of task {task} changes the run")
    raise AssertionError(f"the stops (task, steps) {stops} change the run, though none of them does alone")


def the_start_of_a_task_changes_no_answer(case: Case) -> None:
    """Until the first step of a task, answers on earlier tasks stay the same: growing heads keep what they had."""
    learner = case.learned([0])

    def stop(task: TaskData) -> TaskData:
        raise Stop

    for index in range(1, N_TASKS):
        before = logits_of(learner, case, range(index))
        last = learner.strategies[-1]
        last.training_data = stop  # type: ignore[method-assign]
        try:
            learner.learn(case.task(index))
        except Stop:
            after = logits_of(learner, case, range(index))
        del last.training_data
        kept = [new[:, : old.shape[1]] for old, new in zip(before, after, strict=True)]
        _assert_equal(kept, before, f"the start of task {index} changes logits on earlier tasks")
        learner.learn(case.task(index))


def its_state_is_plain(case: Case) -> None:
    """The state survives a file that is read without running code, and the report is JSON."""
    learner = case.learned()
    for strategy in learner.strategies:
        _assert_equal(through_a_file(strategy.state_dict()), strategy.state_dict(), "the state changes in a file")
        assert json.loads(json.dumps(strategy.report())) == strategy.report(), "the report is not plain JSON"
        assert strategy.kept_bytes() >= 0, "the memory is negative"


def it_keeps_what_it_said(case: Case) -> None:
    """What it keeps after the last task is what it said before the first; a run that was stopped says the same.

    At the case's hyper-parameters and at suggestions of the default search space, which may diverge; with whole passes
    over a task and with one step a task.
    """
    suggestions = sample(default_space(find_method(case.method)), 3, seed=0)
    for own in ({}, *suggestions):
        for training in ({}, {"iterations": 1}):
            one = case.with_(training, own)
            said = _bytes_to_keep(one.learner(), one)
            try:
                learner = one.learned()
            except TrialDivergedError:
                continue
            kept = [strategy.kept_bytes() for strategy in learner.strategies]
            assert said == kept, f"keeps {kept} bytes and said {said}, {own} {training}"
            resumed = one.learner()
            resumed.load_state_dict(through_a_file(learner.state_dict()))
            assert _bytes_to_keep(resumed, one) == said, f"says another number of bytes after a stop, {own}"


def _bytes_to_keep(learner: Learner, case: Case) -> list[int | None]:
    return [strategy.bytes_to_keep(case.sizes) for strategy in learner.strategies]


def strength_zero_is_naive(case: Case) -> None:
    """At the hyper-parameters that `naive_at` declares, the network and its answers are those of the naive run."""
    method = find_method(case.method)
    names = {own: name for name, own in method.names.items()}
    zero = {names[part, name]: value for part, cls in method.parts.items() for name, value in cls.naive_at.items()}
    ours, naive = case.with_(hyperparameters=zero).outcome, case.as_naive().outcome
    shared = {name: ours.state["network"].get(name) for name in naive.state["network"]}
    _assert_equal(shared, dict(naive.state["network"]), f"the network at {zero} is not the naive one")
    _assert_equal(ours.logits, naive.logits, f"the logits at {zero} are not the naive ones")


def is_not_naive(case: Case) -> None:
    """With its hyper-parameters the method does something: answers on old tasks are not those of the naive run."""
    old = slice(N_TASKS - 1)
    ours, naive = case.outcome.logits[old], case.as_naive().outcome.logits[old]
    assert not equal(ours, naive), "answers on old tasks are those of a naive run: the method does nothing"


def the_protocol_accepts_it(case: Case) -> TrialResult:
    """A trial on real digits completes with a full accuracy matrix, and running it again gives the same matrix."""
    method = find_method(case.method)
    is_searched = bool(default_space(method).keys() - case.hyperparameters.keys())
    spec = parse_spec(
        {
            "scenarios": [f"split-digits/{case.kind}"],
            "methods": [case.method],
            "spaces": {case.method: dict(case.hyperparameters)},
            "model": {"hidden": [16]},
            "training": {"epochs": 1, "batch_size": 32},
            "seeds": {"search": int(is_searched), "confirm": 1},
        }
    )
    dataset = _digits()
    hyperparameters = method.hyperparameter_class(**case.hyperparameters).model_dump()
    trial = spec.trial(spec.cells[0], hyperparameters, 0, "confirm", dataset.fingerprint())
    data = dataset.phase("confirm", spec.validation_share)
    placement = Placement(world.device.type)
    result, again = run_trial(trial, data, placement), run_trial(trial, data, placement)
    assert result.status == "completed", result.reason
    assert again.n_correct == result.n_correct, "two runs of one trial give two accuracy matrices"
    average = result.metrics()["average_accuracy"]
    assert 0.0 <= average <= 1.0, f"average_accuracy is {average}"
    assert math.isfinite(result.costs["kept_bytes"]), "the memory is not finite"
    if never_forgets(method):
        after = result.matrix.accuracy[1:]
        for task in range(after.shape[1]):
            assert (after[task:, task] == after[task, task]).all(), f"the accuracy on task {task} changes later"
    return result


def never_forgets(method: Method) -> bool:
    """Return whether a part declares that old logits never change."""
    return any(part.never_forgets for part in method.parts.values())


@cache
def _digits() -> Dataset:
    return load_dataset("digits", Path())


def _assert_equal(one: object, other: object, message: str) -> None:
    at = difference(one, other)
    assert at is None, f"{message} (first difference: {at or 'the whole'})"
