"""Products with long rows in bfloat16, and with gradients that are kept as their factors, against plain matrices."""

from __future__ import annotations

import pytest
import torch

from strategies.gradients.outer import OuterRows, leading_rows_with
from strategies.gradients.rows import FloatRows, ShortRows, row_products, shortened
from strategies.parts.curvature import leading_rows


def whole_numbers(*shape: int) -> torch.Tensor:
    """Return numbers from -3 to 3, of which sums and products are exact in bfloat16."""
    return torch.randint(-3, 4, shape, generator=torch.Generator().manual_seed(sum(shape))).float()


@pytest.mark.parametrize("shape", [(2, 3), (7, 17), (8, 12), (1024,), (4, 3, 5, 5), (2, 521)])  # one block, many, none
def test_short_products_of_whole_numbers_are_exact(shape: tuple[int, ...]) -> None:
    rows, values, sums = whole_numbers(5, *shape), whole_numbers(*shape).sign(), whole_numbers(5)
    values.view(-1)[40:] = 0  # sums below 2^8
    target = whole_numbers(*shape)
    short = ShortRows(rows.bfloat16())
    assert torch.equal(short.along(values), (rows * values).flatten(1).sum(1))
    wanted = target + torch.einsum("k,k...->...", sums, rows)
    short.add_to(target, sums)
    assert torch.equal(target, wanted)


def test_short_products_are_rounded_once() -> None:
    """Sums of 4,096 terms in bfloat16 alone would be off by far more than 2⁻⁸ of the largest."""
    generator = torch.Generator().manual_seed(0)
    rows, values = torch.rand(500, 64, 64, generator=generator).bfloat16(), torch.rand(64, 64, generator=generator)
    sums, target = torch.rand(500, generator=generator), torch.zeros(64, 64)
    short, plain = ShortRows(rows), FloatRows(rows.float())
    torch.testing.assert_close(short.along(values), plain.along(values), rtol=2**-8, atol=0.0)
    short.add_to(target, sums)
    wanted = torch.zeros(64, 64)
    plain.add_to(wanted, sums)
    torch.testing.assert_close(target, wanted, rtol=2**-8, atol=0.0)


def test_shortened_by_hand() -> None:
    """Of 8 significant bits the last is 2⁻⁷ beside 1. The nearest to 1 + ¾ 2⁻⁷ is larger, too large without room."""
    large, small = 1 + 2**-7, 1.0
    rows = torch.tensor([[large - 2**-9] * 2, [-large + 2**-9] * 2, [0.0, 2.0**-126]])
    found = shortened(rows, torch.tensor([2.1, 2.03]))
    assert found.tolist() == [[large, small], [-large, -small], [0.0, 2.0**-126]]
    assert found.dtype == torch.bfloat16


@pytest.mark.parametrize("has_instructions", [True, False])
def test_the_cpu_decides_how_short_rows_are_multiplied(monkeypatch: pytest.MonkeyPatch, has_instructions: bool) -> None:
    monkeypatch.setattr("strategies.gradients.rows.has_short_instructions", lambda: has_instructions)
    rows = torch.ones(2, 70, 60)
    assert isinstance(row_products(rows.bfloat16()), ShortRows if has_instructions else FloatRows)
    assert isinstance(row_products(rows), FloatRows)
    assert isinstance(row_products(rows[:, 0].bfloat16()), FloatRows)


def factors(n: int = 6) -> tuple[OuterRows, dict[str, torch.Tensor]]:
    """Return gradients of two layers, the first with a bias, as factors and multiplied out."""
    generator = torch.Generator().manual_seed(1)
    layers = {
        name: (torch.randn(n, wide, generator=generator), torch.randn(n, deep, generator=generator))
        for name, wide, deep in (("a", 4, 3), ("b", 3, 2))
    }
    rows = {f"{name}.weight": torch.einsum("no,ni->noi", delta, a) for name, (a, delta) in layers.items()}
    return OuterRows(layers, frozenset({"a"})), rows | {"a.bias": layers["a"][1]}


def test_factors_are_the_gradients() -> None:
    own, rows = factors()
    parts = dict(sorted(rows.items()))
    matrix = torch.cat([some.flatten(1) for some in parts.values()], 1)
    torch.testing.assert_close(own.gram(), matrix.double() @ matrix.double().T, rtol=1e-5, atol=1e-5)
    squares = own.squares()
    assert squares.keys() == rows.keys()
    torch.testing.assert_close(torch.cat([squares[n].ravel() for n in parts]), matrix.square().sum(0))
    weights = torch.randn(3, 6, generator=torch.Generator().manual_seed(2))
    combined = own.scaled(2.0).combined(weights)
    torch.testing.assert_close(torch.cat([combined[n].flatten(1) for n in parts], 1), 2 * weights @ matrix)
    torch.testing.assert_close(own.along(combined), 2 * weights @ matrix @ matrix.T)


@pytest.mark.parametrize("rank", [2, 20])
def test_leading_rows_of_factors_are_those_of_the_matrix(rank: int) -> None:
    """Above them are rows of one parameter that the factors lack, and none of one that they have."""
    own, rows = factors()
    above = {"a.weight": torch.ones(2, 3, 4), "a.bias": torch.ones(2, 3), "c": torch.tensor([[1.0], [2.0]])}
    found = leading_rows_with(above, own, rank)
    whole = {name: torch.zeros(8, *some.shape[1:]) for name, some in (rows | above).items()}
    for name, some in above.items():
        whole[name][:2] = some
    for name, some in rows.items():
        whole[name][2:] = some
    wanted = leading_rows(whole, rank)
    assert found.keys() == wanted.keys()
    one, other = (torch.cat([v[name].flatten(1) for name in sorted(wanted)], 1) for v in (found, wanted))
    assert one.shape == other.shape == (rank, 22)
    torch.testing.assert_close(one.T @ one, other.T @ other, rtol=1e-4, atol=1e-4)
