"""A rule asked of many subsets of batches at once: extrema and histograms of a subset merge."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import xarray as xr

from taqstore.analysis.ranges.known import KEPT, outermost
from taqstore.analysis.shared.inputs import Array

# Bytes of merged statistics held at once.
_HELD = 256 << 20
_KEPT = ("histogram", "tensor_min", "tensor_max", "min", "max")

Ask = Callable[[xr.Dataset], xr.DataArray]


def answers(
    dataset: xr.Dataset, members: Array, ask: Ask, *, needs: str, merges: bool = True
) -> Array:
    """What a rule says of every subset of batches.

    Parameters
    ----------
    dataset
        Observations (batch, step, layer, ...).
    members
        bool ``(subset, batch)``.
    ask
        Gives (..., step, layer) of observations without, or with, their batches.
    needs
        `extrema` or `histogram`, see `rules.ClipRule`.
    merges
        Whether it is asked of merged statistics; else of the batches of each subset.

    Returns
    -------
    float64 ``(subset, step, layer)``.
    """
    found = [
        _of_layers(part.load(), members, ask, merges)
        for part in _parts(_needed(dataset, needs, merges), len(members))
    ]
    return np.concatenate(found, axis=-1)


def _needed(dataset: xr.Dataset, needs: str, merges: bool) -> xr.Dataset:
    """What the rule reads: no histograms, and no extrema of channels, where it makes do without."""
    for end in ("min", "max") if merges else ():
        if f"tensor_{end}" not in dataset.data_vars:
            rollup = getattr(dataset[end], end)("channel", skipna=False)
            dataset = dataset.assign({f"tensor_{end}": rollup})
    names = [name for name in _KEPT if name in dataset.data_vars]
    if needs == "extrema":
        names = [name for name in names if name != "histogram"]
        if merges and {"tensor_min", "tensor_max"} <= set(names):
            names = ["tensor_min", "tensor_max"]
    return dataset[names]


def _parts(dataset: xr.Dataset, subsets: int) -> Iterator[xr.Dataset]:
    """Layers whose merged statistics are held at once."""
    layers, batches = dataset.sizes["layer"], dataset.sizes["batch"]
    cells = sum(array.size for array in dataset.data_vars.values()) // max(1, layers * batches)
    run = max(1, _HELD // max(1, 8 * cells * subsets))
    for start in range(0, layers, run):
        yield dataset.isel(layer=slice(start, start + run))


def _of_layers(part: xr.Dataset, members: Array, ask: Ask, merges: bool) -> Array:
    if merges:
        found = ask(merged(part, members)).transpose("subset", "step", "layer")
        return np.asarray(found.values, np.float64)
    rows = [ask(part.isel(batch=np.flatnonzero(row))) for row in members]
    return np.array([row.transpose("step", "layer").values for row in rows], np.float64)


def merged(dataset: xr.Dataset, members: Array) -> xr.Dataset:
    """Observations of every subset in place of those of batches: exact, over `subset`.

    Of the extrema of channels those are kept that `ranges.known.known_values` takes of all batches
    of a subset, whatever channels they are of.

    Parameters
    ----------
    members
        bool ``(subset, batch)``, at least one batch in each.
    """
    arrays = {
        str(name): _merged(str(name), array.transpose("batch", ...), members)
        for name, array in dataset.data_vars.items()
    }
    labels = {name: dataset[name] for name in ("step", "layer", "sigma") if name in dataset.coords}
    return xr.Dataset(arrays, labels, dataset.attrs)


def _merged(name: str, array: xr.DataArray, members: Array) -> tuple[tuple[str, ...], Array, Any]:
    values, dims = array.values, ("subset", *map(str, array.dims[1:]))
    if name == "histogram":
        flat = values.reshape(len(values), -1)
        some = np.flatnonzero(flat.any(axis=0))
        # Sums of counts are far below 2^53, and float64 products are fast.
        sums = np.zeros((len(members), flat.shape[1]), np.int64)
        sums[:, some] = members.astype(np.float64) @ flat[:, some].astype(np.float64)
        return dims, sums.reshape(len(members), *values.shape[1:]), array.attrs
    if dims[-1] == "channel":
        kept = slice(None, KEPT) if name == "min" else slice(KEPT, None)
        each = outermost(values.astype(np.float64))[..., kept]
        rows = (np.moveaxis(each[row], 0, -2) for row in members)
        found = [outermost(row.reshape(*row.shape[:-2], -1))[..., kept] for row in rows]
        return dims, np.stack(found), array.attrs
    combine = np.minimum if name.endswith("min") else np.maximum
    return dims, np.stack([combine.reduce(values[row]) for row in members]), array.attrs
