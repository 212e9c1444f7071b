"""Source -> store -> exported files -> store: equal arrays each time, names and dtypes included."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from taqstore.pipelines.ingest import ingest

from support.same_files import assert_same_arrays, assert_same_folder, read_json
from support.same_stores import assert_same_stores
from taqstore import open_store
from taqstore.export.formats import export
from taqstore.testing import (
    RunShape,
    damage,
    make_activation_stats_v1,
    make_activations,
    make_adaround_cache,
    make_latents,
    make_lut_schedule,
    make_poly_schedule,
    make_postgelu,
)

SHAPE = RunShape(
    images=3, steps=6, blocks=2, hidden=8, image_tokens=6, text_tokens=3, latent=(5, 3),
    channels=4, stats_stride=3, cache_stride=3,
)  # fmt: skip


def there_and_back(source: Path, name: str, /, **options: str) -> Path:
    """Ingest, export, ingest the export: the stores are equal. Returns what was exported."""
    folder = source.parent
    out = folder / f"exported{source.suffix}"
    assert ingest([source], folder / "first.zarr").problems == []
    export(name, open_store(folder / "first.zarr", chunks=None), out, **options)
    assert ingest([out], folder / "second.zarr").problems == []
    assert assert_same_stores(folder / "second.zarr", folder / "first.zarr", attributes=False)
    return out


def test_calibration_samples(tmp_path: Path) -> None:
    run = make_latents(tmp_path / "run", shape=SHAPE)
    out = there_and_back(run, "calibration-samples")
    assert assert_same_folder(out / "samples", run / "samples", "*.npz") == 3 * 7
    for path in (run / "latents").iterdir():
        assert (out / "latents" / path.name).read_bytes() == path.read_bytes()
    ours, theirs = read_json(out / "manifest.json"), read_json(run / "manifest.json")
    differing = {k for k in {*ours, *theirs} if ours.get(k) != theirs.get(k)}
    assert differing <= {"prompt_path"}  # a foreign path is reduced to its last part


@pytest.mark.parametrize("unified", [0, 2])
@pytest.mark.parametrize("float16", [False, True])
@pytest.mark.parametrize("broken", [(), (0,)])
def test_adaround_cache(tmp_path: Path, unified: int, float16: bool, broken: tuple[int]) -> None:
    shape = replace(SHAPE, unified_blocks=unified)
    later = bool(unified)
    cache = make_adaround_cache(
        tmp_path / "cache",
        shape=shape,
        float16=float16,
        break_boundary=broken,
        with_sigma=later,
        with_pooled=later,
    )
    out = there_and_back(cache, "adaround-cache")
    assert assert_same_folder(out / "samples", cache / "samples", "*.npz") == 4
    if later:
        assert assert_same_folder(out / "pooled", cache / "pooled", "*.npz") == 2
    ours, theirs = read_json(out / "metadata.json"), read_json(cache / "metadata.json")
    differing = {k for k in {*ours, *theirs} if ours.get(k) != theirs.get(k)}
    assert differing <= {"calib_dir", "cache_size_gb"}


def statistics_in_float64(path: Path) -> Path:
    """q, k and v differ, and one value is a float64 that float32 does not hold."""
    folder = make_activations(path, shape=replace(SHAPE, image_tokens=144))
    step = folder / "timestep_stats" / "step_3.npz"
    damage.poison(step, "mm0_img_attn_v_proj__avg_max", value=0.1, index=2)
    return folder


@pytest.mark.parametrize(
    "make", [lambda p: make_activations(p, shape=SHAPE), statistics_in_float64]
)
def test_timestep_stats(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    folder = make(tmp_path / "activations")
    out = there_and_back(folder, "timestep-stats")
    check_statistics(out, folder)


def test_timestep_stats_of_the_first_schema(tmp_path: Path) -> None:
    folder = make_activation_stats_v1(tmp_path / "activations", shape=SHAPE)
    out = there_and_back(folder, "timestep-stats", source="activation_stats_v1")
    check_statistics(out, folder)


def check_statistics(out: Path, folder: Path) -> None:
    ours, theirs = out / "timestep_stats", folder / "timestep_stats"
    assert assert_same_folder(ours, theirs, "*.npz") == 2
    for path in theirs.glob("*.json"):
        assert read_json(ours / path.name) == read_json(path)
    left, right = (read_json(p / "layer_statistics.json") for p in (out, folder))
    left.pop("timestep_dir", None), right.pop("timestep_dir", None)
    assert left == right


@pytest.mark.parametrize("variant", ["plain", "suffixed"])
def test_postgelu_npz(tmp_path: Path, variant: str) -> None:
    source = make_postgelu(tmp_path / "stats.npz", shape=SHAPE, variant=variant)
    assert_same_arrays(there_and_back(source, "postgelu-npz"), source)


def test_lut_schedule(tmp_path: Path) -> None:
    source = make_lut_schedule(tmp_path / "lut.json", shape=SHAPE)
    out = there_and_back(source, "lut-schedule")
    assert json.loads(out.read_text()) == json.loads(source.read_text())


def test_poly_schedule_of_stored_polynomials(tmp_path: Path) -> None:
    source = make_poly_schedule(tmp_path / "poly.json", shape=SHAPE)
    out = there_and_back(source, "poly-schedule")
    assert json.loads(out.read_text()) == json.loads(source.read_text())


@pytest.mark.parametrize("version", ["poly_v1", "poly_v2", "poly_v2_smoothquant"])
def test_polynomials_of_shifts_come_back_whole(tmp_path: Path, version: str) -> None:
    """As the source's later generator writes them: some layers have a shift, of any degree."""
    document = read_json(make_poly_schedule(tmp_path / "poly.json", shape=SHAPE))
    document |= {"version": version, "max_degree": 4, "n_shift_layers": 3}
    if version.endswith("smoothquant"):
        document |= {"percentile": "smoothquant_absmax", "smoothquant_alpha": 0.5}
    shifted = [name for name in document["layers"] if name.endswith(("fc2", "k_proj"))][:3]
    for degree, name in enumerate(shifted):
        coefficients = [0.3 * (power - 1.7) for power in range(degree * 2, -1, -1)]
        document["layers"][name] |= {
            "shift_degree": degree * 2, "shift_coeffs": coefficients, "shift_r2": 0.97 - degree,
        }  # fmt: skip
    source = tmp_path / "given.json"
    source.write_text(json.dumps(document))
    assert read_json(there_and_back(source, "poly-schedule")) == document


def test_poly_schedule_fitted_to_a_stored_lut(tmp_path: Path) -> None:
    """Degrees equal and coefficients to rounding: `polyfit` here and in the maker see one table."""
    lut = make_lut_schedule(tmp_path / "lut.json", shape=SHAPE)
    expected = read_json(make_poly_schedule(tmp_path / "poly.json", shape=SHAPE))["layers"]
    ingest([lut], tmp_path / "s.zarr")
    export("poly-schedule", open_store(tmp_path / "s.zarr"), tmp_path / "out.json")
    fitted = read_json(tmp_path / "out.json")["layers"]
    assert fitted.keys() == expected.keys()
    for name, entry in fitted.items():
        assert entry["degree"] == expected[name]["degree"]
        assert entry["coeffs"] == pytest.approx(expected[name]["coeffs"], rel=1e-9)
