"""Ridgelines, heat maps and channel maps: their numbers against plain NumPy."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from matplotlib.patches import StepPatch

from support.plot_inputs import (
    CHANNELS,
    LAYERS,
    SIGMA,
    SOURCES,
    axes,
    observed,
    one_layer,
    pooled_postgelu,
    raw_values,
    rows_of,
    timestep_stats,
    view_of,
)
from taqstore.plot import render
from taqstore.plot.kinds.channelmap import channelmap_data, draw_channelmap, merged, widest_channels
from taqstore.plot.kinds.histogram import draw_histogram
from taqstore.plot.kinds.ridgeline import DECADES, OVERLAP, draw_ridgeline, ridgeline_data


@pytest.mark.parametrize("far", [False, True])
@pytest.mark.parametrize("source", SOURCES)
def test_ridges_hold_equal_areas_on_the_axis_they_are_drawn_on(source: str, far: bool) -> None:
    view = one_layer(source, "ridgeline")
    if far and source == "observed":
        view["histogram"][0, 0, 0, -40] += 1  # about 26,000: the axis becomes asinh
    data = ridgeline_data(view)
    width = data.attrs["linear_width"]
    assert (width > 0) == (far and source == "observed")
    left, right = data["left"].values, data["right"].values
    placed = np.arcsinh(right / width) - np.arcsinh(left / width) if width else right - left
    area = (data["height"].transpose("step", "bin").values * placed).sum(axis=1)
    np.testing.assert_allclose(area, 1.0, rtol=1e-12)


def test_ridges_rise_by_the_logarithm_from_lines_in_order_of_noise() -> None:
    data = ridgeline_data(one_layer("postgelu", "ridgeline"))
    ax = draw_ridgeline(data, axes())
    ridges = [patch for patch in ax.patches if isinstance(patch, StepPatch)]
    heights = data["height"].transpose("step", "bin").values
    tallest = []
    for step in range(len(SIGMA)):
        filled, outline = ridges[2 * step : 2 * step + 2]
        values, edges, baseline = filled.get_data()
        assert baseline == -step
        np.testing.assert_array_equal(values, outline.get_data().values)
        used = np.flatnonzero(heights[step])
        assert edges[0] == data["left"][used[0]]
        assert edges[-1] == data["right"][used[-1]]
        shown = heights[step, used[0] : used[-1] + 1] / heights.max()
        rise = OVERLAP * (1 + np.log10(np.maximum(shown, 10.0**-DECADES)) / DECADES)
        np.testing.assert_allclose(values, rise - step, atol=1e-12)
        tallest.append(values.max() + step)
    assert max(tallest) == pytest.approx(OVERLAP, rel=1e-12)
    labels = [float(label.get_text()) for label in ax.get_yticklabels()]
    np.testing.assert_allclose(labels, SIGMA, rtol=5e-3)
    assert ax.get_yticks().tolist() == [0, -1, -2, -3]


def test_an_asinh_axis_ends_where_the_values_do() -> None:
    view = one_layer("observed", "ridgeline")
    view["histogram"][0, 0, 0, -40] += 1
    data = ridgeline_data(view)
    width = data.attrs["linear_width"]
    ends = np.array([data["left"].min(), data["right"].max()])
    placed = np.arcsinh(ends / width)
    for draw in (draw_ridgeline, draw_histogram):
        ax = draw(data, axes())
        margins = abs(np.arcsinh(np.array(ax.get_xlim()) / width) - placed)
        assert (margins <= 0.051 * np.ptp(placed)).all()
        ticks = ax.get_xticks()
        assert 0 in ticks
        assert {1000.0, 10000.0} <= set(ticks)


def test_ridgeline_csv_has_every_value_once(tmp_path: Path) -> None:
    render("ridgeline", observed(), tmp_path, layers=["mm1.img"], site="mlp.fc2", formats=())
    rows = rows_of(tmp_path / "ridgeline_mm1_img_mlp_fc2.csv")
    x = raw_values()[:, 2]
    for step in range(len(SIGMA)):
        counted = [int(row["count"]) for row in rows if int(row["step"]) == step]
        assert sum(counted) == x[step].size


@pytest.mark.parametrize("source", ["postgelu", "observed"])
def test_heatmap_has_moments_and_absmax_where_both_are_known(source: str, tmp_path: Path) -> None:
    x = raw_values()
    render("heatmap", SOURCES[source](), tmp_path, site="mlp.fc2", formats=())
    expected = {
        "mean": np.median(x.mean(2), axis=-1),
        "std": np.median(x.std(2), axis=-1),
        "absmax": abs(x).max((2, 3)),
    }
    for name, values in expected.items():
        rows = rows_of(tmp_path / f"heatmap_mlp_fc2_{name}.csv")
        assert len(rows) == values.size
        for row in rows:
            layer = LAYERS.index(row["layer"].removesuffix(".mlp.fc2"))
            assert float(row[name]) == pytest.approx(values[int(row["step"]), layer], rel=1e-12)


@pytest.mark.parametrize("source", SOURCES)
def test_channelmap_is_log2_of_the_largest_magnitude(source: str) -> None:
    expected = abs(raw_values()[:, 0]).max(1)
    data = channelmap_data(one_layer(source, "channelmap"))
    np.testing.assert_array_equal(data["absmax"], expected)
    np.testing.assert_array_equal(data["log2_absmax"], np.log2(expected))
    order = np.argsort(-expected.max(0), kind="stable")
    np.testing.assert_array_equal(data["channel"].values[np.argsort(data["rank"].values)], order)
    some = widest_channels(data, count=3)
    assert some["channel"].values.tolist() == order[:3].tolist()
    np.testing.assert_array_equal(some["absmax"], expected[:, order[:3]])


@pytest.mark.parametrize("columns", [1, 3, 4, 7, 1024])
def test_channels_that_share_a_column_leave_their_largest(columns: int) -> None:
    data = channelmap_data(one_layer("observed", "channelmap"))
    full, got = data["log2_absmax"].values, merged(data, columns=columns)
    assert got.sizes["channel"] <= columns
    pairs = list(zip(got["channel"].values, got["last_channel"].values, strict=True))
    assert pairs[0][0] == 0
    assert pairs[-1][1] == CHANNELS - 1
    for (_, before), (start, _) in itertools.pairwise(pairs):
        assert start == before + 1
    expected = [full[:, first : last + 1].max(1) for first, last in pairs]
    np.testing.assert_array_equal(got["log2_absmax"], np.transpose(expected))


def test_channels_of_zeros_and_unknown_ones_are_gaps_not_minus_infinity() -> None:
    dataset = pooled_postgelu()
    dataset["min"][:, 0, 4] = dataset["max"][:, 0, 4] = 0.0
    dataset["max"][1, 0, 2] = np.nan
    data = channelmap_data(view_of(dataset, "channelmap", layers=["mm0.img"]))
    assert np.isnan(data["log2_absmax"][:, 4]).all()
    assert data["rank"].values[4] == CHANNELS - 1
    gaps = np.isnan(data["log2_absmax"].values)
    assert gaps.sum() == len(SIGMA) + 1
    mesh = draw_channelmap(data, axes()).collections[0].get_array()
    assert mesh is not None
    np.testing.assert_array_equal(np.ma.getmaskarray(mesh), gaps)


def test_channelmap_has_noise_at_the_top_and_channels_along_x() -> None:
    data = channelmap_data(one_layer("observed", "channelmap"))
    ax = draw_channelmap(data, axes())
    mesh = ax.collections[0]
    np.testing.assert_array_equal(mesh.get_array(), data["log2_absmax"])
    corners = mesh.get_coordinates()
    np.testing.assert_array_equal(corners[0, :, 0], np.arange(CHANNELS + 1) - 0.5)
    middles = (SIGMA[1:].astype(float) + SIGMA[:-1]) / 2
    np.testing.assert_allclose(corners[1:-1, 0, 1], middles, rtol=1e-12)
    bottom, top = ax.get_ylim()
    assert top == 1.0
    assert bottom == 0.0


def test_channelmap_csv_has_all_channels_and_the_largest_ones(tmp_path: Path) -> None:
    render("channelmap", timestep_stats(), tmp_path, layers=["mm0.txt"], formats=())
    rows = rows_of(tmp_path / "channelmap_mm0_txt.csv")
    x = abs(raw_values()[:, 1]).max(1)
    for panel in ("all", "largest"):
        mine = [row for row in rows if row["panel"] == panel]
        assert len(mine) == x.size
        for row in mine:
            assert row["channel"] == row["last_channel"]
            value = x[int(row["step"]), int(row["channel"])]
            assert float(row["absmax"]) == value
            assert float(row["log2_absmax"]) == np.log2(value)
