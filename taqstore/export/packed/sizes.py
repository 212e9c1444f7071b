"""Sizes of packed models, planned from shapes alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from taqstore.quantization.packed_affine import packed_bytes


@dataclass(frozen=True)
class Plan:
    """How some tensors are to be kept.

    Parameters
    ----------
    bits, group_size
        Of codes, and of the inputs that share a scale.
    half
        Whether scales and biases are float16, else float32.
    """

    bits: int = 4
    group_size: int = 64
    half: bool = True


def planned_bytes(shapes: Mapping[str, tuple[int, ...]], packed: Mapping[str, Plan]) -> int:
    """Bytes of a model's tensors, without the header of a file.

    Parameters
    ----------
    shapes
        Of every parameter by name; those that are not packed are float16.
    packed
        Plans by the names of weights ``(out, in)``.
    """
    total = 0
    for name, shape in shapes.items():
        plan = packed.get(name)
        if plan is None:
            total += 2 * prod(shape)
        else:
            out, inputs = shape
            total += packed_bytes(
                out, inputs, bits=plan.bits, group_size=plan.group_size, half=plan.half
            )
    return total


def share_of_half(count: int, half: int) -> str:
    """Bytes beside those of float16, in words."""
    return f"{count / half:.3f} of float16's size, {half / count:.2f} times smaller"
