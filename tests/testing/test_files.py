"""Synthetic latents, block caches, Phase files, schedules and benchmark inputs."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from taqstore.testing import (
    RunShape,
    get_sigmas,
    get_timesteps,
    make_adaround_cache,
    make_block_cache,
    make_lut_schedule,
    make_phase1,
    make_poly_schedule,
    make_postgelu,
    make_run_folder,
    make_sd3_latents,
    make_sd3_statistics,
    prompts,
    raw_activations,
)
from taqstore.testing.damage import read_npz

TINY = RunShape(
    images=3, steps=6, blocks=2, hidden=12, image_tokens=20, text_tokens=3, latent=(4, 6)
)


# 140 tokens are 280 rows, of which the source samples 256.
SAMPLED = RunShape(images=3, steps=4, blocks=1, hidden=6, image_tokens=140, text_tokens=2)


def batches(name: str, step: int) -> np.ndarray:
    """Every image's tensor, (image, rows, channel)."""
    images = range(SAMPLED.images)
    return np.stack([raw_activations(SAMPLED, seed=7, image=i, step=step)[name] for i in images])


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run_folder(tmp_path_factory.mktemp("run") / "calibration_data", shape=TINY, seed=3)


def test_latents_run_from_noise_to_the_result_that_is_kept(run_folder: Path) -> None:
    for image in range(TINY.images):
        final = read_npz(run_folder / "samples" / f"{image:04d}_006.npz")
        kept = np.load(run_folder / "latents" / f"{image:04d}.npy")
        assert final["is_final"]
        assert final["sigma"] == 0
        assert final["x"].shape == (1, 4, 6, 16)
        scaled = (final["x"].astype(np.float64) / 1.5305 + 0.0609).astype(np.float32)
        assert kept.dtype == np.float16
        np.testing.assert_allclose(kept.astype(np.float32), scaled, atol=4e-3, rtol=0)
    first = read_npz(run_folder / "samples" / "0001_000.npz")
    assert (first["sigma"], first["image_id"], bool(first["is_final"])) == (1, 1, False)
    manifest = json.loads((run_folder / "manifest.json").read_text())
    assert [row["prompt"] for row in manifest["images"]] == prompts(3, seed=3)
    assert [row["seed"] for row in manifest["images"]] == [42, 43, 44]


def streams_match(sample: dict[str, np.ndarray], block: int) -> bool:
    pairs = [(f"mm{block}__out{k}", f"mm{block + 1}__arg{k}") for k in (0, 1)]
    return all(np.array_equal(sample[a], sample[b]) for a, b in pairs)


def test_block_outputs_are_the_next_inputs_unless_broken(tmp_path: Path) -> None:
    shape = RunShape(images=2, steps=6, blocks=4, hidden=8, image_tokens=5)
    whole = make_adaround_cache(tmp_path / "whole", shape=shape)
    broken = make_adaround_cache(tmp_path / "broken", shape=shape, break_boundary=(1,))
    for image, step in ((0, 0), (0, 5), (1, 0), (1, 5)):
        name = f"samples/{image:04d}_{step:03d}.npz"
        good, bad = read_npz(whole / name), read_npz(broken / name)
        assert [streams_match(good, i) for i in range(3)] == [True, True, True]
        assert [streams_match(bad, i) for i in range(3)] == [True, False, True]
        assert good["mm0__arg0"].dtype == np.float16
        assert {good[k].dtype for k in good if "arg0" in k or "out" in k} == {
            np.dtype(np.float16),
            np.dtype(np.float32),
        }
        assert "mm3__out1" not in good
        assert "mm2__out1" in good
        assert good["mm2__arg2"].tolist() == [float(get_timesteps(get_sigmas(6))[step])] * 2


