"""Rules of the clip range: against other tools' frozen results and plain NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr

from support import oracle
from support.statistics_synthetic import STEPS, activations, observed, run_groups, synthetic_run
from taqstore.analysis import error, scales
from taqstore.errors import MissingError, TaqError
from taqstore.quantization.quantizer import affine, symmetric
from taqstore.statistics.histogram import Layout, count


@pytest.fixture(scope="module")
def group() -> xr.Dataset:
    """The tensor of docs/notes.md as observations, in the default layout of 5 mantissa bits."""
    x = oracle.tensor()
    layout = Layout("float32", 5)
    dims = ("batch", "step", "layer")
    counts = np.array([count(batch, layout)[0] for batch in x])[:, None, None]
    return xr.Dataset(
        {
            "min": ((*dims, "channel"), x.min(axis=1)[:, None, None]),
            "max": ((*dims, "channel"), x.max(axis=1)[:, None, None]),
            "histogram": ((*dims, "bin"), counts, layout.attrs),
        },
        {"batch": range(16), "step": [0], "layer": ["mm0.img"]},
    )


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    """(batch, step, layer, row, channel) float16."""
    return activations("mlp.fc2")


@pytest.fixture(scope="module")
def data(x: np.ndarray) -> xr.Dataset:
    return observed("mlp.fc2", x)


@pytest.fixture(scope="module")
def pooled() -> xr.Dataset:
    return run_groups(*synthetic_run())["pooled/timestep_stats/mlp.fc2"]


def ends(result: xr.Dataset) -> tuple[float, float]:
    return result["lower"].item(), result["upper"].item()


# -- frozen values (docs/notes.md) --------------------------------------------------------------


def test_torch_moving_average(group: xr.Dataset) -> None:
    """To the last bit of float32, which is all that was frozen."""
    got = scales(group, clip="ema", momentum=0.95, symmetric=False)
    assert ends(got) == pytest.approx((-46.6011505, 55.1260757), rel=1e-8)
    assert got["step_size"].item() == pytest.approx(0.398930311, rel=1e-7)
    assert got["zero_point"].item() == 117


def test_torch_moving_average_per_channel(group: xr.Dataset) -> None:
    got = scales(group, clip="ema", momentum=0.95, symmetric=False, per="channel")
    low = [-31.081254959, -4.311739445, -2.196311474, -2.942892313]
    high = [30.163869858, 6.647480488, 0.275846571, 7.125765324]
    assert got["lower"].values[0, 0, :4] == pytest.approx(low, rel=1e-9)
    assert got["upper"].values[0, 0, :4] == pytest.approx(high, rel=1e-9)
    assert got["zero_point"].values[0, 0, :4].tolist() == [129, 100, 227, 75]


def test_nncf_mean_of_extrema(group: xr.Dataset) -> None:
    tensor = scales(group, clip="average", symmetric=False)
    assert ends(tensor) == pytest.approx((-59.5976334, 67.5343630), rel=1e-7)
    channel = scales(group, clip="average", symmetric=False, per="channel").isel(channel=0)
    assert ends(channel) == pytest.approx((-35.7156715, 37.3655930), rel=2e-7)


def test_exact_percentiles_within_a_bin(group: xr.Dataset) -> None:
    for percentile, exact in ((99, 17.5723305), (99.9, 41.1761093), (99.99, 90.655838)):
        got = scales(group, clip="percentile", percentile=percentile)["alpha"].item()
        assert got == pytest.approx(exact, rel=2**-5)
    got = ends(scales(group, clip="percentile", percentile=99.9, symmetric=False))
    assert got == pytest.approx((-29.9052696, 33.8980598), rel=2**-5)


def test_onnxruntime_entropy_within_a_bin(group: xr.Dataset) -> None:
    got = ends(scales(group, clip="entropy", symmetric=False))
    assert got == pytest.approx((-48.4392548, 48.6902466), rel=2**-5)
    assert scales(group, clip="entropy")["alpha"].item() == got[1]


@pytest.mark.parametrize(("bits", "least"), [(4, 3.31868822), (8, 0.262621603)])
def test_least_error_symmetric(group: xr.Dataset, bits: int, least: float) -> None:
    alpha = scales(group, clip="mse", bits=bits)["alpha"].item()
    wide = oracle.tensor().astype(np.float64)
    found = np.square(wide - symmetric(alpha, bits=bits).fake_quantize(wide)).mean()
    assert found <= 1.005 * least


@pytest.mark.parametrize(("bits", "least"), [(4, 3.2929), (8, 0.18817)])
def test_least_error_affine(group: xr.Dataset, bits: int, least: float) -> None:
    low, high = ends(scales(group, clip="mse", bits=bits, symmetric=False))
    wide = oracle.tensor().astype(np.float64)
    found = np.square(wide - affine(low, high, bits=bits).fake_quantize(wide)).mean()
    assert found <= 1.005 * least


@pytest.mark.parametrize(("bits", "share"), [(4, 0.19), (8, 0.92)])
def test_least_24_norm(group: xr.Dataset, bits: int, share: float) -> None:
    alpha = scales(group, clip="l2.4", bits=bits)["alpha"].item()
    assert alpha / 257.00415 == pytest.approx(share, abs=0.015)


@pytest.mark.parametrize(
    ("bits", "bounds", "found"),
    [
        (4, (-150.057098, 257.00415), 11.46),
        (8, (-150.057098, 257.00415), 0.219),
        (4, (-46.6011505, 55.1260757), 4.13),
        (8, (-46.6011505, 55.1260757), 1.102),
    ],
)
def test_errors_of_other_tools_ranges(
    group: xr.Dataset, bits: int, bounds: tuple[float, float], found: float
) -> None:
    got = error(group, bits=bits, symmetric=False, bounds=bounds)["error"].item()
    assert got == pytest.approx(found, rel=0.015)


# -- rules against plain NumPy, over steps and layers ----------------------------------------------


def test_static_range_is_that_of_all_calls(x: np.ndarray, data: xr.Dataset) -> None:
    got = scales(data, symmetric=False, cuts="static")
    np.testing.assert_array_equal(got["lower"].values[0], x.min(axis=(0, 1, 3, 4)))
    np.testing.assert_array_equal(got["upper"].values[0], x.max(axis=(0, 1, 3, 4)))


def test_groups_of_steps(x: np.ndarray, data: xr.Dataset) -> None:
    got = scales(data, cuts=[6, 15], per="channel")
    assert got["first_step"].values.tolist() == [0, 6, 15]
    assert got["last_step"].values.tolist() == [5, 12, 31]
    for index, part in enumerate((slice(0, 3), slice(3, 7), slice(7, 11))):
        expected = np.abs(x[:, part]).max(axis=(0, 1, 3))
        np.testing.assert_array_equal(got["alpha"].values[index], expected)


def test_groups_of_channels(x: np.ndarray, data: xr.Dataset) -> None:
    got = scales(data, symmetric=False, per="group", group_size=3)
    assert got.sizes["channel_group"] == 3
    for index, part in enumerate((slice(0, 3), slice(3, 6), slice(6, 7))):
        expected = x[..., part].min(axis=(0, 3, 4))
        np.testing.assert_array_equal(got["lower"].values[..., index], expected)


def test_moving_average_in_an_order_and_over_steps(x: np.ndarray, data: xr.Dataset) -> None:
    low = x.min(axis=(3, 4)).astype(np.float32)
    for cuts, order in ((None, (2, 0, 3, 1)), ("static", None), ("static", (3, 2, 1, 0))):
        got = scales(data, clip="ema", momentum=0.9, order=order, cuts=cuts, symmetric=False)
        calls = low[list(order or range(4))]
        rows = [calls] if cuts is None else [calls.reshape(-1, 3)]
        average = rows[0][0]
        for batch in rows[0][1:]:
            average = average + np.float32(1 - 0.9) * (batch - average)
        np.testing.assert_array_equal(got["lower"].values.squeeze(), average)


def test_means_over_calls(x: np.ndarray, data: xr.Dataset) -> None:
    per_call = x.max(axis=(3, 4)).astype(np.float64)
    got = scales(data, clip="average", symmetric=False, cuts="static")["upper"].values[0]
    np.testing.assert_allclose(got, per_call.mean(axis=(0, 1)), rtol=1e-14)
    flat = np.abs(x.astype(np.float64)).reshape(*x.shape[:3], -1)
    tails = np.quantile(flat, 0.99, axis=-1)
    got = scales(data, clip="mean_percentile", percentile=99)["alpha"]
    np.testing.assert_allclose(got, tails.mean(axis=0), rtol=1e-12)


def test_percentile_over_steps_and_chosen_batches(x: np.ndarray, data: xr.Dataset) -> None:
    some = data.isel(batch=[3, 1])
    got = scales(some, clip="percentile", percentile=98, cuts="static")["alpha"].values[0]
    chosen = np.abs(x[[3, 1]].astype(np.float64))
    expected = [np.quantile(chosen[:, :, layer], 0.98) for layer in range(3)]
    np.testing.assert_allclose(got, expected, rtol=1e-12)


def test_static_least_error_is_that_of_all_values(x: np.ndarray, data: xr.Dataset) -> None:
    alpha = scales(data, clip="mse", bits=4, cuts="static")["alpha"].values[0]
    for layer in range(3):
        wide = x[:, :, layer].astype(np.float64)
        found = np.square(wide - symmetric(alpha[layer], bits=4).fake_quantize(wide)).mean()
        tried = [
            np.square(wide - symmetric(a, bits=4).fake_quantize(wide)).mean()
            for a in np.abs(wide).max() * np.arange(1, 101) / 100
        ]
        assert found <= 1.0005 * min(tried)


def test_no_rule_but_the_moving_average_minds_the_order(data: xr.Dataset) -> None:
    reordered = data.isel(batch=[2, 0, 3, 1])
    for clip in ("absmax", "percentile", "mse", "entropy"):
        one, two = (scales(d, clip=clip)["alpha"].values for d in (data, reordered))
        np.testing.assert_array_equal(one, two)
    one, two = (scales(d, clip="ema")["alpha"].values for d in (data, reordered))
    assert (one != two).any()


# -- pooled sources and refusals -------------------------------------------------------------------


def test_pooled_rules(pooled: xr.Dataset) -> None:
    """Averages are stored; least error comes from the sampled histograms, exactly priced."""
    got = scales(pooled, clip="average", per="channel", symmetric=False)
    np.testing.assert_array_equal(got["lower"], pooled["avg_min"])
    best = error(pooled, clip="mse", bits=4)
    for share in (0.3, 0.5, 0.8, 1.0):
        other = error(pooled, bits=4, bounds=(0.0, share * 2 * best["alpha"]))
        known = best["error"].notnull() & (best["error"] > 0)
        assert (best["error"] <= 1.005 * other["error"]).where(known, True).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clip": "ema"}, r"scales needs batch with min with max.*activations/<site>"),
        ({"clip": "mean_percentile"}, r"scales needs batch with histogram.*activations/<site>"),
        ({"clip": "percentile", "cuts": "static"}, r"needs histograms that add.*postgelu"),
    ],
)
def test_what_pooled_sources_lack(pooled: xr.Dataset, options: Any, message: str) -> None:
    with pytest.raises(MissingError, match=message):
        scales(pooled, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clip": "ema", "order": [0, 1, 1, 2]}, "an order names each of the positions 0 to 3"),
        ({"clip": "mse", "order": [0, 1, 2, 3]}, "order goes with clip ema, not with mse"),
        ({"clip": "entropy", "per": "channel"}, "per channel does not go with entropy"),
        ({"per": "group"}, "group_size"),
        ({"group_size": 4}, "group_size"),
        ({"cuts": [0]}, r"no group of steps can begin at 0 \(found 3, 5"),
        ({"cuts": [8]}, "no group of steps can begin at 8"),
    ],
)
def test_options_that_make_no_sense(data: xr.Dataset, options: Any, message: str) -> None:
    with pytest.raises(TaqError, match=message):
        scales(data, **options)


def test_steps_are_as_expected(data: xr.Dataset) -> None:
    assert data["step"].values.tolist() == STEPS
