"""The workflow of the source system, typed from beginning to end on the reference model.

Latents, weight track, activation track, both analysers; then the Phase 1 file, its profile and the
figures. Where two ways lead to one number, they are compared to the last bit.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from support.cli_runner import Runner
from support.live_capture import needs_models
from support.live_models import SOURCE_SHAPE
from support.same_files import assert_same_arrays, assert_same_folder, read_json
from taqstore import open_store
from taqstore.store.attributes import attribute_of
from taqstore.testing.checkpoint import make_checkpoint
from taqstore.upkeep.verify import verify_store

PROMPTS = ("three", "a big seven, drawn thin")
STEPS = 6
SITE = "activations/mlp.fc2"


def done(taq: Runner, *words: object) -> str:
    result = taq(*words)
    assert result.code == 0, (words, result.err)
    return result.out


def as_phase_1(store: Path, path: Path) -> Path:
    """A Phase 1 file of all latents that a model was given, shuffled, as the source writes it."""
    from taqstore.pipelines.models.load import load_pipeline, to_numpy

    latents, model = open_store(store)["latents"].load(), load_pipeline("reference")
    run = attribute_of(latents, "run")
    text = [
        model.encode_text(str(p), cfg_weight=run["cfg_weight"]) for p in latents["prompt"].values
    ]
    rows = [(image, step) for image in range(len(PROMPTS)) for step in range(STEPS)]
    rows = [rows[k] for k in np.random.default_rng(1).permutation(len(rows))]
    images, steps = map(list, zip(*rows, strict=True))
    np.savez(
        path,
        allow_pickle=True,
        xs=latents["x"].values[images, steps],
        ts=latents["timestep"].values[steps],
        prompt_indices=np.array(images, np.int32),
        cs=np.stack([to_numpy(found.tokens) for found in text]),
        cs_pooled=np.stack([to_numpy(found.pooled) for found in text]),
        prompts=np.array(latents["prompt"].values, dtype=object),
        cfg_scale=np.float32(run["cfg_weight"]),
    )
    return path


@needs_models
def test_from_prompts_to_figures(taq: Runner, tmp_path: Path) -> None:
    store, files = tmp_path / "run.zarr", tmp_path / "calibration_data"
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS), encoding="utf-8")
    done(
        *(taq, "generate", store, "--model", "reference", "--prompts", tmp_path / "prompts.txt"),
        *("--images", len(PROMPTS), "--steps", STEPS, "--save-images", tmp_path / "png"),
    )
    # The weight track.
    done(taq, "cache", store, "--stride", 1)
    done(taq, "collect", store, "--stride", 1)
    done(
        *(taq, "adaround", store, "--blocks", "mm0", "--iterations", 2, "--batch-size", 2),
    )
    done(taq, "export", "adaround", store, "-o", tmp_path / "adaround")
    # The activation track, and both analysers.
    for words in (
        ("quant-config",),
        ("quant-config", "--multitier"),
        ("temporal-analysis",),
        ("temporal-analysis", "--multitier"),
        ("poly-schedule",),
        ("lut-schedule",),
    ):
        out = tmp_path / f"{'-'.join(words)}.json"
        done(taq, "export", *words, store, "-o", out)
        assert read_json(out)
    # The run folder of the source, written and read again: nothing in it is left.
    done(taq, "export", "calibration-samples", store, "-o", files)
    done(taq, "export", "adaround-cache", store, "-o", files / "adaround_cache")
    done(taq, "export", "timestep-stats", store, "-o", files / "activations")
    assert json.loads((files / "manifest.json").read_text())["images_saved"] is True
    for path in (tmp_path / "png").iterdir():
        with Image.open(path) as ours, Image.open(files / "images" / path.name) as theirs:
            assert np.array_equal(np.asarray(ours), np.asarray(theirs))
    again = tmp_path / "again.zarr"
    said = taq("ingest", files, again)
    assert (said.code, "not taken" in said.err) == (0, False), said.err
    done(taq, "collect", again, "--stride", 1, "--model", "reference", "--sites", "mlp.fc2")
    a, b = (open_store(path)[SITE].load() for path in (store, again))
    for name in ("min", "max", "mean", "m2", "count", "histogram"):
        assert np.array_equal(a[name].values, b[name].values), name
    # The Phase 1 file, its profile and the figures.
    phase1 = as_phase_1(store, tmp_path / "DiT_cali_data.npz")
    diagnosed, figures = tmp_path / "phase1.zarr", tmp_path / "figures"
    done(taq, "ingest", phase1, diagnosed)
    table = done(taq, "profile", diagnosed, "--model", "reference", "-o", figures)
    assert "median_range" in table
    found = {path.name.split("_")[0] for path in figures.glob("*.png")}
    assert found == {"range", "histogram", "channels", "heatmap", "negative"}
    # The same forwards as of the latents: a batch of samples is an image at every step.
    c = open_store(diagnosed)[SITE].load()
    assert np.array_equal(c["timestep"].values, a["timestep"].values)
    for name, over in (("min", "min"), ("max", "max"), ("count", "sum"), ("histogram", "sum")):
        ours, theirs = (getattr(d[name], over)("batch").values for d in (a, c))
        assert np.array_equal(ours, theirs), name
    done(taq, "export", "dit-cali-data", diagnosed, "-o", tmp_path / "back.npz")
    with (
        np.load(phase1, allow_pickle=True) as x,
        np.load(tmp_path / "back.npz", allow_pickle=True) as y,
    ):
        assert x.files == y.files
        assert all(np.array_equal(x[k], y[k]) and x[k].dtype == y[k].dtype for k in x.files)
    done(taq, "export", "postgelu-npz", diagnosed, "-o", tmp_path / "stats.npz")
    done(taq, "ingest", tmp_path / "stats.npz", tmp_path / "stats.zarr")
    done(taq, "plot", "histogram", tmp_path / "stats.zarr", "-o", tmp_path / "again")
    for path in (store, again, diagnosed):
        assert verify_store(path).damage == ()


@pytest.mark.reference
@needs_models
def test_on_files_of_the_source(taq: Runner, reference: Path, tmp_path: Path) -> None:
    """Its own run and phase files; the model is of its size, with weights of our own."""
    store, run = tmp_path / "run.zarr", reference / "calibration_data"
    said = taq("ingest", run, reference / "phase", store)
    assert said.code == 0, said.err
    left = [line for line in said.err.splitlines() if "not taken" in line]
    assert left == [
        "note: not taken: activations/layer_temporal_analysis.json (layer_temporal_analysis_v4)"
    ]
    done(taq, "export", "calibration-samples", store, "-o", tmp_path / "out")
    assert_same_folder(tmp_path / "out/samples", run / "samples", "*.npz")
    for path in sorted((run / "images").iterdir()):
        with Image.open(path) as ours, Image.open(tmp_path / "out/images" / path.name) as theirs:
            assert np.array_equal(np.asarray(ours), np.asarray(theirs))
    assert read_json(tmp_path / "out/manifest.json")["images_saved"] is True
    done(taq, "export", "dit-cali-data", store, "-o", tmp_path / "d.npz")
    with (
        np.load(reference / "phase/DiT_cali_data.npz", allow_pickle=True) as x,
        np.load(tmp_path / "d.npz", allow_pickle=True) as y,
    ):
        assert x.files == y.files
        assert all(np.array_equal(x[k], y[k]) and x[k].dtype == y[k].dtype for k in x.files)
    done(taq, "export", "postgelu-npz", store, "-o", tmp_path / "p.npz")
    assert_same_arrays(tmp_path / "p.npz", reference / "phase/activation_stats_postgelu.npz")
    weights = make_checkpoint(tmp_path / "w.safetensors", shape=SOURCE_SHAPE)
    model = ("--model", "source48", "--local-ckpt", weights, "--num-samples", 12, "--seed", 0)
    done(taq, "profile", store, *model, "-o", tmp_path / "figures")
    images = open_store(store)[SITE]["image"].values
    drawn = np.random.default_rng(0).choice(30, size=12, replace=False)
    assert sorted(images[images >= 0]) == sorted(drawn)
