"""A group of observations held in memory: what analyses ask of it, in the least room."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from taqstore.analysis.ranges.known import kept_values
from taqstore.analysis.ranges.percentile import COUNTED, true_extrema
from taqstore.analysis.shared.inputs import BIN_NUMBER, first_complete, is_observed
from taqstore.analysis.shared.merged import tensor_moments
from taqstore.arrays.lazy import for_a_pass
from taqstore.store.given import handed

_Counts = npt.NDArray[np.integer[Any]]
_ROLLUPS = ("tensor_min", "tensor_max")
_EXTREMA = ("min", "max")
_SUMMED = ("count", "nonfinite")
_MOMENTS = ("mean", "m2", "std")
# Bytes of statistics that are read at a time.
_ROOM = 32 << 20


@handed
def held(dataset: xr.Dataset, *, channels: bool = False, moments: bool = True) -> xr.Dataset:
    """Read observations once, so that later questions read nothing.

    Batches are merged, bins that are empty in every step and layer are left out, and of channels
    stay the few values that histograms are refined by. Of the result `scales`, `error`, `curve`,
    `temporal`, `groups`, `bits` and `schedule` give the same numbers to the bit as of the
    dataset itself, with rules whose `merges` is True in `analysis.RULES` and ranges per tensor
    (`curve` by default marks other rules too: name some as `rules`, or they are `left_out`). They
    may be asked of parts of it, by `isel`, `sel` or `query.select`, as of the dataset::

        site = held(store["activations/mlp.fc2"])
        site.nbytes                                          # 6.8 MB of SD3-Medium, 25 steps
        error(site, bits=4, clip="mse")
        analyze("groups", {"activations/mlp.fc2": site}, selection={"layer": "mm3.img"})

    With several groups held, ``analyze(word, {path: held})`` asks all of them, `bits` together.
    What asks batches apart (other rules, `outliers`' `batch_jaccard`, `drift`, `enough`, `order`)
    raises MissingError or leaves that out; it is asked of the store.

    Parameters
    ----------
    dataset
        One group `activations/<site>`. A pooled source, and what has no bit histogram, is read as
        it is. Reading takes little memory beside the result: some layers at a time, and the
        histograms of one batch.
    channels
        Hold the extrema of channels too, over all batches: ``scales --per channel``, `outliers`
        without `batch_jaccard`, `smooth` and rankings of channels need them. They are most of the
        room.
    moments
        Hold mean and standard deviation of tensors, for which the moments of all channels are
        read: `temporal` tells them.

    Returns
    -------
    Dataset in memory, with the coordinates and attributes of the dataset but for those of batches
        (step, layer): `tensor_min`, `tensor_max` (NaN where a batch has none), `counted_min`,
        `counted_max` (of the batches that have any), `tensor_mean`, `tensor_std`, `count`; (step,
        layer, nonfinite_kind): `nonfinite`; (step, layer, value): `known_value`; (step, layer,
        bin): `histogram`, with `bin_number`; with `channels`, (step, layer, channel): `min`, `max`.
        What the dataset does not tell is left out.
    """
    if not is_observed(dataset):
        return dataset.compute()
    dataset = for_a_pass(dataset)
    small = _by_layers(dataset, channels=channels, moments=moments)
    counts = _counts(dataset["histogram"])
    used = np.flatnonzero(counts.any(axis=tuple(range(counts.ndim - 1))))
    used = used if used.size else np.array([0])
    apart = [dim for dim in ("batch", "slot") if dim in dataset.dims]
    kept = dataset.drop_vars(list(dataset.data_vars)).drop_dims(apart).isel(bin=used)
    dims = [dim for dim in dataset["histogram"].dims if dim != "batch"]
    cut = xr.DataArray(_narrowest(counts[..., used]), dims=dims, attrs=dataset["histogram"].attrs)
    found: xr.Dataset = kept.assign({"histogram": cut, **small}).compute()
    return found.assign_coords({BIN_NUMBER: ("bin", used)})


def _by_layers(dataset: xr.Dataset, *, channels: bool, moments: bool) -> dict[str, xr.DataArray]:
    """All that is held but the histogram, read some layers at a time: channels take room."""
    read = [*_ROLLUPS, *_EXTREMA, *_SUMMED, *(_MOMENTS if moments else ())]
    read = [name for name in read if name in dataset.data_vars]
    others = {*_MOMENTS, "tensor_mean", "tensor_std"} if not moments else set[str]()
    dataset = dataset.drop_vars(others & set(map(str, dataset.data_vars)))
    layers = dataset.sizes.get("layer", 1)
    room = sum(dataset[name].nbytes for name in read) // max(1, layers)
    many = max(1, _ROOM // max(1, room))
    parts = []
    for start in range(0, max(1, layers), many):
        part = (
            dataset.isel(layer=slice(start, start + many)) if "layer" in dataset.dims else dataset
        )
        part = part.assign({name: part[name].compute() for name in read})
        parts.append(_small(part, channels=channels))
    if len(parts) == 1:
        return parts[0]
    return {
        name: xr.concat([part[name] for part in parts], "layer", combine_attrs="override")
        for name in parts[0]
    }


def _small(dataset: xr.Dataset, *, channels: bool) -> dict[str, xr.DataArray]:
    found = {**_ends(dataset), **kept_values(dataset), **tensor_moments(dataset)}
    found |= {name: _summed(dataset[name]) for name in _SUMMED if name in dataset.data_vars}
    if channels and first_complete(dataset, (_EXTREMA,)):
        found |= dict(zip(_EXTREMA, _outermost(dataset, _EXTREMA), strict=True))
    return found


def _summed(array: xr.DataArray) -> xr.DataArray:
    merged: xr.DataArray = array
    if "batch" in array.dims:
        merged = array.sum("batch", dtype=array.dtype, keep_attrs=True)
    return merged.reset_coords(drop=True)


def _outermost(dataset: xr.Dataset, names: Sequence[str]) -> tuple[xr.DataArray, xr.DataArray]:
    """Extrema of all batches; unknown where one batch has none."""
    lower, upper = (dataset[name].reset_coords(drop=True) for name in names)
    if "batch" in lower.dims:
        lower, upper = lower.min("batch", skipna=False), upper.max("batch", skipna=False)
    return lower, upper


def _ends(dataset: xr.Dataset) -> dict[str, xr.DataArray]:
    """Extrema of tensors: of all batches, and of those that have any."""
    names = first_complete(dataset, (_ROLLUPS, _EXTREMA))
    if not names:
        return {}
    lower, upper = _outermost(dataset, names)
    if "channel" in lower.dims:
        lower, upper = lower.min("channel", skipna=False), upper.max("channel", skipna=False)
    found = dict(zip(_ROLLUPS, (lower, upper), strict=True))
    for name, end, given in zip(COUNTED, true_extrema(dataset) or (), names, strict=False):
        found[name] = end.astype(dataset[given].dtype).reset_coords(drop=True)
    return found


def _counts(histogram: xr.DataArray) -> _Counts:
    """Counts of all batches, int64 or uint64, read a few batches at a time."""
    if "batch" not in histogram.dims:
        return np.asarray(histogram.values)
    several = histogram.chunksizes.get("batch") or (1,) * histogram.sizes["batch"]
    total: _Counts | None = None
    for start, size in zip(np.cumsum((0, *several)).tolist(), several, strict=False):
        part = histogram.isel(batch=slice(start, start + size)).transpose("batch", ...).values
        total = np.zeros(part.shape[1:], np.int64) if total is None else total
        for batch in part:
            total += batch
    return np.zeros(0, np.int64) if total is None else total


def _narrowest(counts: _Counts) -> _Counts:
    return counts.astype(np.uint32) if counts.max(initial=0) < 2**32 else counts
