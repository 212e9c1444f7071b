"""The reference model itself: its size, its weights in SD3's layout, DiffusionKit's class."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from ..backend import backend
from .encoder import WIDTH

# An `mlx.core.array`; MLX is not imported for a type.
Tensor = Any

LATENT_SIZE = (8, 8)
PREFIX = "model.diffusion_model."
_CHECKPOINT = Path(__file__).with_name("reference.safetensors")
_PROMPTS = Path(__file__).with_name("prompts.txt")
# DiffusionKit's names -> names in a checkpoint of SD3, applied in this order.
_NAMES = (
    ("multimodal_transformer_blocks", "joint_blocks"),
    ("image_transformer_block", "x_block"),
    ("text_transformer_block", "context_block"),
    ("x_pos_embedder.pos_embed.weight", "pos_embed"),
    ("attn.o_proj", "attn.proj"),
    (".layers.", "."),
)


def config() -> Any:
    """Its `MMDiTConfig`: 6 multimodal blocks, 128 channels, 3.5 million parameters."""
    mx = backend().mx
    return import_module("diffusionkit.mlx.config").MMDiTConfig(
        num_heads=4,
        depth_multimodal=6,
        hidden_size_override=128,
        max_latent_resolution=16,
        pooled_text_embed_dim=WIDTH,
        token_level_text_embed_dim=WIDTH,
        frequency_embed_dim=WIDTH,
        # The timestep is embedded in float16, as SD3-Medium's is.
        dtype=mx.float16,
        float16_dtype=mx.float16,
        low_memory_mode=False,
    )


def checkpoint_path() -> Path:
    """The trained weights: float16 safetensors in SD3's layout, part of the package."""
    return _CHECKPOINT


def prompts_path() -> Path:
    """Prompts to begin with, one a line: what `digit_prompts(32, seed=1)` gives."""
    return _PROMPTS


def to_sd3(parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Parameters under DiffusionKit's flat names -> tensors as a checkpoint of SD3 holds them.

    q, k and v are joined, with zeros for the bias that DiffusionKit's k projection has not; the
    patch embedding becomes OIHW and the position table gets a leading axis.
    """
    renamed = {_sd3_name(name): value for name, value in parameters.items()}
    tensors = {key: value for key, value in renamed.items() if "_proj." not in key}
    for key in sorted(key for key in renamed if ".q_proj." in key):
        tensors[key.replace("q_proj", "qkv")] = _joined(renamed, key)
    weight = f"{PREFIX}x_embedder.proj.weight"
    tensors[weight] = tensors[weight].transpose(0, 3, 1, 2)
    tensors[f"{PREFIX}pos_embed"] = tensors[f"{PREFIX}pos_embed"][None]
    return tensors


def _sd3_name(name: str) -> str:
    for ours, theirs in _NAMES:
        name = name.replace(ours, theirs)
    return PREFIX + name


def _joined(tensors: Mapping[str, Tensor], key: str) -> Tensor:
    mx = backend().mx
    query = tensors[key]
    parts = [tensors.get(key.replace("q_proj", f"{p}_proj"), mx.zeros_like(query)) for p in "qkv"]
    return mx.concatenate(parts)
