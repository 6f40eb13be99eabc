from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from tiny_worlds import KINDS, N_FEATURES, WIDTH, learn_tasks, make_layout, make_learner, make_network, make_task
from torch import nn
from torch.nn import functional as F

from strategies import Generators, IncrementalType, Network
from strategies.layout import ActiveOutputs
from strategies.parts.layers import initialise_layer

INPUTS = make_task(0).inputs
CPU = torch.device("cpu")


@pytest.mark.parametrize("kind", ["task", "class"])
def test_growing_leaves_old_logits_bit_identical(kind: IncrementalType) -> None:
    learner = learn_tasks(make_learner("naive", kind=kind), [0])
    network = learner.network
    before = network(INPUTS, 0, 1)

    network.add_heads(3, CPU, Generators(9).fresh)

    assert torch.equal(before, network(INPUTS, 0, 3)[:, :WIDTH])
    assert torch.equal(before, network(INPUTS, 0, 1))


def test_growing_returns_the_new_parameters_and_no_others() -> None:
    network = make_network("class", n_heads=1)
    new = network.add_heads(3, CPU, Generators(0).fresh)

    assert [id(p) for p in new] == [id(p) for head in network.heads[1:] for p in head.parameters()]
    assert network.add_heads(3, CPU, Generators(0).fresh) == []
    assert network.add_heads(1, CPU, Generators(0).fresh) == []
    assert len(network.heads) == 3


def test_first_weights_of_a_head_do_not_depend_on_when_it_was_added() -> None:
    at_once, one_by_one = make_network("class", n_heads=3), make_network("class", n_heads=1)
    for n_heads in (2, 3):
        one_by_one.add_heads(n_heads, CPU, Generators(0).fresh)

    assert all(torch.equal(a.weight, b.weight) for a, b in zip(at_once.heads, one_by_one.heads, strict=True))
    assert not torch.equal(at_once.heads[0].weight, at_once.heads[1].weight)


@pytest.mark.parametrize(("kind", "outputs"), [("task", 6), ("domain", 2), ("class", 6)])
def test_the_layout_counts_its_outputs(kind: IncrementalType, outputs: int) -> None:
    assert make_layout(kind).n_outputs == outputs
    assert make_layout(kind).n_tasks == 3


@pytest.mark.parametrize(("kind", "heads"), [("task", [0, 1, 2]), ("domain", [0, 0, 0]), ("class", [0, 1, 2])])
def test_the_layout_names_the_head_of_a_task(kind: IncrementalType, heads: list[int]) -> None:
    assert [make_layout(kind).head_of(task) for task in range(3)] == heads


@pytest.mark.parametrize(
    ("kind", "task", "n_seen", "expected"),
    [
        ("task", 0, 3, (0, 2)),
        ("task", 2, 3, (4, 6)),
        ("domain", 2, 3, (0, 2)),
        ("class", 0, 1, (0, 2)),
        ("class", 0, 2, (0, 4)),
        ("class", 1, 3, (0, 6)),
    ],
)
def test_inference_compares_the_outputs_that_the_type_allows(
    kind: IncrementalType, task: int, n_seen: int, expected: tuple[int, int]
) -> None:
    network = make_network(kind, n_heads=1 if kind == "domain" else 3)
    start, stop = network.layout.inference_range(task, n_seen)
    logits = network(INPUTS, task, n_seen)
    all_logits = network.outputs(network.backbone(INPUTS), len(network.heads))

    assert (start, stop) == expected
    assert torch.equal(logits, all_logits[:, start:stop])


@pytest.mark.parametrize("active", ["seen", "all", "current"])
def test_in_task_only_the_own_head_is_trained(active: ActiveOutputs) -> None:
    network = make_network("task", n_heads=3)
    logits, first = network.training_logits(INPUTS, 1, 3, active)

    assert first == 2
    assert torch.equal(logits, network.heads[1](network.backbone(INPUTS)))


@pytest.mark.parametrize("active", ["seen", "all", "current"])
@pytest.mark.parametrize("task_ids", [2, torch.arange(20) % 3])
def test_in_domain_the_one_head_is_trained_whatever_the_task(
    active: ActiveOutputs, task_ids: int | torch.Tensor
) -> None:
    network = make_network("domain", n_heads=1)
    logits, first = network.training_logits(INPUTS, task_ids, 3, active)

    assert first == 0
    assert torch.equal(logits, network.heads[0](network.backbone(INPUTS)))


