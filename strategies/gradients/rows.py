"""The two products of a step with a matrix of few long rows: with a vector, and of its transpose with a vector."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from strategies.lazy import F, torch

if TYPE_CHECKING:
    from torch import Tensor

_WIDTH = 512
"""Columns of a block. On one thread, blocks of 256 to 1,024 columns take as long as each other, longer ones longer."""

_FEW_COLUMNS = 4096
"""With fewer columns, a call with 8-bit numbers takes longer than reading them in float32."""

_MOST = 127
"""The largest level; -128 is not used."""


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


class ByteRows:
    """The products with rows of 8-bit numbers; `along` rounds values and sums to bfloat16, with sums in float32.

    A step waits for V to arrive from memory, so a quarter of the bytes is less than half the time. PyTorch has both
    products for quantised models: of a bfloat16 vector and an int8 matrix, and bags of embeddings in uint8, in which
    each row ends with its scale and its offset. The bags' table has the k rows of a block of columns one after the
    other, so that it is read from beginning to end; bag i is the sum of block i's rows, each times a weight.

    Args:
        levels: (k, *shape) int8, from -127 to 127.
        scales: (k,) float32; row i of V is levels[i] · scales[i].
    """

    def __init__(self, levels: Tensor, scales: Tensor) -> None:
        k, n_columns = flat(levels).shape
        n_blocks = -(-n_columns // _WIDTH)
        padding = n_blocks * _WIDTH - n_columns  # the product reads past the end of rows of other lengths
        self._levels = F.pad(flat(levels), (0, padding)) if padding else flat(levels).contiguous()
        self._scales, self._ones = scales, torch.ones(k, dtype=torch.bfloat16)
        self._values, self._n_columns = self._levels.new_zeros(1, n_blocks * _WIDTH, dtype=torch.bfloat16), n_columns
        scale_and_offset = torch.tensor([1.0, -128.0]).view(torch.uint8)  # levels are moved up by 128
        self._table = torch.empty(n_blocks, k, _WIDTH + len(scale_and_offset), dtype=torch.uint8)
        self._table[:, :, :_WIDTH] = (self._levels.view(torch.uint8) ^ 128).view(k, n_blocks, _WIDTH).transpose(0, 1)
        self._table[:, :, _WIDTH:] = scale_and_offset
        self._table = self._table.view(n_blocks * k, -1)
        self._all = torch.arange(n_blocks * k, dtype=torch.int32)
        self._first = torch.arange(n_blocks, dtype=torch.int32) * k
        self._weights = torch.empty(n_blocks, k)

    def along(self, values: Tensor) -> Tensor:
        """Return V times values of the parameter's shape, (k,) float32."""
        self._values[0, : self._n_columns].copy_(values.reshape(-1))
        found: Tensor = torch.ops.aten._weight_int8pack_mm(self._values, self._levels, self._ones)
        return found[0].float() * self._scales

    def add_to(self, target: Tensor, sums: Tensor) -> None:
        """Add Vᵀ times `sums` (k,) float32 to `target` of the parameter's shape, float32."""
        each = self._weights.copy_(sums * self._scales).view(-1)
        found: Tensor = torch.ops.quantized.embedding_bag_byte_rowwise_offsets(
            self._table, self._all, self._first, per_sample_weights=each
        )
        target += found.view(-1)[: self._n_columns].view_as(target)


def row_products(rows: Tensor, scales: Tensor | None) -> RowProducts:
    """Return the products with a matrix of few rows as this machine computes them best.

    On a GPU, on a CPU without AVX-512, and of small parameters, 8-bit rows are multiplied as a copy in float32.

    Args:
        rows: (k, *shape) float32, or int8 with scales.
        scales: (k,) float32, by which 8-bit rows are multiplied; None for rows in float32.
    """
    if scales is None:
        return FloatRows(rows)
    if rows[0].numel() >= _FEW_COLUMNS and rows.device.type == "cpu" and multiplies_bytes():
        return ByteRows(rows, scales)
    return FloatRows(from_bytes(rows, scales))


def multiplies_bytes() -> bool:
    """Return whether PyTorch multiplies 8-bit rows fast on this CPU."""
    return (
        torch.backends.cpu.get_cpu_capability() == "AVX512"
        and hasattr(torch.ops.aten, "_weight_int8pack_mm")
        and hasattr(torch.ops.quantized, "embedding_bag_byte_rowwise_offsets")
    )


def in_bytes(rows: Tensor, most: Tensor) -> tuple[Tensor, Tensor]:
    """Return rows (k, *shape) float32 as levels (k, *shape) int8 and scales (k,) float32, 127 being a row's largest.

    Levels are the nearest, or towards 0 in columns whose squares would exceed `most`. Then what the squares of
    eigenvectors leave of a diagonal is not negative, and makes it exact.

    Args:
        rows: of which the squares of each column add up to `most` or less, but for rounding.
        most: of each column, (*shape) float32.
    """
    scales = flat(rows).abs().amax(1) / _MOST
    levels = torch.empty_like(rows, dtype=torch.int8)
    _round_into(levels, rows, scales, torch.full_like(most, 0.5))
    over = squares(levels, scales) > most
    if over.any():
        _round_into(levels, rows, scales, 0.5 - 0.5 * over)
    return levels, scales


def _round_into(levels: Tensor, rows: Tensor, scales: Tensor, added: Tensor) -> None:
    """Write rows / scales into `levels`, moved away from 0 by `added` (*shape) before their fractions are cut off.

    It goes row by row, since large temporary tensors are fetched from the system each time.
    """
    divisors = scales.clamp_min(torch.finfo(torch.float32).tiny)
    for level, row, divisor in zip(levels, rows, divisors, strict=True):
        exact = row / divisor
        level.copy_(exact.add_(torch.copysign(added, exact)))


def squares(rows: Tensor, scales: Tensor | None) -> Tensor:
    """Return the sum of the rows' squares, (*shape) float32, for arguments like those of `row_products`."""
    if scales is None:
        return rows.square().sum(0)
    total = torch.zeros(rows.shape[1:], device=rows.device)
    for level, scale in zip(rows, scales, strict=True):
        row = level * scale
        total.addcmul_(row, row)
    return total


def from_bytes(levels: Tensor, scales: Tensor) -> Tensor:
    """Return the rows (k, *shape) float32 of which these are the levels and scales."""
    return levels * scales.view(-1, *[1] * (levels.dim() - 1))


def flat(rows: Tensor) -> Tensor:
    """Return rows (k, *shape) as (k, P)."""
    return rows.reshape(rows.shape[0], -1)
