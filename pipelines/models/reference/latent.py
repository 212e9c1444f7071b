"""Pictures of digits and the latents that they fold into: linear, exact, without a VAE.

An 8x8 digit is enlarged to a 32x32 picture; each 4x4 tile of the picture becomes the 16 channels of
one latent position; the latent is then put on the scale that DiffusionKit's SD3 format uses.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from taqstore.errors import TaqError, problem

DIGIT_SIDE = 8
FACTOR = 4
CHANNELS = FACTOR * FACTOR
# SD3LatentFormat of DiffusionKit: the sampler works on (latent - SHIFT_FACTOR) * SCALE_FACTOR.
SCALE_FACTOR = 1.5305
SHIFT_FACTOR = 0.0609

Floats = NDArray[np.float32]


def enlarge(digits: ArrayLike) -> Floats:
    """Enlarge digits by linear interpolation.

    Parameters
    ----------
    digits
        (N, 8, 8), ink between 0 and 1.

    Returns
    -------
    (N, 32, 32) float32, ink between 0 and 1.
    """
    matrix = _enlargement()
    grown = matrix @ np.asarray(digits, np.float64) @ matrix.T
    return np.asarray(grown, np.float32)


def reduce(pictures: ArrayLike) -> Floats:
    """Means of 4x4 tiles: (N, 32, 32) -> (N, 8, 8) float32."""
    values = np.asarray(pictures, np.float64)
    count, height, width = values.shape
    tiles = values.reshape(count, height // FACTOR, FACTOR, width // FACTOR, FACTOR)
    return np.asarray(tiles.mean((2, 4)), np.float32)


def fold(pictures: ArrayLike) -> Floats:
    """Fold 4x4 tiles into channels: (N, 4H, 4W) -> (N, H, W, 16), channel = 4 * row + column."""
    values = np.asarray(pictures, np.float32)
    count, height, width = values.shape
    tiles = values.reshape(count, height // FACTOR, FACTOR, width // FACTOR, FACTOR)
    moved = tiles.transpose(0, 1, 3, 2, 4)
    return moved.reshape(count, height // FACTOR, width // FACTOR, CHANNELS)


def unfold(latents: ArrayLike) -> Floats:
    """Inverse of `fold`: (N, H, W, 16) -> (N, 4H, 4W)."""
    values = np.asarray(latents, np.float32)
    count, height, width, _ = values.shape
    moved = values.reshape(count, height, width, FACTOR, FACTOR).transpose(0, 1, 3, 2, 4)
    return moved.reshape(count, height * FACTOR, width * FACTOR)


def encode(pictures: ArrayLike) -> Floats:
    """Latents of pictures, on the scale that the sampler works on.

    Parameters
    ----------
    pictures
        (N, 32, 32), ink between 0 and 1.

    Returns
    -------
    (N, 8, 8, 16) float32.
    """
    centred = fold(pictures) * np.float32(2) - np.float32(1)
    return (centred - np.float32(SHIFT_FACTOR)) * np.float32(SCALE_FACTOR)


def ink(latent: ArrayLike) -> Floats:
    """Pictures of latents as the sampler leaves them, which is how a store keeps them.

    Parameters
    ----------
    latent
        (H, W, 16) or (N, H, W, 16), before DiffusionKit's `process_out`.

    Returns
    -------
    (4H, 4W) or (N, 4H, 4W) float32, between 0 and 1: clipped, as DiffusionKit clips a picture.

    Raises
    ------
    TaqError
        The latent has another number of dims or channels.
    """
    values = np.asarray(latent, np.float32)
    if values.ndim not in (3, 4) or values.shape[-1] != CHANNELS:
        what = "the reference model decodes latents of (height, width, 16)"
        raise TaqError(problem(what, found=str(values.shape)))
    many = values.reshape(-1, *values.shape[-3:])
    centred = unfold(many / np.float32(SCALE_FACTOR) + np.float32(SHIFT_FACTOR))
    pictures = np.clip(centred / np.float32(2) + np.float32(0.5), 0, 1)
    return np.asarray(pictures if values.ndim == 4 else pictures[0], np.float32)


def decode(latent: ArrayLike) -> NDArray[np.uint8]:
    """Picture of a latent in 256 levels of grey, white on black; see `ink`."""
    return grey(ink(latent))


def grey(pictures: Floats) -> NDArray[np.uint8]:
    """Ink between 0 and 1 in 256 levels, white on black."""
    return np.rint(pictures * 255).astype(np.uint8)


@cache
def _enlargement() -> NDArray[np.float64]:
    """Linear interpolation (32, 8) between the centres of pixels; constant beyond the last."""
    centres = (np.arange(DIGIT_SIDE * FACTOR) + 0.5) / FACTOR - 0.5
    inside = np.clip(centres, 0, DIGIT_SIDE - 1)
    distance = np.abs(inside[:, None] - np.arange(DIGIT_SIDE))
    return np.asarray(np.maximum(0, 1 - distance), np.float64)
