"""Inputs of a linear rotated block by block, so that no channel stands out (ConvRot).

A block of 4^k neighbouring inputs is multiplied by the Kronecker power of a regular Hadamard matrix
of 4, divided by 2^k: symmetric, and its own inverse. The weight is rotated alike, ``W x = (W R)
(R x)``, and the second moment of the rotated inputs is ``R H R``.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taqstore.errors import LayoutError, problem

SIZES = (256, 64, 16)
"""Inputs that are rotated together: the first that divides them all."""
_FOUR = np.array([[1, 1, 1, -1], [1, 1, -1, 1], [1, -1, 1, 1], [-1, 1, 1, 1]], np.float32)


def rotation_size(inputs: int) -> int:
    """How many inputs of a linear are rotated together.

    Raises
    ------
    LayoutError
        None of `SIZES` divides them.
    """
    found = next((size for size in SIZES if inputs % size == 0), 0)
    if not found:
        what = f"{inputs} inputs are no multiple of {SIZES[-1]}"
        raise LayoutError(problem(what, remedy="they cannot be rotated"))
    return found


@cache
def hadamard(size: int) -> NDArray[np.float32]:
    """The matrix R float32 ``(size, size)``, `size` a power of 4; exact."""
    found = np.ones((1, 1), np.float32)
    while len(found) < size:
        found = np.kron(found, _FOUR)
    found /= np.float32(np.sqrt(size))
    found.setflags(write=False)
    return found


def rotated(rows: NDArray[Any], size: int) -> NDArray[Any]:
    """Rows ``(out, in)`` with every block of `size` inputs rotated, in the dtype they have."""
    blocks = rows.reshape(len(rows), -1, size)
    return np.asarray((blocks @ hadamard(size).astype(rows.dtype)).reshape(rows.shape))


def rotated_moments(blocks: NDArray[Any], inputs: int, size: int) -> NDArray[np.float64]:
    """Second moment of rotated inputs.

    Parameters
    ----------
    blocks
        ``(block, n, n)``, the last one filled up with zeros; or the diagonal ``(in,)``.
    inputs
        Of the linear.
    size
        As of `rotated`.

    Returns
    -------
    float64 ``(block, m, m)``, m the larger of n and `size`: what lies outside of blocks of n stays
    0 before the rotation, and blocks of `size` are full after it.

    Raises
    ------
    LayoutError
        Neither of n and `size` divides the other.
    """
    given = np.asarray(blocks, np.float64)
    given = given[:, None, None] if given.ndim == 1 else given
    held = given.shape[1]
    wide = max(held, size)
    if wide % held or wide % size:
        what = f"second moments of {held} inputs cannot be rotated by {size}"
        raise LayoutError(problem(what, remedy="collect them with --second-moment 256 or full"))
    count, each = -(-inputs // wide), wide // held
    found = np.zeros((count, wide, wide))
    for place, block in enumerate(given):
        whole, part = divmod(place, each)
        inside = slice(part * held, (part + 1) * held)
        found[whole, inside, inside] = block
    for whole in found:
        whole[:] = rotated(rotated(whole, size).T, size)
    return found
