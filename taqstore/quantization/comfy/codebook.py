"""Weights of four bits as comfy-kitchen's layout `asym_w4a8_int8` has them.

A rotated weight is ``channel_scale * integer``, the integer what its code makes of 16 levels and
the scale of its group of 16 inputs: ``clip(rint(level * group_scale), -127, 127)``, which int8
matrices are multiplied with. Scales of groups are float8 (e4m3), those of channels float32.

Levels are those of least squared error for a normal distribution whose groups are divided by their
largest magnitude (Lloyd, Max); comfy-kitchen's fastest kernels know this table alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from taqstore.errors import LayoutError, problem
from taqstore.quantization.comfy.float8 import float8_bits, float8_values
from taqstore.quantization.comfy.rotation import rotated
from taqstore.quantization.gptq import Gptq, Prepared, gptq

GROUP = 16
"""Inputs that share a float8 scale."""
LEVELS = np.array(
    [
        *(-0.980602, -0.794529, -0.638165, -0.500986, -0.377321, -0.263187, -0.155210, -0.050720),
        *(0.052541, 0.156985, 0.265284, 0.379533, 0.502636, 0.638953, 0.794876, 0.980671),
    ],
    np.float32,
)
_FITS = 2
_LEAST = np.float32(1e-8)
_MOST = 127

Floats = NDArray[Any]


@dataclass(frozen=True)
class W4A8:
    """A weight in this layout.

    Parameters
    ----------
    codes
        uint8 ``(out, in)``, 0 to 15.
    group_scale
        Bits of float8 ``(out, in / 16)``.
    channel_scale
        float32 ``(out,)``.
    rotation
        Inputs that are rotated together.
    """

    codes: NDArray[np.uint8]
    group_scale: NDArray[np.uint8]
    channel_scale: NDArray[np.float32]
    rotation: int

    def packed(self) -> NDArray[np.int8]:
        """int8 ``(out, in / 2)``: two codes a byte, the first in the lower half."""
        return np.asarray(self.codes[:, ::2] | self.codes[:, 1::2] << 4, np.uint8).view(np.int8)

    def rotated_weights(self) -> NDArray[np.float32]:
        """float32 ``(out, in)``, rotated as they are kept."""
        table = _integers(self.group_scale)
        groups = self.codes.reshape(*table.shape[:2], GROUP)
        found = np.take_along_axis(table, groups.astype(np.int64), axis=2)
        return found.reshape(self.codes.shape) * self.channel_scale[:, None]

    def dequantized(self) -> NDArray[np.float32]:
        """Weights float32 ``(out, in)`` that it stands for."""
        return rotated(self.rotated_weights(), self.rotation)


@dataclass(frozen=True)
class _Grid:
    """Where the rotated weights of a linear may lie: 16 integers for each group."""

    integers: NDArray[np.float32]
    channel_scale: NDArray[np.float32]

    def nearest(
        self, values: Floats, columns: NDArray[np.int64]
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Codes and weights nearest to `values` ``(out, column)``; of two, the lower code."""
        codes = np.empty(values.shape, np.uint8)
        weights = np.empty(values.shape, np.float32)
        level = values / self.channel_scale[:, None]
        for start in range(0, len(columns), GROUP):
            part = slice(start, start + GROUP)
            table = self.integers[:, columns[part] // GROUP]
            middle = (table[..., 1:] + table[..., :-1]) / 2
            found = (level[:, part, None] > middle).sum(axis=-1)
            codes[:, part] = found
            taken = np.take_along_axis(table, found[..., None], axis=-1)[..., 0]
            weights[:, part] = taken * self.channel_scale[:, None]
        return codes, weights


def w4a8_nearest(weight: ArrayLike, *, rotation: int) -> W4A8:
    """Round to nearest, with the scales and codes that comfy-kitchen gives.

    A group's scale begins as its largest magnitude and is fitted to its levels twice by least
    squares; a channel's is that of its largest level, divided by 127.

    Parameters
    ----------
    weight
        ``(out, in)``.
    rotation
        Inputs that are rotated together, see `rotation_size`.

    Raises
    ------
    LayoutError
        The inputs are no multiple of 16 or of `rotation`.
    """
    turned, grid, scale = _prepared(weight, rotation)
    codes, _ = grid.nearest(turned, np.arange(turned.shape[1]))
    return W4A8(codes, scale, grid.channel_scale, rotation)


def w4a8_gptq(weight: ArrayLike, moments: Prepared, *, rotation: int) -> tuple[W4A8, Gptq]:
    """Codes by GPTQ in the rotated basis, on the grid of `w4a8_nearest`: the same bytes.

    Parameters
    ----------
    moments
        Second moment of rotated inputs (`rotated_moments`), prepared.

    Raises
    ------
    TaqError
        As of `w4a8_nearest` and `gptq`.
    """
    turned, grid, scale = _prepared(weight, rotation)
    found = gptq(turned, moments, grid.nearest)
    codes = np.ascontiguousarray(found.codes, np.uint8)
    return W4A8(codes, scale, grid.channel_scale, rotation), found


def _prepared(
    weight: ArrayLike, rotation: int
) -> tuple[NDArray[np.float32], _Grid, NDArray[np.uint8]]:
    """The rotated weight, its grid, and the bits of its groups' scales."""
    given = np.asarray(weight, np.float32)
    if given.shape[1] % GROUP or given.shape[1] % rotation:
        what = f"{given.shape[1]} inputs are no multiple of {rotation}"
        raise LayoutError(problem(what, remedy="this layout does not hold them"))
    turned = rotated(given, rotation)
    groups = turned.reshape(len(turned), -1, GROUP)
    fitted = _fitted(groups)
    largest = np.abs(_levels(groups, fitted) * fitted).max(axis=(1, 2), initial=0)
    channel = np.maximum(largest / np.float32(_MOST), _LEAST)
    scale = float8_bits(fitted[..., 0] / channel[:, None])
    return turned, _Grid(_integers(scale), channel), scale


def _fitted(groups: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale of each group ``(out, group, 1)``."""
    scale = np.maximum(np.abs(groups).max(axis=-1, keepdims=True), _LEAST)
    for _ in range(_FITS):
        levels = _levels(groups, scale)
        power = np.maximum((levels * levels).sum(axis=-1, keepdims=True), _LEAST)
        scale = np.maximum((groups * levels).sum(axis=-1, keepdims=True) / power, _LEAST)
    return np.asarray(scale)


def _levels(groups: NDArray[np.float32], scale: NDArray[np.float32]) -> NDArray[np.float32]:
    """The level nearest to each weight of a group, as a share of its scale."""
    share = groups / scale
    above = np.clip(np.searchsorted(LEVELS, share), 1, len(LEVELS) - 1)
    low, high = LEVELS[above - 1], LEVELS[above]
    return np.asarray(np.where(np.abs(share - high) < np.abs(share - low), high, low))


def _integers(scale: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The 16 integers of every group ``(out, group, 16)``, ascending."""
    wide = np.rint(LEVELS * float8_values(scale)[..., None])
    return np.asarray(np.clip(wide, -_MOST, _MOST), np.float32)
