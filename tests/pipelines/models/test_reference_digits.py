"""Digits, pictures, prompts and the judge of the reference model: no MLX involved."""

from __future__ import annotations

import hashlib
import sys

import numpy as np
import pytest
from taqstore.pipelines.models.reference import data, encoder, judge, latent
from taqstore.pipelines.models.reference.judge import judge as make_judge

from taqstore.errors import TaqError


def random_digits(count: int = 5) -> np.ndarray:
    rng = np.random.default_rng(1)
    return (rng.integers(17, size=(count, 8, 8)) / 16).astype(np.float32)


def test_enlarging_is_linear_interpolation_along_both_axes() -> None:
    digit = random_digits(1)[0]
    at = np.clip((np.arange(32) + 0.5) / 4 - 0.5, 0, 7)
    rows = np.stack([np.interp(at, np.arange(8), digit[:, j]) for j in range(8)], axis=1)
    expected = np.stack([np.interp(at, np.arange(8), rows[i]) for i in range(32)])
    np.testing.assert_allclose(latent.enlarge(digit[None])[0], expected, atol=1e-6)


def test_fold_puts_each_pixel_where_a_loop_puts_it_and_unfold_takes_it_back() -> None:
    pictures = np.random.default_rng(2).random((2, 8, 12)).astype(np.float32)
    folded = latent.fold(pictures)
    assert folded.shape == (2, 2, 3, 16)
    for n, row, column in np.ndindex(pictures.shape):
        channel = 4 * (row % 4) + column % 4
        assert folded[n, row // 4, column // 4, channel] == pictures[n, row, column]
    assert (latent.unfold(folded) == pictures).all()


def test_ink_undoes_encode_and_clips_what_no_picture_has() -> None:
    pictures = latent.enlarge(random_digits())
    latents = latent.encode(pictures)
    assert latents.shape == (5, 8, 8, 16)
    assert latents.dtype == np.float32
    np.testing.assert_allclose(latent.ink(latents), pictures, atol=1e-6)
    assert (latent.ink(latents[0]) == latent.ink(latents)[0]).all()
    assert latent.ink(np.full((8, 8, 16), 9.0)).max() == 1
    assert latent.ink(np.full((8, 8, 16), -9.0)).min() == 0


def test_decode_gives_grey_levels() -> None:
    sixteenths = np.full((1, 32, 32), 0.5, np.float32)
    sixteenths[0, 0, 0], sixteenths[0, 0, 1] = 0, 1
    grey = latent.decode(latent.encode(sixteenths))
    assert grey.dtype == np.uint8
    assert grey[0, 0, :3].tolist() == [0, 255, 128]


def test_tile_means_are_those_of_a_loop() -> None:
    pictures = np.random.default_rng(3).random((1, 32, 32))
    small = latent.reduce(pictures)
    for row, column in np.ndindex(8, 8):
        tile = pictures[0, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
        assert small[0, row, column] == pytest.approx(tile.mean(), abs=1e-7)


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 4), (1, 1, 8, 8, 16)])
def test_a_latent_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(TaqError, match=r"\(height, width, 16\)"):
        latent.decode(np.zeros(shape))


def test_words_are_lower_case_without_punctuation_and_end_with_the_window() -> None:
    assert encoder.words("A handwritten SEVEN,bold; leaning-left!") == (
        ["a", "handwritten", "seven", "bold", "leaning", "left"]
    )
    assert encoder.words("") == []
    assert len(encoder.words("word " * 99)) == encoder.TOKENS


def test_a_word_has_the_vector_that_its_hash_spells() -> None:
    digest = hashlib.shake_256(b"seven").digest(128)
    levels = [(byte - 127.5) / (65535 / 12) ** 0.5 for byte in digest]
    _, pooled = encoder.embed(["Seven"])
    np.testing.assert_allclose(pooled[0], levels, atol=1e-6)
    assert list(digest[:4]) == [125, 192, 154, 5]  # the same on every machine


def test_tokens_know_their_order_and_pooled_text_does_not() -> None:
    tokens, pooled = encoder.embed(["two left", "left two", "two", ""])
    assert tokens.shape == (4, encoder.TOKENS, encoder.WIDTH)
    assert tokens.dtype == pooled.dtype == np.float32
    np.testing.assert_allclose(pooled[0], pooled[1], atol=1e-6)
    assert not np.allclose(tokens[0], tokens[1])
    assert (tokens[0, 2:] == tokens[3, 2:]).all()  # padding
    assert (pooled[3] == 0).all()


