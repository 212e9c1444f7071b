"""What a family of models offers to everything above it: the one place that ties code to a family.

A family loads a model (`load.load_pipeline` for DiffusionKit's SD3 and FLUX); the model is a
`Model`. Sampling, hooks, statistics and groups of a store are made from that alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from .inputs import Input
    from .layers import ModelBlock
    from .table import ModelRow

# An `mlx.core.array`; MLX is not imported for a type.
Tensor = Any


@dataclass(frozen=True)
class Conditioning:
    """Text as the model sees it, in the activation dtype.

    Parameters
    ----------
    tokens
        ``(row, token, channel)``: row 0 the prompt, row 1 the negative prompt where there is one.
    pooled
        ``(row, pooled_channel)``.
    cfg_weight
        Guidance weight it is used with.
    """

    tokens: Tensor
    pooled: Tensor
    cfg_weight: float


@dataclass(frozen=True)
class Prompt:
    """What forwards of a prompt are given; make it with `Model.prepare`."""

    conditioning: Conditioning


class Model(Protocol):
    """A loaded model. Latents are float32 ``(1, height, width, channel)``."""

    @property
    def row(self) -> ModelRow:
        """What was loaded."""
        ...

    @property
    def module(self) -> Any:
        """The module whose call is a forward: hooks stand in it and below it."""
        ...

    @property
    def activation_dtype(self) -> Any:
        """MLX's dtype of activations, and of timesteps."""
        ...

    def encode_text(self, prompt: str, *, cfg_weight: float, negative: str = "") -> Conditioning:
        """Text as the model sees it."""
        ...

    def levels(self, steps: int) -> tuple[Tensor, Tensor]:
        """Sigmas, float32, and timesteps ``(step + 1,)`` of a run, from noise to image."""
        ...

    def noise(self, sigmas: Tensor, *, seed: int, latent_size: tuple[int, int]) -> Tensor:
        """The latent that a run over these sigmas begins with."""
        ...

    def prepare(self, conditioning: Conditioning, timesteps: Tensor) -> Prompt:
        """Get a prompt ready to be run at these timesteps ``(step,)``."""
        ...

    def denoise(self, x: Tensor, timestep: Tensor, sigma: Tensor, prompt: Prompt) -> Tensor:
        """The denoised latent that the model predicts, guidance included; not yet evaluated."""
        ...

    def advance(self, x: Tensor, denoised: Tensor, sigma: Tensor, lower: Tensor) -> Tensor:
        """The latent at the next, lower sigma."""
        ...

    def blocks(self) -> Sequence[ModelBlock]:
        """Its blocks in the order they run."""
        ...

    def inputs(self) -> Sequence[Input]:
        """Every distinct tensor that a linear reads, in store order."""
        ...

    def seen_by(self, one: Input, x: Tensor) -> Tensor:
        """The tensor of an input as its first reader was called with it, ``(..., channel)``."""
        ...

    def picture(self, latent: Tensor) -> Any:
        """A latent as a uint8 picture ``(height, width[, 3])``."""
        ...

    def to_store(self, x: Tensor) -> np.ndarray:
        """An evaluated latent as stores keep it, float32 ``(height, width, channel)``, exactly."""
        ...

    def to_model(self, latent: np.ndarray) -> Tensor:
        """A latent of a store as the model takes it: `to_store` undone."""
        ...
