from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from tiny_worlds import KINDS, learn_tasks, make_learner, parameters_of, same
from torch import Tensor, nn
from torch.nn import functional as F

from strategies import STRATEGIES, Batch, Forward, IncrementalType, Learner, LogitTerm, Strategy
from strategies.gradients import products
from strategies.gradients.perceptron import perceptron_look, perceptron_pass

WIDTHS = [(64, 128, 128), (30, 64, 64), (784, 100), (13, 33, 17, 9), (1, 1)]


def _perceptron(widths: tuple[int, ...], outputs: tuple[int, ...]) -> tuple[nn.Sequential, list[nn.Linear]]:
    torch.manual_seed(0)
    layers = [module for pair in pairwise(widths) for module in (nn.Linear(*pair), nn.ReLU())]
    return nn.Sequential(nn.Flatten(), *layers), [nn.Linear(widths[-1], n) for n in outputs]


def _by_autograd(
    backbone: nn.Sequential, heads: list[nn.Linear], inputs: Tensor, loss_of: Callable[[Tensor, Tensor], Tensor]
) -> tuple[Tensor, Tensor, list[Tensor | None]]:
    features = backbone(inputs)
    logits = torch.cat([head(features) for head in heads], dim=1) if len(heads) > 1 else heads[0](features)
    loss_of(features, logits).backward()  # type: ignore[no-untyped-call]
    return features, logits, _gradients(backbone, heads)


def _by_pass(
    backbone: nn.Sequential, heads: list[nn.Linear], inputs: Tensor, loss_of: Callable[[Tensor, Tensor], Tensor]
) -> tuple[Tensor, Tensor, list[Tensor | None]]:
    found = perceptron_pass(backbone, heads, inputs)
    assert found is not None
    found.begin_graph()
    loss_of(found.features, found.logits).backward()  # type: ignore[no-untyped-call]
    found.backward(found.logits.grad, found.features.grad)
    return found.features, found.logits, _gradients(backbone, heads)


def _gradients(backbone: nn.Sequential, heads: list[nn.Linear]) -> list[Tensor | None]:
    """Return the gradients and take them from the parameters."""
    parameters = list(nn.ModuleList([backbone, *heads]).parameters())
    found = [parameter.grad for parameter in parameters]
    for parameter in parameters:
        parameter.grad = None
    return found


def _assert_same(one: tuple[Tensor, Tensor, Any], other: tuple[Tensor, Tensor, Any]) -> None:
    assert torch.equal(one[0], other[0])
    assert torch.equal(one[1], other[1])
    assert same(one[2], other[2])


@pytest.mark.parametrize("widths", WIDTHS)
@pytest.mark.parametrize("outputs", [(10,), (2, 2, 2), (3, 1, 5)])
@pytest.mark.parametrize("n", [1, 2, 10, 64])
def test_outputs_and_gradients_are_those_of_autograd_bit_for_bit(
    widths: tuple[int, ...], outputs: tuple[int, ...], n: int
) -> None:
    backbone, heads = _perceptron(widths, outputs)
    inputs, labels = torch.randn(n, 1, widths[0]), torch.randint(sum(outputs), (n,))

    def loss_of(features: Tensor, logits: Tensor) -> Tensor:
        return F.cross_entropy(logits, labels)

    _assert_same(_by_autograd(backbone, heads, inputs, loss_of), _by_pass(backbone, heads, inputs, loss_of))


@pytest.mark.parametrize("outputs", [(10,), (2, 2, 2)])
@pytest.mark.parametrize("n", [1, 400])
def test_a_look_gives_the_logits_of_a_pass_but_for_rounding(n: int, outputs: tuple[int, ...]) -> None:
    """With 400 examples every hidden product is large enough to be oneDNN's."""
    backbone, heads = _perceptron((60, 64, 128), outputs)
    assert 400 * 60 * 64 >= products._SMALLEST > 64 * 128
    inputs = torch.randn(n, 1, 60)
    found, expected = perceptron_look(backbone, heads, inputs), perceptron_pass(backbone, heads, inputs)
    assert found is not None
    assert expected is not None
    torch.testing.assert_close(found, expected.logits)
    assert n > 1 or torch.equal(found, expected.logits)


