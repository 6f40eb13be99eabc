"""Analytic methods: their weights against numbers by hand, brute force, and scikit-learn."""

from __future__ import annotations

import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from torch import Tensor

from strategies import TaskData
from strategies.methods.ridge import STRENGTHS, best_strength, cross_validation, ridge_weights
from strategies.parts import analytic
from strategies.parts.analytic import EXACT_ROWS, SumState, add_products, blocks, whole
from tests.strategies.tiny_worlds import KINDS, learn_tasks, make_learner, make_task


def all_data(n_tasks: int = 3) -> tuple[Tensor, Tensor]:
    """Return the inputs (60, 4) and classes (60,) of all tasks of the class type, float64 and int64."""
    tasks = [make_task(index, "class") for index in range(n_tasks)]
    return torch.cat([task.inputs for task in tasks]).double(), torch.cat([task.labels for task in tasks])


def test_ridge_by_hand() -> None:
    """Inputs 0, 1, 2 of the classes 0, 0, 1, λ = 1: G = 2, c₁ = (2 - 1)·1 = 1, so w₁ = 1/3 and b₁ = 1/3 - 1/3 = 0."""
    learner = make_learner("ridge", kind="class", hyperparameters={"features": 0, "regularisation": 1.0})
    inputs = torch.tensor([[0.0, 0, 0, 0], [1.0, 0, 0, 0], [2.0, 0, 0, 0]])
    learner.learn(TaskData(0, inputs, torch.tensor([0, 0, 1]), 0))
    weights, offsets = learner.strategies[0].solve()  # type: ignore[attr-defined]
    assert weights[0].tolist() == pytest.approx([-1 / 3, 1 / 3])
    assert offsets.tolist() == pytest.approx([1.0, 0.0])


@pytest.mark.parametrize("features", [0, 50])
@pytest.mark.parametrize("order", [[0, 1, 2], [2, 0, 1]])
def test_ridge_is_the_solution_on_all_data_at_once(features: int, order: list[int]) -> None:
    """To 1e-6 of the largest weight, from a least-squares solver on the rows themselves."""
    learner = make_learner("ridge", kind="class", hyperparameters={"features": features, "regularisation": 0.5})
    strategy = learner.strategies[0]
    for place, index in enumerate(order):
        task = make_task(index, "class")
        learner.learn(TaskData(place, task.inputs, task.labels - 2 * index + 2 * place, place))
    inputs = torch.cat([make_task(index, "class").inputs for index in order])
    labels = torch.cat([make_task(index, "class").labels - 2 * index + 2 * p for p, index in enumerate(order)])
    rows = inputs.double()
    if features:
        rows = strategy._random_features().rounded(inputs).double() / 127  # type: ignore[attr-defined]
    targets = torch.nn.functional.one_hot(labels, 6).double()
    centred, middle = rows - rows.mean(0), targets - targets.mean(0)
    stacked = torch.cat([centred, math.sqrt(0.5) * torch.eye(rows.shape[1], dtype=torch.float64)])
    wanted = torch.linalg.lstsq(stacked, torch.cat([middle, torch.zeros(rows.shape[1], 6).double()])).solution
    weights, offsets = strategy.solve()  # type: ignore[attr-defined]
    assert float((weights - wanted).abs().max() / wanted.abs().max()) < 1e-6
    assert torch.allclose(offsets, targets.mean(0) - rows.mean(0) @ wanted, atol=1e-6)


def test_random_features_give_the_same_sums_in_any_order() -> None:
    """Bit for bit: the sums are whole numbers."""
    found = []
    for order in ([0, 1, 2], [2, 1, 0]):
        learner = make_learner("slda", kind="domain", hyperparameters={"features": 40})
        for place, index in enumerate(order):
            task = make_task(index, "domain")
            learner.learn(TaskData(place, task.inputs, task.labels, place))
        found.append(learner.strategies[0].state)
    assert torch.equal(found[0].sums, found[1].sums)
    assert all(torch.equal(one, other) for one, other in zip(found[0].products, found[1].products, strict=True))


def test_cross_validation_is_leaving_one_out_with_the_mean_leverage() -> None:
    """Against the rows: leverages from the hat matrix, and each prediction without its own example."""
    inputs, labels = all_data()
    targets = torch.nn.functional.one_hot(labels, 6).double()
    centred, middle, n = inputs - inputs.mean(0), targets - targets.mean(0), len(inputs)
    gram, right, counts = centred.T @ centred, centred.T @ middle, targets.sum(0)
    for strength in (0.1, 10.0):
        weights = ridge_weights(gram, right, strength)
        assert weights is not None
        hat = centred @ torch.linalg.inv(gram + strength * torch.eye(4).double()) @ centred.T + 1 / n
        residuals = middle - centred @ weights
        wanted = float(n * residuals.square().sum() / (n - hat.trace()) ** 2)
        values = torch.linalg.eigvalsh(gram)
        assert cross_validation(values, weights, right, counts, strength) == pytest.approx(wanted, rel=1e-9)
        left_out = residuals / (1 - hat.diagonal())[:, None]
        for index in (0, 17):
            rest = torch.arange(n) != index
            mean, own = inputs[rest].mean(0), inputs[rest] - inputs[rest].mean(0)
            without = ridge_weights(own.T @ own, own.T @ (targets[rest] - targets[rest].mean(0)), strength)
            assert without is not None
            answer = targets[rest].mean(0) + (inputs[index] - mean) @ without
            assert torch.allclose(targets[index] - answer, left_out[index], atol=1e-9), "the formula that it stands for"
        assert wanted == pytest.approx(float(left_out.square().sum() / n), rel=0.05), "and it is close to that"


