"""The range that a search finds for a histogram, as its ends."""

from __future__ import annotations

import numpy as np

from taqstore.quantization.search import Scheme, best_quantizer, clip_ends
from taqstore.quantization.spread import Spread
from taqstore.statistics.bins import Layout


def search_alpha(
    counts: np.ndarray, layout: Layout, *, bits: int = 8, known: np.ndarray | None = None
) -> np.ndarray:
    """Clip bound of least expected squared error for a symmetric quantizer."""
    return _ends(counts, layout, Scheme(bits, symmetric=True), known)[1]


def search_range(
    counts: np.ndarray, layout: Layout, *, bits: int = 8
) -> tuple[np.ndarray, np.ndarray]:
    """Range of least expected squared error for an affine quantizer."""
    return _ends(counts, layout, Scheme(bits, symmetric=False), None)


def _ends(
    counts: np.ndarray, layout: Layout, scheme: Scheme, known: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    return clip_ends(best_quantizer(counts, Spread.of(layout), scheme, known=known), scheme)
