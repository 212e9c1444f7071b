"""Every format, of stores in which all that may differ by site, layer, step or image does.

A reader gets back what the store holds, linear by linear, or the export refuses and names one. The
table below has a row for every format there is.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from taqstore.pipelines.ingest import ingest

from support.format_checks import (
    STATS,
    Groups,
    check_cache,
    check_config,
    check_imatrix,
    check_latents,
    check_onnx,
    check_poly,
    check_postgelu,
    check_samples,
    check_scales,
    check_stats,
    check_temporal,
    check_weights,
    read,
)
from support.groups_from_files import block_groups, latent_groups, pooled_groups, postgelu_groups
from support.packed_checks import (
    WIDE,
    check_comfy,
    check_comfy_stats,
    check_mlx,
    comfy_base,
    mlx_base,
    write_wide,
)
from support.weight_store import write_weights
from taqstore import open_store
from taqstore.errors import MissingError, TaqError
from taqstore.export.formats import FORMATS, export, taking
from taqstore.store.attributes import attribute_of
from taqstore.testing import (
    RunShape,
    make_adaround_cache,
    make_latents,
    make_phase1,
    make_postgelu,
    make_second_moments,
    make_store,
)
from taqstore.testing.activations import make_activations

SHAPE = RunShape(images=3, steps=9, blocks=2, hidden=16, image_tokens=6, text_tokens=3,
                 stats_stride=1, cache_images=3)  # fmt: skip
# Steps that each site has, of the run's; no two alike.
STEPS = {
    "attn.qkv": [0, 1, 2, 3, 4, 5, 7],
    "attn.o_proj": [1, 2, 3, 4, 5, 6],
    "mlp.fc1": [0, 2, 3, 4, 6, 8],
    "mlp.fc2": [2, 3, 4, 5, 6, 7, 8],
}
BATCHES = {"attn.qkv": [0, 1, 2], "attn.o_proj": [1], "mlp.fc1": [0, 2], "mlp.fc2": [2, 1]}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Groups:
    folder = tmp_path_factory.mktemp("uneven")
    made = make_store(folder / "s.zarr", shape=SHAPE)
    make_second_moments(made, shape=SHAPE, block_size=16, step_groups=3)
    activations = open_store(made, chunks=None)
    wide = open_store(write_wide(folder / "wide.zarr"), chunks=None)
    weights = open_store(write_weights(folder / "w.zarr"), chunks=None)
    groups = {
        **{path: activations[path].load() for path in activations},
        **{path: weights[path] for path in weights},
        **{path: wide[path] for path in wide},
        **latent_groups(make_latents(folder / "run", shape=SHAPE)),
        **block_groups(make_adaround_cache(folder / "cache", shape=SHAPE)),
        **pooled_groups(make_activations(folder / "stats", shape=SHAPE)),
        **postgelu_groups(make_postgelu(folder / "p.npz", shape=SHAPE)),
    }
    ingest([make_phase1(folder / "DiT_cali_data.npz")], folder / "phase1.zarr")
    groups["samples"] = open_store(folder / "phase1.zarr", chunks=None)["samples"]
    return {path: data.load() for path, data in groups.items()}


@pytest.fixture(scope="module")
def uneven(whole: Groups) -> Groups:
    found = dict(whole)
    for site, steps in STEPS.items():
        found[f"activations/{site}"] = (
            whole[f"activations/{site}"].sel(step=steps).isel(batch=BATCHES[site])
        )
        moments = whole[f"second_moments/{site}"]
        found[f"second_moments/{site}"] = moments.isel(batch=BATCHES[site])
        found[f"{STATS}/{site}"] = _lacking(whole[f"{STATS}/{site}"].sel(step=steps))
    del found["second_moments/mlp.fc1"]
    found["latents"] = whole["latents"].assign_coords(cfg_weight=("image", [7.5, 3.0, 5.0]))
    for stream, images in (("img", [0, 1, 2]), ("txt", [0, 2])):
        data = whole[f"blocks/{stream}"].isel(image=images)
        data.attrs.pop("source_metadata")
        found[f"blocks/{stream}"] = data
    found["latents"].attrs.pop("source_manifest")
    return found


def _lacking(dataset: xr.Dataset) -> xr.Dataset:
    """The second layer was not seen at the site's third step."""
    data, at = dataset.copy(deep=True), {"step": 2, "layer": 1}
    for array in data.data_vars.values():
        if {"step", "layer"} <= set(array.dims):
            array[at] = np.nan if array.dtype.kind == "f" else 0
    return data


def _check_codes(groups: Groups, out: Path, name: str) -> None:
    base, nearest = comfy_base(out.parent, SHAPE.hidden), out.with_name("nearest.safetensors")
    export(name, groups, nearest, base=base, method="nearest")
    check_comfy(groups, out, base, nearest)


def _given(name: str, groups: Groups, folder: Path) -> dict[str, Any]:
    """A set of two, and the model that a format completes."""
    if name == "mlx":
        return {"weights": WIDE, "base": mlx_base(groups)}
    if name == "comfy-w4a8":
        return {"base": comfy_base(folder, SHAPE.hidden)}
    return {"weights": "adaround"} if name in taking("weights") else {}


