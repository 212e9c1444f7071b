"""Likeness of trajectories, beside plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest

from taqstore.trajectory.measures import cosine, first_below, psnr, psnr_latent, relative_error


def two(seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(2, 5, 3, 4, 7)).astype(np.float32)
    return a, (a + 0.1 * rng.normal(size=a.shape)).astype(np.float32)


def flat(x: np.ndarray) -> list[float]:
    return [float(value) for value in x.ravel()]


def test_each_measure_is_that_of_a_loop() -> None:
    a, b = two()
    found = cosine(a, b), relative_error(a, b), psnr(a, b, peak=2.5), psnr_latent(a, b)
    assert all(one.shape == (2, 5) and one.dtype == np.float64 for one in found)
    for place in np.ndindex(2, 5):
        x, y = flat(a[place]), flat(b[place])
        dot = math.fsum(p * q for p, q in zip(x, y, strict=True))
        squares = math.fsum((p - q) ** 2 for p, q in zip(x, y, strict=True))
        norms = [math.sqrt(math.fsum(p * p for p in one)) for one in (x, y)]
        expected = (
            dot / norms[0] / norms[1],
            math.sqrt(squares) / norms[1],
            10 * math.log10(2.5**2 * len(x) / squares),
            10 * math.log10((max(y) - min(y)) ** 2 * len(x) / squares),
        )
        for one, value in zip(found, expected, strict=True):
            assert one[place] == pytest.approx(value, rel=1e-13)


def test_nothing_and_the_same_and_no_numbers() -> None:
    a, _ = two()
    zero = np.zeros_like(a)
    assert (cosine(zero, zero) == 1).all()
    assert (cosine(a, zero) == 0).all()
    assert (relative_error(zero, zero) == 0).all()
    assert np.isinf(relative_error(a, zero)).all()
    assert np.isinf(psnr_latent(a, a)).all()
    assert (cosine(a, a) >= 1 - 1e-15).all()
    broken = a.copy()
    broken[0, 2, 0, 0, 0], broken[1, 4, 0, 0, 0] = np.nan, np.inf
    for found in (cosine(broken, a), relative_error(broken, a), psnr_latent(broken, a)):
        assert np.isnan(found[0, 2])
        assert not np.isnan(found[0, 1])
    assert np.isnan(cosine(broken, a)[1, 4])


def test_float32_is_summed_in_float64() -> None:
    a = np.full((64, 64, 16), 1e20, np.float32)
    assert cosine(a, -a) == -1
    assert relative_error(a, 2 * a) == 0.5


def test_the_first_step_below_the_bound() -> None:
    values = [[1, 0.96, 0.95], [1, 0.94, 0.99], [0.1, 1, 1], [1, np.nan, 1]]
    assert first_below(values, 0.95).tolist() == [-1, 1, 0, 1]
