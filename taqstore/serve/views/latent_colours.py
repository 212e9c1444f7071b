"""Latents as colours: one linear map of their channels, the same for all steps and images.

The map is made of the latents it shows: channels of final latents are turned to their principal
directions, the first becomes brightness and the next two become colour. 127.5 is the mean, and
three standard deviations of the first direction reach black or white.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from taqstore.statistics.bins import Floats

if TYPE_CHECKING:
    import xarray as xr

DIMS = ("height", "width", "latent_channel")
TEXT = (
    "rgb = matrix @ channels + offset, cut to 0 to 255: brightness is the first principal direction"
    " of final latents, colour the second and third; 3 standard deviations reach the ends. Magenta:"
    " no number."
)
_MOST_IMAGES = 16
_REACH = 3.0
# Brightness, red against green, both against blue; how far each reaches.
_COLOURS = np.array([[1.0, 1.0, 1.0], [0.6, -0.6, 0.0], [0.35, 0.35, -0.7]])
_BROKEN = np.array([255, 0, 255], np.uint8)


@dataclass(frozen=True)
class LatentColours:
    """A map from channels to colours.

    Parameters
    ----------
    matrix
        float64 ``(colour, channel)``; 1 colour where there are fewer than 3 channels.
    offset
        float64 ``(colour,)``.
    """

    matrix: Floats
    offset: Floats

    def pixels(self, latents: NDArray[Any]) -> NDArray[np.uint8]:
        """Colours uint8 ``(..., 3)`` of latents ``(..., channel)``."""
        wide = np.asarray(latents, np.float64)
        with np.errstate(invalid="ignore", over="ignore"):
            found = wide @ self.matrix.T + self.offset
        known = np.isfinite(found).all(axis=-1, keepdims=True)
        shade = np.clip(np.where(known, found, 0.0), 0.0, 255.0).round().astype(np.uint8)
        return np.where(known, np.broadcast_to(shade, (*shade.shape[:-1], 3)), _BROKEN)


def colours_of(latents: xr.Dataset) -> LatentColours:
    """The map of a group of latents, from the last step of 16 of its images at most."""
    count = latents.sizes["image"]
    chosen = np.unique(np.linspace(0, count - 1, min(count, _MOST_IMAGES)).astype(int))
    final = latents["x"].isel(image=chosen, step=-1).transpose("image", *DIMS).values
    return _fitted(final.reshape(-1, final.shape[-1]).astype(np.float64))


def _fitted(rows: Floats) -> LatentColours:
    rows = rows[np.isfinite(rows).all(axis=1)]
    channels = rows.shape[1]
    if not len(rows):
        return LatentColours(np.zeros((1, channels)), np.full(1, 127.5))
    mean = rows.mean(axis=0)
    variance, directions = np.linalg.eigh((rows - mean).T @ (rows - mean) / len(rows))
    used = min(3, channels) if channels >= len(_COLOURS) else 1
    chosen = directions[:, ::-1][:, :used].T
    # A direction has two signs: the one whose largest entry is above zero is taken.
    largest = np.abs(chosen).argmax(axis=1)
    chosen = chosen * np.sign(chosen[np.arange(used), largest])[:, None]
    spread = np.sqrt(np.maximum(variance[::-1][:used], 0.0))
    scale = np.divide(127.5, _REACH * spread, out=np.zeros(used), where=spread > 0)
    shades = _COLOURS.T if used == len(_COLOURS) else np.ones((1, 1))
    matrix = (shades * scale) @ chosen
    return LatentColours(matrix, 127.5 - matrix @ mean)


def pooled(values: NDArray[Any], side: int) -> NDArray[Any]:
    """Latents or pictures ``(..., height, width, channel)`` as means of squares, `side` at most."""
    *lead, height, width, channels = values.shape
    by = -(-max(height, width) // side)
    if by <= 1:
        return values
    high, wide = -(-height // by) * by, -(-width // by) * by
    edge = [(0, 0)] * len(lead) + [(0, high - height), (0, wide - width), (0, 0)]
    filled = np.pad(values.astype(np.float32), edge, mode="edge")
    blocks = filled.reshape(*lead, high // by, by, wide // by, by, channels)
    return np.asarray(blocks.mean(axis=(-4, -2)))
