from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from tiny_worlds import (
    KINDS,
    N_BACKBONE_BIASES,
    N_BACKBONE_WEIGHTS,
    N_EXAMPLES,
    N_HEAD,
    gradients_of,
    learn_tasks,
    make_learner,
    make_task,
    parameters_of,
    same,
)
from torch import Tensor
from torch.nn import functional as F

from strategies import STRATEGIES, IncrementalType, Learner, TrialDivergedError
from strategies.methods import ewc as ewc_module
from strategies.methods.ewc import Ewc, EwcHyperparameters
from strategies.parts import quadratic as quadratic_module
from strategies.parts.quadratic import QuadraticState, penalty_value


def ewc(
    kind: IncrementalType = "task", n_tasks: int = 3, training: dict[str, Any] | None = None, **own: Any
) -> Learner:
    return make_learner("ewc", kind=kind, n_tasks=n_tasks, hyperparameters=own, **(training or {}))


def state_of(learner: Learner) -> QuadraticState:
    state: QuadraticState = learner.strategies[0].state
    return state


def with_fishers(monkeypatch: pytest.MonkeyPatch, *fishers: dict[str, float]) -> None:
    """Make the n-th measured Fisher constant: parameter name -> the value of all of its entries."""
    left = list(fishers)

    def measured(self: Ewc, task: object) -> dict[str, Tensor]:
        parameters = dict(self.learner.network.named_parameters())
        return {name: torch.full_like(parameters[name], value) for name, value in left.pop(0).items()}

    monkeypatch.setattr(Ewc, "_fisher", measured)


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_task_is_the_naive_run_and_the_second_is_not(kind: IncrementalType) -> None:
    naive, learner = make_learner("naive", kind=kind), ewc(kind, penalty_weight=10)

    assert same(parameters_of(learn_tasks(learner, [0])), parameters_of(learn_tasks(naive, [0])))
    assert not same(parameters_of(learn_tasks(learner, [1])), parameters_of(learn_tasks(naive, [1])))


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_follows_the_gradient_of_loss_plus_penalty(kind: IncrementalType) -> None:
    learner = learn_tasks(ewc(kind, penalty_weight=3.0, training={"learning_rate": 0.01}), [0, 1])
    state, theta = state_of(learner), dict(learner.network.named_parameters())
    with torch.no_grad():
        for parameter in theta.values():
            parameter.add_(0.3)
    task = make_task(1, kind)
    logits, first = learner.network.training_logits(task.inputs, 1, 2, "seen")
    loss = F.cross_entropy(logits, task.labels - first)
    penalty = sum(1.5 * (f * (theta[n] - state.anchor[n]).square()).sum() for n, f in state.importance.items())
    used = {n: p for n, p in theta.items() if not (kind == "task" and "heads.0" in n)}
    expected = torch.autograd.grad(loss + penalty, list(used.values()))

    learner.strategies[0].prepare(task)
    learner.step(task.take(torch.arange(N_EXAMPLES)))

    found = gradients_of(learner)
    assert found.keys() == used.keys()
    for name, gradient in zip(used, expected, strict=True):
        torch.testing.assert_close(found[name], gradient)


def test_the_penalty_is_zero_right_after_a_task_and_positive_after_the_next() -> None:
    learner = learn_tasks(ewc(penalty_weight=1.0), [0])
    parameters = dict(learner.network.named_parameters())
    assert penalty_value(state_of(learner), parameters, 1.0) == 0

    state = QuadraticState(dict(state_of(learner).importance), dict(state_of(learner).anchor))
    learn_tasks(learner, [1])
    assert penalty_value(state, parameters, 1.0) > 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("variant", ["separate", "online"])
