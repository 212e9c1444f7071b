"""Weights learned in pieces are those learned whole, to the bit, and go on from either's state."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from taqstore.pipelines.models.backend import backend
from taqstore.pipelines.models.rounding import weights as weights_module
from taqstore.pipelines.models.rounding.soft import SoftWeight, soften, soften_at
from taqstore.pipelines.models.rounding.weights import SoftWeights

from support.live_capture import needs_models
from support.same_stores import assert_same_bits

pytestmark = needs_models
WHOLE = 1 << 30
SHAPES = st.tuples(st.integers(1, 70), st.integers(1, 3), st.integers(1, 21))


def made(
    shapes: list[tuple[int, int, int]], piece: int, *, offset: bool, seed: int
) -> tuple[SoftWeights, list[Any]]:
    """Weights of ``(out, group, input)``, and a gradient of each."""
    mx, rng = backend().mx, np.random.default_rng(seed)
    split, slopes = list[tuple[SoftWeight, Any]](), []
    for rows, groups, inputs in shapes:
        weight = mx.array(rng.normal(size=(rows, groups * inputs)).astype(np.float32))
        step = mx.array(rng.uniform(0.1, 0.4, (rows, groups)).astype(np.float32))
        slopes.append(mx.array(rng.normal(size=weight.shape).astype(np.float32)))
        if offset:
            integers = mx.array(rng.integers(-8, 8, weight.shape).astype(np.int8))
            at = mx.array(rng.normal(size=(rows, groups)).astype(np.float32))
            split.append(soften_at(weight, integers, step, (-8, 7), at))
        else:
            split.append(soften(weight, step, (-8, 7)))
    kept = weights_module._PIECE
    weights_module._PIECE = piece
    try:
        return SoftWeights(split, learning_rate=1e-2), slopes
    finally:
        weights_module._PIECE = kept


def learn(soft: SoftWeights, slopes: list[Any], beta: float | None) -> list[np.ndarray]:
    """One iteration; the weights it began with."""
    weights = soft.soften()
    soft.learn(soft.slopes(slopes, beta=beta, share=0.01))
    backend().mx.eval(weights, soft.evaluated)
    return [np.array(weight) for weight in weights]


def all_of(soft: SoftWeights) -> list[np.ndarray]:
    flat = backend().utils.tree_flatten({"v": soft.v, "adam": soft.adam_state()})
    return [np.array(value) for _, value in flat]


@settings(max_examples=40, deadline=None)
@given(
    shapes=st.lists(SHAPES, min_size=1, max_size=3),
    piece=st.integers(1, 900),
    offset=st.booleans(),
    beta=st.sampled_from([None, 2.0, 19.3]),
    seed=st.integers(0, 99),
)
def test_pieces_change_no_bit(
    shapes: list[tuple[int, int, int]], piece: int, offset: bool, beta: float | None, seed: int
) -> None:
    whole, slopes = made(shapes, WHOLE, offset=offset, seed=seed)
    pieces, _ = made(shapes, piece, offset=offset, seed=seed)
    for _ in range(2):
        for ours, theirs in zip(
            learn(pieces, slopes, beta), learn(whole, slopes, beta), strict=True
        ):
            assert_same_bits(ours, theirs)
    for ours, theirs in zip(all_of(pieces), all_of(whole), strict=True):
        assert_same_bits(ours, theirs)
    assert pieces.unsettled() == whole.unsettled()
    assert pieces.rounding_loss(3.0) == whole.rounding_loss(3.0)


@pytest.mark.parametrize(("before", "after"), [(WHOLE, 128), (128, WHOLE)])
def test_a_state_goes_on_in_pieces_of_another_size(before: int, after: int) -> None:
    shapes = [(64, 1, 12), (5, 2, 3)]
    begun, slopes = made(shapes, before, offset=False, seed=1)
    learn(begun, slopes, 19.0)
    resumed, _ = made(shapes, after, offset=False, seed=1)
    resumed.restore(begun.v, begun.adam_state())
    for soft in (begun, resumed):
        learn(soft, slopes, 18.0)
    for ours, theirs in zip(all_of(resumed), all_of(begun), strict=True):
        assert_same_bits(ours, theirs)


def test_large_weights_are_taken_in_pieces() -> None:
    soft, _ = made([(64, 1, 12), (5, 2, 3)], 128, offset=False, seed=1)
    assert soft._counts == [4, 1]
    assert [int(v.shape[0]) for v in soft._v] == [16, 16, 16, 16, 5]
