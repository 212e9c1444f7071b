"""Quantized linears out of `weights/<site>`: one at a time, by block, in the order they run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from taqstore.errors import MissingError, problem
from taqstore.names import (
    PROJECTIONS,
    RECONSTRUCTION,
    SITES,
    WEIGHTS,
    Block,
    LayerName,
    parse_layer,
)
from taqstore.quantization.weight_grid import dequantized

Groups = Mapping[str, xr.Dataset]
Array = NDArray[Any]


@dataclass(frozen=True)
class InputQuantizer:
    """How the input of a linear is quantized; see `schemas/README.md`.

    Parameters
    ----------
    step
        float32 (time_group,); NaN where the input is left as it is.
    zero_point
        int32 (time_group,).
    bits
        int8 (time_group,); 0 where the input is left as it is.
    sigma_lower
        float32 (time_group,): the smallest noise level of each group.
    shift
        float32 (time_group, channel), or None.
    multiplier
        float32 (channel,), or None.
    """

    step: Array
    zero_point: Array
    bits: Array
    sigma_lower: Array
    shift: Array | None = None
    multiplier: Array | None = None


@dataclass(frozen=True)
class QuantizedLinear:
    """One linear.

    Parameters
    ----------
    name
        With its projection where it is one of q, k and v.
    weight
        int8 (out, in).
    step
        float32 (out, group).
    input
        Quantizer of its input.
    rounding
        V of AdaRound, float (out, in); None where it was not kept.
    original
        dtypes that the source had, by variable, where the store has others.
    """

    name: LayerName
    weight: Array
    step: Array
    input: InputQuantizer
    rounding: Array | None = None
    original: Mapping[str, str] = field(default_factory=dict)

    def dequantized(self) -> Array:
        """Weight float32 (out, in)."""
        return dequantized(self.weight, self.step)


def weight_groups_of(groups: Groups) -> dict[str, xr.Dataset]:
    """The groups `weights/<site>` by site.

    Raises
    ------
    MissingError
        There are none.
    """
    found = {site: groups[f"{WEIGHTS}/{site}"] for site in SITES if f"{WEIGHTS}/{site}" in groups}
    if not found:
        remedy = "taqstore adaround makes them"
        raise MissingError(problem("no quantized weights in the store", remedy=remedy))
    return found


def quantized_blocks(groups: Groups) -> list[str]:
    """Blocks that are complete, in the order they run.

    A block is complete when the last of what is written of it, its item of `reconstruction`, is;
    where there is no such group, when every layer it has is there.

    Raises
    ------
    MissingError
        There are no weights, or no block is complete.
    """
    sites = weight_groups_of(groups)
    layers = {str(layer) for site in sites.values() for layer in site["layer"].values}
    names = sorted(map(parse_layer, layers), key=lambda name: name.sort_key)
    blocks = list(dict.fromkeys(name.block for name in names))
    if RECONSTRUCTION in groups:
        complete = set(map(str, groups[RECONSTRUCTION]["block"].values))
        blocks = [block for block in blocks if block in complete]
    if not blocks:
        remedy = "run taqstore adaround --resume"
        raise MissingError(problem("no block of the quantized weights is complete", remedy=remedy))
    return blocks


def quantized_linears(
    groups: Groups, block: str, *, rounding: bool = False
) -> Iterator[QuantizedLinear]:
    """Linears of a block: image before text, q, k, v, o, fc1, fc2.

    Parameters
    ----------
    rounding
        Read V too, which takes four times the room of the weights.
    """
    sites = weight_groups_of(groups)
    for whole in Block.parse(block).layers:
        layer = whole.layer
        for site, dataset in sites.items():
            if layer in dataset["layer"].values:
                found = dataset if rounding else dataset.drop_vars("rounding", errors="ignore")
                yield from _linears(LayerName(block, whole.stream, site), found.sel(layer=layer))


def _linears(name: LayerName, layer: xr.Dataset) -> Iterator[QuantizedLinear]:
    if "projection" not in layer.dims:
        yield _linear(name, layer)
        return
    for projection in PROJECTIONS:
        full = LayerName(name.block, name.stream, name.site, projection)
        yield _linear(full, layer.sel(projection=projection))


def _linear(name: LayerName, layer: xr.Dataset) -> QuantizedLinear:
    def values(variable: str, *dims: str) -> Array:
        return np.asarray(layer[variable].transpose(*dims).values)

    def optional(variable: str, *dims: str) -> Array | None:
        """None too where it was not written: other linears of the site have it."""
        found = values(variable, *dims) if variable in layer else None
        return None if found is None or np.isnan(found).all() else found

    quantizer = InputQuantizer(
        values("activation_step", "time_group"),
        values("activation_zero_point", "time_group"),
        values("activation_bits", "time_group"),
        np.asarray(layer["sigma_lower"].values),
        optional("activation_shift", "time_group", "in"),
        optional("activation_multiplier", "in"),
    )
    matrix = ("out", "in")
    return QuantizedLinear(
        name,
        values("weight", *matrix),
        values("step_size", "out", "group"),
        quantizer,
        optional("rounding", *matrix),
        _original_dtypes(name.full, layer),
    )


def _original_dtypes(linear: str, layer: xr.Dataset) -> dict[str, str]:
    """Attribute `original_dtype`: one for all linears of a variable, or an object by linear."""
    told = {str(v): array.attrs.get("original_dtype") for v, array in layer.data_vars.items()}
    mine = {v: dtype.get(linear) if isinstance(dtype, dict) else dtype for v, dtype in told.items()}
    return {variable: dtype for variable, dtype in mine.items() if dtype is not None}


def run_of(groups: Groups) -> dict[str, Any]:
    """Attribute `run` of the weights: bits and settings, those that all sites agree in."""
    runs = _runs(groups)
    differing = differing_settings(groups)
    first = next(iter(runs.values()))
    return {name: value for name, value in first.items() if name not in differing}


def differing_settings(groups: Groups) -> dict[str, dict[str, Any]]:
    """Settings of `run` that are not the same at every site, by name, then by site."""
    runs = _runs(groups)
    names = dict.fromkeys(name for run in runs.values() for name in run)
    found = {name: {site: run.get(name) for site, run in runs.items()} for name in names}
    return {
        name: values
        for name, values in found.items()
        if any(value != next(iter(values.values())) for value in values.values())
    }


def _runs(groups: Groups) -> dict[str, Mapping[str, Any]]:
    return {site: data.attrs.get("run", {}) for site, data in weight_groups_of(groups).items()}
