"""Groups for the tests of figures that show analyses: raw values as observations of exact bins."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from support.plot_inputs import BATCH_ROWS, LAYERS, SIGMA, coordinates, histograms, raw_values
from taqstore.plot import draw as store
from taqstore.statistics.histogram import Layout

FC2, QKV = "activations/mlp.fc2", "activations/attn.qkv"
BATCHES = np.split(raw_values(), np.cumsum(BATCH_ROWS)[:-1], axis=2)


def observations(mantissa_bits: int = 5) -> xr.Dataset:
    """Extrema and histograms of three unequal batches; with 10 bits each bin is one value."""
    layout = Layout("float16", mantissa_bits)
    # A bin below zero is (left, right]: a hair down, and np.histogram agrees.
    parts = [np.where(part < 0, np.nextafter(part, -np.inf), part) for part in BATCHES]
    counts = np.stack([histograms(part, layout.edges()) for part in parts]).astype(np.uint32)
    dims = ("batch", "step", "layer")
    attrs = {"layout": layout.dtype, "mantissa_bits": mantissa_bits}
    return xr.Dataset(
        {
            "min": ((*dims, "channel"), np.stack([part.min(2) for part in BATCHES])),
            "max": ((*dims, "channel"), np.stack([part.max(2) for part in BATCHES])),
            "histogram": ((*dims, "bin"), counts, attrs),
        },
        coords={**coordinates(), **_bins(layout), "batch": np.arange(len(BATCHES))},
    )


def two_sites() -> dict[str, xr.Dataset]:
    """`observations`, and a second site that lacks the last layer and has wider extrema."""
    first = observations()
    second = first.isel(layer=[0, 1])
    return {FC2: first, QKV: second.assign({name: 2 * second[name] for name in ("min", "max")})}


def large_sites(steps: int = 4) -> dict[str, xr.Dataset]:
    """24 blocks, two streams, four sites; all sites but the first lack the last text layer."""
    rng = np.random.default_rng(5)
    layout = Layout("float16", 2)
    edges = layout.edges()
    groups = {}
    for site in ("attn.qkv", "attn.o_proj", "mlp.fc1", "mlp.fc2"):
        layers = tuple(f"mm{b}.{s}" for b in range(24) for s in ("img", "txt"))
        layers = layers if site == "attn.qkv" else layers[:-1]
        shape = (3, steps, len(layers))
        width = rng.lognormal(0, 1, shape)
        spread = np.diff(0.5 + 0.5 * np.tanh(edges / width[..., None]), axis=-1)
        high = 4 * width[..., None] * rng.uniform(0.5, 1, (*shape, 6))
        dims = ("batch", "step", "layer")
        attrs = {"layout": layout.dtype, "mantissa_bits": layout.mantissa_bits}
        counts = np.rint(9000 * spread).astype(np.uint32)
        sigma = np.linspace(1, 0.02, steps).astype(np.float32)
        groups[f"activations/{site}"] = xr.Dataset(
            {
                "min": ((*dims, "channel"), -0.4 * high),
                "max": ((*dims, "channel"), high),
                "histogram": ((*dims, "bin"), counts, attrs),
            },
            coords={**coordinates(layers, sigma), **_bins(layout), "batch": np.arange(3)},
        )
    return groups


def _bins(layout: Layout) -> dict[str, object]:
    edges = layout.edges()
    return {"bin_left": ("bin", edges[:-1]), "bin_right": ("bin", edges[1:])}


def drawn(
    kind: str, groups: dict[str, xr.Dataset], folder: Path, **options: object
) -> dict[str, pd.DataFrame]:
    """Tables beside the pictures of one kind, by stem."""
    paths, _ = store.draw(kind, groups, folder, formats=(), **options)  # type: ignore[arg-type]
    return {path.stem: pd.read_csv(path) for path in paths}


def cube(table: pd.DataFrame, column: str, site: str = "mlp.fc2") -> np.ndarray:
    """A column as (step, layer), steps and layers of `plot_inputs` in order."""
    full = [f"{layer}.{site}" for layer in LAYERS]
    some = table[table["layer"].isin(full)].pivot(index="step", columns="layer", values=column)
    found: np.ndarray = some[[name for name in full if name in some]].to_numpy()
    assert len(found) == len(SIGMA)
    return found
