"""The weights of a variant: of a weight set or file, or rounded here; and the bytes they take."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from taqstore.errors import MissingError, TaqError, problem
from taqstore.export.packed.comfy import rotated_input
from taqstore.kinds.formats.packed_grid import Grid
from taqstore.kinds.quantized_linears import (
    QuantizedLinear,
    linear_names_of,
    quantized_blocks,
    quantized_linear,
    run_of,
)
from taqstore.kinds.weight_files import read_quantized, read_run
from taqstore.kinds.weight_sets import ADAROUND, weight_sets
from taqstore.names import SITES, LayerName
from taqstore.quantization.comfy.codebook import GROUP, w4a8_gptq, w4a8_nearest
from taqstore.quantization.comfy.rotation import rotation_size
from taqstore.quantization.gptq import Prepared
from taqstore.quantization.integer_grid import MLX_BITS, MLX_GROUPS
from taqstore.quantization.weight_grid import dequantized, round_to_nearest, weight_steps
from taqstore.store.reader import Store

from ..models.backend import backend
from ..models.inputs import Reader
from ..models.load import LoadedModel
from .variants import COMFY, COMFY_GPTQ, FLOAT, MIXED, MLX, Rounded, Variant

# Rounding to nearest, by the rule of the weight's clip bound.
_NEAREST = {"rtn": "absmax", "clipped": "mse"}
_COMFY = (COMFY, COMFY_GPTQ)
_BITS = 4
_MLX_GROUP = 64


@dataclass(frozen=True)
class Weights:
    """Weights of variants for one model and store; what variants share is made once.

    Parameters
    ----------
    file
        Of `export safetensors`, which stands for the set `adaround`; None: the store has the sets.
    compared
        Weight sets that are measured in the same run: what is rounded here is so at the sites, and
        the linears outside of blocks, that these have.
    bits, group_size
        Of weights that are rounded here and whose variant does not say it; None: 4 bits, and one
        step for each output channel, of `mlx` those of the compared sets.
    mixed
        Weights of each linear for `mixed`. They say themselves what they are: `bits`, `group_size`
        and compared sets are not for them.
    """

    model: LoadedModel
    store: Store
    file: Path | None = None
    compared: tuple[str, ...] = ()
    bits: int | None = None
    group_size: int | None = None
    mixed: Mapping[LayerName, Variant] = field(default_factory=dict)
    _read: dict[tuple[str, LayerName], QuantizedLinear] = field(default_factory=dict)
    _names: dict[str, tuple[LayerName, ...]] = field(default_factory=dict)
    _moments: dict[tuple[str, str], Prepared | None] = field(default_factory=dict)

    @cached_property
    def readers(self) -> dict[LayerName, Reader]:
        """Every linear of the model, blocks first in the order they run, then those beside."""
        every = (reader for one in self.model.inputs() for reader in one.readers)
        ordered = sorted(every, key=lambda reader: reader.name.sort_key)
        return {reader.name: reader for reader in ordered}

    @cached_property
    def total(self) -> int:
        """Weights of all linears of the model."""
        return sum(int(np.prod(reader.shape)) for reader in self.readers.values())

    def names(self, weights: str) -> tuple[LayerName, ...]:
        """Linears of a weight set that are complete.

        Raises
        ------
        MissingError
            There is no such set, or nothing of it is complete.
        """
        if weights not in self._names:
            if self._of_file(weights):
                found = list(self._from_file)
            else:
                found = linear_names_of(self.store, set=weights)
                if not found:
                    quantized_blocks(self.store, set=weights)  # says what it lacks
            self._names[weights] = tuple(found)
        return self._names[weights]

    def linears(self, variant: Variant, chosen: Collection[str], *, outside: bool) -> list[Reader]:
        """Linears that a variant changes.

        Parameters
        ----------
        chosen
            Blocks.
        outside
            Linears outside of blocks as well, where its weights, or those compared, have them.

        Raises
        ------
        MissingError
            The set lacks a linear of a chosen block and has others of its site; the model or a set
            lacks one that the allocation names.
        """
        if variant.weights == MIXED:
            return self._linears_mixed(chosen, outside=outside)
        own = [variant.weights] if variant.is_set else list(self.compared)
        own = [] if variant.weights == FLOAT else own
        have = {name for weights in own for name in self.names(weights)}
        have |= set() if variant.is_set or variant.weights == FLOAT else {*self.mixed}
        sites = {name.site for name in have} & {*SITES} if have else {*SITES}
        found = []
        for name, reader in self.readers.items():
            if name.site in SITES and name.block in chosen and (name.site in sites):
                if variant.is_set and name not in have:
                    raise self._lacking(variant, name, chosen)
                found.append(reader)
            elif (
                name.site not in SITES
                and name in have
                and (name.block in chosen or (outside and not name.in_block))
            ):
                found.append(reader)
        return found

    def _linears_mixed(self, chosen: Collection[str], *, outside: bool) -> list[Reader]:
        absent = [name for name in self.mixed if name not in self.readers]
        for name, part in self.mixed.items():
            if part.is_set and name not in absent and name not in self.names(part.weights):
                what = f"the weight set {part.weights} has no {name.full}"
                raise MissingError(problem(what, remedy="the allocation gives it another format"))
        if absent:
            what = f"{self.model.row.name} has no linear {absent[0].full} of the allocation"
            raise MissingError(problem(what, found=f"{len(self.readers)} others"))
        changed = {name for name, part in self.mixed.items() if part.weights != FLOAT}
        return [
            reader
            for name, reader in self.readers.items()
            if name in changed and (name.block in chosen or (outside and not name.in_block))
        ]

    @cached_property
    def _parts(self) -> Weights:
        """The same for parts of `mixed`, which leave nothing open."""
        return replace(self, compared=(), bits=None, group_size=None, mixed={})

    def weight(self, variant: Variant, reader: Reader) -> np.ndarray | None:
        """Weight float32 (out, in) of a linear; None: as it is.

        Raises
        ------
        TaqError
            MLX, or ComfyUI, does not quantize such a weight.
        """
        if variant.weights == FLOAT:
            return None
        if variant.weights == MIXED:
            return self._parts.weight(self.mixed[reader.name], reader)
        if variant.is_set:
            return self.stored(variant.weights, reader.name).dequantized()
        own, grid = reader.matrix(), self.grid(variant, reader)
        if variant.weights == MLX:
            return _by_mlx(own, grid, reader.name)
        if variant.weights in _COMFY:
            return self._by_comfy(variant, reader)
        clip: Any = _NEAREST[variant.weights]
        steps = weight_steps(own, bits=grid.bits, group_size=grid.group_size, clip=clip)
        return dequantized(round_to_nearest(own, steps, bits=grid.bits), steps)

    def forget(self) -> None:
        """Let go of linears of sets: memory is that of those read since."""
        self._read.clear()

    def stored(self, weights: str, name: LayerName) -> QuantizedLinear:
        """A linear of a set."""
        key = weights, name
        if key not in self._read:
            if self._of_file(weights):
                return self._from_file[name]
            self._read[key] = quantized_linear(self.store, name, set=weights)
        return self._read[key]

    def grid(self, variant: Variant, reader: Reader) -> Grid:
        """Bits and groups of a linear's weight."""
        if variant.weights == MIXED:
            return self._parts.grid(self.mixed[reader.name], reader)
        if variant.is_set:
            return self._stored_grid(variant.weights, reader)
        if variant.weights in _COMFY:
            return Grid(_BITS, GROUP, float8=True)
        bits = variant.weight_bits or self.bits
        size = variant.group_size or self.group_size
        if variant.weights != MLX:
            return Grid(bits or _BITS, size)
        beside = next((w for w in self.compared if reader.name in self.names(w)), None)
        like = Grid(_BITS, None) if beside is None else self._stored_grid(beside, reader)
        fitting = like.group_size if like.group_size in MLX_GROUPS else _MLX_GROUP
        return Grid(bits or like.bits or _BITS, size or fitting)

    def _stored_grid(self, weights: str, reader: Reader) -> Grid:
        found = self.stored(weights, reader.name)
        groups = found.step.shape[1]
        return Grid(found.bits, None if groups == 1 else reader.shape[1] // groups)

    def bits_of(self, variant: Variant) -> int:
        """Bits of a variant's weights; 0 where they stay as they are, or do not say it."""
        if variant.weights in (FLOAT, MIXED):
            return 0
        if variant.weights in _COMFY:
            return _BITS
        if variant.is_set:
            return self.about(variant.weights).bits
        of_sets = [self.about(w).bits for w in self.compared if variant.weights == MLX]
        return variant.weight_bits or self.bits or next(filter(None, of_sets), _BITS)

    def _by_comfy(self, variant: Variant, reader: Reader) -> np.ndarray:
        """What ComfyUI's layout makes of a weight, as float32 again."""
        own, read = reader.matrix(), reader.name.input
        rotation = rotation_size(own.shape[1])
        if variant.weights == COMFY:
            return w4a8_nearest(own, rotation=rotation).dequantized()
        key = read.layer, read.site
        if key not in self._moments:
            self._moments.clear()  # of one tensor at a time
            self._moments[key] = rotated_input(self.store, *key, own.shape[1])[0]
        moments = self._moments[key]
        if moments is None:
            what = f"{variant.name} needs second moments of {read.full}"
            remedy = "taqstore collect --second-moment takes them"
            raise MissingError(problem(what, where=str(self.store.location), remedy=remedy))
        return w4a8_gptq(own, moments, rotation=rotation)[0].dequantized()

    def about(self, weights: str) -> Rounded:
        """What a set, or the file, says of itself.

        Raises
        ------
        MissingError
            There is no such set, or nothing of it is complete.
        """
        if self._of_file(weights):
            assert self.file is not None
            return _rounded(weights, self.names(weights), read_run(self.file))
        names, run = self.names(weights), run_of(self.store, weights)
        return _rounded(weights, names, run)

    @cached_property
    def sets(self) -> tuple[str, ...]:
        """Sets that variants can name."""
        return (ADAROUND,) if self.file is not None else weight_sets(self.store)

    def _of_file(self, weights: str) -> bool:
        return self.file is not None and weights == ADAROUND

    @cached_property
    def _from_file(self) -> dict[LayerName, QuantizedLinear]:
        assert self.file is not None
        return read_quantized(self.file)

    def _lacking(self, variant: Variant, name: LayerName, chosen: Collection[str]) -> MissingError:
        there = {known.block for known in self.names(variant.weights)}
        covered = [block for block in chosen if block in there]
        own = replace(variant, blocks=tuple(covered)).name
        where = str(self.file or self.store.location)
        remedy = "taqstore adaround --resume rounds more" + (
            f", {own} is of those there are" if covered else ""
        )
        what = f"{variant.name}: no quantized weights of {name.full}"
        return MissingError(problem(what, where=where, remedy=remedy))


def _rounded(weights: str, names: Sequence[LayerName], run: Mapping[str, Any]) -> Rounded:
    bits, learned = (int(run.get(key, 0) or 0) for key in ("bits", "activation_bits"))
    blocks = tuple(dict.fromkeys(name.block for name in names if name.in_block))
    return Rounded(blocks, bits, run.get("group_size"), learned, weights)


def _by_mlx(weight: np.ndarray, grid: Grid, name: LayerName) -> np.ndarray:
    """What `mx.quantize` makes of a weight, affine, as float32 again."""
    mx, into = backend().mx, weight.shape[1]
    if grid.bits not in MLX_BITS or grid.group_size not in MLX_GROUPS or into % grid.group_size:
        what = f"MLX does not quantize {name.full}: {grid.bits} bits, groups of {grid.group_size}"
        remedy = "--weight-bits 2 to 6 or 8, --weight-group-size 32, 64 or 128, dividing the inputs"
        raise TaqError(problem(what, found=f"{into} inputs", remedy=remedy))
    options = {"group_size": grid.group_size, "bits": grid.bits}
    packed = mx.quantize(mx.array(weight), **options)
    return np.array(mx.dequantize(*packed, **options))
