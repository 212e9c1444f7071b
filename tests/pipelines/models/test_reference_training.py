"""Training of the reference model: batches, loss, resuming, and its command line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from taqstore.pipelines.models.backend import backend
from taqstore.pipelines.models.load import load_pipeline
from taqstore.pipelines.models.reference import latent
from taqstore.pipelines.models.reference.__main__ import cli
from taqstore.pipelines.models.reference.data import real_digits
from taqstore.pipelines.models.reference.train import (
    STATE,
    WEIGHTS,
    Recipe,
    Trainer,
    draw_batch,
    noise_levels,
    read_run,
    train,
    velocity_loss,
)

from taqstore.errors import TaqError

BLOCKS = 6
TINY = Recipe(steps=3, batch=4, warmup=1, every=1)
LONGER = Recipe(steps=20, batch=4, warmup=1)


def test_a_batch_is_a_function_of_seed_and_step() -> None:
    digits, _ = real_digits()
    first, again, other = (draw_batch(digits, TINY, step) for step in (5, 5, 6))
    assert (first.noisy == again.noisy).all()
    assert not (first.noisy == other.noisy).all()


def test_a_batch_lies_on_the_line_from_digits_to_noise() -> None:
    digits, _ = real_digits()
    batch = draw_batch(digits, Recipe(batch=256), 0)
    at = batch.sigma[:, None, None, None]
    noise = batch.noisy + (1 - at) * batch.velocity
    clean = batch.noisy - at * batch.velocity
    assert abs(noise.mean()) < 0.01
    assert abs(noise.std() - 1) < 0.01
    pictures = latent.unfold(clean / latent.SCALE_FACTOR + latent.SHIFT_FACTOR) / 2 + 0.5
    assert pictures.min() > -1e-5
    assert pictures.max() < 1 + 1e-5


def test_noise_levels_are_a_shifted_logit_normal() -> None:
    levels = noise_levels(np.random.default_rng(0), 4096, shift=3.0)
    logits = np.log(levels / (1 - levels).astype(np.float64))
    # Shifting by s multiplies the odds by s.
    assert np.median(logits) == pytest.approx(np.log(3), abs=0.01)
    assert logits.std() == pytest.approx(1, abs=0.01)


def test_the_loss_is_that_of_separate_calls_at_each_timestep() -> None:
    mx, mmdit = backend().mx, load_pipeline("reference").mmdit
    batch = draw_batch(real_digits()[0], TINY, 1)
    loss = velocity_loss(mmdit, batch).item()
    before, errors = mmdit.parameters(), []
    for i in range(TINY.batch):
        one = slice(i, i + 1)
        timestep = mx.array(batch.sigma[one]) * 1000
        mmdit.cache_modulation_params(mx.array(batch.pooled[one]), timestep)
        out = mmdit(mx.array(batch.noisy[one]), mx.array(batch.tokens[one, :, None]), timestep)
        errors.append(np.mean((np.array(out) - batch.velocity[one]) ** 2))
        mmdit.pop("to_offload")
        mmdit.update(before)
    assert loss == pytest.approx(float(np.mean(errors)), rel=1e-4)
    assert len({round(float(sigma), 3) for sigma in batch.sigma}) == TINY.batch


def test_training_reaches_every_parameter_that_has_an_effect() -> None:
    trainer = Trainer(LONGER)
    flat = backend().utils.tree_flatten
    before = {name: np.array(value) for name, value in flat(trainer.mmdit.parameters())}
    # Modulation and output start at zero: gradients reach the text stream after a few steps.
    for _ in range(6):
        trainer.advance()
    after = {name: np.array(value) for name, value in flat(trainer.mmdit.parameters())}
    assert before.keys() == after.keys()
    still = [name for name in before if (np.abs(after[name] - before[name]) <= 1e-4).all()]
    # Nothing reads what the last text block's queries would attend to.
    name = f"multimodal_transformer_blocks.{BLOCKS - 1}.text_transformer_block.attn.q_proj"
    assert sorted(still) == [f"{name}.bias", f"{name}.weight"]


def test_an_interrupted_run_ends_with_the_weights_of_a_whole_one(tmp_path: Path) -> None:
    class StoppedError(Exception):
        pass

    def stop(step: int, loss: float) -> None:
        if step == 2:
            raise StoppedError

    train(tmp_path / "whole", TINY)
    with pytest.raises(StoppedError):
        train(tmp_path / "halves", TINY, on_step=stop)
    assert len(read_run(tmp_path / "halves")[0].losses) == 1
    train(tmp_path / "halves", TINY)
    whole, halves = (
        backend().mx.load(str(tmp_path / name / WEIGHTS)) for name in ("whole", "halves")
    )
    assert whole.keys() == halves.keys()
    assert all((whole[name] == halves[name]).all().item() for name in whole)
    assert read_run(tmp_path / "halves")[0].losses == read_run(tmp_path / "whole")[0].losses


def test_a_folder_with_another_recipe_or_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TaqError, match="no training run"):
        read_run(tmp_path)
    trainer = Trainer(TINY)
    trainer.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [STATE]
    with pytest.raises(TaqError, match="another recipe"):
        train(tmp_path, Recipe(steps=9, batch=4))


def test_the_learning_rate_warms_up_and_ends_at_zero() -> None:
    recipe = Recipe(steps=100, warmup=10, peak=1.0)
    rates = [recipe.rate(step) for step in range(101)]
    assert rates[:10] == pytest.approx([0.1 * n for n in range(1, 11)])
    assert rates[10] == 1.0
    assert rates[55] == pytest.approx(0.5)
    assert rates[100] == pytest.approx(0)


def test_the_command_line_trains_and_judges(tmp_path: Path) -> None:
    runner = CliRunner()
    trained = runner.invoke(cli, ["train", str(tmp_path), "--steps", "1"], catch_exceptions=False)
    assert trained.exit_code == 0
    weights = trained.stdout.strip()
    assert Path(weights).is_file()
    sheet = tmp_path / "sheet.png"
    options = ["--images", "12", "--steps", "1", "--checkpoint", weights, "--sheet", str(sheet)]
    judged = runner.invoke(cli, ["evaluate", *options], catch_exceptions=False)
    lines = dict(line.split(": ") for line in judged.stdout.splitlines())
    assert lines["images"] == "12"
    assert float(lines["accuracy"]) < 0.5  # one step has taught it nothing
    assert sheet.stat().st_size > 0


def test_the_commands_have_help() -> None:
    for command in cli.commands.values():
        assert command.help
        assert CliRunner().invoke(command, ["--help"]).exit_code == 0
