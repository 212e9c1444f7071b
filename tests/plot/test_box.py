"""Boxes per channel and SQNR maps: their numbers against plain NumPy on the raw values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from support.plot_inputs import (
    CHANNELS,
    LAYERS,
    SIGMA,
    SOURCES,
    axes,
    batches,
    exact,
    observed,
    one_layer,
    pooled_postgelu,
    raw_values,
    timestep_stats,
    view_of,
)
from taqstore.errors import MissingError
from taqstore.plot import render
from taqstore.plot.kinds.box import box_data, box_pages, draw_boxes
from taqstore.plot.kinds.sqnr import sqnr_data, sqnr_pages
from taqstore.plot.parts.drawing import heatmap_style

QUARTILES = {"low": 0.0, "q1": 0.25, "median": 0.5, "q3": 0.75, "high": 1.0}


@pytest.mark.parametrize("source", SOURCES)
def test_boxes_are_quartiles_of_extremes_over_steps_and_batches(source: str) -> None:
    x = raw_values()[:, 0]
    widest = np.argsort(-(x.max((0, 1)) - x.min((0, 1))), kind="stable")[:5]
    parts = np.split(x, [3, 4], axis=1) if source == "observed" else [x]
    data = box_data(one_layer(source, "box"), count=5)
    assert data["channel"].values.tolist() == widest.tolist()
    for shown, extreme in (("smallest", np.min), ("largest", np.max)):
        seen = np.stack([extreme(part, axis=1) for part in parts]).reshape(-1, CHANNELS)
        for name, level in QUARTILES.items():
            expected = np.quantile(seen[:, widest], level, axis=0)
            np.testing.assert_allclose(data[name].sel(shown=shown), expected, rtol=1e-12)


def test_boxes_from_channel_histograms_are_quartiles_of_the_values() -> None:
    x = batches()[:, :, 1].reshape(-1, CHANNELS)
    levels = {**QUARTILES, "low": 0.01, "high": 0.99, "minimum": 0.0, "maximum": 1.0}
    data = box_data(view_of(exact(by_channel=True), "box", layers=["mm0.txt"]))
    channel = data["channel"].values
    assert channel.tolist() == np.argsort(x.min(0) - x.max(0), kind="stable").tolist()
    for name, level in levels.items():
        expected = np.quantile(x[:, channel], level, axis=0)
        np.testing.assert_allclose(data[name].sel(shown="values"), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("dataset", "parts"),
    [
        (
            observed(),
            ["smallest and of its largest value over 4 steps x 3 batches", "whiskers: ex"],
        ),
        (timestep_stats(), ["largest value over 4 steps;", "means over images of per-image"]),
        (exact(by_channel=True), ["all values over 4 steps x 3 batches", "1 % and 99 %", "1/1024"]),
    ],
)
def test_titles_say_what_the_boxes_are_of(dataset: xr.Dataset, parts: list[str]) -> None:
    page = next(box_pages(view_of(dataset, "box"), ""))
    title = page.figure.get_suptitle()
    assert "the 7 widest of 7 channels" in title
    for part in parts:
        assert part in title


def test_boxes_stand_at_the_quartiles() -> None:
    data = box_data(one_layer("observed", "box"), count=2)
    ax = draw_boxes(data, axes())
    assert len(ax.patches) == 4
    for patch, (shown, at) in zip(
        ax.patches, [(s, i) for s in ("smallest", "largest") for i in range(2)], strict=True
    ):
        y = patch.get_path().vertices[:, 1]
        one = data.sel(shown=shown).isel(channel=at)
        assert (y.min(), y.max()) == (float(one["q1"]), float(one["q3"]))
    assert [t.get_text() for t in ax.get_xticklabels()] == [str(c) for c in data["channel"].values]


@pytest.mark.parametrize("kind", ["channelmap", "box"])
def test_layers_without_values_get_no_page_unless_none_has_any(kind: str, tmp_path: Path) -> None:
    dataset = pooled_postgelu()
    for name in ("min", "max"):
        dataset[name][:, 1] = np.nan
    render(kind, dataset, tmp_path, formats=())
    assert sorted(p.stem for p in tmp_path.iterdir()) == [f"{kind}_mm0_img", f"{kind}_mm1_img"]
    with pytest.raises(MissingError, match=r"^mm0\.txt: no channel has a finite"):
        render(kind, dataset, tmp_path, layers=["mm0.txt"])


def quantized(x: np.ndarray, bits: int) -> np.ndarray:
    top = 2 ** (bits - 1) - 1
    size = abs(x).max() / top
    return np.clip(np.round(x / size), -top - 1, top) * size


@pytest.mark.parametrize("bits", [4, 8])
def test_sqnr_is_that_of_quantizing_the_values(bits: int) -> None:
    x = batches()
    got = sqnr_data({"activations/mlp.fc2": exact()}, bits=bits)["mlp.fc2"]
    assert got["layer"].values.tolist() == [f"{name}.mlp.fc2" for name in LAYERS]
    for step in range(len(SIGMA)):
        for layer in range(len(LAYERS)):
            values = x[:, step, layer]
            error = ((values - quantized(values, bits)) ** 2).mean()
            one = got.isel(step=step, layer=layer)
            assert float(one["error"]) == pytest.approx(error, rel=1e-9)
            expected = 10 * np.log10((values**2).mean() / error)
            assert float(one["sqnr"]) == pytest.approx(expected, abs=1e-8)


def test_sqnr_of_all_sites_stands_on_one_page() -> None:
    groups = {
        "pooled/timestep_stats/attn.qkv": timestep_stats(projections=True),
        "pooled/timestep_stats/attn.o_proj": timestep_stats(),
    }
    (page,) = sqnr_pages(groups, bits=6)
    assert page.stem == "sqnr_6bit"
    titles = [ax.get_title() for ax in page.figure.axes if ax.get_title()]
    sites = ["attn.qkv q_proj", "attn.qkv k_proj", "attn.qkv v_proj", "attn.o_proj"]
    assert titles == [f"{stream}: {site}" for stream in ("image", "text") for site in sites]
    assert len(page.table) == len(SIGMA) * len(LAYERS) * 4
    direct = sqnr_data(groups, bits=6)["attn.o_proj"]
    chosen = page.table[page.table["layer"] == "mm1.img.attn.o_proj"].set_index("step")["sqnr"]
    for step in range(len(SIGMA)):
        expected = float(direct["sqnr"].sel(layer="mm1.img.attn.o_proj").isel(step=step))
        assert chosen[step] == expected


def test_decibels_are_never_drawn_on_a_logarithmic_scale() -> None:
    (page,) = sqnr_pages({"activations/mlp.fc2": exact()}, bits=8)
    mesh = page.figure.axes[0].collections[0]
    assert type(mesh.norm).__name__ == "Normalize"
    assert type(heatmap_style(np.array([0.5, 40.0]))[0]).__name__ == "LogNorm"


def test_sqnr_of_empty_histograms_is_refused() -> None:
    empty = pooled_postgelu().assign(histogram=lambda d: xr.zeros_like(d["histogram"]))
    with pytest.raises(MissingError, match=r"plot sqnr: no values were counted"):
        next(sqnr_pages({"pooled/postgelu/mlp.fc2": empty}))
