"""Second moments of an activation tensor: sums of x x^T, of all channels or block by block.

Products and sums are float64. float32 products of some hundred rows would take half the time and
lose up to 4e-6 of ``sqrt(H_ii H_jj)`` where rows are alike, as those of padding are: every addend
then rounds the same way.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from taqstore.errors import TaqError, problem

Array = npt.NDArray[Any]
Float64 = npt.NDArray[np.float64]

# Rows of one product: 25 MB of 6144 channels in float64.
_ROWS = 512
# Fewer rows of a tensor wait for others, to be multiplied with them.
_FEW = 32
# Blocks up to this are squares, all of them one batched product; larger ones are triangles of
# panels so wide: half the work and half the memory.
_PANEL = 512


class SecondMoment:
    """Sums of x x^T, of x, and the number of rows, of tensors ``(..., channel)``.

    Rows with a NaN or an Inf are left out of all of them and counted in `left_out`. The sums are
    those of float64 arithmetic and exactly symmetric.

    Parameters
    ----------
    channels
        Of the tensors.
    block_size
        Channels of a block; None: one block of all.
    """

    def __init__(self, channels: int, block_size: int | None = None) -> None:
        self.channels = channels
        self.block_size = min(block_size or channels, channels)
        self.count = self.left_out = 0
        self.channel_sum = np.zeros(channels)
        number, kind = _laid_out(channels, self.block_size)
        self._sums = kind(number, self.block_size)
        self._few: list[Float64] = []

    @staticmethod
    def memory(channels: int, block_size: int | None = None) -> int:
        """Bytes that one holds."""
        size = min(block_size or channels, channels)
        number, kind = _laid_out(channels, size)
        return kind.memory(number, size) + 8 * channels * (2 * _FEW + 1)

    def add(self, x: npt.ArrayLike) -> None:
        """Add the rows of a float16 or float32 tensor ``(..., channel)``.

        Raises
        ------
        TaqError
            The tensor is of another dtype or has other channels.
        """
        rows = self._checked(x)
        for start in range(0, len(rows), _ROWS):
            self._add_some(rows[start : start + _ROWS].astype(np.float64))

    def blocks(self, dtype: npt.DTypeLike = np.float64) -> Array:
        """The sums so far (channel_block, n, n), 0 beyond the last channel.

        What is beyond `dtype` becomes infinite.
        """
        self._multiply_few()
        found = np.empty(self._sums.shape, dtype)
        with np.errstate(over="ignore"):
            self._sums.put(found)
        return found

    def _checked(self, x: npt.ArrayLike) -> Array:
        tensor = np.asarray(x)
        known = tensor.dtype.type in (np.float16, np.float32)
        if not known or tensor.shape[-1:] != (self.channels,):
            what = f"a tensor of {self.channels} channels of float16 or float32 is due"
            raise TaqError(problem(what, found=f"{tensor.dtype} {tensor.shape}"))
        return tensor.reshape(-1, self.channels)

    def _add_some(self, rows: Float64) -> None:
        with np.errstate(invalid="ignore"):
            total = rows.sum(axis=0)
        if not np.isfinite(total).all():
            sound = np.isfinite(rows).all(axis=1)
            self.left_out += int(len(rows) - sound.sum())
            rows = rows[sound]
            total = rows.sum(axis=0)
        self.count += len(rows)
        self.channel_sum += total
        if len(rows) > _FEW:
            self._sums.add(rows)
        elif len(rows):
            self._few.append(rows)
            if sum(map(len, self._few)) > _FEW:
                self._multiply_few()

    def _multiply_few(self) -> None:
        if self._few:
            self._sums.add(np.concatenate(self._few))
            self._few = []


class _Squares:
    """Sums of many small blocks, float64 (channel_block, n, n)."""

    def __init__(self, number: int, size: int) -> None:
        self.shape = number, size, size
        self._total = np.zeros(self.shape)

    @staticmethod
    def memory(number: int, size: int) -> int:
        """Bytes that are held."""
        return 8 * number * size * size

    def add(self, rows: Float64) -> None:
        """Add ``rows^T rows`` of (row, channel)."""
        spread = self._by_block(rows)
        self._total += np.matmul(spread.transpose(0, 2, 1), spread)

    def _by_block(self, rows: Float64) -> Float64:
        """(channel_block, row, n), each block by itself in memory; 0 beyond the last channel."""
        number, _, size = self.shape
        spread = np.zeros((number, len(rows), size))
        whole = rows.shape[1] // size
        spread[:whole] = rows[:, : whole * size].reshape(len(rows), whole, size).swapaxes(0, 1)
        if whole < number:
            spread[whole, :, : rows.shape[1] - whole * size] = rows[:, whole * size :]
        return spread

    def put(self, out: Array) -> None:
        """Put the sums into `out` (channel_block, n, n), the lower triangles on both sides."""
        out[...] = self._total
        row, column = np.tril_indices(self.shape[1], -1)
        out[:, column, row] = out[:, row, column]


class _Triangles:
    """Sums of large blocks: of each its lower triangle, in panels of rows."""

    def __init__(self, number: int, size: int) -> None:
        self.shape = number, size, size
        bounds = _bounds(size)
        self._panels = [
            [(start, stop, np.zeros((stop - start, stop))) for start, stop in bounds]
            for _ in range(number)
        ]

    @staticmethod
    def memory(number: int, size: int) -> int:
        """Bytes that are held."""
        return 8 * number * sum((stop - start) * stop for start, stop in _bounds(size))

    def add(self, rows: Float64) -> None:
        """As of `_Squares`."""
        size = self.shape[1]
        for index, panels in enumerate(self._panels):
            some = rows[:, index * size : (index + 1) * size]
            for start, stop, panel in panels:
                product = some[:, start:stop].T @ some[:, :stop]
                # The last block may lack channels.
                panel[: product.shape[0], : product.shape[1]] += product

    def put(self, out: Array) -> None:
        """As of `_Squares`."""
        for whole, panels in zip(out, self._panels, strict=True):
            for start, stop, panel in panels:
                whole[start:stop, :stop] = panel
                whole[:start, start:stop] = panel[:, :start].T
                square = whole[start:stop, start:stop]
                square[...] = np.tril(square) + np.tril(square, -1).T


def _laid_out(channels: int, size: int) -> tuple[int, type[_Squares] | type[_Triangles]]:
    """Number of blocks of a size, and how they are kept."""
    return -(-channels // size), _Squares if size <= _PANEL else _Triangles


def _bounds(size: int) -> list[tuple[int, int]]:
    """First and last channel of each panel of a block."""
    return [(start, min(start + _PANEL, size)) for start in range(0, size, _PANEL)]
