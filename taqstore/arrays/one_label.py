"""One label of a lazy Dataset: what `Dataset.sel` gives, without what it does for any selection.

A group has some twenty variables, and xarray takes as long to index one of them as reading it does.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from xarray.core.indexes import PandasIndex

from taqstore.arrays.lazy import LazyArray


def at_label(dataset: xr.Dataset, dim: str, label: str) -> xr.Dataset:
    """The Dataset at a label of an indexed dimension, as ``dataset.sel({dim: label})``."""
    position = _position(dataset, dim, label)
    if position is None:
        return dataset.sel({dim: label})
    variables = {
        name: _at(variable, variable.dims.index(dim), position)
        if dim in variable.dims
        else variable
        for name, variable in dataset._variables.items()
    }
    index = dataset._variables[dim]
    scalar = np.asarray(label, index.dtype)
    variables[dim] = xr.Variable((), scalar, index._attrs, index._encoding, fastpath=True)
    return dataset._construct_direct(
        variables,
        set(dataset._coord_names),
        {name: size for name, size in dataset.sizes.items() if name != dim},
        dict(dataset.attrs),
        {name: index for name, index in dataset._indexes.items() if name != dim},
        dict(dataset.encoding),
        dataset._close,
    )


def _position(dataset: xr.Dataset, dim: str, label: str) -> int | None:
    """Where a label is; None where xarray is to say what of it."""
    index: Any = dataset._indexes.get(dim)
    if type(index) is not PandasIndex or not index.index.is_unique or label not in index.index:
        return None
    position: Any = index.index.get_loc(label)
    return int(position)


def _at(variable: xr.Variable, axis: int, position: int) -> xr.Variable:
    lazy: Any = variable._data
    dims = (*variable.dims[:axis], *variable.dims[axis + 1 :])
    if type(lazy) is LazyArray:
        found: Any = lazy.at(axis, position)
    elif type(lazy) is np.ndarray:
        key: Any = (*(slice(None),) * axis, position, ...)
        found = lazy[key]
    else:
        return variable.isel({variable.dims[axis]: position}).to_base_variable()
    return xr.Variable(dims, found, variable._attrs, variable._encoding, fastpath=True)
