"""Scales and shifts against frozen oracle values and plain NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr

from support import oracle
from support.statistics_data import timestep_groups
from support.statistics_synthetic import (
    STEPS,
    activations,
    naive_percentile,
    observed,
    run_groups,
    source_statistics,
    synthetic_run,
)
from taqstore.analysis import pool, scales, shifts
from taqstore.analysis.ranges.percentile import interpolated_percentile
from taqstore.errors import MissingError, TaqError
from taqstore.statistics.histogram import Layout, count

RUN, DOCUMENT = synthetic_run()


@pytest.fixture(scope="module")
def groups() -> dict[str, xr.Dataset]:
    return run_groups(RUN, DOCUMENT)


def oracle_group() -> xr.Dataset:
    """The tensor of docs/notes.md as observations: 16 batches, one step, one layer, 32 channels."""
    x = oracle.tensor()[:, None, None]
    low, high = x.min(axis=-2), x.max(axis=-2)
    layout = Layout("float32", 8)
    counts = np.array([[[count(batch, layout)[0]]] for batch in x[:, 0, 0]])
    dims = ("batch", "step", "layer", "channel")
    return xr.Dataset(
        {
            "min": (dims, low),
            "max": (dims, high),
            "histogram": (("batch", "step", "layer", "bin"), counts, layout.attrs),
        },
        {"batch": range(16), "step": [0], "layer": ["mm0.img"]},
    )


# -- frozen values (docs/notes.md) --------------------------------------------------------------


def test_affine_oracle() -> None:
    got = scales(oracle_group(), symmetric=False)
    assert got["lower"].item() == pytest.approx(-150.057098, rel=1e-8)
    assert got["upper"].item() == pytest.approx(257.00415, rel=1e-8)
    assert got["step_size"].item() == pytest.approx(1.5963186, rel=1e-7)
    assert got["zero_point"].item() == 94
    assert (got.attrs["qmin"], got.attrs["qmax"]) == (0, 255)


def test_symmetric_channel_oracle() -> None:
    """The frozen steps are absmax / 127.5 (torch, qint8); here absmax / 127, in float64."""
    got = scales(oracle_group(), per="channel")
    steps = got["step_size"].values[0, 0, :4] * 127 / 127.5
    np.testing.assert_allclose(
        steps, [0.824759305, 0.173328340, 0.035395738, 0.133730307], rtol=1e-7
    )
    assert (got["zero_point"] == 0).all()


def test_percentile_oracle() -> None:
    """Within the relative bin width 2**-8 of the exact quantiles."""
    group = oracle_group()
    for percentile, expected in ((99, 17.5723305), (99.9, 41.1761093), (99.99, 90.655838)):
        got = scales(group, clip="percentile", percentile=percentile)
        assert got["alpha"].item() == pytest.approx(expected, rel=2**-8)
    tails = scales(group, clip="percentile", symmetric=False)
    assert tails["lower"].item() == pytest.approx(-29.9052696, rel=2**-8)
    assert tails["upper"].item() == pytest.approx(33.8980598, rel=2**-8)


def test_shift_oracle() -> None:
    got = shifts(oracle_group())["shift"].values[0, 0, :4]
    np.testing.assert_allclose(
        got, [-0.458691569, 1.167870571, -0.960232405, 2.091436702], rtol=3e-6
    )


# -- plain NumPy -----------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("per", ["tensor", "channel"])
def test_absmax_from_observations(bits: int, per: Any) -> None:
    x = activations("mlp.fc2")
    got = scales(observed("mlp.fc2", x, mantissa_bits=0), bits=bits, per=per)
    axes = (0, 3) if per == "channel" else (0, 3, 4)
    alpha = np.abs(x).max(axis=axes).astype(np.float64)
    np.testing.assert_array_equal(got["alpha"].values, alpha)
    np.testing.assert_array_equal(got["lower"].values, -alpha)
    np.testing.assert_array_equal(got["step_size"].values, alpha / (2 ** (bits - 1) - 1))
    assert got.attrs["qmin"] == -(2 ** (bits - 1))
    narrow = scales(observed("mlp.fc2", x, mantissa_bits=0), bits=bits, narrow_range=True)
    assert narrow.attrs["qmin"] == -(2 ** (bits - 1)) + 1


def test_affine_from_observations_per_channel() -> None:
    x = activations("mlp.fc1")
    got = scales(observed("mlp.fc1", x, mantissa_bits=0), bits=4, symmetric=False, per="channel")
    low = np.minimum(x.min(axis=(0, 3)), 0).astype(np.float64)
    high = np.maximum(x.max(axis=(0, 3)), 0).astype(np.float64)
    step = (high - low) / 15
    np.testing.assert_array_equal(got["step_size"].values, step)
    zero = [round(-lo / s) if s else 0 for lo, s in zip(low.flat, step.flat, strict=True)]
    np.testing.assert_array_equal(got["zero_point"].values.ravel(), zero)
    assert (step == 0).any()


def test_percentile_from_observations_is_exact_at_ten_bits() -> None:
    x = activations("mlp.fc1")
    alpha = scales(observed("mlp.fc1", x), clip="percentile", percentile=99)["alpha"].values
    values = np.abs(np.moveaxis(x, 0, 2).astype(np.float64)).reshape(len(STEPS), 3, -1)
    np.testing.assert_allclose(alpha, np.quantile(values, 0.99, axis=-1), rtol=1e-12)


def test_pooled_scales(groups: dict[str, xr.Dataset]) -> None:
    """Absmax is the stored rollup, a stored percentile is taken over, another one is worked out."""
    path = "pooled/timestep_stats/attn.qkv"
    absmax = scales(groups[path], bits=4)
    p999 = scales(groups[path], clip="percentile")
    p97 = scales(groups[path], clip="percentile", percentile=97, symmetric=False)
    assert p999["alpha"].dims == ("step", "layer", "projection")
    for step in STEPS:
        for projection in "qkv":
            entry = RUN[step][f"mm1.img.attn.{projection}_proj"]
            at = {"step": step, "layer": "mm1.img"}
            one = {**at, "projection": f"{projection}_proj"}
            assert absmax["alpha"].sel(at) == entry["tensor_absmax"]
            assert absmax["step_size"].sel(at) == entry["tensor_absmax"] / 7
            assert p999["alpha"].sel(one) == entry["hist_p999"]
            counts, edges = entry["hist_counts"], entry["hist_edges"]
            assert p97["lower"].sel(one) == naive_percentile(counts, edges, 3)
            assert p97["upper"].sel(one) == naive_percentile(counts, edges, 97)


def test_absent_layers_have_no_scale(groups: dict[str, xr.Dataset]) -> None:
    at = {"step": 6, "layer": "mm0.txt"}
    for options in ({}, {"symmetric": False}, {"clip": "percentile"}):
        got = scales(groups["pooled/timestep_stats/mlp.fc1"], **options)  # type: ignore[arg-type]
        assert np.isnan(got["step_size"].sel(at))
        assert got["zero_point"].sel(at) == 0


def test_interpolated_percentile_of_rows_equals_the_formula() -> None:
    rng = np.random.default_rng(8)
    counts = rng.integers(0, 4, (5, 3, 256)) * rng.integers(0, 2, (5, 3, 256))
    counts[2, 1] = 0
    counts[3, 0] = np.eye(256, dtype=int)[0] * 9
    edges = np.sort(rng.normal(size=(5, 3, 257)), axis=-1)
    for p in (0.1, 1.0, 50.0, 99.0, 99.9, 100.0):
        got = interpolated_percentile(counts, edges, percentile=p)
        for index in np.ndindex(5, 3):
            if counts[index].sum():
                assert got[index] == naive_percentile(counts[index], edges[index], p)
    assert np.isnan(interpolated_percentile(counts, edges, percentile=50.0)[2, 1])


@pytest.mark.reference
def test_percentiles_of_the_source(reference: Any) -> None:
    """All four tails of every linear, from its counts, equal to the last bit."""
    for dataset in timestep_groups(reference / "calibration_data" / "activations").values():
        stored = {"hist_p999": 99.9, "hist_p99": 99.0, "hist_p01": 1.0, "hist_p001": 0.1}
        for name, percentile in stored.items():
            got = xr.apply_ufunc(
                interpolated_percentile,
                dataset["hist_counts"],
                dataset["hist_edges"],
                input_core_dims=[["bin"], ["edge"]],
                kwargs={"percentile": percentile},
            )
            assert (got == dataset[name]).all()


# -- shifts ----------------------------------------------------------------------------------------


def test_shift_replays_the_source() -> None:
    x = activations("mlp.fc2")
    got = shifts(observed("mlp.fc2", x, mantissa_bits=0))
    for k, row in np.ndindex(len(STEPS), 3):
        expected = source_statistics(x[:, k, row])["shift"]
        np.testing.assert_array_equal(got["shift"].values[k, row], expected)
        low = x[:, k, row].min(axis=(0, 1)).astype(np.float64) - expected
        high = x[:, k, row].max(axis=(0, 1)).astype(np.float64) - expected
        np.testing.assert_array_equal(got["shifted_min"].values[k, row], low)
        largest = max(np.abs(low).max(), np.abs(high).max())
        assert got["shifted_alpha"].values[k, row] == largest


def test_momentum_zero_is_the_last_batch() -> None:
    x = activations("mlp.fc2")
    got = shifts(observed("mlp.fc2", x, mantissa_bits=0), momentum=0.0)["shift"].values
    last = x[-1].astype(np.float32)
    np.testing.assert_array_equal(got, (last.min(axis=2) + last.max(axis=2)) / 2)


def test_stored_shift(groups: dict[str, xr.Dataset]) -> None:
    fc2 = groups["pooled/timestep_stats/mlp.fc2"]
    got = shifts(fc2)
    entry = RUN[9]["mm0.txt.mlp.fc2"]
    at = {"step": 9, "layer": "mm0.txt"}
    np.testing.assert_array_equal(got["shift"].sel(at), entry["shift"])
    np.testing.assert_array_equal(got["shifted_max"].sel(at), entry["avg_max"] - entry["shift"])
    with pytest.raises(TaqError, match=r"momentum 0\.95, not 0\.9.*activations/<site>"):
        shifts(fc2, momentum=0.9)


# -- pooling ---------------------------------------------------------------------------------------


def test_pool_is_what_the_source_keeps() -> None:
    x = activations("mlp.fc2")
    got = pool(observed("mlp.fc2", x), site="mlp.fc2")
    for k, row in np.ndindex(len(STEPS), 3):
        kept = source_statistics(x[:, k, row])
        for name in ("avg_min", "avg_max", "shift"):
            np.testing.assert_array_equal(got[name].values[k, row], kept[name])
        assert got["tensor_min"].values[k, row] == kept["avg_min"].min()
    assert "shift" not in pool(observed("mlp.fc1", x), site="mlp.fc1")
    assert set(got.dims) == {"step", "layer", "channel", "bin"}


# -- refusals --------------------------------------------------------------------------------------


def test_missing_variables_are_named_with_the_groups_that_have_them() -> None:
    lut = xr.Dataset({"cv": (("layer",), [1.0])}, {"layer": ["mm0.img"]})
    with pytest.raises(MissingError, match=r"scales needs min with max or avg_min") as caught:
        scales(lut)
    for part in ("found cv", "activations/<site>", "pooled/timestep_stats/<site>"):
        assert part in str(caught.value)
    traced = xr.Dataset(
        {name: (("step", "layer", "channel"), np.ones((1, 1, 2))) for name in ("min", "max")}
    )
    with pytest.raises(MissingError, match=r"shifts needs shift or.*use pooled/timestep_stats"):
        shifts(traced)
    with pytest.raises(MissingError, match=r"scales needs hist_counts with hist_edges or"):
        scales(traced, clip="percentile")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clip": "mode"}, "clip 'mode'"),
        ({"per": "token"}, "per 'token'"),
        ({"clip": "percentile", "percentile": 0.999}, "percentile must be 50 to 100"),
        ({"clip": "percentile", "per": "channel"}, "histograms are of tensors"),
        ({"symmetric": False, "narrow_range": True}, "narrow_range does not go"),
        ({"bits": 1}, "bits must be 2 to 16"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(TaqError, match=message):
        scales(oracle_group(), **options)
