"""Where the linears and blocks of an MMDiT are, by explicit path.

`named_modules` will not do: after `cache_modulation_params` it lists the adaLN linears twice.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

from taqstore.errors import MissingError, problem
from taqstore.names import SITES, Block, LayerName, linear_names, model_blocks, parse_layer

# The linear whose input is the site's tensor; q, k and v read one tensor, so q stands for all.
_LINEAR = {
    "attn.qkv": ("attn", "q_proj"),
    "attn.o_proj": ("attn", "o_proj"),
    "mlp.fc1": ("mlp", "fc1"),
    "mlp.fc2": ("mlp", "fc2"),
}


@dataclass(frozen=True)
class ModelBlock(Block):
    """A block with the module that is it."""

    module: Any = field(compare=False)


@dataclass(frozen=True)
class Linear:
    """One distinct linear input: which layer and site, and the module that reads it."""

    layer: str
    site: str
    module: Any


def blocks(mmdit: Any) -> list[ModelBlock]:
    """Blocks in the order they run."""
    multimodal = mmdit.multimodal_transformer_blocks
    unified = mmdit.unified_transformer_blocks if mmdit.config.depth_unified > 0 else []
    every = zip(model_blocks(len(multimodal), len(unified)), [*multimodal, *unified], strict=True)
    return [ModelBlock(block.kind, block.index, module) for block, module in every]


def chosen_blocks(mmdit: Any, chosen: Collection[str] | None, *, model: str) -> tuple[str, ...]:
    """Names of these blocks (None: all) in the order they run; `model` is what errors call it.

    Raises
    ------
    MissingError
        The model has no such block.
    """
    known = [block.name for block in blocks(mmdit)]
    unknown = [name for name in chosen or () if name not in known]
    if unknown:
        what = f"no block {', '.join(unknown)} in {model}"
        raise MissingError(problem(what, found=f"{known[0]} to {known[-1]}"))
    return tuple(name for name in known if chosen is None or name in chosen)


def linears(mmdit: Any) -> list[Linear]:
    """Every distinct linear input in store order: by site, then by layer (189 on SD3-Medium)."""
    every = [half for block in blocks(mmdit) for half in halves(block)]
    return [
        Linear(layer, site, getattr(getattr(module, section), part))
        for site, (section, part) in _LINEAR.items()
        for layer, module in every
        if site == SITES[0] or not module.skip_post_sdpa
    ]


def block_linears(block: ModelBlock) -> list[tuple[LayerName, Any]]:
    """Name and module of every linear of a block that the model's output depends on.

    Unlike in `linears`, q, k and v each stand for themselves.
    """
    return [
        (name, getattr(getattr(half, section), name.projection or part))
        for layer, half in halves(block)
        for site, (section, part) in _LINEAR.items()
        if site == SITES[0] or not half.skip_post_sdpa
        for name in map(parse_layer, linear_names(parse_layer(f"{layer}.{site}")))
    ]


def halves(block: ModelBlock) -> Iterator[tuple[str, Any]]:
    """Layer name and module of a block's streams: image and text, or the one of a unified block."""
    whole = block.module
    modules = (
        [whole.transformer_block]
        if block.unified
        else [whole.image_transformer_block, whole.text_transformer_block]
    )
    for name, module in zip(block.layers, modules, strict=True):
        yield name.layer, module


def site_channels(mmdit: Any) -> dict[str, int]:
    """Channels of each site's tensor."""
    hidden = mmdit.config.hidden_size
    return dict.fromkeys(SITES, hidden) | {"mlp.fc2": hidden * mmdit.config.mlp_ratio}


def modulated(mmdit: Any) -> list[Any]:
    """Modules that keep adaLN parameters per timestep: the halves of blocks and the final layer."""
    return [*(module for block in blocks(mmdit) for _, module in halves(block)), mmdit.final_layer]
