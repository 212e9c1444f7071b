"""Conformance: real outputs of the source scripts come back exactly, compared with `np.load`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from taqstore.pipelines.sources import plan

from support.source_runs import run

pytestmark = pytest.mark.reference


def test_latents(reference: Path) -> None:
    folder = reference / "calibration_data"
    (got,) = plan(folder, only=["latents"])
    written = run(got)
    assert written.problems == []
    assert any("3 of 3 equal" in note for note in got.notes)
    coords = got.templates[0].coords
    for image in range(3):
        for step in range(11):
            with np.load(folder / "samples" / f"{image:04d}_{step:03d}.npz") as file:
                stored = written.arrays["latents", "x"][image, step]
                assert stored.tobytes() == file["x"].tobytes()
                assert coords["timestep"][1][step] == file["timestep"]
                assert coords["sigma"][1][step] == file["sigma"]
    manifest = json.loads((folder / "manifest.json").read_text())
    assert [e["prompt"] for e in manifest["images"]] == list(coords["prompt"][1])


def test_blocks(reference: Path) -> None:
    folder = reference / "calibration_data" / "adaround_cache"
    (got,) = plan(folder)
    written = run(got)
    assert written.problems == []
    assert got.notes == ()
    for i, image in enumerate((0, 1)):
        for s, step in enumerate((0, 5)):
            with np.load(folder / "samples" / f"{image:04d}_{step:03d}.npz") as file:
                for template in got.templates:
                    x = written.arrays[template.path, "x"][i, s]
                    for b, key in enumerate(template.attrs["source_keys"]):
                        assert template.coords["dtype"][1][b] == file[key].dtype.name
                        assert np.array_equal(x[b].astype(file[key].dtype), file[key][:, :, 0])


def test_activations(reference: Path) -> None:
    folder = reference / "calibration_data" / "activations"
    (got,) = plan(folder)
    written = run(got)
    assert written.problems == []
    projections = {"attn.qkv": ["attn.q_proj", "attn.k_proj", "attn.v_proj"]}
    seen = 0
    for s, step in enumerate((0, 3, 6, 9)):
        index = json.loads((folder / "timestep_stats" / f"step_{step}_index.json").read_text())
        with np.load(folder / "timestep_stats" / f"step_{step}.npz") as file:
            for template in got.templates:
                site = template.path.removeprefix("pooled/timestep_stats/")
                for i, layer in enumerate(template.coords["layer"][1]):
                    for p, part in enumerate(projections.get(site, [site])):
                        name = f"{layer}.{part}"
                        for array in template.arrays:
                            stored = written.arrays[template.path, array.name][s, i]
                            if "projection" in array.dims:
                                stored = stored[p]
                            if array.name in index[name]:
                                assert stored == index[name][array.name]
                            else:
                                expected = file[f"{name.replace('.', '_')}__{array.name}"]
                                assert np.array_equal(stored.astype(expected.dtype), expected)
                                seen += 1
            assert seen == len(file.files) * (s + 1)


def test_phase_files(reference: Path) -> None:
    samples, postgelu = plan(reference / "phase")
    written = run(samples)
    with np.load(reference / "phase" / "DiT_cali_data.npz", allow_pickle=True) as file:
        assert list(samples.templates[0].coords["prompt"][1]) == file["prompts"].tolist()
        for name, key in (
            ("x", "xs"),
            ("conditioning", "cs"),
            ("pooled_conditioning", "cs_pooled"),
        ):
            assert np.array_equal(written.arrays["samples", name], file[key])
    written = run(postgelu)
    assert written.problems == []
    path = "pooled/postgelu/mlp.fc2"
    template = written.templates[path]
    with np.load(reference / "phase" / "activation_stats_postgelu.npz") as file:
        for s, t in enumerate(template.coords["timestep"][1]):
            for i, layer in enumerate(template.coords["layer"][1]):
                key = f"mm_{int(layer[2:-4]):02d}_{layer[-3:]}::t={float(t):.6f}"
                for name in ("count", "mean", "std", "min", "max", "histogram"):
                    expected = file[f"{key}::{name}"]
                    stored = written.arrays[path, name][s, i]
                    assert np.array_equal(stored.astype(expected.dtype), expected)


def test_schedules(reference: Path) -> None:
    lut, poly = plan(reference / "sd3_medium")
    table, fits = run(lut), run(poly)
    alphas = json.loads((reference / "sd3_medium" / "lut_schedule_512_p100.json").read_text())
    assert list(lut.templates[0].coords["sigma"][1]) == alphas["sigmas"]
    name = "polynomial_clipping_schedule_512_p100.json"
    coefficients = json.loads((reference / "sd3_medium" / name).read_text())["layers"]
    seen = 0
    for template in lut.templates:
        site = template.path.rpartition("/")[2]
        for i, layer in enumerate(template.coords["layer"][1]):
            for part in (
                ["attn.q_proj", "attn.k_proj", "attn.v_proj"] if site == "attn.qkv" else [site]
            ):
                raw = f"{layer}.{part}".replace(".", "_")
                alpha = table.arrays[template.path, "alpha"][:, i]
                assert alpha.tolist() == alphas["layers"][raw]["alphas"]
                row = fits.arrays[f"pooled/poly_schedule/{site}", "coefficient"][i]
                degree = coefficients[raw]["degree"]
                assert row[: degree + 1][::-1].tolist() == coefficients[raw]["coeffs"]
                seen += 1
    assert seen == 285