Check = Callable[[Groups, Path, str], None]
CASES: dict[str, tuple[str, Check | str]] = {
    "quant-config": ("c.json", check_config),
    "quant-config-multitier": ("c.json", check_config),
    "temporal-analysis": ("t.json", check_temporal),
    "temporal-analysis-multitier": ("t.json", check_temporal),
    "poly-schedule": ("p.json", check_poly),
    "lut-schedule": ("l.json", r"mm\d\.\w+\.\S+ is not known at \d steps"),
    "timestep-stats": ("stats", check_stats),
    "calibration-samples": ("latents", check_latents),
    "dit-cali-data": ("d.npz", check_samples),
    "adaround-cache": ("cache", check_cache),
    "postgelu-npz": ("p.npz", check_postgelu),
    "onnx-calibration": ("o.json", check_onnx),
    "act-scales": ("a.safetensors", check_scales),
    "imatrix": ("i.gguf", check_imatrix),
    "adaround": ("w", check_weights),
    "safetensors": ("w.safetensors", check_weights),
    "safetensors-mlx": ("w.safetensors", check_weights),
    "comfy-stats": ("stats", check_comfy_stats),
    "mlx": ("packed", check_mlx),
    "comfy-w4a8": ("c.safetensors", _check_codes),
}


def test_every_format_has_a_row() -> None:
    assert set(CASES) == set(FORMATS)


@pytest.mark.parametrize("name", FORMATS)
def test_a_reader_gets_what_the_store_holds(uneven: Groups, tmp_path: Path, name: str) -> None:
    out, check = CASES[name]
    if name == "imatrix":
        pytest.importorskip("gguf")
    if isinstance(check, str):
        with pytest.raises(MissingError, match=check):
            export(name, uneven, tmp_path / out)
        return
    export(name, uneven, tmp_path / out, **_given(name, uneven, tmp_path))
    check(uneven, tmp_path / out, name)


def test_what_is_left_out_is_told(uneven: Groups, tmp_path: Path) -> None:
    cache = export("adaround-cache", uneven, tmp_path / "cache")
    assert "no cfg_weight of all: images have 5.0, 7.5" in cache.notes
    assert any("blocks/img: 2 samples left out that other streams lack: image 1" in note
               for note in cache.notes)  # fmt: skip
    assert "cfg_weight" not in read(tmp_path / "cache/metadata.json")
    latents = export("calibration-samples", uneven, tmp_path / "latents")
    assert "no cfg_scale of all: images have 3.0, 5.0, 7.5" in latents.notes


# -- what cannot be one document ----------------------------------------------------------------

BY_SIGMA = ("quant-config", "quant-config-multitier", "temporal-analysis", "poly-schedule",
            "lut-schedule", "timestep-stats")  # fmt: skip


@pytest.mark.parametrize("name", BY_SIGMA)
@pytest.mark.parametrize("source", [STATS, "activations"])
def test_a_step_of_two_sigmas_is_refused(
    whole: Groups, tmp_path: Path, name: str, source: str
) -> None:
    data = whole[f"{source}/mlp.fc1"]
    sigma = data["sigma"].values.copy()
    sigma[3] = 0.25
    document = attribute_of(data, "source_document")
    told = {} if document is None else {
        "source_document": {**document, "sigma_map": {**document["sigma_map"], "3": 0.25}}
    }  # fmt: skip
    other = data.assign_coords(sigma=("step", sigma)).assign_attrs(told)
    given = {**whole, f"{source}/mlp.fc1": other}
    with pytest.raises(TaqError, match=r"sigma of step 3 is not the same .* 0\.25 of mlp\.fc1"):
        export(name, given, tmp_path / "out", source=source)
    assert not (tmp_path / "out").exists()


def test_histograms_of_other_bins_are_refused(whole: Groups, tmp_path: Path) -> None:
    data = whole["pooled/postgelu/mlp.fc2"]
    narrow = data.assign(bin_edges=data["bin_edges"] / 2)
    given = {**whole, "pooled/postgelu/mlp.fc2.c8": narrow}
    with pytest.raises(TaqError, match=r"bin_edges of the histogram is not the same"):
        export("postgelu-npz", given, tmp_path / "p.npz")


def test_timesteps_are_those_of_all_sites(whole: Groups, tmp_path: Path) -> None:
    data = whole["pooled/postgelu/mlp.fc2"]
    given = {
        "pooled/postgelu/mlp.fc1": data.isel(step=slice(0, 4)),
        "pooled/postgelu/mlp.fc2": data.isel(step=slice(2, 7)),
    }
    export("postgelu-npz", given, tmp_path / "p.npz")
    with np.load(tmp_path / "p.npz") as file:
        expected = np.sort(data["timestep"].values[:7])
        np.testing.assert_array_equal(file["timesteps_unique"], expected)


def test_a_layer_that_was_not_seen_at_a_step_adds_nothing(whole: Groups, tmp_path: Path) -> None:
    """Importance of what was seen, not a refusal that speaks of infinity."""
    gguf = pytest.importorskip("gguf")
    data = whole["pooled/postgelu/mlp.fc2"].copy(deep=True)
    at = {"step": 1, "layer": 0}
    data["count"][at] = 0
    data["mean"][at], data["std"][at] = np.nan, np.nan
    export("imatrix", {"pooled/postgelu/mlp.fc2": data}, tmp_path / "i.gguf")
    tensors = {t.name: t.data.ravel() for t in gguf.GGUFReader(tmp_path / "i.gguf").tensors}
    first = data.isel(layer=0).drop_isel(step=1)
    count = first["count"].values[:, None].astype(np.float64)
    squares = count * (first["mean"].astype("f8") ** 2 + first["std"].astype("f8") ** 2)
    name = f"{data['layer'].values[0]}.mlp.fc2"
    np.testing.assert_allclose(tensors[f"{name}.in_sum2"], squares.sum("step"), rtol=1e-6)
    assert float(tensors[f"{name}.counts"][0]) == count.sum()