def test_a_huge_strength_holds_where_a_plain_step_diverges(
    kind: IncrementalType, variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run() -> float:
        learner = learn_tasks(ewc(kind, penalty_weight=1e10, variant=variant, fisher="empirical"), [0])
        first = parameters_of(learner)
        importance = {name: values.clone() for name, values in state_of(learner).importance.items()}
        last = parameters_of(learn_tasks(learner, [1, 2]))
        return max(float(((last[n] - first[n]).abs() * (f > 1e-4)).max()) for n, f in importance.items())

    assert run() < 1e-3

    plain = quadratic_module.QuadraticPull
    monkeypatch.setattr(quadratic_module, "QuadraticPull", lambda s, p, weight, rate: plain(s, p, weight, 1e-30))
    with pytest.raises(TrialDivergedError):
        run()


def test_more_strength_is_less_drift() -> None:
    def drift(weight: float) -> float:
        learner = learn_tasks(ewc(penalty_weight=weight), [0])
        before = parameters_of(learner)
        after = parameters_of(learn_tasks(learner, [1, 2]))
        fisher = state_of(learn_tasks(ewc(penalty_weight=weight), [0])).importance
        return sum(float((f * (after[n] - before[n]).square()).sum()) for n, f in fisher.items())

    assert drift(0.0) > 2 * drift(30.0) > 4 * drift(1e4)


def test_separate_fishers_are_summed_about_their_weighted_anchor(monkeypatch: pytest.MonkeyPatch) -> None:
    with_fishers(monkeypatch, {"backbone.0.weight": 1.0}, {"backbone.0.weight": 3.0})
    learner = learn_tasks(ewc(penalty_weight=0), [0])
    first = parameters_of(learner)["backbone.0.weight"]
    second = parameters_of(learn_tasks(learner, [1]))["backbone.0.weight"]
    state = state_of(learner)

    assert bool((state.importance["backbone.0.weight"] == 4).all())
    torch.testing.assert_close(state.anchor["backbone.0.weight"], 0.25 * first + 0.75 * second)
    assert state.offset == pytest.approx(0.75 * float((second - first).square().sum()), rel=1e-4)
    assert state.n_consolidated == 2


def test_online_fisher_decays_and_its_anchor_is_the_latest(monkeypatch: pytest.MonkeyPatch) -> None:
    shared = "backbone.0.weight"
    with_fishers(
        monkeypatch,
        {shared: 8.0, "heads.0.weight": 4.0},
        {shared: 1.0, "heads.1.weight": 6.0},
        {shared: 1.0, "heads.2.weight": 5.0},
    )
    learner = learn_tasks(ewc(penalty_weight=0, variant="online", fisher_decay=0.5), range(3))
    state, latest = state_of(learner), parameters_of(learner)

    assert {name: values.flatten()[0].item() for name, values in state.importance.items()} == {
        shared: 0.5 * (0.5 * 8 + 1) + 1,
        "heads.0.weight": 0.25 * 4,
        "heads.1.weight": 0.5 * 6,
        "heads.2.weight": 5.0,
    }
    assert same(state.anchor, {name: latest[name] for name in state.importance})
    assert state.offset == 0


def test_a_strength_that_decays_does_so_after_each_task_but_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = []
    plain = quadratic_module.QuadraticPull

    def noting(state: Any, parameters: Any, weight: float, rate: float) -> Any:
        weights.append((weight, rate))
        return plain(state, parameters, weight, rate)

    monkeypatch.setattr(quadratic_module, "QuadraticPull", noting)
    learn_tasks(ewc(n_tasks=4, penalty_weight=16.0, penalty_decay=0.5), range(4))

    assert weights == [(16.0, 0.1), (16.0, 0.1), (8.0, 0.1), (4.0, 0.1)]


def test_in_class_a_growing_head_keeps_the_importance_of_old_rows() -> None:
    learner = learn_tasks(ewc("class", penalty_weight=1.0), [0])
    before = {name: values.clone() for name, values in state_of(learner).importance.items()}
    learn_tasks(learner, [1])
    after = state_of(learner).importance

    assert after.keys() - before.keys() == {"heads.1.weight", "heads.1.bias"}
    assert float(before["heads.0.weight"].sum()) > 0
    for name, values in before.items():
        assert after[name].shape == values.shape
        assert bool((after[name] >= values).all())


def test_in_task_a_head_is_important_to_its_own_task_only() -> None:
    learner = learn_tasks(ewc(penalty_weight=1.0), [0])
    head = state_of(learner).importance["heads.0.weight"].clone()
    learn_tasks(learner, [1, 2])

    assert torch.equal(state_of(learner).importance["heads.0.weight"], head)


@pytest.mark.parametrize(("samples", "used"), [(7, 7), (20, 20), (500, 20), (None, 20)])
def test_the_fisher_takes_distinct_examples_of_the_task_in_evaluation_mode(
    samples: int | None, used: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Tensor] = []
    measure = ewc_module.fisher_diagonal

    def noting(network: Any, batches: Any, *rest: Any) -> dict[str, Tensor]:
        assert not network.training
        seen.extend(batch.inputs for batch in batches)
        return measure(network, batches, *rest)

    monkeypatch.setattr(ewc_module, "fisher_diagonal", noting)
    learn_tasks(ewc(fisher_samples=samples), [0])
    rows = set(map(tuple, torch.cat(seen).tolist()))

    assert sum(map(len, seen)) == len(rows) == used
    assert rows <= set(map(tuple, make_task(0).inputs.tolist()))


@pytest.mark.parametrize("fisher", ["true", "empirical", "predicted"])
def test_the_kind_of_fisher_is_the_one_asked_for(fisher: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = []
    measure = ewc_module.fisher_diagonal
    monkeypatch.setattr(ewc_module, "fisher_diagonal", lambda *args: kinds.append(args[3]) or measure(*args))
    learn_tasks(ewc(fisher=fisher), [0])

    assert kinds == [fisher]


@pytest.mark.parametrize("variant", ["separate", "online"])
def test_kept_bytes_are_two_numbers_a_parameter_whatever_the_number_of_tasks(variant: str) -> None:
    learner = ewc(variant=variant)
    assert learner.strategies[0].kept_bytes() == 0
    for task in range(3):
        learn_tasks(learner, [task])
        n_parameters = N_BACKBONE_WEIGHTS + N_BACKBONE_BIASES + (task + 1) * N_HEAD
        assert learner.strategies[0].kept_bytes() == 2 * 4 * n_parameters


def test_in_class_it_is_known_to_do_badly_and_nowhere_refused() -> None:
    assert STRATEGIES["ewc"].notes.keys() == {"class"}
    assert STRATEGIES["ewc"].unsupported == {}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("penalty_weight", -1.0),
        ("penalty_weight", float("inf")),
        ("penalty_decay", 0.0),
        ("penalty_decay", 1.5),
        ("fisher_decay", 1.5),
        ("fisher_samples", 0),
        ("fisher", "none"),
        ("lambda", 1.0),
    ],
)
def test_hyperparameters_outside_of_their_range_are_refused(field: str, value: Any) -> None:
    with pytest.raises(ValidationError, match=field):
        EwcHyperparameters(**{field: value})


