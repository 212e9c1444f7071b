"""Trajectories of judged images, kept so that none is run twice: template and reader."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from taqstore.kinds.templates import latents_template
from taqstore.layout.template import Array, Template
from taqstore.names import TRAJECTORIES

if TYPE_CHECKING:
    import xarray as xr

FLOAT = "float"
"""Name of the trajectories of the model as it is."""
VARIANT, DIGEST, AVERAGE_BITS = "variant", "digest", "average_bits"
_NAME_DIGITS = 16


def trajectories_template(
    name: str,
    *,
    images: Sequence[int],
    prompts: Sequence[str],
    seeds: Sequence[int],
    cfg_weight: float,
    sigmas: NDArray[Any],
    timesteps: NDArray[Any],
    shape: tuple[int, int, int],
    attrs: Mapping[str, Any],
) -> Template:
    """Template of `trajectories/<name>`: an image is an item, its steps are inner chunks.

    Parameters
    ----------
    name
        `float`, or `name_of` a digest.
    images, prompts, seeds, cfg_weight, sigmas, timesteps, shape
        As of `latents_template`.
    attrs
        `run`, `variant` and `digest`.
    """
    like = latents_template(
        images=images,
        prompts=prompts,
        seeds=seeds,
        cfg_weight=cfg_weight,
        sigmas=sigmas,
        timesteps=timesteps,
        shape=shape,
        attrs=attrs,
    )
    dims = like.array("x").dims
    output = {
        "long_name": "guided output",
        "description": "(x - denoised) / sigma at this x; NaN at the final step",
    }
    return Template(
        path=path_of(name),
        kind=TRAJECTORIES,
        sizes=like.sizes,
        arrays=(
            Array("x", dims, "float32", split="step"),
            Array("output", dims, "float32", split="step", attrs=output),
        ),
        coords=like.coords,
        item_dims=like.item_dims,
        attrs=attrs,
    )


def name_of(digest: str) -> str:
    """Name of the trajectories of what has this SHA-256."""
    return digest[:_NAME_DIGITS]


def path_of(name: str) -> str:
    """Path of a group of trajectories.

    >>> path_of("float")
    'trajectories/float'
    """
    return f"{TRAJECTORIES}/{name}"


def trajectory_groups(groups: Mapping[str, xr.Dataset]) -> dict[str, str]:
    """Paths of all groups of trajectories, to what ran: the variant's name, or `float`."""
    return {
        path: str(groups[path].attrs.get(VARIANT, ""))
        for path in groups
        if path.startswith(f"{TRAJECTORIES}/")
    }
