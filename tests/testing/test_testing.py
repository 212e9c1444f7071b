"""Synthetic runs: repeatable, and with the traits of the model they stand for."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from taqstore.testing import (
    RunShape,
    get_sigmas,
    get_timesteps,
    linear_inputs,
    make_activation_stats_v1,
    make_lut_schedule,
    make_phase1,
    make_poly_schedule,
    make_postgelu,
    make_run_folder,
    prompts,
    raw_activations,
)

TINY = RunShape(
    images=3, steps=6, blocks=2, hidden=12, image_tokens=20, text_tokens=3, latent=(4, 6)
)


MAKERS = {
    "run": make_run_folder,
    "phase1.npz": make_phase1,
    "postgelu.npz": make_postgelu,
    "v1": make_activation_stats_v1,
    "lut.json": make_lut_schedule,
    "poly.json": make_poly_schedule,
}


def digests(root: Path) -> dict[str, str]:
    files = sorted(root.rglob("*")) if root.is_dir() else [root]
    return {
        str(f.relative_to(root)): hashlib.sha256(f.read_bytes()).hexdigest()
        for f in files
        if f.is_file()
    }


@pytest.mark.parametrize("name", MAKERS)
def test_same_seed_gives_same_bytes_and_another_seed_does_not(name: str, tmp_path: Path) -> None:
    first, again, other = (
        digests(MAKERS[name](tmp_path / folder / name, shape=TINY, seed=seed))
        for folder, seed in (("a", 4), ("b", 4), ("c", 5))
    )
    assert first == again
    assert first.keys() == other.keys()
    assert first != other


def test_import_is_light() -> None:
    heavy = ("zarr", "xarray", "dask", "matplotlib", "pandas", "h5py")
    code = f"import sys, taqstore.testing; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_sigmas_of_ten_steps_are_the_measured_ones_bit_for_bit() -> None:
    sigmas = get_sigmas(10)
    assert sigmas.dtype == np.float32
    assert sigmas.shape == (11,)
    measured = {0: 1.0, 3: 0.8576923608779907, 6: 0.602150559425354, 9: 0.008928571827709675, 10: 0}
    assert {i: float(sigmas[i]) for i in measured} == measured


@pytest.mark.parametrize("steps", [2, 5, 28, 50, 1000])
def test_sigmas_follow_the_shift_3_flow_within_float32(steps: int) -> None:
    end = Fraction(3, 1000) / (1 + Fraction(2, 1000))
    times = [1 + (end - 1) * Fraction(i, steps - 1) for i in range(steps)]
    exact = np.array([float(3 * t / (1 + 2 * t)) for t in times] + [0.0])
    sigmas = get_sigmas(steps)
    np.testing.assert_allclose(sigmas, exact, rtol=2e-5)
    assert (np.diff(sigmas) < 0).all()
    assert float(sigmas[-2]) == pytest.approx(1 / 112, rel=1e-6)


def test_timestep_is_sigma_times_1000_in_half_precision() -> None:
    sigmas = get_sigmas(10)
    timesteps = get_timesteps(sigmas)
    assert timesteps.dtype == np.float16
    expected = [1000, 960, 913.5, 857.5, 790.5, 707.5, 602, 465, 278, 8.9296875, 0]
    assert timesteps.astype(float).tolist() == expected
    assert np.abs(timesteps.astype(float) - 1000.0 * sigmas).max() <= 0.25


def test_sd3_has_285_linears_and_189_inputs() -> None:
    inputs = linear_inputs(RunShape(blocks=24, hidden=1536))
    linears = [name for readers in inputs.values() for name in readers]
    assert (len(linears), len(inputs)) == (285, 189)
    assert sum(name.endswith("mlp.fc2") for name in linears) == 47
    assert not {"mm23.txt.attn.o_proj", "mm23.txt.mlp.fc1", "mm23.txt.mlp.fc2"} & set(linears)
    assert "mm23.txt.attn.k_proj" in linears


def test_unified_blocks_keep_the_last_text_stream_whole() -> None:
    linears = raw_activations(RunShape(blocks=1, unified_blocks=2, hidden=8))
    assert "mm0.txt.mlp.fc2" in linears
    assert linears["uni1.mlp.fc2"].shape == (2 * (144 + 7), 32)


def test_raw_tensors_have_the_traits_they_promise() -> None:
    x = raw_activations(RunShape(), seed=1, image=2, step=3)
    assert x["mm0.img.attn.q_proj"] is x["mm0.img.attn.v_proj"]
    post_gelu = x["mm1.img.mlp.fc2"]
    assert post_gelu.dtype == np.float32
    assert post_gelu.shape == (288, 192)
    assert -0.1701 <= post_gelu.min() < -0.1699
    wide = np.ptp(x["mm0.img.mlp.fc1"], axis=0)
    assert wide.max() > 4 * np.median(wide)
    z = x["mm0.img.mlp.fc1"].astype(float)
    z = (z - z.mean(axis=0)) / z.std(axis=0)
    assert (z**4).mean() > 4  # a normal has 3


def test_raw_tensors_differ_by_image_step_and_seed_and_drift_with_sigma() -> None:
    name = "mm0.img.mlp.fc1"
    tensors = [
        raw_activations(TINY, seed=seed, image=image, step=step)[name]
        for seed, image, step in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1))
    ]
    assert len({t.tobytes() for t in tensors}) == 4
    spread = [
        np.mean([raw_activations(RunShape(), image=i, step=s)[name].std() for i in range(4)])
        for s in range(0, 12, 2)
    ]
    assert max(spread) > 1.15 * min(spread)


def test_prompts_are_all_different() -> None:
    texts = prompts(770, seed=9)
    assert len(set(texts)) == 770
    assert max(map(len, texts)) < 80
    assert prompts(5, seed=9) == texts[:5]
