"""Passed or failed, and by what: the bounds of a gate, and a variant's figures beside them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from taqstore.errors import MisuseError, problem
from taqstore.trajectory.bootstrap import Interval, bootstrap
from taqstore.trajectory.measures import MIN_COSINE

from ..judge.figures import Figures

MAX_BIFURCATED = 0


@dataclass(frozen=True)
class Bounds:
    """What a variant has to keep to pass.

    Parameters
    ----------
    min_cosine
        Least mean over images and steps of the latents' cosine; an image with a latent below it
        is bifurcated.
    max_bifurcated
        How many images may be.
    min_psnr
        Least mean PSNR of final latents, dB; None: not asked.

    Raises
    ------
    MisuseError
        A bound is no finite number.
    """

    min_cosine: float = MIN_COSINE
    max_bifurcated: int = MAX_BIFURCATED
    min_psnr: float | None = None

    def __post_init__(self) -> None:
        for name in ("min_cosine", "min_psnr"):
            value = getattr(self, name)
            if value is not None and not np.isfinite(value):
                what = f"--{name.replace('_', '-')} is no finite number"
                raise MisuseError(
                    problem(what, found=str(value), remedy="give one, or leave it out")
                )


@dataclass(frozen=True)
class Worst:
    """The latent that is furthest from that of the model as it is."""

    place: int
    step: int
    cosine: float


@dataclass(frozen=True)
class Verdict:
    """What a gate says of one variant.

    Parameters
    ----------
    name, digest, path
        The variant, its SHA-256, and the group of its trajectories.
    figures
        Of every image.
    bounds
        What it had to keep.
    """

    name: str
    digest: str
    path: str
    figures: Figures
    bounds: Bounds

    @property
    def intervals(self) -> dict[str, Interval]:
        """Mean over images of each figure that an image has, with its interval."""
        found = self.figures
        columns = {
            "cosine": found.mean_cosine,
            "worst_cosine": found.worst_cosine,
            "latent_error": found.final_error,
            "output_error": found.output_error.mean(axis=1),
            "psnr": found.psnr,
            "picture_psnr": found.picture_psnr,
        }
        whole = bootstrap(np.stack(list(columns.values()), axis=1))
        return {
            name: Interval(*(np.asarray(end[place]) for end in whole))
            for place, name in enumerate(columns)
        }

    @property
    def bifurcation(self) -> np.ndarray:
        """``(image,)``: step of the bifurcation; -1: none."""
        return self.figures.bifurcation(self.bounds.min_cosine)

    @property
    def bifurcated(self) -> int:
        """Images that bifurcate."""
        return int((self.bifurcation >= 0).sum())

    @property
    def worst(self) -> Worst:
        """The first NaN, else the least cosine."""
        values = np.where(np.isnan(self.figures.cosine), -np.inf, self.figures.cosine)
        place, step = np.unravel_index(int(values.argmin()), values.shape)
        return Worst(
            int(place), int(self.figures.steps[step]), float(self.figures.cosine[place, step])
        )

    @property
    def failures(self) -> list[str]:
        """Bounds that are not kept, a line each; none: it passes."""
        found, bounds = [], self.bounds
        mean = float(self.figures.mean_cosine.mean())
        if not mean >= bounds.min_cosine:
            found.append(f"mean cosine {mean:.6g} is below {bounds.min_cosine:g}")
        if self.bifurcated > bounds.max_bifurcated:
            allowed = f", {bounds.max_bifurcated} may" if bounds.max_bifurcated else ""
            many = f"{self.bifurcated} of {len(self.bifurcation)} images bifurcate"
            found.append(f"{many}{allowed}")
        psnr = float(self.figures.psnr.mean())
        if bounds.min_psnr is not None and not psnr >= bounds.min_psnr:
            found.append(f"PSNR {psnr:.4g} dB is below {bounds.min_psnr:g} dB")
        return found

    @property
    def passes(self) -> bool:
        """Whether all bounds are kept."""
        return not self.failures
