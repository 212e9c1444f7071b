"""Groups as the store hands them out, made without a store from what the source scripts wrote.

Nothing here is shared with ingestion; everything is plain NumPy.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

PROJECTIONS = ("q_proj", "k_proj", "v_proj")
ROLLUPS = (
    *("n_batches", "tensor_absmax", "tensor_min", "tensor_max", "has_shift", "has_hist"),
    *("shift_absmax", "hist_p999", "hist_p99", "hist_p01", "hist_p001"),
)
ARRAYS = {
    "avg_min": "channel",
    "avg_max": "channel",
    "shift": "channel",
    "hist_counts": "bin",
    "hist_edges": "edge",
}


def split_name(name: str) -> tuple[str, str, str]:
    """(layer, site, projection) of a canonical full name."""
    layer, section, part = name.rsplit(".", 2)
    if part in PROJECTIONS:
        return layer, "attn.qkv", part
    return layer, f"{section}.{part}", ""


def layer_order(layer: str) -> tuple[int, str]:
    block, stream = layer.split(".")
    return int(block.removeprefix("mm")), stream


def site_layout(names: list[str]) -> dict[str, dict[str, list[str]]]:
    """Site -> layer -> full names of its linears, q k v in this order."""
    sites: dict[str, dict[str, list[str]]] = {}
    for layer in sorted({split_name(n)[0] for n in names}, key=layer_order):
        for name in sorted(
            (n for n in names if split_name(n)[0] == layer),
            key=lambda n: (*PROJECTIONS, "").index(split_name(n)[2]),
        ):
            sites.setdefault(split_name(name)[1], {}).setdefault(layer, []).append(name)
    return sites


def timestep_groups(folder: Path) -> dict[str, xr.Dataset]:
    """`pooled/timestep_stats/<site>` of an `activations/` folder of the source."""
    document = json.loads((folder / "layer_statistics.json").read_text())
    steps = sorted(int(k) for k in document["step_keys"])
    stats = folder / "timestep_stats"
    index = {s: json.loads((stats / f"step_{s}_index.json").read_text()) for s in steps}
    arrays = {s: dict(np.load(stats / f"step_{s}.npz")) for s in steps}
    groups = {}
    for site, layers in site_layout(list(index[steps[0]])).items():
        variables: dict[str, Any] = {}
        for key in ROLLUPS:
            values = [
                [[index[s][n].get(key, np.nan) for n in ns] for ns in layers.values()]
                for s in steps
            ]
            if not np.isnan(np.array(values, float)).all():
                add_variable(variables, key, np.array(values), ())
        for key, dim in ARRAYS.items():
            found = [
                [[arrays[s].get(f"{n.replace('.', '_')}__{key}") for n in ns] for ns in lays]
                for s, lays in ((s, list(layers.values())) for s in steps)
            ]
            if found[0][0][0] is not None:
                add_variable(variables, key, stored(key, np.array(found)), (dim,))
        sigma = np.array([document["sigma_map"][str(s)] for s in steps], np.float32)
        groups[f"pooled/timestep_stats/{site}"] = xr.Dataset(
            variables,
            coordinates(list(layers), steps, sigma, site),
            {"source_document": {k: v for k, v in document.items() if k != "timestep_dir"}},
        )
    return groups


def stored(name: str, values: np.ndarray) -> np.ndarray:
    """As a store keeps it: float64 copies of float32 values as float32."""
    if name.startswith("hist"):
        return values
    assert (values.astype(np.float32) == values).all()
    return values.astype(np.float32)


def add_variable(
    variables: dict[str, Any], name: str, values: np.ndarray, tail: tuple[str, ...]
) -> None:
    """Add (step, layer, projection, *tail) values, without projection where q, k, v agree."""
    if (values == values[:, :, :1]).all():
        variables[name] = (("step", "layer", *tail), values[:, :, 0])
    else:
        variables[name] = (("step", "layer", "projection", *tail), values)


def coordinates(
    layers: list[str], steps: list[int], sigma: np.ndarray, site: str
) -> dict[str, Any]:
    coords = {
        "step": steps,
        "sigma": ("step", sigma),
        "layer": layers,
        "block": ("layer", [layer.split(".")[0] for layer in layers]),
        "stream": ("layer", [layer.split(".")[1] for layer in layers]),
    }
    return {**coords, "projection": list(PROJECTIONS)} if site == "attn.qkv" else coords


def schedule_groups(document: dict[str, Any]) -> dict[str, xr.Dataset]:
    """`pooled/lut_schedule/<site>` or `pooled/poly_schedule/<site>` of a schedule document."""
    dotted = {}
    for raw in document["layers"]:
        block, stream, section, part = raw.split("_", 3)
        dotted[f"{block}.{stream}.{section}.{part}"] = document["layers"][raw]
    head = {k: v for k, v in document.items() if k not in ("layers", "sigmas")}
    lut = document["version"] == "lut_v1"
    groups = {}
    for site, layers in site_layout(list(dotted)).items():
        entries = [[dotted[n] for n in names] for names in layers.values()]
        variables: dict[str, Any] = {}
        if lut:
            alphas = np.array([[e["alphas"] for e in row] for row in entries])
            add_variable(variables, "alpha", np.moveaxis(alphas, -1, 0), ())
            sigma = np.array(document["sigmas"], np.float32)
            coords = coordinates(list(layers), list(range(len(sigma))), sigma, site)
        else:
            width = 1 + max(e["degree"] for row in entries for e in row)
            wide = np.full((1, len(entries), len(entries[0]), width), np.nan)
            for i, row in enumerate(entries):
                for j, entry in enumerate(row):
                    wide[0, i, j, : entry["degree"] + 1] = entry["coeffs"][::-1]
            for name in ("degree", "r2", "cv"):
                add_variable(
                    variables, name, np.array([[[e[name] for e in r] for r in entries]]), ()
                )
            same = np.array_equal(wide, wide[:, :, :1].repeat(wide.shape[2], 2), equal_nan=True)
            dims = ("step", "layer", "power") if same else ("step", "layer", "projection", "power")
            variables["coefficient"] = (dims, wide[:, :, 0] if same else wide)
            coords = {"layer": list(layers), "power": np.arange(width)}
            if site == "attn.qkv":
                coords["projection"] = list(PROJECTIONS)
        dataset = xr.Dataset(variables, coords, {"source_document": head})
        source = "lut_schedule" if lut else "poly_schedule"
        groups[f"pooled/{source}/{site}"] = dataset if lut else dataset.isel(step=0)
    return groups
