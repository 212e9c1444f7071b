"""Second moments of tensors, beside those of plain float64 arithmetic."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from taqstore.errors import TaqError
from taqstore.statistics.second_moment import SecondMoment

BLOCKS = (1, 7, 16, 64, 600, 2000, None)


def rows_of(kind: str, rows: int, channels: int) -> np.ndarray:
    """Rows that float32 sums get wrong: alike, far from zero, or of a few large ones."""
    rng = np.random.default_rng(rows)
    normal = rng.standard_normal((rows, channels))
    own = 1 + rng.random((1, channels))
    made = {
        "normal": normal,
        "shifted": np.abs(normal) + 250 * own,
        "equal": np.repeat(own, rows, axis=0),
        "signs": np.sign(rng.standard_normal((rows, 1))) * own,
        "padded": np.where(rng.random((rows, 1)) < 0.9, own, 3 * normal),
        "outliers": rng.standard_t(2, (rows, channels)) * np.exp(3 * normal[:1]),
    }
    return made[kind].astype(np.float32)


def check(found: SecondMoment, x: np.ndarray, limit: float = 1e-7) -> None:
    """Every block against the product of float64, relative to the root of both diagonals."""
    flat = x.reshape(-1, x.shape[-1]).astype(np.float64)
    whole, blocks, size = flat.T @ flat, found.blocks(np.float32), found.block_size
    root = np.sqrt(np.diagonal(whole))
    assert blocks.dtype == np.float32
    np.testing.assert_array_equal(blocks, blocks.transpose(0, 2, 1))
    for index, block in enumerate(blocks.astype(np.float64)):
        here = slice(index * size, min((index + 1) * size, x.shape[-1]))
        n = here.stop - here.start
        error = np.abs(block[:n, :n] - whole[here, here])
        assert (error <= limit * np.outer(root[here], root[here])).all()
        assert not block[n:].any()
    np.testing.assert_allclose(found.channel_sum, flat.sum(axis=0), atol=1e-9 * np.abs(flat).sum())
    assert (found.count, found.left_out) == (len(flat), 0)


@pytest.mark.parametrize("block_size", BLOCKS)
@pytest.mark.parametrize("kind", ["normal", "shifted", "equal", "signs", "padded", "outliers"])
def test_as_of_float64(kind: str, block_size: int | None) -> None:
    x = rows_of(kind, 1300, 45)
    found = SecondMoment(45, block_size)
    for part in np.array_split(x, 3):
        found.add(part)
    check(found, x)


@pytest.mark.parametrize("block_size", [600, None])
def test_panels_of_wide_tensors(block_size: int | None) -> None:
    x = rows_of("normal", 90, 1500)
    found = SecondMoment(1500, block_size)
    found.add(x)
    check(found, x)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("shape", [(1, 2, 1, 20), (2, 9, 1, 20), (40, 20), (20,), (0, 20)])
def test_shapes_and_dtypes(shape: tuple[int, ...], dtype: str) -> None:
    x = np.random.default_rng(1).standard_normal(shape).astype(dtype)
    found = SecondMoment(20, 16)
    for _ in range(5):
        found.add(x)
    check(found, np.stack([x.reshape(-1, 20)] * 5))


def test_the_order_of_small_tensors_hardly_matters() -> None:
    x = rows_of("outliers", 100, 20)
    ahead, back = SecondMoment(20), SecondMoment(20)
    for row in x:
        ahead.add(row)
    back.add(x[::-1])
    np.testing.assert_allclose(ahead.blocks(), back.blocks(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("rows", [3, 700])
def test_rows_that_are_not_finite_are_left_out(rows: int, bad: float) -> None:
    x = rows_of("normal", rows, 30)
    broken = x.copy()
    broken[1, 7], broken[-1, :2] = bad, -bad
    found, expected = SecondMoment(30, 16), SecondMoment(30, 16)
    found.add(broken)
    expected.add(x[[i for i in range(rows) if i not in (1, rows - 1)]])
    np.testing.assert_allclose(found.blocks(), expected.blocks(), rtol=1e-12, atol=1e-12)
    assert (found.count, found.left_out) == (rows - 2, 2)


@pytest.mark.parametrize("scale", [1e-20, 1e18])
def test_large_and_small_values(scale: float) -> None:
    x = rows_of("normal", 50, 8) * np.float32(scale)
    found = SecondMoment(8)
    found.add(x)
    wide = x.astype(np.float64)
    np.testing.assert_allclose(found.blocks()[0], wide.T @ wide, rtol=1e-9)


def test_beyond_float32_is_infinite() -> None:
    found = SecondMoment(2)
    found.add(np.full((1, 2), 1e25, np.float32))
    assert np.isinf(found.blocks(np.float32)).all()
    assert np.isfinite(found.blocks()).all()


@pytest.mark.parametrize("x", [np.zeros((3, 5), np.float32), np.zeros((3, 4))])
def test_other_tensors_are_refused(x: Any) -> None:
    with pytest.raises(TaqError, match=r"a tensor of 4 channels of float16 or float32 is due"):
        SecondMoment(4).add(x)


def test_memory_is_what_is_held() -> None:
    assert SecondMoment.memory(64, 16) == 8 * (4 * 16 * 16 + 64 * 65)
    triangle = SecondMoment.memory(6144, None) / (8 * 6144**2)
    assert 0.54 < triangle < 0.56
