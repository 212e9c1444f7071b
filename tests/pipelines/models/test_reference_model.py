"""The reference model: checkpoint, pictures and card, through DiffusionKit's constructor."""

from __future__ import annotations

import hashlib
import inspect
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from taqstore.pipelines.models.backend import backend
from taqstore.pipelines.models.load import LoadedModel, load_pipeline
from taqstore.pipelines.models.reference import (
    card,
    checkpoint_path,
    config,
    encode_text,
    latent,
    record,
)
from taqstore.pipelines.models.reference.accuracy import sample
from taqstore.pipelines.models.reference.data import digit_prompts, prompted_digit, real_digits
from taqstore.pipelines.models.reference.judge import judge
from taqstore.pipelines.models.reference.model import PREFIX, to_sd3
from taqstore.pipelines.models.reference.train import Recipe, read_run, train

FOLDER = checkpoint_path().parent
HIDDEN, BLOCKS, TEXT = 128, 6, 128


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return load_pipeline("reference")


@pytest.fixture(scope="module")
def weights() -> dict[str, Any]:
    return dict(backend().mx.load(str(checkpoint_path())))


@pytest.fixture(scope="module")
def known() -> dict[str, Any]:
    return json.loads((FOLDER / record.RECORD).read_text())


def sd3_layout() -> dict[str, tuple[int, ...]]:
    """Names and shapes of a checkpoint of SD3, written out for this size."""
    linears = {
        "y_embedder.mlp.0": (HIDDEN, TEXT),
        "y_embedder.mlp.2": (HIDDEN, HIDDEN),
        "t_embedder.mlp.0": (HIDDEN, 128),
        "t_embedder.mlp.2": (HIDDEN, HIDDEN),
        "context_embedder": (HIDDEN, TEXT),
        "final_layer.linear": (64, HIDDEN),
        "final_layer.adaLN_modulation.1": (2 * HIDDEN, HIDDEN),
    }
    for block in range(BLOCKS):
        for side in ("x_block", "context_block"):
            name = f"joint_blocks.{block}.{side}"
            last = block == BLOCKS - 1 and side == "context_block"
            linears[f"{name}.attn.qkv"] = (3 * HIDDEN, HIDDEN)
            linears[f"{name}.adaLN_modulation.1"] = ((2 if last else 6) * HIDDEN, HIDDEN)
            if not last:
                linears[f"{name}.attn.proj"] = (HIDDEN, HIDDEN)
                linears[f"{name}.mlp.fc1"] = (4 * HIDDEN, HIDDEN)
                linears[f"{name}.mlp.fc2"] = (HIDDEN, 4 * HIDDEN)
    shapes = {f"{name}.weight": shape for name, shape in linears.items()}
    shapes |= {f"{name}.bias": shape[:1] for name, shape in linears.items()}
    shapes |= {"pos_embed": (1, 256, HIDDEN), "x_embedder.proj.weight": (HIDDEN, 16, 2, 2)}
    shapes["x_embedder.proj.bias"] = (HIDDEN,)
    return {PREFIX + name: shape for name, shape in shapes.items()}


def test_the_checkpoint_is_float16_in_the_layout_of_sd3(weights: dict[str, Any]) -> None:
    assert {name: tuple(value.shape) for name, value in weights.items()} == sd3_layout()
    assert {value.dtype for value in weights.values()} == {backend().mx.float16}
    assert checkpoint_path().stat().st_size <= 8_000_000


def test_the_weights_are_finite_and_modulation_has_been_learnt(weights: dict[str, Any]) -> None:
    arrays = {name: np.array(value, np.float32) for name, value in weights.items()}
    assert all(np.isfinite(array).all() for array in arrays.values())
    learnt = [array for name, array in arrays.items() if "adaLN" in name]
    assert len(learnt) == 2 * (2 * BLOCKS + 1)
    assert all(np.abs(array).max() > 0.01 for array in learnt)


def test_the_bias_that_diffusionkit_drops_is_zero(weights: dict[str, Any]) -> None:
    biases = [np.array(value) for name, value in weights.items() if "qkv.bias" in name]
    assert len(biases) == 2 * BLOCKS
    assert not any(bias[HIDDEN : 2 * HIDDEN].any() for bias in biases)
    assert all(bias[:HIDDEN].any() for bias in biases)


def test_diffusionkits_own_class_holds_exactly_these_weights(
    model: LoadedModel, weights: dict[str, Any]
) -> None:
    from diffusionkit.mlx.mmdit import MMDiT

    assert isinstance(model.mmdit, MMDiT)
    loaded = dict(backend().utils.tree_flatten(model.mmdit.parameters()))
    back = to_sd3(loaded)
    assert back.keys() == weights.keys()
    for name, value in weights.items():
        assert (np.array(back[name]) == np.array(value, np.float32)).all(), name


def test_the_model_is_large_enough_to_be_one(model: LoadedModel) -> None:
    blocks = model.mmdit.multimodal_transformer_blocks
    assert len(blocks) >= 6
    assert config().hidden_size >= 128
    assert type(blocks[0].image_transformer_block.mlp.act_fn).__name__ == "GELU"
    assert not blocks[0].text_transformer_block.skip_post_sdpa


