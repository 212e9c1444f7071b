"""Groups for the tests of plots: one set of raw values, reduced as each source would have it."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from taqstore.plot import FIGURES
from taqstore.plot.parts.views import linear_view, require
from taqstore.statistics.bins import Layout
from taqstore.statistics.channel_histogram import count_blocks
from taqstore.statistics.histogram import count

SIGMA = np.array([1.0, 0.75, 0.3, 0.0089285714], np.float32)
LAYERS = ("mm0.img", "mm0.txt", "mm1.img")
CHANNELS = 7
BATCH_ROWS = (3, 1, 6)
HALF_EDGES = np.concatenate(
    [
        -np.arange(0, 0x7C00, 32, dtype=np.uint16)[:0:-1].view(np.float16).astype(float),
        np.arange(0, 0x7C00, 32, dtype=np.uint16).view(np.float16).astype(float),
    ]
)
"""Edges of float16 values cut to five mantissa bits, up to the largest exponent."""

EXACT = Layout("float16", 10)
"""Float16 values in bins of one value each: histograms of it lose nothing."""


def coordinates(layers: tuple[str, ...] = LAYERS, sigma: np.ndarray = SIGMA) -> dict[str, object]:
    return {
        "step": np.arange(len(sigma)),
        "sigma": ("step", sigma),
        "layer": list(layers),
        "block": ("layer", [name.split(".")[0] for name in layers]),
        "stream": ("layer", [name.split(".")[-1] for name in layers]),
    }


def raw_values() -> np.ndarray:
    """Skewed values (step, layer, row, channel) with a wide channel that changes with the step."""
    rng = np.random.default_rng(7)
    values = rng.standard_t(3, (len(SIGMA), len(LAYERS), sum(BATCH_ROWS), CHANNELS)) - 0.3
    values[:, :, :, 2] *= 4.0
    values[1, 0, :, 5] *= 50.0
    return values.astype(np.float16).astype(np.float64)


def histograms(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Counts of (..., row, channel) values, one histogram per leading index."""
    flat = values.reshape(-1, values.shape[-2] * values.shape[-1])
    counts = np.array([np.histogram(row, edges)[0] for row in flat])
    return counts.reshape(*values.shape[:-2], len(edges) - 1)


def pooled_postgelu() -> xr.Dataset:
    x, dims = raw_values(), ("step", "layer", "channel")
    edges = np.linspace(-8, 8, 513, dtype=np.float32)
    statistics = {"mean": x.mean(2), "std": x.std(2), "min": x.min(2), "max": x.max(2)}
    return xr.Dataset(
        {
            **{name: (dims, values) for name, values in statistics.items()},
            "count": (dims[:2], np.full(x.shape[:2], x.shape[2])),
            "histogram": ((*dims[:2], "bin"), histograms(x, edges)),
            "bin_edges": ("edge", edges),
        },
        coords=coordinates(),
    )


def observed() -> xr.Dataset:
    """The values of `pooled_postgelu`, seen in three batches of unequal size."""
    parts = np.split(raw_values(), np.cumsum(BATCH_ROWS)[:-1], axis=2)
    dims = ("batch", "step", "layer", "channel")
    # Bins below zero are (left, right]; moving their values a hair down makes np.histogram agree.
    nudged = [np.where(p < 0, np.nextafter(p, -np.inf), p) for p in parts]
    return xr.Dataset(
        {
            "min": (dims, np.stack([p.min(2) for p in parts]).astype(np.float16)),
            "max": (dims, np.stack([p.max(2) for p in parts]).astype(np.float16)),
            "mean": (dims, np.stack([p.mean(2) for p in parts])),
            "m2": (dims, np.stack([((p - p.mean(2)[:, :, None]) ** 2).sum(2) for p in parts])),
            "count": (dims[:3], np.stack([np.full(p.shape[:2], p.shape[2]) for p in parts])),
            "histogram": (
                (*dims[:3], "bin"),
                np.stack([histograms(p, HALF_EDGES) for p in nudged]).astype(np.uint32),
            ),
        },
        coords={
            **coordinates(),
            "batch": np.arange(len(parts)),
            "bin_left": ("bin", HALF_EDGES[:-1]),
            "bin_right": ("bin", HALF_EDGES[1:]),
        },
    )


