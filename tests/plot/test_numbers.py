"""The numbers behind the figures and the summary table, against plain NumPy."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from support.plot_inputs import (
    CHANNELS,
    HALF_EDGES,
    LAYERS,
    SIGMA,
    SOURCES,
    axes,
    coordinates,
    observed,
    raw_values,
    rows_of,
    timestep_stats,
    view_of,
)
from taqstore.plot import render
from taqstore.plot.kinds.channels import channel_data
from taqstore.plot.kinds.heatmap import heatmap_data
from taqstore.plot.kinds.histogram import draw_histogram
from taqstore.plot.kinds.range import range_data
from taqstore.plot.kinds.summary import COLUMNS, layer_summary
from taqstore.plot.parts.densities import DISPLAY_BINS, histogram_data


@pytest.mark.parametrize("source", SOURCES)
def test_range_numbers_are_those_of_the_raw_values(source: str) -> None:
    x = raw_values()
    got = range_data(view_of(SOURCES[source](), "range"))
    expected = np.median(x.max(2) - x.min(2), axis=-1)
    np.testing.assert_array_equal(got["median_range"].transpose("step", "layer"), expected)
    np.testing.assert_array_equal(got["tensor_min"].transpose("step", "layer"), x.min((2, 3)))
    np.testing.assert_array_equal(got["tensor_max"].transpose("step", "layer"), x.max((2, 3)))


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("source", ["postgelu", "observed"])
def test_heatmap_std_of_merged_batches_is_that_of_all_rows(source: str, chunked: bool) -> None:
    x, dataset = raw_values(), SOURCES[source]()
    dataset = dataset.chunk({"step": 2, "layer": 1}) if chunked else dataset
    got = heatmap_data(view_of(dataset, "heatmap"))
    for name, values in (("mean", x.mean(2)), ("std", x.std(2))):
        expected = np.median(values, axis=-1)
        np.testing.assert_allclose(got[name].transpose("step", "layer"), expected, rtol=1e-12)


def test_heatmap_without_moments_shows_absmax_and_shift() -> None:
    x = raw_values()
    got = heatmap_data(view_of(timestep_stats(), "heatmap"))
    midpoint = (x.min(2) + x.max(2)) / 2
    assert list(got) == ["absmax", "shift"]
    np.testing.assert_array_equal(got["absmax"], abs(x).max((2, 3)))
    np.testing.assert_array_equal(got["shift"], abs(midpoint).max(-1))


def test_channel_outliers_are_the_widest_over_all_and_per_step() -> None:
    x = raw_values()[:, 0]
    got = channel_data(view_of(observed(), "channels", layers=["mm_00_img"]))
    width = x.max((0, 1)) - x.min((0, 1))
    per_step = (x.max(1) - x.min(1)).argmax(-1)
    np.testing.assert_array_equal(got["range"], width)
    np.testing.assert_array_equal(np.flatnonzero(got["outlier"]), [width.argmax()])
    np.testing.assert_array_equal(width[np.argsort(got["rank"])], np.sort(width)[::-1])
    np.testing.assert_array_equal(got["outlier_steps"], np.bincount(per_step, minlength=CHANNELS))
    assert set(per_step) == {2, 5}


@pytest.mark.parametrize("source", SOURCES)
def test_density_integrates_to_one_and_counts_are_kept(source: str) -> None:
    dataset = SOURCES[source]()
    got = histogram_data(view_of(dataset, "histogram", layers=["mm0.txt"]))
    area = (got["density"] * (got["right"] - got["left"])).sum("bin")
    np.testing.assert_allclose(area, 1.0, rtol=1e-12)
    raw = dataset["hist_counts" if "hist_counts" in dataset else "histogram"].isel(layer=1)
    total = raw.sum([d for d in raw.dims if d != "step"])
    np.testing.assert_array_equal(got["count"].sum("bin"), total)


def test_density_has_true_widths_and_narrow_bins_merge_on_their_own_side_of_zero() -> None:
    dataset = observed()
    got = histogram_data(view_of(dataset, "histogram", layers=["mm1.img"]))
    counts = dataset["histogram"].sum("batch").sel(layer="mm1.img").values
    left, right = HALF_EDGES[:-1], HALF_EDGES[1:]
    shown = (left >= got["left"].min().item()) & (right <= got["right"].max().item())
    assert got.sizes["bin"] <= 2 * DISPLAY_BINS < shown.sum()
    for step, row in enumerate(counts):
        for a, b, density in zip(
            got["left"].values, got["right"].values, got["density"].values[step], strict=True
        ):
            inside = (left >= a) & (right <= b)
            assert density == pytest.approx(row[inside].sum() / row.sum() / (b - a), rel=1e-12)
    assert not ((got["left"] < 0) & (got["right"] > 0)).any()
    np.testing.assert_array_equal(got["left"][1:], got["right"][:-1])


def test_wide_tails_get_an_asinh_axis_and_even_ones_a_linear_axis() -> None:
    def layer(values: np.ndarray) -> xr.Dataset:
        counts = np.histogram(values, HALF_EDGES)[0].astype(np.uint32)
        sources_of = {"bin_left": ("bin", HALF_EDGES[:-1]), "bin_right": ("bin", HALF_EDGES[1:])}
        return xr.Dataset(
            {"histogram": (("step", "layer", "bin"), counts[None, None])},
            coords={**coordinates(LAYERS[:1], SIGMA[:1]), **sources_of},
        )

    even, wide = np.linspace(-1, 1, 999), np.append(np.linspace(-1, 1, 999), 400.0)
    assert histogram_data(view_of(layer(even), "histogram")).attrs["linear_width"] == 0.0
    shown = histogram_data(view_of(layer(wide), "histogram"))
    assert 0.1 < shown.attrs["linear_width"] < 1.0
    assert draw_histogram(shown, axes()).get_xscale() == "asinh"


@pytest.mark.parametrize("source", ["postgelu", "observed"])
def test_summary_equals_plain_numpy(source: str) -> None:
    x = raw_values()
    ranges = x.max(2) - x.min(2)
    got = layer_summary(SOURCES[source](), site="mlp.fc2")
    assert list(got) == list(COLUMNS)
    expected = {
        "median_mean": np.median(x.mean(2), axis=-1).mean(0),
        "median_std": np.median(x.std(2), axis=-1).mean(0),
        "median_range": np.median(ranges.swapaxes(0, 1).reshape(len(LAYERS), -1), axis=-1),
        "max_range": ranges.max((0, 2)),
    }
    for name, values in expected.items():
        np.testing.assert_allclose(got[name], values, rtol=1e-12)
    union = [len(set(ranges[:, layer].argmax(-1))) for layer in range(len(LAYERS))]
    assert got["outlier_channels"].values.tolist() == union
    assert union[0] == 2


def test_summary_leaves_out_columns_without_a_source() -> None:
    got = layer_summary(timestep_stats().drop_vars("hist_counts"), layers=["mm1.img"])
    assert list(got) == ["median_range", "max_range", "outlier_channels"]
    assert got["layer"].values.tolist() == ["mm1.img"]


def phase2_dataset(reference: Path) -> xr.Dataset:
    """The Phase 2 file as a pooled group, read with NumPy alone."""
    names = ("mm_00_img", "mm_00_txt", "mm_01_img", "mm_01_txt", "mm_02_img")
    with np.load(reference / "phase" / "activation_stats_postgelu.npz") as file:
        steps = np.sort(file["timesteps_unique"])[::-1]
        held = {k: file[k] for k in file.files if "::" in k}
        edges = file["histogram_bin_edges"]
    printed = {f"{t:.6f}": t for t in {float(k.split("::t=")[1].split("::")[0]) for k in held}}
    nearest = [min(printed, key=lambda p, t=t: abs(printed[p] - t)) for t in steps]  # type: ignore[misc]

    def stack(what: str) -> np.ndarray:
        return np.array([[held[f"{name}::t={t}::{what}"] for name in names] for t in nearest])

    dims = ("step", "layer", "channel")
    layers = ("mm0.img", "mm0.txt", "mm1.img", "mm1.txt", "mm2.img")
    return xr.Dataset(
        {
            **{name: (dims, stack(name)) for name in ("mean", "std", "min", "max")},
            "histogram": ((*dims[:2], "bin"), stack("histogram")),
            "bin_edges": ("edge", edges),
        },
        coords=coordinates(layers, steps / np.float32(1000)),
    )


@pytest.mark.reference
def test_summary_equals_the_source_table_but_for_its_negative_share(reference: Path) -> None:
    got = layer_summary(phase2_dataset(reference), site="mlp.fc2")
    lines = (reference / "expected" / "visualize_postgelu_table.txt").read_text().splitlines()
    rows = [line.split() for line in lines if re.match(r"mm_\d\d_(img|txt) ", line)]
    assert len(rows) == 5
    for name, mean, std, median, largest, negative, outliers in rows:
        kind, index, stream = name.split("_")
        row = got.sel(layer=f"{kind}{int(index)}.{stream}.mlp.fc2")
        columns = ("median_mean", "median_std", "median_range", "max_range")
        assert [f"{row[c].item():.4f}" for c in columns] == [mean, std, median, largest]
        assert row["outlier_channels"].item() == int(outliers)
        assert 100 * row["negative_fraction"].item() > float(negative.rstrip("%")) + 4


@pytest.mark.reference
def test_negative_share_of_the_reference_is_51_0_percent(reference: Path, tmp_path: Path) -> None:
    dataset = phase2_dataset(reference)
    counts = dataset["histogram"].sel(layer="mm0.img").values
    total = counts.sum(1)
    assert f"{100 * counts[:, :256].sum() / total.sum():.1f}" == "51.0"
    # The source's table: without the bin just below zero, as a mean of the steps' shares.
    assert f"{100 * (counts[:, :255].sum(1) / total).mean():.1f}" == "45.3"
    render("negative", dataset, tmp_path, layers=["mm_00_img"], site="mlp.fc2")
    shares = {row["negative_fraction_all"] for row in rows_of(tmp_path / "negative_mlp_fc2.csv")}
    assert {f"{100 * float(share):.1f}" for share in shares} == {"51.0"}
