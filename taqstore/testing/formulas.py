"""The source scripts' statistics, computed plainly and on purpose without the library's own code.

One *batch* is one image at one step. These are the oracles that ingestion and the analyses are
tested against, so nothing here is shared with them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

HIST_BINS = 256
SAMPLED_ROWS = 256
EDGE_PADDING = 0.05
SHIFT_MOMENTUM = 0.95
PERCENTILES = {"hist_p999": 99.9, "hist_p99": 99.0, "hist_p01": 1.0, "hist_p001": 0.1}


@dataclass
class ChannelRecord:
    """Running statistics of one linear input at one step, image after image.

    Parameters
    ----------
    post_gelu
        Keep the momentum average of the midpoint, as the source does for `mlp.fc2`.
    """

    post_gelu: bool
    images: int = 0
    avg_min: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))
    avg_max: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))
    true_min: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))
    true_max: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))
    shift: NDArray[np.float32] | None = None
    hist_counts: NDArray[np.int64] | None = None
    hist_edges: NDArray[np.float64] | None = None
    _waiting: NDArray[np.float32] | None = None
    _range: tuple[float, float] = (np.inf, -np.inf)

    def update(self, x: NDArray[np.float32], rng: np.random.Generator) -> None:
        """Add the batch `x` (rows, channels); `rng` picks the rows of the histogram."""
        low, high = x.min(axis=0), x.max(axis=0)
        if self.images == 0:
            self.avg_min, self.avg_max, self.true_min, self.true_max = low, high, low, high
        else:
            self.avg_min = self.avg_min + (low - self.avg_min) / (self.images + 1)
            self.avg_max = self.avg_max + (high - self.avg_max) / (self.images + 1)
            self.true_min = np.minimum(self.true_min, low)
            self.true_max = np.maximum(self.true_max, high)
        if self.post_gelu:
            self._update_shift((low + high) / 2)
        self._update_histogram(x, rng)
        self.images += 1

    def _update_shift(self, midpoint: NDArray[np.float32]) -> None:
        momentum = SHIFT_MOMENTUM
        previous = self.shift
        self.shift = (
            midpoint if previous is None else momentum * previous + (1 - momentum) * midpoint
        )

    def _update_histogram(self, x: NDArray[np.float32], rng: np.random.Generator) -> None:
        rows = x
        if len(x) > SAMPLED_ROWS:
            rows = x[rng.choice(len(x), SAMPLED_ROWS, replace=False)]
        if self.images < 2:
            self._range = (min(self._range[0], float(x.min())), max(self._range[1], float(x.max())))
        if self.images == 0:
            self._waiting = rows
            return
        if self.hist_edges is None:
            self.hist_edges = histogram_edges(*self._range)
            self.hist_counts = np.zeros(HIST_BINS, np.int64)
            self._count(self._waiting)
            self._waiting = None
        self._count(rows)

    def _count(self, values: NDArray[np.float32] | None) -> None:
        if values is None or self.hist_edges is None or self.hist_counts is None:
            raise RuntimeError("a histogram is counted once its edges are set")
        inside = np.clip(values.ravel(), self.hist_edges[0], self.hist_edges[-1])
        self.hist_counts = self.hist_counts + np.histogram(inside, bins=self.hist_edges)[0]


def histogram_edges(low: float, high: float) -> NDArray[np.float64]:
    """The (257,) edges for values seen in [low, high]: 5 % of the span added at either end."""
    pad = max((high - low) * EDGE_PADDING, 1e-6)
    return np.linspace(low - pad, high + pad, HIST_BINS + 1)


def percentile(counts: NDArray[np.int64], edges: NDArray[np.float64], p: float) -> float:
    """The source's interpolated percentile `p` (0-100) of a histogram."""
    cdf = np.cumsum(counts) / counts.sum()
    i = min(int(np.searchsorted(cdf, p / 100)), len(counts) - 1)
    fraction = 0.0 if i == 0 else (p / 100 - cdf[i - 1]) / (cdf[i] - cdf[i - 1] + 1e-12)
    return float(edges[i] + fraction * (edges[i + 1] - edges[i]))


def rollups(low: NDArray[Any], high: NDArray[Any]) -> dict[str, float]:
    """The three tensor-level fields of an index entry, in the order the source writes them."""
    tensor_min, tensor_max = float(low.min()), float(high.max())
    return {
        "tensor_absmax": max(abs(tensor_min), abs(tensor_max)),
        "tensor_min": tensor_min,
        "tensor_max": tensor_max,
    }


def index_entry(record: ChannelRecord) -> dict[str, Any]:
    """What `step_<key>_index.json` says of one linear."""
    entry: dict[str, Any] = {
        "n_batches": record.images,
        **rollups(record.avg_min, record.avg_max),
        "has_shift": record.shift is not None,
        "has_hist": record.hist_counts is not None,
    }
    if record.shift is not None:
        entry["shift_absmax"] = float(np.abs(record.shift).max())
    if record.hist_counts is not None and record.hist_edges is not None:
        counts, edges = record.hist_counts, record.hist_edges
        entry.update({k: percentile(counts, edges, p) for k, p in PERCENTILES.items()})
    return entry


def channel_arrays(record: ChannelRecord, linear: str) -> dict[str, NDArray[Any]]:
    """The members of `step_<key>.npz` for one linear: float64 copies of float32 results."""
    prefix = linear.replace(".", "_")
    arrays: dict[str, NDArray[Any]] = {
        f"{prefix}__avg_min": record.avg_min.astype(np.float64),
        f"{prefix}__avg_max": record.avg_max.astype(np.float64),
    }
    if record.shift is not None:
        arrays[f"{prefix}__shift"] = record.shift.astype(np.float64)
    if record.hist_counts is not None and record.hist_edges is not None:
        arrays[f"{prefix}__hist_counts"] = record.hist_counts
        arrays[f"{prefix}__hist_edges"] = record.hist_edges
    return arrays
