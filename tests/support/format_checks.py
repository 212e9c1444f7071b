"""What each format says, compared with the groups it was made of, linear by linear."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from taqstore.files.safetensors import read_safetensors
from taqstore.kinds.quantized_linears import quantized_blocks, quantized_linears
from taqstore.kinds.weight_files import read_quantized
from taqstore.names import SITES, LayerName, array_key, linear_names, parse_layer

STATS = "pooled/timestep_stats"
Groups = dict[str, xr.Dataset]


def cells(groups: Groups, prefix: str) -> Mapping[tuple[str, int], xr.Dataset]:
    """(linear, step) -> what the store holds, by plain indexing; without what was never seen."""
    found = {}
    for site in SITES:
        data = groups[f"{prefix}/{site}"]
        for layer in data["layer"].values:
            known = parse_layer(str(layer))
            names = linear_names(LayerName(known.block, known.stream, site))
            for number, name in enumerate(names):
                one = data.sel(layer=layer)
                one = one.isel(projection=number) if "projection" in one.dims else one
                for step in data["step"].values:
                    cell = one.sel(step=step)
                    if int(cell.get("n_batches", 1)):
                        found[name, int(step)] = cell
    return found


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def check_config(groups: Groups, out: Path, name: str) -> None:
    document, expected = read(out), cells(groups, STATS)
    steps = document["per_timestep"]
    got = {(linear, int(step)): entry for step, e in steps.items() for linear, entry in e.items()}
    assert set(got) == set(expected)
    for key, cell in expected.items():
        assert got[key]["scale"] == float(cell["tensor_absmax"])
        if name == "quant-config":
            assert ("shift" in got[key]) == key[0].endswith("fc2")
            if "shift" in got[key]:
                assert got[key]["shift"] == np.float64(cell["shift"].values).tolist()
    check_sigmas(groups, document["sigma_map"])


def check_sigmas(groups: Groups, found: dict[str, float]) -> None:
    every = {
        str(int(step)): float(sigma)
        for site in SITES
        for step, sigma in groups[f"{STATS}/{site}"]["sigma"].to_series().items()
    }
    assert found == every


def check_temporal(groups: Groups, out: Path, name: str) -> None:
    document = read(out)
    bounds: dict[str, list[float]] = {}
    for (linear, _), cell in cells(groups, STATS).items():
        bounds.setdefault(linear, []).append(float(cell["tensor_absmax"]))
    rows = document["layer_scale_summary" if name == "temporal-analysis" else "layer_stats"]
    assert set(rows) == set(bounds)
    for linear, values in bounds.items():
        ends = [rows[linear][k] for k in rows[linear] if k.startswith(("min_", "max_"))]
        assert sorted(ends) == sorted([min(values), max(values)])
    if name == "temporal-analysis":
        check_sigmas(groups, document["sigma_map"])


def check_poly(groups: Groups, out: Path, name: str) -> None:
    """Each linear is fitted over its own sigmas, as NumPy fits them."""
    document, points = read(out), {}
    for (linear, _), cell in cells(groups, STATS).items():
        x, y = points.setdefault(linear, ([], []))
        x.append(float(cell["sigma"]))
        y.append(float(cell["tensor_absmax"]))
    assert set(document["layers"]) == {array_key(linear) for linear in points}
    for linear, (x, y) in points.items():
        entry = document["layers"][array_key(linear)]
        expected = np.polyfit(x, y, entry["degree"])
        np.testing.assert_allclose(entry["coeffs"], expected, rtol=1e-6, atol=1e-9)
    sigmas = [x for xs, _ in points.values() for x in xs]
    assert document["sigma_range"] == [min(sigmas), max(sigmas)]


def check_stats(groups: Groups, out: Path, name: str) -> None:
    expected = cells(groups, STATS)
    document = read(out / "layer_statistics.json")
    check_sigmas(groups, document["sigma_map"])
    got = set()
    for step in document["step_keys"]:
        index = read(out / f"timestep_stats/step_{step}_index.json")
        arrays = dict(np.load(out / f"timestep_stats/step_{step}.npz"))
        for linear, entry in index.items():
            cell = expected[linear, int(step)]
            got.add((linear, int(step)))
            assert entry["tensor_absmax"] == float(cell["tensor_absmax"])
            assert entry["n_batches"] == int(cell["n_batches"])
            for variable in ("avg_min", "avg_max"):
                values = arrays[f"{array_key(linear)}__{variable}"]
                np.testing.assert_array_equal(values, cell[variable].values)
    assert got == set(expected)


def check_latents(groups: Groups, out: Path, name: str) -> None:
    manifest, latents = read(out / "manifest.json"), groups["latents"]
    for place, entry in enumerate(manifest["images"]):
        assert entry["cfg_weight"] == float(latents["cfg_weight"].values[place])
        for step in latents["step"].values:
            with np.load(out / f"samples/{entry['image_id']:04d}_{step:03d}.npz") as file:
                expected = latents["x"].sel(image=entry["image_id"], step=step).values
                np.testing.assert_array_equal(file["x"][0], expected)


def check_cache(groups: Groups, out: Path, name: str) -> None:
    """Samples that one stream lacks are left out; no guidance weight is everyone's."""
    metadata = read(out / "metadata.json")
    images = groups["blocks/txt"]["image"].values.tolist()
    assert metadata["selected_image_ids"] == images
    assert metadata["n_samples"] == len(list((out / "samples").iterdir()))
    for sample in metadata["samples"]:
        with np.load(out / "samples" / sample["file"]) as file:
            for stream, number in (("img", 0), ("txt", 1)):
                place = {"image": sample["img_idx"], "step": sample["step_idx"]}
                expected = groups[f"blocks/{stream}"]["x"].sel(place).isel(boundary=1).values
                np.testing.assert_array_equal(file[f"mm1__arg{number}"][:, :, 0], expected)


