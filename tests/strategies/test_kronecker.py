"""Kronecker-factored curvature, against dense Fisher information and products written out."""

from __future__ import annotations

import math
import warnings
from typing import Any

import pytest
import torch
from tiny_worlds import KINDS, learn_tasks, make_learner, make_network, make_task, parameters_of, same
from torch import Tensor, nn

from strategies import Batch, IncrementalType, StreamSizes, TrialDivergedError
from strategies.gradients import kronecker
from strategies.gradients.kronecker import (
    FactoredPull,
    Factors,
    apart,
    called_once,
    diagonal_of,
    is_factored,
    joined,
    measure_factors,
    nearest_product,
    value_along,
)
from strategies.gradients.objectives import fisher_objectives
from strategies.parts.importance import fisher_diagonal, fisher_gradients


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def _plain(network: nn.Module) -> Any:
    return lambda batch: (network(batch.inputs), 0)


def _measured(network: nn.Module, batches: list[Batch], kind: Any = "empirical") -> dict[str, Factors]:
    logits_of = _plain(network)
    return measure_factors(
        network, batches, logits_of, lambda: fisher_objectives(kind, _generator(), batches, logits_of)
    )


def _dense(network: nn.Module, batch: Batch, layer: str) -> Tensor:
    """Return the Fisher information of a layer, its weight joined with its bias, row by row."""
    rows = []
    for portion in fisher_gradients(network, [batch], _plain(network), "empirical", _generator(), 1):
        parts = [portion[f"{layer}.{part}"][0] for part in ("weight", "bias") if f"{layer}.{part}" in portion]
        rows.append(joined(parts).flatten())
    stacked = torch.stack(rows)
    return stacked.T @ stacked / len(rows)


def test_of_one_example_it_is_the_dense_fisher() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    batch = Batch(torch.randn(1, 3), torch.tensor([1]), 0)

    for layer, own in _measured(network, [batch]).items():
        torch.testing.assert_close(torch.kron(own.outer, own.inner), _dense(network, batch, layer))


def test_of_independent_inputs_and_gradients_it_is_the_dense_fisher() -> None:
    """A layer of zeros has gradients that depend on labels alone; here every input comes with every label."""
    network = nn.Sequential(nn.Linear(2, 2))
    nn.init.zeros_(network[0].weight)  # type: ignore[arg-type]
    nn.init.zeros_(network[0].bias)  # type: ignore[arg-type]
    inputs = torch.tensor([[1.0, 2.0], [1.0, 2.0], [-3.0, 0.5], [-3.0, 0.5]])
    batch = Batch(inputs, torch.tensor([0, 1, 0, 1]), 0)

    own = _measured(network, [batch])["0"]
    torch.testing.assert_close(torch.kron(own.outer, own.inner), _dense(network, batch, "0"))
    assert own.inner[2].tolist() == [-1.0, 1.25, 1.0], "mean inputs, and the 1 of the bias"
    assert own.outer.tolist() == [[0.25, -0.25], [-0.25, 0.25]]


def test_a_convolution_over_one_position_is_the_linear_layer_of_its_pixels() -> None:
    torch.manual_seed(0)
    convolution, linear = nn.Conv2d(2, 3, 2), nn.Linear(8, 3)
    linear.weight.data = convolution.weight.data.flatten(1).clone()
    linear.bias.data = convolution.bias.data.clone()  # type: ignore[union-attr]
    inputs, labels = torch.randn(5, 2, 2, 2), torch.tensor([0, 1, 2, 0, 1])
    one = _measured(nn.Sequential(convolution, nn.Flatten()), [Batch(inputs, labels, 0)])["0"]
    other = _measured(nn.Sequential(nn.Flatten(), linear), [Batch(inputs, labels, 0)])["1"]

    torch.testing.assert_close(one.inner, other.inner)
    torch.testing.assert_close(one.outer, other.outer)


def test_factors_of_a_convolution_by_hand() -> None:
    """One channel, a 1x1 kernel and no bias: the patches are the two pixels."""
    convolution = nn.Conv2d(1, 1, 1, bias=False)
    network = nn.Sequential(convolution, nn.Flatten())
    nn.init.zeros_(convolution.weight)
    batch = Batch(torch.tensor([[[[1.0, 3.0]]]]), torch.tensor([0]), 0)

    own = _measured(network, [batch])["0"]
    assert own.inner.item() == 10.0, "1² + 3², summed over positions"
    assert own.outer.item() == 0.25, "(-0.5)² and 0.5², averaged over positions"


