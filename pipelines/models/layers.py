"""Where the blocks of an MMDiT are, and the modules that adaLN modulates, by explicit path.

`named_modules` will not do: after DiffusionKit's own `cache_modulation_params` it lists the adaLN
linears twice.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

from taqstore.asked import meant
from taqstore.errors import MissingError, problem
from taqstore.names import Block, model_blocks


@dataclass(frozen=True)
class ModelBlock(Block):
    """A block with the module that is it."""

    module: Any = field(compare=False)


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
        raise MissingError(problem(what, remedy=meant(unknown[0], known)))
    return tuple(name for name in known if chosen is None or name in chosen)


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


def modulated(mmdit: Any) -> list[Any]:
    """Modules that keep adaLN parameters per timestep: the halves of blocks and the final layer."""
    return [*(module for block in blocks(mmdit) for _, module in halves(block)), mmdit.final_layer]
