"""Continual backpropagation by hand: utilities, who is replaced and when, and what stays behind."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_worlds import make_learner, parameters_of, same
from torch import Tensor, nn

from orchestrator.conformance import Case
from orchestrator.models.settings import ModelSettings
from strategies import STRATEGIES, Batch, Generators, IncrementalType, Learner, Network, OutputLayout, TrainingSettings
from strategies.methods.cbp import CbpHyperparameters

STANDS_STILL = {"learning_rate": 1e-12, "momentum": 0.0}
FIRST = torch.tensor([[1.0, 2.0, 0.0, 9.0], [3.0, 2.0, 4.0, 9.0]])
SECOND = torch.tensor([[5.0, 0.0, 0.0, 9.0], [3.0, 0.0, 8.0, 9.0]])


def hand_made(*others: str, kind: IncrementalType = "domain", n_heads: int = 1, **own: Any) -> Learner:
    """Return a learner whose three first units answer with the first three inputs, and whose weights do not move.

    The second layer has weights that sum to 2, 2 and 1 in size by unit, and every head 1 and 1.
    """
    training = STANDS_STILL | own.pop("training", {})
    learner = make_learner(*others, "cbp", kind=kind, widths=(3, 2), hyperparameters=own, **training)
    learner.network.add_heads(n_heads, learner.device, learner.generators.fresh)
    learner.n_seen = n_heads
    first, second = learner.network.backbone[0], learner.network.backbone[2]
    with torch.no_grad():
        first.weight.copy_(torch.eye(3, 4))
        first.bias.zero_()
        second.weight.copy_(torch.tensor([[1.0, -1.0, 0.5], [1.0, 1.0, 0.5]]))
        second.bias.fill_(1.0)
        for head in learner.network.heads:
            head.weight.copy_(torch.tensor([[0.5, -0.5], [0.5, 0.5]]))
            head.bias.zero_()
    for strategy in learner.strategies:
        strategy.begin_task(None)  # type: ignore[arg-type]
    learner.reset_optimizer()
    return learner


def step(learner: Learner, inputs: Tensor) -> None:
    learner.step(Batch(inputs, torch.tensor([0, 1]), 0, torch.arange(2)))


def utilities(learner: Learner) -> Tensor:
    """Return û of the units of the first layer, (3,)."""
    own, state = learner.strategies[-1].hyperparameters, learner.strategies[-1].state
    return (state.utilities / (1 - own.utility_decay**state.ages))[:3]  # type: ignore[no-any-return]


def test_utilities_by_hand() -> None:
    """h = (1, 3), (2, 2), (0, 4), then (5, 3), (0, 0), (0, 8); η = 1/2; Σ|w| = 2, 2, 1.

    Step 1: f̂ = 2, 2, 2; E|h - f̂| = 1, 0, 2. Step 2: f = (f + E[h]) / 2 = 5/2, 1/2, 5/2 with E[h] = 4, 0, 4 and f of
    before = 1, 1, 1; f̂ = f / (3/4); E|h - f̂| = 1, 2/3, 4; u = (u + new) / 2 with u of before = 1, 0, 1.
    """
    learner = hand_made(replacement_rate=1e-9, utility_decay=0.5)
    step(learner, FIRST)
    torch.testing.assert_close(utilities(learner), torch.tensor([2.0, 0.0, 2.0]))
    step(learner, SECOND)
    torch.testing.assert_close(learner.strategies[0].state.means[:3], torch.tensor([5 / 2, 1 / 2, 5 / 2]))
    torch.testing.assert_close(utilities(learner), torch.tensor([3 / 2, 2 / 3, 5 / 2]) / 0.75)


def test_contribution_counts_sizes_and_leaves_nothing_behind() -> None:
    """E|h| = 2, 2, 2 times Σ|w| = 2, 2, 1."""
    learner = hand_made(replacement_rate=0.375, maturity=0, utility_decay=0.5, utility="contribution")
    before = parameters_of(learner)
    strategy = learner.strategies[0]
    strategy.hyperparameters = strategy.hyperparameters.model_copy(update={"replacement_rate": 1e-9})
    step(learner, FIRST)
    torch.testing.assert_close(utilities(learner), torch.tensor([4.0, 4.0, 2.0]))
    strategy.hyperparameters = strategy.hyperparameters.model_copy(update={"replacement_rate": 0.375})
    step(learner, FIRST)
    after = parameters_of(learner)
    assert (after["backbone.2.weight"] == 0).all(0).tolist() == [False, False, True]
    assert same(after["backbone.2.bias"], before["backbone.2.bias"])


def test_the_least_useful_begins_again() -> None:
    """In step 2, 0.375 x 3 units are due in the first layer: one, the second, with f̂ = 2/3, w = -1 and 1."""
    learner = hand_made(replacement_rate=0.375, maturity=1, utility_decay=0.5, training={"optimizer": "adam"})
    step(learner, FIRST)
    before, optimizer = parameters_of(learner), learner.optimizer
    assert optimizer is not None
    assert (before["backbone.2.weight"] != 0).all()  # nobody is mature yet
    step(learner, SECOND)
    after, state = parameters_of(learner), learner.strategies[0].state
    drawn = (after["backbone.0.weight"] - before["backbone.0.weight"]).abs() > 1e-6
    assert drawn.any(1).tolist() == [False, True, False]
    assert float(after["backbone.0.weight"][1].abs().max()) <= 0.5  # 1 / sqrt(4 inputs)
    assert (after["backbone.0.bias"].abs() > 1e-6).tolist() == [False, True, False]
    torch.testing.assert_close(after["backbone.2.weight"], torch.tensor([[1.0, 0.0, 0.5], [1.0, 0.0, 0.5]]))
    torch.testing.assert_close(after["backbone.2.bias"], torch.tensor([1 - 2 / 3, 1 + 2 / 3]))
    assert state.ages.tolist() == [2, 0, 2, 2, 2]
    assert state.utilities[:3].bool().tolist() == state.means[:3].bool().tolist() == [True, False, True]
    first, second = (optimizer.state[learner.network.backbone[index].weight]["exp_avg_sq"] for index in (0, 2))
    assert not first[1].any()
    assert not second[:, 1].any()
    assert first[[0, 2]].any(1).all()
    assert second[:, [0, 2]].any(0).all()


def test_fractions_add_up_by_layer() -> None:
    """0.375 of 3, then of 2 (one is young), then of 3 mature units; in the second layer of 2, of 2 and of 1.

    What was replaced in step 2 is the least useful again in step 4, with hardly any weights out.
    """
    learner = hand_made(replacement_rate=0.375, maturity=1)
    due, ages = [], []
    for _ in range(4):
        step(learner, FIRST)
        state = learner.strategies[0].state
        due.append(list(state.n_due))
        ages.append(sorted(state.ages[:3].tolist()) + sorted(state.ages[3:].tolist()))
    assert due == [[0.0, 0.0], [0.125, 0.75], [0.875, 0.5], [0.0, 0.875]]
    assert ages == [[1, 1, 1, 1, 1], [0, 2, 2, 2, 2], [1, 3, 3, 0, 3], [0, 0, 4, 1, 4]]


def test_the_last_layer_leaves_its_mean_in_every_head() -> None:
    learner = hand_made(kind="task", n_heads=2, replacement_rate=0.5, maturity=0, utility_decay=0.0)
    step(learner, FIRST)
    [gone] = (learner.network.heads[0].weight == 0).all(0).nonzero().flatten().tolist()
    # Outputs of the second layer before the step: 1 + 1 - 2 + 0 and 1 + 3 - 2 + 2; 1 + 1 + 2 + 0 and 1 + 3 + 2 + 2.
    mean = (2.0, 6.0)[gone]
    sign = (1.0, -1.0)[gone]
    for head in learner.network.heads:
        torch.testing.assert_close(head.bias.detach(), torch.tensor([0.5 * sign * mean, 0.5 * mean]))


def test_it_reads_the_pass_of_the_step_alone() -> None:
    """Beside der, which passes remembered examples through the network too; with η = 0, f is the mean of the batch."""
    learner = hand_made("der", replacement_rate=1e-9, utility_decay=0.0)
    learner.in_last_pass = True
    for inputs in (FIRST, SECOND):
        step(learner, inputs)
    torch.testing.assert_close(learner.strategies[1].state.means[:3], torch.tensor([4.0, 0.0, 4.0]))


def test_frozen_layers_keep_their_units() -> None:
    learner = hand_made(replacement_rate=1.0, maturity=0)
    learner.network.backbone[0].requires_grad_(False)
    before = parameters_of(learner)
    step(learner, FIRST)
    after = parameters_of(learner)
    assert same(after["backbone.0.weight"], before["backbone.0.weight"])
    assert not same(after["backbone.2.weight"], before["backbone.2.weight"])


def test_a_constant_channel_goes_unnoticed() -> None:
    """Its mean stays in the biases of the linear layer that reads its map, flattened."""
    model = ModelSettings(name="cnn", channels=(3,), hidden=(2,))  # 0.34 of 2 is none
    case = Case("cbp", "class", {"replacement_rate": 0.34, "maturity": 0}, STANDS_STILL, model=model)
    learner = case.learned([0])
    backbone, strategy, batch = learner.network.backbone, learner.strategies[0], case.task(0).take(torch.arange(8))
    with torch.no_grad():
        backbone[0].weight[1], backbone[0].bias[1] = 0.0, 1.0
        backbone[0].weight[[0, 2]], backbone[4].weight[:] = 1.0, 1.0
    strategy.load_state_dict(strategy.state_class().__dict__)
    strategy.begin_task(case.task(0))
    answers = learner.network.outputs(backbone(batch.inputs), 1).detach()
    learner.reset_optimizer()
    learner.step(batch)
    assert strategy.state.ages.tolist() == [1, 0, 1, 1, 1]
    assert (backbone[4].weight == 0).all(0).tolist() == [False] * 16 + [True] * 16 + [False] * 16
    torch.testing.assert_close(learner.network.outputs(backbone(batch.inputs), 1).detach(), answers)


def test_a_constant_channel_leaves_its_mean_to_a_convolution() -> None:
    """All nine weights of the kernel that reads it, 1/9 each, times 1 go to the bias."""
    model = ModelSettings(name="cnn", channels=(3, 2), hidden=(4,))
    case = Case("cbp", "class", {"replacement_rate": 0.34, "maturity": 0}, STANDS_STILL, model=model)
    learner = case.learned([0])
    first, second = learner.network.backbone[0], learner.network.backbone[3]
    with torch.no_grad():
        first.weight[[0, 2]], first.weight[1], first.bias[1] = 1.0, 0.0, 1.0
        second.weight[:], second.bias[:] = 1 / 9, 0.0
    strategy = learner.strategies[0]
    strategy.load_state_dict(strategy.state_class().__dict__)
    strategy.begin_task(case.task(0))
    learner.reset_optimizer()
    learner.step(case.task(0).take(torch.arange(8)))
    assert strategy.state.ages[:3].tolist() == [1, 0, 1]
    torch.testing.assert_close(second.bias.detach(), torch.tensor([1.0, 1.0]))


class Halved(nn.Sequential):
    """A chain in which two units are read as one."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(4, 6), nn.GLU())


@pytest.mark.parametrize("method", ["redo", "cbp"])
def test_units_that_are_read_as_one_are_refused(method: str) -> None:
    def build() -> Network:
        return Network(Halved(), 3, OutputLayout("domain", ((0, 2),)))

    strategy = STRATEGIES[method]
    methods = [(strategy, strategy.hyperparameter_class())]
    with pytest.raises(ValueError, match=rf"{method}: expected .* layer 0 reads each of its 6 units .* got 3 inputs"):
        Learner(build, lambda _: None, methods, TrainingSettings(), Generators(0), torch.device("cpu"))  # type: ignore[arg-type,return-value]


def test_what_has_no_effect() -> None:
    assert CbpHyperparameters(replacement_rate=0).unused() == {"maturity", "utility_decay", "utility"}
    assert CbpHyperparameters().unused() == set()
