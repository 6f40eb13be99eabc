"""Checks for one family of methods each: buffers, logits, projections, quadratic pulls, frozen answers, one pass.

Each raises AssertionError with what the method broke. `suite.CHECKS` says which methods a check is for.
"""

from __future__ import annotations

from typing import Any

import torch

from orchestrator.conformance.world import N_TASKS, Case, equal, logits_of, tensors_in
from strategies import Batch, Exclusive, Forward, Learner, TaskData, find_method
from strategies.parts.quadratic import QuadraticState, penalty_value


def its_buffer_stays_within_capacity(case: Case) -> None:
    """No part keeps more examples than its `buffer_size`, at any step."""
    capacity = 7
    names = find_method(case.method).names.items()
    sizes = {name: capacity for name, (_, own) in names if own == "buffer_size"}
    by_class = {name: None for name, (_, own) in names if own == "buffer_size_per_class"}
    small = case.with_(hyperparameters=sizes | by_class)
    learner = small.learner()
    bounded = [s for s in learner.strategies if "buffer_size" in type(s).hyperparameter_class.model_fields]
    most = [0] * len(bounded)

    def count() -> None:
        for index, strategy in enumerate(bounded):
            tensors = [t for t in tensors_in(strategy.state_dict()) if t.shape[1:] == small.input_shape]
            n_kept = sum(tensor.shape[0] for tensor in tensors)
            assert n_kept <= capacity, f"{strategy.name} keeps {n_kept} examples with buffer_size {capacity}"
            most[index] = max(most[index], n_kept)

    for index in range(N_TASKS):
        learner.learn(small.task(index), count)
        count()
    assert all(most), "a buffer stays empty"


def its_reservoir_counts_examples_once(case: Case) -> None:
    """A reservoir is offered each example of the stream once, however many epochs train on it."""
    learner = case.with_(training={"epochs": 3}).learned()
    n_stream = sum(len(case.task(index)) for index in range(N_TASKS))
    for strategy in learner.strategies:
        n_offered = getattr(strategy.state, "n_offered", n_stream)
        assert n_offered == n_stream, f"{strategy.name} was offered {n_offered} examples of a stream of {n_stream}"


def its_stored_logits_are_those_of_insertion(case: Case) -> None:
    """Logits that are stored with a remembered example are those of the last step that trained on it as new."""
    learner = case.learner()
    seen: dict[tuple[float, ...], torch.Tensor] = {}
    (strategy,) = (s for s in learner.strategies if hasattr(s.state, "logits"))
    after_step = strategy.after_step

    def note(batch: Batch, forward: Forward) -> None:
        if learner.in_last_pass:
            for row in range(batch.n_new):
                seen[tuple(batch.inputs[row].flatten().tolist())] = forward.logits[row].detach().clone()
        after_step(batch, forward)

    strategy.after_step = note  # type: ignore[method-assign]
    case.learn(learner, range(N_TASKS))
    state = strategy.state
    assert len(state.labels) > 0, "the buffer stays empty"
    for inputs, logits, task in zip(state.inputs, state.logits, state.task_ids.tolist(), strict=True):
        first = 0 if case.kind == "class" else case.layout.ranges[task][0]
        expected = seen[tuple(inputs.flatten().tolist())]
        found = logits[first : first + len(expected)]
        assert equal(found, expected), "stored logits are not those of the step that stored the example"


def its_steps_oppose_no_memory(case: Case) -> None:
    """No projected step raises the loss on the remembered batches that it was compared with.

    The tolerance is 1e-6 of the product of the two gradients' norms. Some step must have been projected.
    """
    learner = case.learner()
    learner.settings = learner.settings.model_copy(update={"momentum": 0.0})
    compared: list[Batch] = []
    cross_entropy, n_projected = learner.cross_entropy, 0

    def note(batch: Batch) -> torch.Tensor:
        compared.append(batch)
        return cross_entropy(batch)

    learner.cross_entropy = note  # type: ignore[method-assign]
    (strategy,) = (s for s in learner.strategies if s.owns is Exclusive.GRADIENT_DIRECTION)
    adjust = strategy.adjust_gradients

    def check() -> None:
        nonlocal n_projected
        compared.clear()
        before = _step_of(learner)
        adjust()
        step = _step_of(learner)
        n_projected += not torch.equal(before, step)
        for batch in compared:
            memory = _gradient_of(learner, cross_entropy(batch))
            least = -1e-6 * float(step.norm() * memory.norm())
            assert float(step @ memory) >= least, "a step raises the loss on a remembered batch"

    strategy.adjust_gradients = check  # type: ignore[method-assign]
    case.learn(learner, range(N_TASKS))
    assert n_projected > 0, "no gradient was projected"


def _step_of(learner: Learner) -> torch.Tensor:
    """Return the gradient that the optimizer will get, (P,) float64."""
    parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in learner.network.parameters()]
    return torch.cat([part.flatten() for part in parts]).double()


def _gradient_of(learner: Learner, loss: torch.Tensor) -> torch.Tensor:
    """Return the gradient of `loss`, (P,) float64."""
    parameters = list(learner.network.parameters())
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    parts = [torch.zeros_like(p) if g is None else g for g, p in zip(found, parameters, strict=True)]
    return torch.cat([part.flatten() for part in parts]).double()


