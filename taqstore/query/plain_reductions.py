"""Reductions of groups without xarray: the same numbers as through dask, where it sees one block.

dask adds up block by block, so that sums of several blocks are others in the last digit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from taqstore.arrays.block_shapes import parts
from taqstore.arrays.plain import PlainArray, PlainGroup

Values: TypeAlias = np.ndarray[Any, Any]


def one_block(group: PlainGroup, dims: Iterable[str]) -> bool:
    """Whether dask would read each variable with one of these dimensions as one block."""
    wanted = set(dims)
    having = [one for one in group.data_vars.values() if wanted & set(one.dims)]
    return all(one.size > 0 and _is_one(one.source) for one in having)


def _is_one(source: Any) -> bool:
    return not isinstance(source, np.ndarray) and parts(source) == tuple(source.shape)


def plain_reduction(how: str | float) -> Callable[[PlainArray, str], PlainArray]:
    """What reduces an array along a dimension, as `query.reduce` says; a number is a percentile."""
    percentile = 50.0 if how == "median" else how
    if isinstance(percentile, str):
        reducing: Callable[[Values, int], Values] = _WAYS[percentile]
    else:
        reducing = partial(_quantile, percentile / 100)

    def reduced(array: PlainArray, dim: str) -> PlainArray:
        axis = array.dims.index(dim)
        dims = (*array.dims[:axis], *array.dims[axis + 1 :])
        with np.errstate(divide="ignore", invalid="ignore"):
            values = np.asarray(reducing(array.values, axis))
        return PlainArray.of(dims, values, dict(array.attrs))

    return reduced


def _mean(values: Values, axis: int) -> Values:
    total = values.astype("f8").sum(axis=axis, keepdims=True)
    mean: Values = total.sum(axis=axis) / values.shape[axis]
    return mean


def _std(values: Values, axis: int) -> Values:
    """Of two passes, as dask has it, and its term for several blocks: 0, or NaN of infinities."""
    wide, count = values.astype("f8"), values.shape[axis]
    mean = wide.sum(axis=axis, keepdims=True) / count
    squares = ((wide - mean) ** 2).sum(axis=axis, keepdims=True)
    between = (count * (mean - mean) ** 2).sum(axis=axis)
    return np.asarray(np.sqrt((squares.sum(axis=axis) + between) / count))


def _quantile(share: float, values: Values, axis: int) -> Values:
    last = np.moveaxis(values.astype("f8"), axis, -1)
    found: Values = np.quantile(last, np.array([share]), axis=-1)[0]
    return found


def _max(values: Values, axis: int) -> Values:
    return np.asarray(values.max(axis=axis))


def _min(values: Values, axis: int) -> Values:
    return np.asarray(values.min(axis=axis))


_WAYS = {"max": _max, "min": _min, "mean": _mean, "std": _std}
