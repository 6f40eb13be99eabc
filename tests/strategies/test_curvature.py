"""The Fisher as a diagonal plus low rank, against the whole matrix built from autograd, one example after the other."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_worlds import gradients_of, learn_tasks, make_learner, make_task, parameters_of, same
from torch import Tensor
from torch.nn import functional as F

from strategies import Learner, StreamSizes, TrialDivergedError
from strategies.gradients.rows import in_bytes
from strategies.methods.ewc import EwcHyperparameters
from strategies.parts import importance
from strategies.parts.curvature import CurvedPull, CurvedState, leading_rows, merge_curvature
from strategies.parts.quadratic import penalty_value

LOW_RANK = {"structure": "low_rank", "variant": "online", "fisher": "empirical", "fisher_samples": None}
INT8 = {"eigenvectors_in": "int8"}


def ewc(rank: int, kind: Any = "domain", **own: Any) -> Learner:
    return make_learner("ewc", kind=kind, hyperparameters=LOW_RANK | {"rank": rank} | own)


def dense_fisher(learner: Learner, task: int, kind: Any = "domain") -> Tensor:
    """Return 1/n Σ ggᵀ (P, P) float64 over the parameters in order; heads that take no part have zeros."""
    data, parameters = make_task(task, kind), list(learner.network.parameters())
    learner.network.eval()
    total = torch.zeros(1)
    for row in range(len(data)):
        logits, first = learner.network.training_logits(data.inputs[row : row + 1], task, task + 1, "seen")
        loss = F.cross_entropy(logits, data.labels[row : row + 1] - first)
        found = torch.autograd.grad(loss, parameters, allow_unused=True)
        flat = torch.cat(
            [torch.zeros_like(p).ravel() if g is None else g.ravel() for p, g in zip(parameters, found, strict=True)]
        )
        total = total + torch.outer(flat.double(), flat.double())
    return total / len(data)


def kept_matrix(learner: Learner) -> Tensor:
    """Return R + VᵀV (P, P) float64 of the learner's state."""
    state: CurvedState = learner.strategies[0].state
    named = learner.network.named_parameters()
    zeros = {name: torch.zeros_like(p) for name, p in named}
    rows = state.rows()
    k = len(next(iter(rows.values())))
    v = torch.cat([rows.get(n, z.expand(k, *z.shape)).reshape(k, -1) for n, z in zeros.items()], 1).double()
    r = torch.cat([state.importance.get(n, z).ravel() for n, z in zeros.items()]).double()
    return v.T @ v + torch.diag(r)


@pytest.mark.parametrize("kind", ["domain", "task", "class"])
def test_with_enough_rank_it_is_the_whole_fisher(kind: Any) -> None:
    learner = learn_tasks(ewc(100, kind, penalty_weight=0.5), [0])
    torch.testing.assert_close(kept_matrix(learner), dense_fisher(learner, 0, kind), rtol=1e-5, atol=1e-6)


def test_the_running_sum_over_tasks_is_that_of_dense_matrices() -> None:
    learner = learn_tasks(ewc(200, "task", penalty_weight=0.5, fisher_decay=0.5), [0])
    first = dense_fisher(learner, 0, "task")
    learn_tasks(learner, [1])
    wanted = dense_fisher(learner, 1, "task")
    wanted[: len(first), : len(first)] += 0.5 * first
    torch.testing.assert_close(kept_matrix(learner), wanted, rtol=1e-5, atol=1e-6)


def test_the_running_sum_in_int8_is_that_of_dense_matrices() -> None:
    learner = learn_tasks(ewc(200, "task", penalty_weight=0.5, fisher_decay=0.5, **INT8), [0])
    first = dense_fisher(learner, 0, "task")
    learn_tasks(learner, [1])
    wanted = dense_fisher(learner, 1, "task")
    wanted[: len(first), : len(first)] += 0.5 * first
    kept = kept_matrix(learner)
    torch.testing.assert_close(kept.diagonal(), wanted.diagonal(), rtol=1e-5, atol=1e-6)
    assert float((kept - wanted).norm()) < 2 / 127 * float(wanted.norm())  # one level less of the largest, squared


