"""The real model under observation: sampling equals DiffusionKit's, observers change nothing."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from taqstore.pipelines.models import backend as backend_module
from taqstore.pipelines.models.backend import backend
from taqstore.pipelines.models.capture import watching_blocks, watching_inputs
from taqstore.pipelines.models.hooks import observing
from taqstore.pipelines.models.load import LoadedModel, Prompt, load_pipeline, to_numpy
from taqstore.pipelines.models.sampling import (
    Schedule,
    make_schedule,
    restored_schedule,
    trajectory,
)
from taqstore.pipelines.models.table import MODELS, find_model

from support.live_capture import needs_models, reset_modulation
from support.live_models import TINY, TINY32, TINY_FLUX, load_tiny, write_checkpoint
from taqstore.errors import MisuseError, TaqError
from taqstore.names import MODEL_SITES, SITES

pytestmark = needs_models
ROWS = [TINY, TINY32, TINY_FLUX]
EVERY = (*SITES, *MODEL_SITES)


@pytest.fixture(scope="module", params=ROWS, ids=lambda row: row.name)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_tiny(tmp_path_factory.mktemp("checkpoint"), request.param)


def prepared(model: LoadedModel, text: str, steps: int) -> tuple[Schedule, Prompt]:
    schedule = make_schedule(model, steps)
    conditioning = model.encode_text(text, cfg_weight=model.row.cfg_weight)
    return schedule, model.prepare(conditioning, schedule.timesteps)


def sample(model: LoadedModel, text: str, steps: int, seed: int = 5) -> list[np.ndarray]:
    schedule, prompt = prepared(model, text, steps)
    size = model.row.latent_size
    return [np.array(x) for x in trajectory(model, prompt, schedule, seed=seed, latent_size=size)]


def one_forward(model: LoadedModel, text: str = "a cat") -> np.ndarray:
    schedule, prompt = prepared(model, text, 3)
    x = backend().mx.array(np.random.default_rng(2).normal(size=(1, 4, 6, 16)).astype("f4"))
    return np.array(to_numpy(model.denoise(x, schedule.timesteps[1], schedule.sigmas[1], prompt)))


@pytest.mark.parametrize("steps", [1, 5])
def test_trajectory_equals_denoise_latents_bit_for_bit(model: LoadedModel, steps: int) -> None:
    ours = sample(model, "ein Vogel", steps)
    assert len(ours) == steps + 1
    weight = model.row.cfg_weight
    conditioning = model.encode_text("ein Vogel", cfg_weight=weight)
    theirs, _ = model.pipeline.denoise_latents(
        conditioning.tokens, conditioning.pooled, num_steps=steps, cfg_weight=weight,
        latent_size=model.row.latent_size, seed=5,
    )  # fmt: skip
    reset_modulation(model)
    final = model.pipeline.latent_format.process_out(backend().mx.array(ours[-1]))
    assert np.array_equal(np.array(theirs), np.array(final))


def test_sampling_leaves_numpys_random_state_alone(model: LoadedModel) -> None:
    np.random.seed(3)
    expected = np.random.random()
    np.random.seed(3)
    sample(model, "x", 1)
    assert np.random.random() == expected


def test_a_stored_schedule_is_the_schedule(model: LoadedModel) -> None:
    schedule = make_schedule(model, 7)
    restored = restored_schedule(model, *schedule.arrays())
    for ours, theirs in (
        (restored.sigmas, schedule.sigmas),
        (restored.timesteps, schedule.timesteps),
    ):
        assert ours.dtype == theirs.dtype
        assert np.array_equal(to_numpy(ours), to_numpy(theirs))


def test_a_second_prompt_gives_what_a_fresh_model_gives(tmp_path: Path) -> None:
    """Fewer steps come second: old adaLN parameters would be found under some timesteps."""
    for row in ROWS:
        used, fresh = load_tiny(tmp_path, row), load_tiny(tmp_path, row)
        sample(used, "the first prompt", 9)
        second, alone = sample(used, "the second", 3), sample(fresh, "the second", 3)
        assert all(np.array_equal(a, b) for a, b in zip(second, alone, strict=True))
        assert not np.array_equal(second[-1], sample(used, "the first prompt", 3)[-1])


def test_observers_change_nothing(model: LoadedModel) -> None:
    bare, taken = one_forward(model), []
    with (
        watching_inputs(model, EVERY, taken.extend),
        watching_blocks(model.mmdit) as streams,
    ):
        watched = one_forward(model)
    assert np.array_equal(bare, watched)
    found = [(one.site, one.layer) for one, _ in taken]
    assert sorted(found) == sorted((one.site, one.layer) for one in model.inputs())
    assert streams.by_name()
    assert np.array_equal(bare, one_forward(model))


def tree(model: LoadedModel) -> list[tuple[str, Any]]:
    utils = backend().utils
    return [(k, v.shape) for k, v in utils.tree_flatten(model.mmdit.parameters())]


def test_observed_modules_keep_tree_and_type_and_load_weights(model: LoadedModel) -> None:
    before, classes = tree(model), [type(m) for m in model.mmdit.modules()]
    modules = [one.module for one in model.inputs()]
    with observing([(module, lambda a, r: None) for module in modules]):
        assert tree(model) == before
        assert all(isinstance(module, kind) for module, kind in zip(
            model.mmdit.modules(), classes, strict=True))  # fmt: skip
        model.mmdit.load_weights(backend().utils.tree_flatten(model.mmdit.parameters()))
        assert tree(model) == before
    assert [type(m) for m in model.mmdit.modules()] == classes


def test_everything_is_restored_after_an_exception(model: LoadedModel) -> None:
    bare = one_forward(model)
    classes = [type(m) for m in model.mmdit.modules()]

    def fail(inputs: Any) -> None:
        raise RuntimeError("in the hook")

    with (
        pytest.raises(RuntimeError, match="in the hook"),
        watching_inputs(model, EVERY, fail),
    ):
        one_forward(model)
    assert [type(m) for m in model.mmdit.modules()] == classes
    assert not any("_modulation_params" in module for module in model.mmdit.modules())
    assert np.array_equal(bare, one_forward(model))


def test_boundaries_are_inputs_and_outputs_of_blocks(model: LoadedModel) -> None:
    with watching_blocks(model.mmdit) as streams:
        one_forward(model)
    found = {n: {i: to_numpy(x) for i, x in s.items()} for n, s in streams.by_name().items()}
    if model.row is TINY_FLUX or model.dtype == "bfloat16":
        joined = np.concatenate([found["txt"][2], found["img"][2]], axis=1)
        assert np.array_equal(found["uni"][0], joined)
        assert {n: sorted(s) for n, s in found.items()} == {n: [0, 1, 2] for n in vars(streams)}
    else:
        assert sorted(found["img"]) == [0, 1, 2, 3]
        assert sorted(found["txt"]) == [0, 1, 2]
    with watching_blocks(model.mmdit, ["mm1"]) as part:
        one_forward(model)
    assert sorted(part.img) == [1, 2]
    assert np.array_equal(to_numpy(part.img[1]), found["img"][1])


def test_conditioning_is_cast_to_the_activation_dtype(model: LoadedModel) -> None:
    conditioning = model.encode_text("a cat", cfg_weight=model.row.cfg_weight)
    dtypes = {str(t.dtype) for t in (conditioning.tokens, conditioning.pooled)}
    assert dtypes == {f"mlx.core.{model.dtype}"}
    with watching_blocks(model.mmdit) as streams:
        one_forward(model)
    assert {str(x.dtype) for s in streams.by_name().values() for x in s.values()} == dtypes


def test_guidance_that_does_not_fit_the_model_is_refused(model: LoadedModel) -> None:
    wrong = 0.0 if model.row.guidance else 2.0
    with pytest.raises(TaqError, match=r"guidance weight of tiny.* must be .*--cfg"):
        model.encode_text("a cat", cfg_weight=wrong)


def test_two_models_in_one_process_do_not_mix(tmp_path: Path) -> None:
    first, second = load_tiny(tmp_path, TINY), load_tiny(tmp_path, TINY32, seed=1)
    alone = sample(load_tiny(tmp_path, TINY), "a", 2)
    sample(second, "a", 2)
    assert all(np.array_equal(a, b) for a, b in zip(sample(first, "a", 2), alone, strict=True))
    assert (first.dtype, second.dtype) == ("float16", "float32")


def test_files_that_do_not_fit_are_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "bad.safetensors").write_bytes(b"nothing of the kind")
    flux = write_checkpoint(tmp_path / "flux.safetensors", flux=True)
    for path in (tmp_path / "bad.safetensors", flux):
        with pytest.raises(TaqError, match=r"safetensors: tiny does not load \(found") as caught:
            load_pipeline(TINY, local_ckpt=path)
        assert "\n" not in str(caught.value)
    with pytest.raises(TaqError, match="no such checkpoint"):
        load_pipeline(TINY, local_ckpt=tmp_path / "none")
    with pytest.raises(MisuseError, match="reference, sd3-medium, flux-schnell"):
        find_model("sd5")


def test_the_table_names_models_that_diffusionkit_has() -> None:
    for name in ("sd3-medium", "flux-schnell"):
        row = MODELS[name]
        assert hasattr(backend().pipelines, row.pipeline)
        assert row.hub in backend().model_io._CONFIG
        assert row.hub in backend().model_io._MMDIT


def test_a_missing_mlx_is_one_line_that_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    backend()
    monkeypatch.setitem(sys.modules, "mlx.core", None)
    backend_module.backend.cache_clear()
    try:
        with pytest.raises(TaqError, match=r"pip install 'taqstore\[models\]'") as caught:
            load_pipeline("reference")
    finally:
        monkeypatch.undo()
        backend_module.backend.cache_clear()
    assert "\n" not in str(caught.value)


def test_stand_ins_take_the_place_of_missing_modules_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = ("argmaxtools", "argmaxtools.utils", "argmaxtools.test_utils", "diffusionkit.utils")
    for name in names:
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "torch", ModuleType("torch"))
    real = [sys.modules[name] for name in names]
    assert backend_module.stand_in_for_missing() == ()
    assert [sys.modules[name] for name in names] == real
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setattr(backend_module, "find_spec", lambda name: None)
    assert backend_module.stand_in_for_missing() == ("diffusionkit.utils",)
    assert sys.modules["diffusionkit.utils"].bytes2gigabytes(1 << 30) == 1.0
    assert [sys.modules[name] for name in names[:3]] == real[:3]


def test_diffusionkits_t5_runs_without_an_apple_gpu() -> None:
    from diffusionkit.mlx.t5 import SD3T5Encoder
    from transformers import T5Config

    mx = backend().mx
    config = T5Config(
        vocab_size=20, d_model=8, d_kv=4, d_ff=16, num_layers=1, num_heads=2,
        feed_forward_proj="gated-gelu",
    )  # fmt: skip
    out = SD3T5Encoder(config, low_memory_mode=False)(mx.array([[1, 2, 3]]))
    assert out.shape == (1, 3, 8)
    assert np.isfinite(np.array(out)).all()


def test_sd3_medium_loads_from_an_offline_hub_cache_with_real_clip_encoders(
    tmp_path: Path,
) -> None:
    script = Path(__file__).parents[2] / "support" / "live_hub.py"
    offline = os.environ | {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True, text=True, timeout=120, check=False, env=offline,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    (weights,) = tmp_path.rglob("sd3_medium.safetensors")
    assert found == {
        "same": True, "shape": [2, 154, 4096], "dtype": "float16", "shift": 3.0,
        "distinct": True, "digest": hashlib.sha256(weights.read_bytes()).hexdigest(),
    }  # fmt: skip
