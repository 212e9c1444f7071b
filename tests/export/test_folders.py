"""Exported folders equal the files they came from, array by array, without our own ingest."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from support.groups_from_files import (
    block_groups,
    latent_groups,
    pooled_groups,
    postgelu_groups,
    read_npz,
)
from support.same_files import assert_same_arrays, assert_same_folder, read_json
from taqstore.errors import MissingError, TaqError
from taqstore.export.adaround_cache import adaround_cache
from taqstore.export.calibration_samples import calibration_samples
from taqstore.export.postgelu_npz import postgelu_npz
from taqstore.export.timestep_stats import timestep_stats
from taqstore.files.written import save_all
from taqstore.testing import (
    RunShape,
    make_activations,
    make_adaround_cache,
    make_latents,
    make_postgelu,
)

SHAPE = RunShape(images=3, steps=7, blocks=2, hidden=8, image_tokens=20, text_tokens=3)
Groups = Mapping[str, xr.Dataset]


# -- calibration_samples ------------------------------------------------------------------------


def test_latents_come_back(tmp_path: Path) -> None:
    source = make_latents(tmp_path / "source", shape=SHAPE, seed=2)
    calibration_samples(latent_groups(source), tmp_path / "out")
    count = assert_same_folder(tmp_path / "out/samples", source / "samples", "*")
    assert count == SHAPE.images * (SHAPE.steps + 1)
    for path in (source / "latents").iterdir():
        ours, theirs = np.load(tmp_path / "out/latents" / path.name), np.load(path)
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
        assert ours.tobytes() == theirs.tobytes()
    ours, theirs = (read_json(f / "manifest.json") for f in (tmp_path / "out", source))
    assert ours.pop("images_saved") is False
    assert ours.pop("prompt_path") == "prompts.csv"
    del theirs["images_saved"], theirs["prompt_path"]
    assert ours == theirs


def test_generated_latents_need_no_source_manifest(tmp_path: Path) -> None:
    groups = latent_groups(make_latents(tmp_path / "source", shape=SHAPE))
    dataset = groups["latents"].isel(image=[2, 0], step=slice(0, 4)).drop_attrs()
    weights = np.array([np.nan, 5.0])  # the first image was in no manifest
    dataset["cfg_weight"] = ("image", weights)
    summary = calibration_samples({"latents": dataset}, tmp_path / "out")
    manifest = read_json(tmp_path / "out/manifest.json")
    assert manifest["n_completed"] == 2
    assert [entry["image_id"] for entry in manifest["images"]] == [0]
    assert (manifest["num_steps"], manifest["cfg_scale"]) == (4, 5.0)
    assert manifest["latents_saved"] is False
    assert not (tmp_path / "out/latents").exists()
    assert any("no final step" in note for note in summary.notes)
    assert sorted(p.name for p in (tmp_path / "out/samples").iterdir())[4] == "0002_000.npz"


# -- adaround_cache -----------------------------------------------------------------------------

CACHES: dict[str, dict[str, Any]] = {
    "plain": {},
    "float16": {"float16": True},
    "later variant": {"with_sigma": True, "with_pooled": True},
    "broken boundary": {"break_boundary": (0,)},
}


@pytest.mark.parametrize("options", CACHES.values(), ids=CACHES.keys())
@pytest.mark.parametrize("unified", [0, 2])
def test_caches_come_back(tmp_path: Path, options: dict[str, Any], unified: int) -> None:
    shape = RunShape(images=3, steps=7, blocks=3, unified_blocks=unified, hidden=8, image_tokens=20)
    source = make_adaround_cache(tmp_path / "source", shape=shape, seed=5, **options)
    groups = block_groups(source)
    assert ("output" in groups["blocks/img"]) == ("break_boundary" in options)
    adaround_cache(groups, tmp_path / "cache" / "out")
    out = tmp_path / "cache" / "out"
    assert assert_same_folder(out / "samples", source / "samples", "*") == 4
    assert (out / "pooled").exists() == ("with_pooled" in options)
    if "with_pooled" in options:
        assert assert_same_folder(out / "pooled", source / "pooled", "*") == 2
    ours, theirs = read_json(out / "metadata.json"), read_json(source / "metadata.json")
    assert ours.pop("calib_dir") == os.path.realpath(tmp_path / "cache")
    size = sum(p.stat().st_size for p in (out / "samples").iterdir())
    assert ours.pop("cache_size_gb") == size / 1e9
    del theirs["calib_dir"], theirs["cache_size_gb"]
    assert ours == theirs


def test_an_output_kept_apart_has_its_own_dtype(tmp_path: Path) -> None:
    source = make_adaround_cache(tmp_path / "source", shape=SHAPE)
    for path in (source / "samples").iterdir():
        arrays = read_npz(path)
        assert arrays["mm1__arg0"].dtype == np.float32
        np.savez(path, **{**arrays, "mm0__out0": arrays["mm0__out0"].astype(np.float16)})
    groups = block_groups(source)
    assert groups["blocks/img"]["output"].dtype == np.float32
    adaround_cache(groups, tmp_path / "out")
    assert_same_folder(tmp_path / "out/samples", source / "samples", "*")


def test_some_blocks_are_not_named_as_if_they_were_the_first(tmp_path: Path) -> None:
    groups = block_groups(make_adaround_cache(tmp_path / "source", shape=SHAPE))
    later = {
        path: dataset.assign_coords(boundary=np.arange(dataset.sizes["boundary"]) + 1)
        for path, dataset in groups.items()
    }
    with pytest.raises(MissingError, match=r"only some blocks.*boundaries 1, 2.*cache every block"):
        adaround_cache(later, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_only_complete_samples_are_exported(tmp_path: Path) -> None:
    groups = block_groups(make_adaround_cache(tmp_path / "source", shape=SHAPE))
    for path, lost in (("blocks/img", (0, 1)), ("blocks/txt", (1, 0))):
        written = np.ones((2, 2), bool)
        written[lost] = False
        groups[path] = groups[path].assign_coords(written=(("image", "step"), written))
    adaround_cache(groups, tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out/samples").iterdir()) == [
        "0000_000.npz",
        "0001_005.npz",
    ]
    assert read_json(tmp_path / "out/metadata.json")["n_samples"] == 2


def test_collected_blocks_need_no_source_metadata(tmp_path: Path) -> None:
    source = make_adaround_cache(tmp_path / "source", shape=SHAPE)
    groups = {path: d.drop_attrs() for path, d in block_groups(source).items()}
    groups |= latent_groups(make_latents(tmp_path / "latents", shape=SHAPE))
    adaround_cache(groups, tmp_path / "out")
    ours, theirs = (read_json(f / "metadata.json") for f in (tmp_path / "out", source))
    for name in ("block_names", "block_shapes", "n_mm_blocks", "n_uni_blocks", "samples"):
        assert ours[name] == theirs[name]
    assert (ours["cfg_weight"], ours["num_steps"]) == (theirs["cfg_weight"], SHAPE.steps)


# -- postgelu_npz -------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["plain", "suffixed"])
def test_phase_2_files_come_back(tmp_path: Path, variant: str) -> None:
    source = make_postgelu(tmp_path / "source.npz", shape=SHAPE, variant=variant)
    groups = postgelu_groups(source, with_names=variant == "suffixed")
    postgelu_npz(groups, tmp_path / "out.npz")
    assert_same_arrays(tmp_path / "out.npz", source)


def test_layers_without_source_names_get_the_tracers(tmp_path: Path) -> None:
    source = make_postgelu(tmp_path / "source.npz", shape=SHAPE, variant="suffixed")
    postgelu_npz(postgelu_groups(source), tmp_path / "out")
    names = {key.split("::")[0] for key in read_npz(tmp_path / "out") if "::" in key}
    want = {key.split("::")[0] for key in read_npz(source) if "::" in key}
    assert names == {name.removesuffix(":fc2_in") for name in want}


def test_unseen_timesteps_have_no_members(tmp_path: Path) -> None:
    groups = postgelu_groups(make_postgelu(tmp_path / "source.npz", shape=SHAPE))
    dataset = groups["pooled/postgelu/mlp.fc2"]
    dataset["count"][1, 0] = 0
    postgelu_npz(groups, tmp_path / "out.npz")
    want = read_npz(tmp_path / "source.npz")
    lost = f"mm_00_img::t={float(dataset['timestep'][1]):.6f}::"
    assert set(read_npz(tmp_path / "out.npz")) == {k for k in want if not k.startswith(lost)}
    assert any(k.startswith(lost) for k in want)


# -- all of them --------------------------------------------------------------------------------

EXPORTS: dict[str, Callable[..., Any]] = {
    "timestep_stats": timestep_stats,
    "calibration_samples": calibration_samples,
    "adaround_cache": adaround_cache,
    "postgelu_npz": postgelu_npz,
}


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Groups:
    folder = tmp_path_factory.mktemp("run")
    return {
        **pooled_groups(make_activations(folder / "activations", shape=SHAPE)),
        **latent_groups(make_latents(folder / "latents", shape=SHAPE)),
        **block_groups(make_adaround_cache(folder / "cache", shape=SHAPE)),
        **postgelu_groups(make_postgelu(folder / "postgelu.npz", shape=SHAPE)),
    }


@pytest.mark.parametrize("name", EXPORTS)
def test_an_earlier_output_is_replaced_only_when_asked(
    everything: Groups, tmp_path: Path, name: str
) -> None:
    out = tmp_path / "out"
    EXPORTS[name](everything, out)
    first = next(path for path in [out, *out.rglob("*")] if path.is_file())
    first.write_bytes(b"of an earlier run")
    with pytest.raises(TaqError, match=r"out: the target exists; .* --force"):
        EXPORTS[name](everything, out)
    assert first.read_bytes() == b"of an earlier run"
    EXPORTS[name](everything, out, force=True)
    assert first.read_bytes() != b"of an earlier run"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("name", EXPORTS)
def test_what_another_made_is_never_replaced(everything: Groups, tmp_path: Path, name: str) -> None:
    precious = tmp_path / "out/precious"
    precious.parent.mkdir()
    precious.touch()
    with pytest.raises(TaqError, match="not replaced"):
        EXPORTS[name](everything, precious.parent, force=True)
    assert [p.name for p in tmp_path.rglob("*")] == ["out", "precious"]


@pytest.mark.parametrize("name", EXPORTS)
def test_empty_stores_are_answered_with_what_is_missing(tmp_path: Path, name: str) -> None:
    with pytest.raises(MissingError) as caught:
        EXPORTS[name]({"samples": xr.Dataset()}, tmp_path / "out")
    assert "found samples" in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", EXPORTS)
def test_exports_are_readable_by_others(everything: Groups, tmp_path: Path, name: str) -> None:
    """A staging folder is private (0700); what comes out of it must not be."""
    EXPORTS[name](everything, tmp_path / "out")
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "file").touch()
    like = tmp_path / "plain" if (tmp_path / "out").is_dir() else tmp_path / "plain" / "file"
    assert (tmp_path / "out").stat().st_mode == like.stat().st_mode


def test_a_failing_job_leaves_the_old_target(
    everything: Groups, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calibration_samples(everything, tmp_path / "out")
    before = read_npz(tmp_path / "out/samples/0000_000.npz")

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    exporter = import_module("taqstore.export.calibration_samples")
    monkeypatch.setattr(exporter, "save_npz", full)
    with pytest.raises(TaqError, match=r"cannot write: No space left on device"):
        calibration_samples(everything, tmp_path / "out", force=True)
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    after = read_npz(tmp_path / "out/samples/0000_000.npz")
    assert all(np.array_equal(after[name], before[name]) for name in before)


def test_jobs_raise_their_first_error_and_are_not_piled_up() -> None:
    """With endless jobs, an error must come out while they are still being made."""

    def fail() -> None:
        raise ValueError("first")

    def jobs() -> Any:
        yield fail
        for _ in range(100):
            yield lambda: None
        raise AssertionError("piled up")

    with pytest.raises(ValueError, match="first"):
        save_all(jobs())


# -- conformance --------------------------------------------------------------------------------


@pytest.mark.reference
def test_reference_latents(reference: Path, tmp_path: Path) -> None:
    source = reference / "calibration_data"
    calibration_samples(latent_groups(source), tmp_path / "out")
    assert assert_same_folder(tmp_path / "out/samples", source / "samples", "*") == 33
    for path in (source / "latents").iterdir():
        assert (tmp_path / "out/latents" / path.name).read_bytes() == path.read_bytes()
    ours, theirs = (read_json(f / "manifest.json") for f in (tmp_path / "out", source))
    changed = {"images_saved": False, "prompt_path": "prompts.csv"}
    assert ours == {**theirs, **changed}


@pytest.mark.reference
def test_reference_cache(reference: Path, tmp_path: Path) -> None:
    source = reference / "calibration_data/adaround_cache"
    adaround_cache(block_groups(source), tmp_path / "out")
    assert assert_same_folder(tmp_path / "out/samples", source / "samples", "*") == 4
    ours, theirs = (read_json(f / "metadata.json") for f in (tmp_path / "out", source))
    for document in (ours, theirs):
        del document["calib_dir"], document["cache_size_gb"]
    assert ours == theirs


@pytest.mark.reference
def test_reference_phase_2(reference: Path, tmp_path: Path) -> None:
    source = reference / "phase/activation_stats_postgelu.npz"
    postgelu_npz(postgelu_groups(source), tmp_path / "out.npz")
    assert_same_arrays(tmp_path / "out.npz", source)
