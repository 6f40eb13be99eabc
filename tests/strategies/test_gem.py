from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from tiny_worlds import KINDS, gradients_of, learn_tasks, make_learner, make_task, parameters_of, same
from torch import Tensor

from strategies import IncrementalType, Learner
from strategies.methods.gem import Gem, GemHyperparameters, GemState, inner_products, project
from strategies.parts import qp
from strategies.parts.qp import dual_weights


def gem(kind: IncrementalType = "task", training: dict[str, Any] | None = None, **own: Any) -> Learner:
    return make_learner("gem", kind=kind, hyperparameters=own, **(training or {}))


def projected(past: list[list[float]], gradient: list[float], margin: float = 0.0) -> list[float]:
    rows = torch.tensor([*past, gradient])
    project(rows, margin)
    assert rows[:-1].tolist() == past
    return [float(value) for value in rows[-1]]


@pytest.mark.parametrize(
    ("past", "gradient", "margin", "expected"),
    [
        ([[0.0, 1.0]], [2.0, -1.0], 0.0, [2.0, 0.0]),
        ([[0.0, 4.0]], [2.0, -1.0], 0.0, [2.0, 0.0]),
        ([[-1.0, 1.0]], [3.0, -1.0], 0.0, [1.0, 1.0]),
        # v must be 1 to satisfy the constraint, so a margin of 0.5 changes nothing and one of 3 leads further.
        ([[0.0, 1.0]], [2.0, -1.0], 0.5, [2.0, 0.0]),
        ([[0.0, 1.0]], [2.0, -1.0], 3.0, [2.0, 2.0]),
        # Both violated: only 0 lies in the cone's corner nearest to g.
        ([[1.0, 0.0], [0.0, 1.0]], [-1.0, -2.0], 0.0, [0.0, 0.0]),
        # One violated, one not; with a margin the other one takes part too.
        ([[1.0, 0.0], [0.0, 1.0]], [-1.0, 2.0], 0.0, [0.0, 2.0]),
        ([[1.0, 0.0], [0.0, 1.0]], [-1.0, 2.0], 0.5, [0.0, 2.5]),
        # Repairing the first alone, (0, -1) + (-1, 1)·½, would violate the second, (1, 1), not: products 1 and 0.
        ([[-1.0, 1.0], [1.0, 1.0]], [0.0, -1.0], 0.0, [0.0, 0.0]),
        ([[0.0, 0.0], [0.0, 1.0]], [2.0, -1.0], 0.5, [2.0, 0.0]),
        # Parallel and opposite past gradients: the matrix of the dual is singular.
        ([[0.0, 1.0], [0.0, 2.0]], [2.0, -1.0], 0.0, [2.0, 0.0]),
        ([[0.0, 1.0], [0.0, -1.0]], [2.0, -1.0], 0.0, [2.0, 0.0]),
    ],
)
def test_projections_in_the_plane(
    past: list[list[float]], gradient: list[float], margin: float, expected: list[float]
) -> None:
    assert projected(past, gradient, margin) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("past", "gradient"),
    [([[1.0, 0.0], [0.0, 1.0]], [0.1, 0.0]), ([[1.0, 1.0]], [0.7, 0.3]), ([[0.0, 0.0]], [1.0, 2.0])],
)
def test_where_nothing_is_violated_the_gradient_is_untouched(past: list[list[float]], gradient: list[float]) -> None:
    rows = torch.tensor([*past, gradient])
    before = rows.clone()

    assert not project(rows, 0.5)
    assert torch.equal(rows, before)


def random_rows(seed: int, k: int, n: int) -> Tensor:
    """Return k past gradients, correlated and of unlike sizes, and one that opposes their mean."""
    generator = torch.Generator().manual_seed(seed)
    shared = torch.randn(n, generator=generator)
    past = torch.randn(k, n, generator=generator) + (seed % 3) * shared
    past *= 10.0 ** torch.empty(k, 1).uniform_(-2, 2, generator=generator)
    directions = past / past.norm(dim=1, keepdim=True)
    gradient = torch.randn(n, generator=generator) / n**0.5 - (seed % 4) * directions.mean(0)
    return torch.cat([past, gradient[None]])


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize(("k", "n"), [(1, 5), (3, 5), (4, 2_000), (9, 100), (19, 3_000), (4, 270_000)])
@pytest.mark.parametrize("margin", [0.0, 0.5])
def test_no_constraint_is_violated_after_a_projection(seed: int, k: int, n: int, margin: float) -> None:
    rows = random_rows(seed, k, n)
    before = rows.clone()
    changed = project(rows, margin)
    violated = before[:-1].double() @ before[-1].double() < 0
    products = rows[:-1].double() @ rows[-1].double()
    largest = torch.maximum(before[-1].double().norm(), rows[-1].double().norm())

    assert changed == bool(violated.any())
    assert bool((products >= -1e-6 * rows[:-1].double().norm(dim=1) * largest).all())