def test_auto_takes_the_least_error() -> None:
    inputs, labels = all_data()
    targets = torch.nn.functional.one_hot(labels, 6).double()
    centred = inputs - inputs.mean(0)
    gram, right, counts = centred.T @ centred, centred.T @ (targets - targets.mean(0)), targets.sum(0)
    chosen = best_strength(gram, right, counts)
    values = torch.linalg.eigvalsh(gram)

    def error(strength: float) -> float:
        weights = ridge_weights(gram, right, strength)
        assert weights is not None
        return cross_validation(values, weights, right, counts, strength)

    assert error(chosen) == min(map(error, STRENGTHS))
    learner = learn_tasks(
        make_learner("ridge", kind="class", hyperparameters={"features": 0, "regularisation": "auto"}), range(3)
    )
    assert learner.strategies[0].diagnose()["regularisation", ""] == chosen


def test_slda_is_that_of_scikit_learn() -> None:
    """With equal priors and scikit-learn's shrinkage, which is towards the mean variance too."""
    inputs, labels = all_data()
    learner = learn_tasks(
        make_learner("slda", kind="class", hyperparameters={"features": 0, "shrinkage": 0.2}), range(3)
    )
    weights, offsets = learner.strategies[0].solve()  # type: ignore[attr-defined]
    theirs = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.2, priors=np.full(6, 1 / 6))
    theirs.fit(inputs.numpy(), labels.numpy())
    means = torch.stack([inputs[labels == c].mean(0) for c in range(6)])
    within = torch.cat([inputs[labels == c] - means[c] for c in range(6)])
    covariance = within.T @ within / len(inputs)
    covariance = 0.8 * covariance + 0.2 * covariance.diagonal().mean() * torch.eye(4).double()
    wanted = torch.linalg.solve(covariance, means.T)
    assert torch.allclose(weights, wanted, rtol=1e-9)
    assert torch.allclose(offsets, -0.5 * (means.T * wanted).sum(0), rtol=1e-9)
    ours = (inputs @ weights + offsets).argmax(1).numpy()
    assert (ours == theirs.predict(inputs.numpy())).mean() > 0.95, "which standardises each class's features first"


def test_slda_of_equal_examples_answers_with_the_nearest_mean() -> None:
    """Nothing varies inside a class, so the metric is the identity."""
    learner = make_learner("slda", kind="class", hyperparameters={"features": 0})
    inputs = torch.tensor([[0.1, 0.2, 0, 0]] * 3 + [[0.7, 0.3, 0, 0]] * 3)
    learner.learn(TaskData(0, inputs, torch.tensor([0, 0, 0, 1, 1, 1]), 0))
    assert learner.logits(torch.tensor([[0.3, 0.2, 0, 0], [0.5, 0.3, 0, 0]]), 0).argmax(1).tolist() == [0, 1]


def test_ncm_by_hand() -> None:
    """Means (1, 0, 0, 0) and (4, 0, 0, 0): the border is at 2.5."""
    learner = make_learner("ncm", kind="class")
    inputs = torch.tensor([[0.0, 0, 0, 0], [2.0, 0, 0, 0], [4.0, 0, 0, 0]])
    learner.learn(TaskData(0, inputs, torch.tensor([0, 0, 1]), 0))
    asked = torch.tensor([[2.49, 0, 0, 0], [2.51, 0, 0, 0]])
    assert learner.logits(asked, 0).argmax(1).tolist() == [0, 1]
    assert learner.logits(torch.zeros(1, 4), 0).tolist() == [[-1.0, -16.0]]


def test_blocks_hold_the_symmetric_matrix() -> None:
    features = torch.arange(1.0, 21.0).view(2, 10)
    products = [torch.zeros(n, 10 - first, dtype=torch.int32) for first, n in blocks(10)]
    add_products(products, features)
    assert torch.equal(whole(products), (features.T @ features).double())
    assert SumState().n_inputs == 0


@pytest.mark.parametrize("by_bytes", [True, False])
def test_products_of_whole_numbers_are_not_rounded(by_bytes: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest sums too, in either way to multiply."""
    if not by_bytes:
        monkeypatch.setattr(analytic, "multiplies_bytes", lambda: False)
    features = torch.randint(-127, 128, (EXACT_ROWS, 70), generator=torch.Generator().manual_seed(1)).float()
    features[:, :3], features[:, 65:] = 127, -127
    products = [torch.zeros(n, 70 - first, dtype=torch.int32) for first, n in blocks(70)]
    add_products(products, features)
    assert torch.equal(whole(products), features.double().T @ features.double())
    assert int(products[0][0, 69]) == -(127**2) * EXACT_ROWS


def test_products_that_saturate_are_not_used() -> None:
    """OneDNN without VNNI adds two products of bytes at 16 bits."""
    code = """
import torch
from strategies.parts.analytic import add_products, blocks
products = [torch.zeros(n, 500 - first, dtype=torch.int32) for first, n in blocks(500)]
add_products(products, torch.full((1000, 500), 127.0))
print(products[0].unique().tolist())
"""
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.split() == [f"[{1000 * 127**2}]"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_network_is_neither_trained_nor_asked(kind: str) -> None:
    learner = make_learner("ridge", kind=kind, hyperparameters={"features": 30})  # type: ignore[arg-type]
    before = {name: p.detach().clone() for name, p in learner.network.backbone.named_parameters()}
    learn_tasks(learner, range(3))
    assert all(torch.equal(before[name], p) for name, p in learner.network.backbone.named_parameters())