def test_later_cache_variant_adds_sigma_and_pooled(tmp_path: Path) -> None:
    options = {"float16": True, "with_sigma": True, "with_pooled": True}
    cache = make_adaround_cache(tmp_path, shape=TINY, seed=2, **options)
    sample = read_npz(cache / "samples" / "0001_005.npz")
    assert sample["__sigma__"].dtype == np.float32
    assert sample["__sigma__"].tolist() == [float(get_sigmas(6)[5])]
    assert {a.dtype for k, a in sample.items() if k != "__sigma__"} == {np.dtype(np.float16)}
    assert read_npz(cache / "pooled" / "0001.npz")["pooled"].shape == (2, 24)


def test_unified_blocks_join_text_and_image(tmp_path: Path) -> None:
    shape = RunShape(images=1, steps=4, blocks=2, unified_blocks=2, hidden=8, image_tokens=5)
    cache = make_adaround_cache(tmp_path, shape=shape)
    sample = read_npz(cache / "samples" / "0000_000.npz")
    joined = np.concatenate([sample["mm1__out1"], sample["mm1__out0"]], axis=1)
    assert np.array_equal(sample["uni0__arg0"], joined)
    assert np.array_equal(sample["uni0__out0"], sample["uni1__arg0"])
    metadata = json.loads((cache / "metadata.json").read_text())
    assert metadata["block_names"] == ["mm0", "mm1", "uni0", "uni1"]
    assert metadata["block_shapes"]["uni1"]["output_shapes"] == [[2, 12, 1, 8]]


def test_phase1_rows_are_shuffled_rows_of_the_run(run_folder: Path, tmp_path: Path) -> None:
    path = make_phase1(tmp_path / "DiT_cali_data.npz", shape=TINY, seed=3, prompt_count=4)
    with np.load(path, allow_pickle=True) as archive:
        data = {key: archive[key] for key in archive.files}
    steps = get_timesteps(get_sigmas(TINY.steps)).tolist()
    for x, t, image in zip(data["xs"], data["ts"], data["prompt_indices"], strict=True):
        name = f"{image:04d}_{steps.index(t):03d}.npz"
        assert np.array_equal(read_npz(run_folder / "samples" / name)["x"][0], x)
    assert data["prompts"].dtype == object
    assert data["prompts"].tolist() == prompts(4, seed=3)
    assert data["prompt_indices"].tolist() != sorted(data["prompt_indices"].tolist())
    with np.load(path) as archive, pytest.raises(ValueError, match="allow_pickle"):
        archive["prompts"]


