"""What lies in a run folder and is not taken is named, by kind where there are many."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from taqstore.pipelines.sources import plan

from taqstore.testing import (
    RunShape,
    make_phase1,
    make_poly_schedule,
    make_postgelu,
    make_run_folder,
)

SHAPE = RunShape(
    images=2, steps=6, blocks=2, hidden=8, image_tokens=6, text_tokens=3, latent=(5, 3),
    channels=4, stats_stride=2, cache_stride=2,
)  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_run_folder(tmp_path / "run", shape=SHAPE)


def left(path: Path) -> list[str]:
    prefix = "not taken: "
    notes = [note for each in plan(path) for note in each.notes]
    return [note.removeprefix(prefix) for note in notes if note.startswith(prefix)]


def test_a_run_of_the_source_is_taken_whole(folder: Path) -> None:
    assert left(folder) == []


def write(path: Path, text: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


STRAYS: dict[str, tuple[Callable[[Path], object], str]] = {
    "an analysis": (
        lambda run: write(
            run / "activations/layer_temporal_analysis.json", '{"format": "layer_temporal_v4"}'
        ),
        "activations/layer_temporal_analysis.json (layer_temporal_v4)",
    ),
    "a text": (lambda run: write(run / "notes.txt"), "notes.txt"),
    "no JSON": (lambda run: write(run / "odd.json", "{"), "odd.json"),
    "a foreign npz": (lambda run: np.savez(run / "odd.npz", a=1), "odd.npz"),
    "weights": (
        lambda run: [write(run / f"quantized_weights/mm{i}.npz") for i in range(9)],
        "9 .npz files in quantized_weights/",
    ),
    "beside steps": (
        lambda run: write(run / "activations/timestep_stats/step_0.npz.tmp"),
        "activations/timestep_stats/step_0.npz.tmp",
    ),
    "deep": (lambda run: write(run / "a/b/c/d.bin"), "a/b/c/d.bin"),
    "beside the cache": (
        lambda run: write(run / "adaround_cache/log.txt"), "adaround_cache/log.txt",
    ),
    "a link": (lambda run: (run / "elsewhere").symlink_to("/"), "elsewhere"),
}  # fmt: skip


@pytest.mark.parametrize("stray", STRAYS)
def test_a_stray_is_named_once(folder: Path, stray: str) -> None:
    make, said = STRAYS[stray]
    make(folder)
    assert left(folder) == [said]


def test_a_picture_of_no_image_is_named(folder: Path) -> None:
    (folder / "images").mkdir(exist_ok=True)
    Image.new("L", (3, 3)).save(folder / "images/0077.png")
    notes = [note for each in plan(folder) for note in each.notes]
    assert any("0077.png" in note for note in notes)


def test_known_files_in_a_run_folder_are_taken(folder: Path) -> None:
    before = {each.source for each in plan(folder)}
    make_poly_schedule(folder / "poly.json", shape=SHAPE)
    make_phase1(folder / "DiT_cali_data.npz", shape=SHAPE)
    make_postgelu(folder / "stats.npz", shape=SHAPE)
    assert {each.source for each in plan(folder)} - before == {"schedule", "samples", "postgelu"}
    assert left(folder) == []


def test_documents_of_different_kinds_are_all_taken(folder: Path) -> None:
    """A config, factors and a schedule fill groups of their own; two configs would not."""
    layer = {"mm0.img.mlp.fc2": {"bits": 8, "scale": 1.0}}
    config = {"format": "per_timestep_quant_config_v4", "per_timestep": {"0": layer}}
    factors = {"alpha": 0.5, "scale_clip": 0, "layers": {"mm0_img_mlp_fc2": [1.0, 2.0]}}
    write(folder / "quant_config.json", json.dumps(config))
    write(folder / "smoothquant_scales.json", json.dumps(factors))
    make_poly_schedule(folder / "poly.json", shape=SHAPE)
    assert left(folder) == []
    config["format"] = "per_timestep_quant_config_v3"
    write(folder / "multitier.json", json.dumps(config))
    assert left(folder) == [
        "multitier.json (per_timestep_quant_config_v3), "
        "quant_config.json (per_timestep_quant_config_v4)"
    ]


def test_two_of_a_kind_are_left_to_choose_from(folder: Path) -> None:
    for name in ("p100.json", "p999.json"):
        make_poly_schedule(folder / name, shape=SHAPE)
    assert left(folder) == ["p100.json (poly_v1), p999.json (poly_v1)"]


def test_a_folder_of_files_names_the_others(tmp_path: Path) -> None:
    make_poly_schedule(tmp_path / "poly.json", shape=SHAPE)
    write(tmp_path / "readme.md")
    assert left(tmp_path) == ["readme.md"]


def test_keys_of_inputs_of_fc1_are_taken(tmp_path: Path) -> None:
    """One branch of the source keeps `pre::` statistics beside post-GELU ones."""
    path = make_postgelu(tmp_path / "p.npz", shape=SHAPE)
    with np.load(path) as file:
        arrays = dict(file)
    pre = {
        f"pre::{key}": values[..., :2] if key.endswith(("mean", "std", "min", "max")) else values
        for key, values in arrays.items()
        if "::t=" in key
    }
    np.savez(tmp_path / "both.npz", **arrays, **pre)
    (got,) = plan(tmp_path / "both.npz")
    names = {template.path: template.attrs["source_layers"] for template in got.templates}
    assert names["pooled/postgelu/mlp.fc1"][0] == "pre::mm_00_img"
    assert names["pooled/postgelu/mlp.fc2"][0] == "mm_00_img"
