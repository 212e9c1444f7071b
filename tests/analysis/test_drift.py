"""Drift of a second run: against plain loops, brute force on values, and what chance does."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import xarray as xr

from taqstore.analysis.drift import drift
from taqstore.analysis.reruns.deals import deal, hands, standing
from taqstore.analysis.reruns.matching import Matched
from taqstore.errors import MissingError, MisuseError
from taqstore.query import analyze
from taqstore.statistics.histogram import Layout, count

LAYERS = ("mm0.img", "mm0.txt", "mm1.img", "mm1.txt")
SIGMA = (1.0, 0.7, 0.3)
LAYOUT = Layout("float16", 10)  # every bin is a value: expected errors are exact
CHANNELS = 5


def values(
    images: int, seed: int, *, scale: float = 1.0, only: str = "", sigma: Any = SIGMA
) -> Any:
    """float16 (batch, step, layer, token, channel); images differ in size as prompts make them."""
    rng = np.random.default_rng(seed)
    shape = (images, len(sigma), len(LAYERS), 12, CHANNELS)
    x = rng.standard_normal(shape) * np.exp(
        0.1 * rng.standard_normal((images, 1, len(LAYERS), 1, 1))
    )
    x *= 1 + np.asarray(sigma)[:, None, None, None]
    for place, layer in enumerate(LAYERS):
        x[:, :, place] *= scale if layer == only else 1.0
    return x.astype(np.float16)


def observed(x: Any, *, sigma: Any = SIGMA) -> dict[str, xr.Dataset]:
    """A store of these values."""
    counts = np.zeros((*x.shape[:3], LAYOUT.bins), np.uint32)
    for place in np.ndindex(x.shape[:3]):
        counts[place] = count(x[place], LAYOUT)[0]
    dims = ("batch", "step", "layer")
    attrs = {"layout": LAYOUT.dtype, "mantissa_bits": LAYOUT.mantissa_bits}
    group = xr.Dataset(
        {
            "histogram": ((*dims, "bin"), counts, attrs),
            "min": ((*dims, "channel"), x.min(axis=-2)),
            "max": ((*dims, "channel"), x.max(axis=-2)),
        },
        coords={
            "step": np.arange(len(sigma)),
            "layer": list(LAYERS),
            "sigma": ("step", np.asarray(sigma, np.float32)),
        },
    )
    return {"activations/mlp.fc2": group}


def rounded(x: Any, alpha: float, bits: int) -> Any:
    """Values quantized one after another, symmetric."""
    top = 2 ** (bits - 1) - 1
    step = alpha / top
    return np.clip(np.rint(x / step), -top - 1, top) * step


def sqnr(x: Any, alpha: float, bits: int) -> float:
    x = x.astype(np.float64).ravel()
    return float(10 * np.log10(np.mean(x**2) / np.mean((x - rounded(x, alpha, bits)) ** 2)))


def test_it_equals_quantizing_every_value() -> None:
    a, b = values(3, 1), values(4, 2, scale=1.7, only="mm0.txt")
    found = drift(observed(a), observed(b), bits=5, per="step")
    table = found["steps"].sel(linear=[f"{layer}.mlp.fc2" for layer in LAYERS])
    for at in np.ndindex(len(LAYERS), len(SIGMA)):
        x, y = a[:, at[1], at[0]], b[:, at[1], at[0]]
        own, theirs = (float(np.abs(side).max()) for side in (y, x))
        want = {
            "calibrated_sqnr": sqnr(x, theirs, 5),
            "own_sqnr": sqnr(y, own, 5),
            "drifted_sqnr": sqnr(y, theirs, 5),
        }
        for name, value in want.items():
            assert float(table[name].values[at]) == pytest.approx(value, abs=1e-9), (name, at)
    for place, layer in enumerate(LAYERS):
        noise = [
            np.mean([10 ** (-table[name].values[place, step] / 10) for step in range(len(SIGMA))])
            for name in ("own_sqnr", "drifted_sqnr")
        ]
        extra = float(found["linears"].sel(linear=f"{layer}.mlp.fc2")["extra_error"])
        assert extra == pytest.approx(10 * np.log10(noise[1] / noise[0]), abs=1e-9)
    assert (np.diff(found["linears"]["extra_error"].values) <= 0).all()


def test_ranges_of_groups_of_steps_are_those_of_the_first_run() -> None:
    a, b = values(3, 3), values(3, 4, scale=2.0, only="mm1.img")
    place = LAYERS.index("mm1.img")
    asked: list[tuple[Any, list[tuple[int, int]]]]
    asked = [("static", [(0, 3)]), ((1,), [(0, 1), (1, 3)])]
    for cuts, groups in asked:
        found = drift(observed(a), observed(b), bits=4, cuts=cuts, per="step")["steps"]
        for first, last in groups:
            alpha = float(np.abs(a[:, first:last, place]).max())
            for step in range(first, last):
                got = float(found["drifted_sqnr"].sel(linear="mm1.img.mlp.fc2", step=step))
                assert got == pytest.approx(sqnr(b[:, step, place], alpha, 4), abs=1e-9)


def test_other_steps_are_matched_by_the_nearest_sigma() -> None:
    sigma = (0.95, 0.35)
    a, b = values(3, 5), values(3, 6, sigma=sigma)
    found = drift(observed(a), observed(b, sigma=sigma), per="step")["steps"]
    assert found["first_step"].values.tolist() == [0, 2]
    np.testing.assert_allclose(found["sigma_gap"].values, [0.05, 0.05], atol=1e-6)
    alpha = float(np.abs(a[:, 2, 0]).max())
    got = float(found["drifted_sqnr"].sel(linear="mm0.img.mlp.fc2", step=1))
    assert got == pytest.approx(sqnr(b[:, 1, 0], alpha, 8), abs=1e-9)


def test_cuts_are_where_the_second_run_reaches_their_noise_level() -> None:
    sigmas = (0.9, 0.6, 0.5, 0.2)
    first, second = (observed(values(1, 7, sigma=s), sigma=s) for s in (SIGMA, sigmas))
    matched = Matched.of(*(side["activations/mlp.fc2"] for side in (first, second)))
    assert matched.first.tolist() == [0, 1, 1, 2]
    assert matched.cuts((1, 2)) == (1, 3)
    assert matched.cuts((2,), [0, 1]) == "static"
    assert matched.cuts("static") == "static"
    assert matched.cuts(None) is None


def test_a_planted_drift_is_found_and_named() -> None:
    a = observed(values(8, 8))
    for scale in (3.0, 0.2):  # clipped, and far too wide
        b = observed(values(8, 9, scale=scale, only="mm1.txt"))
        found = drift(a, b, bits=4)
        linears = found["linears"]
        flagged = linears["linear"].values[linears["recalibrate"].values]
        assert flagged.tolist() == ["mm1.txt.mlp.fc2"]
        assert bool(found["verdict"]["drifted"])
        assert "mm1.txt.mlp.fc2" in found["verdict"].attrs["failure"]
    alone = drift(a, observed(values(8, 9)), bits=4)
    assert not alone["verdict"]["drifted"]
    assert alone["verdict"].attrs["failure"] == ""


@pytest.mark.parametrize(
    "clip", ["absmax", "percentile", "mse", "average", "ema", "mean_percentile"]
)
def test_a_rerun_with_other_seeds_is_no_drift_under_any_rule(clip: str) -> None:
    heap = values(12, 10)
    alarms = [
        bool(drift(observed(heap[:6]), observed(heap[6:]), bits=4, clip=clip)["verdict"]["drifted"])
    ]
    assert not any(alarms)
    far = observed(heap[6:] * np.float16(4))
    assert drift(observed(heap[:6]), far, bits=4, clip=clip, deals=110)["verdict"]["drifted"]


def test_to_stand_out_is_as_rare_as_it_should_be() -> None:
    """Exchangeable rows: the first stands out in 1 of n, whatever their distribution."""
    rng = np.random.default_rng(11)
    rows, trials = 20, 4000
    heavy = rng.standard_t(2, (trials, rows, 6)) * [1, 5, 1, 0.1, 3, 0] + 1
    found = sum(bool(standing(one, floor=0.0).beyond.any()) for one in heavy)
    assert abs(found / trials - 1 / rows) < 4 * np.sqrt(1 / rows / trials)


def test_standing_is_a_plain_loop() -> None:
    rng = np.random.default_rng(12)
    table = rng.normal(0, 1, (9, 3))
    table[0, 1] = 8.0
    got = standing(table, floor=0.5)
    score = [
        [
            (table[r, c] - table[:, c].mean()) / np.sqrt(table[:, c].var() + 1e-4)
            if table[r, c] >= 0.5
            else -np.inf
            for c in range(3)
        ]
        for r in range(9)
    ]
    bar = max(max(row) for row in score[1:])
    assert got.beyond.tolist() == [score[0][c] > bar for c in range(3)]
    assert got.beyond.tolist() == [False, True, False]
    np.testing.assert_allclose(got.most, table[1:].max(axis=0))
    assert not standing(table, floor=9.0).beyond.any()
    means = [sum(row) / 3 for row in table]
    assert got.leads
    assert means[0] > max(means[1:])
    assert not standing(table[::-1], floor=0.5).leads


def test_deals_are_distinct_where_they_are_few() -> None:
    every = deal(3, 2, 100, seed=0)
    hands = [frozenset(row[3:]) for row in every.tolist()]
    assert sorted(map(sorted, hands)) == sorted(map(list, combinations(range(5), 2)))
    assert hands[0] == {3, 4}
    many = deal(8, 8, 40, seed=1)
    assert many.shape == (41, 16)
    assert many[0].tolist() == list(range(16))
    assert (np.sort(many, axis=1) == np.arange(16)).all()
    assert (deal(8, 8, 40, seed=1) == many).all()


def test_hands_are_alike_in_size_where_images_allow() -> None:
    assert hands(64, 16, count=400) == (16, 16)
    assert hands(16, 64, count=400) == (16, 16)
    assert hands(64, 4, count=400) == (8, 4)  # 495 ways; 7 and 4 are dealt 330
    assert hands(5, 4, count=400) == (5, 4)
    assert hands(1, 64, count=400) == (1, 64)


def test_many_images_of_the_first_run_hide_no_drift() -> None:
    """Not all are dealt: as many as the second run has."""
    first, second = values(40, 17), values(8, 18, scale=0.4, only="mm0.img")
    found = drift(observed(first), observed(second), bits=4)
    assert int(found["verdict"]["first_images"]) == int(found["verdict"]["second_images"]) == 8
    linears = found["linears"]
    assert linears["linear"].values[linears["recalibrate"].values].tolist() == ["mm0.img.mlp.fc2"]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda group: group.isel(batch=slice(1)), "images can be dealt"),
        (lambda group: group.assign(histogram=group["histogram"].sum("batch", keep_attrs=True),
                                    min=group["min"].min("batch"), max=group["max"].max("batch")),
         "pooled"),
    ],
)  # fmt: skip
def test_without_images_to_deal_the_floor_decides_alone(
    change: Callable[..., Any], why: str
) -> None:
    a, b = observed(values(4, 13)), observed(values(4, 14) * np.float16(3))
    few = {path: change(group) for path, group in b.items()}
    first = {path: change(group) for path, group in a.items()}
    verdict = drift(first, few, bits=4)["verdict"]
    assert why in str(verdict["judged_by"].values)
    assert int(verdict["deals"]) == 0
    assert bool(verdict["drifted"])
    assert why in verdict.attrs["failure"]
    assert not drift(first, few, bits=4, floor=50)["verdict"]["drifted"]


def test_stores_without_a_linear_in_common_are_refused() -> None:
    a = observed(values(1, 15))
    other = {"activations/mlp.fc1": a["activations/mlp.fc2"]}
    with pytest.raises(MissingError, match="no linear in common"):
        analyze("drift", a, other=other)
    with pytest.raises(MisuseError, match="floor"):
        analyze("drift", a, other=a, floor=-1.0)


def test_the_same_run_twice_loses_nothing() -> None:
    a = observed(values(5, 16))
    found = analyze("drift", a, other=a, clip="mse", bits=4)
    np.testing.assert_array_equal(found["linears"]["extra_error"].values, 0)
    assert not found["verdict"]["drifted"]
