"""Seeded statistics, observed and pooled, with their numbers by the source's own plain loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from support.statistics_data import ARRAYS, coordinates, site_layout, split_name
from taqstore.statistics.histogram import Layout, count

STEPS, BATCHES, ROWS = [0, 3, 5, 6, 7, 9, 12, 15, 18, 30, 31], 4, 40
"""Eleven steps: numpy sums eight and more in another order than fewer."""


def activations(site: str, *, layers: int = 3, channels: int = 7, seed: int = 5) -> np.ndarray:
    """float16 (batch, step, layer, row, channel): skewed, drifting, with wide and dead channels."""
    rng = np.random.default_rng([seed, len(site), ord(site[-1])])
    x = rng.normal(size=(BATCHES, len(STEPS), layers, ROWS, channels))
    x *= np.exp(rng.normal(0, 1, (layers, 1, channels)))
    x *= np.linspace(1.2, 0.3, len(STEPS))[:, None, None, None]
    x[..., 2] *= 3.0
    x[:, :, 1, :, 4] = 0.0
    if site == "mlp.fc2":
        x = np.where(x > 0, x, -0.1 * np.abs(np.tanh(x)))
    return x.astype(np.float16)


def observed(site: str, x: np.ndarray, *, mantissa_bits: int = 10) -> xr.Dataset:
    """`activations/<site>` of `activations(...)`, by plain NumPy; at 10 bits bins are exact."""
    dims = ("batch", "step", "layer", "channel")
    wide = x.astype(np.float64)
    layout = Layout("float16", mantissa_bits)
    flat = x.reshape(*x.shape[:3], -1)
    counts = np.apply_along_axis(lambda v: count(v, layout)[0], -1, flat)
    mean = wide.mean(axis=-2)
    low, high = x.min(axis=-2), x.max(axis=-2)
    layers = [f"mm{i // 2}.{('img', 'txt')[i % 2]}" for i in range(x.shape[2])]
    coords = coordinates(layers, STEPS, np.linspace(1, 0.01, len(STEPS), dtype=np.float32), "")
    return xr.Dataset(
        {
            "min": (dims, low),
            "max": (dims, high),
            "tensor_min": (dims[:3], low.min(axis=-1)),
            "tensor_max": (dims[:3], high.max(axis=-1)),
            "mean": (dims, mean),
            "m2": (dims, ((wide - mean[..., None, :]) ** 2).sum(axis=-2)),
            "count": (dims[:3], np.full(x.shape[:3], x.shape[3])),
            "histogram": (
                ("batch", "step", "layer", "bin"),
                counts.astype(np.uint32),
                layout.attrs,
            ),
        },
        {
            **coords,
            "batch": range(BATCHES),
            "image": (("batch", "slot"), 3 * np.arange(BATCHES)[:, None]),
        },
        {"store_digest": "feed"},
    )


def source_statistics(x: np.ndarray, *, seed: int = 0) -> dict[str, np.ndarray]:
    """What the source collector keeps of (batch, row, channel), by its own loop (FORMATS 7)."""
    avg_min = avg_max = shift = None
    for n, batch in enumerate(x.astype(np.float32)):
        low, high = batch.min(axis=0), batch.max(axis=0)
        if n == 0:
            avg_min, avg_max, shift = low, high, (low + high) / 2
            continue
        avg_min = avg_min + (low - avg_min) / (n + 1)
        avg_max = avg_max + (high - avg_max) / (n + 1)
        shift = 0.95 * shift + (1 - 0.95) * ((low + high) / 2)
    edges = np.linspace(float(x.min()) - 0.1, float(x.max()) + 0.1, 257)
    rows = x.reshape(-1, x.shape[-1])
    rows = np.random.default_rng(seed).permutation(rows)[: len(rows) // 3]
    return {
        "avg_min": avg_min.astype(np.float64),
        "avg_max": avg_max.astype(np.float64),
        "shift": shift.astype(np.float64),
        "hist_counts": np.histogram(rows.astype(np.float64), edges)[0],
        "hist_edges": edges,
    }


def naive_percentile(counts: np.ndarray, edges: np.ndarray, p: float) -> float:
    """The source's percentile of one histogram, as FORMATS 7 writes it."""
    cdf = np.cumsum(counts) / counts.sum()
    i = min(int(np.searchsorted(cdf, p / 100)), 255)
    f = 0.0 if i == 0 else (p / 100 - cdf[i - 1]) / (cdf[i] - cdf[i - 1] + 1e-12)
    return float(edges[i] + f * (edges[i + 1] - edges[i]))