def check_postgelu(groups: Groups, out: Path, name: str) -> None:
    found, data = dict(np.load(out)), groups["pooled/postgelu/mlp.fc2"]
    np.testing.assert_array_equal(found["timesteps_unique"], np.sort(data["timestep"].values))
    for layer in data["layer"].values:
        for step, t in data["timestep"].to_series().items():
            key = f"mm_0{layer[2]}_{layer[4:]}::t={t:.6f}::mean"
            expected = data["mean"].sel(layer=layer, step=step).values
            np.testing.assert_array_equal(found[key], expected)


def observed(groups: Groups) -> dict[str, xr.Dataset]:
    """Linear -> its observations of all batches and steps."""
    found = {}
    for site in SITES:
        data = groups[f"activations/{site}"]
        for layer in data["layer"].values:
            known = parse_layer(str(layer))
            for name in linear_names(LayerName(known.block, known.stream, site)):
                found[name] = data.sel(layer=layer)
    return found


def check_scales(groups: Groups, out: Path, name: str) -> None:
    found, expected = dict(read_safetensors(out)), observed(groups)
    assert set(found) == set(expected)
    for linear, data in expected.items():
        ends = [abs(data[v].values.astype(np.float64)).max(axis=(0, 1)) for v in ("min", "max")]
        np.testing.assert_array_equal(found[linear], np.maximum(*ends).astype(np.float32))


def check_onnx(groups: Groups, out: Path, name: str) -> None:
    found, expected = read(out)["data"], observed(groups)
    assert set(found) == set(expected)
    for linear, data in expected.items():
        assert found[linear]["lowest"]["data"] == float(data["tensor_min"].min())
        assert found[linear]["highest"]["data"] == float(data["tensor_max"].max())


def check_imatrix(groups: Groups, out: Path, name: str) -> None:
    gguf = pytest.importorskip("gguf")
    tensors = {tensor.name: tensor.data for tensor in gguf.GGUFReader(out).tensors}
    expected = observed(groups)
    assert set(tensors) == {f"{n}.{kind}" for n in expected for kind in ("in_sum2", "counts")}
    for linear, data in expected.items():
        count = data["count"].values.astype(np.float64)
        mean, m2 = (data[v].values.astype(np.float64) for v in ("mean", "m2"))
        squares = (m2 + count[..., None] * mean**2).sum(axis=(0, 1))
        np.testing.assert_allclose(tensors[f"{linear}.in_sum2"].ravel(), squares, rtol=1e-6)
        assert float(tensors[f"{linear}.counts"].ravel()[0]) == count.sum()


def check_weights(groups: Groups, out: Path, name: str) -> None:
    linears = [
        x
        for b in quantized_blocks(groups, set="adaround")
        for x in quantized_linears(groups, b, set="adaround")
    ]
    if name == "safetensors":
        found = read_quantized(out)
        assert set(found) == {linear.name for linear in linears}
        for linear in linears:
            other = found[linear.name]
            np.testing.assert_array_equal(other.dequantized(), linear.dequantized())
            for kind, values in vars(linear.input).items():
                np.testing.assert_array_equal(getattr(other.input, kind), values)
    elif name == "safetensors-mlx":
        halves = list(dict(read_safetensors(out)).values())
        for linear, half in zip(linears, halves, strict=True):
            np.testing.assert_array_equal(half, linear.dequantized().astype(np.float16))
    else:
        keys = ("weight_int", "scale", "a_scale")
        assert {p.stem for p in (out / "weights").iterdir()} == {x.name.block for x in linears}
        for path in (out / "weights").iterdir():
            found = dict(np.load(path))
            mine = [linear for linear in linears if linear.name.block == path.stem]
            for key, kind in zip(keys, ("weight", "step", "input"), strict=True):
                stored = [v for member, v in found.items() if member.endswith(f"__{key}")]
                values = [getattr(x, kind) for x in mine]
                for a, b in zip(stored, values, strict=True):
                    np.testing.assert_array_equal(a, b.step if kind == "input" else b)


def check_samples(groups: Groups, out: Path, name: str) -> None:
    """Rows of a Phase 1 file, each with its own timestep and prompt."""
    group = groups["samples"]
    keys = {"xs": "x", "ts": "timestep", "prompt_indices": "prompt_index", "cs": "conditioning",
            "cs_pooled": "pooled_conditioning", "prompts": "prompt"}  # fmt: skip
    with np.load(out, allow_pickle=True) as file:
        for key, variable in keys.items():
            np.testing.assert_array_equal(file[key], group[variable].values)
        assert file["cfg_scale"] == group.attrs["cfg_scale"]
    assert len(np.unique(group["timestep"])) > 2
