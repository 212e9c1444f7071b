"""What a variant makes of a model's linears: weights and input quantizers, out of a store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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
from taqstore.names import ACTIVATIONS, SITES, WEIGHTS, LayerName
from taqstore.quantization.weight_grid import dequantized, round_to_nearest, weight_steps
from taqstore.query.activation_start import activation_start
from taqstore.store.reader import Store

from ..models.layers import block_linears, blocks, chosen_blocks
from ..models.load import LoadedModel, to_numpy
from ..models.quantized.quantized_model import LinearPlan
from .variants import ADAROUND, CONFIG, FLOAT, LEARNED, Variant

# Rounding to nearest, by the rule of the weight's clip bound.
_NEAREST = {"rtn": "absmax", "clipped": "mse"}
# Sites whose inputs `-shift` shifts: the post-GELU ones, as the source does.
SHIFTED = ("mlp.fc2",)
_SMALL_BYTES = 256 << 20
_BITS = 4


@dataclass(frozen=True)
class Options:
    """What the names of variants leave open.

    Parameters
    ----------
    chosen
        Blocks to quantize; None: those with quantized weights in the file or the store, or all.
    bits, group_size
        Of weights rounded to nearest; None: those of the stored weights, or 4 bits and one step for
        each output channel.
    groups
        Groups of steps of `grouped` variants.
    weights
        File of `export safetensors` to take quantized weights from; None: the store.
    config
        File of `export quant-config` for `config` variants.
    """

    chosen: Sequence[str] | None = None
    bits: int | None = None
    group_size: int | None = None
    groups: int = 4
    weights: Path | None = None
    config: Path | None = None


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
        """Blocks to quantize, in the order they run.

        Raises
        ------
        MissingError
            The model has no such block.
        """
        mmdit, called = self.model.mmdit, self.model.row.name
        names = chosen_blocks(mmdit, self.options.chosen or None, model=called)
        if self.options.chosen or not self.has_weights:
            return names
        stored = {name.block for name in self._of_file} or set(quantized_blocks(self.store))
        return tuple(name for name in names if name in stored)

    @property
    def bits(self) -> int:
        """Of weights rounded to nearest.

        Raises
        ------
        TaqError
            The quantized weights are not all of one width, and `Options.bits` does not choose.
        """
        if self.options.bits is not None:
            return self.options.bits
        if self.has_weights and "bits" not in self.run:
            what = "the quantized weights do not have one width"
            raise TaqError(problem(what, remedy="--bits says that of weights rounded to nearest"))
        return int(self.run.get("bits", _BITS))

    @property
    def group_size(self) -> int | None:
        """Inputs that share a weight step; None: all of an output channel."""
        asked = self.options.group_size
        return self.run.get("group_size") if asked is None else asked

    @cached_property
    def has_weights(self) -> bool:
        """Whether there are quantized weights, in a file or in the store."""
        stored = any(path.startswith(f"{WEIGHTS}/") for path in self.store)
        return stored or self.options.weights is not None

    @cached_property
    def run(self) -> Mapping[str, Any]:
        """Settings of the quantized weights, those of the file before those of the store."""
        if self.options.weights is not None:
            return read_run(self.options.weights)
        return run_of(self.store) if self.has_weights else {}

    @cached_property
    def _of_file(self) -> dict[LayerName, QuantizedLinear]:
        weights = self.options.weights
        return {} if weights is None else read_quantized(weights)

    def plans(self, variant: Variant) -> dict[LayerName, LinearPlan]:
        """What every linear of the chosen blocks runs with.

        Raises
        ------
        MissingError
            The store lacks activations or weights that the variant needs.
        TaqError
            The learned steps are of other bits.
        """
        inputs = self._inputs(variant)
        return {
            name: LinearPlan(self._weight(variant.weights, name, module), inputs.get(name))
            for name, module in self._linears.items()
        }

    @cached_property
    def _linears(self) -> dict[LayerName, Any]:
        every = blocks(self.model.mmdit)
        chosen = [block for block in every if block.name in self.chosen]
        return {name: module for block in chosen for name, module in block_linears(block)}

    @cached_property
    def _quantized(self) -> dict[LayerName, QuantizedLinear]:
        found = self._of_file
        if self.options.weights is None:
            complete = [b for b in quantized_blocks(self.store) if b in self.chosen]
            linears = (x for block in complete for x in quantized_linears(self.store, block))
            found = {linear.name: linear for linear in linears}
        absent = [name.full for name in self._linears if name not in found]
        if absent:
            where = str(self.options.weights or self.store.location)
            remedy = "run taqstore adaround --resume, or name other --blocks"
            what = f"no quantized weights of {', '.join(absent[:3])}"
            raise MissingError(problem(what, where=where, remedy=remedy))
        return found

    def _weight(self, rule: str, name: LayerName, module: Any) -> np.ndarray | None:
        if rule == FLOAT:
            return None
        if rule == ADAROUND:
            return self._quantized[name].dequantized()
        own = np.asarray(to_numpy(module.weight), np.float32)
        clip: Any = _NEAREST[rule]
        steps = weight_steps(own, bits=self.bits, group_size=self.group_size, clip=clip)
        return dequantized(round_to_nearest(own, steps, bits=self.bits), steps)

    def _inputs(self, variant: Variant) -> Mapping[LayerName, InputQuantizer]:
        if variant.steps == CONFIG:
            if self.options.config is None:
                raise MisuseError(problem(f"{variant.name} needs a config file", remedy="--config"))
            return read_quant_config(self.options.config)
        if not variant.bits:
            return {}
        if variant.steps == LEARNED:
            return self._learned(variant)
        sites = {name.site for name in self._linears}
        started = {site: self._started(site, variant) for site in sites}
        return {
            name: _input_quantizer(started[name.site], name.layer, variant.bits)
            for name in self._linears
        }

    def _learned(self, variant: Variant) -> Mapping[LayerName, InputQuantizer]:
        found = {name: self._quantized[name].input for name in self._linears}
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
        return activation_start(
            self._observed[site],
            bits=variant.bits,
            groups={"static": 1, "grouped": self.options.groups, "step": None}[variant.steps],
            clip="mse" if variant.mse and not shifted else "absmax",
            shifted=shifted,
        ).compute()


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
