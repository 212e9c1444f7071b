"""Grids of packed weights, and the bytes that they take."""

from __future__ import annotations

from dataclasses import dataclass

# A scale and a bias in half precision, as MLX packs them.
_BYTES_OF_GROUP = 4
_BYTES_OF_CHANNEL = 4


@dataclass(frozen=True)
class Grid:
    """Bits of a linear's weights and how many inputs share a step; None: all of an output.

    With `float8`, a group has a float8 scale and an output a float32 one; else a group has a scale
    and a bias in half precision.
    """

    bits: int
    group_size: int | None
    float8: bool = False

    def packed_bytes(self, shape: tuple[int, int]) -> int:
        """Bytes of a weight (out, in): its codes, and what groups and outputs have."""
        out, into = shape
        groups = 1 if self.group_size is None else into // self.group_size
        each = groups + _BYTES_OF_CHANNEL if self.float8 else groups * _BYTES_OF_GROUP
        return -(-out * into * self.bits // 8) + out * each
