"""The one table of a model's linears: which tensor each reads, and where it is in the model.

Hooks, groups of statistics and weights, names in exports and statistics of weights follow from it.
Inputs that the model's output does not depend on (what the last text block would do with its
attention) are no inputs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import numpy as np

from taqstore.errors import TaqError, problem
from taqstore.names import (
    ADALN,
    MODEL_LAYERS,
    MODULATION,
    SITES,
    LayerName,
    linear_names,
    parse_layer,
    path_in_block,
    path_in_model,
    site_rank,
)

from .backend import backend
from .layers import ModelBlock, blocks, halves

# An `mlx.core.array`; MLX is not imported for a type.
Tensor = Any


@dataclass(frozen=True)
class Reader:
    """One linear, or the convolution that embeds patches of a latent.

    Parameters
    ----------
    name
        ``mm0.img.attn.q_proj``, ``mm0.img.adaln.linear``, ``final_layer.final.linear``.
    path
        Where the module is in the model's tree, as DiffusionKit's parameters spell it.
    module
        MLX's own: `nn.Linear`, `nn.QuantizedLinear` or `nn.Conv2d`.
    """

    name: LayerName
    path: str
    module: Any = field(compare=False)

    @property
    def packable(self) -> bool:
        """Whether it is an `nn.Linear`, that MLX can hold packed."""
        return self.module.weight.ndim == 2 and "scales" not in self.module

    @property
    def shape(self) -> tuple[int, int]:
        """Outputs and inputs of the weight as a matrix."""
        weight = self.module.weight
        if "scales" in self.module:
            return int(weight.shape[0]), int(weight.shape[1]) * 32 // self.module.bits
        return int(weight.shape[0]), int(np.prod(weight.shape[1:]))

    def matrix(self) -> np.ndarray:
        """The weight as a float32 matrix (out, in), a copy; a packed one is dequantized.

        A convolution's inputs are a patch's, in the order row, column, channel.
        """
        mx, module = backend().mx, self.module
        weight = module.weight
        if "scales" in module:
            weight = mx.dequantize(
                weight,
                module.scales,
                module.get("biases"),
                group_size=module.group_size,
                bits=module.bits,
            )
        return np.array(weight.astype(mx.float32)).reshape(self.shape)

    def read(self, x: Tensor) -> Tensor:
        """What it is called with, as ``(..., channel)``: a convolution's latent as patches."""
        weight = self.module.weight
        if weight.ndim == 2:
            return x
        _, rows, columns, channels = weight.shape
        batch, height, width, _ = x.shape
        patches = x.reshape(batch, height // rows, rows, width // columns, columns, channels)
        return patches.transpose(0, 1, 3, 2, 4, 5).reshape(batch, -1, 1, rows * columns * channels)


@dataclass(frozen=True)
class Input:
    """One tensor that linears read.

    Parameters
    ----------
    layer, site
        As stores call it.
    channels
        Of the tensor.
    readers
        Every linear that reads it, as the model runs them.
    """

    layer: str
    site: str
    channels: int
    readers: tuple[Reader, ...]

    @property
    def module(self) -> Any:
        """The module that is watched for it: all readers see the same."""
        return self.readers[0].module

    @property
    def weights(self) -> int:
        """Weights that are multiplied with it."""
        return sum(out * into for out, into in (reader.shape for reader in self.readers))


def check_floats(readers: Iterable[Reader]) -> None:
    """Refuse packed linears, which can neither be rounded nor run with other weights.

    Raises
    ------
    TaqError
        One is packed.
    """
    packed = [reader.name.full for reader in readers if "scales" in reader.module]
    if packed:
        what = f"the weights of {packed[0]} are packed already"
        raise TaqError(problem(what, remedy="name the floats that they were made of"))


def inputs_of(mmdit: Any) -> tuple[Input, ...]:
    """Every distinct tensor that a linear reads, in store order: by site, then by layer."""
    found: dict[tuple[str, str], list[Reader]] = {}
    for reader in every_reader(mmdit):
        found.setdefault((reader.name.site, reader.name.input.layer), []).append(reader)
    ordered = sorted(found, key=lambda at: (site_rank(at[0]), parse_layer(at[1]).sort_key))
    return tuple(
        Input(layer, site, readers[0].shape[1], tuple(readers))
        for site, layer in ordered
        for readers in [found[site, layer]]
    )


def every_reader(mmdit: Any) -> list[Reader]:
    """Every linear: blocks in the order they run, then layers without a block."""
    names = [
        LayerName(layer, "", site)
        for layer, sites in MODEL_LAYERS.items()
        if layer != MODULATION
        for site in sites
    ]
    paths = [(name, path_in_model(name)) for name in names]
    return [
        *(reader for block in blocks(mmdit) for reader in block_readers(block)),
        *(Reader(name, path, at(mmdit, path)) for name, path in paths),
    ]


def block_readers(block: ModelBlock, sites: Collection[str] = (*SITES, ADALN)) -> list[Reader]:
    """Linears of a block that the model's output depends on, stream by stream."""
    names: Iterable[LayerName] = (
        parse_layer(full)
        for layer, half in halves(block)
        for site in sites
        if site in (SITES[0], ADALN) or not half.skip_post_sdpa
        for full in linear_names(parse_layer(f"{layer}.{site}"))
    )
    return [
        Reader(name, path_in_model(name), at(block.module, path_in_block(name))) for name in names
    ]


def at(module: Any, path: str) -> Any:
    """The module at a path below another: ``image_transformer_block.adaLN_modulation.layers.1``."""
    return reduce(
        lambda owner, part: owner[int(part)] if part.isdigit() else getattr(owner, part),
        path.split("."),
        module,
    )
