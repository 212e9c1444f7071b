"""Synthetic statistics, computed a second way: closed forms, float64, all values."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from taqstore.testing import (
    RunShape,
    get_sigmas,
    get_timesteps,
    make_activation_stats_v1,
    make_activations,
    make_unnamed_statistics,
    raw_activations,
)
from taqstore.testing.damage import read_npz

TINY = RunShape(
    images=3, steps=6, blocks=2, hidden=12, image_tokens=20, text_tokens=3, latent=(4, 6)
)


# 140 tokens are 280 rows, of which the source samples 256.
SAMPLED = RunShape(images=3, steps=4, blocks=1, hidden=6, image_tokens=140, text_tokens=2)


@pytest.fixture(scope="module")
def statistics(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_activations(tmp_path_factory.mktemp("activations"), shape=SAMPLED, seed=7)
    return folder / "timestep_stats"


def batches(name: str, step: int) -> np.ndarray:
    """Every image's tensor, (image, rows, channel)."""
    images = range(SAMPLED.images)
    return np.stack([raw_activations(SAMPLED, seed=7, image=i, step=step)[name] for i in images])


@pytest.mark.parametrize("step", [0, 3])
@pytest.mark.parametrize("name", ["mm0.img.attn.k_proj", "mm0.txt.attn.v_proj", "mm0.img.mlp.fc2"])
def test_averages_and_shift_match_a_closed_form(statistics: Path, name: str, step: int) -> None:
    x = batches(name, step).astype(np.float64)
    low, high = x.min(axis=1), x.max(axis=1)
    members = read_npz(statistics / f"step_{step}.npz")
    prefix = name.replace(".", "_")
    for key, expected in (("avg_min", low.mean(axis=0)), ("avg_max", high.mean(axis=0))):
        stored = members[f"{prefix}__{key}"]
        assert stored.dtype == np.float64
        assert (stored == stored.astype(np.float32)).all()
        np.testing.assert_allclose(stored, expected, rtol=1e-6, atol=1e-7)
    if not name.endswith("fc2"):
        assert f"{prefix}__shift" not in members
        return
    weights = np.array([0.95**2, 0.05 * 0.95, 0.05])
    shift = (weights[:, None] * (low + high) / 2).sum(axis=0)
    np.testing.assert_allclose(members[f"{prefix}__shift"], shift, rtol=1e-6)


def test_running_mean_rounds_to_float32_after_each_image(statistics: Path) -> None:
    low = batches("mm0.img.attn.q_proj", 0).min(axis=1)
    mean = low[0].tolist()
    for n in (1, 2):
        for c in range(len(mean)):
            difference = float(np.float32(float(low[n, c]) - mean[c]))
            quotient = float(np.float32(difference / (n + 1)))
            mean[c] = float(np.float32(mean[c] + quotient))
    assert read_npz(statistics / "step_0.npz")["mm0_img_attn_q_proj__avg_min"].tolist() == mean


@pytest.mark.parametrize("name", ["mm0.img.mlp.fc1", "mm0.txt.attn.q_proj"])
def test_histogram_edges_come_from_two_images_and_counts_from_sampled_rows(
    statistics: Path, name: str
) -> None:
    x = batches(name, 3)
    low, high = float(x[:2].min()), float(x[:2].max())
    pad = 0.05 * (high - low)
    members = read_npz(statistics / "step_3.npz")
    counts = members[f"{name.replace('.', '_')}__hist_counts"]
    edges = members[f"{name.replace('.', '_')}__hist_edges"]
    assert counts.dtype == np.int64
    assert edges.dtype == np.float64
    np.testing.assert_allclose(edges, low - pad + np.arange(257) / 256 * 1.1 * (high - low))
    rows = min(x.shape[1], 256)
    assert counts.sum() == 3 * rows * x.shape[2]
    if rows == x.shape[1]:  # nothing was left out, so the counts are those of all values
        bins = np.searchsorted(edges, x.ravel(), side="right") - 1
        assert np.array_equal(counts, np.bincount(bins.clip(0, 255), minlength=256))


def test_projections_share_extrema_but_sample_their_own_rows(statistics: Path) -> None:
    members = read_npz(statistics / "step_0.npz")
    projections = [f"mm0_img_attn_{p}_proj" for p in "qkv"]
    for key, distinct in (("avg_min", 1), ("hist_edges", 1), ("hist_counts", 3)):
        assert len({members[f"{p}__{key}"].tobytes() for p in projections}) == distinct