def test_a_convolution_of_any_shape_by_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stride 2 up and down, dilation 2 to the side, padding of one row: factors from loops over examples and pixels."""
    torch.manual_seed(0)
    convolution = nn.Conv2d(2, 3, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2))
    head = nn.Linear(3 * 2 * 3, 2)
    inputs, labels = torch.randn(4, 2, 4, 5), torch.tensor([0, 1, 1, 0])
    inner, outer = torch.zeros(13, 13), torch.zeros(3, 3)
    for image, label in zip(inputs, labels, strict=True):
        outputs = convolution(image[None])
        loss = nn.functional.cross_entropy(head(torch.tanh(outputs).flatten(1)), label[None])
        (delta,) = torch.autograd.grad(loss, outputs)
        padded = nn.functional.pad(image, (0, 0, 1, 1))
        for i in range(2):
            for j in range(3):
                patch = padded[:, 2 * i : 2 * i + 3, j : j + 3 : 2]
                row = torch.cat([patch.flatten(), torch.ones(1)])
                torch.testing.assert_close(
                    joined(list(convolution.parameters())) @ row, outputs[0, :, i, j], msg="the patch is the input"
                )
                inner += torch.outer(row, row) / 4
                outer += torch.outer(delta[0, :, i, j], delta[0, :, i, j]) / (4 * 6)

    network = nn.Sequential(convolution, nn.Tanh(), nn.Flatten(), head)
    for n_bytes in (kronecker._PATCH_BYTES, 1):  # all at once, one example after the other
        monkeypatch.setattr(kronecker, "_PATCH_BYTES", n_bytes)
        own = _measured(network, [Batch(inputs, labels, 0)])["0"]
        torch.testing.assert_close(own.inner, inner)
        torch.testing.assert_close(own.outer, outer)


def test_outputs_that_are_changed_in_place_have_the_same_factors() -> None:
    torch.manual_seed(0)
    layers, batch = (nn.Linear(4, 8), nn.Linear(8, 3)), Batch(torch.randn(6, 4), torch.arange(6) % 3, 0)
    plain = _measured(nn.Sequential(layers[0], nn.ReLU(), layers[1]), [batch])
    in_place = _measured(nn.Sequential(layers[0], nn.ReLU(inplace=True), layers[1]), [batch])
    for layer, own in plain.items():
        torch.testing.assert_close(in_place[layer].outer, own.outer)
        torch.testing.assert_close(in_place[layer].inner, own.inner)


def test_factors_that_overflow_are_a_trial_that_diverged() -> None:
    network = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    batch = Batch(torch.full((2, 3), 1e25), torch.tensor([0, 1]), 0)
    with pytest.raises(TrialDivergedError, match="factors of layer 0 overflow; lower the learning rate"):
        _measured(network, [batch])


def test_portions_and_labels_add_up() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 3))
    batch = Batch(torch.randn(7, 3), torch.randint(3, (7,)), 0)
    parts = [Batch(batch.inputs[rows], batch.labels[rows], 0) for rows in torch.split(torch.arange(7), 3)]
    whole, apart_ = _measured(network, [batch]), _measured(network, parts)
    for layer in whole:
        torch.testing.assert_close(whole[layer].outer, apart_[layer].outer)
        torch.testing.assert_close(whole[layer].inner, apart_[layer].inner)

    exact = _measured(network, [batch], "exact")["2"].outer
    p = network(batch.inputs).softmax(1)
    expected = (torch.diag_embed(p) - p[:, :, None] * p[:, None, :]).mean(0)
    torch.testing.assert_close(exact, expected.detach())


def test_the_nearest_product_is_that_of_the_largest_singular_value() -> None:
    torch.manual_seed(0)
    parts = [Factors(*(x @ x.T for x in (torch.randn(3, 5), torch.randn(2, 4)))) for _ in range(2)]
    found = nearest_product(*parts)

    sums = sum(torch.outer(own.inner.flatten(), own.outer.flatten()) for own in parts)
    u, s, v = torch.linalg.svd(sums)  # type: ignore[arg-type]
    torch.testing.assert_close(
        torch.outer(found.inner.flatten(), found.outer.flatten()), s[0] * torch.outer(u[:, 0], v[0])
    )
    assert bool((torch.linalg.eigvalsh(found.inner) > -1e-5).all())
    assert bool((torch.linalg.eigvalsh(found.outer) > -1e-5).all())


def test_the_nearest_product_of_a_sum_that_is_one_is_it() -> None:
    own = Factors(torch.tensor([[2.0, 1.0], [1.0, 3.0]]), torch.tensor([[4.0]]))
    found = nearest_product(own, Factors(own.inner, 3 * own.outer))
    torch.testing.assert_close(torch.kron(found.outer, found.inner), 4 * torch.kron(own.outer, own.inner))


@pytest.mark.parametrize("zero", [0, 1])
@pytest.mark.parametrize(("of_inner", "of_outer"), [(1.0, 0.0), (0.0, 1.0), (0.0, 0.0)])
def test_a_product_of_zeros_changes_nothing(zero: int, of_inner: float, of_outer: float) -> None:
    """A layer without bias whose inputs are all 0, or whose outputs the loss does not depend on."""
    own, nothing = Factors(torch.eye(2), torch.eye(3)), Factors(torch.eye(2) * of_inner, torch.eye(3) * of_outer)
    found = nearest_product(*((nothing, own) if zero == 0 else (own, nothing)))
    torch.testing.assert_close(torch.kron(found.outer, found.inner), torch.eye(6))


def _pulled(rate: float, weight: float) -> tuple[nn.Linear, Tensor, Tensor, Factors, Tensor]:
    torch.manual_seed(0)
    layer = nn.Linear(2, 3)
    network = nn.Sequential(layer)
    own = Factors(*(x @ x.T for x in (torch.randn(3, 4), torch.randn(3, 4))))
    anchor = {name: torch.randn_like(p) for name, p in network.named_parameters()}
    given = torch.randn(3, 3)
    for part, gradient in zip((layer.weight, layer.bias), apart(given, [layer.weight, layer.bias]), strict=True):
        part.grad = gradient.clone()
    move = joined([layer.weight.detach(), layer.bias.detach()]) - joined(list(anchor.values()))
    FactoredPull(network, {"0": own}, anchor, weight, rate).add_to_gradients()
    return layer, given, move, own, joined([layer.weight.grad, layer.bias.grad])  # type: ignore[list-item]


def test_a_soft_pull_is_the_gradient_of_the_penalty() -> None:
    _, given, move, own, found = _pulled(rate=1e-4, weight=0.5)

    free = move.clone().requires_grad_()
    penalty = 0.25 * free.flatten() @ torch.kron(own.outer, own.inner) @ free.flatten()
    (expected,) = torch.autograd.grad(penalty, free)
    torch.testing.assert_close(found - given, expected)
    assert value_along(own, move) == pytest.approx(float(4 * penalty.detach()), rel=1e-5)
    torch.testing.assert_close(diagonal_of(own).flatten(), torch.kron(own.outer, own.inner).diagonal())


def test_a_stiff_pull_is_the_implicit_step() -> None:
    rate, weight = 0.1, 1e4
    _, given, move, own, found = _pulled(rate, weight)

    system = torch.eye(9) + rate * weight * torch.kron(own.outer, own.inner)
    after = torch.linalg.solve(system.double(), (move - rate * given).flatten().double()).float()
    torch.testing.assert_close((move - rate * found).flatten(), after, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (nn.Linear(2, 2), True),
        (nn.Conv2d(2, 2, 3, padding=1), True),
        (nn.Conv2d(2, 2, 3, groups=2), False),
        (nn.Conv2d(2, 2, 3, padding="same"), False),
        (nn.Conv1d(2, 2, 3), False),
        (nn.BatchNorm1d(2), False),
    ],
)
def test_which_layers_have_factors(layer: nn.Module, expected: bool) -> None:
    assert is_factored(layer) is expected


class Odd(nn.Module):
    """Layers that factors would describe wrongly, and one, `plain`, that they describe."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.ones(1, 4))
        self.twice, self.tied, self.also, self.plain = (nn.Linear(4, 4) for _ in range(4))
        self.of_gate, self.of_parts = nn.Linear(4, 4), nn.Linear(4, 4)
        self.also.weight = self.tied.weight
        self.outside, self.unused = nn.Linear(4, 4), nn.Linear(4, 4)
        with warnings.catch_warnings(action="ignore"):  # deprecated, and in use
            self.normed = nn.utils.weight_norm(nn.Linear(4, 4))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, 4)."""
        x = self.twice(self.twice(x)) * self.of_gate(self.gate)
        x = self.also(self.tied(x)) + self.of_parts(x.reshape(-1, 1, 4).expand(-1, 2, -1).flatten(0, 1))[::2]
        x = nn.functional.linear(self.outside(x), self.outside.weight)
        logits: Tensor = self.plain(input=self.normed(x))
        return logits


def test_layers_whose_factors_would_be_wrong_have_none() -> None:
    """Used twice, of shared weight, with inputs that are no examples, used past their module, of composed weight."""
    network = Odd()
    assert list(called_once(network, lambda: network(torch.zeros(3, 4)))) == ["plain"]
    batch = Batch(torch.randn(3, 4), torch.arange(3), 0)
    assert list(_measured(network, [batch])) == ["plain"]


@pytest.mark.parametrize("kind", KINDS)
def test_ewc_keeps_factors_of_every_layer_and_an_anchor(kind: IncrementalType) -> None:
    learner = learn_tasks(make_learner("ewc", kind=kind, hyperparameters={"structure": "kronecker"}), range(3))
    (ewc,) = learner.strategies
    state = ewc.state

    n_heads = 1 if kind == "domain" else 3
    assert state.inner.keys() == {"backbone.0", "backbone.2", *(f"heads.{i}" for i in range(n_heads))}
    assert state.importance == {}
    assert state.anchor.keys() == {name for name, _ in learner.network.named_parameters()}
    assert state.inner["backbone.0"].shape == (5, 5)
    assert state.outer["backbone.0"].shape == (6, 6)
    assert {name: value.shape for name, value in state.diagonal().items()} == {
        name: p.shape for name, p in learner.network.named_parameters()
    }
    sizes = StreamSizes((20, 20, 20), (10,) * 6, (4,))
    assert ewc.kept_bytes() == ewc.bytes_to_keep(sizes)


def test_what_lies_in_no_layer_has_a_diagonal() -> None:
    learner = make_learner("ewc", hyperparameters={"structure": "kronecker"})
    learner.network.backbone.append(nn.LayerNorm(5))
    (ewc,) = learn_tasks(learner, [0]).strategies

    assert ewc.state.importance.keys() == {"backbone.4.weight", "backbone.4.bias"}
    assert {"backbone.4.weight", "backbone.0.weight"} <= ewc.state.anchor.keys()


def test_the_pull_holds_parameters_and_strength_zero_is_naive() -> None:
    moves = []
    for weight in (0.0, 10.0, 1e6):
        learner = make_learner("ewc", hyperparameters={"structure": "kronecker", "penalty_weight": weight})
        before = parameters_of(learn_tasks(learner, [0]))
        after = parameters_of(learn_tasks(learner, [1]))
        moves.append(math.fsum(float((after[name] - before[name]).square().sum()) for name in before))
    naive = learn_tasks(make_learner("naive"), range(2))
    still = learn_tasks(
        make_learner("ewc", hyperparameters={"structure": "kronecker", "penalty_weight": 0.0}), range(2)
    )

    assert moves[0] > moves[1] > moves[2]
    assert same(naive.network.state_dict(), still.network.state_dict())


def test_factors_approximate_the_diagonal_of_the_fisher() -> None:
    network = make_network("domain", n_heads=1)
    batch = make_task(0, "domain").take(torch.arange(20))
    logits_of = lambda one: network.training_logits(one.inputs, one.task_ids, 1, "seen")  # noqa: E731
    exact = fisher_diagonal(network, [batch], logits_of, "empirical", _generator())
    found = measure_factors(
        network, [batch], logits_of, lambda: fisher_objectives("empirical", _generator(), [batch], logits_of)
    )
    for layer, own in found.items():
        weight, bias = apart(diagonal_of(own), [exact[f"{layer}.weight"], exact[f"{layer}.bias"]])
        torch.testing.assert_close(bias, exact[f"{layer}.bias"])
        assert torch.corrcoef(torch.stack([weight.flatten(), exact[f"{layer}.weight"].flatten()]))[0, 1] > 0.7
