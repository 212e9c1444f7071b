"""Narrow models of any number of blocks with random weights, and runs of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .inputs import Size

os.environ.setdefault("MLX_DISABLE_COMPILE", "1")

TOKENS, HIDDEN, LATENT = 5, 64, 8


def name_of(blocks: int) -> str:
    """What the model table calls the model of so many blocks."""
    return f"growth{blocks}"


def checkpoint_of(store: Path, blocks: int) -> Path:
    """Where the weights lie, beside the store."""
    return store.parent / f"{name_of(blocks)}.safetensors"


def generated(store: Path, size: Size) -> None:
    """Sample a model for as many images and steps."""
    from taqstore.pipelines.generate import Request, generate

    from taqstore.testing.checkpoint import make_checkpoint

    registered(size.blocks)
    weights = checkpoint_of(store, size.blocks)
    if not weights.exists():
        make_checkpoint(weights, shape=_shape(size.blocks))
    prompts = store.parent / "prompts.txt"
    prompts.write_text("a handwritten seven")
    generate(
        store,
        Request(name_of(size.blocks), prompts, size.images, steps=size.steps, local_ckpt=weights),
    )


def registered(blocks: int) -> None:
    """Put the model into the table, so that a store's name of it is found."""
    from taqstore.pipelines.models.table import MODELS, ModelRow

    MODELS[name_of(blocks)] = ModelRow(
        name=name_of(blocks),
        hub=f"taqstore-benchmarks/{name_of(blocks)}",
        config=f"benchmarks.growth.models:config_{blocks}",
        text="benchmarks.growth.models:text",
        dtype="float32",
        latent_size=(LATENT, LATENT),
    )


def __getattr__(name: str) -> Callable[[], Any]:
    # The table names functions without arguments: there is one for each number of blocks.
    word, _, blocks = name.partition("_")
    if word != "config" or not blocks.isdigit():
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return lambda: _config(int(blocks))


def _shape(blocks: int) -> Any:
    from taqstore.testing.checkpoint import MMDiTShape

    return MMDiTShape(hidden=HIDDEN, blocks=blocks)


def _config(blocks: int) -> Any:
    from diffusionkit.mlx.config import MMDiTConfig
    from taqstore.pipelines.models.backend import backend

    shape = _shape(blocks)
    return MMDiTConfig(
        num_heads=4,
        depth_multimodal=blocks,
        hidden_size_override=HIDDEN,
        max_latent_resolution=shape.resolution,
        pooled_text_embed_dim=shape.pooled,
        token_level_text_embed_dim=shape.text,
        frequency_embed_dim=shape.frequencies,
        dtype=backend().mx.float32,
    )


def text(words: str, cfg_weight: float = 7.5, negative_text: str = "") -> Any:
    """Conditioning of no meaning, the same for all prompts."""
    from taqstore.pipelines.models.backend import backend

    shape, rng, mx = _shape(1), np.random.default_rng(1), backend().mx
    tokens = rng.standard_normal((2, TOKENS, shape.text), np.float32)
    return mx.array(tokens), mx.array(rng.standard_normal((2, shape.pooled), np.float32))
