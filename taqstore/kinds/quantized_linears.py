"""Quantized linears out of a weight set: one at a time, by block, in the order they run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from taqstore.errors import MissingError, problem
from taqstore.kinds.weight_sets import chosen_set, reconstruction_path, set_groups
from taqstore.names import (
    PROJECTIONS,
    Block,
    LayerName,
    parse_layer,
    site_rank,
    tensor_site,
)
from taqstore.quantization.weight_grid import dequantized
from taqstore.store.attributes import attribute_of
from taqstore.store.given import handed

if TYPE_CHECKING:
    import xarray as xr

Groups = Mapping[str, "xr.Dataset"]
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

    @classmethod
    def none(cls, sigma_lower: Array | None = None) -> InputQuantizer:
        """That of an input that is left as it is, at all steps."""
        lower = np.zeros(1, np.float32) if sigma_lower is None else sigma_lower
        count = len(lower)
        step, bits = np.full(count, np.nan, np.float32), np.zeros(count, np.int8)
        return cls(step, np.zeros(count, np.int32), bits, lower)


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
        Quantizer of its input; where the set has none, one that leaves it as it is.
    rounding
        V of AdaRound, float (out, in); None where it was not kept.
    offset
        float32 (out, group), added to `weight * step`; None: the grid is symmetric.
    bits
        Of its weight; 0 where the set does not say it.
    original
        dtypes that the source had, by variable, where the store has others.
    """

    name: LayerName
    weight: Array
    step: Array
    input: InputQuantizer
    rounding: Array | None = None
    original: Mapping[str, str] = field(default_factory=dict)
    offset: Array | None = None
    bits: int = 0

    def dequantized(self) -> Array:
        """Weight float32 (out, in): the one definition of what the integers stand for."""
        return dequantized(self.weight, self.step, self.offset)


def weight_groups_of(groups: Groups, set: str | None = None) -> dict[str, xr.Dataset]:
    """The groups of a weight set by what follows its folder: `mlp.fc2`, `adaln.linear.o3072`.

    Parameters
    ----------
    set
        Its name; None: the only one there is.

    Raises
    ------
    MissingError
        There are no quantized weights, or not this set.
    MisuseError
        There are several sets, and none is named.
    """
    return set_groups(groups, chosen_set(groups, set))


@handed
def quantized_blocks(groups: Groups, *, set: str | None = None) -> list[str]:
    """Blocks that are complete, in the order they run; of a set as of `weight_groups_of`.

    A block is complete when the last of what is written of it, its item of `reconstruction`, is;
    where there is no such group, when every layer it has is there.

    Raises
    ------
    MissingError
        There are no weights, or no block is complete.
    """
    name = chosen_set(groups, set)
    complete = _complete_blocks(groups, name)
    if not complete:
        remedy = "run taqstore adaround --resume"
        raise MissingError(problem("no block of the quantized weights is complete", remedy=remedy))
    return complete


def _complete_blocks(groups: Groups, name: str) -> list[str]:
    sites = set_groups(groups, name)
    layers = {str(layer) for site in sites.values() for layer in site["layer"].values}
    every = map(parse_layer, layers)
    names = sorted((x for x in every if x.in_block), key=lambda name: name.sort_key)
    blocks = list(dict.fromkeys(name.block for name in names))
    path = reconstruction_path(name)
    if path in groups:
        complete = {str(block) for block in groups[path]["block"].values}
        blocks = [block for block in blocks if block in complete]
    return blocks


@handed
def linear_names_of(groups: Groups, *, set: str | None = None) -> list[LayerName]:
    """Linears of a set that are complete, in store order, those outside of blocks included.

    Those of a block count once the block does, as of `quantized_blocks`.

    Raises
    ------
    MissingError, MisuseError
        As of `weight_groups_of`.
    """
    name = chosen_set(groups, set)
    complete = _complete_blocks(groups, name)
    found = [
        linear
        for site, dataset in set_groups(groups, name).items()
        for layer in map(str, dataset["layer"].values)
        for linear in _names(parse_layer(layer), site, "projection" in dataset.dims)
    ]
    kept = (x for x in found if x.block in complete or not x.in_block)
    return sorted(kept, key=lambda x: (*x.sort_key, site_rank(x.site)))


def _names(layer: LayerName, site: str, split: bool) -> list[LayerName]:
    parts = PROJECTIONS if split else ("",)
    return [LayerName(layer.block, layer.stream, tensor_site(site), part) for part in parts]


