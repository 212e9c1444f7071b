"""What rounding changed: integers of a weight set beside those nearest, or of another set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from taqstore.errors import MissingError, problem
from taqstore.kinds.quantized_linears import (
    QuantizedLinear,
    linear_names_of,
    quantized_linear,
)
from taqstore.names import LayerName, path_in_model
from taqstore.quantization.integer_grid import IntegerGrid
from taqstore.quantization.quantizer import integer_range
from taqstore.store.given import handed

Groups = Mapping[str, xr.Dataset]
Tensors = Mapping[str, Any]


@dataclass(frozen=True)
class Change:
    """Integers of one linear beside others on the same grid.

    Parameters
    ----------
    name
        Of the linear.
    bits, weights
        Of it.
    at_ends
        Share of the integers that are the smallest or the largest one of the grid.
    changed
        Share that differ from those they are compared with; NaN where these are not known, or on
        another grid.
    largest
        By how much at most; 0 where none is compared.
    """

    name: LayerName
    bits: int
    weights: int
    at_ends: float
    changed: float = float("nan")
    largest: int = 0


@handed
def weight_changes(
    groups: Groups,
    *,
    set: str | None = None,
    block: str | None = None,
    other: str | None = None,
    base: Tensors | None = None,
) -> list[Change]:
    """Linears of a weight set, in store order, one in memory at a time.

    Parameters
    ----------
    groups
        A store.
    set
        As of `kinds.quantized_linears`.
    block
        Of this block alone, ``mm0``; None: all, those outside of blocks too.
    other
        Another set to compare with; its linears must lie on the same grid.
    base
        Parameters of the model under DiffusionKit's names, arrays or what `make()` gives one:
        integers are compared with those nearest to them on the set's own grid.

    Raises
    ------
    MissingError
        No such set or block.
    """
    names = linear_names_of(groups, set=set)
    if block is not None and block not in {name.block for name in names}:
        known = ", ".join(dict.fromkeys(name.block for name in names if name.in_block))
        raise MissingError(problem(f"no block {block!r} in the weight set", found=known))
    chosen = [name for name in names if block in (None, name.block)]
    theirs = {*linear_names_of(groups, set=other)} if other is not None else {*()}
    return list(_changes(groups, chosen, set, other, theirs, base))


def _changes(
    groups: Groups,
    names: list[LayerName],
    set: str | None,
    other: str | None,
    theirs: Any,
    base: Tensors | None,
) -> Iterator[Change]:
    for name in names:
        linear = quantized_linear(groups, name, set=set)
        beside: NDArray[Any] | None = None
        if other is not None and name in theirs:
            second = quantized_linear(groups, name, set=other)
            beside = second.weight if _same_grid(linear, second) else None
        elif base is not None:
            beside = nearest_integers(linear, base)
        yield _change(linear, beside)


def nearest_integers(linear: QuantizedLinear, base: Tensors) -> NDArray[np.int8] | None:
    """Integers of a linear's grid that are nearest to its weights; None where these are unknown."""
    tensor = base.get(f"{path_in_model(linear.name)}.weight")
    if tensor is None or not linear.bits:
        return None
    held: NDArray[Any] = tensor.make() if hasattr(tensor, "make") else tensor
    values = held.reshape(linear.weight.shape).astype(np.float32)
    inputs = int(linear.weight.shape[1])
    grid = IntegerGrid(linear.step, linear.offset, linear.bits, inputs)
    return grid.nearest(values, np.arange(inputs))[0]


def _same_grid(one: QuantizedLinear, other: QuantizedLinear) -> bool:
    if one.bits != other.bits or (one.offset is None) != (other.offset is None):
        return False
    offsets = one.offset is None or np.array_equal(one.offset, np.asarray(other.offset))
    return offsets and np.array_equal(one.step, other.step)


def _change(linear: QuantizedLinear, beside: NDArray[Any] | None) -> Change:
    weight = linear.weight
    low, high = (
        integer_range(linear.bits) if linear.bits else (int(weight.min()), int(weight.max()))
    )
    ends = float(((weight == low) | (weight == high)).mean())
    if beside is None:
        return Change(linear.name, linear.bits, weight.size, ends)
    moved = np.abs(weight.astype(np.int16) - beside)
    share = float(np.count_nonzero(moved) / weight.size)
    return Change(linear.name, linear.bits, weight.size, ends, share, int(moved.max()))
