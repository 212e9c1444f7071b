"""Codes of a few bits packed into words, as MLX keeps the weights of its quantized linears.

A row of codes is one run of bits, the lowest bit of each code first, cut into uint32 words; codes
of 3, 5 and 6 bits cross the ends of bytes and words. On a machine of little endian the bytes of the
words are the run's own bytes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from taqstore.errors import LayoutError, problem

PACKED_BITS = (2, 3, 4, 5, 6, 8)
"""Widths of codes that MLX packs."""
WORD_BITS = 32
# Bits spread out at once, one to a byte.
_AT_ONCE = 1 << 26


def pack_codes(codes: NDArray[Any], bits: int) -> NDArray[np.uint32]:
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


def unpack_codes(packed: NDArray[np.uint32], bits: int) -> NDArray[np.uint8]:
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
