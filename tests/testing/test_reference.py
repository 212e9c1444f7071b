"""Synthetic run folders are laid out like real outputs of the source scripts."""

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
    make_lut_schedule,
    make_phase1,
    make_poly_schedule,
    make_postgelu,
    make_run_folder,
)
from taqstore.testing.damage import read_npz
from taqstore.testing.formulas import PERCENTILES, histogram_edges, percentile
from taqstore.testing.schedule import fit


def layout(root: Path, *, ignore: tuple[str, ...] = ()) -> dict[str, Any]:
    """Kinds of files with their keys, dtypes and ranks; indices in names are left out."""
    found: dict[str, Any] = {}
    for file in sorted(root.rglob("*")):
        relative = str(file.relative_to(root))
        if relative.startswith(ignore) or file.suffix not in (".npz", ".json", ".npy"):
            continue
        kind = "".join(c for c in relative if not c.isdigit())
        found.setdefault(kind, _content(file))
    return found


def _content(file: Path) -> Any:
    if file.suffix == ".json":
        return json_layout(json.loads(file.read_text()))
    if file.suffix == ".npy":
        array = np.load(file)
        return str(array.dtype), array.ndim
    return [(key, str(a.dtype), a.ndim) for key, a in read_npz(file).items()]


def json_layout(value: Any) -> Any:
    if isinstance(value, dict):
        return [(key, json_layout(item)) for key, item in value.items()]
    if isinstance(value, list):
        return [json_layout(value[0])] if value else []
    return type(value).__name__


@pytest.mark.reference
def test_layout_of_a_run_folder_is_the_real_one(reference: Path, tmp_path: Path) -> None:
    shape = RunShape(images=3, steps=10)
    made = make_run_folder(tmp_path / "calibration_data", shape=shape)
    real = reference / "calibration_data"
    ignore = ("images", "activations/layer_temporal_analysis")
    assert layout(made) == layout(real, ignore=ignore)
    names = {str(f.relative_to(made)) for f in made.rglob("*") if f.is_file()}
    others = {str(f.relative_to(real)) for f in real.rglob("*") if f.is_file()}
    assert names == {name for name in others if not name.startswith(ignore)}


@pytest.mark.reference
@pytest.mark.parametrize(
    "name", ["manifest.json", "adaround_cache/metadata.json", "activations/layer_statistics.json"]
)
def test_json_files_are_spelled_as_the_real_ones(reference: Path, name: str) -> None:
    text = (reference / "calibration_data" / name).read_text()
    assert text == json.dumps(json.loads(text), indent=2)


@pytest.mark.reference
def test_sigmas_and_timesteps_are_those_of_a_real_run(reference: Path) -> None:
    samples = reference / "calibration_data" / "samples"
    real = [read_npz(samples / f"0001_{step:03d}.npz") for step in (0, 1, 3, 4, 5, 6, 7, 8, 9, 10)]
    steps = [int(sample["step_index"]) for sample in real]
    assert np.array_equal(get_sigmas(10)[steps], [sample["sigma"] for sample in real])
    expected = np.array([sample["timestep"] for sample in real])
    assert np.array_equal(get_timesteps(get_sigmas(10))[steps], expected)


@pytest.mark.reference
def test_percentiles_reproduce_a_real_index(reference: Path) -> None:
    folder = reference / "calibration_data" / "activations" / "timestep_stats"
    members = read_npz(folder / "step_6.npz")
    index = json.loads((folder / "step_6_index.json").read_text())
    for name, entry in index.items():
        counts, edges = (members[f"{_key(name)}hist_{part}"] for part in ("counts", "edges"))
        for key, p in PERCENTILES.items():
            assert percentile(counts, edges, p) == entry[key]
        span = (edges[-1] - edges[0]) / 1.1
        low, high = np.float32(edges[0] + span / 20), np.float32(edges[-1] - span / 20)
        assert np.array_equal(histogram_edges(float(low), float(high)), edges)


@pytest.mark.reference
def test_phase_files_have_the_real_keys(reference: Path, tmp_path: Path) -> None:
    shape = RunShape(images=6, steps=10, latent=(16, 16))
    made = make_phase1(tmp_path / "phase1.npz", shape=shape)
    with (
        np.load(made, allow_pickle=True) as ours,
        np.load(reference / "phase" / "DiT_cali_data.npz") as theirs,
    ):
        assert ours.files == theirs.files
        for key in set(ours.files) - {"prompts"}:
            assert (ours[key].dtype, ours[key].ndim) == (theirs[key].dtype, theirs[key].ndim)
    ours_stats = read_npz(make_postgelu(tmp_path / "stats.npz", shape=shape))
    real = read_npz(reference / "phase" / "activation_stats_postgelu.npz")
    assert _traced(ours_stats) == _traced(real)
    assert np.array_equal(ours_stats["histogram_bin_edges"], real["histogram_bin_edges"])


def _traced(data: dict[str, np.ndarray]) -> set[tuple[str, str, str, int]]:
    parts = ((key.split("::"), a) for key, a in data.items())
    return {(p[0], p[-1], str(a.dtype), a.size if p[-1] != "count" else a.ndim) for p, a in parts
            if p[0] != "timesteps_unique"}  # fmt: skip


@pytest.mark.reference
@pytest.mark.parametrize("kind", ["lut", "polynomial_clipping"])
def test_schedules_are_spelled_as_the_real_ones(reference: Path, tmp_path: Path, kind: str) -> None:
    real = (reference / "sd3_medium" / f"{kind}_schedule_512_p100.json").read_text()
    maker = make_lut_schedule if kind == "lut" else make_poly_schedule
    shape = RunShape(images=1, steps=6, blocks=24, hidden=4, image_tokens=2)
    made = json.loads(maker(tmp_path / "schedule.json", shape=shape).read_text())
    document = json.loads(real)
    assert real == json.dumps(document, indent=2)
    assert list(made["layers"]) == list(document["layers"])
    assert {k: made[k] for k in ("version", "percentile")} == {
        k: document[k] for k in ("version", "percentile")
    }
    assert list(made) == list(document)
    first = "mm0_img_attn_k_proj"
    assert list(made["layers"][first]) == list(document["layers"][first])


def _key(name: str) -> str:
    return name.replace(".", "_") + "__"


@pytest.mark.reference
def test_real_polynomials_are_refitted_from_the_real_lut(reference: Path) -> None:
    folder = reference / "sd3_medium"
    lut, poly = (
        json.loads((folder / f"{kind}_schedule_512_p100.json").read_text())
        for kind in ("lut", "polynomial_clipping")
    )
    sigmas = np.array(lut["sigmas"])
    for name, entry in poly["layers"].items():
        made = fit(sigmas, np.array(lut["layers"][name]["alphas"]))
        coefficients = made.pop("coeffs")
        np.testing.assert_allclose(coefficients, entry.pop("coeffs"), rtol=1e-9, atol=1e-9)
        assert made == entry
