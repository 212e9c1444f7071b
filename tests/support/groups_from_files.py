"""Groups of a store, as schemas/README.md has them, built from source files with plain NumPy.

A second reading of the source formats, so that exports are not checked against our own ingest.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from taqstore.names import PROJECTIONS

FLOATS = ("tensor_absmax", "tensor_min", "tensor_max", "shift_absmax")
TAILS = ("hist_p999", "hist_p99", "hist_p01", "hist_p001")
EMPTY = {**dict.fromkeys((*FLOATS, *TAILS), np.nan), "has_shift": False, "has_hist": False}


def read_npz(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def layer_coords(layers: Iterable[str]) -> dict[str, Any]:
    names = list(layers)
    streams = [name.partition(".")[2] or "uni" for name in names]
    blocks = [name.partition(".")[0] for name in names]
    return {"layer": names, "block": ("layer", blocks), "stream": ("layer", streams)}


def narrowed(values: np.ndarray) -> tuple[np.ndarray, dict[str, str]]:
    """Stored form of floats and counts, and what it was."""
    kind = np.float32 if values.dtype.kind == "f" else np.uint32
    attrs = {"original_dtype": str(values.dtype)}
    same = np.array_equal(values.astype(kind).astype(values.dtype), values, equal_nan=True)
    return (values.astype(kind), attrs) if same else (values, {})


def pooled_groups(folder: Path, *, version: int = 2, chunked: bool = True) -> dict[str, xr.Dataset]:
    """`pooled/...` groups of an `activations/` folder."""
    document = json.loads((folder / "layer_statistics.json").read_text())
    steps = [int(key) for key in document["step_keys"]]
    files = [read_npz(folder / "timestep_stats" / f"step_{k}.npz") for k in steps]
    indexes = [
        json.loads((folder / "timestep_stats" / f"step_{k}_index.json").read_text()) for k in steps
    ]
    sites: dict[str, dict[str, list[str]]] = {}
    for name in indexes[0]:
        layer, section, part = name.rsplit(".", 2)
        site = "attn.qkv" if part in PROJECTIONS else f"{section}.{part}"
        sites.setdefault(site, {}).setdefault(layer, []).append(name)
    groups = {}
    source = "activation_stats_v1" if version == 1 else "timestep_stats"
    for site, layers in sites.items():
        linears = list(layers.values())
        data = {**_scalars(indexes, linears), **_vectors(files, indexes, linears, version)}
        sigma = np.float32([document["sigma_map"][str(k)] for k in steps])
        coords = {"step": steps, "sigma": ("step", sigma), **layer_coords(layers)}
        if site == "attn.qkv":
            coords["projection"] = list(PROJECTIONS)
        attrs = {"source_document": {**document, "timestep_dir": "timestep_stats"}}
        if version == 1:
            attrs = {"source_document": document}
        dataset = xr.Dataset(data, coords, attrs)
        groups[f"pooled/{source}/{site}"] = dataset.chunk(layer=2) if chunked else dataset
    return groups


def _scalars(indexes: list[dict[str, Any]], linears: list[list[str]]) -> dict[str, Any]:
    out = {}
    for name in ("n_batches", *EMPTY):
        values = np.array(
            [
                [[ix[n].get(name, EMPTY.get(name)) for n in names] for names in linears]
                for ix in indexes
            ]
        )
        out[name] = _merged(values, ())
    return out


def _vectors(
    files: list[dict[str, np.ndarray]],
    indexes: list[dict[str, Any]],
    linears: list[list[str]],
    version: int,
) -> dict[str, Any]:
    names = {"avg_min": "channel", "avg_max": "channel"}
    if version == 2:
        names |= {"shift": "channel", "hist_counts": "bin", "hist_edges": "edge"}
    out = {}
    for name, dim in names.items():
        keys = [[f"{n.replace('.', '_')}__{name}" for n in group] for group in linears]
        present = [f[k] for f in files for group in keys for k in group if k in f]
        if not present:
            continue
        blank = np.full_like(present[0], 0 if present[0].dtype.kind == "i" else np.nan)
        values = np.array([[[f.get(k, blank) for k in group] for group in keys] for f in files])
        stored = name.removeprefix("avg_") if version == 1 else name
        out[stored] = _merged(values, (dim,))
    return out


def _merged(values: np.ndarray, dims: tuple[str, ...]) -> tuple[Any, ...]:
    """Drop the projection axis where q, k and v agree."""
    first = values[:, :, :1]
    lead: tuple[str, ...] = ("step", "layer")
    if np.array_equal(values, np.broadcast_to(first, values.shape), equal_nan=True):
        values = values[:, :, 0]
    else:
        lead = (*lead, "projection")
    if values.dtype == bool:
        return ((*lead, *dims), values)
    return ((*lead, *dims), *narrowed(values))


def latent_groups(folder: Path) -> dict[str, xr.Dataset]:
    """The `latents` group of a `calibration_data/` folder."""
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    images = sorted({int(p.name[:4]) for p in (folder / "samples").iterdir()})
    steps = sorted({int(p.name[5:8]) for p in (folder / "samples").iterdir()})
    rows = [[read_npz(folder / "samples" / f"{i:04d}_{s:03d}.npz") for s in steps] for i in images]
    entries = {entry["image_id"]: entry for entry in manifest["images"]}
    x = np.stack([[sample["x"][0] for sample in row] for row in rows])
    coords: dict[str, Any] = {
        "image": images,
        "prompt": ("image", np.array([entries[i]["prompt"] for i in images], dtype=object)),
        "seed": ("image", [entries[i]["seed"] for i in images]),
        "cfg_weight": ("image", [entries[i]["cfg_weight"] for i in images]),
        "step": steps,
    }
    for name in ("sigma", "timestep", "is_final"):
        coords[name] = ("step", np.array([sample[name] for sample in rows[0]]))
    kept = {k: v for k, v in manifest.items() if k != "images"} | {"prompt_path": "prompts.csv"}
    dims = ("image", "step", "height", "width", "latent_channel")
    dataset = xr.Dataset({"x": (dims, x)}, coords, {"source_manifest": kept})
    return {"latents": dataset.chunk(image=1, step=4)}


def block_groups(folder: Path) -> dict[str, xr.Dataset]:
    """The `blocks/...` groups of an `adaround_cache/` folder."""
    metadata = json.loads((folder / "metadata.json").read_text())
    labels = [(entry["img_idx"], entry["step_idx"]) for entry in metadata["samples"]]
    images, steps = (sorted(set(axis)) for axis in zip(*labels, strict=True))
    files = [[read_npz(folder / "samples" / f"{i:04d}_{s:03d}.npz") for s in steps] for i in images]
    kinds = {"img": ("mm", "arg0", "out0"), "txt": ("mm", "arg1", "out1")}
    kinds["uni"] = ("uni", "arg0", "out0")
    kept = {k: v for k, v in metadata.items() if k not in ("samples", "calib_dir")}
    coords: dict[str, Any] = {"image": images, "step": steps}
    clock = "mm0__arg2" if "mm0__arg2" in files[0][0] else "uni0__arg1"
    coords["timestep"] = ("step", np.array([f[clock][0] for f in files[0]]))
    if "__sigma__" in files[0][0]:
        coords["sigma"] = ("step", np.array([f["__sigma__"][0] for f in files[0]]))
    groups = {}
    for stream, (kind, before, after) in kinds.items():
        blocks = [n for n in metadata["block_names"] if n.startswith(kind)]
        if blocks:
            inputs = [f"{b}__{before}" for b in blocks]
            outputs = [f"{b}__{after}" for b in blocks if f"{b}__{after}" in files[0][0]]
            dataset = _stream(files, inputs, outputs, coords)
            groups[f"blocks/{stream}"] = dataset.assign_attrs(source_metadata=kept)
    if (folder / "pooled").is_dir():
        rows = [read_npz(folder / "pooled" / f"{i:04d}.npz")["pooled"] for i in images]
        pooled = {"pooled_conditioning": (("image", "row", "pooled_channel"), np.stack(rows))}
        groups["blocks/pooled"] = xr.Dataset(pooled, {"image": images})
    return groups


def _stream(
    files: list[list[dict[str, np.ndarray]]],
    inputs: list[str],
    outputs: list[str],
    coords: dict[str, Any],
) -> xr.Dataset:
    keys = inputs + outputs[len(inputs) - 1 :]
    dims = ("image", "step", "boundary", "row", "token", "channel")
    original = [str(files[0][0][key].dtype) for key in keys]
    x = np.array([[[file[key][:, :, 0] for key in keys] for file in row] for row in files])
    data: dict[str, Any] = {"x": (dims, x)}
    pairs = list(zip(outputs, inputs[1:], strict=False))
    differ = [not np.array_equal(files[0][0][a], files[0][0][b]) for a, b in pairs]
    if any(differ):
        flags = np.zeros(x.shape[:3], bool)
        flags[:, :, : len(differ)] = differ
        output = np.full_like(x, np.nan)
        for i in np.flatnonzero(differ):
            output[:, :, i] = [[file[outputs[i]][:, :, 0] for file in row] for row in files]
        kept = {str(i): str(files[0][0][outputs[i]].dtype) for i in np.flatnonzero(differ)}
        data["output"] = (dims, output, {"original_dtype": kept})
        data["output_kept"] = (dims[:3], flags)
    labels = {"boundary": np.arange(len(keys)), "dtype": ("boundary", original)}
    return xr.Dataset(data, {**coords, **labels}).chunk(image=1, step=1)


def postgelu_groups(path: Path, *, with_names: bool = False) -> dict[str, xr.Dataset]:
    """The `pooled/postgelu/...` groups of a Phase 2 file."""
    arrays = read_npz(path)
    times = arrays["timesteps_unique"][::-1]
    keys = [key.split("::") for key in arrays if "::" in key]
    sites: dict[str, dict[str, str]] = {}
    parts = {"qkv_in": "attn.qkv", "o_in": "attn.o_proj", "fc1_in": "mlp.fc1", "fc2_in": "mlp.fc2"}
    for name in dict.fromkeys(key[0] for key in keys):
        traced, _, part = name.partition(":")
        kind, index, stream = (*traced.split("_"), "")[:3]
        layer = f"{kind}{int(index)}" + (f".{stream}" if stream else "")
        sites.setdefault(parts[part or "fc2_in"], {})[layer] = name
    groups = {}
    for site, layers in sites.items():
        data: dict[str, Any] = {"bin_edges": ("edge", arrays["histogram_bin_edges"])}
        for name in ("count", "mean", "std", "min", "max", "histogram"):
            rows = [
                [arrays[f"{n}::t={float(t):.6f}::{name}"] for n in layers.values()] for t in times
            ]
            last = {"count": (), "histogram": ("bin",)}.get(name, ("channel",))
            data[name] = (("step", "layer", *last), *narrowed(np.array(rows)))
        coords = {"step": np.arange(len(times)), "timestep": ("step", times)}
        attrs = {"source_layers": list(layers.values())} if with_names else {}
        groups[f"pooled/postgelu/{site}"] = xr.Dataset(
            data, {**coords, **layer_coords(layers)}, attrs
        )
    return groups