@pytest.mark.parametrize(("active", "start", "stop"), [("seen", 0, 4), ("all", 0, 6), ("current", 2, 4)])
def test_in_class_the_active_outputs_choose_what_competes(active: ActiveOutputs, start: int, stop: int) -> None:
    network = make_network("class", n_heads=3)
    logits, first = network.training_logits(INPUTS, 1, 2, active)
    features = network.backbone(INPUTS)
    all_logits = torch.cat([head(features) for head in network.heads], dim=1)

    assert first == start
    assert torch.equal(logits, all_logits[:, start:stop])


@pytest.mark.parametrize("active", ["seen", "all"])
def test_in_class_mixed_tasks_compete_over_every_active_output(active: ActiveOutputs) -> None:
    network = make_network("class", n_heads=3)
    mixed, first = network.training_logits(INPUTS, torch.arange(20) % 2, 2, active)

    assert first == 0
    assert torch.equal(mixed, network.training_logits(INPUTS, 1, 2, active)[0])


@pytest.mark.parametrize(("kind", "active"), [("task", "seen"), ("class", "current")])
def test_mixed_tasks_are_masked_to_the_outputs_of_their_own(kind: IncrementalType, active: ActiveOutputs) -> None:
    network = make_network(kind, n_heads=3)
    task_ids = torch.arange(20) % 2
    logits, first = network.training_logits(INPUTS, task_ids, 2, active)

    assert first == 0
    assert logits.shape == (20, 4)
    for row, task in enumerate(task_ids.tolist()):
        own = network.heads[task](network.backbone(INPUTS[row : row + 1]))[0]
        others = torch.cat([logits[row, : 2 * task], logits[row, 2 * task + 2 :]])
        torch.testing.assert_close(logits[row, 2 * task : 2 * task + 2], own)
        assert bool((others == -math.inf).all())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("task_ids", [1, torch.arange(20) % 2])
def test_logits_without_a_graph_are_the_same_bits(kind: IncrementalType, task_ids: int | torch.Tensor) -> None:
    network = make_network(kind, n_heads=1 if kind == "domain" else 3)
    with_graph, first = network.training_logits(INPUTS, task_ids, 2, "current")
    with torch.no_grad():
        found, other = network.training_logits(INPUTS, task_ids, 2, "current")

    assert first == other
    assert with_graph.requires_grad
    assert not found.requires_grad
    assert torch.equal(found, with_graph)


def test_the_loss_of_mixed_tasks_is_the_mean_over_their_own_heads() -> None:
    network = make_network("task", n_heads=3)
    task_ids = torch.tensor([0, 2, 1, 2])
    labels = torch.tensor([1, 4, 2, 5])
    logits, first = network.training_logits(INPUTS[:4], task_ids, 3, "seen")
    loss = F.cross_entropy(logits, labels - first)
    gradient = torch.autograd.grad(loss, list(network.parameters()), allow_unused=True)

    by_hand = sum(
        -network.heads[t](network.backbone(x[None])).log_softmax(1)[0, y - 2 * t]
        for x, t, y in zip(INPUTS[:4], task_ids.tolist(), labels.tolist(), strict=True)
    )
    expected = torch.autograd.grad(by_hand / 4, list(network.parameters()), allow_unused=True)
    torch.testing.assert_close(loss, by_hand / 4)
    torch.testing.assert_close(gradient, expected)


def test_first_weights_lie_within_one_over_root_fan_in() -> None:
    layer = torch.nn.Linear(16, 500)
    initialise_layer(layer, torch.Generator().manual_seed(0))

    weight, bias = layer.weight.detach(), layer.bias.detach()
    assert 0.249 < float(weight.abs().max()) <= 0.25
    assert 0.24 < float(bias.abs().max()) <= 0.25
    assert abs(float(weight.mean())) < 0.01


@pytest.mark.parametrize(("init", "bound"), [("xavier", math.sqrt(6 / 516)), ("kaiming", math.sqrt(6 / 16))])
def test_other_first_weights_have_biases_of_zero(init: Any, bound: float) -> None:
    """Fan-in 16 and fan-out 500, of a linear layer and of a convolution of 4 channels by 2x2 pixels to 125."""
    for layer in (torch.nn.Linear(16, 500), torch.nn.Conv2d(4, 125, 2)):
        initialise_layer(layer, torch.Generator().manual_seed(0), init)
        assert 0.99 * bound < float(layer.weight.detach().abs().max()) <= bound
        assert layer.bias is not None
        assert not bool(layer.bias.detach().any())