def test_different_words_are_nearly_orthogonal() -> None:
    _, vectors = encoder.embed([*data.NUMERALS, "thin", "bold", "left", "right", "héllo"])
    cosines = vectors @ vectors.T / encoder.WIDTH
    assert np.abs(cosines - np.diag(np.diag(cosines))).max() < 0.35
    assert np.abs(np.diag(cosines) - 1).max() < 0.25


def test_real_digits_are_split_once_and_for_all() -> None:
    known, held_out = data.real_digits()
    assert (len(known.label), len(held_out.label)) == (1437, 360)
    again, _ = data.real_digits()
    assert (again.ink == known.ink).all()
    seen = {ink.tobytes() for ink in known.ink}
    assert not any(ink.tobytes() in seen for ink in held_out.ink)
    assert known.ink.min() == 0
    assert known.ink.max() == 1


def test_looks_are_thirds_of_each_digit() -> None:
    known, held_out = data.real_digits()
    sevens = [part.ink[part.label == 7] for part in (known, held_out)]
    strokes = np.concatenate([part.stroke[part.label == 7] for part in (known, held_out)])
    weight = np.concatenate(sevens).mean((1, 2))
    assert weight[strokes == 0].max() <= weight[strokes == 1].min()
    assert weight[strokes == 1].max() <= weight[strokes == 2].min()
    assert np.bincount(strokes).min() >= len(strokes) // 3 - 3


def test_slope_of_a_drawn_line_is_its_columns_per_row() -> None:
    line = np.zeros((3, 8, 8), np.float32)
    for row in range(8):
        line[0, row, 7 - row] = 1  # leans right: one column per row upwards
        line[1, row, row] = 1
        line[2, row, 3] = 1
    np.testing.assert_allclose(data.slope(line), [1, -1, 0], atol=1e-6)


def test_prompts_name_their_digit_and_repeat_with_the_seed() -> None:
    prompts = data.digit_prompts(40, seed=3)
    assert prompts == data.digit_prompts(40, seed=3) != data.digit_prompts(40, seed=4)
    assert [data.prompted_digit(p) for p in prompts] == [i % 10 for i in range(40)]
    assert data.describe(7, stroke=2, lean=0) == "a handwritten seven, bold, leaning left"


@pytest.mark.parametrize("prompt", ["", "a cat", "one two", "someone"])
def test_a_prompt_without_one_digit_is_refused(prompt: str) -> None:
    with pytest.raises(TaqError, match="names one digit"):
        data.prompted_digit(prompt)


def test_a_batch_has_prompts_that_fit_its_pictures_and_some_that_are_empty() -> None:
    known, _ = data.real_digits()
    rng = np.random.default_rng(0)
    pictures, prompts = data.training_batch(known, rng, size=400, dropped=0.1)
    empty = sum(not prompt for prompt in prompts)
    assert 20 <= empty <= 65
    named = [index for index, prompt in enumerate(prompts) if prompt]
    asked = [data.prompted_digit(prompts[index]) for index in named]
    assert np.mean(make_judge().read(pictures[named]) == asked) > 0.97


def test_the_judge_reads_digits_it_has_not_seen() -> None:
    critic = make_judge()
    assert critic.accuracy >= 0.95
    _, held_out = data.real_digits()
    right = critic.read(latent.enlarge(held_out.ink)) == held_out.label
    assert right.mean() == critic.accuracy


def test_novelty_is_zero_for_copies_and_one_for_new_digits() -> None:
    known, held_out = data.real_digits()
    assert make_judge().novelty(latent.enlarge(known.ink[:50])) < 0.01
    assert make_judge().novelty(latent.enlarge(held_out.ink)) == pytest.approx(1, abs=1e-4)


def test_nearest_distance_is_that_of_a_loop() -> None:
    rng = np.random.default_rng(5)
    known, seen = rng.random((6, 64), np.float32), rng.random((4, 64), np.float32)
    critic = judge.Judge(None, 1.0, known, seen)
    expected = [min(float(np.linalg.norm(a - b)) for b in known) for a in seen]
    np.testing.assert_allclose(critic.nearest(seen), expected, rtol=1e-5)


def test_without_scikit_learn_one_line_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data._all_digits.cache_clear()
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(TaqError, match="pip install scikit-learn"):
        data.real_digits()
