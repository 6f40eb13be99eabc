from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from tiny_worlds import make_network, make_task
from torch import Tensor, nn
from torch.nn import functional as F

from strategies import Batch, Network
from strategies.importance import FisherKind, fisher_diagonal, squared_gradients

FISHER_KINDS: tuple[FisherKind, ...] = ("true", "empirical", "predicted")


def generator(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def logits_of(network: Network, n_seen: int = 2) -> Callable[[Batch], tuple[Tensor, int]]:
    return lambda batch: network.training_logits(batch.inputs, batch.task_ids, n_seen, "seen")


def chosen_labels(logits: Tensor, labels: Tensor, kind: FisherKind) -> Tensor:
    if kind == "true":
        return torch.multinomial(logits.detach().softmax(1), 1, generator=generator())[:, 0]
    return labels if kind == "empirical" else logits.argmax(1)


def one_example_at_a_time(network: Network, batch: Batch, first: int, kind: FisherKind) -> dict[str, Tensor]:
    """Return the mean of the squared gradients, one backward pass an example."""
    logits, _ = logits_of(network)(batch)
    labels = chosen_labels(logits, batch.labels - first, kind)
    sums = {name: torch.zeros_like(p) for name, p in network.named_parameters()}
    for row in range(len(labels)):
        one = Batch(batch.inputs[row : row + 1], batch.labels[row : row + 1], batch.task_ids)
        loss = F.cross_entropy(logits_of(network)(one)[0], labels[row : row + 1])
        gradients = torch.autograd.grad(loss, list(network.parameters()), allow_unused=True)
        for name, gradient in zip(sums, gradients, strict=True):
            sums[name] += 0 if gradient is None else gradient.square()
    return {name: total / len(labels) for name, total in sums.items()}


@pytest.mark.parametrize("fisher", FISHER_KINDS)
@pytest.mark.parametrize(("kind", "first"), [("task", 2), ("class", 0), ("domain", 0)])
def test_fisher_is_the_mean_of_each_examples_squared_gradient(fisher: FisherKind, kind: str, first: int) -> None:
    network = make_network(kind, n_heads=1 if kind == "domain" else 2)  # type: ignore[arg-type]
    batch = make_task(1, kind).take(torch.arange(20))  # type: ignore[arg-type]
    found = fisher_diagonal(network, [batch], logits_of(network), fisher, generator())
    expected = one_example_at_a_time(network, batch, first, fisher)

    for name, values in expected.items():
        if name in found:
            torch.testing.assert_close(found[name], values)
        else:
            assert bool((values == 0).all())
    assert sum(float(values.sum()) for values in found.values()) > 0


def test_fisher_is_not_the_square_of_the_mean_gradient() -> None:
    network = make_network("class", n_heads=2)
    batch = make_task(1, "class").take(torch.arange(20))
    loss = F.cross_entropy(logits_of(network)(batch)[0], batch.labels)
    mean_gradients = torch.autograd.grad(loss, list(network.parameters()))
    found = fisher_diagonal(network, [batch], logits_of(network), "empirical", generator())

    squared_means = sum(float(gradient.square().sum()) for gradient in mean_gradients)
    assert sum(float(values.sum()) for values in found.values()) > 2 * squared_means


def test_fisher_of_one_layer_equals_the_numbers_by_hand() -> None:
    """With all weights 0 and x = 2, p = (½, ½), the gradients are ±½·2 for weights and ±½ for biases."""
    layer = nn.Linear(1, 2)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    network = nn.Sequential(layer)
    batch = Batch(torch.tensor([[2.0], [4.0]]), torch.tensor([0, 1]), 0)
    found = fisher_diagonal(network, [batch], lambda b: (network(b.inputs), 0), "empirical", generator())

    assert found["0.weight"].tolist() == [[2.5], [2.5]]  # (1² + 2²) / 2
    assert found["0.bias"].tolist() == [0.25, 0.25]


def test_fisher_does_not_depend_on_how_examples_are_batched() -> None:
    network = make_network("task", n_heads=2)
    task = make_task(1)
    whole = fisher_diagonal(network, list(task.batches(20)), logits_of(network), "empirical", generator())
    parts = fisher_diagonal(network, list(task.batches(7)), logits_of(network), "empirical", generator())

    assert whole.keys() == parts.keys()
    for name, values in whole.items():
        torch.testing.assert_close(values, parts[name])


def test_true_fisher_averages_to_the_expectation_over_labels() -> None:
    network = make_network("task", n_heads=1)
    x = make_task(0).inputs[:1]
    repeats = 20_000
    batch = Batch(x.expand(repeats, -1), torch.zeros(repeats, dtype=torch.int64), 0)
    found = fisher_diagonal(network, [batch], logits_of(network, 1), "true", generator())

    log_p = network.heads[0](network.backbone(x)).log_softmax(1)[0]
    used = dict(network.named_parameters())
    for label in range(2):
        gradients = torch.autograd.grad(-log_p[label], list(used.values()), retain_graph=True)
        probability = float(log_p[label].detach().exp())
        for name, gradient in zip(used, gradients, strict=True):
            found[name] = found[name] - probability * gradient.square()
    scale = max(float(g.square().max()) for g in gradients)
    assert all(float(rest.abs().max()) < 0.03 * scale for rest in found.values())


def test_true_fisher_draws_only_from_its_own_generator() -> None:
    network = make_network("task", n_heads=1)
    batch = make_task(0).take(torch.arange(20))

    def fisher(seed: int, global_seed: int) -> Tensor:
        torch.manual_seed(global_seed)
        found = fisher_diagonal(network, [batch], logits_of(network, 1), "true", generator(seed))
        return found["heads.0.weight"]

    assert torch.equal(fisher(1, 1), fisher(1, 2))
    assert not torch.equal(fisher(1, 1), fisher(2, 1))


def test_layers_without_a_bias_have_no_importance_for_one() -> None:
    network = nn.Sequential(nn.Linear(4, 2, bias=False))
    squares = squared_gradients(network, lambda: network(make_task(0).inputs).sum())

    assert squares.keys() == {"0.weight"}


def test_hooks_leave_with_an_error() -> None:
    network = nn.Sequential(nn.Linear(4, 2))

    def fails() -> Tensor:
        raise RuntimeError("lost")

    with pytest.raises(RuntimeError, match="lost"):
        squared_gradients(network, fails)
    squared_gradients(network, lambda: network(make_task(0).inputs).sum())
    assert not network[0]._forward_hooks