def test_heads_are_drawn_as_the_network_is() -> None:
    for init in ("pytorch", "xavier"):
        network = Network(torch.nn.Identity(), 4, make_layout("class", 2), init)  # type: ignore[arg-type]
        (_, bias) = network.add_heads(1, torch.device("cpu"), lambda _: torch.Generator().manual_seed(0))
        assert bool(bias.detach().any()) == (init == "pytorch")


def test_a_task_yields_all_of_its_examples_in_order() -> None:
    task = make_task(1)
    batches = list(task.batches(8))

    assert [len(batch.labels) for batch in batches] == [8, 8, 4]
    assert torch.equal(torch.cat([batch.inputs for batch in batches]), task.inputs)
    assert torch.equal(torch.cat([batch.labels for batch in batches]), task.labels)
    assert {batch.task_ids for batch in batches} == {1}


@pytest.mark.parametrize("kind", KINDS)
def test_features_feed_every_head(kind: IncrementalType) -> None:
    network = make_network(kind, n_heads=1)

    assert network.backbone(INPUTS).shape == (20, N_FEATURES)
    assert network.heads[0].in_features == N_FEATURES


def test_a_convolutions_bound_counts_the_pixels_of_its_kernel() -> None:
    """3 input channels in 1 group and a kernel of 4 x 4: 48 values, so ±1/sqrt(48); in 3 groups 16, so ±¼."""
    for groups, bound in ((1, 48**-0.5), (3, 0.25)):
        layer = nn.Conv2d(3, 300, 4, groups=groups)
        initialise_layer(layer, torch.Generator().manual_seed(0))
        for values in (layer.weight, layer.bias):
            assert values is not None
            assert 0.97 * bound < values.abs().max() <= bound
    again = nn.Conv2d(3, 300, 4, groups=3)
    initialise_layer(again, torch.Generator().manual_seed(0))
    assert torch.equal(again.weight, layer.weight)


def test_a_layer_without_a_bias_is_drawn_alike() -> None:
    layers = [nn.Linear(5, 4), nn.Linear(5, 4, bias=False)]
    for layer in layers:
        initialise_layer(layer, torch.Generator().manual_seed(0))
    assert torch.equal(layers[0].weight, layers[1].weight)


def test_frozen_norms_keep_their_statistics_in_training() -> None:
    backbone = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.LayerNorm(4))
    network = Network(backbone, 4, make_layout("task"))
    modes = []
    for frozen in (False, True, False):
        network.frozen_norms = frozen
        assert network.train() is network
        modes.append([module.training for module in backbone])
        before = backbone[1].running_mean.clone()
        network.backbone(torch.ones(3, 4))
        assert torch.equal(backbone[1].running_mean, before) == frozen
    assert modes == [[True] * 4, [True, False, True, True], [True] * 4]
    network.frozen_norms = True
    assert not any(module.training for module in network.eval().modules())


def test_one_example_in_training_meets_the_running_statistics() -> None:
    """A batch of one has no variance; BatchNorm would raise."""
    norm = nn.BatchNorm1d(4)
    network = Network(nn.Sequential(nn.Linear(4, 4), norm), 4, make_layout("task")).train()
    network.backbone(torch.randn(8, 4))
    kept = [norm.running_mean.clone(), norm.running_var.clone(), norm.num_batches_tracked.clone()]
    alone = torch.randn(1, 4)

    found = network.backbone(alone)

    assert norm.training, "it is back in training mode"
    assert torch.equal(found, network.eval().backbone(alone))
    assert [torch.equal(*pair) for pair in zip(kept, norm.buffers(), strict=True)] == [True] * 3
    network.train().backbone(torch.randn(2, 4))
    assert not torch.equal(norm.running_mean, kept[0]), "two examples count"


def test_one_example_of_many_pixels_is_normalised_by_itself() -> None:
    norm = nn.BatchNorm2d(2)
    network = Network(norm, 2, make_layout("task")).train()
    image = torch.randn(1, 2, 3, 3)
    assert torch.equal(network.backbone(image), nn.BatchNorm2d(2)(image))


def test_a_norm_is_back_in_training_mode_after_an_error() -> None:
    norm = nn.BatchNorm1d(4)
    Network(norm, 4, make_layout("task")).train()
    with pytest.raises(RuntimeError):
        norm(torch.randn(1, 3))
    assert norm.training
