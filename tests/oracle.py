"""The tensor whose statistics other tools were run on once; their results are frozen in the tests.

Axis 0 is the batch, axis 2 the channel.
"""

from __future__ import annotations

import numpy as np

SHA256 = "4945a93877f68192eb628220c4c279cef3cc47c09c7156c5040ae6a3d1c9192a"
BATCHES, TOKENS, CHANNELS = 16, 128, 32


def tensor() -> np.ndarray:
    """Heavy-tailed float32 activations, drifting over batches, with a shift per channel."""
    rng = np.random.default_rng(20260411)
    scale = np.exp(rng.normal(0, 1, CHANNELS))
    shift = rng.normal(0, 2, CHANNELS)
    drift = np.linspace(1, 3, BATCHES)[:, None, None]
    t = rng.standard_t(3, size=(BATCHES, TOKENS, CHANNELS))
    return np.float32(t * scale * drift + shift)