@handed
def quantized_linear(
    groups: Groups, name: LayerName, *, set: str | None = None, rounding: bool = False
) -> QuantizedLinear:
    """One linear of a set; `rounding` as of `quantized_linears`.

    Raises
    ------
    MissingError
        The set has no such linear, or there is no such set.
    MisuseError
        There are several sets, and none is named.
    """
    chosen = chosen_set(groups, set)
    for site, dataset in set_groups(groups, chosen).items():
        if tensor_site(site) == name.site and name.layer in dataset["layer"].values:
            found = _without_rounding(dataset, rounding).sel(layer=name.layer)
            split = found.sel(projection=name.projection) if name.projection else found
            return _linear(name, split)
    raise MissingError(problem(f"no quantized weights of {name.full}", where=f"set {chosen}"))


@handed
def quantized_linears(
    groups: Groups, block: str, *, set: str | None = None, rounding: bool = False
) -> Iterator[QuantizedLinear]:
    """Linears of a block: image before text; q, k, v, o, fc1, fc2, then the modulation.

    Parameters
    ----------
    set
        As of `weight_groups_of`.
    rounding
        Read V too, which takes four times the room of the weights.
    """
    sites = weight_groups_of(groups, set)
    for whole in Block.parse(block).layers:
        layer = whole.layer
        for site, dataset in sites.items():
            if layer in dataset["layer"].values:
                found = _without_rounding(dataset, rounding).sel(layer=layer)
                for name in _names(whole, site, "projection" in found.dims):
                    split = found.sel(projection=name.projection) if name.projection else found
                    yield _linear(name, split)


def _without_rounding(dataset: xr.Dataset, rounding: bool) -> xr.Dataset:
    return dataset if rounding else dataset.drop_vars("rounding", errors="ignore")


def _linear(name: LayerName, layer: xr.Dataset) -> QuantizedLinear:
    def values(variable: str, *dims: str) -> Array:
        return np.asarray(layer[variable].transpose(*dims).values)

    def optional(variable: str, *dims: str) -> Array | None:
        """None too where it was not written: other linears of the site have it."""
        found = values(variable, *dims) if variable in layer else None
        return None if found is None or np.isnan(found).all() else found

    lower = np.asarray(layer["sigma_lower"].values)
    quantizer = InputQuantizer.none(lower)
    if "activation_step" in layer:
        quantizer = InputQuantizer(
            values("activation_step", "time_group"),
            values("activation_zero_point", "time_group"),
            values("activation_bits", "time_group"),
            lower,
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
        optional("offset", "out", "group"),
        _bits_of(layer),
    )


def _bits_of(layer: xr.Dataset) -> int:
    """Bits of one linear; of older stores what the run of its site says."""
    if "weight_bits" in layer:
        return int(layer["weight_bits"])
    return int(attribute_of(layer, "run", {}).get("bits", 0) or 0)


def _original_dtypes(linear: str, layer: xr.Dataset) -> dict[str, str]:
    """Attribute `original_dtype`: one for all linears of a variable, or an object by linear."""
    told = {str(v): attribute_of(array, "original_dtype") for v, array in layer.data_vars.items()}
    mine = {v: dtype.get(linear) if isinstance(dtype, dict) else dtype for v, dtype in told.items()}
    return {variable: dtype for variable, dtype in mine.items() if dtype is not None}


def run_of(groups: Groups, set: str | None = None) -> dict[str, Any]:
    """Attribute `run` of a set's weights: bits and settings, those that all sites agree in."""
    runs = _runs(groups, set)
    differing = differing_settings(groups, set)
    first = next(iter(runs.values()))
    return {name: value for name, value in first.items() if name not in differing}


def differing_settings(groups: Groups, set: str | None = None) -> dict[str, dict[str, Any]]:
    """Settings of `run` that are not the same at every site, by name, then by site."""
    runs = _runs(groups, set)
    names = dict.fromkeys(name for run in runs.values() for name in run)
    found = {name: {site: run.get(name) for site, run in runs.items()} for name in names}
    return {
        name: values
        for name, values in found.items()
        if any(value != next(iter(values.values())) for value in values.values())
    }


def _runs(groups: Groups, set: str | None) -> dict[str, Mapping[str, Any]]:
    return {
        site: attribute_of(data, "run", {}) for site, data in weight_groups_of(groups, set).items()
    }
