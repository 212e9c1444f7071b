"""Diagnostics of the post-GELU study, against one-layer-at-a-time Python and by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr

from support.plot_inputs import (
    LAYERS,
    SIGMA,
    SOURCES,
    coordinates,
    observed,
    pooled_postgelu,
    raw_values,
    timestep_stats,
)
from taqstore.analysis import diagnostics
from taqstore.errors import MissingError


def naive(values: np.ndarray) -> dict[str, Any]:
    """The rules of FORMATS 7, Phase 2, on the values (step, row, channel) of one layer."""
    steps, rows, channels = values.shape
    count = max(1, int(0.02 * channels))
    ranges, means, deviations, seen = [], [], [], [0] * channels
    for step in range(steps):
        columns = [[float(values[step, row, c]) for row in range(rows)] for c in range(channels)]
        ranges.append([max(column) - min(column) for column in columns])
        means.append([sum(column) / rows for column in columns])
        deviations.append(
            [
                (sum((x - mean) ** 2 for x in column) / rows) ** 0.5
                for column, mean in zip(columns, means[-1], strict=True)
            ]
        )
        for channel in sorted(range(channels), key=lambda c: (-ranges[-1][c], c))[:count]:
            seen[channel] += 1
    everything = [float(x) for x in values.ravel()]
    overall = [
        max(values[:, :, c].ravel().tolist()) - min(values[:, :, c].ravel().tolist())
        for c in range(channels)
    ]
    chosen = sorted(range(channels), key=lambda c: (-overall[c], c))[:count]
    return {
        "step_range": [np.median(row) for row in ranges],
        "step_mean": [np.median(row) for row in means],
        "step_std": [np.median(row) for row in deviations],
        "median_range": np.median([x for row in ranges for x in row]),
        "max_range": max(x for row in ranges for x in row),
        "median_mean": sum(float(np.median(row)) for row in means) / steps,
        "median_std": sum(float(np.median(row)) for row in deviations) / steps,
        "widest_count": sum(n > 0 for n in seen),
        "widest_steps": seen,
        "widest_overall": [c in chosen for c in range(channels)],
        "negative_fraction": [
            sum(x < 0 for x in values[step].ravel()) / values[step].size for step in range(steps)
        ],
        "negative_fraction_all": sum(x < 0 for x in everything) / len(everything),
        "counted": [values[step].size for step in range(steps)],
    }


@pytest.mark.parametrize("lazy", [False, True])
def test_every_number_equals_plain_python(lazy: bool) -> None:
    dataset = observed().chunk({"batch": 1, "step": 3, "layer": 2}) if lazy else observed()
    got, x = diagnostics(dataset).compute(), raw_values()
    for place, layer in enumerate(LAYERS):
        expected = naive(x[:, place])
        assert set(expected) == set(got.data_vars)
        for name, values in expected.items():
            np.testing.assert_allclose(got[name].sel(layer=layer), values, rtol=1e-12, err_msg=name)


def test_sums_over_steps_do_not_depend_on_blocks() -> None:
    whole = pooled_postgelu().isel(step=[*range(4)] * 6)
    whole = whole.assign_coords(step=np.arange(24))
    names = ["median_mean", "median_std", "negative_fraction_all"]
    one, other = (
        diagnostics(data)[names] for data in (whole, whole.chunk({"step": 5, "layer": 1}))
    )
    xr.testing.assert_identical(one, other.compute())


def test_what_the_source_cannot_tell_is_left_out() -> None:
    whole = set(diagnostics(pooled_postgelu()))
    assert {"step_mean", "median_range", "negative_fraction"} <= whole
    averaged = set(diagnostics(timestep_stats()))
    assert whole - averaged == {"step_mean", "step_std", "median_mean", "median_std"}
    only = diagnostics(pooled_postgelu()[["histogram", "bin_edges"]])
    assert set(only) == {"negative_fraction", "negative_fraction_all", "counted"}
    with pytest.raises(MissingError, match=r"diagnostics needs min with max or .* \(found shift\)"):
        diagnostics(timestep_stats()[["shift"]])


def test_what_is_unknown_is_left_out_of_medians_and_infinity_is_not() -> None:
    dataset = pooled_postgelu()
    dataset["max"][0, 0, 3] = np.nan
    dataset["max"][1, 0] = np.nan
    dataset["max"][2, 0, 4] = np.inf
    dataset["mean"][1, 0] = np.nan
    got = diagnostics(dataset).sel(layer="mm0.img")
    width = (dataset["max"] - dataset["min"]).sel(layer="mm0.img").values
    assert got["step_range"].values[0] == np.median(np.delete(width[0], 3))
    assert np.isnan(got["step_range"].values[1])
    assert got["max_range"] == np.inf
    assert got["widest_steps"].values[4] >= 1
    medians = np.median(dataset["mean"].sel(layer="mm0.img").values, axis=-1)
    assert got["median_mean"] == pytest.approx(np.delete(medians, 1).mean(), rel=1e-12)


def test_projections_have_shares_of_their_own() -> None:
    dataset = timestep_stats(projections=True)
    got = diagnostics(dataset)
    assert set(got["negative_fraction_all"].dims) == {"projection", "layer"}
    for name in dataset["projection"].values:
        alone = diagnostics(dataset.sel(projection=name))
        for share in ("negative_fraction", "negative_fraction_all"):
            np.testing.assert_allclose(got[share].sel(projection=name), alone[share], rtol=1e-12)


def test_batch_without_values_leaves_the_moments_as_they_are() -> None:
    dataset = observed()
    hole = dataset.isel(batch=[0]).assign_coords(batch=[9])
    hole["count"], hole["mean"], hole["m2"] = (
        xr.full_like(hole[name], fill)
        for name, fill in (("count", 0), ("mean", np.nan), ("m2", np.nan))
    )
    wider = xr.concat(
        [dataset, hole],
        "batch",
        data_vars="minimal",
        coords="minimal",
        compat="equals",
        join="outer",
    )
    names = ["step_mean", "step_std", "median_mean", "median_std"]
    before, after = (diagnostics(d)[names] for d in (dataset, wider))
    xr.testing.assert_equal(before, after)


@pytest.mark.parametrize(
    ("channels", "count"), [(1, 1), (49, 1), (100, 2), (1536, 30), (6144, 122)]
)
def test_outliers_are_two_percent_and_at_least_one(channels: int, count: int) -> None:
    ranges = np.random.default_rng(0).permutation(channels).astype(float)
    high = np.stack([ranges, np.full(channels, np.nan)])[None]
    dims = ("step", "layer", "channel")
    dataset = xr.Dataset(
        {"min": (dims, np.zeros_like(high)), "max": (dims, high)},
        coords=coordinates(LAYERS[:2], SIGMA[:1]),
    )
    got = diagnostics(dataset)
    assert got["widest_count"].values.tolist() == [count, 0]
    for name in ("widest_overall", "widest_steps"):
        mask = got[name].values.astype(bool)
        assert mask.sum(axis=1).tolist() == [count, 0]
        assert ranges[mask[0]].min() == channels - count


def test_negative_fraction_counts_the_bin_just_below_zero() -> None:
    values = np.concatenate([np.full(40, -0.001), np.full(11, -3.0), np.zeros(9), np.full(40, 2.0)])
    edges = np.linspace(-8, 8, 513)
    counts = np.histogram(values, edges)[0]
    dataset = xr.Dataset(
        {"histogram": (("step", "layer", "bin"), counts[None, None]), "bin_edges": ("edge", edges)},
        coords=coordinates(LAYERS[:1], SIGMA[:1]),
    )
    got = diagnostics(dataset)
    assert got["negative_fraction"].item() == 0.51
    centers = (edges[1:] + edges[:-1]) / 2
    assert counts[centers < -edges[257]].sum() / counts.sum() == 0.11  # what the source reported


@pytest.mark.parametrize("source", ["postgelu", "observed"])
def test_negative_fraction_is_exact_where_zero_is_an_edge(source: str) -> None:
    x = raw_values()
    if source == "postgelu":  # that writer dropped what lies outside its edges
        x = np.where(abs(x) <= 8, x, np.nan)
    negative, counted = (x < 0).sum((2, 3)), np.isfinite(x).sum((2, 3))
    got = diagnostics(SOURCES[source]())
    np.testing.assert_array_equal(got["counted"], counted)
    np.testing.assert_array_equal(got["negative_fraction"], negative / counted)
    np.testing.assert_array_equal(got["negative_fraction_all"], negative.sum(0) / counted.sum(0))


def test_bin_that_straddles_zero_counts_by_its_width_below() -> None:
    edges = np.array([[[-2.0, -1.0, 3.0]], [[-1.0, 0.0, 1.0]], [[1.0, 2.0, 3.0]], [[np.nan] * 3]])
    counts = np.array([[[2, 4]], [[30, 10]], [[5, 5]], [[0, 0]]])
    dataset = xr.Dataset(
        {
            "hist_counts": (("step", "layer", "bin"), counts),
            "hist_edges": (("step", "layer", "edge"), edges),
        },
        coords=coordinates(LAYERS[:1]),
    )
    got = diagnostics(dataset)
    np.testing.assert_array_equal(got["negative_fraction"][:, 0], [0.5, 0.75, 0.0, np.nan])
    assert got["negative_fraction_all"].item() == (3 + 30) / (6 + 40 + 10)


def test_values_that_are_no_numbers_are_counted_by_step() -> None:
    dataset = observed()
    counts = np.random.default_rng(3).integers(0, 4, (3, len(SIGMA), len(LAYERS), 3))
    dims = ("batch", "step", "layer", "nonfinite_kind")
    got = diagnostics(dataset.assign(nonfinite=(dims, counts.astype(np.uint64))))
    for step, layer in np.ndindex(len(SIGMA), len(LAYERS)):
        expected = sum(int(counts[b, step, layer, k]) for b in range(3) for k in range(3))
        assert got["nonfinite_count"].values[step, layer] == expected
    assert "nonfinite_count" not in diagnostics(dataset)