def test_postgelu_moments_and_counts(tmp_path: Path) -> None:
    data = read_npz(make_postgelu(tmp_path / "stats.npz", shape=SAMPLED, seed=7))
    assert data["timesteps_unique"].tolist() == [8.9296875, 1000.0]
    x = batches("mm0.img.mlp.fc2", 3).astype(np.float16).astype(np.float64)
    x = x.reshape(-1, x.shape[2])
    own = {k.split("::")[2]: v for k, v in data.items() if k.startswith("mm_00_img::t=8.929688::")}
    assert own["count"] == len(x) == 840
    np.testing.assert_allclose(own["mean"], x.mean(axis=0), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(own["std"], x.std(axis=0), rtol=1e-4)
    assert np.array_equal(own["max"], x.max(axis=0))
    inside = x[np.abs(x) <= 8]
    assert own["histogram"].sum() == inside.size < x.size
    assert own["histogram"][:256].sum() == (inside < 0).sum()
    assert "mm_00_txt" not in {key.split("::")[0] for key in data}


def test_suffixed_postgelu_names_all_four_inputs(tmp_path: Path) -> None:
    data = read_npz(make_postgelu(tmp_path / "stats.npz", shape=TINY, variant="suffixed"))
    names = {key.split("::")[0] for key in data if "::" in key}
    sites = ("qkv_in", "o_in", "fc1_in", "fc2_in")
    full = {f"mm_{i:02d}_{s}:{site}" for i in (0, 1) for s in ("img", "txt") for site in sites}
    assert names == full - {f"mm_01_txt:{site}" for site in sites[1:]}
    with pytest.raises(ValueError, match="unknown variant"):
        make_postgelu(tmp_path / "other.npz", variant="new")


def test_polynomial_is_the_least_squares_fit_of_the_lut(tmp_path: Path) -> None:
    shape = RunShape(images=1, steps=12, blocks=2, hidden=12, image_tokens=30)
    lut = json.loads(make_lut_schedule(tmp_path / "lut.json", shape=shape).read_text())
    poly = json.loads(make_poly_schedule(tmp_path / "poly.json", shape=shape).read_text())
    assert sorted(lut["layers"]) == list(poly["layers"])
    assert lut["sigma_range"] == poly["sigma_range"] == [min(lut["sigmas"]), 1.0]
    sigma = np.array(lut["sigmas"])
    for name, entry in poly["layers"].items():
        alpha = np.array(lut["layers"][name]["alphas"])
        assert (alpha == alpha.astype(np.float16)).all()
        assert len(entry["coeffs"]) == entry["degree"] + 1
        design = np.vander(sigma, entry["degree"] + 1)
        residual = alpha - design @ np.array(entry["coeffs"])
        # Normal equations: the residual of a least squares fit is orthogonal to its columns.
        np.testing.assert_allclose(design.T @ residual, 0, atol=1e-8 * alpha.max())
        assert entry["r2"] == pytest.approx(1 - residual.var() / alpha.var(), abs=1e-4)
        spread = {d: _residual_share(sigma, alpha, d) for d in (2, 3, 4)}
        gains = spread[3] - spread[4] > 0.10, spread[2] - spread[3] > 0.15
        assert entry["degree"] == (4 if gains[0] else 3 if gains[1] else 2)
    assert {entry["degree"] for entry in poly["layers"].values()} == {2, 3, 4}


def _residual_share(sigma: np.ndarray, alpha: np.ndarray, degree: int) -> float:
    residual = np.linalg.lstsq(np.vander(sigma, degree + 1), alpha, rcond=None)[1]
    return float(residual[0] / alpha.var() / alpha.size)


def digests(root: Path) -> dict[str, str]:
    files = sorted(root.rglob("*")) if root.is_dir() else [root]
    return {
        str(f.relative_to(root)): hashlib.sha256(f.read_bytes()).hexdigest()
        for f in files
        if f.is_file()
    }


def test_sd3_statistics_have_sd3_sizes_whatever_the_workers(tmp_path: Path) -> None:
    options: dict[str, Any] = {"scale": 0.02, "compressed": False}
    one = make_sd3_statistics(tmp_path / "one", workers=1, **options)
    two = make_sd3_statistics(tmp_path / "two", workers=2, **options)
    assert digests(one) == digests(two)
    index = json.loads((one / "timestep_stats" / "step_1_index.json").read_text())
    assert len(index) == 285
    with np.load(one / "timestep_stats" / "step_1.npz") as archive:
        assert len(archive.files) == 285 * 4 + 47
        low = archive["mm7_img_mlp_fc2__avg_min"]
        assert low.shape == (6144,)
        assert low.dtype == np.float64
        assert np.array_equal(low, low.astype(np.float32))
        assert index["mm7.img.mlp.fc2"]["tensor_min"] == low.min()


def test_sd3_latents_and_block_cache_have_the_asked_sizes(tmp_path: Path) -> None:
    run = make_sd3_latents(tmp_path / "run", files=4, compressed=False)
    assert len(list((run / "samples").iterdir())) == 4
    assert read_npz(run / "samples" / "0000_003.npz")["x"].shape == (1, 64, 64, 16)
    with pytest.raises(ValueError, match="multiple of 51"):
        make_sd3_latents(tmp_path / "bad", files=60)
    cache = make_block_cache(
        tmp_path / "cache", samples=6, tokens=9, channels=8, blocks=2, text_tokens=3
    )
    assert json.loads((cache / "metadata.json").read_text())["n_samples"] == 6
    files = sorted((cache / "samples").iterdir())
    assert len(files) == 6
    assert read_npz(files[0])["mm1__arg0"].shape == (2, 9, 1, 8)
