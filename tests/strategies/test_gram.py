"""Inner products of gradients, against the dense Fisher of tiny networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny_worlds import make_network, make_task
from torch import Tensor, nn
from torch.nn import functional as F

from strategies import Batch, Network
from strategies.parts import gram
from strategies.parts.gram import gradient_gram

LogitsOf = Callable[[Batch], tuple[Tensor, int]]


def of_network(network: Network, n_seen: int = 2) -> LogitsOf:
    return lambda batch: network.training_logits(batch.inputs, batch.task_ids, n_seen, "seen")


def rows_of(network: nn.Module, batch: Batch, logits_of: LogitsOf) -> tuple[Tensor, list[str]]:
    """Return every example's gradient as a row, (n, P) float64, and the layer of each column."""
    named = list(network.named_parameters())
    rows = []
    for row in range(len(batch.labels)):
        ids = batch.task_ids[row : row + 1] if isinstance(batch.task_ids, Tensor) else batch.task_ids
        one = Batch(batch.inputs[row : row + 1], batch.labels[row : row + 1], ids)
        logits, first = logits_of(one)
        found = torch.autograd.grad(
            F.cross_entropy(logits, one.labels - first), [p for _, p in named], allow_unused=True
        )
        flat = [torch.zeros(p.numel()) if g is None else g.flatten() for (_, p), g in zip(named, found, strict=True)]
        rows.append(torch.cat(flat))
    return torch.stack(rows).double(), [name.rpartition(".")[0] for name, p in named for _ in range(p.numel())]


def one_batch(kind: Any) -> Batch:
    """Return 12 examples of two tasks."""
    first, second = (make_task(index, kind).take(torch.arange(6)) for index in (0, 1))
    return first.with_remembered(second)


@pytest.mark.parametrize("kind", ["task", "domain", "class"])
def test_it_holds_the_spectrum_of_the_dense_fisher(kind: Any) -> None:
    network, batch = make_network(kind, n_heads=1 if kind == "domain" else 2), one_batch(kind)
    rows, _ = rows_of(network, batch, of_network(network))
    dense = rows.T @ rows / len(rows)
    whole = sum(gradient_gram(network, batch, of_network(network)).values())
    assert isinstance(whole, Tensor)
    exact = torch.linalg.eigvalsh(dense).flip(0)[:12].clamp_min(0)
    found = torch.linalg.eigvalsh(whole / 12).flip(0).clamp_min(0)
    torch.testing.assert_close(found, exact, rtol=1e-5, atol=1e-9)
    assert float(whole.diagonal().mean()) == pytest.approx(float(dense.trace()), rel=1e-5)


def test_the_shares_of_layers_are_those_of_the_dense_eigenvectors() -> None:
    network, batch = make_network("class", n_heads=2), one_batch("class")
    rows, layers = rows_of(network, batch, of_network(network))
    _, vectors = torch.linalg.eigh(rows.T @ rows / len(rows))
    top = vectors[:, -1]
    by_layer = gradient_gram(network, batch, of_network(network))
    whole = torch.stack(list(by_layer.values())).sum(0)
    u = torch.linalg.eigh(whole)[1][:, -1]
    for layer, product in by_layer.items():
        exact = sum(float(v) ** 2 for v, name in zip(top, layers, strict=True) if name == layer)
        assert float(u @ product @ u / (u @ whole @ u)) == pytest.approx(exact, abs=1e-6)


def test_layers_that_are_not_linear_give_the_same_from_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    network, batch = make_network("class", n_heads=2), one_batch("class")
    fast = gradient_gram(network, batch, of_network(network))
    monkeypatch.setattr(gram, "only_linear", lambda network: False)
    slow = gradient_gram(network, batch, of_network(network))
    assert fast.keys() == slow.keys()
    for layer, product in fast.items():
        torch.testing.assert_close(product, slow[layer], rtol=1e-4, atol=1e-8)


def test_a_convolution_is_measured_as_it_is() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 2, 2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3))
    batch = Batch(torch.randn(5, 1, 3, 3), torch.tensor([0, 1, 2, 0, 1]), 0)
    plain: LogitsOf = lambda batch: (net(batch.inputs), 0)  # noqa: E731
    rows, layers = rows_of(net, batch, plain)
    found = gradient_gram(net, batch, plain)
    for layer in ("0", "3"):
        own = rows[:, [name == layer for name in layers]]
        torch.testing.assert_close(found[layer], own @ own.T, rtol=1e-4, atol=1e-8)


def test_too_many_bytes_take_fewer_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    network, batch = make_network("class", n_heads=2), one_batch("class")
    n_parameters = sum(p.numel() for p in network.parameters())
    monkeypatch.setattr(gram, "only_linear", lambda network: False)
    monkeypatch.setattr(gram, "MOST_BYTES", 3 * 8 * n_parameters)
    assert {product.shape for product in gradient_gram(network, batch, of_network(network)).values()} == {(3, 3)}
    monkeypatch.setattr(gram, "MOST_ROWS", 2)
    few = sum(gradient_gram(network, batch, of_network(network)).values())
    rows = rows_of(network, batch, of_network(network))[0][[0, 6]]  # one of each task
    torch.testing.assert_close(few, rows @ rows.T, rtol=1e-4, atol=1e-8)


def test_frozen_layers_have_no_part() -> None:
    network, batch = make_network("class", n_heads=2), one_batch("class")
    network.backbone[0].requires_grad_(False)  # type: ignore[index]
    assert set(gradient_gram(network, batch, of_network(network))) == {"backbone.2", "heads.0", "heads.1"}


@pytest.mark.filterwarnings("ignore")
def test_it_equals_an_independent_implementation() -> None:
    """Besides the dense Fisher above, which needs nothing."""
    curvlinops = pytest.importorskip("curvlinops")
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
    inputs, labels = torch.randn(10, 4), torch.arange(10) % 3
    operator = curvlinops.EFLinearOperator(
        net, nn.CrossEntropyLoss(), list(net.parameters()), [(inputs, labels)], progressbar=False
    )
    n = sum(p.numel() for p in net.parameters())
    dense = torch.as_tensor(operator @ torch.eye(n))
    exact = torch.linalg.eigvalsh(dense.double()).flip(0)[:10].clamp_min(0)
    found = gradient_gram(net, Batch(inputs, labels, 0), lambda batch: (net(batch.inputs), 0))
    whole = torch.stack(list(found.values())).sum(0) / 10
    torch.testing.assert_close(torch.linalg.eigvalsh(whole).flip(0).clamp_min(0), exact, rtol=1e-4, atol=1e-7)
