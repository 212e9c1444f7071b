"""Make random MMDiT checkpoints in the layout of SD3, for models of any size without weights."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

PREFIX = "model.diffusion_model."
_PATCH = 2
_LATENT_CHANNELS = 16

Spec = tuple[str, tuple[int, ...]]


@dataclass(frozen=True)
class MMDiTShape:
    """Sizes of an MMDiT without unified blocks; the defaults are tiny.

    Parameters
    ----------
    hidden, blocks
        Channels of the residual streams, and multimodal blocks.
    resolution
        Rows and columns of the table of positions.
    pooled, text
        Channels of the pooled and of the token conditioning.
    frequencies
        Channels of the timestep embedding.
    """

    hidden: int = 32
    blocks: int = 3
    resolution: int = 16
    pooled: int = 24
    text: int = 20
    frequencies: int = 16


SD3_MEDIUM = MMDiTShape(1536, 24, 192, 2048, 4096, 256)


def make_checkpoint(path: Path | str, *, shape: MMDiTShape | None = None, seed: int = 0) -> Path:
    """Write random float16 weights as safetensors, one tensor in memory at a time.

    Rows of a weight differ in size, so that each channel has a range of its own.
    """
    specs = [(PREFIX + name, dims) for name, dims in tensor_shapes(shape or MMDiTShape())]
    header, end = {}, 0
    for name, dims in specs:
        start, end = end, end + 2 * int(np.prod(dims))
        header[name] = {"dtype": "F16", "shape": dims, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    rng = np.random.default_rng(seed)
    with Path(path).open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for name, dims in specs:
            stream.write(_random(rng, name, dims).tobytes())
    return Path(path)


def _random(rng: np.random.Generator, name: str, dims: tuple[int, ...]) -> NDArray[np.float16]:
    values = rng.standard_normal(dims, np.float32)
    if name.endswith(".bias"):
        return (values * np.float32(0.3)).astype(np.float16)
    gain = np.exp(rng.normal(0, 0.5, dims[0])).astype(np.float32)
    values *= gain.reshape(-1, *[1] * (len(dims) - 1)) / np.float32(np.sqrt(np.prod(dims[1:])))
    return values.astype(np.float16)


def tensor_shapes(shape: MMDiTShape) -> Iterator[Spec]:
    """Name and shape of every tensor, as DiffusionKit's strict loader wants them."""
    hidden = shape.hidden
    for i in range(shape.blocks):
        for stream in ("x_block", "context_block"):
            last = stream == "context_block" and i == shape.blocks - 1
            yield from _half_block(f"joint_blocks.{i}.{stream}", hidden, last=last)
    for name, width in (("y_embedder", shape.pooled), ("t_embedder", shape.frequencies)):
        yield from _linear(f"{name}.mlp.0", hidden, width)
        yield from _linear(f"{name}.mlp.2", hidden, hidden)
    yield from _linear("context_embedder", hidden, shape.text)
    yield from _linear("final_layer.linear", _PATCH**2 * _LATENT_CHANNELS, hidden)
    yield from _linear("final_layer.adaLN_modulation.1", 2 * hidden, hidden)
    yield "x_embedder.proj.weight", (hidden, _LATENT_CHANNELS, _PATCH, _PATCH)
    yield "x_embedder.proj.bias", (hidden,)
    yield "pos_embed", (1, shape.resolution**2, hidden)


def _half_block(name: str, hidden: int, *, last: bool) -> Iterator[Spec]:
    yield from _linear(f"{name}.attn.qkv", 3 * hidden, hidden)
    yield from _linear(f"{name}.adaLN_modulation.1", (2 if last else 6) * hidden, hidden)
    if not last:
        yield from _linear(f"{name}.attn.proj", hidden, hidden)
        yield from _linear(f"{name}.mlp.fc1", 4 * hidden, hidden)
        yield from _linear(f"{name}.mlp.fc2", hidden, 4 * hidden)


def _linear(name: str, out: int, into: int) -> Iterator[Spec]:
    yield f"{name}.weight", (out, into)
    yield f"{name}.bias", (out,)
