"""What is said of the Fisher, against numbers by hand and the dense Fisher of a network of 11 parameters."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from orchestrator.trial.diagnostics.fisher import (
    Gradients,
    effective_rank,
    fisher_rows,
    merged,
    non_negligible,
    shares,
    spectrum,
)
from strategies import Batch, Generators
from strategies.parts import gram, importance


def net() -> nn.Module:
    """Return 2 inputs, a layer `backbone.0` of 2 units with 6 parameters, and a head of 2 outputs without a bias."""
    torch.manual_seed(1)
    module = nn.Module()
    module.backbone = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    module.heads = nn.ModuleList([nn.Linear(2, 2, bias=False)])
    return module


def logits(module: nn.Module, inputs: Tensor) -> Tensor:
    found: Tensor = module.heads[0](module.backbone(inputs))  # type: ignore[index, operator]
    return found


def batch(n: int = 8) -> Batch:
    generator = torch.Generator().manual_seed(0)
    return Batch(torch.randn(n, 2, generator=generator).abs(), torch.arange(n) % 2, 0)


def dense(module: nn.Module, examples: Batch) -> Tensor:
    """Return the Fisher for the labels of the examples, (P, P) float64."""
    rows = []
    for x, y in zip(examples.inputs, examples.labels, strict=True):
        loss = F.cross_entropy(logits(module, x[None]), y[None])
        rows.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(module.parameters()))]))
    matrix = torch.stack(rows).double()
    return matrix.T @ matrix / len(matrix)


def labels(module: nn.Module, examples: Batch) -> Tensor:
    """Return one label for each example, drawn from the model."""
    probabilities = logits(module, examples.inputs).detach().softmax(1)
    return torch.multinomial(probabilities, 1, generator=torch.Generator().manual_seed(3))[:, 0]


def drawn(module: nn.Module, examples: Batch) -> Gradients:
    """Return the gradients for these labels, whatever those of the examples."""
    found = Gradients.drawn(module, examples, lambda b: (logits(module, b.inputs), 0), torch.Generator().manual_seed(3))
    assert found is not None
    return found


@pytest.mark.parametrize("is_linear", [True, False])
def test_the_spectrum_is_that_of_the_dense_fisher(monkeypatch: pytest.MonkeyPatch, is_linear: bool) -> None:
    if not is_linear:
        for module_of_it in (gram, importance):
            monkeypatch.setattr(module_of_it, "only_linear", lambda _: False)
    module, examples = net(), batch()
    own = drawn(module, examples)
    found = {(name, part): value for name, part, value in spectrum(own.products())}
    values, vectors = torch.linalg.eigh(dense(module, Batch(examples.inputs, labels(module, examples), 0)))
    values, vectors = values.flip(0).clamp_min(0), vectors.flip(1)
    assert found["fisher_trace", ""] == pytest.approx(float(values.sum()), rel=1e-5)
    for k in range(5):
        assert found["fisher_eigenvalue", str(k + 1)] == pytest.approx(float(values[k]), rel=1e-4, abs=1e-9)
    share = values / values.sum()
    entropy = -sum(float(p) * math.log(float(p)) for p in share if p > 1e-12)
    assert found["fisher_effective_rank", ""] == pytest.approx(math.exp(entropy), rel=1e-4)
    n_top = int((values[:5] > 1e-9 * values[0]).sum())
    of_layer = vectors[:6, :n_top].square().sum(0).mean()  # the first 6 parameters are the layer's
    assert found["fisher_top_share", "backbone.0"] == pytest.approx(float(of_layer), rel=1e-3)
    assert found["fisher_top_share", "heads"] == pytest.approx(1 - float(of_layer), rel=1e-3)


@pytest.mark.parametrize("is_linear", [True, False])
def test_the_diagonal_is_that_of_the_dense_fisher(monkeypatch: pytest.MonkeyPatch, is_linear: bool) -> None:
    if not is_linear:
        for module_of_it in (gram, importance):
            monkeypatch.setattr(module_of_it, "only_linear", lambda _: False)
    module, examples = net(), batch()
    flat = torch.cat([values.flatten() for values in drawn(module, examples).diagonal().values()]).double()
    wanted = dense(module, Batch(examples.inputs, labels(module, examples), 0)).diagonal()
    torch.testing.assert_close(flat, wanted, rtol=1e-4, atol=1e-8)


def test_negligible_is_up_to_a_hundredth_of_the_mean() -> None:
    """Of 4 values with the mean 1, 0.01 is negligible and 0.011 is not."""
    found = non_negligible({"a": torch.tensor([0.01, 0.011]), "b": torch.tensor([3.979, 0.0])})
    assert found["a"].tolist() == [False, True]
    assert found["b"].tolist() == [True, False]


def test_shares_are_of_all_parameters_and_of_each_layer() -> None:
    masks = {
        "backbone.0.weight": torch.tensor([True, False, False]),
        "backbone.0.bias": torch.tensor([True]),
        "heads.0.weight": torch.tensor([False, False]),
        "heads.1.weight": torch.tensor([True, True]),
    }
    assert list(shares("n", masks, by_layer=True)) == [("n", "", 0.5), ("n", "backbone.0", 0.5), ("n", "heads", 0.5)]


def test_what_was_used_once_stays_used_and_new_parameters_are_new() -> None:
    before = {"a": torch.tensor([True, False, False])}
    now = {"a": torch.tensor([False, True, False]), "b": torch.tensor([True])}
    found = merged(before, now)
    assert found["a"].tolist() == [True, True, False]
    assert found["b"].tolist() == [True]
    assert merged(found, {"b": torch.tensor([False])})["a"].tolist() == [True, True, False], "another task's head"


@pytest.mark.parametrize(("values", "rank"), [((1.0, 1.0, 0.0), 2.0), ((5.0,), 1.0), ((2.0, 1.0, 1.0), 2.0**1.5)])
def test_effective_rank_by_hand(values: tuple[float, ...], rank: float) -> None:
    """With shares ½, ¼, ¼ the entropy is ½ log 2 + ½ log 4 = 1.5 log 2."""
    assert effective_rank(torch.tensor(values, dtype=torch.float64)) == pytest.approx(rank)


def test_the_share_over_tasks_accumulates_and_labels_are_drawn_anew() -> None:
    module = net()
    fresh = Generators(0).fresh
    logits_of = lambda b: (logits(module, b.inputs), 0)  # noqa: E731
    one, ever = fisher_rows(module, batch(), batch(), logits_of, fresh, {})
    again, _ = fisher_rows(module, batch(), batch(), logits_of, fresh, {})
    assert one == again, "the same generators draw the same"
    everything = {name: torch.ones_like(mask) for name, mask in ever.items()}
    rows, _ = fisher_rows(module, batch(), batch(), logits_of, fresh, everything)
    found = {(name, part): value for name, part, value in rows}
    assert found["fisher_share_ever", ""] == 1.0
    assert found["fisher_share", ""] == {(n, p): v for n, p, v in one}["fisher_share", ""]


def test_a_model_without_a_distribution_has_no_fisher() -> None:
    module = net()
    with torch.no_grad():
        module.heads[0].weight.fill_(math.nan)  # type: ignore[index, union-attr]
    assert fisher_rows(module, batch(), batch(), lambda b: (logits(module, b.inputs), 0), Generators(0).fresh, {}) == (
        [],
        {},
    )
