"""AdaRound outputs come into a store and out of it bit for bit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from taqstore.pipelines.ingest import ingest
from taqstore.pipelines.sources import detect

from support.adaround_output import make_output, members_of
from support.weight_store import write_weights
from taqstore import open_store
from taqstore.export.formats import export
from taqstore.kinds.quantized_linears import quantized_blocks, quantized_linears
from taqstore.run.mode import Mode
from taqstore.store.attributes import attribute_of
from taqstore.upkeep.verify import verify_store

VARIANTS: dict[str, dict[str, Any]] = {
    "first": {},
    "later": {"later": True},
    "groups of inputs, float32": {"later": True, "groups": 3, "dtype": "float32", "group_size": 4},
    "steps in float64": {"dtype": "float64"},
    "unified blocks": {"blocks": ("mm0", "mm1", "uni0", "uni1")},
}


def exported(store: Path, out: Path) -> dict[str, bytes]:
    export("adaround", open_store(store), out)
    return {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file()}


def same_members(ours: Path, theirs: Path) -> None:
    found, expected = members_of(ours), members_of(theirs)
    assert set(found) == set(expected)
    for name, values in expected.items():
        assert found[name].dtype == values.dtype, name
        assert found[name].shape == values.shape, name
        assert found[name].tobytes() == values.tobytes(), name


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_the_source_wrote_comes_back(tmp_path: Path, variant: str) -> None:
    source = make_output(tmp_path / "source", **VARIANTS[variant])
    outcome = ingest([source], tmp_path / "s.zarr")
    assert (outcome.problems, outcome.notes) == ([], [])
    assert verify_store(tmp_path / "s.zarr").damage == ()
    first = exported(tmp_path / "s.zarr", tmp_path / "one")
    same_members(tmp_path / "one", source)
    theirs = json.loads((source / "config.json").read_text())
    ours = json.loads(first["config.json"])
    for name, value in theirs.items():
        if name != "block_metrics":
            assert ours[name] == value, name
    for mine, block in zip(ours["block_metrics"], theirs["block_metrics"], strict=True):
        assert block.items() <= {**mine, "quant_paths": block["quant_paths"]}.items()
        assert sorted(mine["quant_paths"]) == sorted(block["quant_paths"])
    ingest([tmp_path / "one"], tmp_path / "again.zarr")
    assert exported(tmp_path / "again.zarr", tmp_path / "two") == first


def test_what_taqstore_wrote_comes_back(tmp_path: Path) -> None:
    """All that may differ by site, layer and group does; the group is the same bit for bit."""
    store = write_weights(tmp_path / "s.zarr")
    first = exported(store, tmp_path / "one")
    ingest([tmp_path / "one"], tmp_path / "again.zarr")
    assert exported(tmp_path / "again.zarr", tmp_path / "two") == first
    ours, theirs = open_store(tmp_path / "again.zarr"), open_store(store)
    assert list(ours) == list(theirs)
    for path in theirs:
        found, expected = ours[path].load(), theirs[path].load()
        assert found.attrs["run" if path != "reconstruction" else "kind"]
        xr.testing.assert_equal(found, expected)
        for name, values in expected.data_vars.items():
            assert found[name].dtype == values.dtype
            assert found[name].values.tobytes() == values.values.tobytes(), f"{path} {name}"


def test_numbers_are_those_of_the_file(tmp_path: Path) -> None:
    source = make_output(tmp_path / "source", later=True, groups=2)
    members = members_of(source)
    ingest([source], tmp_path / "s.zarr")
    store = open_store(tmp_path / "s.zarr")
    assert attribute_of(store["weights/adaround/attn.qkv"], "run") == {
        "model": "argmaxinc/mlx-stable-diffusion-3-medium", "bits": 4, "activation_bits": 8,
        "iterations": 250, "batch_size": 16, "learning_rate": 1e-3, "step_rate": 4e-5,
        "group_size": None, "method": "adaround", "grid": "symmetric",
    }  # fmt: skip
    assert quantized_blocks(store) == ["mm0", "mm1"]
    linear = list(quantized_linears(store, "mm1", rounding=True))[4]
    assert linear.name.full == "mm1.img.mlp.fc1"
    stem = "mm1.image_transformer_block_mlp_fc1"
    np.testing.assert_array_equal(linear.weight, members[f"{stem}__weight_int"])
    np.testing.assert_array_equal(linear.step, members[f"{stem}__scale"].astype(np.float32))
    np.testing.assert_array_equal(linear.rounding, members[f"{stem}__alpha"])
    np.testing.assert_array_equal(linear.input.step, members[f"{stem}__a_scale"])
    assert linear.input.bits.tolist() == [8]
    found = store["reconstruction"].load()
    assert found["iteration"].values.tolist() == [0, 100, 200]
    np.testing.assert_array_equal(found["loss"].sel(block="mm1"), np.float32([3.7, 1.1, 1.1]))
    assert found["iterations"].values.tolist() == [250, 250]
    assert np.isnan(found["output_error"]).all()


def test_it_is_found_wherever_it_lies(tmp_path: Path) -> None:
    source = make_output(tmp_path / "run" / "quantized weights")
    for place in (source, source / "weights", source / "config.json", tmp_path / "run"):
        assert [(s.kind, s.path) for s in detect(place)] == [("weights", source)], place


def test_a_config_of_something_else_is_passed_over(tmp_path: Path) -> None:
    source = make_output(tmp_path / "run" / "q")
    other = tmp_path / "run" / "checkpoint"
    other.mkdir()
    (other / "config.json").write_text("[1, 2")
    assert [s.path for s in detect(tmp_path / "run")] == [source]


def test_weights_that_are_left_out_stay_out(tmp_path: Path) -> None:
    """The source's `exclude_layers`: a linear that no file has is none of the store's."""
    source = make_output(tmp_path / "source", later=True)
    path = "text_transformer_block.mlp.fc2"
    config = json.loads((source / "config.json").read_text())
    config["block_metrics"][0]["quant_paths"].remove(path)
    config["exclude_layers"] = ["mm0_txt_mlp_fc2"]
    (source / "config.json").write_text(json.dumps(config))
    members = dict(np.load(source / "weights/mm0.npz"))
    kept = {name: v for name, v in members.items() if not name.startswith(path.replace(".", "_"))}
    np.savez_compressed(source / "weights/mm0.npz", **kept)  # type: ignore[arg-type]
    assert ingest([source], tmp_path / "s.zarr").problems == []
    names = [x.name.full for x in quantized_linears(open_store(tmp_path / "s.zarr"), "mm0")]
    assert len(names) == 11
    assert "mm0.txt.mlp.fc2" not in names
    exported(tmp_path / "s.zarr", tmp_path / "out")
    same_members(tmp_path / "out", source)


def test_dtypes_may_differ_from_linear_to_linear(tmp_path: Path) -> None:
    source = make_output(tmp_path / "source", later=True)
    members = dict(np.load(source / "weights/mm1.npz"))
    stem = "image_transformer_block_mlp_fc1"
    members[f"{stem}__scale"] = members[f"{stem}__scale"].astype(np.float32) * np.float32(1.1)
    members[f"{stem}__a_scale"] = np.float32([0.25])
    del members[f"{stem}__alpha"], members["text_transformer_block_attn_k_proj__a_scale"]
    np.savez_compressed(source / "weights/mm1.npz", **members)  # type: ignore[arg-type]
    ingest([source], tmp_path / "s.zarr")
    exported(tmp_path / "s.zarr", tmp_path / "out")
    same_members(tmp_path / "out", source)


def test_what_is_no_number_of_a_quantizer_is_told(tmp_path: Path) -> None:
    source = make_output(
        tmp_path / "source", later=True, poly_schedule="/Users/me/poly.json", asymmetric_act=True
    )
    members = dict(np.load(source / "weights/mm0.npz"))
    np.savez_compressed(source / "weights/mm0.npz", **members, extra=np.zeros(2))  # type: ignore[arg-type]
    shutil.copy(source / "weights/mm0.npz", source / "weights/mm7.npz")
    notes = ingest([source], tmp_path / "s.zarr").notes
    assert any("clip bounds of a poly schedule" in note for note in notes)
    assert any("ran asymmetric" in note for note in notes)
    assert "not in block_metrics, so not ingested: mm7.npz" in notes
    assert "not ingested, mm0.npz: extra" in notes
    config = json.loads(exported(tmp_path / "s.zarr", tmp_path / "out")["config.json"])
    assert config["poly_schedule"] == "poly.json"


def test_a_bad_block_costs_no_other_and_comes_with_resume(tmp_path: Path) -> None:
    source = make_output(tmp_path / "source")
    whole = (source / "weights/mm0.npz").read_bytes()
    (source / "weights/mm0.npz").write_bytes(whole[: len(whole) // 2])
    outcome = ingest([source], tmp_path / "s.zarr")
    assert len(outcome.problems) == 1
    assert "mm0.npz" in outcome.problems[0]
    assert quantized_blocks(open_store(tmp_path / "s.zarr")) == ["mm1"]
    (source / "weights/mm0.npz").write_bytes(whole)
    again = ingest([source], tmp_path / "s.zarr", mode=Mode(resume=True))
    assert again.problems == []
    exported(tmp_path / "s.zarr", tmp_path / "out")
    same_members(tmp_path / "out", source)