def test_without_onednn_a_look_is_a_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone, heads = _perceptron((60, 64, 128), (10,))
    inputs = torch.randn(400, 1, 60)
    monkeypatch.setattr(products, "_onednn_linear", lambda: None)
    found, expected = perceptron_look(backbone, heads, inputs), perceptron_pass(backbone, heads, inputs)
    assert found is not None
    assert expected is not None
    assert torch.equal(found, expected.logits)


@pytest.mark.parametrize("uses", ["features alone", "both", "logits of the last head alone"])
def test_losses_of_any_outputs_reach_the_parameters(uses: str) -> None:
    backbone, heads = _perceptron((7, 6, 5), (2, 3))
    inputs = torch.randn(4, 7)

    def loss_of(features: Tensor, logits: Tensor) -> Tensor:
        own = features.square().sum() if uses != "logits of the last head alone" else features.new_zeros(())
        return own if uses == "features alone" else own + logits[:, 2:].exp().sum()

    one, other = (way(backbone, heads, inputs, loss_of)[2] for way in (_by_autograd, _by_pass))
    assert [found is None for found in one] == [found is None for found in other]
    for found, expected in zip(one, other, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "frozen", [["0.1.weight"], ["0.1.weight", "0.1.bias"], ["0.1.bias", "0.3.bias", "1.bias"], "0"]
)
def test_what_is_frozen_gets_no_gradient(frozen: list[str] | str) -> None:
    backbone, heads = _perceptron((7, 6, 5), (2,))
    for name, parameter in nn.ModuleList([backbone, *heads]).named_parameters():
        parameter.requires_grad_(name not in frozen if isinstance(frozen, list) else not name.startswith(frozen))
    inputs, labels = torch.randn(4, 7), torch.tensor([0, 1, 1, 0])

    def loss_of(features: Tensor, logits: Tensor) -> Tensor:
        return F.cross_entropy(logits, labels)

    found = _by_pass(backbone, heads, inputs, loss_of)
    assert None in found[2]
    _assert_same(_by_autograd(backbone, heads, inputs, loss_of), found)


def test_a_gradient_that_is_there_is_added_to() -> None:
    backbone, heads = _perceptron((7, 5), (2,))
    inputs = torch.randn(4, 7)
    heads[0].bias.grad = torch.tensor([10.0, 20.0])

    found = _by_pass(backbone, heads, inputs, lambda features, logits: logits.sum())[2]

    assert found[-1] is not None
    assert found[-1].tolist() == [14.0, 24.0]


def _hooked(backbone: nn.Sequential, heads: list[nn.Linear]) -> None:
    backbone[1].register_forward_hook(lambda *_: None)


def _hooked_relu(backbone: nn.Sequential, heads: list[nn.Linear]) -> None:
    backbone[2].register_forward_pre_hook(lambda *_: None)


def _hooked_head(backbone: nn.Sequential, heads: list[nn.Linear]) -> None:
    heads[0].register_full_backward_hook(lambda *_: None)


def _hooked_parameter(backbone: nn.Sequential, heads: list[nn.Linear]) -> None:
    backbone[1].weight.register_hook(lambda gradient: gradient)  # type: ignore[operator]


def _other_activation(backbone: nn.Sequential, heads: list[nn.Linear]) -> None:
    backbone[2] = nn.Tanh()


def _without_bias(backbone: nn.Sequential, heads: list[nn.Linear]) -> None:
    backbone[1] = nn.Linear(7, 6, bias=False)


def _reparametrised(backbone: nn.Sequential, heads: list[nn.Linear]) -> None:
    nn.utils.parametrizations.weight_norm(backbone[1])


def _ending_in_a_layer(backbone: nn.Sequential, heads: list[nn.Linear]) -> None:
    del backbone[4]


def _normalised(backbone: nn.Sequential, heads: list[nn.Linear]) -> None:
    backbone.insert(2, nn.BatchNorm1d(6))


def test_a_perceptron_without_a_flatten_takes_rows_only() -> None:
    backbone, heads = _perceptron((7, 6, 5), (2,))
    del backbone[0]
    assert perceptron_pass(backbone, heads, torch.zeros(3, 7)) is not None
    assert perceptron_pass(backbone, heads, torch.zeros(3, 2, 7)) is None


