"""GPTQ against the loop of its paper, written out with an inverse, and against what it promises."""

from __future__ import annotations

import numpy as np
import pytest

from taqstore import TaqError
from taqstore.quantization.gptq import Nearest, Prepared, gptq, prepare
from taqstore.quantization.integer_grid import IntegerGrid, affine_grid, symmetric_grid


def textbook(weight: np.ndarray, moment: np.ndarray, nearest: Nearest, share: float) -> np.ndarray:
    """Algorithm 1 of arXiv 2210.17323, not blocked: the Cholesky factor of the inverse of H."""
    left, rounded = weight.astype(np.float64), np.zeros(weight.shape)
    damped = moment + share * np.diag(moment).mean() * np.eye(len(moment))
    factor = np.linalg.cholesky(np.linalg.inv(damped)).T
    for j in range(weight.shape[1]):
        rounded[:, j] = nearest(left[:, [j]], np.array([j]))[1][:, 0]
        error = (left[:, j] - rounded[:, j]) / factor[j, j]
        left[:, j:] -= np.outer(error, factor[j, j:])
    return rounded


def _problem(
    seed: int, outputs: int, inputs: int, *, rank: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """A weight, and a second moment of inputs that hang together, of `rank` or more than full."""
    rng = np.random.default_rng(seed)
    weight = rng.standard_t(4, (outputs, inputs)).astype(np.float32)
    mixed = rng.normal(size=(rank or 2 * inputs, inputs)) @ rng.normal(size=(inputs, inputs))
    mixed *= np.exp(rng.normal(size=inputs))
    return weight, mixed.T @ mixed


def _grid(weight: np.ndarray, kind: str, bits: int, group_size: int | None) -> IntegerGrid:
    make = symmetric_grid if kind == "symmetric" else affine_grid
    return make(weight, bits=bits, group_size=group_size)


def _diagonal_blocks(moment: np.ndarray, size: int) -> np.ndarray:
    """Blocks on the diagonal, the last one filled up with zeros."""
    count = -(-len(moment) // size)
    blocks = np.zeros((count, size, size))
    for block in range(count):
        part = moment[block * size : (block + 1) * size, block * size : (block + 1) * size]
        blocks[block, : len(part), : len(part)] = part
    return blocks


@pytest.mark.parametrize("kind", ["symmetric", "affine"])
@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize(
    ("outputs", "inputs", "group_size"), [(7, 150, 30), (1, 64, None), (3, 1, 1)]
)
def test_it_is_the_loop_of_the_paper(
    kind: str, bits: int, outputs: int, inputs: int, group_size: int | None
) -> None:
    weight, moment = _problem(bits, outputs, inputs)
    grid = _grid(weight, kind, bits, group_size)
    found = gptq(weight, moment, grid.nearest, damping=0.02)
    expected = textbook(weight, moment, grid.nearest, 0.02)
    lost = prepare(moment).error(weight - expected)
    better = lost <= found.nearest_error
    np.testing.assert_array_equal(found.weights[better], expected[better])
    np.testing.assert_array_equal(found.weights, grid.weights(found.codes))
    assert found.nearest_rows == (~better).sum()


@pytest.mark.parametrize("size", [1, 16, 48, 200])
def test_blocks_are_a_moment_that_is_0_outside_of_them(size: int) -> None:
    weight, moment = _problem(1, 5, 130)
    blocks = _diagonal_blocks(moment, size)
    spread = np.zeros_like(moment)
    for at in range(0, 130, size):
        spread[at : at + size, at : at + size] = moment[at : at + size, at : at + size]
    grid = symmetric_grid(weight, bits=3, group_size=13)
    by_blocks = gptq(weight, blocks, grid.nearest)
    whole = gptq(weight, spread, grid.nearest)
    np.testing.assert_array_equal(by_blocks.codes, whole.codes)
    np.testing.assert_allclose(by_blocks.output_error, whole.output_error, rtol=1e-10)


@pytest.mark.parametrize("rank", [1, 3, 20, None])
@pytest.mark.parametrize("kind", ["symmetric", "affine"])
def test_it_never_leaves_more_error_than_rounding_to_nearest(kind: str, rank: int | None) -> None:
    """By output, for every width; much less on the whole, as inputs hang together."""
    kept, less = 0, 0.0
    for seed in range(30):
        weight, moment = _problem(seed, 6, 40, rank=rank)
        dead = np.random.default_rng(seed).choice(40, seed % 8, replace=False)
        moment[dead] = moment[:, dead] = 0
        grid = _grid(weight, kind, 2 + seed % 7, (None, 8)[seed % 2])
        found = gptq(weight, moment, grid.nearest, damping=(0.01, 0.0)[seed % 2])
        nearest = grid.nearest(weight, np.arange(40))[1]
        lost, plain = (
            np.array([d @ moment @ d for d in weight.astype(np.float64) - w])
            for w in (found.weights, nearest)
        )
        assert (lost <= plain * (1 + 1e-9)).all()
        np.testing.assert_allclose(found.output_error, lost, rtol=1e-7, atol=1e-9 * plain.max())
        np.testing.assert_allclose(found.nearest_error, plain, rtol=1e-7)
        np.testing.assert_array_equal(found.weights[:, dead], nearest[:, dead])
        kept += found.nearest_rows
        less += lost.sum() / plain.sum() / 30
    assert less < 0.6
    assert kept < 60


def test_rows_that_would_lose_are_left_at_nearest() -> None:
    """One group of 2 bits: what must be made good is beyond the grid, and greed loses."""
    kept = 0
    for seed in range(200):
        weight, moment = _problem(seed, 4, 6, rank=2)
        grid = symmetric_grid(weight, bits=2)
        found = gptq(weight, moment, grid.nearest)
        nearest = grid.nearest(weight, np.arange(6))[0]
        same = (found.codes == nearest).all(axis=1)
        assert same.sum() >= found.nearest_rows
        kept += found.nearest_rows
    assert kept > 0


def test_a_diagonal_moment_is_rounding_to_nearest() -> None:
    weight, moment = _problem(3, 9, 24)
    grid = symmetric_grid(weight, bits=4, group_size=8)
    nearest = grid.nearest(weight, np.arange(24))[0]
    for given in (np.diag(moment), np.diag(np.diag(moment)), np.diag(moment)[:, None, None]):
        found = gptq(weight, given, grid.nearest)
        np.testing.assert_array_equal(found.codes, nearest)
        np.testing.assert_allclose(found.output_error, found.nearest_error, rtol=1e-12)


def test_inputs_that_were_always_0_change_nothing_for_the_others() -> None:
    weight, moment = _problem(4, 6, 20)
    grid = symmetric_grid(weight, bits=3, group_size=1)
    live = np.delete(np.arange(20), [0, 7, 19])
    dead = np.zeros_like(moment)
    dead[np.ix_(live, live)] = moment[np.ix_(live, live)]
    part = symmetric_grid(weight[:, live], bits=3, group_size=1)
    found = gptq(weight, dead, grid.nearest)
    alone = gptq(weight[:, live], moment[np.ix_(live, live)], part.nearest)
    np.testing.assert_array_equal(found.codes[:, live], alone.codes)
    none = gptq(weight, np.zeros_like(moment), grid.nearest)
    np.testing.assert_array_equal(none.codes, grid.nearest(weight, np.arange(20))[0])
    assert not none.output_error.any()


def test_damping_grows_where_there_is_no_factor() -> None:
    weight, moment = _problem(5, 6, 30, rank=4)
    assert prepare(moment, damping=0.0).damping in (0.0, 1e-4)
    short = moment - 1e-5 * np.diag(moment).mean() * np.eye(30)
    found = prepare(short, damping=1e-7)
    assert found.damping == pytest.approx(1e-4)
    blocks = np.stack([short, moment])
    assert prepare(blocks, damping=0.01).damping == 0.01
    grid = symmetric_grid(weight, bits=4)
    assert gptq(weight, found, grid.nearest).output_error.sum() > 0


def test_a_codebook_is_a_grid_too() -> None:
    """Sixteen values that are no integers, one scale for each group of 5 inputs."""
    weight, moment = _problem(6, 8, 25)
    book = np.sort(np.random.default_rng(0).normal(size=16))
    scale = np.abs(weight).reshape(8, 5, 5).max(axis=2) / np.abs(book).max()

    def nearest(values: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        its = scale[:, columns // 5]
        codes = np.abs(values[..., None] - its[..., None] * book).argmin(axis=-1)
        return codes.astype(np.uint8), its * book[codes]

    found = gptq(weight, prepare(moment), nearest)
    np.testing.assert_array_equal(found.weights, textbook(weight, moment, nearest, 0.01))
    assert found.codes.dtype == np.uint8
    assert found.nearest_rows == 0


def test_what_does_not_fit_is_refused() -> None:
    weight, moment = _problem(7, 3, 12)
    nearest = symmetric_grid(weight).nearest
    with pytest.raises(TaqError, match="no second moment of 12 inputs"):
        gptq(weight, moment[:10, :10], nearest)
    with pytest.raises(TaqError, match="shape"):
        prepare(moment[:10])
    with pytest.raises(TaqError, match="shape"):
        prepare(np.zeros((0, 0)))
    with pytest.raises(TaqError, match="damping is 0 or more"):
        prepare(moment, damping=-1)
    with pytest.raises(TaqError, match="finite"):
        prepare(np.where(np.eye(12) > 0, np.nan, moment))
    with pytest.raises(TaqError, match="not positive"):
        prepare(moment - 3 * np.diag(np.diag(moment)) + 2.5 * np.diag(np.diag(moment)), damping=0)
    with pytest.raises(TaqError, match="not finite"):
        gptq(np.full((3, 12), np.inf), moment, nearest)
    assert isinstance(prepare(moment), Prepared)