def linears(layers: int = 3) -> list[str]:
    """Full names of the linears of the first `layers` layers; the last one has q, k, v only."""
    names = []
    for i in range(layers):
        parts = ["attn.q_proj", "attn.k_proj", "attn.v_proj"]
        parts += [] if i == layers - 1 else ["attn.o_proj", "mlp.fc1", "mlp.fc2"]
        names += [f"mm{i // 2}.{('img', 'txt')[i % 2]}.{part}" for part in parts]
    return names


def synthetic_run() -> tuple[dict[int, dict[str, dict[str, Any]]], dict[str, Any]]:
    """Per step and linear what the source's npz and index hold, and `layer_statistics.json`."""
    tensors = {
        site: activations(site, channels=48 if site == "mlp.fc2" else 130)
        for site in ("attn.qkv", "attn.o_proj", "mlp.fc1", "mlp.fc2")
    }
    # One channel in 130 far above the others: SmoothQuant candidates, of 8 bits and of close to 4.
    tensors["mlp.fc1"][:, 0, :, :, 3] *= 40.0
    tensors["attn.o_proj"][:, :, 0] *= 0.05  # 4 bits throughout
    tensors["attn.o_proj"][:, 0, 1] *= 0.004
    tensors["attn.o_proj"][:, 0, 1, 0, 3] = 6.5
    # At the middle step, where outliers are sought: even channels, and dead ones but for one.
    middle = len(STEPS) // 2
    tensors["attn.qkv"][:, middle, 0] = np.random.default_rng(9).uniform(-2, 2, (ROWS, 130))
    tensors["attn.qkv"][:, middle, 2, :, 1:] = 0.0
    run: dict[int, dict[str, dict[str, Any]]] = {}
    for k, step in enumerate(STEPS):
        run[step] = {}
        for seed, name in enumerate(linears()):
            layer, site, _ = split_name(name)
            row = ("mm0.img", "mm0.txt", "mm1.img").index(layer)
            entry: dict[str, Any] = source_statistics(tensors[site][:, k, row], seed=seed)
            low, high = float(entry["avg_min"].min()), float(entry["avg_max"].max())
            has_shift = site == "mlp.fc2"
            if not has_shift:
                del entry["shift"]
            counts, edges = entry["hist_counts"], entry["hist_edges"]
            entry |= {
                "n_batches": BATCHES,
                "tensor_absmax": max(abs(low), abs(high)),
                "tensor_min": low,
                "tensor_max": high,
                "has_shift": has_shift,
                "has_hist": True,
                "hist_p999": naive_percentile(counts, edges, 99.9),
                "hist_p01": naive_percentile(counts, edges, 1),
            }
            run[step][name] = entry
    del run[6]["mm0.txt.mlp.fc1"]  # a linear the collector missed at one step
    run[7]["mm0.img.mlp.fc1"]["hist_p999"] = 0.0  # the source takes 0 for missing
    sigmas = np.linspace(1, 0.01, len(STEPS), dtype=np.float32).tolist()
    document = {
        "sigma_map": {str(s): v for s, v in zip(STEPS, sigmas, strict=True)},
        "metadata": {"num_images": BATCHES, "errors": 0, "note": "é"},
        "shift_momentum": 0.95,
    }
    return run, document


def run_groups(
    run: dict[int, dict[str, dict[str, Any]]], document: dict[str, Any]
) -> dict[str, xr.Dataset]:
    """`pooled/timestep_stats/<site>` of `synthetic_run`; NaN, 0, False where a linear is absent."""
    groups = {}
    for site, layers in site_layout(linears()).items():
        first = next(iter(layers.values()))[0]
        variables: dict[str, Any] = {}
        for key, example in run[STEPS[0]][first].items():
            absent = (
                np.zeros_like(example)
                if np.asarray(example).dtype.kind in "iub"
                else np.full_like(example, np.nan)
            )
            values = [
                [[run[s].get(n, {}).get(key, absent) for n in ns] for ns in layers.values()]
                for s in STEPS
            ]
            split = np.array(values)
            same = np.array_equal(
                split, split[:, :, :1].repeat(split.shape[2], 2), equal_nan=split.dtype.kind == "f"
            )
            tail = (ARRAYS[key],) if key in ARRAYS else ()
            dims = ("step", "layer", *(() if same else ("projection",)), *tail)
            variables[key] = (dims, split[:, :, 0] if same else split)
        sigma = np.array(list(document["sigma_map"].values()), np.float32)
        coords = coordinates(list(layers), STEPS, sigma, site)
        groups[f"pooled/timestep_stats/{site}"] = xr.Dataset(
            variables, coords, {"source_document": document, "store_digest": "feed"}
        )
    return groups