@pytest.mark.parametrize(
    "change",
    [
        _hooked,
        _hooked_relu,
        _hooked_head,
        _hooked_parameter,
        _other_activation,
        _without_bias,
        _reparametrised,
        _ending_in_a_layer,
        _normalised,
    ],
)
def test_networks_that_need_pytorchs_own_modules_are_left_to_them(
    change: Callable[[nn.Sequential, list[nn.Linear]], None],
) -> None:
    backbone, heads = _perceptron((7, 6, 5), (2,))
    inputs = torch.zeros(3, 7)
    assert perceptron_pass(backbone, heads, inputs) is not None
    change(backbone, heads)
    assert perceptron_pass(backbone, heads, inputs) is None


def test_inputs_that_need_a_gradient_are_left_to_autograd() -> None:
    assert perceptron_pass(*_perceptron((7, 5), (2,)), torch.zeros(3, 7, requires_grad=True)) is None


def _by_modules(learner: Learner) -> Learner:
    """Let the learner's network be run by PyTorch's modules, as a network with a hook is."""
    learner.network.backbone.register_forward_hook(lambda *_: None)
    return learner


TRAINED = [name for name in STRATEGIES.own if STRATEGIES[name].trains_network]
REPLACING = ("gdumb", "pnn")
"""Methods that build a network of their own, which loses the hook."""


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", [name for name in TRAINED if name not in REPLACING])
def test_every_method_ends_in_the_same_bits_by_the_pass_and_by_modules(method: str, kind: IncrementalType) -> None:
    if kind in STRATEGIES[method].unsupported:
        pytest.skip("the method does not support it")
    options: dict[str, Any] = {"class_weight": "balanced", "clip_gradient_norm": 0.5}
    one = learn_tasks(make_learner(method, kind=kind, **options), range(3))
    other = learn_tasks(_by_modules(make_learner(method, kind=kind, **options)), range(3))

    assert same(one.network.state_dict(), other.network.state_dict())
    assert same(one.state_dict()["strategies"], other.state_dict()["strategies"])


class Differentiating(Strategy):
    """Asks autograd itself for the gradient of the loss, as a user's method may."""

    name = "differentiating"
    summary = "for tests"

    def penalty(self, batch: Batch, forward: Forward) -> Tensor:
        loss = F.cross_entropy(forward.logits, batch.labels - forward.first)
        parameters = list(self.learner.network.backbone.parameters())
        found = torch.autograd.grad(loss, parameters, create_graph=True)
        return torch.stack([gradient.square().sum() for gradient in found]).sum()


def test_a_method_that_differentiates_itself_has_the_whole_graph() -> None:
    one, other = make_learner(Differentiating), _by_modules(make_learner(Differentiating))
    assert same(learn_tasks(one, range(2)).network.state_dict(), learn_tasks(other, range(2)).network.state_dict())


class Known(Strategy):
    """Adds Σ (z - 1)² over the outputs that compete, by its gradient or with its graph."""

    name = "known"
    summary = "for tests"
    by_hand = True
    differentiates_itself = False

    def penalty(self, batch: Batch, forward: Forward) -> Tensor | LogitTerm:
        logits = forward.logits.detach() if self.by_hand else forward.logits
        difference = torch.where(torch.isinf(logits), 0.0, logits - 1.0)
        value = difference.square().sum()
        return LogitTerm(value, 2.0 * difference) if self.by_hand else value


class InGraph(Known):
    """The same with its graph."""

    name = "in-graph"
    by_hand = False


class Features(Strategy):
    """Adds a term of the features with its graph."""

    name = "features"
    summary = "for tests"
    differentiates_itself = False

    def penalty(self, batch: Batch, forward: Forward) -> Tensor:
        return forward.features.square().mean()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("beside", [[], [Features]])
@pytest.mark.parametrize("is_by_modules", [False, True])
def test_a_term_differentiated_by_hand_trains_as_its_graph_does(
    kind: IncrementalType, beside: list[type[Strategy]], is_by_modules: bool
) -> None:
    """Alone the pass needs no graph at all; beside a term with a graph, and through modules, it joins theirs."""
    learners = [make_learner(*beside, method, "replay", kind=kind) for method in (Known, InGraph)]
    one, other = (learn_tasks(_by_modules(each) if is_by_modules else each, range(2)) for each in learners)
    torch.testing.assert_close(parameters_of(one), parameters_of(other))
    assert not same(parameters_of(one), parameters_of(learn_tasks(make_learner("replay", kind=kind), range(2))))
