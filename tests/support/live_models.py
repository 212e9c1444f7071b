"""Tiny random models in the layouts of the real ones, for DiffusionKit's own loaders."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

os.environ.setdefault("MLX_DISABLE_COMPILE", "1")

from taqstore.pipelines.models.backend import backend
from taqstore.pipelines.models.load import LoadedModel, load_pipeline
from taqstore.pipelines.models.table import MODELS, ModelRow

from taqstore.testing.checkpoint import MMDiTShape, make_checkpoint

SHAPE = MMDiTShape()
POOLED, TOKENS, WIDTH = SHAPE.pooled, 5, SHAPE.text
FLUX_HIDDEN, FLUX_DOUBLE, FLUX_SINGLE = 32, 2, 2

TINY = ModelRow(
    name="tiny",
    hub="taqstore-tests/tiny",
    config="support.live_models:tiny_config",
    text="support.live_models:encode_text",
    decoder="support.live_models:decode",
    dtype="float16",
    latent_size=(8, 4),
)
TINY32 = replace(TINY, name="tiny32", dtype="float32")
TINY_FLUX = ModelRow(
    name="tiny-flux",
    hub="argmaxinc/mlx-FLUX.1-schnell",
    pipeline="FluxPipeline",
    config="support.live_models:flux_config",
    text="support.live_models:encode_flux_text",
    guidance=False,
    cfg_weight=0.0,
    shift=1.0,
    latent_size=(4, 6),
)
# The size of the model that wrote the reference files, with random weights of our own.
SOURCE_SHAPE = MMDiTShape(hidden=48, blocks=3, resolution=64, pooled=24, text=40)
SOURCE = replace(TINY, name="source48", config="support.live_models:source_config")
MODELS |= {row.name: row for row in (TINY, TINY32, TINY_FLUX, SOURCE)}


def tiny_config() -> Any:
    return _config(SHAPE)


def source_config() -> Any:
    return _config(SOURCE_SHAPE)


def _config(shape: MMDiTShape) -> Any:
    from diffusionkit.mlx.config import MMDiTConfig

    mx = backend().mx
    return MMDiTConfig(
        num_heads=4,
        depth_multimodal=shape.blocks,
        hidden_size_override=shape.hidden,
        max_latent_resolution=shape.resolution,
        pooled_text_embed_dim=shape.pooled,
        token_level_text_embed_dim=shape.text,
        frequency_embed_dim=shape.frequencies,
        dtype=mx.float16,
        float16_dtype=mx.float16,
    )


def flux_config() -> Any:
    from diffusionkit.mlx.config import MMDiTConfig, PositionalEncoding

    return MMDiTConfig(
        num_heads=2,
        depth_multimodal=FLUX_DOUBLE,
        depth_unified=FLUX_SINGLE,
        hidden_size_override=FLUX_HIDDEN,
        patchify_via_reshape=True,
        pos_embed_type=PositionalEncoding.PreSDPARope,
        rope_axes_dim=(4, 6, 6),
        pooled_text_embed_dim=POOLED,
        token_level_text_embed_dim=WIDTH,
        frequency_embed_dim=16,
        use_qk_norm=True,
    )


def _text(text: str) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(list(hashlib.sha256(text.encode()).digest()))
    return rng.normal(size=(TOKENS, WIDTH)), rng.normal(size=POOLED)


def encode_text(text: str, cfg_weight: float = 7.5, negative_text: str = "") -> Any:
    """float32, as DiffusionKit gives it whatever the activation dtype is."""
    both = [_text(t) for t in (text, negative_text)]
    parts = [np.stack(part).astype(np.float32) for part in zip(*both, strict=True)]
    return tuple(map(backend().mx.array, parts))


def encode_flux_text(text: str, cfg_weight: float = 7.5, negative_text: str = "") -> Any:
    return tuple(part[:1] for part in encode_text(text))


def decode(latent: np.ndarray) -> np.ndarray:
    return np.clip(latent[..., 0] * 60 + 128, 0, 255).astype(np.uint8)


def _uniform(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Weights large enough that streams reach tens and each channel has a range of its own."""
    gain = np.exp(rng.normal(0, 0.5, shape[0])).reshape(-1, *[1] * (len(shape) - 1))
    fan_in = int(np.prod(shape[1:])) or 1
    return (rng.normal(size=shape) * gain / np.sqrt(fan_in)).astype(np.float16)


def _linear(rng: np.random.Generator, name: str, out: int, into: int) -> dict[str, np.ndarray]:
    return {
        f"{name}.weight": _uniform(rng, out, into),
        f"{name}.bias": (rng.normal(size=out) * 0.3).astype(np.float16),
    }


def flux_weights(seed: int = 0) -> dict[str, np.ndarray]:
    """Keys and shapes of a FLUX checkpoint."""
    rng = np.random.default_rng(seed)
    c, found = FLUX_HIDDEN, dict[str, np.ndarray]()
    head = c // 2
    for i in range(FLUX_DOUBLE):
        for stream in ("img", "txt"):
            name = f"double_blocks.{i}.{stream}"
            found |= _linear(rng, f"{name}_attn.qkv", 3 * c, c)
            found |= _linear(rng, f"{name}_attn.proj", c, c)
            found |= _linear(rng, f"{name}_mlp.0", 4 * c, c) | _linear(
                rng, f"{name}_mlp.2", c, 4 * c
            )
            found |= _linear(rng, f"{name}_mod.lin", 6 * c, c)
            for part in ("key_norm", "query_norm"):
                found[f"{name}_attn.norm.{part}.scale"] = np.ones(head, np.float16)
    for i in range(FLUX_SINGLE):
        name = f"single_blocks.{i}"
        found |= _linear(rng, f"{name}.linear1", 7 * c, c)
        found |= _linear(rng, f"{name}.linear2", c, 5 * c)
        found |= _linear(rng, f"{name}.modulation.lin", 3 * c, c)
        for part in ("key_norm", "query_norm"):
            found[f"{name}.norm.{part}.scale"] = np.ones(head, np.float16)
    for name, width in (("time_in", 16), ("vector_in", POOLED)):
        found |= _linear(rng, f"{name}.in_layer", c, width)
        found |= _linear(rng, f"{name}.out_layer", c, c)
    found |= _linear(rng, "img_in", c, 64) | _linear(rng, "txt_in", c, WIDTH)
    found |= _linear(rng, "final_layer.linear", 64, c)
    return found | _linear(rng, "final_layer.adaLN_modulation.1", 2 * c, c)


def write_checkpoint(path: Path, *, seed: int = 0, flux: bool = False) -> Path:
    """Write a random checkpoint as safetensors, in the layout of SD3 or FLUX."""
    if not flux:
        return make_checkpoint(path, shape=SHAPE, seed=seed)
    mx = backend().mx
    weights = {key: mx.array(value) for key, value in flux_weights(seed).items()}
    mx.save_safetensors(str(path), weights)
    return path


def load_tiny(folder: Path, row: ModelRow = TINY, *, seed: int = 0) -> LoadedModel:
    path = folder / f"{row.name}.{seed}.safetensors"
    if not path.exists():
        write_checkpoint(path, seed=seed, flux=row.pipeline == "FluxPipeline")
    return load_pipeline(row, local_ckpt=path)