def test_latents_are_on_the_scale_of_diffusionkits_sd3_format(model: LoadedModel) -> None:
    form = model.pipeline.latent_format
    assert (form.scale_factor, form.shift_factor) == (latent.SCALE_FACTOR, latent.SHIFT_FACTOR)
    digits, _ = real_digits()
    pictures = latent.enlarge(digits.ink[:3])
    processed = np.array(form.process_out(backend().mx.array(latent.encode(pictures))))
    np.testing.assert_allclose(latent.unfold(processed) / 2 + 0.5, pictures, atol=1e-6)


def test_encode_text_has_diffusionkits_signature() -> None:
    theirs = inspect.signature(backend().pipelines.DiffusionPipeline.encode_text).parameters
    ours = inspect.signature(encode_text).parameters
    assert list(ours) == list(theirs)[1:]
    assert [p.default for p in ours.values()] == [p.default for p in theirs.values()][1:]


def test_encode_text_gives_the_prompt_and_then_the_negative_prompt() -> None:
    tokens, pooled = encode_text("a handwritten seven", 7.5, "bold")
    assert (tokens.shape, pooled.shape) == ((2, 12, 128), (2, 128))
    assert tokens.dtype == pooled.dtype == backend().mx.float32
    swapped, swapped_pooled = encode_text("bold", 7.5, "a handwritten seven")
    assert (np.array(tokens) == np.array(swapped)[::-1]).all()
    assert (np.array(pooled) == np.array(swapped_pooled)[::-1]).all()
    without, _ = encode_text("a handwritten seven", 1.0, "bold")
    plain, _ = encode_text("a handwritten seven")
    assert (np.array(without) == np.array(plain)).all()


def test_the_model_draws_the_digit_it_is_asked_for(model: LoadedModel) -> None:
    prompts = digit_prompts(10, seed=11)
    drawn = [
        sample(model, prompt, steps=28, cfg_weight=model.row.cfg_weight, seed=500 + index)
        for index, prompt in enumerate(prompts)
    ]
    read = judge().read(np.stack(drawn))
    asked = np.array([prompted_digit(prompt) for prompt in prompts])
    assert (read == asked).sum() >= 9
    assert (read == (asked + 1) % 10).sum() <= 1


def test_a_seed_stands_for_one_picture(model: LoadedModel) -> None:
    pictures = [sample(model, "", steps=4, cfg_weight=1.0, seed=seed) for seed in range(3)]
    assert len({picture.tobytes() for picture in pictures}) == 3
    assert (sample(model, "", steps=4, cfg_weight=1.0, seed=0) == pictures[0]).all()


def test_the_record_is_of_this_checkpoint_and_it_passed(known: dict[str, Any]) -> None:
    content = checkpoint_path().read_bytes()
    assert known["weights"]["sha256"] == hashlib.sha256(content).hexdigest()
    assert known["weights"]["bytes"] == len(content)
    assert known["evaluation"]["images"] >= 200
    assert known["evaluation"]["steps"] == 28
    assert known["evaluation"]["accuracy"] >= 0.85
    assert known["evaluation"]["judge_accuracy"] == judge().accuracy >= 0.95
    assert known["curve"][-1]["step"] == known["recipe"]["steps"]
    assert known["minutes"] < 90


def test_the_record_tells_what_the_table_of_models_says(
    known: dict[str, Any], model: LoadedModel
) -> None:
    assert known["evaluation"]["cfg_weight"] == model.row.cfg_weight
    assert known["recipe"]["shift"] == model.row.shift


def test_the_card_is_written_from_the_record(known: dict[str, Any]) -> None:
    text = (FOLDER / record.CARD).read_text()
    assert text == card.render(known)
    assert f"{known['evaluation']['accuracy']:.1%} are read as the digit" in text
    assert f"{known['curve'][-1]['loss']:.4f}" in text
    assert "CC BY 4.0" in text


def test_the_loss_curve_has_means_over_hundreds() -> None:
    points = record.loss_curve([1.0] * 100 + [0.5] * 50 + [0.25] * 50 + [2.0] * 7)
    assert [(point.step, point.loss) for point in points] == [(100, 1), (200, 0.375), (207, 2)]


def test_publishing_writes_weights_record_and_card(tmp_path: Path, known: dict[str, Any]) -> None:
    from taqstore.pipelines.models.reference.accuracy import Evaluation

    run = train(tmp_path / "run", Recipe(steps=1, batch=2))
    (tmp_path / "into").mkdir()
    evaluation = Evaluation(**known["evaluation"] | {"accuracy": 0.125})
    record.publish(
        read_run(tmp_path / "run")[0], tmp_path / "run", evaluation, into=tmp_path / "into"
    )
    written = json.loads((tmp_path / "into" / record.RECORD).read_text())
    assert written["recipe"]["steps"] == run.step == 1
    assert "**12.5% are read" in (tmp_path / "into" / record.CARD).read_text()
    digest = hashlib.sha256((tmp_path / "into" / "reference.safetensors").read_bytes())
    assert written["weights"]["sha256"] == digest.hexdigest()