def timestep_stats(*, projections: bool = False) -> xr.Dataset:
    """Averaged extrema and sampled histograms whose edges differ by step and layer."""
    x, dims = raw_values(), ("step", "layer", "channel")
    low, high = x.min((2, 3)) - 0.1, x.max((2, 3)) + 0.1
    edges = np.linspace(low, high, 33, axis=-1)
    counts = np.array(
        [
            [np.histogram(x[i, j], edges[i, j])[0] for j in range(len(LAYERS))]
            for i in range(len(SIGMA))
        ]
    )
    stats = {"avg_min": x.min(2), "avg_max": x.max(2), "shift": (x.min(2) + x.max(2)) / 2}
    if projections:
        counts = np.stack([counts, 2 * counts, counts[..., ::-1]])
    head = ("projection",) if projections else ()
    return xr.Dataset(
        {
            **{name: (dims, values) for name, values in stats.items()},
            "hist_counts": ((*head, *dims[:2], "bin"), counts),
            "hist_edges": ((*dims[:2], "edge"), edges),
        },
        coords={
            **coordinates(),
            **({"projection": ["q_proj", "k_proj", "v_proj"]} if projections else {}),
        },
    )


def batches() -> np.ndarray:
    """(batch, step, layer, row, channel): the rows of `raw_values` in three equal batches."""
    x = raw_values()[:, :, :9]
    return np.stack(np.split(x, 3, axis=2))


def exact(*, by_channel: bool = False) -> xr.Dataset:
    """Observations of `batches` with exact histograms, of tensors or of every channel."""
    x = batches().astype(np.float16)
    dims = ("batch", "step", "layer", "channel")
    lead = x.shape[:3]
    flat = x.reshape(-1, *x.shape[3:])
    coords = {
        **coordinates(),
        "batch": np.arange(len(x)),
        "bin_left": ("bin", EXACT.left),
        "bin_right": ("bin", EXACT.right),
    }
    if by_channel:
        counts = np.stack([np.concatenate(list(count_blocks(one, EXACT))) for one in flat])
        counts = counts.reshape(*lead, *counts.shape[1:]).astype(np.uint32)
        variables = {"channel_histogram": ((*dims, "bin"), counts, EXACT.attrs)}
    else:
        counts = np.stack([count(one, EXACT)[0] for one in flat]).reshape(*lead, -1)
        variables = {
            "min": (dims, x.min(3)),
            "max": (dims, x.max(3)),
            "histogram": ((*dims[:3], "bin"), counts, EXACT.attrs),
        }
    return xr.Dataset(variables, coords=coords)


SOURCES: dict[str, Callable[[], xr.Dataset]] = {
    "postgelu": pooled_postgelu,
    "observed": observed,
    "timestep_stats": timestep_stats,
}


def view_of(dataset: xr.Dataset, kind: str, **options: object) -> xr.Dataset:
    names = require(dataset, FIGURES[kind].requires, where="test")
    extra = [name for name in FIGURES[kind].optional if name in dataset]
    return linear_view(dataset, [*names, *extra], **options)  # type: ignore[arg-type]


def one_layer(source: str, kind: str, layer: str = "mm0.img") -> xr.Dataset:
    return view_of(SOURCES[source](), kind, layers=[layer])


def axes() -> Axes:
    return Figure().subplots()


def large() -> xr.Dataset:
    """24 blocks, both streams, the last text layer missing, 25 steps, one very wide layer."""
    rng = np.random.default_rng(3)
    layers = tuple(f"mm{b}.{s}" for b in range(24) for s in ("img", "txt"))[:-1]
    high = rng.gamma(2.0, 1.0, (25, len(layers), 60)) + 0.1
    high[:, 5] *= 400.0
    dims = ("step", "layer", "channel")
    sigma = np.linspace(1.0, 0.01, 25).astype(np.float32)
    edges = np.linspace(-8, 8, 513)
    counts = rng.poisson(900 * np.exp(-(edges[:-1] ** 2)), (25, len(layers), 512))
    return xr.Dataset(
        {
            "min": (dims, -0.3 * high),
            "max": (dims, high),
            "mean": (dims, high - 2.0),
            "std": (dims, high),
            "histogram": ((*dims[:2], "bin"), counts),
            "bin_edges": ("edge", edges),
        },
        coords=coordinates(layers, sigma),
    )


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))
