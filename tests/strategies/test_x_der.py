"""Extended dark experience replay by hand: what is written into memories, and each term of the loss."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_worlds import N_FEATURES, learn_tasks, make_learner, make_task
from torch import Tensor

from strategies import Batch, Forward, Learner
from strategies.methods.x_der import XDer, XDerHyperparameters

LOGITS = torch.tensor([[2.0, 1.0, 0.0, 3.0, -1.0, 4.0], [0.5, -0.5, 1.0, 0.0, 2.0, 2.5]])
"""Present logits of two examples with all outputs active: past 0 and 1, present 2 and 3, later 4 and 5."""


def in_task_one(active: str = "all", **own: Any) -> Learner:
    """Return a learner in its second task that remembers two examples of the first, of labels 0 and 1.

    They are held at 1, 2, …, 6 and at -1, 2, 0, 0, 0, 0. The network answers the rows of the identity with `LOGITS`.
    """
    learner = make_learner("x-der", kind="class", hyperparameters=own, active_outputs=active)
    learner.n_seen, learner.task = 2, 1
    learner.network.backbone = torch.nn.Identity()
    learner.network.add_heads(3 if active == "all" else 2, learner.device, learner.generators.fresh)
    with torch.no_grad():
        for index, head in enumerate(learner.network.heads):
            head.weight.zero_()
            head.bias.zero_()
            head.weight[:, :2] = LOGITS[:, 2 * index : 2 * index + 2].T
    state = of(learner).state
    state.inputs, state.labels = torch.eye(2, N_FEATURES), torch.tensor([0, 1])
    state.task_ids, state.n_draws = torch.tensor([0, 0]), torch.tensor([0, 0])
    state.priorities = torch.tensor([0.1, 0.2], dtype=torch.float64)
    state.targets = torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [-1.0, 2.0, 0.0, 0.0, 0.0, 0.0]])
    return learner


def of(learner: Learner) -> XDer:
    strategy = learner.strategies[0]
    assert isinstance(strategy, XDer)
    return strategy


def new_batch(learner: Learner) -> tuple[Batch, Forward]:
    """Return two new examples, of labels 2 and 3, which are answered with `LOGITS`."""
    inputs = torch.eye(2, N_FEATURES)
    logits = learner.network.outputs(inputs, len(learner.network.heads))
    return Batch(inputs, torch.tensor([2, 3]), 1, torch.arange(2)), Forward(inputs, logits, 0)


def nll(logits: list[float], at: int) -> float:
    return float(torch.tensor(logits).logsumexp(0)) - logits[at]


def penalty_of(**own: float) -> tuple[float, Learner]:
    """Return the penalty with all weights 0 but those given."""
    weights = {"logit_weight": 0.0, "label_weight": 0.0, "constraint_weight": 0.0} | own
    learner = in_task_one(memory_batch_size=1, **weights)
    return float(of(learner).penalty(*new_batch(learner)).detach()), learner


def test_new_examples_compete_with_the_present_and_the_future() -> None:
    learner = in_task_one()
    expected = (nll([0.0, 3.0, -1.0, 4.0], 0) + nll([1.0, 0.0, 2.0, 2.5], 1)) / 2
    assert float(of(learner).classification_loss(*new_batch(learner)).detach()) == pytest.approx(expected)


def test_without_future_heads_they_compete_with_the_present_alone() -> None:
    learner = in_task_one("seen")
    expected = (nll([0.0, 3.0], 0) + nll([1.0, 0.0], 1)) / 2
    assert float(of(learner).classification_loss(*new_batch(learner)).detach()) == pytest.approx(expected)


def test_one_draw_is_held_at_its_logits_and_the_other_at_its_label_among_the_past() -> None:
    """Each draw is one of the two examples, and never the same one."""
    squares = [(1 + 1 + 9 + 1 + 36 + 4) / 6, (2.25 + 6.25 + 1 + 0 + 4 + 6.25) / 6]
    entropies = [nll([2.0, 1.0], 0), nll([0.5, -0.5], 1)]
    of_logits, learner = penalty_of(logit_weight=2.0)
    of_labels, _ = penalty_of(label_weight=3.0)
    first, second = rows_of(learner)
    assert {first, second} == {0, 1}
    assert of_logits == pytest.approx(2 * squares[first])
    assert of_labels == pytest.approx(3 * entropies[second])


def rows_of(learner: Learner) -> list[int]:
    drawn = of(learner)._drawn
    assert drawn is not None
    return drawn[0].tolist()  # type: ignore[no-any-return]


def test_the_present_must_be_ahead_of_the_past_and_the_own_task_of_the_future() -> None:
    """Logits: max f = 4 and 5/2; those of the own task 3 and 1 of new examples, 2 and 1/2 of remembered ones."""
    shares = LOGITS[:, :4].softmax(1)
    past = [0.3 + float(row[:2].max() - row[2:].max()) for row in shares]
    assert past[0] < 0 < past[1]  # the first is ahead by more than the margin
    future = (1.3 + 1.8 + 2.3 + 2.3) / 4
    found, _ = penalty_of(constraint_weight=0.5)
    assert found == pytest.approx(0.5 * past[1] + 0.5 * future)


def test_the_margin_moves_the_present_and_not_the_past() -> None:
    learner = in_task_one("seen", constraint_weight=1.0, logit_weight=0.0, label_weight=0.0, replay_ratio=0.0)
    of(learner).penalty(*new_batch(learner)).backward()  # type: ignore[no-untyped-call]
    shares = LOGITS[1, :4].softmax(0)
    down = -shares[2] * (torch.tensor([0.0, 0.0, 1.0, 0.0]) - shares)  # of minus the share of output 2, by each logit
    gradients = torch.cat([head.weight.grad[:, 1] for head in learner.network.heads])  # type: ignore[index]
    torch.testing.assert_close(gradients, down)


def renewed(learner: Learner, logits: Tensor = LOGITS) -> Tensor:
    strategy = of(learner)
    strategy._drawn = torch.tensor([0, 1]), logits
    strategy.after_step(*new_batch(learner))
    return strategy.state.targets


def test_present_logits_are_written_into_memories_below_the_label() -> None:
    """Label 0 is held at 1, so 0, 3, -1, 4 shrink to 0.85 at most; label 1 at 2, so 1, 0, 2, 2.5 to 1.7."""
    learner = in_task_one()
    found = renewed(learner)
    assert found[:, :2].tolist() == [[1.0, 2.0], [-1.0, 2.0]]
    torch.testing.assert_close(found[0, 2:], torch.tensor([0.0, 3.0, -1.0, 4.0]) * 0.85 / 4)
    torch.testing.assert_close(found[1, 2:], torch.tensor([1.0, 0.0, 2.0, 2.5]) * 1.7 / 2.5)


def test_what_is_below_the_label_is_written_as_it_is() -> None:
    learner = in_task_one()
    torch.testing.assert_close(renewed(learner, LOGITS / 8)[:, 2:], LOGITS[:, 2:] / 8)


def test_a_label_that_is_not_positive_lowers_the_others() -> None:
    learner = in_task_one()
    of(learner).state.targets[0, 0] = -1.0
    torch.testing.assert_close(renewed(learner)[0, 2:], torch.tensor([0.0, 3.0, -1.0, 4.0]) - 5.0)


def test_an_example_is_renewed_ever_more_rarely() -> None:
    """At the k-th draw with probability 1/k: surely at the first, 1 + 1/2 + … + 1/200 = 5.88 times in 200 draws."""
    counts = []
    for seed in range(40):
        learner = in_task_one()
        learner.generators.seed = seed
        strategy, n = of(learner), 0
        for draw in range(200):
            strategy.state.targets[:, 2:] = -7.0
            n += int((renewed(learner)[:, 2] != -7.0).sum())
            assert draw or n == 2
        counts.append(n / 2)
    assert sum(counts) / 40 == pytest.approx(5.88, abs=0.7)


def test_the_end_of_a_task_renews_all_and_adds_its_own() -> None:
    """The buffer of three keeps one of each old class, held at the new logits, and one of the new ones."""
    learner = in_task_one(buffer_size=3)
    data = make_task(1, "class", n=2)
    task = type(data)(1, torch.eye(2, N_FEATURES), torch.tensor([2, 3]), 1)
    of(learner).end_task(task)
    state = of(learner).state
    assert state.labels.tolist() == [0, 1, 2]
    torch.testing.assert_close(
        state.targets[0], torch.tensor([1.0, 2.0, *(0.85 / 4 * x for x in (0.0, 3.0, -1.0, 4.0))])
    )
    # Of the new example, label 2 is at 0, and what is above it of the past, 2, is lowered by that.
    torch.testing.assert_close(state.targets[2], torch.tensor([0.0, -1.0, 0.0, 3.0, -1.0, 4.0]))
    assert state.n_draws.tolist() == [0, 0, 0]


@pytest.mark.parametrize("active", ["seen", "all"])
def test_a_new_head_has_its_stored_logits(active: str) -> None:
    learner = learn_tasks(make_learner("x-der", kind="class", active_outputs=active), [0])
    before = of(learner).state.targets.clone()
    learner.n_seen, learner.task = 2, 1
    learner.network.add_heads(2, learner.device, learner.generators.fresh)
    of(learner).begin_task(make_task(1, "class"))
    after = of(learner).state.targets
    assert torch.equal(after[:, :2], before[:, :2])
    assert bool((before[:, 2:4] != 0).any()) == (active == "all")
    assert bool((after[:, 2:4] != 0).all())
    if active == "seen":
        own = after.gather(1, of(learner).state.labels[:, None])
        assert bool((after[:, 2:4] <= own + 1e-6).all())


def test_current_outputs_are_refused() -> None:
    with pytest.raises(ValueError, match=r"x-der: training\.active_outputs must be seen or all, got current"):
        make_learner("x-der", kind="class", active_outputs="current")


def test_what_has_no_effect() -> None:
    assert XDerHyperparameters(constraint_weight=0, memory_batch_size=3).unused() == {"margin", "replay_ratio"}
    assert XDerHyperparameters().unused() == set()
