"""Variants of a model beside the model as it is, from the trajectories that a store keeps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from taqstore.errors import MissingError, problem
from taqstore.kinds.trajectories import AVERAGE_BITS, FLOAT, path_of, trajectory_groups
from taqstore.names import WRITTEN, site_of
from taqstore.trajectory.bootstrap import Interval, bootstrap
from taqstore.trajectory.measures import (
    MIN_COSINE,
    cosine,
    first_below,
    psnr_latent,
    relative_error,
)


@dataclass(frozen=True)
class GateFigures:
    """What a gate with its defaults says of one variant.

    Parameters
    ----------
    seeds
        Of how many images.
    cosine
        Mean over steps of the cosine of latents, and its interval over seeds.
    least
        The least cosine of a step of any image.
    final_error, psnr
        Of final latents.
    bifurcated
        Images with a step below the bound.
    bound
        The least mean cosine that passes.
    """

    seeds: int
    cosine: Interval
    least: float
    final_error: Interval
    psnr: Interval
    bifurcated: int
    bound: float = MIN_COSINE

    @classmethod
    def of(cls, data: xr.Dataset) -> GateFigures:
        """Of a Dataset of `compared_variants`; the noise that all begin with is left out."""
        cosine = data["cosine"].values[:, 1:]
        return cls(
            len(cosine),
            bootstrap(cosine.mean(axis=1)),
            float(cosine.min()),
            bootstrap(data["relative_error"].values[:, -1]),
            bootstrap(data["psnr"].values),
            int((data["first_below"] >= 0).sum()),
            float(data.attrs.get("min_cosine", MIN_COSINE)),
        )

    @property
    def passes(self) -> bool:
        """Whether the mean cosine reaches the bound, and no image falls below it."""
        return bool(self.cosine.mean >= self.bound) and not self.bifurcated


def variant_paths(groups: Mapping[str, xr.Dataset]) -> dict[str, str]:
    """Paths of trajectories by the name of their variant, in the order of the store.

    Where two differ in their weights alone, digits of the group's name are put behind theirs.
    """
    named = {path: name for path, name in trajectory_groups(groups).items() if name != FLOAT}
    names = list(named.values())
    return {
        name if names.count(name) == 1 else f"{name} ({site_of(path)[:6]})": path
        for path, name in named.items()
    }


def compared_variants(
    groups: Mapping[str, xr.Dataset], *, min_cosine: float = MIN_COSINE
) -> dict[str, xr.Dataset]:
    """Every variant of the store beside the float trajectories of the same images.

    Parameters
    ----------
    groups
        A store, or any mapping of group paths to Datasets.
    min_cosine
        Below it a latent has left the float one.

    Returns
    -------
    By variant, Dataset
        (image, step): `cosine` and `relative_error` of latents, `output_cosine` and `output_error`
        of guided outputs, NaN at the final step. (step): `mean`, `lower`, `upper`, the mean of
        `cosine` over images and its 95 % bootstrap interval; `output_mean`, `output_lower`,
        `output_upper`. (image): `first_below`, index of the first step whose latent is below, -1
        for none; `psnr` of final latents in dB. Coordinates of the float trajectories.

    Raises
    ------
    MissingError
        The store has no float trajectories, or none of a variant beside them.
    """
    paths = variant_paths(groups)
    if path_of(FLOAT) not in groups or not paths:
        raise MissingError(
            problem(
                "no trajectories of a variant and of the model as it is",
                found=", ".join(groups) or "an empty store",
                remedy="make them: taqstore gate STORE --variant NAME",
            )
        )
    exact, found = _whole(groups[path_of(FLOAT)]), {}
    for name, path in paths.items():
        other = _whole(groups[path])
        both = np.intersect1d(exact["image"].values, other["image"].values)
        if len(both):
            found[name] = _beside(exact.sel(image=both), other.sel(image=both), bound=min_cosine)
    if not found:
        what = "no image was run both by a variant and by the model as it is"
        raise MissingError(problem(what, remedy="taqstore gate STORE --variant NAME"))
    return found


def by_step(
    latents: np.ndarray, *, sigmas: ArrayLike, steps: ArrayLike, min_cosine: float = MIN_COSINE
) -> xr.Dataset:
    """What `compared_variants` says of the cosines of latents (image, step), with these alone."""
    return xr.Dataset(
        _of_latents(latents, min_cosine),
        {"step": np.asarray(steps), "sigma": ("step", np.asarray(sigmas))},
    )


def _of_latents(latents: np.ndarray, bound: float) -> dict[str, tuple[Any, np.ndarray]]:
    return {
        "cosine": (("image", "step"), latents),
        "first_below": ("image", first_below(latents, bound)),
        **_interval(latents, ""),
    }


def _whole(group: xr.Dataset) -> xr.Dataset:
    """Its images that are whole."""
    if WRITTEN not in group.variables:
        return group
    return group.isel(image=np.flatnonzero(group[WRITTEN].values)).drop_vars(WRITTEN)


def _beside(exact: xr.Dataset, other: xr.Dataset, *, bound: float) -> xr.Dataset:
    dims = ("image", "step", "height", "width", "latent_channel")
    # An image at a time: all trajectories together are gigabytes.
    rows = []
    for place in range(exact.sizes["image"]):
        ours, theirs = (d.isel(image=slice(place, place + 1)) for d in (exact, other))
        rows.append(_measured(*({n: d[n].transpose(*dims).values for n in ("x", "output")}
                                for d in (ours, theirs))))  # fmt: skip
    found = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
    outputs = found["output_cosine"]
    outputs[:, exact["is_final"].values.astype(bool)] = np.nan
    both = ("image", "step")
    return xr.Dataset(
        {
            **_of_latents(found["cosine"], bound),
            "output_cosine": (both, outputs),
            "relative_error": (both, found["relative_error"]),
            "output_error": (both, found["output_error"]),
            "psnr": ("image", found["psnr"]),
            **_interval(outputs, "output_"),
        },
        coords=exact.coords,
        attrs={"min_cosine": bound, **_bits_of(other)},
    )


def _measured(
    ours: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Of latents and guided outputs (image, step, …) of the model as it is, and of a variant."""
    return {
        "cosine": cosine(ours["x"], theirs["x"]),
        "output_cosine": cosine(ours["output"], theirs["output"]),
        "relative_error": relative_error(theirs["x"], ours["x"]),
        "output_error": relative_error(theirs["output"], ours["output"]),
        "psnr": psnr_latent(theirs["x"][:, -1], ours["x"][:, -1]),
    }


def _bits_of(group: xr.Dataset) -> dict[str, float]:
    known = group.attrs.get(AVERAGE_BITS)
    return {} if known is None else {AVERAGE_BITS: float(known)}


def _interval(values: np.ndarray, prefix: str) -> dict[str, tuple[str, np.ndarray]]:
    found = bootstrap(values)
    names = ("mean", "lower", "upper")
    return {prefix + name: ("step", part) for name, part in zip(names, found, strict=True)}