def its_pull_rests_at_the_anchor(case: Case) -> None:
    """A quadratic penalty is 0 at the anchor and positive off it. No importance is negative."""
    learner = case.learned([0])
    parameters = dict(learner.network.named_parameters())
    states = [s.state for s in learner.strategies if isinstance(s.state, QuadraticState)]
    for state in states:
        assert penalty_value(state, parameters, 1.0) == 0.0, "the penalty at the anchor is not 0"
        assert all(bool((a >= 0).all()) for a in state.importance.values()), "an importance is negative"
    with torch.no_grad():
        for parameter in parameters.values():
            parameter.add_(0.5)
    for state in states:
        assert penalty_value(state, parameters, 1.0) > 0.0, "the penalty off the anchor is not positive"


def its_importance_is_that_of_single_examples(case: Case) -> None:
    """The importance of a task is the mean of the importances of its single examples.

    This holds for means over examples of squared or absolute gradients, and not for a statistic of a batch's gradient.
    A Fisher needs the data's labels (`fisher: empirical`) to be repeatable. Of a Kronecker product each factor is one.
    """
    names = find_method(case.method).names
    settings: dict[str, Any] = {name: None for name in names if name.endswith("_samples")}
    if "fisher" in names:
        settings["fisher"] = "empirical"
    learner, task = case.with_(hyperparameters=settings).learned([0]), case.task(0)
    for strategy in learner.strategies:
        if not isinstance(strategy.state, QuadraticState):
            continue
        whole = {name: importance.clone() for name, importance in strategy.state.means().items()}
        mean = {name: torch.zeros_like(importance) for name, importance in whole.items()}
        for row in range(len(task)):
            strategy.state = strategy.state_class()
            strategy.end_task(TaskData(0, task.inputs[row : row + 1], task.labels[row : row + 1], 0))
            for name, importance in strategy.state.means().items():
                mean[name] += importance / len(task)
        for name, importance in whole.items():
            torch.testing.assert_close(importance, mean[name], rtol=1e-4, atol=1e-7)


def old_logits_never_change(case: Case) -> None:
    """Logits of an old task are bit-identical after every later task.

    Also under weight decay and with a kept optimizer: both move parameters whose gradient is 0.
    """
    for training in ({}, {"weight_decay": 0.1}, {"keep_optimizer": True, "optimizer": "adam"}):
        changed = case.with_(training=training)
        learner, measured = changed.learner(), []
        for index in range(N_TASKS):
            learner.learn(changed.task(index))
            measured.append(logits_of(learner, changed, [index])[0])
            now = logits_of(learner, changed, range(index + 1))
            assert equal(now, measured), f"logits of an old task change in task {index}, training {training}"


# Methods that train no network. Their answers are functions of sums, so they are those of all data at once.

_RTOL = 1e-5
"""Of answers in float32; the weights behind them agree to 1e-6 (`tests/strategies/test_ridge.py`)."""


def its_network_is_left_alone(case: Case) -> None:
    """A method that trains no network ends with the untrained one."""
    learner = case.learned()
    untrained = learner.untrained(len(learner.network.heads)).to(learner.device).state_dict()
    assert equal(dict(learner.network.state_dict()), dict(untrained)), "the network is not the untrained one"
    assert learner.optimizer is None, "there is an optimizer"


def it_learns_tasks_as_if_at_once(case: Case) -> None:
    """After all tasks, the answers are those of a learner that gets all examples as one task."""
    tasks = [case.task(index) for index in range(N_TASKS)]
    inputs, labels = torch.cat([task.inputs for task in tasks]), torch.cat([task.labels for task in tasks])
    at_once = case.learner()
    at_once.learn(TaskData(N_TASKS - 1, inputs, labels, N_TASKS - 1))
    _assert_close(
        logits_of(at_once, case, range(N_TASKS)), case.outcome.logits, "all examples at once answer otherwise"
    )


def its_portions_do_not_matter(case: Case) -> None:
    """Examples taken in one at a time, or a whole task at once, give the same answers."""
    for size in (1, 1024):
        learner = case.learner()
        learner.rows_at_once = size
        found = logits_of(case.learn(learner, range(N_TASKS)), case, range(N_TASKS))
        _assert_close(found, case.outcome.logits, f"portions of {size} give other answers")


def an_old_task_is_answered_as_a_new_one(case: Case) -> None:
    """Whether a task was learned first or last changes no answer.

    So all that it loses later, it loses to the classes that compete, and nothing to its age.
    """
    order = [N_TASKS - 1, *range(N_TASKS - 1)]
    learner = case.learner()
    for place, index in enumerate(order):
        task, (own, _), (first, _) = case.task(index), case.layout.ranges[index], case.layout.ranges[place]
        learner.learn(TaskData(place, task.inputs, task.labels - own + first, place))
    learner.network.eval()
    for place, index in enumerate(order):
        logits = learner.logits(case.task(index).inputs, place)
        if case.kind == "class":
            width = case.layout.ranges[0][1]
            columns = [column for other in range(N_TASKS) for column in _columns(order.index(other), width)]
            logits = logits[:, columns]
        _assert_close(
            [logits], [case.outcome.logits[index]], f"task {index}, learned at {place}, is answered otherwise"
        )


def _columns(task: int, width: int) -> range:
    return range(task * width, (task + 1) * width)


def _assert_close(found: list[torch.Tensor], wanted: list[torch.Tensor], message: str) -> None:
    """Raise if logits differ by more than `_RTOL` of the largest of them."""
    scale = max(float(logits[logits.isfinite()].abs().max()) for logits in wanted)
    for one, other in zip(found, wanted, strict=True):
        assert torch.allclose(one, other, rtol=_RTOL, atol=_RTOL * scale), message