@pytest.mark.parametrize("is_linear", [True, False])
def test_eigenvectors_in_int8_are_the_leading_ones(monkeypatch: pytest.MonkeyPatch, is_linear: bool) -> None:
    if not is_linear:
        monkeypatch.setattr(importance, "only_linear", lambda _: False)
    learner = learn_tasks(ewc(20, **INT8), [0])  # as many as examples, so that no portion is cut short
    state = learner.strategies[0].state
    assert {rows.dtype for rows in state.directions.values()} == {torch.int8}
    rows = torch.cat([state.rows()[name].flatten(1) for name, _ in learner.network.named_parameters()], 1).double()
    values, vectors = torch.linalg.eigh(dense_fisher(learner, 0))
    torch.testing.assert_close(rows.square().sum(1)[:5], values.flip(0)[:5], rtol=2 / 127, atol=0.0)
    lengths = rows[:5].norm(dim=1)
    along = (rows[:5] * vectors.flip(1)[:, :5].T).sum(1).abs()
    torch.testing.assert_close(along, lengths, rtol=0.001, atol=0.0)


def test_a_small_rank_keeps_the_diagonal_and_the_largest_eigenvalue() -> None:
    learner = learn_tasks(ewc(1), [0])
    dense, kept = dense_fisher(learner, 0), kept_matrix(learner)
    torch.testing.assert_close(kept.diagonal(), dense.diagonal(), rtol=1e-5, atol=1e-7)
    directions = learner.strategies[0].state.directions
    squared = float(sum(rows.square().sum() for rows in directions.values()))
    assert 0.95 * float(torch.linalg.eigvalsh(dense)[-1]) < squared <= 1.0001 * float(torch.linalg.eigvalsh(dense)[-1])


def test_rank_zero_is_the_diagonal_bit_for_bit() -> None:
    diagonal = make_learner("ewc", hyperparameters={"variant": "online"})
    low_rank = make_learner("ewc", hyperparameters={"variant": "online", "structure": "low_rank", "rank": 0})
    assert same(parameters_of(learn_tasks(diagonal, range(3))), parameters_of(learn_tasks(low_rank, range(3))))


def test_leading_rows_by_hand() -> None:
    """XᵀX = diag(9, 4) has the eigenvalues 9 and 4; a third row, of zeros, fills up."""
    rows = leading_rows({"w": torch.tensor([[3.0, 0.0], [0.0, 2.0]])}, 3)["w"]
    torch.testing.assert_close(rows.abs(), torch.tensor([[3.0, 0.0], [0.0, 2.0], [0.0, 0.0]]))


def by_hand() -> tuple[CurvedState, torch.nn.Parameter]:
    """H = diag(1, 3) + (1, 2)ᵀ(1, 2) = [[2, 2], [2, 7]], with the anchor at 0 and θ = (1, -1)."""
    state = CurvedState({"w": torch.tensor([1.0, 3.0])}, {"w": torch.zeros(2)})
    state.directions = {"w": torch.tensor([[1.0, 2.0]])}
    parameter = torch.nn.Parameter(torch.tensor([1.0, -1.0]))
    parameter.grad = torch.tensor([1.0, 2.0])
    return state, parameter


def test_the_penalty_and_its_gradient_by_hand() -> None:
    """d = (1, -1): Hd = (0, -5) and dᵀHd = 5, so λ = 0.1 adds (0, -0.5) and the penalty is 0.25."""
    state, parameter = by_hand()
    assert penalty_value(state, {"w": parameter}, 0.1) == pytest.approx(0.25)
    CurvedPull(state, {"w": parameter}, 0.1, 0.01).add_to_gradients()
    torch.testing.assert_close(parameter.grad, torch.tensor([1.0, 1.5]))


