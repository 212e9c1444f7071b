"""A model of another family: one stream, gated FFN, no adaLN, two forwards for guidance.

It runs on MLX, shares nothing with DiffusionKit, and offers what `seam.Model` asks for.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from taqstore.pipelines.models.backend import backend
from taqstore.pipelines.models.inputs import Input, Reader
from taqstore.pipelines.models.layers import ModelBlock
from taqstore.pipelines.models.seam import Conditioning, Model, Prompt
from taqstore.pipelines.models.table import ModelRow

from taqstore.names import LayerName

HIDDEN, WIDE, LATENT, DEPTH = 8, 12, 4, 2


def _modules(seed: int) -> Any:
    import mlx.nn as nn

    class Block(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.w1 = nn.Linear(HIDDEN, WIDE)
            self.w3 = nn.Linear(HIDDEN, WIDE)
            self.w2 = nn.Linear(WIDE, HIDDEN)

        def __call__(self, *, hidden: Any) -> Any:
            return hidden + self.w2(nn.silu(self.w1(hidden)) * self.w3(hidden))

    class Network(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Linear(LATENT, HIDDEN)
            self.layers = [Block() for _ in range(DEPTH)]
            self.out = nn.Linear(HIDDEN, LATENT)

        def __call__(self, *, latent: Any, text: Any) -> Any:
            hidden = self.embed(latent) + text
            for layer in self.layers:
                hidden = layer(hidden=hidden)
            return self.out(hidden)

    backend().mx.random.seed(seed)
    return Network()


class GatedModel:
    """Latents ``(1, height, width, 4)`` are flattened to tokens inside."""

    row = ModelRow(name="gated", hub="tests/gated")

    def __init__(self, seed: int = 0) -> None:
        self.module = _modules(seed)
        self.activation_dtype = backend().mx.float32

    def encode_text(self, prompt: str, *, cfg_weight: float, negative: str = "") -> Conditioning:
        rows = [[float(len(text) % 7 + i) for i in range(HIDDEN)] for text in (prompt, negative)]
        tokens = backend().mx.array(np.float32(rows) / 7)[:, None]
        return Conditioning(tokens, tokens[:, 0], cfg_weight)

    def levels(self, steps: int) -> tuple[Any, Any]:
        sigmas = backend().mx.array(np.linspace(1, 0, steps + 1, dtype=np.float32))
        return sigmas, sigmas * 1000

    def noise(self, sigmas: Any, *, seed: int, latent_size: tuple[int, int]) -> Any:
        shape = (1, *latent_size, LATENT)
        return backend().mx.array(np.random.default_rng(seed).normal(size=shape).astype("f4"))

    def prepare(self, conditioning: Conditioning, timesteps: Any) -> Prompt:
        return Prompt(conditioning)

    def denoise(self, x: Any, timestep: Any, sigma: Any, prompt: Prompt) -> Any:
        tokens = x.reshape(1, -1, LATENT)
        given = prompt.conditioning
        asked, other = (self.module(latent=tokens, text=given.tokens[i : i + 1]) for i in (0, 1))
        velocity = (other + given.cfg_weight * (asked - other)).reshape(x.shape)
        return x - velocity * sigma

    def advance(self, x: Any, denoised: Any, sigma: Any, lower: Any) -> Any:
        return denoised + (x - denoised) * (lower / sigma)

    def blocks(self) -> list[ModelBlock]:
        return [ModelBlock("uni", i, layer) for i, layer in enumerate(self.module.layers)]

    def inputs(self) -> tuple[Input, ...]:
        found = []
        for site, parts in (("mlp.fc1", ("w1", "w3")), ("mlp.fc2", ("w2",))):
            for i, layer in enumerate(self.module.layers):
                readers = tuple(
                    Reader(LayerName(f"uni{i}", "uni", site, p), f"layers.{i}.{p}", layer[p])
                    for p in parts
                )
                found.append(Input(f"uni{i}", site, readers[0].shape[1], readers))
        for layer, site, part in (
            ("x_embedder", "embed.image", "embed"),
            ("final_layer", "final.linear", "out"),
        ):
            reader = Reader(LayerName(layer, "", site), part, self.module[part])
            found.append(Input(layer, site, reader.shape[1], (reader,)))
        return tuple(found)

    def seen_by(self, one: Input, x: Any) -> Any:
        return one.readers[0].read(x)

    def picture(self, latent: Any) -> Any:
        return np.clip(np.array(latent)[0, ..., 0] * 60 + 128, 0, 255).astype(np.uint8)

    def to_store(self, x: Any) -> np.ndarray:
        return np.array(x)[0]

    def to_model(self, latent: np.ndarray) -> Any:
        return backend().mx.array(latent[None])


def gated(seed: int = 0) -> Model:
    return GatedModel(seed)
