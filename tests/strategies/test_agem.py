from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from tiny_worlds import KINDS, N_EXAMPLES, gradients_of, learn_tasks, make_learner, make_task, parameters_of, same
from torch import Tensor

from strategies import IncrementalType, Learner, MethodError, find_method
from strategies.methods.agem import Agem, projection_length
from strategies.parts.buffers import draw


def agem(kind: IncrementalType = "task", training: dict[str, Any] | None = None, **own: Any) -> Learner:
    return make_learner("agem", kind=kind, hyperparameters=own, **(training or {}))


def projected(gradient: list[float], reference: list[float]) -> list[float]:
    g, r = torch.tensor(gradient), torch.tensor(reference)
    return (g - projection_length([g], [r], [r]) * r).tolist()


@pytest.mark.parametrize(
    ("gradient", "reference", "expected"),
    [
        ([1.0, 0.0], [0.0, 1.0], [1.0, 0.0]),
        ([1.0, 2.0], [1.0, 1.0], [1.0, 2.0]),
        ([2.0, -1.0], [0.0, 1.0], [2.0, 0.0]),
        ([2.0, -1.0], [0.0, 5.0], [2.0, 0.0]),
        ([3.0, -1.0], [-1.0, 1.0], [1.0, 1.0]),  # product -4, square 2: g + 2r
        ([-1.0, -2.0], [1.0, 2.0], [0.0, 0.0]),
        ([1.0, -3.0], [0.0, 0.0], [1.0, -3.0]),
    ],
)
def test_equation_11_in_the_plane(gradient: list[float], reference: list[float], expected: list[float]) -> None:
    assert projected(gradient, reference) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("n", [3, 5_000, 300_000])
def test_no_projection_leaves_a_violation(seed: int, n: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    reference = torch.randn(n, generator=generator) * 10.0 ** (seed % 7 - 3)
    gradient = torch.randn(n, generator=generator) - (seed % 5) * 0.3 * reference / reference.norm() * math.sqrt(n)
    parts = [(gradient[: n // 2], reference[: n // 2]), (gradient[n // 2 :], reference[n // 2 :])]
    length = projection_length([g for g, _ in parts], [r for _, r in parts], [r for _, r in parts])
    after = gradient - length * reference
    product = (gradient.double() * reference.double()).sum() / (gradient.norm() * reference.norm())

    assert (length < 0) == (product < -1e-6) or abs(product) < 1e-6
    assert float((after.double() * reference.double()).sum() / (gradient.norm() * reference.norm())) > -1e-6


def step_on_the_third_task(
    learner: Learner, sign: float
) -> tuple[list[Tensor | None], dict[str, Tensor], list[Tensor]]:
    """Take a step whose loss is `sign` times that of the memory batch, on the parts that the new batch reaches.

    Returns:
        The gradients before and after `adjust_gradients`, and the reference.
    """
    learner.n_seen = 3
    learner.network.add_heads(3, learner.device, learner.generators.fresh)
    learner.reset_optimizer()
    method = learner.strategies[0]
    assert isinstance(method, Agem)
    generator = learner.generators["agem"]
    position = generator.get_state()
    batch = draw(method.state, method.hyperparameters.memory_batch_size, generator)
    generator.set_state(position)
    parameters = list(learner.network.parameters())
    loss = learner.cross_entropy(batch)
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    reference = [torch.zeros_like(p) if r is None else r for p, r in zip(parameters, found, strict=True)]
    new = torch.autograd.grad(learner.cross_entropy(make_task(2).take(torch.arange(8))), parameters, allow_unused=True)
    before = [None if g is None else 0.01 * g + sign * r for g, r in zip(new, reference, strict=True)]
    for parameter, gradient in zip(parameters, before, strict=True):
        parameter.grad = None if gradient is None else gradient.clone()
    method.adjust_gradients()
    return before, gradients_of(learner), reference


def test_a_gradient_that_opposes_nothing_is_untouched_bit_for_bit() -> None:
    learner = learn_tasks(agem(), [0, 1])
    before, after, _ = step_on_the_third_task(learner, sign=1.0)
    names = [name for name, _ in learner.network.named_parameters()]

    assert same(after, {name: g for name, g in zip(names, before, strict=True) if g is not None})


def test_a_gradient_that_opposes_the_memory_is_projected_in_old_heads_too() -> None:
    learner = learn_tasks(agem(), [0, 1])
    before, after, reference = step_on_the_third_task(learner, sign=-1.0)
    names = [name for name, _ in learner.network.named_parameters()]
    flat = torch.cat(
        [(torch.zeros_like(r) if g is None else g).flatten() for g, r in zip(before, reference, strict=True)]
    )
    r = torch.cat([part.flatten() for part in reference])
    expected = flat - (flat @ r) / (r @ r) * r
    found = torch.cat(
        [
            after[n].flatten() if n in after else torch.zeros_like(p).flatten()
            for n, p in zip(names, reference, strict=True)
        ]
    )

    assert float(flat @ r) < 0
    assert {"heads.0.weight", "heads.1.weight", "heads.2.weight"} <= after.keys()
    torch.testing.assert_close(found, expected)
    assert float(found.double() @ r.double()) > -1e-6 * float(flat.norm() * r.norm())


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_task_is_the_naive_run_and_later_ones_are_not(kind: IncrementalType) -> None:
    naive, learner = make_learner("naive", kind=kind), agem(kind)

    assert same(parameters_of(learn_tasks(learner, [0])), parameters_of(learn_tasks(naive, [0])))
    assert not same(parameters_of(learn_tasks(learner, [1, 2])), parameters_of(learn_tasks(naive, [1, 2])))


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "rmsprop"])
def test_each_example_is_offered_once_and_the_memory_is_never_over_capacity(optimizer: str) -> None:
    learner = agem("class", {"optimizer": optimizer, "learning_rate": 0.01}, buffer_size=25)
    for task, n_held in enumerate([20, 25, 25]):
        learn_tasks(learner, [task])
        assert len(learner.strategies[0].state) == n_held
    assert learner.strategies[0].state.n_offered == 3 * N_EXAMPLES


def test_two_projections_do_not_combine() -> None:
    with pytest.raises(MethodError, match="the direction of the gradient"):
        find_method("gem+agem")
    assert list(find_method("agem+replay").parts) == ["replay", "agem"]


def test_every_step_draws_anew() -> None:
    learner = learn_tasks(make_learner("agem"), [0])
    positions = []
    learner.learn(make_task(1), between_steps=lambda: positions.append(learner.generators["agem"].get_state()))

    assert len({tuple(position.tolist()) for position in positions}) == len(positions) == 6
