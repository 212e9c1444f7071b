"""One small Dataset of pooled statistics, awkward in chunks, dtypes and text, for query tests."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

STEPS = np.array([0, 3, 6, 9])
SIGMA = np.float32([1.0, 0.85769236, 0.60215056, 0.008928572])
LAYERS = ["mm0.img", "mm0.txt", "mm1.img", "mm10.img", "uni0"]


def make_statistics(chunked: bool = True) -> xr.Dataset:
    """Pooled statistics with a channel variable, rollups, text, and a projection dimension."""
    rng = np.random.default_rng(5)
    shape = (len(STEPS), len(LAYERS), 7)
    data = {
        "avg_min": (("step", "layer", "channel"), rng.standard_normal(shape).astype(np.float32)),
        "avg_max": (("step", "layer", "channel"), rng.standard_normal(shape).astype(np.float16)),
        "n_batches": (("step", "layer"), rng.integers(1, 9, shape[:2]).astype(np.uint32)),
        "has_shift": (("step", "layer"), rng.random(shape[:2]) > 0.5),
        "note": (("layer",), np.array(["a,b", 'say "x"', "", "ü\nv", "e"], dtype=object)),
        "hist_p999": (("step", "layer", "projection"), rng.standard_normal((*shape[:2], 3))),
    }
    coords = {
        "step": STEPS,
        "layer": np.array(LAYERS),
        "projection": ["q_proj", "k_proj", "v_proj"],
        "sigma": ("step", SIGMA),
        "timestep": ("step", (SIGMA * 1000).astype(np.float16)),
        "block": ("layer", ["mm0", "mm0", "mm1", "mm10", "uni0"]),
        "stream": ("layer", ["img", "txt", "img", "img", "uni"]),
    }
    dataset = xr.Dataset(data, coords, {"kind": "pooled", "nested": {"a": [1, None]}, "flag": True})
    dataset["avg_min"].attrs["original_dtype"] = "float64"
    return dataset.chunk(step=3, channel=4) if chunked else dataset


def raise_if_computed(*_: Any, **__: Any) -> Any:
    raise AssertionError("computed too early")
