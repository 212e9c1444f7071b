"""The tensor whose statistics other tools were run on once; their results are frozen in the tests.

Axis 0 is the batch, axis 2 the channel.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from taqstore.statistics import histogram
from taqstore.statistics.bins import Layout

SHA256 = "4945a93877f68192eb628220c4c279cef3cc47c09c7156c5040ae6a3d1c9192a"
FINE = Layout("float32", 8)
BATCHES, TOKENS, CHANNELS = 16, 128, 32


def tensor() -> np.ndarray:
    """Heavy-tailed float32 activations, drifting over batches, with a shift per channel."""
    rng = np.random.default_rng(20260411)
    scale = np.exp(rng.normal(0, 1, CHANNELS))
    shift = rng.normal(0, 2, CHANNELS)
    drift = np.linspace(1, 3, BATCHES)[:, None, None]
    t = rng.standard_t(3, size=(BATCHES, TOKENS, CHANNELS))
    return np.float32(t * scale * drift + shift)


def tensors() -> dict[str, np.ndarray]:
    """The tensor and what other ranges and signs make of it."""
    x = tensor()
    return {
        "tensor": x,
        "small": x[:5, :40, ::3] * np.float32(0.01),
        "positive": np.abs(x[::-1]),
    }


def group(x: np.ndarray, layout: Layout = FINE) -> xr.Dataset:
    """Observations of ``(batch, token, channel)``: one step, one layer."""
    dims = ("batch", "step", "layer")
    counts = np.array([histogram.count(batch, layout)[0] for batch in x])[:, None, None]
    return xr.Dataset(
        {
            "min": ((*dims, "channel"), x.min(axis=1)[:, None, None]),
            "max": ((*dims, "channel"), x.max(axis=1)[:, None, None]),
            "histogram": ((*dims, "bin"), counts, layout.attrs),
        },
        {"batch": range(len(x)), "step": [0], "layer": ["mm0.img"]},
    )
