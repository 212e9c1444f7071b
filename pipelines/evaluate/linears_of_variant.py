"""What a variant makes of a model's linears: weights and input quantizers, out of a store."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from taqstore.errors import MissingError, MisuseError, TaqError, problem
from taqstore.kinds.quantized_linears import (
    InputQuantizer,
    QuantizedLinear,
    quantized_blocks,
    quantized_linears,
    run_of,
)
from taqstore.kinds.weight_files import read_quant_config, read_quantized, read_run
from taqstore.names import ACTIVATIONS, SITES, LayerName
from taqstore.quantization.weight_grid import dequantized, round_to_nearest, weight_steps
from taqstore.query.activation_start import activation_start
from taqstore.store.reader import Store

from ..models.inputs import block_readers
from ..models.layers import blocks, chosen_blocks
from ..models.load import LoadedModel, to_numpy
from ..models.quantized.quantized_model import LinearPlan
from .variants import ADAROUND, CONFIG, FLOAT, LEARNED, Rounded, Variant

# Rounding to nearest, by the rule of the weight's clip bound.
_NEAREST = {"rtn": "absmax", "clipped": "mse"}
# Sites whose inputs `-shift` shifts: the post-GELU ones, as the source does.
SHIFTED = ("mlp.fc2",)
_SMALL_BYTES = 256 << 20
_BITS = 4
_GROUPS = 4
# Options as the command line spells them.
_SPELLED = {
    "weights": "--weights",
    "config": "--config",
    "groups": "--time-groups",
    "bits": "--weight-bits",
    "group_size": "--weight-group-size",
}


@dataclass(frozen=True)
class Options:
    """What the names of variants leave open.

    Parameters
    ----------
    chosen
        Blocks to quantize; None: all that the model has.
    bits, group_size
        Of weights rounded to nearest whose variant does not say it; None: 4 bits, and one step for
        each output channel.
    groups
        Groups of steps of `grouped` variants; None: 4.
    weights
        File of `export safetensors` to take quantized weights from; None: the store.
    config
        File of `export quant-config` for `config` variants.
    """

    chosen: Sequence[str] | None = None
    bits: int | None = None
    group_size: int | None = None
    groups: int | None = None
    weights: Path | None = None
    config: Path | None = None

    @property
    def time_groups(self) -> int:
        """Groups of steps of `grouped` variants."""
        return _GROUPS if self.groups is None else self.groups

    def check(self, variants: Sequence[Variant]) -> None:
        """Refuse what no variant takes, and a config that a variant lacks.

        Raises
        ------
        MisuseError
            There is such a thing.
        """
        for variant in variants:
            if variant.steps == CONFIG:
                self.config_of(variant)
        rounded = [v for v in variants if v.weights in _NEAREST]
        used = {
            "weights": any(v.weights == ADAROUND for v in variants),
            "config": any(v.steps == CONFIG for v in variants),
            "groups": any(v.steps == "grouped" for v in variants),
            "bits": any(not v.weight_bits for v in rounded),
            "group_size": any(not v.group_size for v in rounded),
        }
        idle = [name for name, needed in used.items() if not needed and getattr(self, name)]
        if idle:
            what = f"no variant takes {_SPELLED[idle[0]]}"
            names = ", ".join(variant.name for variant in variants)
            raise MisuseError(problem(what, found=names))

    def config_of(self, variant: Variant) -> Path:
        """The config file, which a variant needs; else a MisuseError."""
        if self.config is None:
            raise MisuseError(problem(f"{variant.name} needs a config file", remedy="--config"))
        return self.config


@dataclass(frozen=True)
class Planner:
    """Makes the plans of variants for one model and store; what variants share is made once.

    Parameters
    ----------
    model, store
        Whose linears, and what of them is known; activations are read through dask.
    options
        What names leave open.
    """

    model: LoadedModel
    store: Store
    options: Options = field(default_factory=Options)

    @cached_property
    def chosen(self) -> tuple[str, ...]:
        """Blocks that variants quantize, in the order they run, unless they name their own.

        Raises
        ------
        MissingError
            The model has no such block.
        """
        mmdit, called = self.model.mmdit, self.model.row.name
        return chosen_blocks(mmdit, self.options.chosen or None, model=called)

    def blocks_of(self, variant: Variant) -> tuple[str, ...]:
        """Blocks that a variant quantizes, in the order they run.

        Raises
        ------
        MissingError
            The model has no such block.
        MisuseError
            The variant names a block that is not among the chosen ones.
        """
        if variant.weights == FLOAT and not variant.steps:
            return ()
        named = chosen_blocks(self.model.mmdit, variant.blocks or None, model=self.model.row.name)
        outside = [block for block in named if block not in self.chosen]
        if variant.blocks and outside:
            what = f"{variant.name}: {outside[0]} is not among --blocks"
            raise MisuseError(problem(what, remedy="leave --blocks out"))
        return tuple(block for block in named if block in self.chosen)

    def check(self, variant: Variant) -> None:
        """Refuse a variant before anything is sampled.

        Raises
        ------
        MissingError
            It names blocks that there are not, or weights that were not rounded.
        """
        chosen = self.blocks_of(variant)
        if variant.weights == ADAROUND:
            for name in self._linears(chosen):
                self._rounded_linear(variant, name)

    def weight_bits(self, variant: Variant) -> int:
        """Bits of a variant's weights; 0 where they stay as they are, or do not say it."""
        if variant.weights == FLOAT:
            return 0
        if variant.weights == ADAROUND:
            return self.rounded.bits if self.rounded else 0
        return variant.weight_bits or self.bits

    @property
    def bits(self) -> int:
        """Of weights rounded to nearest whose variant does not say it."""
        return _BITS if self.options.bits is None else self.options.bits

    @cached_property
    def rounded(self) -> Rounded | None:
        """Weights that were rounded before, of the file or the store; None where there are none.

        Raises
        ------
        SourceError
            The file is another, or damaged.
        """
        if self.options.weights is not None:
            return _rounded_of_file(self.options.weights, self._from_file)
        try:
            complete, run = quantized_blocks(self.store), run_of(self.store)
        except MissingError:
            return None
        return _rounded(complete, run)

    def plans(self, variant: Variant) -> dict[LayerName, LinearPlan]:
        """What every linear of the blocks that a variant quantizes runs with.

        Raises
        ------
        MissingError
            The store lacks activations or weights that the variant needs.
        TaqError
            The learned steps are of other bits.
        """
        linears = self._linears(self.blocks_of(variant))
        weights = {name: self._weight(variant, name, module) for name, module in linears.items()}
        inputs = self._inputs(variant, list(linears))
        return {name: LinearPlan(weights[name], inputs.get(name)) for name in linears}

    def _linears(self, chosen: Collection[str]) -> dict[LayerName, Any]:
        every = [block for block in blocks(self.model.mmdit) if block.name in chosen]
        return {x.name: x.module for block in every for x in block_readers(block, SITES)}

    @cached_property
    def _from_file(self) -> dict[LayerName, QuantizedLinear]:
        assert self.options.weights is not None
        return read_quantized(self.options.weights)

    @cached_property
    def _quantized(self) -> dict[LayerName, QuantizedLinear]:
        """What is rounded of the chosen blocks."""
        if self.options.weights is not None:
            return self._from_file
        complete = [b for b in quantized_blocks(self.store) if b in self.chosen]
        linears = (x for block in complete for x in quantized_linears(self.store, block))
        return {linear.name: linear for linear in linears}

    def _rounded_linear(self, variant: Variant, name: LayerName) -> QuantizedLinear:
        if name in self._quantized:
            return self._quantized[name]
        there = {known.block for known in self._quantized}
        covered = [block for block in self.chosen if block in there]
        own = replace(variant, blocks=tuple(covered)).name
        where = str(self.options.weights or self.store.location)
        remedy = "taqstore adaround --resume rounds more" + (
            f", {own} is of those there are" if covered else ""
        )
        what = f"{variant.name}: no quantized weights of {name.full}"
        raise MissingError(problem(what, where=where, remedy=remedy))

    def _weight(self, variant: Variant, name: LayerName, module: Any) -> np.ndarray | None:
        if variant.weights == FLOAT:
            return None
        if variant.weights == ADAROUND:
            return self._rounded_linear(variant, name).dequantized()
        own = np.asarray(to_numpy(module.weight), np.float32)
        bits, size = self.weight_bits(variant), variant.group_size or self.options.group_size
        clip: Any = _NEAREST[variant.weights]
        steps = weight_steps(own, bits=bits, group_size=size, clip=clip)
        return dequantized(round_to_nearest(own, steps, bits=bits), steps)

    def _inputs(
        self, variant: Variant, names: Sequence[LayerName]
    ) -> Mapping[LayerName, InputQuantizer]:
        if variant.steps == CONFIG:
            return read_quant_config(self.options.config_of(variant))
        if not variant.bits:
            return {}
        if variant.steps == LEARNED:
            return self._learned(variant, names)
        started = {site: self._started(site, variant) for site in {name.site for name in names}}
        return {
            name: _input_quantizer(started[name.site], name.layer, variant.bits) for name in names
        }

    def _learned(
        self, variant: Variant, names: Sequence[LayerName]
    ) -> Mapping[LayerName, InputQuantizer]:
        found = {name: self._rounded_linear(variant, name).input for name in names}
        learned: dict[int, str] = {}
        for name, quantizer in found.items():
            for bits in set(quantizer.bits.tolist()):
                learned.setdefault(bits, name.full)
        if set(learned) != {variant.bits}:
            widths = ", ".join(map(str, sorted(learned)))
            what = f"{variant.name}: the learned steps are of {widths} bits"
            if len(learned) > 1:
                places = ", ".join(f"{bits} at {learned[bits]}" for bits in sorted(learned))
                raise TaqError(problem(what, found=places, remedy="no variant is of several"))
            raise TaqError(problem(what, remedy=f"use adaround/a{max(learned)}-{LEARNED}"))
        return found

    @cached_property
    def _observed(self) -> dict[str, xr.Dataset]:
        """Observations by site, in memory where they are small: variants ask them many times."""
        paths = {site: f"{ACTIVATIONS}/{site}" for site in SITES}
        found = {site: self.store[path] for site, path in paths.items() if path in self.store}
        return {s: d.load() if d.nbytes <= _SMALL_BYTES else d for s, d in found.items()}

    def _started(self, site: str, variant: Variant) -> xr.Dataset:
        if site not in self._observed:
            remedy = "taqstore collect observes them"
            what = f"{variant.name} needs {ACTIVATIONS}/{site}"
            raise MissingError(problem(what, where=str(self.store.location), remedy=remedy))
        shifted = variant.shift and site in SHIFTED
        observed = self._observed[site]
        # Fewer steps than groups by default make as many groups; more that are asked for, none.
        fitting = min(self.options.time_groups, observed.sizes["step"])
        grouped = fitting if self.options.groups is None else self.options.groups
        return activation_start(
            observed,
            bits=variant.bits,
            groups={"static": 1, "grouped": grouped, "step": None}[variant.steps],
            clip="mse" if variant.mse and not shifted else "absmax",
            shifted=shifted,
        ).compute()


def _rounded_of_file(path: Path, linears: Mapping[LayerName, QuantizedLinear]) -> Rounded:
    """What a file of `export safetensors` holds; its header says how it was made."""
    run = read_run(path)
    blocks_there = tuple(dict.fromkeys(name.block for name in linears))
    return _rounded(blocks_there, run)


def _rounded(names: Collection[str], run: Mapping[str, Any]) -> Rounded:
    bits, learned = (int(run.get(key, 0) or 0) for key in ("bits", "activation_bits"))
    return Rounded(tuple(names), bits, run.get("group_size"), learned)


def _input_quantizer(started: xr.Dataset, layer: str, bits: int) -> InputQuantizer:
    if layer not in started["layer"].values:
        remedy = "taqstore collect observes them"
        raise MissingError(problem(f"no activations of layer {layer}", remedy=remedy))
    found = started.sel(layer=layer)
    step = found["step_size"].values.astype(np.float32)
    return InputQuantizer(
        step,
        np.zeros(step.shape, np.int32),
        np.full(step.shape, bits, np.int8),
        found["sigma_lower"].values,
        found["shift"].values.astype(np.float32) if "shift" in found else None,
    )
