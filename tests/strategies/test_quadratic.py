from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from strategies.parts.quadratic import QuadraticPull, QuadraticState, merge_anchor, penalty_value


def consolidated(*pulls: tuple[list[float], list[float]]) -> QuadraticState:
    state = QuadraticState()
    for importance, anchor in pulls:
        merge_anchor(state, "w", torch.tensor(importance), torch.tensor(anchor))
    return state


def pulled(state: QuadraticState, theta: list[float], loss_gradient: list[float], weight: float, rate: float) -> Tensor:
    parameter = nn.Parameter(torch.tensor(theta))
    parameter.grad = torch.tensor(loss_gradient)
    QuadraticPull(state, {"w": parameter}, weight, rate).add_to_gradients()
    return parameter.grad


def at(*theta: float) -> dict[str, nn.Parameter]:
    return {"w": nn.Parameter(torch.tensor(theta))}


def test_the_penalty_is_zero_at_the_anchor_and_positive_off_it() -> None:
    state = consolidated(([2.0, 3.0], [1.0, -1.0]))

    assert penalty_value(state, at(1.0, -1.0), 5.0) == 0
    assert penalty_value(state, at(1.0, -1.001), 5.0) > 0
    assert penalty_value(state, at(0.999, -1.0), 5.0) > 0
    assert penalty_value(QuadraticState(), at(9.0, 9.0), 5.0) == 0


def test_the_penalty_equals_a_number_by_hand() -> None:
    state = consolidated(([2.0, 3.0], [1.0, 1.0]))

    assert penalty_value(state, at(2.0, -1.0), 5.0) == pytest.approx(0.5 * 5 * (2 * 1 + 3 * 4))


def test_the_gradient_equals_numbers_by_hand() -> None:
    state = consolidated(([2.0, 3.0], [1.0, 1.0]))

    assert pulled(state, [2.0, -1.0], [0.5, 0.5], weight=5.0, rate=0.01).tolist() == [10.5, -29.5]


def test_two_anchors_merge_into_the_numbers_by_hand() -> None:
    """1·(θ - 0)² + 3·(θ - 4)² = 4·(θ - 3)² + 12."""
    state = consolidated(([1.0], [0.0]), ([3.0], [4.0]))

    assert state.importance["w"].tolist() == [4.0]
    assert state.anchor["w"].tolist() == [3.0]
    assert state.offset == 12.0
    assert penalty_value(state, at(1.0), 2.0) == 1 + 27


def test_merged_anchors_equal_the_sum_over_separate_ones() -> None:
    generator = torch.Generator().manual_seed(0)
    fishers = [torch.rand(50, generator=generator) ** 4 for _ in range(4)]
    anchors = [torch.randn(50, generator=generator) for _ in range(4)]
    theta = nn.Parameter(torch.randn(50, generator=generator))
    state = QuadraticState()
    for fisher, anchor in zip(fishers, anchors, strict=True):
        merge_anchor(state, "w", fisher.clone(), anchor.clone())

    penalty = sum(3.5 * (f * (theta - a).square()).sum() for f, a in zip(fishers, anchors, strict=True))
    (gradient,) = torch.autograd.grad(penalty, theta)
    theta.grad = torch.zeros(50)
    QuadraticPull(state, {"w": theta}, 7.0, 1e-3).add_to_gradients()

    torch.testing.assert_close(theta.grad, gradient)
    assert penalty_value(state, {"w": theta}, 7.0) == pytest.approx(float(penalty.detach()), rel=1e-5)


def test_parameters_of_no_importance_take_the_latest_anchor_and_are_free() -> None:
    state = consolidated(([0.0, 1.0], [5.0, 5.0]), ([0.0, 1.0], [7.0, 7.0]))

    assert state.anchor["w"].tolist() == [7.0, 6.0]
    assert state.offset == 2.0
    assert pulled(state, [100.0, 6.0], [0.25, 0.25], weight=1.0, rate=0.1).tolist() == [0.25, 0.25]


def test_a_merge_does_not_change_the_tensors_it_was_given() -> None:
    first, second = torch.tensor([1.0]), torch.tensor([3.0])
    state = QuadraticState()
    merge_anchor(state, "w", first, torch.tensor([0.0]))
    merge_anchor(state, "w", second, torch.tensor([4.0]))

    assert (first.item(), second.item()) == (1.0, 3.0)


def test_where_a_step_is_stable_the_gradient_is_that_of_the_published_penalty() -> None:
    generator = torch.Generator().manual_seed(1)
    fisher, anchor = torch.rand(30, generator=generator), torch.randn(30, generator=generator)
    theta = nn.Parameter(torch.randn(30, generator=generator))
    weight, rate = 20.0, 0.05  # ηλF ≤ 1
    (expected,) = torch.autograd.grad(0.5 * weight * (fisher * (theta - anchor).square()).sum() + theta.sum(), theta)
    theta.grad = torch.ones(30)
    QuadraticPull(QuadraticState({"w": fisher}, {"w": anchor}), {"w": theta}, weight, rate).add_to_gradients()

    torch.testing.assert_close(theta.grad, expected)


def test_a_stiff_parameter_lands_on_its_anchor_up_to_the_damped_step_of_the_loss() -> None:
    """ηλF = 10 in the first place: the gradient (100·1 + 5) / 10; 0.5 in the second: 5·1 + 5, untouched."""
    state = consolidated(([100.0, 5.0], [1.0, 1.0]))

    assert pulled(state, [2.0, 2.0], [5.0, 5.0], weight=1.0, rate=0.1).tolist() == pytest.approx([10.5, 10.0])


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("stiffness", [3.0, 1e3, 1e10])
def test_beyond_two_the_pull_holds_where_a_plain_step_diverges(momentum: float, stiffness: float) -> None:
    rate = 0.1
    state = consolidated(([stiffness / rate], [1.0]))

    def distance(damped: bool) -> float:
        parameter = nn.Parameter(torch.tensor([2.0]))
        optimizer = torch.optim.SGD([parameter], lr=rate, momentum=momentum)
        known_rate = rate if damped else 1e-30
        pull = QuadraticPull(state, {"w": parameter}, 1.0, known_rate)
        for _ in range(200):
            parameter.grad = torch.tensor([1.0])
            pull.add_to_gradients()
            optimizer.step()
        return abs(parameter.item() - 1.0)

    assert distance(damped=True) < 0.05
    plain = distance(damped=False)
    stable_in_theory = stiffness < 2 * (1 + momentum)
    assert stable_in_theory or not plain < 1e6


def test_parameters_without_a_gradient_are_left_alone() -> None:
    state = consolidated(([2.0], [1.0]))
    parameter = nn.Parameter(torch.tensor([5.0]))
    QuadraticPull(state, {"w": parameter}, 1.0, 0.1).add_to_gradients()

    assert parameter.grad is None


def test_no_strength_is_no_pull() -> None:
    state = consolidated(([2.0], [1.0]))

    assert pulled(state, [5.0], [0.125], weight=0.0, rate=0.1).tolist() == [0.125]
