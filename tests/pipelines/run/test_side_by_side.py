"""Forwards side by side come in order, equal those one after the other, and leave nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from threading import Event, current_thread
from typing import Any

import numpy as np
import pytest
from taqstore.pipelines.models.sampling import make_schedule
from taqstore.pipelines.run.side_by_side import READYING, may_overlap, side_by_side

from support.live_capture import needs_models
from support.live_models import TINY, TINY_FLUX, load_tiny


def _squared(number: int) -> tuple[int, bool]:
    with READYING:
        return number**2, current_thread().name.startswith("taqstore-forward")


@pytest.mark.parametrize("overlap", [True, False])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 40])
def test_answers_come_in_order(overlap: bool, count: int) -> None:
    with side_by_side(_squared, range(count), overlap=overlap) as answers:
        assert list(answers) == [(number**2, overlap) for number in range(count)]


def test_one_is_begun_while_the_one_before_is_under_way() -> None:
    """Each of two waits for the other: one after the other they would never end."""
    begun = [Event(), Event()]

    def forward(number: int) -> bool:
        begun[number].set()
        return begun[1 - number].wait(60)

    with side_by_side(forward, range(2), overlap=True) as answers:
        assert list(answers) == [True, True]


def test_no_more_are_begun_than_two_beside_what_was_answered() -> None:
    asked = list[int]()

    def parts() -> Any:
        for number in range(50):
            asked.append(number)
            yield number

    with side_by_side(_squared, parts(), overlap=True) as answers:
        for number, _ in enumerate(answers):
            assert len(asked) <= number + 3


@pytest.mark.parametrize("overlap", [True, False])
def test_what_fails_is_raised_in_its_turn(overlap: bool) -> None:
    got = list[Any]()
    with (
        pytest.raises(ZeroDivisionError),
        side_by_side(lambda n: 1 / (3 - n), range(9), overlap=overlap) as answers,
    ):
        got.extend(answers)
    assert got == [1 / 3, 1 / 2, 1.0]


def test_nothing_is_under_way_when_the_block_ends() -> None:
    """Neither after an error of who asks, nor where nobody asked for the last."""
    begun, done = list[int](), list[int]()

    def forward(number: int) -> None:
        begun.append(number)
        Event().wait(0.05)
        done.append(number)

    with pytest.raises(KeyboardInterrupt):
        _stopped_after_one(forward)
    assert sorted(begun) == sorted(done)
    assert len(begun) < 9


def _stopped_after_one(forward: Callable[[int], None]) -> None:
    with side_by_side(forward, range(9), overlap=True) as answers:
        next(answers)
        raise KeyboardInterrupt


@needs_models
def test_forwards_side_by_side_are_those_of_one_thread(tmp_path: Path) -> None:
    import mlx.core as mx

    model = load_tiny(tmp_path, TINY)
    schedule = make_schedule(model, 4)
    text = model.encode_text("a cat", cfg_weight=model.row.cfg_weight)
    prompt = model.prepare(text, schedule.timesteps)
    rng = np.random.default_rng(0)
    shape = (*TINY.latent_size, 16)
    latents = [rng.standard_normal(shape, np.float32) for _ in range(24)]

    def forward(number: int) -> np.ndarray:
        with READYING:
            x, at = model.to_model(latents[number]), number % 4
            made = model.denoise(x, schedule.timesteps[at], schedule.sigmas[at], prompt)
        mx.eval(made)
        return model.to_store(made)

    alone = [forward(number) for number in range(24)]
    with side_by_side(forward, range(24), overlap=True) as answers:
        for ours, theirs in zip(answers, alone, strict=True):
            assert ours.tobytes() == theirs.tobytes()


@needs_models
def test_only_small_models_that_keep_nothing_of_a_forward_overlap(tmp_path: Path) -> None:
    import mlx.core as mx

    cpu = mx.default_device().type == mx.DeviceType.cpu
    model, flux = load_tiny(tmp_path, TINY), load_tiny(tmp_path, TINY_FLUX)
    small, large = mx.zeros((1, *TINY.latent_size, 16)), mx.zeros((1, 512, 512, 16))
    assert may_overlap(model, small) is (cpu and hasattr(mx, "new_thread_local_stream"))
    assert not may_overlap(model, large)
    assert not may_overlap(flux, small)
    assert model.is_small(small)
    assert model.keeps_nothing
    assert not flux.keeps_nothing