def best_by_enumeration(gram: Any, linear: Any, margin: float) -> float:
    """Return the least value of the dual: of the unconstrained optimum on every face, the best that is feasible."""
    k, best = len(linear), np.inf
    for size in range(k + 1):
        for free in map(list, combinations(range(k), size)):
            v = np.full(k, margin)
            rest = [i for i in range(k) if i not in free]
            if free:
                rhs = -linear[free] - gram[np.ix_(free, rest)] @ v[rest]
                v[free] = np.linalg.solve(gram[np.ix_(free, free)], rhs)
            if (v >= margin - 1e-9).all():
                best = min(best, float(0.5 * v @ gram @ v + linear @ v))
    return best


@pytest.mark.parametrize("seed", range(30))
def test_the_dual_is_solved_exactly(seed: int) -> None:
    random = np.random.default_rng(seed)
    k, margin = 1 + seed % 5, (0.0, 0.5)[seed % 2]
    rows = random.normal(size=(k, 6)) * 10.0 ** random.uniform(-2, 2, size=(k, 1))
    gram, linear = rows @ rows.T, rows @ random.normal(size=6)
    v = dual_weights(gram, linear, margin)
    assert v is not None

    assert v.min() >= margin
    assert 0.5 * v @ gram @ v + linear @ v == pytest.approx(best_by_enumeration(gram, linear, margin), abs=1e-8)


def test_inner_products_are_exact_for_many_parameters_and_for_few() -> None:
    for n in (3, 1024, 5000, 270_000):
        rows = random_rows(1, 4, n)
        expected = (rows.double() @ rows.double().T).numpy()
        norms = np.sqrt(np.diag(expected))
        assert abs((inner_products(rows) - expected) / np.outer(norms, norms)).max() < 5e-7


def test_where_no_solver_succeeds_the_step_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*arguments: object) -> None:
        raise RuntimeError("Maximum number of iterations reached.")

    monkeypatch.setattr(qp, "nnls", fails)
    assert projected([[0.0, 1.0]], [2.0, -1.0]) == [0.0, 0.0]


def test_gradients_that_are_no_longer_finite_are_left_to_the_learner() -> None:
    rows = torch.tensor([[0.0, torch.inf], [2.0, -1.0]])

    assert not project(rows, 0.5)
    assert rows[-1].tolist() == [2.0, -1.0]


def ready(kind: IncrementalType, **own: Any) -> tuple[Learner, Gem]:
    """Return a learner about to take a step on task 2, after two tasks."""
    learner = learn_tasks(gem(kind, **own), [0, 1])
    learner.n_seen = 3
    learner.network.add_heads(1 if kind == "domain" else 3, learner.device, learner.generators.fresh)
    learner.reset_optimizer()
    method = learner.strategies[0]
    assert isinstance(method, Gem)
    method.prepare(make_task(2, kind))
    return learner, method


def flat(gradients: list[Tensor | None], learner: Learner) -> Tensor:
    pairs = zip(gradients, learner.network.parameters(), strict=True)
    return torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for g, p in pairs])


