"""The checks: each raises AssertionError where a method breaks what it must hold.

Sources of the invariants are those of the methods; exactness (bit for bit) is meant wherever `equal` is used.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from orchestrator.conformance.world import N_TASKS, Case, equal, logits_of, parameters_of, tensors_in, through_a_file
from orchestrator.core.errors import SpecError
from orchestrator.spec.loading import parse_spec
from orchestrator.streams.datasets import Dataset
from orchestrator.streams.settings import INCREMENTAL_TYPES
from orchestrator.streams.sources.builtin import load_dataset
from orchestrator.trial.protocol import run_trial
from orchestrator.trial.result import TrialResult
from search_spaces import default_space, sample
from strategies import Batch, Forward, Learner, TaskData, find_method
from strategies.parts.quadratic import QuadraticState, penalty_value


def declares_itself(case: Case) -> None:
    """A method says what it is, from where, and what each of its hyper-parameters means."""
    method = find_method(case.method)
    for part in method.parts.values():
        assert part.summary, "a summary"
        assert part.paper or not part.hyperparameter_class.model_fields, "the paper that its hyper-parameters come from"
        assert part.version >= 1, "a version of at least 1"
    for name, field in method.hyperparameter_class.model_fields.items():
        assert field.description, f"a description of {name}"
    assert not method.unsupported.keys() & method.notes.keys(), "no note on a type that it cannot do"
    assert set(method.unsupported) | set(method.notes) <= set(INCREMENTAL_TYPES), "incremental types"


def what_is_searched_can_be_trained_with(case: Case) -> None:
    """Every suggestion of the default search space is a valid assignment."""
    method = find_method(case.method)
    for suggestion in sample(default_space(method), 20, seed=0):
        method.split(suggestion)


def unsupported_types_are_refused_with_the_reason(case: Case) -> None:
    """A spec with a type that the method cannot do is refused, and the refusal says why."""
    for kind, reason in find_method(case.method).unsupported.items():
        faults: tuple[str, ...] = ()
        try:
            parse_spec({"scenarios": [f"split-digits/{kind}"], "methods": [case.method]})
        except SpecError as error:
            faults = error.faults
        assert any(reason in fault for fault in faults), f"a refusal of {kind} with the reason"


def is_repeatable(case: Case) -> None:
    """The same seed gives the same network and the same logits, another seed another."""
    one, other = case.learned(), case.learned()
    assert equal(parameters_of(one), parameters_of(other)), "the same seed, the same parameters"
    assert equal(logits_of(one, case, range(N_TASKS)), logits_of(other, case, range(N_TASKS))), "and logits"
    assert not equal(parameters_of(one), parameters_of(case.learned(seed=1))), "another seed, another run"


def a_stop_between_tasks_changes_nothing(case: Case) -> None:
    """Stop after a task, load into a fresh learner, go on: as if there had been no stop."""
    straight = case.learned()
    for n_done in range(1, N_TASKS):
        resumed = case.learner()
        resumed.load_state_dict(through_a_file(case.learned(range(n_done)).state_dict()))
        case.learn(resumed, range(n_done, N_TASKS))
        _indistinguishable(case, straight, resumed)


def a_stop_inside_a_task_changes_nothing(
    case: Case, stops: Iterable[tuple[int, int]] = ((0, 2), (1, 1), (1, 4), (2, 3), (2, 6))
) -> None:
    """Stop between two steps of a task, load, learn that task again: as if there had been no stop.

    Args:
        case: what to train.
        stops: the tasks in which to stop, each with the steps taken until then.
    """
    straight = case.learned()
    for task, n_steps in stops:
        resumed = case.learner()
        resumed.load_state_dict(case.stopped(task, n_steps))
        case.learn(resumed, range(task, N_TASKS))
        _indistinguishable(case, straight, resumed)


def its_state_is_plain(case: Case) -> None:
    """What a method keeps survives a file that is read without running code, and what it reports is JSON."""
    learner = case.learned()
    for strategy in learner.strategies:
        assert equal(through_a_file(strategy.state_dict()), strategy.state_dict()), "the same state from a file"
        assert json.loads(json.dumps(strategy.report())) == strategy.report(), "a report of plain JSON"
        assert strategy.kept_bytes() >= 0, "bytes that it keeps"


def strength_zero_is_naive(case: Case) -> None:
    """At the hyper-parameters that it declares, the method is the naive run bit for bit."""
    parts = find_method(case.method).parts
    if not all(part.naive_at for part in parts.values()):
        return
    names = {own: name for name, own in find_method(case.method).names.items()}
    zero = {names[part, name]: value for part, cls in parts.items() for name, value in cls.naive_at.items()}
    ours, naive = case.with_(hyperparameters=zero).learned(), case.as_naive().learned()
    expected = parameters_of(naive)
    assert equal({name: parameters_of(ours)[name] for name in expected}, expected), "the naive parameters"
    assert equal(logits_of(ours, case, range(N_TASKS)), logits_of(naive, case, range(N_TASKS))), "the naive logits"


def is_not_naive(case: Case) -> None:
    """With its hyper-parameters the method does something: its answers are not those of the naive run."""
    if case.method == "naive":
        return
    ours, naive = case.learned(), case.as_naive().learned()
    old = range(N_TASKS - 1)
    assert not equal(logits_of(ours, case, old), logits_of(naive, case, old)), "other answers on old tasks than naive"


def its_buffer_stays_within_capacity(case: Case) -> None:
    """No more examples are kept than `buffer_size` allows, at any step."""
    small = case.with_(hyperparameters={"buffer_size": 7})
    learner = small.learner()

    def count() -> None:
        kept = [
            tensor.shape[0]
            for strategy in learner.strategies
            for tensor in tensors_in(strategy.state_dict())
            if tensor.shape[1:] == small.input_shape
        ]
        assert sum(kept) <= 7, f"at most 7 remembered examples, got {kept}"
        most.append(sum(kept))

    most: list[int] = []
    for index in range(N_TASKS):
        learner.learn(small.task(index), count)
        count()
    assert max(most) > 0, "some remembered examples"


def its_reservoir_counts_examples_once(case: Case) -> None:
    """A reservoir is offered each example of the stream once, however many epochs train on it."""
    learner = case.with_(training={"epochs": 3}).learned()
    for strategy in learner.strategies:
        if hasattr(strategy.state, "n_offered"):
            n_stream = sum(len(case.task(index)) for index in range(N_TASKS))
            assert strategy.state.n_offered == n_stream, "each example offered once"


def its_stored_logits_are_those_of_insertion(case: Case) -> None:
    """Where logits are stored with remembered examples: they are those of the step that saw the example last."""
    learner = case.learner()
    seen: dict[tuple[float, ...], torch.Tensor] = {}
    for strategy in learner.strategies:
        if not hasattr(strategy.state, "logits"):
            continue
        after_step = strategy.after_step

        def note(batch: Batch, forward: Forward, after_step: Any = after_step) -> None:
            if learner.in_last_pass:
                for row in range(batch.n_new):
                    key = tuple(batch.inputs[row].flatten().tolist())
                    seen[key] = forward.logits[row].detach().clone()
            after_step(batch, forward)

        strategy.after_step = note  # type: ignore[method-assign]
        case.learn(learner, range(N_TASKS))
        state = strategy.state
        assert len(state.labels) > 0, "some remembered examples"
        for inputs, logits, task in zip(state.inputs, state.logits, state.task_ids.tolist(), strict=True):
            first = 0 if case.kind == "class" else case.layout.ranges[task][0]
            expected = seen[tuple(inputs.flatten().tolist())]
            assert equal(logits[first : first + len(expected)], expected), "the logits of the step that stored it"


def its_steps_oppose_no_memory(case: Case) -> None:
    """Where gradients are projected: no step raises the loss on the remembered batches that it was compared with.

    Beyond 1e-6 of the two gradients' norms, at any step; and some step was projected.
    """
    learner = case.learner()
    learner.settings = learner.settings.model_copy(update={"momentum": 0.0})
    compared: list[Batch] = []
    cross_entropy, n_projected = learner.cross_entropy, 0

    def note(batch: Batch) -> torch.Tensor:
        compared.append(batch)
        return cross_entropy(batch)

    def gradients(loss: torch.Tensor) -> torch.Tensor:
        found = torch.autograd.grad(loss, list(learner.network.parameters()), allow_unused=True)
        every = zip(found, learner.network.parameters(), strict=True)
        return torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for g, p in every]).double()

    learner.cross_entropy = note  # type: ignore[method-assign]
    for strategy in learner.strategies:
        adjust = strategy.adjust_gradients

        def check(adjust: Any = adjust) -> None:
            nonlocal n_projected
            compared.clear()
            before = _gradient_of(learner)
            adjust()
            step = _gradient_of(learner)
            n_projected += not torch.equal(before, step)
            for batch in compared:
                memory = gradients(cross_entropy(batch))
                least = -1e-6 * float(step.norm() * memory.norm())
                assert float(step @ memory) >= least, "a step that opposes no remembered batch"

        strategy.adjust_gradients = check  # type: ignore[method-assign]
    case.learn(learner, range(N_TASKS))
    assert n_projected > 0, "some gradient that was projected"


def _gradient_of(learner: Learner) -> torch.Tensor:
    parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in learner.network.parameters()]
    return torch.cat([part.flatten() for part in parts]).double()


def its_pull_rests_at_the_anchor(case: Case) -> None:
    """A quadratic penalty is 0 where a task was consolidated and positive off it; no importance is negative."""
    learner = case.learned([0])
    for strategy in learner.strategies:
        if not isinstance(strategy.state, QuadraticState):
            continue
        parameters = dict(learner.network.named_parameters())
        assert penalty_value(strategy.state, parameters, 1.0) == 0.0, "no penalty at the anchor"
        assert all(bool((a >= 0).all()) for a in strategy.state.importance.values()), "no negative importance"
        with torch.no_grad():
            for parameter in parameters.values():
                parameter.add_(0.5)
        assert penalty_value(strategy.state, parameters, 1.0) > 0.0, "a penalty off the anchor"


def its_importance_is_that_of_single_examples(case: Case) -> None:
    """The importance after two tasks' worth of examples is the mean of the single examples' importances.

    It holds for means over examples of squared or absolute gradients, and for no statistic of a batch's gradient. The
    labels of a Fisher must be the data's (`fisher: empirical`) for it to be repeatable.
    """
    names = find_method(case.method).names
    settings: dict[str, Any] = {name: None for name in names if name.endswith("_samples")}
    if "fisher" in names:
        settings["fisher"] = "empirical"
    whole = case.with_(hyperparameters=settings).learned([0])
    task, strategy = case.task(0), whole.strategies[0]
    if not isinstance(strategy.state, QuadraticState):
        return
    expected = {name: torch.zeros_like(a) for name, a in strategy.state.importance.items()}
    for row in range(len(task)):
        single = TaskData(0, task.inputs[row : row + 1], task.labels[row : row + 1], 0)
        strategy.state = QuadraticState()
        strategy.end_task(single)
        for name, importance in strategy.state.importance.items():
            expected[name] += importance / len(task)
    found = case.with_(hyperparameters=settings).learned([0]).strategies[0].state.importance
    for name, importance in expected.items():
        torch.testing.assert_close(found[name], importance, rtol=1e-4, atol=1e-7)


def old_logits_never_change(case: Case) -> None:
    """Where a method says that it never forgets: logits of an old task are bit-identical after every later task.

    Also under weight decay and a kept optimizer, which move parameters whose gradient is 0.
    """
    for training in ({}, {"weight_decay": 0.1}, {"keep_optimizer": True, "optimizer": "adam"}):
        changed = case.with_(training=training)
        learner, measured = changed.learner(), []
        for index in range(N_TASKS):
            learner.learn(changed.task(index))
            measured.append(logits_of(learner, changed, [index])[0])
            assert equal(logits_of(learner, changed, range(index + 1)), measured), f"old logits after task {index}"


def the_protocol_accepts_it(case: Case) -> TrialResult:
    """A trial on real digits completes, with a full accuracy matrix, and can be repeated."""
    spec = parse_spec(
        {
            "scenarios": [f"split-digits/{case.kind}"],
            "methods": [case.method],
            "spaces": {case.method: dict(case.hyperparameters)},
            "model": {"hidden": [16]},
            "training": {"epochs": 1, "batch_size": 32},
            "seeds": {"search": 0, "confirm": 1} if not _is_searched(case) else {"search": 1, "confirm": 1},
        }
    )
    dataset = _digits()
    hyperparameters = find_method(case.method).hyperparameter_class(**case.hyperparameters).model_dump()
    trial = spec.trial(spec.cells[0], hyperparameters, 0, "confirm", dataset.fingerprint())
    data = dataset.phase("confirm", spec.validation_share)
    result, again = run_trial(trial, data), run_trial(trial, data)
    assert result.status == "completed", result.reason
    assert again.n_correct == result.n_correct, "the same accuracy matrix again"
    metrics = result.metrics()
    assert 0.0 <= metrics["average_accuracy"] <= 1.0, "an average accuracy"
    assert math.isfinite(result.costs["kept_bytes"]), "the bytes that it keeps"
    if _never_forgets(case):
        after = result.matrix.accuracy[1:]
        for task in range(after.shape[1]):
            assert (after[task:, task] == after[task, task]).all(), f"accuracy on task {task} as it was first measured"
    return result


def _is_searched(case: Case) -> bool:
    return bool(default_space(find_method(case.method)).keys() - case.hyperparameters.keys())


def _never_forgets(case: Case) -> bool:
    return any(part.never_forgets for part in find_method(case.method).parts.values())


def _digits() -> Dataset:
    return load_dataset("digits", Path())


def _indistinguishable(case: Case, straight: Learner, resumed: Learner) -> None:
    assert equal(through_a_file(resumed.state_dict()), through_a_file(straight.state_dict())), "the same state"
    tasks = range(N_TASKS)
    assert equal(logits_of(resumed, case, tasks), logits_of(straight, case, tasks)), "the same logits"
    for one, other in zip(straight.strategies, resumed.strategies, strict=True):
        assert one.kept_bytes() == other.kept_bytes(), "the same bytes kept"
        assert one.report() == other.report(), "the same report"
