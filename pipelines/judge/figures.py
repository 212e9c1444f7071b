"""What a variant's trajectories tell beside those of the model as it is, image by image."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from taqstore.trajectory.measures import cosine, first_below, psnr, psnr_latent, relative_error

from .kept import Sampled

Picture = Callable[[np.ndarray], np.ndarray]
"""A final latent (height, width, channel) to a uint8 picture (height, width[, colour])."""
Row = tuple[np.ndarray, ...]
_PEAK = 255


@dataclass(frozen=True)
class Figures:
    """Likeness of latents and guided outputs, float64.

    The noise that all begin with is left out: latents are those of the steps 1 to the final one,
    numbered as the store's steps are, `steps` of them.

    Parameters
    ----------
    cosine, error
        ``(image, step)``: cosine and relative error of latents.
    output_cosine, output_error
        ``(image, step)`` of guided outputs, each at its own latents, from step 0.
    psnr, picture_psnr
        ``(image,)``: of final latents, and of decoded pictures; NaN where there are none.
    """

    cosine: np.ndarray
    error: np.ndarray
    output_cosine: np.ndarray
    output_error: np.ndarray
    psnr: np.ndarray
    picture_psnr: np.ndarray

    @property
    def steps(self) -> np.ndarray:
        """Step of each latent; the last is the final one."""
        return np.arange(1, self.cosine.shape[1] + 1)

    @property
    def final_error(self) -> np.ndarray:
        """``(image,)``: relative error of the final latent."""
        return self.error[:, -1]

    @property
    def mean_cosine(self) -> np.ndarray:
        """``(image,)``: mean over steps of the latents' cosine."""
        return np.asarray(self.cosine.mean(axis=1))

    @property
    def worst_cosine(self) -> np.ndarray:
        """``(image,)``: least over steps; NaN where there is one."""
        return np.asarray(self.cosine.min(axis=1))

    def bifurcation(self, bound: float) -> np.ndarray:
        """``(image,)``: first step whose latent's cosine is below the bound; -1: none."""
        place = first_below(self.cosine, bound)
        return np.where(place < 0, -1, self.steps[place])


def figures_of(
    pairs: Iterable[tuple[Sampled, Sampled]], *, picture: Picture | None = None
) -> Figures:
    """Figures of pairs, the model as it is first; one pair is in memory at a time.

    Parameters
    ----------
    picture
        Decodes final latents; None: there are no pictures.
    """
    return joined([row_of(plain, other, picture) for plain, other in pairs])


def joined(rows: Sequence[Row]) -> Figures:
    """Figures of images, of each what `row_of` gave."""
    return Figures(*(np.array(column, np.float64) for column in zip(*rows, strict=True)))


def row_of(plain: Sampled, other: Sampled, picture: Picture | None = None) -> Row:
    """Figures of one image: the values of `Figures` in their order."""
    return (
        cosine(other.x[1:], plain.x[1:]),
        relative_error(other.x[1:], plain.x[1:]),
        cosine(other.output, plain.output),
        relative_error(other.output, plain.output),
        psnr_latent(other.x[-1], plain.x[-1]),
        np.asarray(np.nan) if picture is None else _of_pictures(plain, other, picture),
    )


def _of_pictures(plain: Sampled, other: Sampled, picture: Picture) -> np.ndarray:
    if not np.isfinite(other.x[-1]).all():
        return np.asarray(np.nan)
    cubes = [_cube(picture(one.x[-1])) for one in (other, plain)]
    return psnr(*cubes, peak=_PEAK)


def _cube(pixels: np.ndarray) -> np.ndarray:
    return pixels.reshape(*pixels.shape[:2], -1)
