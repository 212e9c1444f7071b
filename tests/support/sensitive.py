"""A target quantized by hand, the long way: plain numbers, plain loops, no store."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr
from taqstore.pipelines.models.backend import backend
from taqstore.pipelines.models.load import LoadedModel
from taqstore.pipelines.models.sampling import restored_schedule, trajectory

from taqstore.names import parse_layer

Weight = Callable[[np.ndarray], np.ndarray]


def rtn(bits: int) -> Weight:
    """Round to nearest, a symmetric step for each output, of the largest weight."""

    def rounded(weight: np.ndarray) -> np.ndarray:
        most = 2 ** (bits - 1) - 1
        step = (np.abs(weight).max(axis=1, keepdims=True) / np.float32(most)).astype(np.float32)
        step[step == 0] = 1
        return np.clip(np.rint(weight / step), -most - 1, most).astype(np.float32) * step

    return rounded


def by_mlx(bits: int, group: int) -> Weight:
    """What `mx.quantize` makes of a weight."""

    def rounded(weight: np.ndarray) -> np.ndarray:
        mx = backend().mx
        options = {"group_size": group, "bits": bits}
        return np.array(mx.dequantize(*mx.quantize(mx.array(weight), **options), **options))

    return rounded


def latents_by_hand(
    model: LoadedModel, latents: xr.Dataset, one: xr.Dataset, changed: dict[str, np.ndarray]
) -> np.ndarray:
    """Latents ``(step + 1, height, width, channel)`` with other weights put into the modules.

    Parameters
    ----------
    latents
        Of the store: its schedule.
    one
        Image of a group: prompt, seed and guidance weight.
    changed
        Weights (out, in) by name of the linear.
    """
    mx, modules = backend().mx, {r.name.full: r.module for i in model.inputs() for r in i.readers}
    schedule = restored_schedule(model, latents["sigma"].values, latents["timestep"].values)
    text = model.encode_text(str(one["prompt"].values), cfg_weight=float(one["cfg_weight"]))
    prompt = model.prepare(text, schedule.timesteps)
    before = {name: modules[name].weight for name in changed}
    try:
        for name, weight in changed.items():
            shape = modules[name].weight.shape
            modules[name].weight = mx.array(weight).reshape(shape)
        size: Any = (latents.sizes["height"], latents.sizes["width"])
        steps = trajectory(model, prompt, schedule, seed=int(one["seed"]), latent_size=size)
        return np.stack([np.array(x)[0] for x in steps])
    finally:
        for name, weight in before.items():
            modules[name].weight = weight


def matrix_of(model: LoadedModel, name: str) -> np.ndarray:
    """Weight (out, in) of a linear."""
    known = {r.name: r for i in model.inputs() for r in i.readers}
    return known[parse_layer(name)].matrix()
