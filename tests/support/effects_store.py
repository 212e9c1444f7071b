"""Sensitivities of a few linears or steps, made from a seed: groups as a store has them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

LATENT = (2, 3, 4)


def sensitivity(
    targets: Sequence[str],
    *,
    seed: int,
    images: int = 3,
    amount: Sequence[int] | int = 4096,
    inputs: bool = False,
    size: float = 0.1,
) -> xr.Dataset:
    """A group `sensitivity/<unit>/<format>` whose effects are random."""
    rng = np.random.default_rng(seed)
    norm = np.random.default_rng(99).uniform(3, 9, (images, 1))
    delta = rng.normal(0, size, (images, len(targets), *LATENT)).astype(np.float32)
    delta *= rng.uniform(0.1, 3, (1, len(targets), 1, 1, 1)).astype(np.float32)
    error = np.linalg.norm(delta.reshape(images, len(targets), -1).astype(np.float64), axis=-1)
    held = np.broadcast_to(np.asarray(amount, np.int64), (len(targets),))
    none = np.zeros(len(targets), np.int64)
    item = ("image", "target")
    return xr.Dataset(
        {
            "delta": ((*item, "height", "width", "latent_channel"), delta),
            "latent_norm": (item, np.broadcast_to(norm, error.shape).copy()),
            "latent_error": (item, error / norm),
        },
        {
            "image": np.arange(images),
            "prompt": ("image", np.array([f"p{i}" for i in range(images)], dtype=object)),
            "seed": ("image", np.arange(images)),
            "cfg_weight": ("image", np.full(images, 5.0)),
            "target": np.array(list(targets), dtype=object),
            "weights": ("target", none if inputs else held),
            "input_channels": ("target", held if inputs else none),
        },
    )


def scores(targets: Sequence[str], *, seed: int, amount: Sequence[int] | int = 4096) -> xr.Dataset:
    """A group `scores/linear/<format>`."""
    rng = np.random.default_rng(seed)
    names = ("weight_error", "weight_power", "imatrix_error", "imatrix_power", "moment_error",
             "output_power")  # fmt: skip
    held = np.broadcast_to(np.asarray(amount, np.int64), (len(targets),))
    return xr.Dataset(
        {name: ("target", rng.uniform(0.1, 5, len(targets))) for name in names},
        {"target": np.array(list(targets), dtype=object), "weights": ("target", held)},
    )
