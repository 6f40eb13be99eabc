"""Products with long rows in 8 bits, and with gradients that are kept as their factors, against plain matrices."""

from __future__ import annotations

import pytest
import torch

from strategies.gradients.outer import OuterRows, leading_rows_with
from strategies.gradients.rows import ByteRows, FloatRows, from_bytes, in_bytes, row_products
from strategies.parts.curvature import leading_rows


def levels_of(*shape: int) -> torch.Tensor:
    """Return numbers from -127 to 127."""
    return torch.randint(-127, 128, shape, dtype=torch.int8, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("k", [1, 5, 33])
@pytest.mark.parametrize("shape", [(2, 3), (512,), (7, 17, 5), (1024,), (4, 3, 5, 50)])  # part of a block, one, more
def test_products_with_bytes_are_those_of_the_matrix(shape: tuple[int, ...], k: int) -> None:
    levels, scales = levels_of(k, *shape), 2.0 ** -torch.arange(k)
    whole = from_bytes(levels, scales)
    own, values = ByteRows(levels, scales), torch.zeros(shape)
    values.view(-1)[:3] = torch.tensor([1.0, -1.0, 0.0])
    values.view(-1)[-1:] = 2.0
    torch.testing.assert_close(own.along(values), (whole * values).flatten(1).sum(1), rtol=2**-8, atol=0.0)
    sums, target = torch.arange(k) - 1.5, levels_of(*shape).float()
    wanted = target + torch.einsum("k,k...->...", sums, whole)
    own.add_to(target, sums)
    torch.testing.assert_close(target, wanted, rtol=1e-5, atol=1e-4)  # levels and an offset of 128 cancel


def test_products_with_bytes_are_rounded_once() -> None:
    """Sums of 4,096 terms in bfloat16 alone would be off by far more than 2⁻⁷ of the largest."""
    generator = torch.Generator().manual_seed(0)
    levels, values = levels_of(500, 64, 64).abs(), torch.rand(64, 64, generator=generator)
    scales = torch.rand(500, generator=generator)
    own, plain = ByteRows(levels, scales), FloatRows(from_bytes(levels, scales))
    torch.testing.assert_close(own.along(values), plain.along(values), rtol=2**-7, atol=0.0)


def test_bytes_by_hand() -> None:
    """A row's largest is 127 levels. 2.6 levels are 3, or 2 without room; -0.5 are -1, and 0.4 are none."""
    rows = torch.tensor([[127.0, 2.6, 2.6], [-254.0, -5.2, -5.2], [0.0, 0.0, 0.0], [127.0, -0.5, 0.4]])
    levels, scales = in_bytes(rows, torch.tensor([1e6, 46.0, 33.9]))
    assert levels.tolist() == [[127, 3, 2], [-127, -3, -2], [0, 0, 0], [127, -1, 0]]
    assert levels.dtype == torch.int8
    assert scales.tolist() == [1.0, 2.0, 0.0, 1.0]
    assert from_bytes(levels, scales)[1].tolist() == [-254.0, -6.0, -4.0]


@pytest.mark.parametrize("is_fast", [True, False])
def test_the_cpu_decides_how_bytes_are_multiplied(monkeypatch: pytest.MonkeyPatch, is_fast: bool) -> None:
    monkeypatch.setattr("strategies.gradients.rows.multiplies_bytes", lambda: is_fast)
    levels, scales = torch.ones(2, 70, 60, dtype=torch.int8), torch.ones(2)
    assert isinstance(row_products(levels, scales), ByteRows if is_fast else FloatRows)
    assert isinstance(row_products(levels.float(), None), FloatRows)
    assert isinstance(row_products(levels[:, 0], scales), FloatRows)


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