def test_a_stiff_step_is_the_implicit_one() -> None:
    """ηλ = 1: I + H = [[3, 2], [2, 8]], d - ηg = (0.9, -1.2), so the step ends at (0.48, -0.27)."""
    state, parameter = by_hand()
    CurvedPull(state, {"w": parameter}, 10.0, 0.1).add_to_gradients()
    assert parameter.grad is not None
    torch.testing.assert_close(parameter.detach() - 0.1 * parameter.grad, torch.tensor([0.48, -0.27]))


def test_a_step_follows_the_whole_fisher() -> None:
    learner = learn_tasks(ewc(100, penalty_weight=0.5), [0])
    dense, task = dense_fisher(learner, 0), make_task(1, "domain")
    parameters = list(learner.network.parameters())
    with torch.no_grad():
        for parameter in parameters:
            parameter.add_(0.3)
    loss = F.cross_entropy(learner.network.training_logits(task.inputs, 1, 2, "seen")[0], task.labels)
    own = torch.cat([g.ravel() for g in torch.autograd.grad(loss, parameters)])
    wanted = own + 0.5 * (dense @ torch.full((len(dense),), 0.3, dtype=torch.float64)).float()
    learner.strategies[0].prepare(task)
    learner.step(task.take(torch.arange(len(task))))
    found = torch.cat([g.ravel() for g in gradients_of(learner).values()])
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_portions_of_any_size_give_the_same_sum() -> None:
    gradients = torch.randn(12, 5, generator=torch.Generator().manual_seed(0))
    states = []
    for size in (1, 5, 12):
        states.append(CurvedState())
        merge_curvature(states[-1], ({"w": some} for some in gradients.split(size)), 12, 5, 1.0)
    wanted = gradients.T @ gradients / 12
    for state in states:
        rows = state.directions["w"]
        torch.testing.assert_close(rows.T @ rows + torch.diag(state.importance["w"]), wanted)


@pytest.mark.parametrize("own", [{}, INT8])
@pytest.mark.parametrize("rank", [4, 60])
@pytest.mark.parametrize("weight", [1e3, 1e8])
def test_a_huge_weight_holds_and_does_not_diverge(weight: float, rank: int, own: dict[str, Any]) -> None:
    learner = learn_tasks(ewc(rank, penalty_weight=weight, **own), [0])
    before = parameters_of(learner)
    learn_tasks(learner, [1, 2])
    moved = torch.cat([(value - before[name]).ravel() for name, value in parameters_of(learner).items()])
    assert 0.0 < float(moved.abs().max()) < 1.0


@pytest.mark.parametrize("as_bytes", [True, False])
@pytest.mark.parametrize("seed", [64, 96, 6004, 6065])  # of 12,000, in which none grew
def test_implicit_steps_never_grow(monkeypatch: pytest.MonkeyPatch, seed: int, as_bytes: bool) -> None:
    """No move from the anchor grows without a gradient, even if rows of V are almost parallel beside a large R.

    Without the larger diagonal of the matrix that is inverted, these moves grow, and others end in an error.
    """
    monkeypatch.setattr("strategies.gradients.rows._FEW_COLUMNS", 1)
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator)

    n = int(torch.randint(2, 12, (), generator=generator))
    k = int(torch.randint(1, n + 1, (), generator=generator))
    state = CurvedState({"w": 10 ** (draw(n) * 12 - 4) * (draw(n) < 0.8)}, {"w": torch.zeros(n)})
    orthogonal = torch.linalg.qr(torch.randn(n, n, generator=generator)).Q[:k]
    state.directions = {"w": orthogonal * 10 ** (draw(k, 1) * 2 - 1)}
    if as_bytes:
        levels, scales = in_bytes(state.directions["w"], torch.full((n,), torch.inf))
        state.directions, state.scales = {"w": levels}, {"w": scales}
    pull_weight = 10 ** float(draw() * 12 - 1)
    parameter = torch.nn.Parameter(torch.randn(n, generator=generator))
    pull = CurvedPull(state, {"w": parameter}, pull_weight, 0.1)
    for _ in range(30):
        before = float(parameter.detach().norm())
        parameter.grad = torch.zeros(n)
        pull.add_to_gradients()
        with torch.no_grad():
            parameter -= 0.1 * parameter.grad
        assert float(parameter.detach().norm()) <= 1.0001 * before


