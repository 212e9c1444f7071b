"""Exported statistics equal the folder they came from; observations replay its collector."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from support.groups_from_files import pooled_groups, read_npz
from support.same_files import assert_same_folder, read_json
from taqstore.errors import MissingError
from taqstore.export.timestep_stats import STEPS_AT_ONCE, timestep_stats
from taqstore.kinds.statistics_sources import TIMESTEP_STATS
from taqstore.testing import RunShape, make_activation_stats_v1, make_activations, raw_activations

SHAPE = RunShape(images=3, steps=7, blocks=2, hidden=8, image_tokens=20, text_tokens=3)


def assert_same_statistics(out: Path, source: Path) -> None:
    count = assert_same_folder(out / "timestep_stats", source / "timestep_stats", "*.npz")
    assert count > 1
    for path in (source / "timestep_stats").glob("*.json"):
        assert read_json(out / "timestep_stats" / path.name) == read_json(path)
    ours, theirs = (read_json(f / "layer_statistics.json") for f in (out, source))
    if "timestep_dir" in theirs:
        assert ours.pop("timestep_dir") == os.path.realpath(out / "timestep_stats")
        theirs.pop("timestep_dir")
    assert ours == theirs


@pytest.mark.parametrize("images", [1, 3])  # one image gives no histograms
@pytest.mark.parametrize("unified", [0, 1])
def test_statistics_come_back(tmp_path: Path, images: int, unified: int) -> None:
    shape = RunShape(
        images=images, steps=7, blocks=2, unified_blocks=unified, hidden=8, image_tokens=20
    )
    source = make_activations(tmp_path / "source", shape=shape, seed=3)
    summary = timestep_stats(pooled_groups(source), tmp_path / "out")
    assert_same_statistics(tmp_path / "out", source)
    files = [p for p in (tmp_path / "out").rglob("*") if p.is_file()]
    assert (summary.files, summary.bytes) == (len(files), sum(p.stat().st_size for p in files))


def test_steps_are_loaded_in_more_than_one_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_activations(tmp_path / "source", shape=SHAPE)
    monkeypatch.setitem(STEPS_AT_ONCE, TIMESTEP_STATS, 2)
    timestep_stats(pooled_groups(source), tmp_path / "out")
    assert_same_statistics(tmp_path / "out", source)


def test_files_name_layers_in_the_order_of_the_source(tmp_path: Path) -> None:
    source = make_activations(tmp_path / "source", shape=SHAPE)
    groups = pooled_groups(source)
    timestep_stats(dict(sorted(groups.items(), reverse=True)), tmp_path / "out")
    index = read_json(tmp_path / "out/timestep_stats/step_0_index.json")
    img, txt = "mm0.img", "mm0.txt"
    qkv = [f"{layer}.attn.{p}_proj" for layer in (img, txt) for p in "qkv"]
    rest = [f"{layer}.{s}" for layer in (img, txt) for s in ("attn.o_proj", "mlp.fc1", "mlp.fc2")]
    assert list(index)[:12] == qkv + rest
    entry = index["mm0.img.mlp.fc2"]
    head = ["n_batches", "tensor_absmax", "tensor_min", "tensor_max", "has_shift", "has_hist"]
    tail = ["shift_absmax", "hist_p999", "hist_p99", "hist_p01", "hist_p001"]
    assert list(entry) == head + tail


def test_differing_projections_stay_apart(tmp_path: Path) -> None:
    source = make_activations(tmp_path / "source", shape=SHAPE)
    stats = source / "timestep_stats"
    arrays = read_npz(stats / "step_3.npz")
    arrays["mm1_img_attn_v_proj__avg_max"] = arrays["mm1_img_attn_v_proj__avg_max"] * np.pi
    np.savez(stats / "step_3.npz", **arrays)
    groups = pooled_groups(source)
    qkv = groups["pooled/timestep_stats/attn.qkv"]
    assert "projection" in qkv["avg_max"].dims
    assert qkv["avg_max"].dtype == np.float64  # pi times a float32 is none
    timestep_stats(groups, tmp_path / "out")
    assert_same_statistics(tmp_path / "out", source)


def test_statistics_of_version_1_come_back(tmp_path: Path) -> None:
    source = make_activation_stats_v1(tmp_path / "source", shape=SHAPE)
    groups = pooled_groups(source, version=1)
    assert "max" in groups["pooled/activation_stats_v1/mlp.fc1"]
    timestep_stats(groups, tmp_path / "out")
    assert_same_statistics(tmp_path / "out", source)


def test_widths_in_a_site_and_unseen_layers(tmp_path: Path) -> None:
    source = make_activations(tmp_path / "source", shape=SHAPE)
    groups = pooled_groups(source)
    fc1 = groups.pop("pooled/timestep_stats/mlp.fc1")
    counts = fc1["n_batches"].values.copy()
    counts[1, 2] = 0
    fc1["n_batches"] = fc1["n_batches"].copy(data=counts)
    groups["pooled/timestep_stats/mlp.fc1.c8"] = fc1.isel(layer=[1])
    groups["pooled/timestep_stats/mlp.fc1.c16"] = fc1.isel(layer=[0, 2])
    timestep_stats(groups, tmp_path / "out")
    unseen = f"{fc1['layer'].values[2]}.mlp.fc1"
    first, second = (f"timestep_stats/step_{k}_index.json" for k in SHAPE.stats_steps[:2])
    assert read_json(tmp_path / "out" / first) == read_json(source / first)
    want = {k: v for k, v in read_json(source / second).items() if k != unseen}
    assert read_json(tmp_path / "out" / second) == want


def observed_groups(shape: RunShape, seed: int) -> dict[str, xr.Dataset]:
    """Extrema of every image, float32, under `activations/<site>`; batches in reverse order."""
    images, steps = range(shape.images), shape.stats_steps
    raw = {
        (i, s): raw_activations(shape, seed=seed, image=i, step=s) for i in images for s in steps
    }
    sites: dict[str, dict[str, str]] = {}
    for linear in raw[0, 0]:
        layer, section, part = linear.rsplit(".", 2)
        site = "attn.qkv" if part.endswith(("q_proj", "k_proj", "v_proj")) else f"{section}.{part}"
        sites.setdefault(site, {}).setdefault(layer, linear)
    groups = {}
    for site, layers in sites.items():
        data = {
            name: (
                ("batch", "step", "layer", "channel"),
                np.array(
                    [
                        [[how(raw[i, s][n], axis=0) for n in layers.values()] for s in steps]
                        for i in images
                    ]
                ),
            )
            for name, how in (("min", np.min), ("max", np.max))
        }
        coords = {"batch": list(images), "image": (("batch", "slot"), np.array(images)[:, None])}
        sigma = np.linspace(1, 0.1, len(steps), dtype=np.float32)
        coords |= {"step": steps, "sigma": ("step", sigma), "layer": list(layers)}
        groups[f"activations/{site}"] = xr.Dataset(data, coords).chunk(batch=1)
    return groups


def test_observations_replay_the_collector(tmp_path: Path) -> None:
    """Averages, shifts and rollups equal those that the synthetic collector computed itself."""
    source = make_activations(tmp_path / "source", shape=SHAPE, seed=11)
    summary = timestep_stats(observed_groups(SHAPE, 11), tmp_path / "out")
    assert summary.notes == ("no histograms: they were sampled by the source, not observed",)
    for step in SHAPE.stats_steps:
        want = read_npz(source / f"timestep_stats/step_{step}.npz")
        want = {k: v for k, v in want.items() if "__hist" not in k}
        got = read_npz(tmp_path / f"out/timestep_stats/step_{step}.npz")
        assert set(got) == set(want)
        assert all(got[k].dtype == np.float64 and np.array_equal(got[k], want[k]) for k in want)
        index = read_json(source / f"timestep_stats/step_{step}_index.json")
        for entry in index.values():
            entry["has_hist"] = False
            for key in [k for k in entry if k.startswith("hist_p")]:
                del entry[key]
        assert read_json(tmp_path / f"out/timestep_stats/step_{step}_index.json") == index
    document = read_json(tmp_path / "out/layer_statistics.json")
    assert document["format"] == "per_timestep_npz_v2"
    assert document["metadata"]["selected_image_ids"] == [0, 1, 2]
    assert document["metadata"]["total_processed"] == 3 * len(SHAPE.stats_steps)


def test_missing_statistics_are_named(tmp_path: Path) -> None:
    groups = observed_groups(SHAPE, 0)
    with pytest.raises(MissingError, match=r"no group pooled/timestep_stats/<site>.*activations"):
        timestep_stats(groups, tmp_path / "out", source="timestep_stats")
    groups["activations/mlp.fc1"] = groups["activations/mlp.fc1"].drop_vars("max")
    with pytest.raises(MissingError, match=r"activations/mlp\.fc1: no variable max"):
        timestep_stats(groups, tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.reference
def test_reference_statistics(reference: Path, tmp_path: Path) -> None:
    source = reference / "calibration_data/activations"
    timestep_stats(pooled_groups(source), tmp_path / "out")
    assert_same_statistics(tmp_path / "out", source)
