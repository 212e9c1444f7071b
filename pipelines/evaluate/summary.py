"""Summary of an evaluation: one row for each variant."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from taqstore.trajectory.bootstrap import bootstrap
from taqstore.trajectory.measures import MIN_COSINE, first_below

from .variants import blocks_text


def summary(result: xr.Dataset) -> pd.DataFrame:
    """One row for each variant: means, the worst step and block, accuracy where it was judged.

    `sqnr` and `worst_block` are of the blocks that the variant quantizes, which `blocks` names.
    `relative_rms` is one number for all images and steps; `weights` are rounded, `packed_bytes`
    what they take, `of_float16` by what they take in float16. `cosine` is the mean over images and
    steps of the latents' cosine with those of the model as it is, `worst_cosine` the least,
    `bifurcated` how many images have one below 0.95; `_lower` and `_upper` are ends of 95 %
    intervals over images, by the bootstrap.
    """
    denoiser, quantized = result["denoiser_error"], result["quantized"]
    own = result["sqnr"].where(quantized | ~quantized.any("block"))
    names = result["block"].values
    columns: dict[str, Any] = {
        "variant": result["variant"].values.astype(object),
        "blocks": [blocks_text(names[row]) or "none" for row in quantized.values],
        "denoiser_error": denoiser.mean("step").values,
        "worst_step": denoiser.max("step").values,
        "latent_error": result["latent_error"].mean("image").values,
        "sqnr": own.mean("block").values,
        "worst_block": own.min("block").values,
        "accuracy": result["accuracy"].values,
        "relative_rms": result["relative_rms"].values,
        "weights": result["weights_covered"].values,
        "packed_bytes": result["packed_bytes"].values,
        "of_float16": result["float16_share"].values,
        **_of_trajectories(result),
    }
    if np.isnan(columns["accuracy"]).all():
        del columns["accuracy"]
    table = pd.DataFrame(columns)
    table.attrs["dims"] = ["variant"]
    return table


def _of_trajectories(result: xr.Dataset) -> dict[str, Any]:
    """Columns of the latents' likeness, and intervals of means over images."""
    cosine = result["latent_cosine"].transpose("image", "latent_step", "variant").values
    means = {
        "cosine": bootstrap(cosine.mean(axis=1)),
        "latent_error": bootstrap(result["latent_error"].transpose("image", "variant").values),
        "psnr": bootstrap(result["psnr"].transpose("image", "variant").values),
    }
    ends = {f"{name}_{end}": getattr(found, end) for name, found in means.items()
            for end in ("lower", "upper")}  # fmt: skip
    each = np.moveaxis(cosine, 2, 0)
    bifurcated = [int((first_below(one, MIN_COSINE) >= 0).sum()) for one in each]
    return {
        "cosine": means["cosine"].mean,
        "worst_cosine": cosine.min(axis=(0, 1)),
        "bifurcated": bifurcated,
        "psnr": means["psnr"].mean,
        **ends,
    }
