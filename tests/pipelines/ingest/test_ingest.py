"""Everything a source holds comes back from the store bit for bit, compared with `np.load`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from taqstore.pipelines.ingest import ingest

from support.same_stores import assert_same_bits
from taqstore import open_store
from taqstore.errors import MisuseError, SourceError
from taqstore.names import parse_layer
from taqstore.run.mode import Mode
from taqstore.run.outcome import Outcome
from taqstore.testing import (
    RunShape,
    damage,
    make_activation_stats_v1,
    make_activations,
    make_adaround_cache,
    make_latents,
    make_lut_schedule,
    make_phase1,
    make_poly_schedule,
    make_postgelu,
)

SHAPE = RunShape(
    images=3, steps=6, blocks=2, hidden=8, image_tokens=6, text_tokens=3, latent=(5, 3),
    channels=4, stats_stride=3, cache_stride=3,
)  # fmt: skip
FC2 = "pooled/timestep_stats/mlp.fc2"
QKV = "pooled/timestep_stats/attn.qkv"


def store_of(source: Path, **options: Any) -> tuple[dict[str, xr.Dataset], Outcome]:
    """Groups, in memory, of a store beside the source that holds it without complaints."""
    path = source.parent / "store.zarr"
    summary = ingest([source], path, **options)
    assert summary.problems == []
    return {group: dataset.load() for group, dataset in open_store(path).items()}, summary


def load(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return {key: file[key] for key in file.files if key != "prompts"}


def test_latents_with_their_steps_and_prompts(tmp_path: Path) -> None:
    run = make_latents(tmp_path / "run", shape=SHAPE)
    damage.rotate_manifest(run)  # a prompt belongs to an image id, never to a position
    store, summary = store_of(run)
    latents = store["latents"]
    for path in sorted((run / "samples").iterdir()):
        source = load(path)
        one = latents.sel(image=int(source["image_id"]), step=int(source["step_index"]))
        assert_same_bits(one.x.values[None], source["x"], path)
        for name in ("sigma", "timestep", "is_final"):
            assert_same_bits(one[name].values, source[name], (path, name))
    assert latents.timestep.dtype == np.float16
    for entry in json.loads((run / "manifest.json").read_text())["images"]:
        one = latents.sel(image=entry["image_id"])
        for name in ("prompt", "seed", "cfg_weight"):
            assert one[name].item() == entry[name]
    assert summary.groups["latents"].written == SHAPE.images
    assert summary.bytes_in == sum(p.stat().st_size for p in (run / "samples").iterdir())
    assert summary.groups["latents"].bytes_out > latents.x.nbytes
    assert any("3 of 3 equal" in note for note in summary.notes)


def check_streams(store: Mapping[str, xr.Dataset], cache: Path, slots: dict[str, str]) -> int:
    """Every input, and the last output, of every block of every sample; returns how many."""
    compared = 0
    for path in sorted((cache / "samples").iterdir()):
        source, (image, step) = load(path), map(int, path.stem.split("_"))
        for stream, pattern in slots.items():
            sample = store[f"blocks/{stream}"].sel(image=image, step=step)
            keys = [k for i in range(9) if (k := pattern.format(i)) in source]
            last = keys[-1].replace("arg0", "out0").replace("arg1", "out1")
            keys += [last] if last in source else []
            assert sample.sizes["boundary"] == len(keys)
            for i, key in enumerate(keys):
                values = sample.x.values[i].astype(str(sample["dtype"].values[i]))
                assert_same_bits(values[:, :, None], source[key], (path, key))
                compared += 1
            clock = next(source[k] for k in ("mm0__arg2", "uni0__arg1") if k in source)
            assert_same_bits(sample.timestep.values, clock[0], path)
    return compared


@pytest.mark.parametrize("unified", [0, 2])
@pytest.mark.parametrize("later", [False, True])
def test_block_streams(tmp_path: Path, unified: int, later: bool) -> None:
    shape = replace(SHAPE, unified_blocks=unified)
    cache = make_adaround_cache(
        tmp_path / "cache", shape=shape, float16=later, with_sigma=later, with_pooled=later
    )
    store, summary = store_of(cache)
    slots = {"img": "mm{}__arg0", "txt": "mm{}__arg1"} | ({"uni": "uni{}__arg0"} if unified else {})
    boundaries = 3 + (2 if unified == 0 else 3) + (3 if unified else 0)
    assert check_streams(store, cache, slots) == 4 * boundaries
    assert "output" not in store["blocks/img"]
    assert summary.notes == []
    assert summary.groups["blocks/img"].written == 4
    if later:
        for path in (cache / "pooled").iterdir():
            pooled = store["blocks/pooled"].pooled_conditioning.sel(image=int(path.stem))
            assert_same_bits(pooled.values, load(path)["pooled"])
        sigmas = {p.stem: load(p)["__sigma__"][0] for p in (cache / "samples").iterdir()}
        assert_same_bits(store["blocks/img"].sigma.values, [sigmas["0000_000"], sigmas["0000_003"]])


def test_a_broken_boundary_is_kept_twice_and_said(tmp_path: Path) -> None:
    cache = make_adaround_cache(tmp_path / "cache", shape=SHAPE, break_boundary=[0])
    store, summary = store_of(cache)
    check = check_streams(store, cache, {"img": "mm{}__arg0", "txt": "mm{}__arg1"})
    assert check == 4 * 5
    assert len(summary.notes) == 2
    for stream, slot in (("img", "out0"), ("txt", "out1")):
        group = store[f"blocks/{stream}"]
        assert any(f"blocks/{stream}" in n and f"mm0__{slot}" in n for n in summary.notes)
        assert group.output_kept.values[..., 0].all()
        assert not group.output_kept.values[..., 1:].any()
        source = load(cache / "samples" / "0001_003.npz")[f"mm0__{slot}"]
        kept = group.output.sel(image=1, step=3, boundary=0).values.astype(source.dtype)
        assert_same_bits(kept[:, :, None], source)


def check_statistics(store: Mapping[str, xr.Dataset], folder: Path, source: str) -> int:
    """Every array of every step file, by the name its index gives; returns how many."""
    names = {"avg_min": "min", "avg_max": "max"} if source == "activation_stats_v1" else {}
    compared = 0
    for path in sorted((folder / "timestep_stats").glob("*_index.json")):
        step, index = int(path.name.split("_")[1]), json.loads(path.read_text())
        arrays = load(path.with_name(f"step_{step}.npz"))
        for name in index:
            layer = parse_layer(name)
            group = store[f"pooled/{source}/{layer.site}"].sel(step=step, layer=layer.layer)
            prefix = name.replace(".", "_")
            for key in [k for k in arrays if k.startswith(f"{prefix}__")]:
                stored = group[names.get(k := key.rpartition("__")[2], k)]
                if "projection" in stored.dims:
                    stored = stored.sel(projection=layer.projection)
                original = stored.attrs.get("original_dtype", str(stored.dtype))
                assert_same_bits(stored.values.astype(original), arrays[key], (path, key))
                compared += 1
            for key in ("tensor_min", "tensor_max", "tensor_absmax", "n_batches"):
                assert group[key].item() == index[name][key], (path, key)
    return compared


def test_timestep_statistics_with_equal_q_k_v_once(tmp_path: Path) -> None:
    # More than the 256 rows that are sampled, or the histograms of q, k and v would be equal.
    folder = make_activations(tmp_path / "a", shape=replace(SHAPE, image_tokens=144))
    store, summary = store_of(folder)
    # 21 linears with extrema and histograms, 3 of them with a shift, at two steps.
    assert check_statistics(store, folder, "timestep_stats") == 2 * (21 * 4 + 3)
    assert "projection" not in store[QKV].avg_min.dims
    assert "projection" in store[QKV].hist_counts.dims
    assert store[FC2].avg_max.dtype == np.float32
    assert store[FC2].avg_max.attrs["original_dtype"] == "float64"
    assert {count.written for count in summary.groups.values()} == {2}


def test_different_q_k_v_are_kept_apart(tmp_path: Path) -> None:
    folder = make_activations(tmp_path / "a", shape=SHAPE)
    key = "mm1_txt_attn_k_proj__avg_min"
    damage.poison(folder / "timestep_stats" / "step_3.npz", key, value=-77.5, index=3)
    store, _ = store_of(folder)
    assert check_statistics(store, folder, "timestep_stats") == 2 * (21 * 4 + 3)
    apart = store[QKV].avg_min.sel(step=3, layer="mm1.txt", channel=3)
    assert apart.sel(projection="k_proj").item() == -77.5 != apart.sel(projection="q_proj").item()
    assert "projection" not in store[QKV].avg_max.dims


def test_float64_that_float32_cannot_hold_stays_float64(tmp_path: Path) -> None:
    """Seen at the second step only, after the plan chose float32: the group is planned again."""
    folder = make_activations(tmp_path / "a", shape=SHAPE)
    second = folder / "timestep_stats" / "step_3.npz"
    damage.poison(second, "mm0_txt_mlp_fc2__avg_max", value=0.1, index=5)
    damage.poison(second, "mm1_img_attn_o_proj__avg_min", value=-0.1)
    store, summary = store_of(folder)
    assert check_statistics(store, folder, "timestep_stats") == 2 * (21 * 4 + 3)
    assert store[FC2].avg_max.dtype == np.float64
    assert store[FC2].avg_min.dtype == np.float32
    assert store["pooled/timestep_stats/attn.o_proj"].avg_min.dtype == np.float64
    assert {(c.written, c.skipped, c.refused) for c in summary.groups.values()} == {(2, 0, 0)}
    assert len(set(summary.notes)) == len(summary.notes)
    assert len(open_store(tmp_path / "store.zarr").provenance) == 1
    again = ingest([folder], tmp_path / "store.zarr", mode=Mode(resume=True))
    assert {(c.written, c.skipped, c.refused) for c in again.groups.values()} == {(0, 2, 0)}
    assert again.problems == []


def test_counts_beyond_32_bits_stay_exact(tmp_path: Path) -> None:
    folder = make_activations(tmp_path / "a", shape=SHAPE)
    key = "mm0_img_mlp_fc1__hist_counts"
    damage.poison(folder / "timestep_stats" / "step_3.npz", key, value=1 << 33, index=200)
    store, _ = store_of(folder)
    counts = store["pooled/timestep_stats/mlp.fc1"].hist_counts
    assert counts.sel(layer="mm0.img", step=3, bin=200).item() == 1 << 33
    assert check_statistics(store, folder, "timestep_stats") == 2 * (21 * 4 + 3)


def test_statistics_of_the_first_schema(tmp_path: Path) -> None:
    folder = make_activation_stats_v1(tmp_path / "v1", shape=SHAPE)
    store, _ = store_of(folder)
    assert check_statistics(store, folder, "activation_stats_v1") == 2 * 21 * 2
    assert store["pooled/activation_stats_v1/mlp.fc2"]["min"].attrs["source_name"] == "avg_min"


@pytest.mark.parametrize(("variant", "layers"), [("plain", 3), ("suffixed", 13)])
def test_postgelu_statistics(tmp_path: Path, variant: str, layers: int) -> None:
    path = make_postgelu(tmp_path / "stats.npz", shape=SHAPE, variant=variant)
    store, _ = store_of(path)
    arrays = load(path)
    timesteps = arrays.pop("timesteps_unique")
    edges = arrays.pop("histogram_bin_edges")
    for key, values in arrays.items():
        name, text, variable = key.split("::")
        layer = parse_layer(name)
        group = store[f"pooled/postgelu/{layer.site}"].sel(layer=layer.layer)
        t = timesteps[np.abs(timesteps - float(text[2:])).argmin()]
        stored = group[variable].isel(step=int(np.flatnonzero(group.timestep.values == t)[0]))
        original = stored.attrs.get("original_dtype", str(stored.dtype))
        assert_same_bits(stored.values.astype(original), values, key)
        assert_same_bits(group.bin_edges.values, edges)
    assert len(arrays) == layers * 2 * 6
    assert (np.diff(group.timestep.values) < 0).all()  # from noise to image


def test_prompts_that_nothing_takes_are_refused(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("a cat\n", encoding="utf-8")
    schedule = make_lut_schedule(tmp_path / "lut.json")
    with pytest.raises(MisuseError, match="--prompts is for a Phase 1 file, --only for schedule"):
        store_of(schedule, prompts=tmp_path / "p.txt", only=["schedule"])
    with pytest.raises(SourceError, match="none is among the sources; leave --prompts out"):
        store_of(schedule, prompts=tmp_path / "p.txt")
    assert not list(tmp_path.glob("*.zarr"))


@pytest.mark.parametrize("as_file", [False, True])
def test_phase_1_rows_and_prompts(tmp_path: Path, as_file: bool) -> None:
    path = make_phase1(tmp_path / "cali.npz", shape=SHAPE, prompt_count=5)
    options = {}
    if as_file:
        options["prompts"] = tmp_path / "p.txt"
        options["prompts"].write_text("".join(f"line {i}\n" for i in range(5)))
    store, _ = store_of(path, **options)
    source, samples = load(path), store["samples"]
    pairs = {"xs": "x", "ts": "timestep", "prompt_indices": "prompt_index",
             "cs": "conditioning", "cs_pooled": "pooled_conditioning"}  # fmt: skip
    for key, name in pairs.items():
        assert_same_bits(samples[name].values, source[key], key)
    with np.load(path, allow_pickle=True) as file:  # made by this test: the prompts are strings
        expected = [f"line {i}" for i in range(5)] if as_file else file["prompts"].tolist()
    assert samples.prompt.values.tolist() == expected
    assert samples.attrs["cfg_scale"] == 1.5


def test_schedules(tmp_path: Path) -> None:
    lut = json.loads(make_lut_schedule(tmp_path / "lut.json", shape=SHAPE).read_text())
    poly = json.loads(make_poly_schedule(tmp_path / "poly.json", shape=SHAPE).read_text())
    ingest([tmp_path / "lut.json", tmp_path / "poly.json"], tmp_path / "s.zarr")
    store = open_store(tmp_path / "s.zarr")
    for name, entry in lut["layers"].items():
        alpha = store.layer(name, source="lut_schedule").alpha
        assert alpha.values.tolist() == entry["alphas"]
        assert alpha.sigma.values.tolist() == lut["sigmas"]
    for name, entry in poly["layers"].items():
        group = store.layer(name, source="poly_schedule").load()
        coefficients = group.coefficient.values
        assert coefficients[~np.isnan(coefficients)][::-1].tolist() == entry["coeffs"]
        assert (group.degree.item(), group.r2.item(), group.cv.item()) == (
            entry["degree"],
            entry["r2"],
            entry["cv"],
        )