@pytest.mark.parametrize(
    ("kind", "sign"), [("task", -1.0), ("domain", -1.0), ("domain", 1.0), ("class", -1.0), ("class", 1.0)]
)
def test_a_step_is_projected_on_what_each_memory_allows(kind: IncrementalType, sign: float) -> None:
    learner, method = ready(kind, memory_batch_size=None, margin=0.0)
    parameters = list(learner.network.parameters())
    past = []
    for task in range(2):
        loss = learner.cross_entropy(method._memory(task))
        past.append(torch.autograd.grad(loss, parameters, allow_unused=True))
    new = torch.autograd.grad(
        learner.cross_entropy(make_task(2, kind).take(torch.arange(8))), parameters, allow_unused=True
    )
    for parameter, g, one, other in zip(parameters, new, *past, strict=True):
        total = sum((r for r in (one, other) if r is not None), torch.zeros_like(parameter))
        parameter.grad = None if g is None else 0.01 * g + sign * total
    rows = torch.stack([flat(list(g), learner) for g in (*past, [p.grad for p in parameters])])
    before = gradients_of(learner)
    expected = rows.clone()
    assert project(expected, 0.0) == (sign < 0)

    method.adjust_gradients()

    torch.testing.assert_close(flat([p.grad for p in parameters], learner), expected[-1])
    if sign > 0:
        assert same(gradients_of(learner), before)
    elif kind == "task":
        assert {"heads.0.weight", "heads.1.weight"} <= gradients_of(learner).keys() - before.keys()


def test_a_head_without_a_gradient_counts_as_zero_after_a_projection_too() -> None:
    learner, method = ready("task", memory_batch_size=None)
    new = make_task(2).take(torch.arange(8))
    names = {name: p for name, p in learner.network.named_parameters() if not name.startswith("heads.2")}
    found_at: list[dict[str, Tensor]] = []
    for _ in range(2):
        past = learner.cross_entropy(method._memory(0)) + learner.cross_entropy(method._memory(1))
        found = torch.autograd.grad(learner.cross_entropy(new) - 2 * past, list(names.values()), allow_unused=True)
        for (name, parameter), gradient in zip(names.items(), found, strict=True):
            parameter.grad = None if name.startswith("heads") else gradient
        method.adjust_gradients()
        found_at.append(gradients_of(learner))

    assert "heads.0.weight" in found_at[0]
    assert same(found_at[0], found_at[1])


def test_each_past_task_keeps_an_equal_share_of_its_own_examples() -> None:
    learner = learn_tasks(gem("class", buffer_size=20), range(3))
    state: GemState = learner.strategies[0].state

    assert state.tasks == [0, 1, 2]
    assert [len(labels) for labels in state.labels] == [7, 7, 6]
    for task, (inputs, labels) in enumerate(zip(state.inputs, state.labels, strict=True)):
        own = make_task(task, "class")
        where = {tuple(x): int(y) for x, y in zip(own.inputs.tolist(), own.labels, strict=True)}
        found = {tuple(x): int(y) for x, y in zip(inputs.tolist(), labels, strict=True)}
        assert len(found) == len(labels)
        assert found.items() <= where.items()
    assert learner.strategies[0].kept_bytes() == 20 * (4 * 4 + 8)


def test_a_memory_too_small_for_every_task_serves_the_first() -> None:
    state: GemState = learn_tasks(gem(buffer_size=2), range(3)).strategies[0].state

    assert state.tasks == [0, 1]


def test_a_step_draws_anew_from_each_memory_without_repeats() -> None:
    _, method = ready("task", buffer_size=30, memory_batch_size=4)
    draws = [method._memory(1).inputs for _ in range(5)]

    assert all(len({tuple(x) for x in inputs.tolist()}) == 4 for inputs in draws)
    assert not all(torch.equal(draws[0], inputs) for inputs in draws)
    method.hyperparameters = GemHyperparameters(memory_batch_size=None)
    assert len(method._memory(1).labels) == 10


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_task_is_the_naive_run_and_later_ones_are_not(kind: IncrementalType) -> None:
    naive, learner = make_learner("naive", kind=kind), gem(kind)

    assert same(parameters_of(learn_tasks(learner, [0])), parameters_of(learn_tasks(naive, [0])))
    assert not same(parameters_of(learn_tasks(learner, [1, 2])), parameters_of(learn_tasks(naive, [1, 2])))


@pytest.mark.parametrize(("field", "value"), [("buffer_size", 0), ("margin", -0.1), ("memory_batch_size", 0)])
def test_hyperparameters_outside_of_their_range_are_refused(field: str, value: Any) -> None:
    with pytest.raises(ValidationError, match=field):
        GemHyperparameters(**{field: value})


def test_a_part_that_trains_on_after_the_task_finds_room_for_the_new_memory() -> None:
    learner = learn_tasks(make_learner("gem", hyperparameters={"buffer_size": 30}), range(2))

    learner.fit(make_task(1), epochs=1)

    assert learner.strategies[0].state.tasks == [0, 1]
