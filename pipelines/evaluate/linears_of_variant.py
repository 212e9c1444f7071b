"""What a variant makes of a model's linears: weights and input quantizers, out of a store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import xarray as xr

from taqstore.errors import MissingError, MisuseError, SourceError, TaqError, problem
from taqstore.kinds.formats.allocations import read_allocation
from taqstore.kinds.quantized_linears import InputQuantizer
from taqstore.kinds.weight_files import read_quant_config
from taqstore.kinds.weight_sets import ADAROUND
from taqstore.names import ACTIVATIONS, SITES, LayerName
from taqstore.query.activation_start import activation_start, input_quantizer
from taqstore.store.reader import Store

from ..models.inputs import Reader
from ..models.layers import chosen_blocks
from ..models.load import LoadedModel
from ..models.quantized.quantized_model import LinearPlan
from .variants import (
    COMFY,
    COMFY_GPTQ,
    CONFIG,
    FLOAT,
    LEARNED,
    MIXED,
    MLX,
    NEAREST,
    Rounded,
    Variant,
)
from .weights_of_variant import Weights

# Sites whose inputs `-shift` shifts: the post-GELU ones, as the source does.
SHIFTED = ("mlp.fc2",)
_SMALL_BYTES = 256 << 20
_BITS = 4
_GROUPS = 4
# Options as the command line spells them.
_SPELLED = {
    "weights": "--weights",
    "set": "--weights",
    "config": "--config",
    "allocation": "--allocation",
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
        File of `export safetensors` to take weights of `adaround` from; None: the store.
    set
        Weight set that weights which are rounded here are compared with; None: those that variants
        name.
    config
        File of `export quant-config` for `config` variants.
    allocation
        File of `analyze frontier --paste allocation` for `mixed` variants.
    """

    chosen: Sequence[str] | None = None
    bits: int | None = None
    group_size: int | None = None
    groups: int | None = None
    weights: Path | None = None
    set: str | None = None
    config: Path | None = None
    allocation: Path | None = None

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
            if variant.weights == MIXED and self.allocation is None:
                what, remedy = f"{variant.name} needs an allocation", "--allocation"
                raise MisuseError(problem(what, remedy=remedy))
        parts = {part.weights for v in variants for part in self.parts(v)}
        rounded = [v for v in variants if v.weights in (*NEAREST, MLX)]
        used = {
            "weights": ADAROUND in parts,
            "set": bool(rounded)
            or any(v.weights in (self.set, COMFY, COMFY_GPTQ) for v in variants),
            "config": any(v.steps == CONFIG for v in variants),
            "allocation": any(v.weights == MIXED for v in variants),
            "groups": any(v.steps == "grouped" for v in variants),
            "bits": any(not v.weight_bits for v in rounded),
            "group_size": any(not v.group_size for v in rounded),
        }
        idle = [name for name, needed in used.items() if not needed and getattr(self, name)]
        if idle:
            what = f"no variant takes {_SPELLED[idle[0]]}"
            names = ", ".join(variant.name for variant in variants)
            raise MisuseError(problem(what, found=names))

    @cached_property
    def mixed(self) -> Mapping[LayerName, Variant]:
        """Weights of each linear that the allocation names; empty without one.

        Raises
        ------
        SourceError
            It is no allocation, or names a format that there is not.
        """
        if self.allocation is None:
            return {}
        found: dict[LayerName, Variant] = {}
        made: dict[str, Variant] = {}
        for name, format in read_allocation(self.allocation).items():
            try:
                made[format] = made.get(format) or Variant.of_weights(format)
            except MisuseError as error:
                raise SourceError(f"{self.allocation}: {name.full}: {error}") from error
            found[name] = made[format]
        return found

    def parts(self, variant: Variant) -> list[Variant]:
        """What the weights of a variant are made of: itself, or what its allocation names."""
        return list(dict.fromkeys(self.mixed.values())) if variant.weights == MIXED else [variant]

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
    beside
        Weight sets that are measured with the variants.
    """

    model: LoadedModel
    store: Store
    options: Options = field(default_factory=Options)
    beside: tuple[str, ...] = ()

    @cached_property
    def weights(self) -> Weights:
        """Weights of variants."""
        options = self.options
        return Weights(
            self.model,
            self.store,
            options.weights,
            self.beside if options.set is None else (options.set,),
            options.bits,
            options.group_size,
            options.mixed,
        )

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
        self.linears(variant)

    def weight_bits(self, variant: Variant) -> int:
        """Bits of a variant's weights; 0 where they stay as they are, or do not say it."""
        return self.weights.bits_of(variant)

    @property
    def bits(self) -> int:
        """Of weights rounded to nearest whose variant does not say it."""
        return _BITS if self.options.bits is None else self.options.bits

    @cached_property
    def rounded(self) -> Rounded | None:
        """Weights that were rounded before; None where there are none, or several sets of them.

        Raises
        ------
        SourceError
            The file is another, or damaged.
        """
        sets = self.weights.sets
        chosen = self.options.set or (sets[0] if len(sets) == 1 else None)
        if chosen is None:
            return None
        try:
            return self.weights.about(chosen)
        except MissingError:
            if self.options.set is not None:
                raise
            return None

    def linears(self, variant: Variant) -> list[Reader]:
        """Linears that a variant changes; raises as `check`."""
        whole = self.options.chosen is None and not variant.blocks
        return self.weights.linears(variant, self.blocks_of(variant), outside=whole)

    def packed(self, variant: Variant) -> tuple[int, int]:
        """How many weights a variant rounds, and the bytes that they take packed as MLX does."""
        if variant.weights == FLOAT:
            return 0, 0
        found = [(reader.shape, self.weights.grid(variant, reader)) for reader in
                 self.linears(variant)]  # fmt: skip
        count = sum(out * into for (out, into), _ in found)
        return count, sum(grid.packed_bytes(shape) for shape, grid in found)

    def plans(self, variant: Variant) -> dict[LayerName, LinearPlan]:
        """What every linear that a variant changes runs with.

        Raises
        ------
        MissingError
            The store lacks activations or weights that the variant needs.
        TaqError
            The learned steps are of other bits.
        """
        linears = self.linears(variant)
        # Inputs are quantized where they were observed: at the sites of blocks.
        inputs = self.inputs(variant, [x.name for x in linears if x.name.site in SITES])
        return {
            x.name: LinearPlan(self.weights.weight(variant, x), inputs.get(x.name)) for x in linears
        }

    def inputs(
        self, variant: Variant, names: Sequence[LayerName]
    ) -> Mapping[LayerName, InputQuantizer]:
        """Quantizers of the inputs of linears, by a variant; raises as `plans`."""
        if variant.steps == CONFIG:
            return read_quant_config(self.options.config_of(variant))
        if not variant.bits:
            return {}
        if variant.steps == LEARNED:
            return self._learned(variant, names)
        sites = dict.fromkeys(name.site for name in names)
        started = {site: self._started(site, variant) for site in sites}
        return {
            name: input_quantizer(started[name.site], name.layer, variant.bits) for name in names
        }

    def _learned(
        self, variant: Variant, names: Sequence[LayerName]
    ) -> Mapping[LayerName, InputQuantizer]:
        found = {name: self.weights.stored(variant.weights, name).input for name in names}
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
            if not any(learned):
                remedy = f"no steps were learned: use {variant.weights}/a{variant.bits}-step"
                raise TaqError(problem(what, remedy=remedy))
            remedy = f"use {variant.weights}/a{max(learned)}-{LEARNED}"
            raise TaqError(problem(what, remedy=remedy))
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