def test_index_repeats_the_arrays_extremes_and_quantiles(statistics: Path) -> None:
    members = read_npz(statistics / "step_3.npz")
    index: dict[str, Any] = json.loads((statistics / "step_3_index.json").read_text())
    assert {k.rsplit("__", 1)[0] for k in members} == {k.replace(".", "_") for k in index}
    for name, entry in index.items():
        own = {k.rsplit("__", 1)[1]: v for k, v in members.items() if k.startswith(_key(name))}
        assert entry["n_batches"] == 3
        assert entry["tensor_min"] == own["avg_min"].min()
        assert entry["tensor_absmax"] == max(-own["avg_min"].min(), own["avg_max"].max())
        assert entry["has_shift"] == ("shift" in own) == name.endswith("fc2")
        for key, share in (("hist_p999", 0.999), ("hist_p01", 0.01)):
            cumulated = np.append(0, np.cumsum(own["hist_counts"])) / own["hist_counts"].sum()
            expected = np.interp(share, cumulated, own["hist_edges"])
            width = own["hist_edges"][1] - own["hist_edges"][0]
            # The source's rule is linear within a bin too, but starts the first bin at its edge.
            assert abs(entry[key] - expected) <= (width if cumulated[1] >= share else 1e-6)


def _key(name: str) -> str:
    return name.replace(".", "_") + "__"


def test_one_image_has_no_histograms(tmp_path: Path) -> None:
    shape = RunShape(images=1, steps=2, blocks=1, hidden=4, image_tokens=3)
    folder = make_activations(tmp_path, shape=shape) / "timestep_stats"
    assert not any("hist" in key for key in read_npz(folder / "step_0.npz"))
    entry = json.loads((folder / "step_0_index.json").read_text())["mm0.img.mlp.fc2"]
    assert (entry["has_hist"], entry["has_shift"], "hist_p99" in entry) == (False, True, False)


def test_v1_stores_true_extrema_under_the_averages_names(tmp_path: Path) -> None:
    folder = make_activation_stats_v1(tmp_path, shape=SAMPLED, seed=7)
    document = json.loads((folder / "layer_statistics.json").read_text())
    assert document["format"] == "activation_stats_v1"
    assert "hist_bins" not in document
    members = read_npz(folder / "timestep_stats" / "step_3.npz")
    x = batches("mm0.img.mlp.fc2", 3)
    assert np.array_equal(members["mm0_img_mlp_fc2__avg_max"], x.max(axis=(0, 1)))
    assert not any("hist" in key or "shift" in key for key in members)
    index = json.loads((folder / "timestep_stats" / "step_3_index.json").read_text())
    entry = index["mm0.img.mlp.fc2"]
    assert (entry["tensor_min"], entry["has_hist"]) == (float(x.min()), True)
    inside = np.sort(x[np.abs(x) <= 8].astype(np.float64))
    exact = inside[int(np.ceil(0.99 * inside.size)) - 1]
    assert entry["hist_p99"] <= exact < entry["hist_p99"] + 2 / 32


def test_unnamed_statistics_have_no_format(tmp_path: Path) -> None:
    folder = make_unnamed_statistics(tmp_path)
    assert "format" not in json.loads((folder / "layer_statistics.json").read_text())


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from taqstore import open_store
    from taqstore.testing import make_store

    return open_store(make_store(tmp_path_factory.mktemp("store") / "run.zarr", shape=TINY, seed=6))


@pytest.mark.parametrize(
    ("site", "linear", "last_text"),
    [("attn.qkv", "attn.k_proj", True), ("attn.o_proj", "attn.o_proj", False),
     ("mlp.fc1", "mlp.fc1", False), ("mlp.fc2", "mlp.fc2", False)],
)  # fmt: skip
def test_store_observes_the_raw_tensors(
    store: Any, site: str, linear: str, last_text: bool
) -> None:
    group = store[f"activations/{site}"].compute()
    layers = ["mm0.img", "mm0.txt", "mm1.img", *(["mm1.txt"] if last_text else [])]
    assert group.layer.values.tolist() == layers
    assert group.step.values.tolist() == [0, 3]
    assert group.timestep.values.tolist() == get_timesteps(get_sigmas(6))[[0, 3]].tolist()
    assert group.timestep.dtype == np.float16
    assert group.image.values.tolist() == [[0], [1], [2]]
    for image, step, layer in ((0, 0, "mm0.img"), (2, 3, "mm1.img"), (1, 3, "mm0.txt")):
        x = raw_activations(TINY, seed=6, image=image, step=step)[f"{layer}.{linear}"]
        half = x.astype(np.float16)
        seen = group.sel(batch=image, step=step, layer=layer)
        assert np.array_equal(seen["min"], half.min(axis=0))
        assert np.array_equal(seen["max"], half.max(axis=0))
        assert float(seen["tensor_max"]) == half.max()
        assert int(seen["count"]) == len(half)
        exact = half.astype(np.float64)
        np.testing.assert_allclose(seen["mean"], exact.mean(axis=0), rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(seen["m2"], exact.var(axis=0) * len(exact), rtol=1e-6)
        assert int(seen["histogram"].sum()) == half.size
        below = seen["histogram"].values[group.bin_right.values <= 0].sum()
        assert below == (half < 0).sum()
        assert not seen["nonfinite"].any()
