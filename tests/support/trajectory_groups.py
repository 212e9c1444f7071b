"""Trajectories of variants that never ran, made up: each drifts from the float one by its own."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr

from taqstore.kinds.trajectories import FLOAT, path_of, trajectories_template

STEPS, SHAPE = 6, (4, 3, 2)
SIGMAS = np.append(np.linspace(1, 0.05, STEPS), 0).astype(np.float32)
DRIFTS = {"gptq/a8-static": 0.02, "rtn/a16": 0.1, "rtn-w3/a4-static": 0.6}
"""Noise that a variant has gathered at the end, as a share of the latent."""


def trajectory_groups(
    drifts: Mapping[str, float] = DRIFTS, *, images: int = 5, seed: int = 0
) -> dict[str, xr.Dataset]:
    """Groups `trajectories/float` and one for each variant, as a store gives them."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(images, STEPS + 1, *SHAPE))
    output = rng.normal(size=x.shape)
    output[:, -1] = np.nan
    found = {path_of(FLOAT): _group(FLOAT, FLOAT, x, output)}
    for number, (name, drift) in enumerate(drifts.items()):
        share = drift * np.linspace(0, 1, STEPS + 1)[:, None, None, None]
        moved = [part + share * rng.normal(size=x.shape) for part in (x, output)]
        found[path_of(f"{number:016x}")] = _group(f"{number:016x}", name, *moved)
    return found


def _group(name: str, variant: str, x: np.ndarray, output: np.ndarray) -> xr.Dataset:
    images = range(100, 100 + len(x))
    template = trajectories_template(
        name,
        images=list(images),
        prompts=["a digit"] * len(x),
        seeds=list(images),
        cfg_weight=3.0,
        sigmas=SIGMAS,
        timesteps=1000 * SIGMAS,
        shape=SHAPE,
        attrs={"variant": variant, "digest": name, "run": {"model": "reference"}},
    )
    dims = ("image", "step", "height", "width", "latent_channel")
    values = {"x": (dims, x.astype(np.float32)), "output": (dims, output.astype(np.float32))}
    return xr.Dataset(values, coords=dict(template.coords), attrs=dict(template.attrs))
