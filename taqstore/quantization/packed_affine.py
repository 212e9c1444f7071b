"""A rounded weight as MLX's packed affine codes: ``w = scale * code + bias``, codes unsigned.

A signed integer of b bits is code ``integer + 2**(b-1)``, its step the scale. A symmetric grid has
the bias ``-2**(b-1) * step``, which any float holds that holds the step; one with an offset has
``offset - 2**(b-1) * step``. Both are exact, and so are these where MLX has no such width or group:
seven bits in codes of eight, one step repeated for the groups that its inputs make.

A row of codes is one run of bits, the lowest bit of each code first, cut into uint32 words; codes
of 3, 5 and 6 bits cross the ends of bytes and words. On a machine of little endian the bytes of the
words are the run's own bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from taqstore.asked import word_of
from taqstore.errors import LayoutError, problem
from taqstore.quantization.defaults import ScaleDtype
from taqstore.quantization.integer_grid import MLX_GROUPS

PACKED_BITS = (2, 3, 4, 5, 6, 8)
"""Widths of codes that MLX packs."""
WORD_BITS = 32
# Bits spread out at once, one to a byte.
_AT_ONCE = 1 << 26

Floats = npt.NDArray[Any]
# What float32 may have lost of an offset and a step, as a share of the larger.
_LOST = 2.0**-22


@dataclass(frozen=True)
class Packing:
    """How a linear is packed.

    Parameters
    ----------
    scales, biases
        float16 or float32 ``(out, group)``, both of one dtype.
    bits
        Of a code, one of `PACKED_BITS`.
    group_size
        Inputs that share a scale: 32, 64 or 128.
    """

    scales: Floats
    biases: Floats
    bits: int
    group_size: int

    @property
    def inputs(self) -> int:
        """Inputs of the linear."""
        return int(self.scales.shape[1] * self.group_size)

    def dequantized(self, words: npt.NDArray[np.uint32]) -> npt.NDArray[np.float32]:
        """Weights float32 ``(out, in)`` that words of `pack_codes` stand for."""
        codes = unpack_codes(words, self.bits).reshape(*self.scales.shape, -1).astype(np.float32)
        wide = self.scales.astype(np.float32)[..., None] * codes
        return (wide + self.biases.astype(np.float32)[..., None]).reshape(len(words), -1)


def packing_of(
    step: Floats,
    offset: Floats | None,
    *,
    bits: int,
    inputs: int,
    dtype: ScaleDtype = "auto",
) -> Packing:
    """How MLX may hold the integers of a grid.

    Parameters
    ----------
    step
        float32 ``(out, group)``.
    offset
        float32 ``(out, group)``, what the integer 0 stands for; None: 0.
    bits
        Of the integers, 2 to 8.
    inputs
        Of the linear.
    dtype
        Of scales and biases; ``auto``: float16 where that loses nothing, else float32.

    Raises
    ------
    LayoutError
        MLX has no such groups, or `dtype` cannot hold a scale.
    """
    check_dtype(dtype)
    size = mlx_group_size(inputs, step.shape[1])
    width = next((known for known in PACKED_BITS if known >= bits), 0)
    if bits < min(PACKED_BITS) or not width:
        raise LayoutError(problem(f"MLX packs no integers of {bits} bits"))
    biases = -(2.0 ** (bits - 1)) * step.astype(np.float64)
    room = np.zeros_like(biases)
    if offset is not None:
        room = _LOST * np.maximum(np.abs(offset), np.abs(biases))
        biases = biases + offset
    scales = np.repeat(step.astype(np.float64), inputs // step.shape[1] // size, axis=1)
    biases, room = (np.repeat(x, inputs // step.shape[1] // size, axis=1) for x in (biases, room))
    halves = _halves(scales, biases, room)
    if dtype == "float32" or (dtype == "auto" and not halves):
        return Packing(scales.astype(np.float32), biases.astype(np.float32), width, size)
    with np.errstate(over="ignore"):
        kept = Packing(scales.astype(np.float16), biases.astype(np.float16), width, size)
    if not (np.isfinite(kept.scales).all() and np.isfinite(kept.biases).all()):
        raise LayoutError(problem("a scale is beyond float16", remedy="keep float32 scales"))
    return kept


def packed_words(integers: npt.NDArray[np.int8], *, bits: int) -> npt.NDArray[np.uint32]:
    """Signed integers ``(out, in)`` of `bits` bits as words of codes, see `pack_codes`."""
    width = next(known for known in PACKED_BITS if known >= bits)
    return pack_codes(integers.astype(np.int16) + (1 << (bits - 1)), width)


def mlx_group_size(inputs: int, groups: int) -> int:
    """The largest of MLX's group sizes in which steps of `groups` groups are repeated exactly.

    Raises
    ------
    LayoutError
        There is none: groups are no multiple of 32 inputs.
    """
    size = inputs // groups
    for known in sorted(MLX_GROUPS, reverse=True):
        if size % known == 0:
            return known
    what = f"groups of {size} inputs are none that MLX packs"
    raise LayoutError(problem(what, remedy=f"multiples of {min(MLX_GROUPS)} are"))


def check_dtype(dtype: str) -> None:
    """Refuse a dtype of scales that is not known by a MisuseError."""
    word_of(dtype, get_args(ScaleDtype), "dtype")


def packed_bytes(outputs: int, inputs: int, *, bits: int, group_size: int, half: bool) -> int:
    """Bytes of a packed linear: codes, scales and biases."""
    each = 2 if half else 4
    return outputs * (inputs * bits // 8 + 2 * each * (inputs // group_size))


def _halves(scales: Floats, biases: Floats, room: Floats) -> bool:
    """Whether float16 holds scales, and biases up to what float32 had lost of them."""
    with np.errstate(over="ignore"):
        same = scales.astype(np.float16) == scales
        near = np.abs(biases.astype(np.float16) - biases) <= room
    return bool(same.all() and near.all())


def pack_codes(codes: npt.NDArray[Any], bits: int) -> npt.NDArray[np.uint32]:
    """Pack unsigned codes.

    Parameters
    ----------
    codes
        Integers ``(out, in)`` from 0 to ``2**bits - 1``; ``in`` is a multiple of 32.
    bits
        One of `PACKED_BITS`.

    Returns
    -------
    uint32 ``(out, in * bits / 32)``.

    Raises
    ------
    LayoutError
        The width is none of these, the inputs do not fill words, or a code has more bits.

    >>> [hex(word) for word in pack_codes(np.arange(32)[None] % 16, 4)[0]]
    ['0x76543210', '0xfedcba98', '0x76543210', '0xfedcba98']
    """
    rows, inputs = codes.shape
    _check(bits)
    if inputs % WORD_BITS:
        raise LayoutError(problem(f"{inputs} codes of a row are no multiple of {WORD_BITS}"))
    if codes.size and not 0 <= int(codes.min()) <= int(codes.max()) < 1 << bits:
        found = f"{int(codes.min())} to {int(codes.max())}"
        raise LayoutError(problem(f"codes of {bits} bits are 0 to {(1 << bits) - 1}", found=found))
    packed = np.empty((rows, inputs * bits // WORD_BITS), "<u4")
    for part in _parts(rows, inputs * bits):
        spread = np.unpackbits(
            codes[part].astype(np.uint8)[..., None], axis=-1, count=bits, bitorder="little"
        )
        run = np.packbits(spread.reshape(len(spread), -1), axis=-1, bitorder="little")
        packed[part] = run.view("<u4")
    return packed.astype(np.uint32, copy=False)


def unpack_codes(packed: npt.NDArray[np.uint32], bits: int) -> npt.NDArray[np.uint8]:
    """The codes uint8 ``(out, in)`` that `pack_codes` packed.

    Raises
    ------
    LayoutError
        The width is none of `PACKED_BITS`, or the words hold no whole number of 32 codes.
    """
    rows, words = packed.shape
    _check(bits)
    if words % bits:
        raise LayoutError(problem(f"{words} words of a row hold no codes of {bits} bits, 32 by 32"))
    inputs = words * WORD_BITS // bits
    codes = np.empty((rows, inputs), np.uint8)
    for part in _parts(rows, inputs * bits):
        run = np.ascontiguousarray(packed[part], "<u4").view(np.uint8)
        spread = np.unpackbits(run, axis=-1, bitorder="little").reshape(len(run), inputs, bits)
        codes[part] = np.packbits(spread, axis=-1, bitorder="little")[..., 0]
    return codes


def _check(bits: int) -> None:
    if bits not in PACKED_BITS:
        known = ", ".join(map(str, PACKED_BITS))
        raise LayoutError(problem(f"codes of {bits} bits are not packed", remedy=f"{known} are"))


def _parts(rows: int, row_bits: int) -> list[slice]:
    height = max(1, _AT_ONCE // max(1, row_bits))
    return [slice(start, start + height) for start in range(0, rows, height)]
