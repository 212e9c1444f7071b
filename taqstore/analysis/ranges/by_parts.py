"""Scales from histograms on a local disk: read, added up and answered some layers at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import prod
from typing import Any

import numpy as np
import xarray as xr

from taqstore.analysis.ranges.added import added, adds
from taqstore.analysis.ranges.clip import Clip
from taqstore.analysis.ranges.from_histogram import least_error
from taqstore.analysis.ranges.in_parts import Parts, Source, Unread, in_parts
from taqstore.analysis.ranges.known import KNOWN, known_of_batches
from taqstore.analysis.ranges.percentile import absolute_of_counts, stored_extrema
from taqstore.analysis.shared.inputs import BIN_NUMBER, Array, is_observed
from taqstore.quantization.quantizer import symmetric
from taqstore.quantization.search import Scheme
from taqstore.quantization.spread import Spread, row_slices
from taqstore.statistics.histogram import Layout

# Sums that a task makes; of these, looked through together while they are in the cache; and
# extrema of channels that are read at a time.
_PART_BYTES, _LOOKED_AT, _ROOM = 16 << 20, 1 << 17, 8 << 20
_MADE = {
    "alpha": np.float64,
    "lower": np.float64,
    "upper": np.float64,
    "step_size": np.float64,
    "zero_point": np.int64,
}
_Kernel = Callable[..., Sequence[Array]]


def scales_by_parts(dataset: xr.Dataset, clip: Clip, scheme: Scheme) -> xr.Dataset | None:
    """What `scales` gives without cuts, lazy; None where it is to be worked out in another way.

    No array of all batches is made, and few tasks read and answer a part.
    """
    if clip.rule not in _RULES or not scheme.symmetric or not is_observed(dataset):
        return None
    histogram = dataset["histogram"]
    dims = histogram.dims[1:-1]
    whole = ("batch", *dims, "bin") == histogram.dims and "layer" in dims and histogram.size
    counts = Unread.of(histogram.variable)
    if counts is None or not whole or BIN_NUMBER in dataset.coords:
        return None
    attrs = {**dataset.attrs, **histogram.attrs}
    layout = Layout(str(attrs["layout"]), int(attrs["mantissa_bits"]))
    found = _RULES[clip.rule](dataset, clip, scheme, layout)
    if found is None or not adds(counts.lazy.array, 0):
        return None
    kernel, beside = found
    sizes = {str(dim): dataset.sizes[dim] for dim in dims}
    layer = 8 * layout.bins * prod(sizes.values()) // sizes["layer"]
    parts = Parts(sizes, "layer", max(1, _PART_BYTES // layer))
    made = in_parts(kernel, [Source(_added, (counts,)), beside], _MADE, parts)
    told = {key: histogram.attrs[key] for key in layout.attrs if key in histogram.attrs}
    return _labelled(dataset, dims, made, told)


def _labelled(
    dataset: xr.Dataset, dims: tuple[Any, ...], made: Mapping[str, Any], attrs: Mapping[str, Any]
) -> xr.Dataset:
    """``xr.Dataset`` of arrays with the coordinates of a Dataset that are of their dims.

    They are not compared with themselves, which takes as long as a tenth of the answer.
    """
    kept = {
        name: one for name, one in dataset.coords.variables.items() if set(one.dims) <= set(dims)
    }
    found = {name: xr.Variable(dims, one, attrs, fastpath=True) for name, one in made.items()}
    indexes = {name: one for name, one in dataset.xindexes.items() if name in kept}
    return xr.Dataset(found, xr.Coordinates(kept, indexes))


def _percentile(
    dataset: xr.Dataset, clip: Clip, scheme: Scheme, layout: Layout
) -> tuple[_Kernel, Source] | None:
    """The kernel of a rule, and what it asks beside sums of counts; None: that is not there."""
    dims = dataset["histogram"].dims[:-1]
    unread = _unread(stored_extrema(dataset), dims)
    if unread is None:
        return None
    options: dict[str, Any] = {
        "layer": dims.index("layer") - 1,
        "layout": layout,
        "percentile": clip.percentile,
    }
    return partial(_of_percentile, **options, scheme=scheme), Source(_ends, unread)


def _mse(
    dataset: xr.Dataset, clip: Clip, scheme: Scheme, layout: Layout
) -> tuple[_Kernel, Source] | None:
    extrema = [dataset.data_vars.get(name) for name in ("min", "max")]
    if KNOWN in dataset.data_vars or any(one is None for one in extrema):
        return None
    unread = _unread(extrema, (*dataset["histogram"].dims[:-1], "channel"))
    if unread is None:
        return None
    return partial(_of_mse, spread=Spread.of(layout), scheme=scheme), Source(_known, unread)


_RULES = {"percentile": _percentile, "mse": _mse}


def _unread(variables: Sequence[Any], dims: tuple[Any, ...]) -> tuple[Unread, ...] | None:
    """Two variables of these dims; None where they are not there, or read in another way."""
    found = [one for one in (Unread.of(v.variable) for v in variables) if one is not None]
    fits = len(found) == len(variables) == 2 and all(one.dims == dims for one in found)
    return tuple(found) if fits else None


def _added(histogram: Unread) -> Array:
    """Counts of all batches."""
    return added(histogram.lazy.array, histogram.key, 0)


def _ends(low: Unread, high: Unread) -> Array:
    """Extrema of tensors ``(end, ..., batch)``."""
    return np.stack([np.moveaxis(end.read(), 0, -1) for end in (low, high)])


def _known(low: Unread, high: Unread) -> Array:
    """`known_values` ``(..., value)`` of extrema of channels, read some layers at a time."""
    layers, array = low.size("layer"), low.lazy.array
    one = prod(low.size(dim) for dim in low.dims) * array.dtype.itemsize // layers
    width = max(1, _ROOM // max(1, one))
    found = []
    for start in range(0, layers, width):
        some = [end.cut("layer", slice(start, start + width)).read() for end in (low, high)]
        found.append(known_of_batches(*some))
    return np.concatenate(found, axis=low.dims.index("layer") - 1)


def _of_percentile(
    counts: Array, ends: Array, *, layer: int, layout: Layout, percentile: float, scheme: Scheme
) -> Sequence[Array]:
    counts = np.moveaxis(counts, layer, 0)
    low, high = np.moveaxis(ends, layer + 1, 1)
    alpha = np.empty(counts.shape[:-1])
    for some in row_slices(len(counts), counts[:1].size, block=_LOOKED_AT):
        of_layers = (counts[some], low[some], high[some])
        alpha[some] = absolute_of_counts(*of_layers, layout=layout, percentile=percentile, axes=1)
    return _quantizers(np.moveaxis(alpha, 0, layer), scheme)


def _of_mse(counts: Array, known: Array, *, spread: Spread, scheme: Scheme) -> Sequence[Array]:
    counts = counts.astype(np.int64, copy=False)
    _, alpha = least_error(counts, known, spread=spread, scheme=scheme, power=2.0)
    return _quantizers(alpha, scheme)


def _quantizers(alpha: Array, scheme: Scheme) -> Sequence[Array]:
    """In the order of `_MADE`."""
    found = symmetric(alpha, bits=scheme.bits, narrow_range=scheme.narrow_range)
    return [alpha, -alpha, alpha, found.step_size, found.zero_point]
