"""The two products of a step with a matrix of few long rows: with a vector, and of its transpose with a vector."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from strategies.lazy import F, torch

if TYPE_CHECKING:
    from torch import Tensor

_LONGEST, _SHORTEST = 4096, 32
"""Columns of a block, at most and at least. On one thread 4,096 take as long as 256, 16 more than twice as long."""

_FEW_COLUMNS = 4096
"""With fewer columns, a call in bfloat16 takes longer than reading them in float32."""


class RowProducts(Protocol):
    """The products with the columns of V (k, P) that belong to one parameter."""

    def along(self, values: Tensor) -> Tensor:
        """Return V times values of the parameter's shape, (k,) float32."""

    def add_to(self, target: Tensor, sums: Tensor) -> None:
        """Add Vᵀ times `sums` (k,) float32 to `target` of the parameter's shape, float32."""


class FloatRows:
    """The products in float32.

    Args:
        rows: (k, *shape) float32.
    """

    def __init__(self, rows: Tensor) -> None:
        self._rows = flat(rows)

    def along(self, values: Tensor) -> Tensor:
        """Return V times values of the parameter's shape, (k,) float32."""
        return self._rows @ values.reshape(-1)

    def add_to(self, target: Tensor, sums: Tensor) -> None:
        """Add Vᵀ times `sums` (k,) float32 to `target` of the parameter's shape, float32."""
        target += (sums @ self._rows).view_as(target)


class ShortRows:
    """The products in bfloat16, on a CPU that has instructions for it; sums are rounded once, to 8 bits.

    A step waits for V to arrive from memory, so half the bytes are half the time. PyTorch's product of a row and a
    matrix in bfloat16 takes longer than in float32, though. `embedding_bag` takes the time that reading needs: V as
    (k · n, b), in which block i of the product is the sum of the rows i, n + i, 2n + i, …, each times a weight.

    Args:
        rows: (k, *shape) bfloat16.
    """

    def __init__(self, rows: Tensor) -> None:
        self._rows = flat(rows)
        n_columns = self._rows.shape[1]
        width = max(size for size in range(1, _LONGEST + 1) if n_columns % size == 0)
        n_blocks = n_columns // width
        self._has_blocks = width >= _SHORTEST
        self._table = self._rows.reshape(-1, width)
        starts = torch.arange(len(rows), dtype=torch.int32) * n_blocks
        self._taken = (torch.arange(n_blocks, dtype=torch.int32)[:, None] + starts).reshape(-1)
        self._first = torch.arange(n_blocks, dtype=torch.int32) * len(rows)
        self._weights = self._rows.new_empty(n_blocks, len(rows))
        self._values = self._rows.new_empty(n_columns)

    def along(self, values: Tensor) -> Tensor:
        """Return V times values of the parameter's shape, (k,) float32."""
        return (self._rows @ self._values.copy_(values.reshape(-1))).float()

    def add_to(self, target: Tensor, sums: Tensor) -> None:
        """Add Vᵀ times `sums` (k,) float32 to `target` of the parameter's shape, float32."""
        if self._has_blocks:
            each = self._weights.copy_(sums).view(-1)
            found = F.embedding_bag(self._taken, self._table, self._first, mode="sum", per_sample_weights=each)
        else:
            found = sums.bfloat16() @ self._rows
        target += found.view_as(target)


def row_products(rows: Tensor) -> RowProducts:
    """Return the products with rows (k, *shape), float32 or bfloat16, as this machine computes them best.

    Without instructions for bfloat16, on a GPU, and of small parameters, rows in bfloat16 are multiplied as a copy in
    float32.
    """
    is_large = rows[0].numel() >= _FEW_COLUMNS
    if is_large and rows.dtype is torch.bfloat16 and rows.device.type == "cpu" and has_short_instructions():
        return ShortRows(rows)
    return FloatRows(rows.float())


def has_short_instructions() -> bool:
    """Return whether this CPU multiplies numbers in bfloat16."""
    return bool(torch.cpu.get_capabilities().get("avx512_bf16", False))


def shortened(rows: Tensor, most: Tensor) -> Tensor:
    """Return rows (k, *shape) float32 as the nearest bfloat16, or towards 0 in columns whose squares exceed `most`.

    Then what the squares of eigenvectors leave of a diagonal is not negative, and makes it exact.

    Args:
        rows: of which the squares of each column add up to `most` or less, but for rounding.
        most: of each column, (*shape) float32.
    """
    found = rows.bfloat16()
    over = found.float().square().sum(0) > most
    bits = rows[:, over].view(torch.int32)
    found[:, over] = (bits & -0x10000).view(torch.float32).bfloat16()  # without the bits that bfloat16 lacks
    return found


def flat(rows: Tensor) -> Tensor:
    """Return rows (k, *shape) as (k, P)."""
    return rows.reshape(rows.shape[0], -1)