def test_what_has_no_effect() -> None:
    assert EwcHyperparameters().unused() == {"fisher_decay", "rank", "eigenvectors_in"}
    assert EwcHyperparameters(variant="online").unused() == {"rank", "eigenvectors_in"}
    assert EwcHyperparameters(penalty_weight=0).unused() == EwcHyperparameters.model_fields.keys() - {"penalty_weight"}


def test_the_examples_are_drawn_and_not_the_first_ones() -> None:
    learner = learn_tasks(make_learner("ewc", hyperparameters={"fisher": "empirical"}), [0])

    assert not torch.equal(learner.generators["fisher"].get_state(), learner.generators.fresh("fisher").get_state())


@pytest.mark.parametrize("method", ["ewc", "mas"])
def test_importance_of_batches_is_another_and_is_said(method: str) -> None:
    apart = learn_tasks(make_learner(method), [0]).strategies[0]
    together = learn_tasks(make_learner(method, hyperparameters={"importance_of": "batches"}), [0]).strategies[0]

    assert apart.report() == {}
    assert together.report() == {"importance": "of gradients of batches, not of examples"}
    own, other = apart.state.importance, together.state.importance
    assert own.keys() == other.keys()
    assert sum(float(v.sum()) for v in other.values()) < sum(float(v.sum()) for v in own.values())


@pytest.mark.parametrize("beside", [{"fisher": "exact"}, {"structure": "low_rank"}])
def test_importance_of_batches_is_refused_where_single_examples_are_meant(beside: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="importance_of: batches has no"):
        make_learner("ewc", hyperparameters={"importance_of": "batches", **beside})