@pytest.mark.parametrize("is_fast", [True, False])
@pytest.mark.parametrize(("weight", "most"), [(0.5, 0.01), (20.0, 0.02), (1e3, 0.03)])  # as published; implicit steps
def test_int8_trains_what_float32_does(
    monkeypatch: pytest.MonkeyPatch, weight: float, most: float, is_fast: bool
) -> None:
    monkeypatch.setattr("strategies.gradients.rows.multiplies_bytes", lambda: is_fast)
    monkeypatch.setattr("strategies.gradients.rows._FEW_COLUMNS", 1)
    learners = [ewc(20, penalty_weight=weight, **own) for own in ({}, INT8)]
    trained = [parameters_of(learn_tasks(learner, range(3))) for learner in learners]
    start = parameters_of(ewc(20))
    moves = [torch.cat([(values[name] - start[name]).ravel() for name in start]) for values in trained]
    assert not torch.equal(*moves)
    assert float((moves[0] - moves[1]).norm()) < most * float(moves[0].norm())


def test_int8_without_eigenvectors_has_no_effect() -> None:
    for structure in ("diagonal", "kronecker"):
        assert "eigenvectors_in" in EwcHyperparameters(structure=structure, **INT8).unused()


def test_a_curvature_that_overflows_is_a_diverged_trial() -> None:
    state, parameter = by_hand()
    state.directions = {"w": torch.tensor([[1e20, 2e20], [1e20, 2e20]])}
    with pytest.raises(TrialDivergedError, match="the curvature of past tasks overflows"):
        CurvedPull(state, {"w": parameter}, 10.0, 0.1).add_to_gradients()


def test_low_rank_is_online_whatever_the_variant() -> None:
    assert EwcHyperparameters(structure="low_rank").unused() == {"variant"}
    runs = [learn_tasks(ewc(3, variant=variant), range(3)) for variant in ("separate", "online")]
    assert same(*map(parameters_of, runs))


def test_memory_is_k_times_the_parameters_more() -> None:
    learner = ewc(3)
    n_parameters = sum(p.numel() for p in learner.network.parameters())
    sizes = StreamSizes((20, 20, 20), (30, 30), (4,))
    learn_tasks(learner, range(3))
    assert learner.strategies[0].kept_bytes() == (2 + 3) * 4 * n_parameters
    assert learner.strategies[0].bytes_to_keep(sizes) in (None, (2 + 3) * 4 * n_parameters)


def test_eigenvectors_in_int8_take_a_quarter_of_the_memory() -> None:
    learner = learn_tasks(ewc(3, **INT8), range(3))
    n_tensors = len(list(learner.network.parameters()))
    n_parameters = sum(p.numel() for p in learner.network.parameters())
    assert learner.strategies[0].kept_bytes() == (2 * 4 + 3) * n_parameters + 3 * 4 * n_tensors


@pytest.mark.parametrize("method", ["ewc", "replay+ewc"])
def test_the_keys_of_diagonal_trials_stay_as_they_were(make_trial: Any, method: str) -> None:
    def key(**own: Any) -> str:
        return str(make_trial(method=method, hyperparameters=own).key)

    assert key(structure="diagonal", rank=20) == key()
    assert key(structure="low_rank", eigenvectors_in="float32") == key(structure="low_rank")
    assert key(structure="low_rank", variant="online") != key(variant="online")


def test_a_network_that_vmap_refuses_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    vectorised = learn_tasks(make_learner("ewc", hyperparameters=LOW_RANK | {"rank": 100}), [0])

    def refuse(*_: object) -> Any:
        raise RuntimeError("no rule")

    monkeypatch.setattr(importance, "only_linear", lambda _: False)
    monkeypatch.setattr(importance, "_vectorised_gradients", lambda *_: iter(refuse, None))
    looped = learn_tasks(make_learner("ewc", hyperparameters=LOW_RANK | {"rank": 100}), [0])
    torch.testing.assert_close(kept_matrix(looped), kept_matrix(vectorised), rtol=1e-5, atol=1e-6)
